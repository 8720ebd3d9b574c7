//! The handlespace: what each operation costs, in pools of all sizes and of the policies that are
//! most used.
//!
//!     cargo bench -p rserpool --bench handlespace [-- --quick]
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a benchmark"
)]

mod memory;
#[path = "../report.rs"]
mod report;
mod space;

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::Criterion;
use rand::RngExt;
use rand::seq::index;
use report::Report;
use space::{LIFETIME, Space};

const POLICIES: [&str; 6] = [
    "RoundRobin",
    "WeightedRoundRobin",
    "Random",
    "WeightedRandom",
    "LeastUsed",
    "LeastUsedDegradation",
];

const SIZES: [usize; 4] = [1_000, 10_000, 100_000, 1_000_000];

/// So many elements join or leave in a row where that is measured.
const BATCH: usize = 1000;

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(50))
        .measurement_time(Duration::from_millis(300))
        .sample_size(10)
        .configure_from_args();
    let mut report = Report::default();
    for policy in POLICIES {
        for (layout, divisor) in [("one pool", usize::MAX), ("N/10 pools", 10)] {
            let title = format!("{policy}, {layout}");
            for size in SIZES {
                let pools = (size / divisor).max(1);
                let mut space = Space::new(policy, size, pools);
                let mut bench = Bench { criterion: &mut criterion, report: &mut report, size };
                bench.all(&title, &mut space);
            }
        }
    }
    criterion.final_summary();
    report.print();
    memory::print(&POLICIES);
}

struct Bench<'b> {
    criterion: &'b mut Criterion,
    report: &'b mut Report,
    size: usize,
}

impl Bench<'_> {
    fn all(&mut self, title: &str, space: &mut Space) {
        self.run(title, "re-register with its timer", 1, space, |space, count| {
            let picks: Vec<_> = (0..count).map(|_| space.pick()).collect();
            let begin = Instant::now();
            for pick in &picks {
                space.reregister(pick);
            }
            begin.elapsed()
        });
        for items in [1, 3, 10] {
            self.run(title, &format!("resolve {items}"), 1, space, |space, count| {
                let pools: Vec<_> =
                    (0..count).map(|_| space.rng.random_range(0..space.handles.len())).collect();
                let begin = Instant::now();
                for pool in pools {
                    black_box(space.resolve(pool, items));
                }
                begin.elapsed()
            });
        }
        self.run(title, "register", BATCH, space, |space, rounds| {
            let mut took = Duration::ZERO;
            for _ in 0..rounds {
                let new: Vec<_> = (0..BATCH).map(|_| space.fresh()).collect();
                let begin = Instant::now();
                let keys: Vec<_> = new.iter().map(|name| space.register(name)).collect();
                took += begin.elapsed();
                keys.into_iter().for_each(|key| space.remove(key));
            }
            took
        });
        self.run(title, "deregister", BATCH, space, |space, rounds| {
            let mut took = Duration::ZERO;
            for _ in 0..rounds {
                let count = space.members.len();
                let chosen = index::sample(&mut space.rng, count, BATCH.min(count));
                let chosen: Vec<_> = chosen.iter().map(|at| space.members[at]).collect();
                let begin = Instant::now();
                for name in &chosen {
                    space.deregister(name);
                }
                took += begin.elapsed();
                for name in &chosen {
                    space.register(name);
                }
            }
            took
        });
        // All of them, so that also those are paid for whose deadlines moved on.
        self.run(title, "purge of expired ones", self.size, space, |space, rounds| {
            let mut took = Duration::ZERO;
            for _ in 0..rounds {
                let mut full = space.another();
                let then = full.now + 2 * LIFETIME;
                let begin = Instant::now();
                let mut count = 0;
                while let Some(key) = full.space.pop_expired(then) {
                    full.space.remove(key);
                    count += 1;
                }
                took += begin.elapsed();
                assert_eq!(count, space.members.len());
            }
            took
        });
    }

    /// `body` does something so many times, each of which is so many operations.
    fn run(
        &mut self,
        title: &str,
        operation: &str,
        operations: usize,
        space: &mut Space,
        mut body: impl FnMut(&mut Space, u64) -> Duration,
    ) {
        // Which needs a new handlespace each time.
        if operation.starts_with("purge") && !title.starts_with("RoundRobin") {
            return;
        }
        let mut group = self.criterion.benchmark_group(format!("{title}, {}", self.size));
        group.throughput(criterion::Throughput::Elements(operations as u64));
        let (report, size) = (&mut *self.report, self.size);
        group.bench_function(operation, |bencher| {
            bencher.iter_custom(|count| {
                let took = body(space, count);
                report.sample(title, operation, size, took, count * operations as u64);
                took
            });
        });
    }
}
