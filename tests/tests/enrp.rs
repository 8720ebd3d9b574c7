//! Registrars among each other (RFC 5353).
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use rserpool::protocol::registrar::RegistrarConfig;
use rserpool::protocol::{ConnectionId, Registrar};
use rserpool::wire::enrp::{self, Body, Route};
use rserpool::wire::parameter::PeChecksum;
use rserpool::wire::{
    Bytes, PoolElement, PoolElementId, PoolHandle, Ppid, RegistrarId, RegistrationLife,
    TransportAddress, UserMessage, asap,
};
use rserpool_tests::world::{NodeId, World, address};

const SECOND: Duration = Duration::from_secs(1);

const ROUTE: Route = Route { sender: RegistrarId(99), receiver: RegistrarId(1) };

fn registrar(world: &mut World) -> NodeId {
    let config = RegistrarConfig::new(RegistrarId(1), 1).enrp(address(0));
    world.registrar(Registrar::new(config))
}

fn send(world: &mut World, on: ConnectionId, message: impl Into<enrp::Message>) {
    let payload = message.into().encode().unwrap();
    world.send(on, UserMessage::new(Ppid::ENRP, payload));
}

/// What the test received over `on`, which is forgotten then.
fn received(world: &mut World, on: ConnectionId) -> Vec<Body> {
    let (ours, others) = world.received.drain(..).partition(|(connection, _)| *connection == on);
    world.received = others;
    let ours: Vec<(ConnectionId, UserMessage)> = ours;
    ours.iter()
        .map(|(_, message)| {
            assert_eq!(message.ppid, Ppid::ENRP);
            enrp::Message::decode(&message.payload).unwrap().body
        })
        .collect()
}

fn register(world: &mut World, on: ConnectionId, pool: &str, identifier: u32) {
    let transport = TransportAddress { port: 7, ..address(99) };
    let registration = asap::Registration {
        pool_handle: pool.parse().unwrap(),
        pool_element: PoolElement {
            identifier: PoolElementId(identifier),
            home_registrar: RegistrarId(0),
            registration_life: RegistrationLife::INFINITE,
            user_transport: transport.into(),
            policy: "RoundRobin".parse().unwrap(),
            asap_transport: Some(address(99)),
        },
    };
    let payload = asap::Message::from(registration).encode().unwrap();
    world.send(on, UserMessage::new(Ppid::ASAP, payload));
}

#[test]
fn an_unknown_registrar_is_asked_who_it_is() {
    let mut world = World::default();
    let node = registrar(&mut world);
    let on = world.connect_for(Ppid::ENRP, node);
    send(&mut world, on, enrp::ListRequest { route: ROUTE });
    match &received(&mut world, on)[..] {
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
            send(&mut world, on, enrp::HandleTableRequest { own_children_only, route: ROUTE });
            let received = received(&mut world, on);
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
        send(&mut world, on, request);
        match received(&mut world, on).pop() {
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
    assert!(received(&mut world, on).iter().all(|body| matches!(body, Body::Error(_))));
    // Not for this registrar, of nobody, of itself.
    for (sender, receiver) in [(99, 2), (0, 1), (1, 0)] {
        let route = Route { sender: RegistrarId(sender), receiver: RegistrarId(receiver) };
        send(&mut world, on, enrp::ListRequest { route });
        assert_eq!(received(&mut world, on), []);
    }
    send(&mut world, on, enrp::ListRequest { route: ROUTE });
    assert_eq!(received(&mut world, on).len(), 2);
    // A registrar keeps its identifier as long as it lives.
    let route = Route { sender: RegistrarId(98), receiver: RegistrarId(1) };
    send(&mut world, on, enrp::ListRequest { route });
    assert_eq!(received(&mut world, on), []);
}
