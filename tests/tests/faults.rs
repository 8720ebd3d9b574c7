//! Several registrars under faults drawn at random: in the end all know the same, and the truth.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rserpool::protocol::element::ElementConfig;
use rserpool::protocol::registrar::RegistrarConfig;
use rserpool::protocol::{Element, HuntConfig, Registrar};
use rserpool::wire::{PoolElementId, RegistrarId, TransportAddress};
use rserpool_tests::world::{NodeId, World, address};

/// How many seeds are tried; the environment variable `SEEDS`, as in `SEEDS=1000..9000`, has
/// others tried.
const SEEDS: std::ops::Range<u64> = 0..200;

/// The hosts of the first registrars, of which everyone is told.
const WELL_KNOWN: [NodeId; 3] = [0, 1, 2];

fn registrar(world: &mut World) -> NodeId {
    let host = world.hosts();
    let identifier = u32::try_from(host).unwrap() * 7919 % 1009 + 1;
    let config = RegistrarConfig::new(RegistrarId(identifier), host as u64)
        .enrp(address(host))
        .peers(WELL_KNOWN.iter().filter(|other| **other != host).map(|other| address(*other)));
    world.registrar(Registrar::new(config))
}

fn element(world: &mut World) -> NodeId {
    let host = world.hosts();
    let service = TransportAddress { port: 7, ..address(host) };
    let hunt = HuntConfig::new(WELL_KNOWN.map(address));
    let config = ElementConfig::new("Pool".parse().unwrap(), service, hunt, host as u64)
        .identifier(PoolElementId(u32::try_from(host).unwrap()))
        .asap_transport(address(host));
    world.element(Element::new(config))
}

/// What happened, a line each.
fn run(seed: u64) -> Vec<String> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut world = World::default();
    let start = world.now();
    let mut registrars: Vec<_> = (0..3).map(|_| registrar(&mut world)).collect();
    let mut elements: Vec<_> = (0..6).map(|_| element(&mut world)).collect();
    let mut paused: Vec<NodeId> = Vec::new();
    let mut trace = Vec::new();
    world.run(Duration::from_secs(10));
    for _ in 0..20 {
        let at = world.now() - start;
        match rng.random_range(0..6) {
            0 if registrars.len() > 1 => {
                let dead = registrars.swap_remove(rng.random_range(0..registrars.len()));
                paused.retain(|node| *node != dead);
                world.kill(dead);
                trace.push(format!("{at:?} registrar {dead} killed"));
            }
            1 if world.hosts() < 20 => {
                let new = registrar(&mut world);
                registrars.push(new);
                trace.push(format!("{at:?} registrar {new} started"));
            }
            2 if elements.len() > 1 => {
                let dead = elements.swap_remove(rng.random_range(0..elements.len()));
                paused.retain(|node| *node != dead);
                world.kill(dead);
                trace.push(format!("{at:?} element {dead} killed"));
            }
            3 => {
                let all: Vec<_> = registrars.iter().chain(&elements).copied().collect();
                let node = all[rng.random_range(0..all.len())];
                if !paused.contains(&node) {
                    world.pause(node);
                    paused.push(node);
                    trace.push(format!("{at:?} {node} paused"));
                }
            }
            4 if !paused.is_empty() => {
                let node = paused.swap_remove(rng.random_range(0..paused.len()));
                world.resume(node);
                trace.push(format!("{at:?} {node} goes on"));
            }
            _ => {
                let node = registrars[rng.random_range(0..registrars.len())];
                if !paused.contains(&node) {
                    world.disconnect(node);
                    trace.push(format!("{at:?} {node} loses all connections"));
                }
            }
        }
        world.run(Duration::from_millis(rng.random_range(0..8_000)));
    }
    for node in paused {
        world.resume(node);
    }
    world.run(Duration::from_secs(180));
    let mut expected: Vec<_> = elements.iter().map(|node| u32::try_from(*node).unwrap()).collect();
    expected.sort_unstable();
    let alive: Vec<_> =
        registrars.iter().map(|node| world.with_registrar(*node).identifier().0).collect();
    let first = world.homes(registrars[0]);
    for node in &registrars {
        trace.push(format!(
            "{node}: {:?} peers {:?}",
            world.homes(*node),
            world.with_registrar(*node).peers()
        ));
    }
    for node in &registrars {
        let homes = world.homes(*node);
        let known: Vec<_> = homes.iter().map(|(element, _)| *element).collect();
        let report = || format!("seed {seed}, registrar {node}: {homes:?}\n{}", trace.join("\n"));
        // Who is told of nobody alive cannot be reached: then there may be several parts.
        if registrars.iter().any(|node| WELL_KNOWN.contains(node)) {
            assert_eq!(known, expected, "{}", report());
            assert_eq!(homes, first, "{}", report());
            assert!(homes.iter().all(|(_, home)| alive.contains(home)), "{}", report());
        }
    }
    trace
}

#[test]
fn in_the_end_all_registrars_know_the_elements_that_live() {
    let chosen = std::env::var("SEEDS").ok().map(|text| {
        let (first, end) = text.split_once("..").expect("SEEDS=first..end");
        first.parse().expect("a number")..end.parse().expect("a number")
    });
    for seed in chosen.unwrap_or(SEEDS) {
        run(seed);
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in 0..5 {
        assert_eq!(run(seed), run(seed));
    }
}
