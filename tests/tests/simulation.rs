//! Some hundred runs of the simulation; `simulate` does more of them.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use rserpool_tests::simulation;

const SEEDS: u64 = 400;

#[test]
fn no_rule_is_broken_under_faults() {
    let next = AtomicU64::new(0);
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= SEEDS {
                        break;
                    }
                    if let Some((at, what)) = simulation::run(seed, false).violation {
                        let trace = simulation::run(seed, true).trace;
                        let end = &trace[trace.len().saturating_sub(200)..];
                        panic!("{}\nseed {seed}: after {at:.3?}: {what}", end.join("\n"));
                    }
                }
            });
        }
    });
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
