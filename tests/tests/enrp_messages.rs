//! What a registrar answers to single messages of a peer (RFC 5353), sent by hand.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use rserpool::protocol::registrar::{self, RegistrarConfig};
use rserpool::protocol::{ConnectionId, Registrar};
use rserpool::wire::enrp::{self, Body, HandleUpdate, Presence, Route, UpdateAction};
use rserpool::wire::parameter::PeChecksum;
use rserpool::wire::{Bytes, PoolElement, Ppid, RegistrarId, ServerInformation, UserMessage};
use rserpool_tests::by_hand::{registration, send_enrp, take_enrp};
use rserpool_tests::world::{Event, NodeId, World, address};

const SECOND: Duration = Duration::from_secs(1);
const OURS: RegistrarId = RegistrarId(1);

fn new_registrar(world: &mut World) -> NodeId {
    let config = RegistrarConfig::new(OURS, 1).enrp(address(0));
    world.registrar(Registrar::new(config))
}

fn route(sender: u32) -> Route {
    Route { sender: RegistrarId(sender), receiver: OURS }
}

fn presence(sender: u32, reply_required: bool) -> Presence {
    // Where it says that it is, nobody answers.
    let registrar = RegistrarId(sender);
    let server = Some(ServerInformation { registrar, transport: address(200) });
    Presence { reply_required, route: route(sender), checksum: Some(PeChecksum(0xffff)), server }
}

/// A peer with that identifier, whom the registrar knows from now on.
fn peer(world: &mut World, node: NodeId, identifier: u32) -> ConnectionId {
    let on = world.connect_for(Ppid::ENRP, node);
    send_enrp(world, on, presence(identifier, false));
    // It is asked for what it has.
    let page = enrp::HandleTableResponse {
        more_to_send: false,
        reject: false,
        route: route(identifier),
        pools: Vec::new(),
    };
    send_enrp(world, on, page);
    take_enrp(world, on);
    on
}

/// Tells the registrar of an element of that peer.
fn update(world: &mut World, on: ConnectionId, home: u32, action: UpdateAction, identifier: u32) {
    let registration = registration("Pool", identifier);
    let update = HandleUpdate {
        takeover_suggested: false,
        route: route(home),
        action,
        reserved: 0,
        pool_handle: registration.pool_handle,
        pool_element: PoolElement {
            home_registrar: RegistrarId(home),
            ..registration.pool_element
        },
    };
    send_enrp(world, on, update);
}

