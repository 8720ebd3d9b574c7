//! Tests the limits on one host, and which connections are closed when there are too many.
#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use rserpool_proto::registrar::{Event as Told, Limit, Limits, RegistrarConfig};
use rserpool_proto::testing::by_hand::{registration, send_asap, take_asap};
use rserpool_proto::testing::world::{Event, NodeId, World, address};
use rserpool_proto::wire::asap::{Body, EndpointUnreachable};
use rserpool_proto::wire::{
    ErrorCause, PolicyParameters, PolicyType, PoolElementId, Ppid, RegistrarId,
};
use rserpool_proto::{Machine, Registrar};

const SECOND: Duration = Duration::from_secs(1);

fn new_registrar(world: &mut World, limits: Limits) -> NodeId {
    let config = RegistrarConfig::default().identifier(RegistrarId(1)).ready_after(Duration::ZERO);
    world.registrar(Registrar::new(config.limits(limits), 1))
}

/// Returns a policy of unknown type with this number of values.
fn policy(values: usize) -> PolicyParameters {
    PolicyParameters::new(PolicyType(0xc000_0001), &vec![7; values])
}

/// Tests that elements that were accepted when they were small cannot grow past the limit of bytes,
/// neither that of their host nor that of all hosts.
#[test]
fn elements_that_grow_stop_at_the_limit_of_bytes() {
    for limits in [Limits::default().bytes_per_host(4000), Limits::default().bytes(4000)] {
        let mut world = World::default();
        let node = new_registrar(&mut world, limits);
        let element = world.connect(node);
        let register = |world: &mut World, identifier, values| {
            let mut registration = registration("Pool", identifier);
            registration.pool_element.policy = policy(values);
            send_asap(world, element, registration);
            match take_asap(world, element).as_slice() {
                [Body::RegistrationResponse(response)] => {
                    response.error.as_ref().map(|error| error.causes.clone())
                }
                other => panic!("{other:?}"),
            }
        };
        for identifier in 1..=20 {
            assert_eq!(register(&mut world, identifier, 1), None);
        }
        let grown: Vec<_> =
            (1..=20).map(|identifier| register(&mut world, identifier, 100)).collect();
        // There are 20 elements of 100 bytes, each of which may grow to 500.
        let taken = grown.iter().filter(|refused| refused.is_none()).count();
        assert!((4..=8).contains(&taken), "{taken}");
        assert!(grown[taken..].iter().all(|refused| {
            refused.as_ref().is_some_and(|causes| causes[..] == [ErrorCause::LackOfResources])
        }));
        let registrar = world.with_registrar(node);
        assert_eq!(registrar.elements(), 20);
        let sizes: usize = registrar.members().map(|(_, its)| its.policy.words().len()).sum();
        assert_eq!(sizes, taken * 100 + (20 - taken), "those refused are what they were");
        assert_eq!(registrar.counters().limit_hits(Limit::Elements), (20 - taken) as u64);
        // At the limit, an element that does not grow can renew its registration, and one that
        // shrinks makes room for another.
        assert_eq!(register(&mut world, 20, 1), None);
        for identifier in 1..=20 {
            assert_eq!(register(&mut world, identifier, 1), None);
        }
        assert_eq!(register(&mut world, 20, 100), None);
    }
}

/// Tests that silent connections are closed if descriptors run short: those of the host that has
/// the most of them, the longest silent ones first, and none that serves an element.
#[test]
fn silent_connections_of_the_host_with_the_most_make_room() {
    let mut world = World::default();
    let node = new_registrar(&mut world, Limits::default());
    let element = world.connect_from(50, Ppid::ASAP, node);
    let mut registered = registration("Pool", 7);
    registered.pool_element.user_transport = address(50).into();
    send_asap(&mut world, element, registered);
    take_asap(&mut world, element);
    let honest: Vec<_> = (0..5).map(|_| world.connect_from(51, Ppid::ASAP, node)).collect();
    let many: Vec<_> = (0..40).map(|_| world.connect_from(52, Ppid::ASAP, node)).collect();
    world.run(SECOND);
    // The first ten connections of this host have sent something in the meantime.
    let report =
        EndpointUnreachable { pool_handle: "Nope".parse().unwrap(), identifier: PoolElementId(1) };
    for on in &many[..10] {
        send_asap(&mut world, *on, report.clone());
    }
    world.take_events(node);
    world.with_registrar_mut(node, |registrar, now| registrar.handle_crowded(now));
    world.run(Duration::ZERO);
    let crowded: Vec<_> = world
        .take_events(node)
        .into_iter()
        .filter_map(|event| match event {
            Event::Registrar(Told::Crowded { host, closed }) => Some((host.to_string(), closed)),
            _ => None,
        })
        .collect();
    assert_eq!(crowded, [("10.0.0.52".to_owned(), 16)]);
    let open = |world: &World, on| world.is_open(on);
    assert!(open(&world, element) && honest.iter().all(|on| open(&world, *on)));
    let closed: Vec<_> = (0..40).filter(|number| !open(&world, many[*number])).collect();
    assert_eq!(closed, (10..26).collect::<Vec<_>>());
    // Ten more times: after that, only the element's connection is left.
    for _ in 0..10 {
        world.with_registrar_mut(node, |registrar, now| registrar.handle_crowded(now));
        world.run(Duration::ZERO);
    }
    assert!(open(&world, element));
    assert!(!honest.iter().chain(&many).any(|on| open(&world, *on)));
    assert_eq!(world.elements(node), 1);
}
