//! Tests the answers of a registrar to single ENRP messages (RFC 5353), which the test sends as a
//! peer.
#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use rserpool_proto::registrar::{self, RegistrarConfig};
use rserpool_proto::testing::by_hand::{registration, send_asap, send_enrp, take_asap, take_enrp};
use rserpool_proto::testing::world::{Event, NodeId, World, address};
use rserpool_proto::wire::enrp::{self, Body, HandleUpdate, Presence, Route, UpdateAction};
use rserpool_proto::wire::parameter::PeChecksum;
use rserpool_proto::wire::{
    Bytes, ErrorCause, PoolElement, PoolElementId, Ppid, RegistrarId, ServerInformation,
    TransportAddress, UserMessage, asap,
};
use rserpool_proto::{Compatibility, ConnectionId, Machine, Registrar};

const SECOND: Duration = Duration::from_secs(1);
const OURS: RegistrarId = RegistrarId(1);

fn new_registrar(world: &mut World) -> NodeId {
    let config = RegistrarConfig::default().identifier(OURS).enrp(address(0));
    world.registrar(Registrar::new(config, 1))
}

fn route(sender: u32) -> Route {
    Route { sender: RegistrarId(sender), receiver: OURS }
}

fn presence(sender: u32, reply_required: bool) -> Presence {
    // No machine listens at the address that the sender of this message announces.
    let registrar = RegistrarId(sender);
    let server = Some(ServerInformation { registrar, transport: address(200) });
    Presence { reply_required, route: route(sender), checksum: Some(PeChecksum(0xffff)), server }
}

/// Adds a peer with this identifier, which the registrar knows from then on.
fn peer(world: &mut World, node: NodeId, identifier: u32) -> ConnectionId {
    let on = world.connect_for(Ppid::ENRP, node);
    send_enrp(world, on, presence(identifier, false));
    // The registrar asks the new peer for its elements.
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

/// Sends an update about an element of the peer `home`.
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
    let presences = |bodies: Vec<Body>| -> Vec<bool> {
        let presence = |body| match body {
            Body::Presence(presence) => Some(presence.reply_required),
            _ => None,
        };
        bodies.into_iter().filter_map(presence).collect()
    };
    for _ in 0..3 {
        world.run(Duration::from_millis(2900));
        let heard = presences(take_enrp(&mut world, on));
        assert!(!heard.is_empty() && !heard.contains(&true), "{heard:?}");
        send_enrp(&mut world, on, presence(99, false));
    }
    world.run(Duration::from_millis(2900));
    assert!(!presences(take_enrp(&mut world, on)).contains(&true));
    world.run(Duration::from_millis(200));
    let heard = presences(take_enrp(&mut world, on));
    assert!(heard.contains(&true), "after 3 s of silence: {heard:?}");
    assert_eq!(world.with_registrar(node).peers(), [RegistrarId(99)]);
    world.run(Duration::from_millis(1500));
    assert_eq!(world.with_registrar(node).peers(), [], "and no answer for 1.5 s");
}

#[test]
fn by_the_rfc_a_peer_may_be_silent_for_a_minute() {
    let mut world = World::default();
    let config = RegistrarConfig::default().identifier(OURS).enrp(address(0));
    let node = world.registrar(Registrar::new(config.compatibility(Compatibility::Rfc), 1));
    let on = peer(&mut world, node, 99);
    let mut asked = |duration| {
        world.run(duration);
        let bodies = take_enrp(&mut world, on);
        let wants_reply = |body: &Body| matches!(body, Body::Presence(it) if it.reply_required);
        (bodies.iter().any(wants_reply), world.with_registrar(node).peers().len())
    };
    assert_eq!(asked(SECOND * 60), (false, 1));
    assert_eq!(asked(SECOND * 2), (true, 1));
    assert_eq!(asked(SECOND * 5), (false, 0));
}

