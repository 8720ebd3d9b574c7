//! Tests the communication between registrars (RFC 5353).
#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use rserpool_proto::element::ElementConfig;
use rserpool_proto::registrar::{self, RegistrarConfig};
use rserpool_proto::testing::by_hand::{registration, send_asap, send_enrp, take_asap, take_enrp};
use rserpool_proto::testing::world::{Event, NodeId, World, address};
use rserpool_proto::user::{self, ResolveOptions, UserConfig};
use rserpool_proto::wire::asap::{self, EndpointKeepAlive, EndpointUnreachable};
use rserpool_proto::wire::enrp::{self, Body, Route};
use rserpool_proto::wire::parameter::PeChecksum;
use rserpool_proto::wire::{
    Bytes, PoolElement, PoolElementId, PoolHandle, Ppid, RegistrarId, RegistrationLife,
    TransportAddress, UserMessage,
};
use rserpool_proto::{Compatibility, ConnectionId, Element, HuntConfig, Registrar, User};

const SECOND: Duration = Duration::from_secs(1);

const ROUTE: Route = Route { sender: RegistrarId(99), receiver: RegistrarId(1) };

fn registrar(world: &mut World) -> NodeId {
    // The test is silent for longer than the default timers of peers allow.
    let config = RegistrarConfig::default()
        .identifier(RegistrarId(1))
        .enrp(address(0))
        .heartbeat_cycle(SECOND * 2)
        .max_time_last_heard(SECOND * 60)
        .max_time_no_response(SECOND * 60);
    world.registrar(Registrar::new(config, 1))
}

fn register(world: &mut World, on: ConnectionId, pool: &str, identifier: u32) {
    let mut registration = registration(pool, identifier);
    registration.pool_element.registration_life = RegistrationLife::INFINITE;
    send_asap(world, on, registration);
}

