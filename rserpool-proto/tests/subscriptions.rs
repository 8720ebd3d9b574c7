//! Tests that users are notified of changes of a pool (RFC 5352 sections 2.2.5 and 2.2.6), in
//! virtual time.
#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use rserpool_proto::testing::echo_pool::{
    element_config, handle, hunt, new_element, new_registrar, new_user, resolve,
};
use rserpool_proto::testing::world::{Event, NodeId, World};
use rserpool_proto::wire::{PolicyParameters, PoolElement};
use rserpool_proto::{Element, User, user};

const SECOND: Duration = Duration::from_secs(1);

/// Returns the notifications of the user since the last call.
fn told(world: &mut World, user: NodeId) -> Vec<Vec<PoolElement>> {
    let events = world.take_events(user);
    let changes = events.into_iter().filter_map(|event| match event {
        Event::User(user::Event::PoolChanged { handle: pool, elements }) => {
            assert_eq!(pool, handle());
            Some(elements)
        }
        _ => None,
    });
    changes.collect()
}

fn sizes(world: &mut World, user: NodeId) -> Vec<usize> {
    told(world, user).iter().map(Vec::len).collect()
}

fn subscribe(world: &mut World, user: NodeId) {
    world.with_user(user, |user, now| user.subscribe(now, handle()).unwrap());
    world.run(Duration::ZERO);
}

fn load(world: &mut World, element: NodeId, load: f64) {
    world.with_element(element, |element, now| element.set_load(now, load));
    world.run(Duration::ZERO);
}

fn loaded(seed: u64, registrars: &[NodeId]) -> Element {
    Element::new(element_config(registrars).policy(PolicyParameters::least_used(0)), seed)
}

#[test]
fn a_subscriber_is_told_of_all_that_is_there_and_then_of_each_change() {
    let mut world = World::default();
    let registrar = world.registrar(new_registrar());
    let elements = [1, 2].map(|seed| world.element(loaded(seed, &[registrar])));
    let user = world.user(new_user(&[registrar]));
    world.run(SECOND);
    subscribe(&mut world, user);
    assert_eq!(sizes(&mut world, user), [2]);
    world.element(loaded(3, &[registrar]));
    world.run(SECOND);
    assert_eq!(sizes(&mut world, user), [3]);
    // The user is notified if an element registers a different load, but not if it registers the
    // same load.
    load(&mut world, elements[0], 0.5);
    let latest = told(&mut world, user).pop().unwrap();
    let half = PolicyParameters::least_used(1 << 31);
    assert_eq!(latest.iter().filter(|element| element.policy == half).count(), 1);
    world.run(SECOND * 200);
    assert_eq!(sizes(&mut world, user), [0_usize; 0], "renewals are no changes");
    world.kill(elements[1]);
    world.run(SECOND);
    assert_eq!(sizes(&mut world, user), [2]);
    // A user that subscribed can still resolve the pool, and gets its elements in turn as before.
    assert_eq!(resolve(&mut world, user).unwrap().len(), 2);
}

#[test]
fn changes_that_come_thick_are_told_together_and_the_last_one_in_any_case() {
    let mut world = World::default();
    let registrar = world.registrar(new_registrar());
    let elements: Vec<_> = (1..=20).map(|seed| world.element(loaded(seed, &[registrar]))).collect();
    let user = world.user(new_user(&[registrar]));
    world.run(SECOND);
    subscribe(&mut world, user);
    world.run(SECOND);
    told(&mut world, user);
    for element in &elements {
        load(&mut world, *element, 0.25);
        world.run(Duration::from_millis(1));
    }
    world.run(SECOND);
    let told = told(&mut world, user);
    assert_eq!(told.len(), 2, "at once, and 100 ms later");
    let quarter = PolicyParameters::least_used(1 << 30);
    assert!(told[1].iter().all(|element| element.policy == quarter));
}

/// Tests a second user that subscribes between a change and its notification. It receives the
/// change with its answer, and the first user is notified nevertheless.
#[test]
fn a_subscriber_that_comes_while_a_change_waits_misses_nothing() {
    let mut world = World::default();
    let registrar = world.registrar(new_registrar());
    let elements = [1, 2].map(|seed| world.element(loaded(seed, &[registrar])));
    let users = [world.user(new_user(&[registrar])), world.user(new_user(&[registrar]))];
    world.run(SECOND);
    subscribe(&mut world, users[0]);
    world.run(SECOND);
    told(&mut world, users[0]);
    let loads = |world: &mut World, user| -> Vec<Vec<u32>> {
        let mut told = told(world, user);
        let load = |element: &PoolElement| element.policy.words()[0] >> 24;
        told.iter_mut()
            .map(|pool| {
                let mut loads: Vec<_> = pool.iter().map(load).collect();
                loads.sort_unstable();
                loads
            })
            .collect()
    };
    load(&mut world, elements[0], 0.25);
    assert_eq!(loads(&mut world, users[0]), [[0, 0x40]], "told at once");
    world.run(Duration::from_millis(20));
    load(&mut world, elements[1], 0.5);
    world.run(Duration::from_millis(20));
    assert_eq!(loads(&mut world, users[0]).len(), 0, "it is too soon");
    subscribe(&mut world, users[1]);
    assert_eq!(loads(&mut world, users[1]), [[0x40, 0x80]]);
    world.run(SECOND);
    assert_eq!(loads(&mut world, users[0]), [[0x40, 0x80]]);
    // Both users are subscribed to what follows.
    told(&mut world, users[1]);
    load(&mut world, elements[0], 0.125);
    world.run(SECOND);
    for user in users {
        assert_eq!(loads(&mut world, user), [[0x20, 0x80]]);
    }
}

