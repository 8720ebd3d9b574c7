//! Measures the cost of each operation on the handlespace, in pools of all sizes and with the
//! policies that are most used.
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
mod operation;
#[path = "../report.rs"]
mod report;
mod space;
#[path = "../yardstick.rs"]
mod yardstick;

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};
use operation::{BATCH, LAYOUTS, OPERATIONS, POLICIES};
use rand::SeedableRng;
use rand::rngs::StdRng;
use report::Report;
use space::{LIFETIME, Space};
use yardstick::Yardstick;

const SIZES: [usize; 4] = [1_000, 10_000, 100_000, 1_000_000];

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(50))
        .measurement_time(Duration::from_millis(200))
        .sample_size(10)
        .configure_from_args();
    let mut report = Report::default();
    for size in SIZES {
        let mut bench = Bench { criterion: &mut criterion, report: &mut report, size };
        bench.memory();
    }
    for policy in POLICIES {
        for layout in LAYOUTS {
            let title = format!("{policy}, {layout}");
            for size in SIZES {
                let mut space = Space::new(policy, size, layout.pools(size));
                let mut bench = Bench { criterion: &mut criterion, report: &mut report, size };
                bench.all(&title, &mut space);
            }
        }
    }
    criterion.final_summary();
    report.print();
    memory::print();
}

struct Bench<'b> {
    criterion: &'b mut Criterion,
    report: &'b mut Report,
    size: usize,
}

impl Bench<'_> {
    fn memory(&mut self) {
        let mut yardstick = Yardstick::new(self.size, &mut StdRng::seed_from_u64(1));
        self.run("memory", "a look that depends on the last one", BATCH, || {
            let begin = Instant::now();
            black_box(yardstick.look(BATCH));
            begin.elapsed()
        });
    }

    fn all(&mut self, title: &str, space: &mut Space) {
        for operation in OPERATIONS {
            self.run(title, &operation.to_string(), BATCH, || {
                let requests = operation.requests(space);
                let begin = Instant::now();
                operation.run(space, &requests);
                let took = begin.elapsed();
                operation.undo(space, &requests);
                took
            });
        }
        // The purge needs a new handlespace for each measurement.
        if title.starts_with("RoundRobin") {
            self.run(title, "purge of expired ones", self.size, || purge(space));
        }
    }

    /// Measures `body`, which does `operations` operations and returns the time that they took.
    fn run(
        &mut self,
        title: &str,
        name: &str,
        operations: usize,
        mut body: impl FnMut() -> Duration,
    ) {
        let mut group = self.criterion.benchmark_group(format!("{title}, {}", self.size));
        group.throughput(Throughput::Elements(operations as u64));
        let (report, size) = (&mut *self.report, self.size);
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|rounds| {
                let took = (0..rounds).map(|_| body()).sum();
                report.sample(title, name, size, took, rounds * operations as u64);
                took
            });
        });
    }
}

/// Measures the removal of all elements after they expired, including those whose deadlines were
/// moved by renewals.
fn purge(space: &Space) -> Duration {
    let mut full = space.another();
    let then = full.now + 2 * LIFETIME;
    let begin = Instant::now();
    let mut count = 0;
    while let Some(key) = full.space.pop_expired(then) {
        full.space.remove(key);
        count += 1;
    }
    let took = begin.elapsed();
    assert_eq!(count, space.members.len());
    took
}
