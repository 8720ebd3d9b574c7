//! Tests of an operator's orders about elements, and of the forecast of selections.
#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use rserpool_proto::policy::Rank;
use rserpool_proto::registrar::{Event as Told, Forecast, NotHome, RegistrarConfig, RemovalReason};
use rserpool_proto::testing::by_hand::{registration, send_asap, send_enrp, take_asap, take_enrp};
use rserpool_proto::testing::world::{Event, NodeId, World};
use rserpool_proto::wire::asap::{Body, HandleResolution, Resolved};
use rserpool_proto::wire::enrp::{self, Presence, Route};
use rserpool_proto::wire::parameter::ItemCount;
use rserpool_proto::wire::{
    ErrorCause, PoolElementId, PoolHandle, Ppid, RegistrarId, TransportAddress,
};
use rserpool_proto::{ConnectionId, Registrar};

const SECOND: Duration = Duration::from_secs(1);

fn pool() -> PoolHandle {
    "Pool".parse().unwrap()
}

fn drain(world: &mut World, at: NodeId, identifier: u32, drained: bool) -> Result<bool, NotHome> {
    let identifier = PoolElementId(identifier);
    world.with_registrar_mut(at, |it, now| it.drain(now, &pool(), identifier, drained))
}

/// Returns the elements of the last answer, or the error causes.
fn answer(world: &mut World, on: ConnectionId) -> Option<Result<Vec<u32>, Vec<ErrorCause>>> {
    let last = take_asap(world, on).into_iter().rev().find_map(|message| match message {
        Body::HandleResolutionResponse(response) => Some(response.result),
        _ => None,
    });
    Some(match last? {
        Resolved::Pool { elements, .. } => {
            Ok(elements.iter().map(|element| element.identifier.0).collect())
        }
        Resolved::Error(error) => Err(error.causes),
        _ => panic!("neither elements nor an error"),
    })
}

fn resolve(
    world: &mut World,
    on: ConnectionId,
    subscribe: bool,
    items: u32,
) -> Result<Vec<u32>, Vec<ErrorCause>> {
    take_asap(world, on);
    let items = Some(ItemCount(items));
    send_asap(world, on, HandleResolution { subscribe, pool_handle: pool(), items });
    answer(world, on).unwrap()
}

fn sorted(result: Result<Vec<u32>, Vec<ErrorCause>>) -> Vec<u32> {
    let mut found = result.unwrap();
    found.sort_unstable();
    found
}

#[test]
fn a_drained_element_stays_and_nobody_is_told_of_it() {
    let mut world = World::default();
    let one = world.join(1, &[]);
    let two = world.join(2, &[one]);
    world.run(SECOND);
    let members = [world.member(1, &[one]), world.member(2, &[one])];
    world.run(SECOND);
    let loopback = TransportAddress::tcp("127.0.0.1:9".parse().unwrap());
    let here = world.connect_at(loopback, Ppid::ASAP, one);
    let (there, follower) = (world.connect(two), world.connect(one));
    assert_eq!(sorted(resolve(&mut world, follower, true, 9)), [1, 2]);

    assert_eq!(drain(&mut world, two, 1, true), Err(NotHome::Elsewhere(RegistrarId(1))));
    assert_eq!(drain(&mut world, one, 9, true), Err(NotHome::Unknown));
    assert_eq!(drain(&mut world, one, 1, true), Ok(true));
    assert_eq!(drain(&mut world, one, 1, true), Ok(false));
    world.run(SECOND);
    // The subscriber was told.
    assert_eq!(answer(&mut world, follower), Some(Ok(vec![2])));
    // It stays so through renewals, keep-alives and audits.
    let asked = world.requests;
    for _ in 0..3 {
        for on in [here, there] {
            assert_eq!(resolve(&mut world, on, false, 9), Ok(vec![2]));
        }
        assert_eq!(world.homes(one), [(1, 1), (2, 1)]);
        assert_eq!(world.homes(two), [(2, 1)]);
        for member in members {
            world.with_element(member, |element, now| {
                element.set_policy(now, "RoundRobin".parse().unwrap())
            });
        }
        world.run(SECOND * 30);
    }
    assert_eq!(world.requests, asked, "no handle table was asked for");
    // A registrar that joins is not told of it.
    let three = world.join(3, &[one]);
    world.run(SECOND);
    assert_eq!(world.homes(three), [(2, 1)]);

    // A pool without other elements is unknown.
    assert_eq!(drain(&mut world, one, 2, true), Ok(true));
    world.run(SECOND);
    for on in [here, there] {
        assert_eq!(resolve(&mut world, on, false, 9), Err(vec![ErrorCause::UnknownPoolHandle]));
    }

    for identifier in [1, 2] {
        assert_eq!(drain(&mut world, one, identifier, false), Ok(true));
    }
    world.run(SECOND);
    for on in [here, there] {
        assert_eq!(sorted(resolve(&mut world, on, false, 9)), [1, 2]);
    }
    assert_eq!(world.homes(three), [(1, 1), (2, 1)]);
}