#[test]
fn a_load_is_told_at_most_every_tenth_of_a_second_and_the_last_one_in_any_case() {
    let mut world = World::default();
    let registrar = world.registrar(new_registrar());
    let element = world.element(loaded(1, &[registrar]));
    world.run(SECOND);
    world.take_events(registrar);
    for percent in 1..=50 {
        load(&mut world, element, f64::from(percent) / 100.0);
        world.run(Duration::from_millis(10));
    }
    world.run(SECOND);
    let renewals = world.take_events(registrar).len();
    assert!((5..=7).contains(&renewals), "{renewals} in half a second");
    let known = world.with_registrar(registrar).members().next().unwrap().1.policy;
    assert_eq!(known, PolicyParameters::least_used(1 << 31));
}

#[test]
fn a_pool_that_goes_and_comes_again_is_told() {
    let mut world = World::default();
    let registrar = world.registrar(new_registrar());
    let user = world.user(new_user(&[registrar]));
    world.run(SECOND);
    subscribe(&mut world, user);
    assert_eq!(sizes(&mut world, user), [0], "there is none yet");
    let element = world.element(new_element(1));
    world.run(SECOND * 2);
    assert_eq!(sizes(&mut world, user).last(), Some(&1));
    world.with_element(element, Element::deregister);
    world.run(Duration::ZERO);
    assert_eq!(sizes(&mut world, user), [0], "at once");
    world.element(new_element(2));
    world.run(SECOND * 2);
    assert_eq!(sizes(&mut world, user).last(), Some(&1));
}

#[test]
fn another_home_registrar_goes_on() {
    let mut world = World::default();
    let one = world.join(1, &[]);
    let other = world.join(2, &[one]);
    world.run(SECOND * 10);
    world.element(loaded(1, &[one, other]));
    world.run(SECOND);
    let user = world.user(User::new(user::UserConfig::new(hunt(&[one, other])), 5));
    world.run(SECOND);
    subscribe(&mut world, user);
    assert_eq!(sizes(&mut world, user), [1]);
    for victim in [one, other] {
        let home = world.with_registrar(victim).footprint().subscriptions;
        if home == 1 {
            world.kill(victim);
            break;
        }
    }
    world.run(SECOND * 10);
    told(&mut world, user);
    world.element(loaded(2, &[one, other]));
    world.run(SECOND * 2);
    assert_eq!(sizes(&mut world, user).last(), Some(&2));
}

#[test]
fn nothing_is_left_of_a_subscriber_that_is_gone() {
    let mut world = World::default();
    let registrar = world.registrar(new_registrar());
    world.element(new_element(1));
    let users = [0; 3].map(|_| world.user(new_user(&[registrar])));
    world.run(SECOND);
    for user in users {
        subscribe(&mut world, user);
    }
    assert_eq!(world.with_registrar(registrar).footprint().subscriptions, 3);
    for user in users {
        world.kill(user);
    }
    world.run(SECOND);
    assert_eq!(world.with_registrar(registrar).footprint().subscriptions, 0);
}

#[test]
fn a_registrar_that_hangs_is_left_by_who_only_listens() {
    let mut world = World::default();
    let first = world.registrar(new_registrar());
    let second = world.registrar(new_registrar());
    world.element(loaded(1, &[first]));
    for seed in 2..=3 {
        world.element(loaded(seed, &[second]));
    }
    world.run(SECOND);
    world.pause(second);
    let user = world.user(new_user(&[first, second]));
    subscribe(&mut world, user);
    world.run(SECOND);
    assert_eq!(sizes(&mut world, user).last(), Some(&1));
    world.resume(second);
    world.pause(first);
    // The user asks the registrar again after half a minute, and waits T1 for the answer. It may
    // then find the same registrar again.
    world.run(SECOND * 90);
    assert_eq!(sizes(&mut world, user).last(), Some(&2));
}
