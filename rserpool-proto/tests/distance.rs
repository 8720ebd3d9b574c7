//! Tests the distances of elements, which their registrar measures for the policies with a delay
//! penalty factor.
#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use rserpool_proto::Element;
use rserpool_proto::testing::echo_pool::{element_config, new_registrar};
use rserpool_proto::testing::world::{NodeId, World};
use rserpool_proto::wire::PolicyParameters;

const SECOND: Duration = Duration::from_secs(1);

fn policies(world: &World, registrar: NodeId) -> Vec<PolicyParameters> {
    world.with_registrar(registrar).members().map(|(_, element)| element.policy).collect()
}

fn element(seed: u64, policy: &str, registrars: &[NodeId]) -> Element {
    Element::new(element_config(registrars).policy(policy.parse().unwrap()), seed)
}

fn expect(world: &World, registrar: NodeId, policy: &str) {
    assert_eq!(policies(world, registrar), [policy.parse().unwrap()]);
}

#[test]
fn the_distance_is_half_of_the_way_and_back_and_measured_with_each_registration() {
    let mut world = World::default();
    let registrar = world.registrar(new_registrar());
    world.round_trip = Some(Duration::from_millis(310));
    world.element(element(1, "LeastUsedDPF:7:3:0", &[registrar]));
    world.run(SECOND);
    expect(&world, registrar, "LeastUsedDPF:7:3:150");
    // Renewals do not change the distance, and do not reset it.
    world.round_trip = None;
    world.run(SECOND * 100);
    expect(&world, registrar, "LeastUsedDPF:7:3:150");
    world.round_trip = Some(Duration::from_millis(90));
    world.run(SECOND * 100);
    expect(&world, registrar, "LeastUsedDPF:7:3:50");
}

#[test]
fn other_registrars_are_told_of_the_distance() {
    let mut world = World::default();
    let one = world.join(1, &[]);
    let other = world.join(2, &[one]);
    world.run(SECOND * 10);
    world.round_trip = Some(Duration::from_millis(200));
    world.element(element(1, "WeightedRandomDPF:9:1:0", &[one]));
    world.run(SECOND);
    for registrar in [one, other] {
        expect(&world, registrar, "WeightedRandomDPF:9:1:100");
    }
}

#[test]
fn where_nobody_knows_the_distance_is_what_the_element_says() {
    let mut world = World::default();
    let registrar = world.registrar(new_registrar());
    world.element(element(1, "LeastUsedDPF:7:3:40", &[registrar]));
    world.run(SECOND * 100);
    expect(&world, registrar, "LeastUsedDPF:7:3:40");
}