#[test]
fn an_element_that_moves_or_comes_again_is_not_drained() {
    let mut world = World::default();
    let one = world.join(1, &[]);
    let two = world.join(2, &[one]);
    world.run(SECOND);
    let user = world.connect(one);
    let mut on = world.connect(one);
    send_asap(&mut world, on, registration("Pool", 1));
    drain(&mut world, one, 1, true).unwrap();
    assert_eq!(resolve(&mut world, user, false, 1), Err(vec![ErrorCause::UnknownPoolHandle]));
    // It registers at the other registrar.
    let before = std::mem::replace(&mut on, world.connect(two));
    send_asap(&mut world, on, registration("Pool", 1));
    world.close(before);
    world.run(SECOND);
    assert_eq!(world.homes(one), [(1, 2)]);
    assert_eq!(resolve(&mut world, user, false, 1), Ok(vec![1]));
    // It is removed there, and registers again.
    assert_eq!(drain(&mut world, two, 1, true), Ok(true));
    world.run(SECOND);
    assert_eq!(world.elements(one), 0);
    world.with_registrar_mut(two, |it, now| it.deregister(now, &pool(), PoolElementId(1))).unwrap();
    world.run(Duration::ZERO);
    let removed = |event: &(_, _, Event)| {
        matches!(&event.2, Event::Registrar(Told::Removed(_, RemovalReason::Ordered, _)))
    };
    assert!(world.events.iter().any(removed));
    assert!(
        take_asap(&mut world, on).iter().any(|it| matches!(it, Body::DeregistrationResponse(_))),
        "the element was not told"
    );
    send_asap(&mut world, on, registration("Pool", 1));
    world.run(SECOND);
    assert_eq!(resolve(&mut world, user, false, 1), Ok(vec![1]));
}

fn forecast(world: &World, at: NodeId) -> Forecast {
    world.with_registrar(at).forecast(world.now(), &pool(), 7).unwrap()
}

/// Tests that the forecast is what then happens, and that it does not change what happens.
#[test]
fn a_forecast_of_the_next_selections_comes_true() {
    for policy in ["RoundRobin", "WeightedRoundRobin", "LeastUsed", "LeastUsedDegradation"] {
        let mut world = World::default();
        let config = RegistrarConfig::default().ready_after(Duration::ZERO).default_items(2);
        let one = world.registrar(Registrar::new(config, 1));
        let on = world.connect(one);
        for (identifier, load) in [(1, 3), (2, 1), (3, 2)] {
            let mut element = registration("Pool", identifier);
            let words = ["RoundRobin"].contains(&policy).then(String::new);
            let words = words.unwrap_or_else(|| match policy {
                "LeastUsedDegradation" => format!(":{load}:1000000"),
                _ => format!(":{load}"),
            });
            element.pool_element.policy = format!("{policy}{words}").parse().unwrap();
            send_asap(&mut world, on, element);
        }
        resolve(&mut world, on, false, 0).unwrap();
        let forecast = forecast(&world, one);
        assert_eq!((forecast.items, forecast.resolutions, forecast.next.len()), (2, 1000, 10));
        let first: usize = forecast.elements.iter().map(|element| element.first).sum();
        let offered: usize = forecast.elements.iter().map(|element| element.offered).sum();
        assert_eq!((first, offered), (1000, 2000), "{policy}");
        for expected in forecast.next {
            let selected = resolve(&mut world, on, false, 0).unwrap();
            assert_eq!(PoolElementId(selected[0]), expected, "{policy}");
        }
    }
}