#[test]
fn who_joins_has_nothing_to_give_yet() {
    let mut world = World::default();
    // The registrar waits for a mentor that does not answer.
    world.registrar(Registrar::new(RegistrarConfig::default().identifier(RegistrarId(7)), 1));
    world.pause(0);
    let config = RegistrarConfig::default().identifier(OURS).enrp(address(1)).peers([address(0)]);
    let node = world.registrar(Registrar::new(config, 1));
    // This peer becomes the mentor, and does not answer either.
    let mentor = world.connect_for(Ppid::ENRP, node);
    send_enrp(&mut world, mentor, presence(98, false));
    let on = world.connect_for(Ppid::ENRP, node);
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
    // The reserved field is ignored.
    let registration_10 = registration("Pool", 10);
    let reserved = HandleUpdate {
        takeover_suggested: false,
        route: route(99),
        action: UpdateAction::Add,
        reserved: 7,
        pool_handle: registration_10.pool_handle,
        pool_element: PoolElement {
            home_registrar: RegistrarId(99),
            ..registration_10.pool_element
        },
    };
    send_enrp(&mut world, on, reserved.clone());
    assert_eq!(world.homes(node), [(7, 99), (10, 99)]);
    send_enrp(&mut world, on, HandleUpdate { action: UpdateAction::Delete, ..reserved });
    assert_eq!(world.homes(node), [(7, 99)]);
    let asap = world.connect(node);
    send_asap(&mut world, asap, registration("Pool", 9));
    match take_enrp(&mut world, on).as_slice() {
        [Body::HandleUpdate(update)] => {
            assert_eq!(update.route, Route { sender: OURS, receiver: RegistrarId(0) });
            assert_eq!((update.action, update.reserved), (UpdateAction::Add, 0));
            assert_eq!(update.pool_element.home_registrar, OURS);
        }
        other => panic!("{other:?}"),
    }
    // An unknown element cannot be deleted.
    update(&mut world, on, 99, UpdateAction::Delete, 55);
    // Peers cannot delete an element of this registrar.
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
    let config = RegistrarConfig::default().identifier(OURS).enrp(address(0)).peers([address(201)]);
    let node = world.registrar(Registrar::new(config, 1));
    let on = world.connect_for(Ppid::ENRP, node);
    send_enrp(&mut world, on, presence(99, false));
    // The mentor sends a page each second, for longer than the registrar looks for a mentor.
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

#[test]
fn an_empty_handlespace_is_handed_out_without_pools() {
    let mut world = World::default();
    let node = new_registrar(&mut world);
    let on = peer(&mut world, node, 99);
    let own_children_only = false;
    send_enrp(&mut world, on, enrp::HandleTableRequest { own_children_only, route: route(99) });
    match take_enrp(&mut world, on).as_slice() {
        [Body::HandleTableResponse(page)] => {
            assert!(!page.reject && !page.more_to_send && page.pools.is_empty());
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn only_what_is_granted_is_told_to_peers() {
    let mut world = World::default();
    let node = new_registrar(&mut world);
    let on = peer(&mut world, node, 99);
    let (owner, stranger) = (world.connect(node), world.connect(node));
    send_asap(&mut world, owner, registration("Pool", 7));
    take_enrp(&mut world, on);
    let mut answer_to = |connection, identifier| {
        let pool_handle = registration("Pool", 1).pool_handle;
        let identifier = PoolElementId(identifier);
        send_asap(&mut world, connection, asap::Deregistration { pool_handle, identifier });
        let told = take_enrp(&mut world, on);
        match take_asap(&mut world, connection).pop() {
            Some(asap::Body::DeregistrationResponse(response)) => (response.error, told),
            other => panic!("{other:?}"),
        }
    };
    let (error, told) = answer_to(stranger, 7);
    assert_eq!((error, told), (Some(ErrorCause::Security.into()), vec![]));
    let (error, told) = answer_to(stranger, 8);
    assert_eq!((error, told), (None, vec![]), "there is no such element, which is granted");
    let (error, told) = answer_to(owner, 7);
    assert_eq!(error, None);
    match told.as_slice() {
        [Body::HandleUpdate(update)] => assert_eq!(update.action, UpdateAction::Delete),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_target_that_was_taken_over_is_no_peer_any_more() {
    let mut world = World::default();
    let node = new_registrar(&mut world);
    let (one, two) = (peer(&mut world, node, 98), peer(&mut world, node, 99));
    update(&mut world, two, 99, UpdateAction::Add, 7);
    let target = RegistrarId(99);
    send_enrp(&mut world, one, enrp::TakeoverServer { route: route(98), target });
    assert_eq!(world.homes(node), [(7, 99)], "the target was heard not long ago");
    world.run(SECOND * 2);
    send_enrp(&mut world, one, presence(98, false));
    world.run(SECOND * 2);
    send_enrp(&mut world, one, enrp::TakeoverServer { route: route(98), target });
    assert_eq!(world.with_registrar(node).peers(), [RegistrarId(98)]);
    assert_eq!(world.homes(node), [(7, 98)]);
}

/// Creates a registrar that looks for a mentor (the registrar to download the handlespace from),
/// and two peers that could be the mentor.
fn joining(world: &mut World) -> (NodeId, ConnectionId, ConnectionId) {
    let config = RegistrarConfig::default().identifier(OURS).enrp(address(0)).peers([address(201)]);
    let node = world.registrar(Registrar::new(config, 1));
    let (one, two) = (world.connect_for(Ppid::ENRP, node), world.connect_for(Ppid::ENRP, node));
    send_enrp(world, one, presence(98, false));
    send_enrp(world, two, presence(99, false));
    (node, one, two)
}

/// Returns whether the peer is asked for the peer list, and for the handlespace.
fn asked(world: &mut World, on: ConnectionId) -> (bool, bool) {
    let bodies = take_enrp(world, on);
    (
        bodies.iter().any(|body| matches!(body, Body::ListRequest(_))),
        bodies.iter().any(|body| matches!(body, Body::HandleTableRequest(_))),
    )
}

fn page(sender: u32, reject: bool, pools: Vec<enrp::PoolEntry>) -> enrp::HandleTableResponse {
    enrp::HandleTableResponse { more_to_send: false, reject, route: route(sender), pools }
}

#[test]
fn the_first_that_answers_is_the_mentor_and_others_are_asked_when_it_fails() {
    // The mentor refuses, or does not answer for MAX-TIME-NO-RESPONSE.
    for refuses in [true, false] {
        let mut world = World::default();
        let (_, one, two) = joining(&mut world);
        assert_eq!(asked(&mut world, one), (true, true), "list and handlespace at once");
        assert_eq!(asked(&mut world, two), (false, false));
        if refuses {
            send_enrp(&mut world, one, page(98, true, Vec::new()));
        }
        let mut again = Vec::new();
        for tenth in 1..=40 {
            world.run(SECOND / 10);
            for sender in [(one, 98), (two, 99)] {
                send_enrp(&mut world, sender.0, presence(sender.1, false));
                if asked(&mut world, sender.0).1 {
                    again.push(tenth);
                }
            }
        }
        // After a pause of half a second, one of the known peers is asked.
        let first = again[0];
        assert!(if refuses { first == 5 } else { (6..40).contains(&first) }, "{again:?}");
    }
}

#[test]
fn what_the_home_says_of_its_elements_counts_more_than_what_the_mentor_says() {
    let mut world = World::default();
    let (node, one, two) = joining(&mut world);
    let told = |port, home| {
        let element = registration("Pool", 7).pool_element;
        let user_transport = TransportAddress { port, ..address(99) }.into();
        PoolElement { user_transport, home_registrar: RegistrarId(home), ..element }
    };
    let port = |world: &World| {
        let registrar = world.with_registrar(node);
        let (_, element) = registrar.members().next().unwrap();
        element.user_transport.address().unwrap().port
    };
    let pool_handle = registration("Pool", 7).pool_handle;
    let home_says = |world: &mut World, port| {
        let update = HandleUpdate {
            takeover_suggested: false,
            route: route(99),
            action: UpdateAction::Add,
            reserved: 0,
            pool_handle: pool_handle.clone(),
            pool_element: told(port, 99),
        };
        send_enrp(world, two, update);
    };
    home_says(&mut world, 1);
    assert_eq!(port(&world), 1);
    let pool_handle = registration("Pool", 7).pool_handle;
    let pools = vec![enrp::PoolEntry { pool_handle, elements: vec![told(2, 99)] }];
    send_enrp(&mut world, one, page(98, false, pools));
    assert_eq!(port(&world), 1, "the mentor may be late");
    home_says(&mut world, 3);
    assert_eq!(port(&world), 3);
}

#[test]
fn who_joins_serves_what_it_knows_and_lets_others_wait() {
    let mut world = World::default();
    let (node, ..) = joining(&mut world);
    let on = world.connect(node);
    send_asap(&mut world, on, registration("Pool", 7));
    let answers = |world: &mut World| {
        let answers = take_asap(world, on).into_iter();
        answers.filter(|body| matches!(body, asap::Body::HandleResolutionResponse(_))).count()
    };
    let resolve = |world: &mut World, pool: &str| {
        send_asap(world, on, asap::HandleResolution::new(pool.parse().unwrap()));
    };
    resolve(&mut world, "Pool");
    assert_eq!(answers(&mut world), 1, "it knows that one");
    resolve(&mut world, "Other");
    assert_eq!(answers(&mut world), 0, "its mentor may know this one");
    world.run(SECOND * 6);
    assert_eq!(answers(&mut world), 1);
}

#[test]
fn with_a_takeover_peers_are_told_again_of_those_who_came_before_it() {
    let mut world = World::default();
    let node = new_registrar(&mut world);
    let (dying, other) = (peer(&mut world, node, 98), peer(&mut world, node, 99));
    update(&mut world, dying, 98, UpdateAction::Add, 7);
    update(&mut world, dying, 98, UpdateAction::Add, 8);
    let asap = world.connect(node);
    send_asap(&mut world, asap, registration("Pool", 7));
    assert_eq!(world.homes(node), [(7, 1), (8, 98)]);
    take_enrp(&mut world, other);
    let mut told = Vec::new();
    let listen = |world: &mut World, told: &mut Vec<_>| {
        for body in take_enrp(world, other) {
            match body {
                Body::InitTakeover(init) => {
                    let ack = enrp::InitTakeoverAck { route: route(99), target: init.target };
                    send_enrp(world, other, ack);
                }
                Body::TakeoverServer(takeover) => told.push(format!("{} is over", takeover.target)),
                Body::HandleUpdate(update) => {
                    let PoolElement { identifier, home_registrar, .. } = update.pool_element;
                    told.push(format!("{:?} {identifier} {home_registrar}", update.action));
                }
                _ => {}
            }
        }
    };
    for _ in 0..14 {
        world.run(SECOND / 2);
        send_enrp(&mut world, other, presence(99, false));
        listen(&mut world, &mut told);
    }
    // The other element cannot be reached.
    let expected =
        ["0x00000062 is over", "Add 0x00000007 0x00000001", "Delete 0x00000008 0x00000001"];
    assert_eq!(told, expected);
}

#[test]
fn an_element_that_is_connected_is_not_given_away_by_a_table() {
    let mut world = World::default();
    let (node, mentor, _) = joining(&mut world);
    let asap = world.connect(node);
    send_asap(&mut world, asap, registration("Pool", 7));
    take_enrp(&mut world, mentor);
    let registration = registration("Pool", 7);
    let element = PoolElement { home_registrar: RegistrarId(98), ..registration.pool_element };
    let pools =
        vec![enrp::PoolEntry { pool_handle: registration.pool_handle, elements: vec![element] }];
    send_enrp(&mut world, mentor, page(98, false, pools));
    assert_eq!(world.homes(node), [(7, 1)], "nobody would have told the element");
    let told: Vec<_> = take_enrp(&mut world, mentor)
        .into_iter()
        .filter_map(|body| match body {
            Body::HandleUpdate(update) => Some(update.pool_element.home_registrar),
            _ => None,
        })
        .collect();
    assert_eq!(told, [OURS]);
    // The peer, which has the larger identifier, claims the element again. The registrar gives way,
    // and the peer has to notify the element.
    update(&mut world, mentor, 98, UpdateAction::Add, 7);
    assert_eq!(world.homes(node), [(7, 98)]);
}

#[test]
fn the_only_other_registrar_may_object_to_its_takeover() {
    let mut world = World::default();
    let node = new_registrar(&mut world);
    let on = peer(&mut world, node, 99);
    update(&mut world, on, 99, UpdateAction::Add, 7);
    let initiated = |world: &mut World| {
        let bodies = take_enrp(world, on);
        bodies.iter().any(|body| matches!(body, Body::InitTakeover(init) if init.target.0 == 99))
    };
    // The peer is silent for MAX-TIME-LAST-HEARD, and then for MAX-TIME-NO-RESPONSE.
    world.run(Duration::from_millis(4600));
    assert!(initiated(&mut world));
    // The agreement of a registrar that was not asked has no effect.
    let stranger = enrp::InitTakeoverAck { route: route(77), target: RegistrarId(99) };
    send_enrp(&mut world, on, stranger);
    assert_eq!(world.homes(node), [(7, 99)]);
    send_enrp(&mut world, on, presence(99, false));
    world.run(SECOND * 2);
    assert_eq!(world.homes(node), [(7, 99)], "it objects");
    // Now the target of the takeover does not object.
    world.run(SECOND * 6);
    assert!(initiated(&mut world));
    world.run(SECOND * 2);
    let took_over =
        |event: &Event| matches!(event, Event::Registrar(registrar::Event::TookOver { .. }));
    assert!(world.take_events(node).iter().any(took_over));
}

#[test]
fn an_element_that_has_moved_is_not_pulled_back() {
    let route = Route { sender: RegistrarId(99), receiver: RegistrarId(500) };
    for (age, expected) in [(Duration::ZERO, 500), (SECOND / 5, 99), (SECOND * 2, 99)] {
        let mut world = World::default();
        let config = RegistrarConfig::default().identifier(RegistrarId(500)).enrp(address(0));
        let node = world.registrar(Registrar::new(config, 1));
        let asap = world.connect(node);
        send_asap(&mut world, asap, registration("Pool", 7));
        let on = world.connect_for(Ppid::ENRP, node);
        send_enrp(&mut world, on, Presence { route, ..presence(99, false) });
        world.run(age);
        // The element registers with a registrar of a smaller identifier, while its old connection
        // is open.
        let registration = registration("Pool", 7);
        let update = HandleUpdate {
            takeover_suggested: false,
            route,
            action: UpdateAction::Add,
            reserved: 0,
            pool_handle: registration.pool_handle,
            pool_element: PoolElement {
                home_registrar: RegistrarId(99),
                ..registration.pool_element
            },
        };
        send_enrp(&mut world, on, update);
        assert_eq!(world.homes(node), [(7, expected)], "after {age:?}");
    }
}

#[test]
fn the_list_has_all_registrars_that_are_known() {
    let mut world = World::default();
    let node = new_registrar(&mut world);
    peer(&mut world, node, 98);
    let on = peer(&mut world, node, 99);
    // The first peer is silent, and suspected.
    world.run(Duration::from_millis(2500));
    send_enrp(&mut world, on, presence(99, false));
    world.run(SECOND);
    take_enrp(&mut world, on);
    send_enrp(&mut world, on, enrp::ListRequest { route: route(99) });
    let bodies = take_enrp(&mut world, on);
    let list = bodies.iter().find_map(|body| match body {
        Body::ListResponse(list) => Some(list.servers.iter().map(|it| it.registrar.0).collect()),
        _ => None,
    });
    assert_eq!(list, Some(vec![98]));
}

#[test]
fn who_is_heard_by_multicast_is_dialled_where_it_says_or_where_registrars_are() {
    for says in [true, false] {
        let mut world = World::default();
        let node = new_registrar(&mut world);
        let config = RegistrarConfig::default().identifier(RegistrarId(7)).enrp(address(1));
        let other = world.registrar(Registrar::new(config, 1));
        if !says {
            world.readdress(other, TransportAddress { port: 9901, ..address(1) });
        }
        let server =
            says.then(|| ServerInformation { registrar: RegistrarId(7), transport: address(1) });
        let heard = Presence { server, ..presence(7, false) };
        let payload = enrp::Message::from(heard).encode().unwrap();
        let source = TransportAddress { port: 50_000, ..address(1) };
        world.with_registrar_mut(node, |registrar, now| {
            let message = UserMessage::new(Ppid::ENRP, payload);
            registrar.handle_announcement(now, source, message);
        });
        world.run(SECOND);
        assert_eq!(world.with_registrar(node).peers(), [RegistrarId(7)], "says {says}");
        assert_eq!(world.with_registrar(other).peers(), [OURS]);
    }
}

#[test]
fn who_asks_for_the_table_again_and_again_is_named_once() {
    let mut world = World::default();
    let node = new_registrar(&mut world);
    let on = peer(&mut world, node, 99);
    world.run(SECOND * 4);
    let mut told = Vec::new();
    for round in 0..30 {
        send_enrp(&mut world, on, presence(99, false));
        let own_children_only = true;
        let request = enrp::HandleTableRequest { own_children_only, route: route(99) };
        send_enrp(&mut world, on, request);
        world.run(SECOND * 2);
        let restless = |event: &Event| {
            matches!(event, Event::Registrar(registrar::Event::Misbehaved { reason, .. })
                if reason.contains("again and again"))
        };
        told.extend(world.take_events(node).iter().any(restless).then_some(round));
    }
    assert_eq!(told, [7]);
}

#[test]
fn of_two_who_take_over_the_smaller_identifier_yields() {
    for (profile, ours, yields) in [
        (Compatibility::All, 1, true),
        (Compatibility::Rfc, 1, true),
        (Compatibility::All, 500, false),
        (Compatibility::Rsplib, 1, false),
        (Compatibility::Rsplib, 500, true),
    ] {
        let mut world = World::default();
        let config = RegistrarConfig::default().identifier(RegistrarId(ours)).enrp(address(0));
        let [cycle, last_heard, no_response] = Compatibility::default().heartbeat();
        let config = config
            .heartbeat_cycle(cycle)
            .max_time_last_heard(last_heard)
            .max_time_no_response(no_response)
            .compatibility(profile);
        let node = world.registrar(Registrar::new(config, 1));
        let from = |sender| Route { sender: RegistrarId(sender), receiver: RegistrarId(ours) };
        let mut join = |identifier| {
            let on = world.connect_for(Ppid::ENRP, node);
            let route = from(identifier);
            send_enrp(&mut world, on, Presence { route, ..presence(identifier, false) });
            on
        };
        let (dead, other) = (join(98), join(99));
        let registration = registration("Pool", 7);
        let update = HandleUpdate {
            takeover_suggested: false,
            route: from(98),
            action: UpdateAction::Add,
            reserved: 0,
            pool_handle: registration.pool_handle,
            pool_element: PoolElement {
                home_registrar: RegistrarId(98),
                ..registration.pool_element
            },
        };
        send_enrp(&mut world, dead, update);
        for _ in 0..5 {
            world.run(SECOND);
            send_enrp(&mut world, other, Presence { route: from(99), ..presence(99, false) });
        }
        let initiated = |on: &[Body]| {
            on.iter().any(|it| matches!(it, Body::InitTakeover(init) if init.target.0 == 98))
        };
        assert!(initiated(&take_enrp(&mut world, other)), "{profile}, {ours}");
        assert!(initiated(&take_enrp(&mut world, dead)), "the target is asked as well");
        let target = RegistrarId(98);
        send_enrp(&mut world, other, enrp::InitTakeover { route: from(99), target });
        let answer = take_enrp(&mut world, other);
        let agreed = answer.iter().any(|it| matches!(it, Body::InitTakeoverAck(_)));
        assert_eq!(agreed, yields, "{profile}, {ours}");
        // A registrar that has all agreements completes the takeover and tells all peers.
        send_enrp(&mut world, other, enrp::InitTakeoverAck { route: from(99), target });
        let told = take_enrp(&mut world, other);
        let took_over =
            told.iter().any(|it| matches!(it, Body::TakeoverServer(it) if it.target == target));
        assert_eq!(took_over, !yields, "{profile}, {ours}: {told:?}");
    }
}

#[test]
fn only_its_home_tells_of_an_element() {
    let mut world = World::default();
    let node = new_registrar(&mut world);
    let (other, home) = (peer(&mut world, node, 98), peer(&mut world, node, 99));
    update(&mut world, home, 99, UpdateAction::Add, 7);
    // The other peer deletes the element, and adds one whose home is another registrar.
    let update = |action, identifier, home| {
        let registration = registration("Pool", identifier);
        HandleUpdate {
            takeover_suggested: false,
            route: route(98),
            action,
            reserved: 0,
            pool_handle: registration.pool_handle,
            pool_element: PoolElement {
                home_registrar: RegistrarId(home),
                ..registration.pool_element
            },
        }
    };
    send_enrp(&mut world, other, update(UpdateAction::Delete, 7, 99));
    send_enrp(&mut world, other, update(UpdateAction::Add, 8, 99));
    send_enrp(&mut world, other, update(UpdateAction::Add, 9, 0));
    assert_eq!(world.homes(node), [(7, 99), (9, 98)]);
}

#[test]
fn the_own_elements_are_those_of_this_registrar() {
    let mut world = World::default();
    let node = new_registrar(&mut world);
    let asap = world.connect(node);
    send_asap(&mut world, asap, registration("Pool", 1));
    let on = peer(&mut world, node, 99);
    update(&mut world, on, 99, UpdateAction::Add, 7);
    for (own_children_only, expected) in [(true, vec![1]), (false, vec![1, 7])] {
        let request = enrp::HandleTableRequest { own_children_only, route: route(99) };
        send_enrp(&mut world, on, request);
        let mut elements: Vec<_> = take_enrp(&mut world, on)
            .into_iter()
            .filter_map(|body| match body {
                Body::HandleTableResponse(page) => Some(page.pools),
                _ => None,
            })
            .flatten()
            .flat_map(|pool| pool.elements)
            .map(|element| element.identifier.0)
            .collect();
        elements.sort_unstable();
        assert_eq!(elements, expected, "own only: {own_children_only}");
    }
}

#[test]
fn an_audit_removes_what_the_home_does_not_have() {
    let mut world = World::default();
    let node = new_registrar(&mut world);
    let on = peer(&mut world, node, 99);
    for identifier in [7, 8] {
        update(&mut world, on, 99, UpdateAction::Add, identifier);
    }
    let only = registration("Pool", 7);
    let element = PoolElement { home_registrar: RegistrarId(99), ..only.pool_element };
    let pools = vec![enrp::PoolEntry { pool_handle: only.pool_handle, elements: vec![element] }];
    // This checksum differs from that of the two elements.
    let alive = || Presence { checksum: Some(PeChecksum(1)), ..presence(99, false) };
    send_enrp(&mut world, on, alive());
    let asked = take_enrp(&mut world, on);
    let own = |body: &Body| matches!(body, Body::HandleTableRequest(it) if it.own_children_only);
    assert!(asked.iter().any(own), "{asked:?}");
    send_enrp(&mut world, on, page(99, false, pools));
    world.run(SECOND * 2);
    send_enrp(&mut world, on, Presence { checksum: None, ..presence(99, false) });
    world.run(SECOND * 2);
    assert_eq!(world.homes(node), [(7, 99)], "which may have come back within 3 s");
}
