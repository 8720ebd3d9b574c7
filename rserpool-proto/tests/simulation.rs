//! Tests that a few hundred runs of the simulation break no rule; the program `simulate` does more
//! runs.
#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use rserpool_proto::testing::simulation;
use rserpool_proto::wire::Ppid;

const SEEDS: u64 = 400;

fn check(seed: u64, adversary: Option<Ppid>) {
    if let Some((at, what)) = simulation::run(seed, adversary, false).violation {
        let trace = simulation::run(seed, adversary, true).trace;
        let end = &trace[trace.len().saturating_sub(200)..];
        panic!("{}\nseed {seed}, {adversary:?}: after {at:.3?}: {what}", end.join("\n"));
    }
}

fn check_many(adversary: Option<Ppid>) {
    let next = AtomicU64::new(0);
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    match next.fetch_add(1, Ordering::Relaxed) {
                        seed if seed < SEEDS => check(seed, adversary),
                        _ => break,
                    }
                }
            });
        }
    });
}

#[test]
fn no_rule_is_broken_under_faults() {
    check_many(None);
}

#[test]
fn to_adversaries_that_speak_asap_nothing_is_lost() {
    check_many(Some(Ppid::ASAP));
}

#[test]
fn what_adversaries_that_speak_enrp_took_is_back_when_they_stop() {
    check_many(Some(Ppid::ENRP));
}

#[test]
fn seeds_that_found_a_fault_find_none_any_more() {
    let seeds = include_str!("data/seeds.txt").lines();
    let seeds = seeds.filter(|line| !line.starts_with('#'));
    let mut count = 0;
    for line in seeds {
        let (seed, _) = line.split_once(' ').expect("a seed, and what it found");
        let (seed, adversary) = match seed.split_once('+') {
            Some((seed, "asap")) => (seed, Some(Ppid::ASAP)),
            Some((seed, "enrp")) => (seed, Some(Ppid::ENRP)),
            Some(other) => panic!("no such adversary: {other:?}"),
            None => (seed, None),
        };
        check(seed.parse().unwrap(), adversary);
        count += 1;
    }
    assert!(count >= 9);
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in 0..20 {
        let (one, other) = (simulation::run(seed, None, true), simulation::run(seed, None, true));
        assert!(one.trace.len() > 100);
        assert_eq!(one.trace, other.trace);
    }
}

#[test]
fn different_seeds_give_different_traces() {
    assert_ne!(simulation::run(1, None, true).trace, simulation::run(2, None, true).trace);
}