#[test]
fn a_forecast_says_what_decides_and_who_is_avoided() {
    let mut world = World::default();
    let one = world.join(1, &[]);
    let on = world.connect(one);
    for (identifier, weight) in [(1, 30), (2, 10), (3, 10)] {
        let mut element = registration("Pool", identifier);
        element.pool_element.policy = format!("WeightedRandom:{weight}").parse().unwrap();
        send_asap(&mut world, on, element);
    }
    let ranks = |forecast: &Forecast| -> Vec<_> {
        forecast.elements.iter().map(|element| element.rank).collect()
    };
    let before = forecast(&world, one);
    assert_eq!(ranks(&before), [30, 10, 10].map(|weight| Some(Rank::Weight(weight))));
    assert!((550..650).contains(&before.elements[0].first), "{before:?}");
    drain(&mut world, one, 1, true).unwrap();
    let report = rserpool_proto::wire::asap::EndpointUnreachable {
        pool_handle: pool(),
        identifier: PoolElementId(2),
    };
    let user = world.connect_from(98, Ppid::ASAP, one);
    send_asap(&mut world, user, report);
    let after = forecast(&world, one);
    assert_eq!(ranks(&after), [None, Some(Rank::Weight(10)), Some(Rank::Weight(10))]);
    let first: Vec<_> = after.elements.iter().map(|element| element.first).collect();
    assert_eq!(first, [0, 0, 1000]);
    assert!(after.elements[0].element.drained && after.elements[1].element.doubted);
    assert_eq!(forecast(&world, one), after, "it depends on the seed alone");
    assert!(world.with_registrar(one).forecast(world.now(), &"None".parse().unwrap(), 7).is_none());
}

/// Tests that a tool which asks for the handlespace, and says no address of its own, is not reported as
/// a registrar that comes and goes.
#[test]
fn who_asks_for_the_handlespace_is_no_registrar() {
    let mut world = World::default();
    let one = world.join(1, &[]);
    world.run(SECOND);
    let on = world.connect_for(Ppid::ENRP, one);
    let route = Route { sender: RegistrarId(77), receiver: RegistrarId(0) };
    send_enrp(
        &mut world,
        on,
        Presence { reply_required: true, route, checksum: None, server: None },
    );
    assert!(take_enrp(&mut world, on).iter().any(|it| matches!(it, enrp::Body::Presence(_))));
    world.close(on);
    world.run(SECOND * 600);
    let reported = |event: &(_, _, Event)| {
        matches!(&event.2, Event::Registrar(Told::PeerConnected(..) | Told::PeerLost(..)))
    };
    assert!(!world.events.iter().any(reported), "{:?}", world.events);
}

/// Tests that registrars agree on one of two pools with the same handle, although one of them has an
/// element that it does not tell of.
#[test]
fn a_drained_element_does_not_keep_a_pool_from_others() {
    for larger in [1, 2] {
        let mut world = World::default();
        let one = world.join(larger, &[]);
        let two = world.join(3 - larger, &[one]);
        world.run(SECOND);
        let on = world.connect(one);
        send_asap(&mut world, on, registration("Pool", 1));
        world.run(SECOND);
        drain(&mut world, one, 1, true).unwrap();
        world.run(SECOND);
        let other = world.connect(two);
        let mut rival = registration("Pool", 2);
        rival.pool_element.policy = "LeastUsed:10".parse().unwrap();
        send_asap(&mut world, other, rival);
        world.run(SECOND);
        for at in [one, two] {
            let user = world.connect(at);
            assert_eq!(resolve(&mut world, user, false, 9), Ok(vec![2]), "at {at}, {larger}");
        }
    }
}

/// Tests that a registrar whose elements another one took over, since it was suspended, does not go on
/// to drain them.
#[test]
fn an_element_that_was_taken_over_is_not_drained() {
    let mut world = World::default();
    let one = world.join(1, &[]);
    let two = world.join(2, &[one]);
    world.run(SECOND);
    for identifier in [1, 2] {
        world.member(identifier, &[one, two]);
    }
    world.run(SECOND);
    let drained: Vec<_> = world.homes(one).into_iter().filter(|(_, home)| *home == 1).collect();
    for (identifier, _) in &drained {
        drain(&mut world, one, *identifier, true).unwrap();
    }
    world.run(SECOND);
    world.pause(one);
    world.run(SECOND * 120);
    world.resume(one);
    world.run(SECOND * 30);
    for at in [one, two] {
        let user = world.connect(at);
        let told = sorted(resolve(&mut world, user, false, 9));
        assert_eq!(told, [1, 2], "{at}: {drained:?} were drained, {:?}", world.homes(at));
    }
}