#[test]
fn an_unknown_registrar_is_asked_who_it_is() {
    let mut world = World::default();
    let node = registrar(&mut world);
    let on = world.connect_for(Ppid::ENRP, node);
    send_enrp(&mut world, on, enrp::ListRequest { route: ROUTE });
    match &take_enrp(&mut world, on)[..] {
        [Body::Presence(presence), Body::ListResponse(list)] => {
            assert!(presence.reply_required);
            assert_eq!(presence.route, Route { sender: RegistrarId(1), receiver: RegistrarId(99) });
            assert_eq!(presence.checksum, Some(PeChecksum(0xffff)));
            assert_eq!(presence.server.as_ref().unwrap().transport, address(0));
            assert!(!list.reject && list.servers.is_empty());
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_handlespace_is_handed_out_page_by_page() {
    let mut world = World::default();
    let node = registrar(&mut world);
    let asap = world.connect(node);
    for identifier in 1..=300 {
        register(
            &mut world,
            asap,
            if identifier % 3 == 0 { "Three" } else { "Others" },
            identifier,
        );
    }
    world.received.clear();
    let on = world.connect_for(Ppid::ENRP, node);
    for own_children_only in [false, true, true] {
        let mut elements: Vec<(PoolHandle, u32)> = Vec::new();
        let mut pages = 0;
        loop {
            send_enrp(&mut world, on, enrp::HandleTableRequest { own_children_only, route: ROUTE });
            let received = take_enrp(&mut world, on);
            let Some(Body::HandleTableResponse(page)) = received.last() else {
                panic!("{received:?}")
            };
            pages += 1;
            assert!(!page.reject && page.pools.len() <= 2);
            for pool in &page.pools {
                let of_pool = pool.elements.iter();
                elements.extend(of_pool.map(|it| (pool.pool_handle.clone(), it.identifier.0)));
            }
            if !page.more_to_send {
                break;
            }
        }
        assert!(pages >= 3);
        elements.sort();
        let mut expected: Vec<_> = (1..=300)
            .map(|id| (if id % 3 == 0 { "Three" } else { "Others" }.parse().unwrap(), id))
            .collect();
        expected.sort();
        assert_eq!(elements, expected);
    }
}

#[test]
fn peers_are_told_lifetimes_in_the_unit_of_the_profile() {
    for (profile, told) in Compatibility::ALL.into_iter().zip([90_000, 90_000, 90]) {
        let mut world = World::default();
        let config = RegistrarConfig::default().identifier(RegistrarId(1)).enrp(address(0));
        let node = world.registrar(Registrar::new(config.compatibility(profile), 1));
        let asap = world.connect(node);
        // The test registers an element whose lifetime is in seconds, not in the milliseconds of
        // rsplib.
        send_asap(&mut world, asap, registration("Pool", 1));
        let on = world.connect_for(Ppid::ENRP, node);
        let request = enrp::HandleTableRequest { own_children_only: false, route: ROUTE };
        send_enrp(&mut world, on, request);
        match take_enrp(&mut world, on).pop() {
            Some(Body::HandleTableResponse(page)) => {
                assert_eq!(page.pools[0].elements[0].registration_life, RegistrationLife(told));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_download_that_is_not_continued_begins_anew() {
    let mut world = World::default();
    let node = registrar(&mut world);
    let asap = world.connect(node);
    for identifier in 1..=200 {
        register(&mut world, asap, "Pool", identifier);
    }
    world.received.clear();
    let on = world.connect_for(Ppid::ENRP, node);
    let mut first_element_after = |pause: Duration| {
        world.run(pause);
        let request = enrp::HandleTableRequest { own_children_only: false, route: ROUTE };
        send_enrp(&mut world, on, request);
        match take_enrp(&mut world, on).pop() {
            Some(Body::HandleTableResponse(page)) => page.pools[0].elements[0].identifier.0,
            other => panic!("{other:?}"),
        }
    };
    let first = first_element_after(Duration::ZERO);
    assert_eq!(first_element_after(SECOND * 6), first);
    assert_ne!(first_element_after(SECOND * 4), first);
}

#[test]
fn rubbish_and_strangers_do_not_disturb() {
    let mut world = World::default();
    let node = registrar(&mut world);
    let on = world.connect_for(Ppid::ENRP, node);
    for payload in
        [&b""[..], b"\x01", b"\x01\x00\x00\x03", b"\x42\x00\x00\x04", b"\x0a\x00\x00\x04"]
    {
        let payload = Bytes::copy_from_slice(payload);
        world.send(on, UserMessage::new(Ppid::ENRP, payload));
    }
    let answers = take_enrp(&mut world, on);
    assert_eq!(answers.len(), 4, "an error is not answered");
    assert!(answers.iter().all(|body| matches!(body, Body::Error(_))));
    // Messages to another registrar, from no registrar, and from this registrar itself are ignored.
    for (sender, receiver) in [(99, 2), (0, 1), (1, 0)] {
        let route = Route { sender: RegistrarId(sender), receiver: RegistrarId(receiver) };
        send_enrp(&mut world, on, enrp::ListRequest { route });
        assert_eq!(take_enrp(&mut world, on), []);
    }
    send_enrp(&mut world, on, enrp::ListRequest { route: ROUTE });
    assert_eq!(take_enrp(&mut world, on).len(), 2);
    // A registrar cannot change its identifier on an open connection.
    let route = Route { sender: RegistrarId(98), receiver: RegistrarId(1) };
    send_enrp(&mut world, on, enrp::ListRequest { route });
    assert_eq!(take_enrp(&mut world, on), []);
}

fn registered(world: &mut World, element: NodeId) -> bool {
    world.with_element(element, |element, _| element.is_registered())
}

/// Returns the number of elements that a user of the registrar resolves.
fn resolves(world: &mut World, registrar: NodeId) -> usize {
    let user = User::new(UserConfig::new(HuntConfig::new([address(registrar)])), 5);
    let user = world.user(user);
    let options = ResolveOptions::default();
    world.with_user(user, |user, now| user.resolve(now, "Pool".parse().unwrap(), &options));
    world.run(Duration::from_millis(100));
    world
        .take_events(user)
        .into_iter()
        .find_map(|event| match event {
            Event::User(user::Event::Resolved { result, .. }) => {
                Some(result.map_or(0, |it| it.len()))
            }
            _ => None,
        })
        .expect("an answer")
}

#[test]
fn what_one_registrar_knows_all_know() {
    let mut world = World::default();
    let one = world.join(1, &[]);
    let two = world.join(2, &[one]);
    let three = world.join(3, &[two]);
    world.run(SECOND);
    for (node, peers) in [(one, [2, 3]), (two, [1, 3]), (three, [1, 2])] {
        assert_eq!(world.with_registrar(node).peers(), peers.map(RegistrarId));
    }
    let a = world.member(11, &[one]);
    world.member(12, &[two]);
    world.run(SECOND);
    for node in [one, two, three] {
        assert_eq!(world.homes(node), [(11, 1), (12, 2)]);
        assert_eq!(resolves(&mut world, node), 2);
    }
    world.with_element(a, |element, now| element.deregister(now));
    world.run(SECOND);
    for node in [one, two, three] {
        assert_eq!(world.homes(node), [(12, 2)]);
    }
    // Keep-alives, renewals and heartbeats do not change the elements or their home registrars.
    world.run(SECOND * 300);
    for node in [one, two, three] {
        assert_eq!(world.homes(node), [(12, 2)]);
    }
}

#[test]
fn who_comes_late_learns_all_from_its_mentor() {
    let mut world = World::default();
    let one = world.join(1, &[]);
    let asap = world.connect(one);
    for identifier in 1..=300 {
        register(&mut world, asap, "Pool", identifier);
    }
    let two = world.join(2, &[one]);
    world.run(SECOND);
    assert_eq!(world.elements(two), 300);
    assert_eq!(world.homes(two), world.homes(one));
    // The third registrar has the second one as its mentor, and is not configured with the first.
    let three = world.join(3, &[two]);
    world.run(SECOND);
    assert_eq!(world.homes(three), world.homes(one));
    assert_eq!(world.with_registrar(three).peers(), [1, 2].map(RegistrarId));
}

#[test]
fn the_last_registrar_takes_over_from_a_dead_one_at_once() {
    let mut world = World::default();
    let one = world.join(1, &[]);
    let two = world.join(2, &[one]);
    let a = world.member(11, &[one, two]);
    let b = world.member(12, &[two, one]);
    world.run(SECOND);
    let homes = world.homes(two);
    world.kill(one);
    world.run(SECOND);
    assert_eq!(world.homes(two), [(11, 2), (12, 2)], "before: {homes:?}");
    world.run(SECOND * 300);
    assert_eq!(world.homes(two), [(11, 2), (12, 2)]);
    assert!(registered(&mut world, a) && registered(&mut world, b));
}

#[test]
fn a_dead_element_of_a_dead_registrar_is_noticed() {
    let mut world = World::default();
    let one = world.join(1, &[]);
    let two = world.join(2, &[one]);
    let a = world.member(11, &[one]);
    world.run(SECOND);
    assert_eq!(world.homes(two), [(11, 1)]);
    world.kill(a);
    world.kill(one);
    world.run(SECOND * 10);
    assert_eq!(world.homes(two), []);
}

#[test]
fn one_of_the_others_takes_over() {
    for dead in 0..3 {
        let mut world = World::default();
        let nodes = [world.join(1, &[]), world.join(2, &[0]), world.join(3, &[0])];
        for identifier in 11..=16 {
            let home = nodes[identifier as usize % 3];
            world.member(identifier, &[home]);
        }
        world.run(SECOND * 3);
        assert_eq!(world.homes(nodes[0]).len(), 6);
        world.kill(nodes[dead]);
        world.run(SECOND * 20);
        let living: Vec<_> = nodes.into_iter().filter(|node| *node != nodes[dead]).collect();
        let homes = world.homes(living[0]);
        assert_eq!(homes, world.homes(living[1]));
        assert_eq!(homes.len(), 6, "all elements live");
        assert!(homes.iter().all(|(_, home)| *home != dead as u32 + 1), "{homes:?}");
        let taken: std::collections::BTreeSet<_> = homes
            .iter()
            .filter(|(identifier, _)| *identifier as usize % 3 == dead)
            .map(|(_, home)| home)
            .collect();
        assert_eq!(taken.len(), 1, "one registrar took them over");
    }
}

/// Tests that an element finds a home through a keep-alive: it restarted and is configured only
/// with a dead registrar. The registrar that took over its earlier registration sends it a
/// keep-alive, and becomes its home.
#[test]
fn an_element_that_started_anew_registers_with_who_knows_it() {
    for specified in [true, false] {
        let mut world = World::default();
        world.follows_addresses = true;
        let dead = world.join(1, &[]);
        world.kill(dead);
        let host = world.hosts();
        let element = if specified {
            world.member(7, &[dead])
        } else {
            let any = TransportAddress::tcp(([0, 0, 0, 0], 7).into());
            let hunt = HuntConfig::new([address(dead)]);
            let config = ElementConfig::new("Pool".parse().unwrap(), any.clone(), hunt)
                .identifier(PoolElementId(7))
                .asap_transport(any);
            world.element(Element::new(config, 7))
        };
        world.run(SECOND);
        let on = world.connect(element);
        let keep_alive = EndpointKeepAlive {
            home: true,
            registrar: RegistrarId(9),
            pool_handle: "Pool".parse().unwrap(),
            identifier: Some(PoolElementId(7)),
        };
        send_asap(&mut world, on, keep_alive);
        match take_asap(&mut world, on).as_slice() {
            [asap::Body::EndpointKeepAliveAck(_), asap::Body::Registration(registration)] => {
                let service = TransportAddress { port: 7, ..address(host) };
                assert_eq!(registration.pool_element.user_transport, service.into());
            }
            other => panic!("{other:?}"),
        }
    }
}

/// Tests that an element stays registered if its new home registrar connects to it after a
/// takeover, and the connection breaks before the element answers. The element may only have moved.
#[test]
fn a_connection_that_breaks_after_a_takeover_is_no_death() {
    let mut world = World::default();
    let one = world.join(1, &[]);
    let config =
        RegistrarConfig::default().identifier(RegistrarId(2)).enrp(address(1)).peers([address(0)]);
    let two = world.registrar(Registrar::new(config.keep_alive_interval(SECOND), 1));
    world.run(SECOND);
    // The element is configured with no other registrar, so the new home has to connect to it.
    let element = world.member(7, &[one]);
    world.run(SECOND);
    world.kill(one);
    world.run(SECOND);
    assert_eq!(world.homes(two), [(7, 2)]);
    world.pause(element);
    // By then, the new home has sent the element a keep-alive.
    world.run(SECOND * 2);
    for _ in 0..3 {
        world.disconnect(element);
        world.resume(element);
        world.run(SECOND / 10);
        assert_eq!(world.homes(two), [(7, 2)]);
    }
    world.run(SECOND * 60);
    assert_eq!(world.homes(two), [(7, 2)]);
}

/// Tests the takeover of an element that a user has reported, while the registrar that received the
/// report waits for the element's answer. The element stays if it is alive, regardless of the
/// report.
#[test]
fn an_element_that_is_being_asked_is_taken_over() {
    for lives in [true, false] {
        let mut world = World::default();
        let one = world.join(1, &[]);
        let two = world.join(2, &[one]);
        world.run(SECOND);
        let element = world.member(7, &[one, two]);
        world.run(SECOND);
        world.pause(element);
        let user = world.connect(two);
        let (pool_handle, identifier) = ("Pool".parse().unwrap(), PoolElementId(7));
        send_asap(&mut world, user, EndpointUnreachable { pool_handle, identifier });
        world.run(SECOND / 10);
        world.kill(one);
        world.run(SECOND / 10);
        assert_eq!(world.homes(two), [(7, 2)], "it is taken over");
        if lives {
            world.resume(element);
            world.run(SECOND * 60);
            assert_eq!(world.homes(two), [(7, 2)]);
            assert!(registered(&mut world, element));
        } else {
            world.run(SECOND * 20);
            assert_eq!(world.homes(two), []);
        }
    }
}

#[test]
fn a_registrar_that_was_taken_for_dead_comes_back() {
    let mut world = World::default();
    let one = world.join(1, &[]);
    let two = world.join(2, &[one]);
    let three = world.join(3, &[one]);
    let a = world.member(11, &[one]);
    world.run(SECOND);
    world.pause(one);
    world.run(SECOND * 30);
    let homes = world.homes(two);
    assert_eq!(homes.len(), 1, "the element lives");
    assert_ne!(homes[0].1, 1);
    assert_eq!(homes, world.homes(three));
    world.resume(one);
    world.run(SECOND * 30);
    assert_eq!(world.homes(one).len(), 1);
    assert_eq!(world.homes(one), world.homes(two));
    assert_eq!(world.homes(one), world.homes(three));
    assert!(registered(&mut world, a));
}

#[test]
fn nobody_is_believed_by_the_name_of_a_registrar_at_another_address() {
    let mut world = World::default();
    let one = world.join(1, &[]);
    let two = world.join(2, &[one]);
    world.run(SECOND);
    let asap = world.connect(one);
    register(&mut world, asap, "Pool", 1);
    world.run(SECOND);
    // A host that uses the identifier of the first registrar announces to the second one that an
    // element was removed, and adds one that does not exist.
    let liar = world.connect_for(Ppid::ENRP, two);
    let route = Route { sender: RegistrarId(1), receiver: RegistrarId(2) };
    let element = PoolElement {
        identifier: PoolElementId(2),
        home_registrar: RegistrarId(1),
        registration_life: RegistrationLife(60),
        user_transport: address(99).into(),
        policy: "RoundRobin".parse().unwrap(),
        asap_transport: Some(address(99)),
    };
    let update = |action, identifier| enrp::HandleUpdate {
        takeover_suggested: false,
        route,
        action,
        reserved: 0,
        pool_handle: "Pool".parse().unwrap(),
        pool_element: PoolElement { identifier: PoolElementId(identifier), ..element.clone() },
    };
    send_enrp(&mut world, liar, update(enrp::UpdateAction::Delete, 1));
    send_enrp(&mut world, liar, update(enrp::UpdateAction::Add, 2));
    assert_eq!(world.homes(two), [(1, 1)]);
    let told = world.take_events(two);
    let misbehaved =
        |event: &Event| matches!(event, Event::Registrar(registrar::Event::Misbehaved { .. }));
    assert_eq!(told.iter().filter(|event| misbehaved(event)).count(), 1);
}

#[test]
fn an_element_that_came_back_to_its_home_with_another_policy_is_taken_in() {
    let mut world = World::default();
    let node = registrar(&mut world);
    let home = world.connect_for(Ppid::ENRP, node);
    let add = |policy: &str| enrp::HandleUpdate {
        takeover_suggested: false,
        route: ROUTE,
        action: enrp::UpdateAction::Add,
        reserved: 0,
        pool_handle: "Pool".parse().unwrap(),
        pool_element: PoolElement {
            home_registrar: ROUTE.sender,
            policy: policy.parse().unwrap(),
            ..registration("Pool", 1).pool_element
        },
    };
    // The home registrar adds the element twice. The removal in between did not arrive.
    for policy in ["RoundRobin", "LeastUsed:7"] {
        send_enrp(&mut world, home, add(policy));
        let registrar = world.with_registrar(node);
        let known: Vec<_> =
            registrar.members().map(|(_, element)| element.policy.to_string()).collect();
        assert_eq!(known, [policy]);
    }
}
