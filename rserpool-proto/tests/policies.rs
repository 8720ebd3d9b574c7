//! Tests of the policies against the formulas of RFC 5356, and of the extension point through the
//! public interface.
#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rserpool_proto::policy::{
    ByOrder, ByWeight, Member, Order, Policies, RandomSource, Selector, Wanted, Weight,
};
use rserpool_proto::registrar::RegistrarConfig;
use rserpool_proto::testing::by_hand;
use rserpool_proto::testing::echo_pool::{handle, new_user, resolve};
use rserpool_proto::testing::world::World;
use rserpool_proto::wire::{PolicyParameters, PolicyType, RegistrarId};
use rserpool_proto::{Compatibility, Registrar};

/// Creates a pool of elements with these parameters, all of one policy.
fn pool(policies: &Policies, parameters: &[PolicyParameters]) -> Box<dyn Selector> {
    let mut selector = policies.new_selector(parameters[0].policy_type());
    for (member, parameters) in (0..).map(Member).zip(parameters) {
        policies.validate(parameters).unwrap();
        selector.insert(member, parameters);
    }
    selector
}

fn builtin(parameters: &[&str]) -> Box<dyn Selector> {
    let parameters: Vec<PolicyParameters> =
        parameters.iter().map(|text| text.parse().unwrap()).collect();
    pool(&Policies::default(), &parameters)
}

fn select(selector: &mut dyn Selector, items: usize, rng: &mut RandomSource) -> Vec<u32> {
    let mut selected = Vec::new();
    selector.select(Wanted::items(items), rng, &mut selected);
    selected.into_iter().map(|Member(number)| number).collect()
}

/// Returns the chi-squared statistic of the counts, and the value that it exceeds with a
/// probability of 0.1 % if the counts are right (the upper quantile of the distribution, after
/// Wilson and Hilferty).
fn chi_squared(counts: &[u32], expected: &[f64]) -> (f64, f64) {
    let cells = counts.iter().zip(expected).filter(|(_, expected)| **expected > 0.0);
    let terms: Vec<f64> =
        cells.map(|(count, expected)| (f64::from(*count) - expected).powi(2) / expected).collect();
    let degrees = (terms.len() - 1) as f64;
    let spread = 2.0 / (9.0 * degrees);
    let limit = degrees * (1.0 - spread + 3.090_232 * spread.sqrt()).powi(3);
    (terms.iter().sum(), limit)
}

/// Checks that elements are selected first in proportion to these weights.
fn check_first(parameters: &[&str], weights: &[f64]) {
    const TIMES: u32 = 40_000;
    let total: f64 = weights.iter().sum();
    let expected: Vec<f64> = weights.iter().map(|w| w / total * f64::from(TIMES)).collect();
    for seed in 0..3 {
        let rng = &mut RandomSource::from_seed(seed);
        let mut pool = builtin(parameters);
        let mut counts = vec![0; weights.len()];
        for _ in 0..TIMES {
            counts[select(&mut *pool, 2, rng)[0] as usize] += 1;
        }
        for (count, weight) in counts.iter().zip(weights) {
            assert!(*weight > 0.0 || *count == 0, "{parameters:?}: {counts:?}");
        }
        let (found, limit) = chi_squared(&counts, &expected);
        assert!(found < limit, "{parameters:?}, seed {seed}: {counts:?}, {found} > {limit}");
    }
}

