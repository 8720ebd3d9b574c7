//! The structures of the handlespace beside others that would do: selection order, weighted
//! drawing, look-up and timers.
//!
//!     cargo bench -p rserpool --bench candidates [-- --quick]
#![allow(
    missing_docs,
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a benchmark"
)]

mod fenwick;
#[path = "../../src/handlespace/index.rs"]
mod index;
#[path = "../../src/handlespace/lifetimes.rs"]
mod lifetimes;
#[path = "../report.rs"]
mod report;
#[path = "../../src/protocol/timers.rs"]
mod timers;
#[path = "../yardstick.rs"]
mod yardstick;

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::BuildHasher;
use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::Criterion;
use fenwick::Fenwick;
use index::{Hashed, Index};
use lifetimes::Lifetimes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use report::Report;
use rserpool::policy::{Member, Policies, Selector, Wanted};
use rserpool::wire::{PolicyParameters, PolicyType};
use timers::Timers;
use yardstick::Yardstick;

const SIZES: [usize; 3] = [1_000, 100_000, 1_000_000];

/// What `Lifetimes` calls an element.
#[derive(Debug, Clone, Copy)]
struct ElementKey(u32);

impl ElementKey {
    fn index(self) -> usize {
        self.0 as usize
    }
}

struct Bench {
    criterion: Criterion,
    report: Report,
    rng: StdRng,
}

fn main() {
    let criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(500))
        .sample_size(10)
        .configure_from_args();
    let mut bench = Bench { criterion, report: Report::default(), rng: StdRng::seed_from_u64(1) };
    for size in SIZES {
        bench.look_up(size);
        bench.selection_order(size);
        bench.weighted_drawing(size);
        bench.timers(size);
        bench.memory(size);
    }
    bench.criterion.final_summary();
    bench.report.print();
}

impl Bench {
    /// `body` does it once for each of the random members or values that it is given.
    fn run(
        &mut self,
        what: &str,
        operation: &str,
        size: usize,
        mut body: impl FnMut(&[(u32, u32)]) -> u64,
    ) {
        let mut group = self.criterion.benchmark_group(format!("{what}, {size}"));
        let (report, rng) = (&mut self.report, &mut self.rng);
        group.bench_function(operation, |bencher| {
            bencher.iter_custom(|count| {
                let picks: Vec<(u32, u32)> = (0..count)
                    .map(|_| (rng.random_range(0..size as u32), rng.random_range(1..=1 << 20)))
                    .collect();
                let begin = Instant::now();
                black_box(body(&picks));
                let took = begin.elapsed();
                report.sample(what, operation, size, took, count);
                took
            });
        });
    }

    /// An element by its identifier.
    fn look_up(&mut self, size: usize) {
        let ids: Vec<u32> = (0..size as u32).map(|id| id.wrapping_mul(0x9e37_79b1)).collect();
        self.hash_table("hash table, foldhash", &ids, foldhash::fast::RandomState::default());
        self.hash_table("hash table, SipHash", &ids, RandomState::new());
        let mut index = Index::<Hashed>::default();
        for (id, at) in ids.iter().zip(0..) {
            index.insert(*id, at, |_| true);
        }
        self.run("look-up", "linear probing, foldhash (taken)", size, |picks| {
            picks
                .iter()
                .filter_map(|(at, _)| index.get(ids[*at as usize], |_| true))
                .map(u64::from)
                .sum()
        });
        let tree: BTreeMap<u32, u32> = ids.iter().copied().zip(0..).collect();
        self.run("look-up", "B-tree", size, |picks| {
            picks.iter().map(|(at, _)| u64::from(tree[&ids[*at as usize]])).sum()
        });
    }

    fn hash_table(&mut self, name: &str, ids: &[u32], hasher: impl BuildHasher) {
        let mut table = HashMap::with_hasher(hasher);
        table.extend(ids.iter().copied().zip(0_u32..));
        self.run("look-up", name, ids.len(), |picks| {
            picks.iter().map(|(at, _)| u64::from(table[&ids[*at as usize]])).sum()
        });
    }