#[test]
fn a_presence_that_wants_a_reply_gets_all_there_is_to_know() {
    let mut world = World::default();
    let node = new_registrar(&mut world);
    let on = peer(&mut world, node, 99);
    send_enrp(&mut world, on, presence(99, true));
    match take_enrp(&mut world, on).as_slice() {
        [Body::Presence(reply)] => {
            assert!(!reply.reply_required);
            assert_eq!(reply.route, Route { sender: OURS, receiver: RegistrarId(99) });
            let server = reply.server.as_ref().unwrap();
            assert_eq!((server.registrar, &server.transport), (OURS, &address(0)));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn peers_hear_a_heartbeat_that_wants_no_reply_and_the_silent_ones_are_asked() {
    let mut world = World::default();
    let node = new_registrar(&mut world);
    let on = peer(&mut world, node, 99);
    world.run(Duration::from_millis(2900));
    let presences = |bodies: Vec<Body>| -> Vec<bool> {
        let presence = |body| match body {
            Body::Presence(presence) => Some(presence.reply_required),
            _ => None,
        };
        bodies.into_iter().filter_map(presence).collect()
    };
    let heard = presences(take_enrp(&mut world, on));
    assert_eq!(heard, [false]);
    world.run(Duration::from_millis(200));
    let heard = presences(take_enrp(&mut world, on));
    assert!(heard.contains(&true), "after 3 s of silence: {heard:?}");
    assert_eq!(world.with_registrar(node).peers(), [RegistrarId(99)]);
    world.run(Duration::from_millis(1500));
    assert_eq!(world.with_registrar(node).peers(), [], "and no answer for 1.5 s");
}

#[test]
fn who_joins_has_nothing_to_give_yet() {
    let mut world = World::default();
    // It waits for a mentor who does not come.
    world.registrar(Registrar::new(RegistrarConfig::new(RegistrarId(7), 7)));
    world.pause(0);
    let config = RegistrarConfig::new(OURS, 1).enrp(address(1)).peers([address(0)]);
    let node = world.registrar(Registrar::new(config));
    let on = world.connect_for(Ppid::ENRP, node);
    // This one becomes the mentor, and says nothing either.
    send_enrp(&mut world, on, enrp::ListRequest { route: route(99) });
    let own_children_only = false;
    send_enrp(&mut world, on, enrp::HandleTableRequest { own_children_only, route: route(99) });
    let answers: Vec<_> = take_enrp(&mut world, on)
        .into_iter()
        .filter(|body| matches!(body, Body::ListResponse(_) | Body::HandleTableResponse(_)))
        .collect();
    match answers.as_slice() {
        [Body::ListResponse(list), Body::HandleTableResponse(table)] => {
            assert!(list.reject && list.servers.is_empty());
            assert!(table.reject && !table.more_to_send && table.pools.is_empty());
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_takeover_is_acknowledged_by_others_and_denied_by_its_target() {
    let mut world = World::default();
    let node = new_registrar(&mut world);
    let (one, two) = (peer(&mut world, node, 98), peer(&mut world, node, 99));
    let init = |target| enrp::InitTakeover { route: route(98), target: RegistrarId(target) };
    send_enrp(&mut world, one, init(99));
    match take_enrp(&mut world, one).as_slice() {
        [Body::InitTakeoverAck(ack)] => assert_eq!(ack.target, RegistrarId(99)),
        other => panic!("{other:?}"),
    }
    assert_eq!(take_enrp(&mut world, two), []);
    send_enrp(&mut world, one, init(1));
    for on in [one, two] {
        let told = take_enrp(&mut world, on);
        assert!(matches!(told.as_slice(), [Body::Presence(_)]), "{told:?}");
    }
}

#[test]
fn a_target_that_is_heard_again_keeps_its_elements() {
    let mut world = World::default();
    let node = new_registrar(&mut world);
    let (target, other) = (peer(&mut world, node, 98), peer(&mut world, node, 99));
    update(&mut world, target, 98, UpdateAction::Add, 7);
    let mut asked = false;
    for _ in 0..14 {
        world.run(SECOND / 2);
        send_enrp(&mut world, other, presence(99, false));
        let told = take_enrp(&mut world, other);
        asked |= told.iter().any(|body| matches!(body, Body::InitTakeover(_)));
    }
    assert!(asked, "silent for 7 s: it asks whether it may take over");
    send_enrp(&mut world, target, presence(98, false));
    let ack = enrp::InitTakeoverAck { route: route(99), target: RegistrarId(98) };
    send_enrp(&mut world, other, ack);
    assert_eq!(world.homes(node), [(7, 98)]);
}

#[test]
fn updates_are_for_all_and_strange_ones_change_nothing() {
    let mut world = World::default();
    let node = new_registrar(&mut world);
    let on = peer(&mut world, node, 99);
    update(&mut world, on, 99, UpdateAction::Add, 7);
    update(&mut world, on, 99, UpdateAction::Other(5), 7);
    update(&mut world, on, 99, UpdateAction::Other(0xffff), 8);
    assert_eq!(world.homes(node), [(7, 99)]);
    let asap = world.connect(node);
    rserpool_tests::by_hand::send_asap(&mut world, asap, registration("Pool", 9));
    match take_enrp(&mut world, on).as_slice() {
        [Body::HandleUpdate(update)] => {
            assert_eq!(update.route, Route { sender: OURS, receiver: RegistrarId(0) });
            assert_eq!((update.action, update.reserved), (UpdateAction::Add, 0));
            assert_eq!(update.pool_element.home_registrar, OURS);
        }
        other => panic!("{other:?}"),
    }
    // An element of ours is not for others to delete.
    update(&mut world, on, 99, UpdateAction::Delete, 9);
    assert_eq!(world.homes(node), [(7, 99), (9, 1)]);
}

#[test]
fn what_cannot_be_understood_is_answered_with_an_error() {
    let mut world = World::default();
    let node = new_registrar(&mut world);
    let on = peer(&mut world, node, 99);
    for payload in [&b"\x01"[..], b"\x01\x00\x00\x03", b"\x01\x00\x00\x04"] {
        let payload = Bytes::copy_from_slice(payload);
        world.send(on, UserMessage::new(Ppid::ENRP, payload));
        let told = take_enrp(&mut world, on);
        assert!(matches!(told.as_slice(), [Body::Error(_)]), "{told:?}");
    }
}

#[test]
fn a_long_download_from_the_mentor_is_of_all_elements() {
    let mut world = World::default();
    let config = RegistrarConfig::new(OURS, 1).enrp(address(0)).peers([address(201)]);
    let node = world.registrar(Registrar::new(config));
    let on = world.connect_for(Ppid::ENRP, node);
    send_enrp(&mut world, on, presence(99, false));
    // A page each second, for longer than it looks for a mentor.
    for page in 0..9 {
        let asked: Vec<_> = take_enrp(&mut world, on)
            .into_iter()
            .filter_map(|body| match body {
                Body::HandleTableRequest(request) => Some(request.own_children_only),
                _ => None,
            })
            .collect();
        assert_eq!(asked, [false], "page {page}");
        let element = registration("Pool", page + 1);
        let pool_handle = element.pool_handle;
        let home_registrar = RegistrarId(98);
        let element = PoolElement { home_registrar, ..element.pool_element };
        let response = enrp::HandleTableResponse {
            more_to_send: page < 8,
            reject: false,
            route: route(99),
            pools: vec![enrp::PoolEntry { pool_handle, elements: vec![element] }],
        };
        send_enrp(&mut world, on, response);
        world.run(SECOND);
    }
    let joined = world.take_events(node);
    let joined = joined.iter().find_map(|event| match event {
        Event::Registrar(registrar::Event::Joined { elements }) => Some(*elements),
        _ => None,
    });
    assert_eq!(joined, Some(9));
}
