//! Some hundred runs of the simulation; `simulate` does more of them.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use rserpool_tests::simulation;

const SEEDS: u64 = 400;

fn check(seed: u64) {
    if let Some((at, what)) = simulation::run(seed, false).violation {
        let trace = simulation::run(seed, true).trace;
        let end = &trace[trace.len().saturating_sub(200)..];
        panic!("{}\nseed {seed}: after {at:.3?}: {what}", end.join("\n"));
    }
}

#[test]
fn no_rule_is_broken_under_faults() {
    let next = AtomicU64::new(0);
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    match next.fetch_add(1, Ordering::Relaxed) {
                        seed if seed < SEEDS => check(seed),
                        _ => break,
                    }
                }
            });
        }
    });
}

#[test]
fn seeds_that_found_a_fault_find_none_any_more() {
    let seeds = include_str!("../data/seeds.txt").lines();
    let seeds: Vec<u64> = seeds
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split_once(' ').expect("a seed, and what it found").0.parse().unwrap())
        .collect();
    assert!(seeds.len() >= 7);
    seeds.into_iter().for_each(check);
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in 0..20 {
        let (one, other) = (simulation::run(seed, true), simulation::run(seed, true));
        assert!(one.trace.len() > 100);
        assert_eq!(one.trace, other.trace);
    }
}

#[test]
fn different_seeds_give_different_traces() {
    assert_ne!(simulation::run(1, true).trace, simulation::run(2, true).trace);
}