    /// Least used, with a new load each time.
    fn selection_order(&mut self, size: usize) {
        let what = "selection order";
        let least_used = |load: u32| PolicyParameters::least_used(load);
        let mut rings = full(PolicyType::LEAST_USED, size, &mut self.rng);
        self.run(what, "rings in a B-tree (taken), update", size, |picks| {
            picks
                .iter()
                .for_each(|(member, load)| rings.update(Member(*member), &least_used(*load)));
            0
        });
        let (mut selected, mut rng) = (Vec::new(), StdRng::seed_from_u64(1));
        self.run(what, "rings in a B-tree (taken), select 3", size, |picks| {
            for _ in picks {
                selected.clear();
                rings.select(Wanted::items(3), &mut rng, &mut selected);
            }
            selected.len() as u64
        });
        // Each with its load and its turn.
        let mut loads: Vec<(u32, u64)> =
            (0..size).map(|turn| (self.rng.random(), turn as u64)).collect();
        let mut tree: BTreeSet<(u32, u64, u32)> =
            (0..).zip(&loads).map(|(member, (load, turn))| (*load, *turn, member)).collect();
        let mut turn = size as u64;
        self.run(what, "B-tree of (load, turn), update", size, |picks| {
            for (member, load) in picks {
                let (old, turn) = loads[*member as usize];
                tree.remove(&(old, turn, *member));
                tree.insert((*load, turn, *member));
                loads[*member as usize].0 = *load;
            }
            0
        });
        self.run(what, "B-tree of (load, turn), select 3", size, |picks| {
            let mut sum = 0;
            for _ in picks {
                sum += tree.iter().take(3).map(|(_, _, member)| u64::from(*member)).sum::<u64>();
                let (load, _, member) = tree.pop_first().unwrap();
                turn += 1;
                tree.insert((load, turn, member));
                loads[member as usize] = (load, turn);
            }
            sum
        });
    }

    /// Three of them, none twice.
    fn weighted_drawing(&mut self, size: usize) {
        let what = "weighted drawing";
        let weighted = |weight: u32| PolicyParameters::new(PolicyType::WEIGHTED_RANDOM, &[weight]);
        let mut urn = full(PolicyType::WEIGHTED_RANDOM, size, &mut self.rng);
        let (mut selected, mut rng) = (Vec::new(), StdRng::seed_from_u64(1));
        self.run(what, "classes of weights (taken), draw 3", size, |picks| {
            for _ in picks {
                selected.clear();
                urn.select(Wanted::items(3), &mut rng, &mut selected);
            }
            selected.len() as u64
        });
        self.run(what, "classes of weights (taken), update", size, |picks| {
            picks
                .iter()
                .for_each(|(member, weight)| urn.update(Member(*member), &weighted(*weight)));
            0
        });
        let mut tree = Fenwick::default();
        for member in 0..size {
            tree.set(member, self.rng.random_range(1..=1 << 20));
        }
        self.run(what, "Fenwick tree, draw 3", size, |picks| {
            let mut sum = 0;
            for _ in picks {
                let drawn: [(usize, u32); 3] = std::array::from_fn(|_| {
                    let index = tree.find(rng.random_range(0..tree.total()));
                    let weight = tree.weight(index);
                    tree.set(index, 0);
                    (index, weight)
                });
                drawn.iter().for_each(|(index, weight)| tree.set(*index, *weight));
                sum += drawn[0].0 as u64;
            }
            sum
        });
        self.run(what, "Fenwick tree, update", size, |picks| {
            picks.iter().for_each(|(member, weight)| tree.set(*member as usize, *weight));
            0
        });
    }

    fn memory(&mut self, size: usize) {
        let mut yardstick = Yardstick::new(size, &mut self.rng);
        self.run("memory", "a look that depends on the last one", size, |picks| {
            yardstick.look(picks.len()).into()
        });
    }

    /// Deadlines move on by a lifetime each time an element registers again.
    fn timers(&mut self, size: usize) {
        const LIFETIME: Duration = Duration::from_secs(90);
        let what = "timers";
        let mut now = Instant::now();
        let mut wheel = Lifetimes::default();
        (0..size as u32).for_each(|key| wheel.set(ElementKey(key), now, LIFETIME));
        self.run(what, "wheel, moved on when it is due (taken)", size, |picks| {
            for (key, _) in picks {
                now += Duration::from_micros(10);
                wheel.set(ElementKey(*key), now, LIFETIME);
            }
            0
        });
        let mut queue = Timers::new();
        (0..size as u32).for_each(|key| queue.set(key, now + LIFETIME));
        self.run(what, "B-tree and hash table", size, |picks| {
            for (key, _) in picks {
                now += Duration::from_micros(10);
                queue.set(*key, now + LIFETIME);
            }
            0
        });
    }
}

fn full(policy: PolicyType, size: usize, rng: &mut StdRng) -> Box<dyn Selector> {
    let mut selector = Policies::default().new_selector(policy);
    for member in 0..size as u32 {
        let parameters = PolicyParameters::new(policy, &[rng.random_range(1..=1 << 20)]);
        selector.insert(Member(member), &parameters);
    }
    selector
}