#[test]
fn random_policies_draw_in_proportion_to_their_weights() {
    check_first(&["Random"; 7], &[1.0; 7]);
    let weighted =
        ["WeightedRandom:1", "WeightedRandom:5", "WeightedRandom:0", "WeightedRandom:1000"];
    check_first(&weighted, &[1.0, 5.0, 0.0, 1000.0]);
    let many: Vec<String> = (1..=100).map(|weight| format!("WeightedRandom:{weight}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    check_first(&many, &(1..=100).map(f64::from).collect::<Vec<_>>());
    let used = ["RandomizedLeastUsed:0", "RandomizedLeastUsed:50%", "RandomizedLeastUsed:100%"];
    check_first(&used, &[2.0, 1.0, 0.0]);
    let priority = ["RandomizedPriorityLeastUsed:25%:25%", "RandomizedPriorityLeastUsed:0:75%"];
    check_first(&priority, &[2.0, 1.0]);
    let distant = ["WeightedRandomDPF:300:1:100", "WeightedRandomDPF:300:0:100"];
    check_first(&distant, &[2.0, 3.0]);
    // An element keeps a chance of being selected even if its delay penalty exceeds its weight.
    check_first(&["WeightedRandomDPF:300:9:100", "WeightedRandomDPF:9:0:100"], &[1.0, 9.0]);
}

#[test]
fn the_second_is_drawn_among_the_others() {
    const TIMES: u32 = 60_000;
    // The weights are not all powers of two, and do not all have the same number of binary digits.
    let weights = [3.0, 5.0, 6.0, 8.0, 9.0];
    let total: f64 = weights.iter().sum();
    let mut expected = [0.0; 25];
    for (first, one) in weights.iter().enumerate() {
        for (second, other) in weights.iter().enumerate().filter(|(second, _)| *second != first) {
            expected[5 * first + second] = one / total * other / (total - one) * f64::from(TIMES);
        }
    }
    let rng = &mut RandomSource::from_seed(1);
    let mut pool =
        builtin(&weights.map(|w| format!("WeightedRandom:{w}")).each_ref().map(|s| &**s));
    for wanted in [2, 4, 9] {
        let mut counts = [0; 25];
        for _ in 0..TIMES {
            let drawn = select(&mut *pool, wanted, rng);
            assert_eq!(drawn.len(), wanted.min(5));
            counts[(5 * drawn[0] + drawn[1]) as usize] += 1;
        }
        let (found, limit) = chi_squared(&counts, &expected);
        assert!(found < limit, "{wanted}: {counts:?}, {found} > {limit}");
    }
}

#[test]
fn as_many_are_drawn_as_are_wanted_and_each_once() {
    let rng = &mut RandomSource::from_seed(1);
    for policy in ["Random", "WeightedRandom:4", "WeightedRandom:5", "RandomizedLeastUsed:50%"] {
        let mut pool = builtin(&[policy; 60]);
        for wanted in [0, 1, 15, 16, 17, 40, 59, 60, 61, usize::MAX] {
            let mut drawn = select(&mut *pool, wanted, rng);
            drawn.sort_unstable();
            drawn.dedup();
            assert_eq!(drawn.len(), wanted.min(60), "{policy}");
        }
    }
}

#[test]
fn ordered_policies_answer_in_the_order_of_the_rfc() {
    let rng = &mut RandomSource::from_seed(1);
    for (parameters, order) in [
        (["Priority:1", "Priority:9", "Priority:5"], [1, 2, 0]),
        (["LeastUsed:3", "LeastUsed:1", "LeastUsed:2"], [1, 2, 0]),
        // The order is by the load, 50 % or 99 %, plus the increment; section 5.3.1 has this
        // example.
        (
            ["PriorityLeastUsed:50%:50%", "PriorityLeastUsed:50%:10%", "PriorityLeastUsed:99%:0"],
            [1, 2, 0],
        ),
        (["LeastUsedDPF:10:2:50", "LeastUsedDPF:70:2:10", "LeastUsedDPF:50:9:0"], [2, 1, 0]),
    ] {
        assert_eq!(select(&mut *builtin(&parameters), 3, rng), order, "{parameters:?}");
    }
    // Elements with equal sums are selected in turn.
    let mut equal =
        builtin(&["PriorityLeastUsed:1:3", "PriorityLeastUsed:2:2", "PriorityLeastUsed:3:1"]);
    let firsts: Vec<_> = (0..4).map(|_| select(&mut *equal, 2, rng)[0]).collect();
    assert_eq!(firsts, [0, 1, 2, 0]);
}

#[test]
fn degradation_counts_once_for_each_element_of_an_answer() {
    let rng = &mut RandomSource::from_seed(1);
    for (policy, picks) in [
        ("LeastUsedDegradation", [0, 0, 0, 1]),
        // This policy adds the degradation from the first selection on.
        ("PriorityLeastUsedDegradation", [0, 0, 1, 1]),
    ] {
        let [one, other] = [format!("{policy}:10:10"), format!("{policy}:35:0")];
        let mut pool = builtin(&[&one, &other]);
        let found: Vec<_> = (0..4).map(|_| select(&mut *pool, 1, rng)[0]).collect();
        assert_eq!(found, picks, "{policy}");
        pool.update(Member(0), &one.parse().unwrap());
        assert_eq!(select(&mut *pool, 1, rng), [0], "{policy}: as when it registered");
    }
    let mut pool =
        builtin(&["LeastUsedDegradationDPF:10:10:1:20", "LeastUsedDegradationDPF:45:0:9:0"]);
    let found: Vec<_> = (0..4).map(|_| select(&mut *pool, 1, rng)[0]).collect();
    assert_eq!(found, [0, 0, 1, 1]);
    // Degradation lowers a weight, but not to zero.
    let mut pool =
        builtin(&["RandomizedLeastUsedDegradation:0:100%", "RandomizedLeastUsedDegradation:0"]);
    let drawn: u32 = (0..1000).map(|_| 1 - select(&mut *pool, 1, rng)[0]).sum();
    assert_eq!(drawn, 1, "the first of them is drawn once and then hardly ever");
    assert_eq!(select(&mut *pool, 2, rng).len(), 2);
}

#[test]
fn the_increment_can_be_set_for_all_policies() {
    let rng = &mut RandomSource::from_seed(1);
    let mut lists = |policy: &str, max_increment| {
        let mut pool = builtin(&[policy; 3]);
        let mut list = || {
            let mut selected = Vec::new();
            pool.select(Wanted::items(2).max_increment(max_increment), rng, &mut selected);
            selected.iter().map(|Member(number)| *number).collect::<Vec<_>>()
        };
        [list(), list(), list()]
    };
    for policy in ["RoundRobin", "WeightedRoundRobin:2", "LeastUsed:7"] {
        assert_eq!(lists(policy, None), [[0, 1], [1, 2], [2, 0]], "{policy}");
        assert_eq!(lists(policy, Some(0)), [[0, 1]; 3], "{policy}");
        assert_eq!(lists(policy, Some(2)), [[0, 1], [2, 0], [1, 2]], "{policy}");
    }
    assert_eq!(lists("LeastUsedDegradation:7:0", None), [[0, 1], [1, 2], [2, 0]]);
}

#[test]
fn degradation_counts_what_is_used_and_all_by_the_letter() {
    let firsts = |profile| {
        let mut world = World::default();
        let config =
            RegistrarConfig::default().identifier(RegistrarId(1)).ready_after(Duration::ZERO);
        let registrar = world.registrar(Registrar::new(config.compatibility(profile), 1));
        for (identifier, policy) in
            [(1, "LeastUsedDegradation:0:1000"), (2, "LeastUsedDegradation:500:1000")]
        {
            let on = world.connect(registrar);
            let mut registration = by_hand::registration(&handle().to_string(), identifier);
            registration.pool_element.policy = policy.parse().unwrap();
            by_hand::send_asap(&mut world, on, registration);
        }
        let user = world.user(new_user(&[registrar]));
        world.run(Duration::ZERO);
        (0..6).map(|_| resolve(&mut world, user).unwrap()[0].0).collect::<Vec<_>>()
    };
    assert_eq!(firsts(Compatibility::All), [1, 2, 1, 2, 1, 2]);
    assert_eq!(firsts(Compatibility::Rfc), [1; 6]);
}

#[test]
fn what_a_registrar_drew_by_weight_is_not_weighted_again() {
    let firsts = |complete: bool, policy: [&str; 2]| {
        let rng = &mut RandomSource::from_seed(1);
        let mut selector = builtin(&policy);
        selector.resume(&[Member(0), Member(1)], complete, rng);
        (0..1000).map(|_| 1 - select(&mut *selector, 2, rng)[0]).sum::<u32>()
    };
    for policy in
        [["WeightedRandom:1", "WeightedRandom:9"], ["WeightedRoundRobin:1", "WeightedRoundRobin:9"]]
    {
        assert!((70..130).contains(&firsts(true, policy)), "{policy:?}");
        assert!((450..550).contains(&firsts(false, policy)), "{policy:?}");
    }
}

#[test]
fn users_go_on_where_the_answer_of_the_registrar_left_off() {
    let rng = &mut RandomSource::from_seed(1);
    // The answer of the registrar has its own order, since it knows which elements it selected for
    // others: the third element is the best one now.
    let order = [Member(2), Member(0), Member(1)];
    let mut next = |policies: [&str; 3]| {
        let mut selector = builtin(&[policies[2], policies[0], policies[1]]);
        selector.resume(&[Member(0), Member(1), Member(2)], true, rng);
        let list = select(&mut *selector, 3, rng);
        list.into_iter().map(|index| order[index as usize].0).collect::<Vec<_>>()
    };
    assert_eq!(next(["RoundRobin"; 3]), [0, 1, 2]);
    assert_eq!(next(["LeastUsed:10", "LeastUsed:20", "LeastUsed:5"]), [2, 0, 1]);
    let degraded =
        ["LeastUsedDegradation:10:5", "LeastUsedDegradation:10:5", "LeastUsedDegradation:20:5"];
    assert_eq!(next(degraded), [0, 1, 2]);
    assert_eq!(next(["WeightedRoundRobin:1"; 3]), [0, 1, 2]);
    assert_eq!(next(["WeightedRoundRobin:0"; 3]), [0, 1, 2]);
}

#[test]
fn elements_without_a_weight_are_better_than_nobody() {
    let rng = &mut RandomSource::from_seed(1);
    for policy in ["WeightedRandom:0", "WeightedRoundRobin:0", "RandomizedLeastUsed:100%"] {
        let mut pool = builtin(&[policy; 3]);
        let mut firsts = [0; 3];
        for _ in 0..300 {
            let list = select(&mut *pool, 3, rng);
            assert_eq!(list.len(), 3, "{policy}");
            firsts[list[0] as usize] += 1;
        }
        assert!(firsts.iter().all(|count| (70..130).contains(count)), "{policy}: {firsts:?}");
        // An element that gets a weight is the only one that is selected. When its weight is 0
        // again, all elements are selected again.
        let (name, _) = policy.split_once(':').unwrap();
        pool.update(Member(1), &format!("{name}:1").parse().unwrap());
        assert_eq!(select(&mut *pool, 3, rng), [1], "{policy}");
        pool.update(Member(1), &policy.parse().unwrap());
        assert_eq!(select(&mut *pool, 3, rng).len(), 3, "{policy}");
        pool.remove(Member(1));
        assert_eq!(select(&mut *pool, 3, rng).len(), 2, "{policy}");
    }
}

/// Implements Least Used with a delay penalty factor by the public traits only.
#[derive(Debug)]
struct Nearby;

impl Order for Nearby {
    fn policy_type(&self) -> PolicyType {
        PolicyType(0x8000_0001)
    }

    fn words(&self) -> usize {
        3
    }

    fn key(&self, parameters: &PolicyParameters) -> u64 {
        let [load, factor, distance] = [0, 1, 2].map(|word| u64::from(parameters.words()[word]));
        load.saturating_add(factor * distance)
    }
}

/// Implements Randomized Least Used with Degradation by the public traits only.
#[derive(Debug)]
struct Tiring;

impl Weight for Tiring {
    fn policy_type(&self) -> PolicyType {
        PolicyType(0x8000_0002)
    }

    fn words(&self) -> usize {
        2
    }

    fn weight(&self, parameters: &PolicyParameters) -> u32 {
        u32::MAX - parameters.words()[0]
    }

    fn degradation(&self, parameters: &PolicyParameters) -> u32 {
        parameters.words()[1]
    }
}

#[test]
fn policies_from_outside_select_as_the_built_in_ones() {
    let policies = Policies::default().with(ByOrder(Nearby)).with(ByWeight(Tiring));
    for (ours, theirs) in [
        (PolicyType(0x8000_0001), PolicyType::LEAST_USED_DPF),
        (PolicyType(0x8000_0002), PolicyType::RANDOMIZED_LEAST_USED_DEGRADATION),
    ] {
        let random = &mut StdRng::seed_from_u64(7);
        let (mut rng, mut same_rng) = (RandomSource::from_seed(1), RandomSource::from_seed(1));
        let mut pools = [ours, theirs].map(|policy| policies.new_selector(policy));
        let mut present = Vec::new();
        for _ in 0..20_000 {
            let member = Member(random.random_range(0..30));
            let words = [random.random_range(0..5) << 28, random.random_range(0..3) << 20, 7];
            let wanted = random.random_range(0..=6);
            let action = random.random_range(0..4);
            for (selector, policy) in pools.iter_mut().zip([ours, theirs]) {
                let parameters = PolicyParameters::new(policy, &words);
                match (action, present.contains(&member)) {
                    (0, false) => selector.insert(member, &parameters),
                    (0, true) => selector.update(member, &parameters),
                    (1, true) if wanted == 0 => selector.remove(member),
                    _ => {}
                }
            }
            match action {
                0 if !present.contains(&member) => present.push(member),
                1 if wanted == 0 => present.retain(|other| *other != member),
                _ => {}
            }
            let [one, other] = &mut pools;
            let chosen = select(&mut **one, wanted, &mut rng);
            assert_eq!(chosen, select(&mut **other, wanted, &mut same_rng), "{theirs}");
            assert_eq!(chosen.len(), wanted.min(present.len()));
        }
    }
}
