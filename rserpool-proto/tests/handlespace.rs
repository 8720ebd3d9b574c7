//! Compares the handlespace with a simple model, and tests the lifetimes of its elements.
#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rserpool_proto::handlespace::{Checksum, ElementKey, Handlespace, Refused, Scope};
use rserpool_proto::policy::{Policies, RandomSource, Wanted};
use rserpool_proto::wire::{
    EncodedElement, PolicyParameters, PolicyType, PoolElement, PoolElementId, PoolHandle,
    RegistrarId, RegistrationLife, TransportAddress,
};

const POLICIES: [PolicyType; 5] = [
    PolicyType::ROUND_ROBIN,
    PolicyType::WEIGHTED_ROUND_ROBIN,
    PolicyType::WEIGHTED_RANDOM,
    PolicyType::LEAST_USED,
    PolicyType::LEAST_USED_DEGRADATION,
];

/// Maximum delay with which `Handlespace::pop_expired` returns an expired element.
const TICK: Duration = Duration::from_millis(34);

#[derive(Debug, Clone)]
enum Operation {
    /// Registers an element, for the first time or again.
    Register {
        pool: usize,
        identifier: u32,
        home: u32,
        value: u32,
    },
    SetHome {
        pick: usize,
        home: u32,
    },
    Remove {
        pick: usize,
    },
    SetScope {
        pick: usize,
        scope: Scope,
    },
    /// Selects for a host of the scope `from`.
    Select {
        pool: usize,
        items: usize,
        from: Scope,
    },
}

fn scope() -> impl Strategy<Value = Scope> {
    prop::sample::select(vec![Scope::Empty, Scope::Host, Scope::Link, Scope::Global])
}

/// The scope of a host.
fn origin() -> impl Strategy<Value = Scope> {
    prop::sample::select(vec![Scope::Host, Scope::Link, Scope::Global])
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        4 => (0..7_usize, 1..12_u32, 1..4_u32, 0..5_u32).prop_map(
            |(pool, identifier, home, value)| Operation::Register { pool, identifier, home, value }
        ),
        1 => (any::<usize>(), 1..4_u32).prop_map(|(pick, home)| Operation::SetHome { pick, home }),
        2 => any::<usize>().prop_map(|pick| Operation::Remove { pick }),
        2 => (any::<usize>(), scope()).prop_map(|(pick, scope)| Operation::SetScope { pick, scope }),
        4 => (0..7_usize, 0..6_usize, origin())
            .prop_map(|(pool, items, from)| Operation::Select { pool, items, from }),
    ]
}

fn handle(pool: usize) -> PoolHandle {
    format!("Pool {pool}").parse().unwrap()
}

fn element(pool: usize, identifier: u32, home: u32, value: u32) -> PoolElement {
    let policy = POLICIES[pool % POLICIES.len()];
    PoolElement {
        identifier: PoolElementId(identifier),
        home_registrar: RegistrarId(home),
        registration_life: RegistrationLife(60),
        user_transport: TransportAddress::tcp(([127, 0, 0, 1], 80).into()).into(),
        policy: PolicyParameters::new(policy, &[value, 3][..policy.values().unwrap().len()]),
        asap_transport: None,
    }
}

/// The elements of the model by pool and identifier, with their keys and values.
type Model = BTreeMap<(usize, u32), (ElementKey, PoolElement)>;

/// Checks that all queries of the handlespace agree with the model.
fn compare(space: &Handlespace<u32>, model: &Model) {
    assert_eq!(space.len(), model.len());
    for ((pool, identifier), (key, value)) in model {
        assert_eq!(space.find(&handle(*pool), PoolElementId(*identifier)), Some(*key));
        let present = space.get(*key).unwrap();
        assert_eq!((&present.value(), present.state), (value, *identifier));
        assert_eq!(present.encoded(), &EncodedElement::new(&handle(*pool), value).unwrap());
        assert_eq!(space.handle_of(*key), Some(&handle(*pool)));
    }
    let mut sizes = BTreeMap::new();
    model.keys().for_each(|(pool, _)| *sizes.entry(handle(*pool)).or_insert(0) += 1);
    let pools: BTreeMap<_, _> =
        space.pools(None).map(|(_, handle)| (handle.clone(), space.pool_size(handle))).collect();
    assert_eq!(pools, sizes);
    for home in (1..4).map(RegistrarId) {
        let mut sum = Checksum::default();
        let owned = model.iter().filter(|(_, (_, value))| value.home_registrar == home);
        let mut keys: Vec<_> = owned
            .map(|((pool, identifier), (key, _))| {
                sum.add(&handle(*pool), PoolElementId(*identifier));
                *key
            })
            .collect();
        keys.sort();
        assert_eq!(space.checksum(home).value(), sum.value());
        assert_eq!(space.owned_by(home, None).collect::<Vec<_>>(), keys);
        let after = keys.get(keys.len() / 2).copied();
        let rest = after.map_or(0, |_| keys.len() / 2 + 1);
        assert_eq!(space.owned_by(home, after).collect::<Vec<_>>(), keys[rest..]);
    }
}

proptest! {
    #[test]
    fn it_does_what_the_model_does(operations in prop::collection::vec(operation(), 0..120)) {
        let rng = &mut RandomSource::from_seed(1);
        let mut space = Handlespace::new(Policies::default(), 40);
        let mut model = Model::new();
        let mut scopes: BTreeMap<(usize, u32), Scope> = BTreeMap::new();
        for operation in operations {
            let picked = |pick: usize| model.keys().nth(pick % model.len().max(1)).copied();
            match operation {
                Operation::Register { pool, identifier, home, value } => {
                    let value = element(pool, identifier, home, value);
                    match model.get_mut(&(pool, identifier)) {
                        Some((key, present)) => {
                            space.update(*key, &value).unwrap();
                            *present = value;
                        }
                        None => match space.insert(&handle(pool), &value, identifier) {
                            Ok(key) => {
                                model.insert((pool, identifier), (key, value));
                            }
                            Err(refused) => {
                                assert_eq!((refused, model.len()), (Refused::Full, 40));
                            }
                        },
                    }
                }
                Operation::SetHome { pick, home } => {
                    if let Some((key, value)) = picked(pick).and_then(|name| model.get_mut(&name)) {
                        space.set_home(*key, RegistrarId(home));
                        value.home_registrar = RegistrarId(home);
                    }
                }
                Operation::Remove { pick } => {
                    if let Some((name, (key, value))) =
                        picked(pick).and_then(|name| model.remove_entry(&name))
                    {
                        let (removed, element) = space.remove(key).unwrap();
                        assert_eq!((removed, element.value()), (handle(name.0), value));
                        assert!(space.remove(key).is_none());
                        scopes.remove(&name);
                    }
                }
                Operation::SetScope { pick, scope } => {
                    if let Some(name) = picked(pick) {
                        space.set_scope(model[&name].0, scope);
                        scopes.insert(name, scope);
                    }
                }
                Operation::Select { pool, items, from } => {
                    let there = model.range((pool, 0)..=(pool, u32::MAX)).count();
                    let visible = |name: &(usize, u32)| {
                        scopes.get(name).copied().unwrap_or(Scope::Global) >= from
                    };
                    let members = model.range((pool, 0)..=(pool, u32::MAX));
                    let members = members.filter(|(name, _)| visible(name));
                    let mut listed: Vec<_> = space.members_for(&handle(pool), from).collect();
                    listed.sort();
                    let mut keys: Vec<_> = members.clone().map(|(_, (key, _))| *key).collect();
                    keys.sort();
                    assert_eq!(listed, keys);
                    // Elements of weight 0 are not selected, unless there are no others.
                    let weighted = [1, 2].contains(&(pool % POLICIES.len()));
                    let eligible = members
                        .clone()
                        .filter(|(_, (_, value))| !weighted || value.policy.words()[0] > 0)
                        .count();
                    let eligible = if eligible > 0 { eligible } else { members.clone().count() };
                    let wanted = Wanted::items(items);
                    let selection = space.select_for(&handle(pool), from, wanted, rng);
                    assert_eq!(selection.is_some(), there > 0);
                    let offered = selection.as_ref().map_or(0, |selection| selection.offered());
                    assert_eq!(offered, members.clone().count());
                    if POLICIES[pool % POLICIES.len()] == PolicyType::LEAST_USED {
                        let load = |element: &PoolElement| element.policy.words()[0];
                        let all = selection.iter().flat_map(|selection| selection.elements());
                        let found: Vec<_> = all.map(|(_, it)| load(&it.value())).collect();
                        let mut loads: Vec<_> = members.map(|(_, (_, it))| load(it)).collect();
                        loads.sort_unstable();
                        loads.truncate(items);
                        assert_eq!(found, loads);
                    }
                    let mut found: Vec<_> = selection
                        .iter()
                        .flat_map(|selection| selection.elements())
                        .map(|(_, element)| element.identifier())
                        .collect();
                    assert_eq!(found.len(), eligible.min(items));
                    assert!(found.iter().all(|PoolElementId(id)| {
                        model.contains_key(&(pool, *id)) && visible(&(pool, *id))
                    }));
                    found.sort();
                    found.dedup();
                    assert_eq!(found.len(), eligible.min(items), "none twice");
                }
            }
            compare(&space, &model);
        }
    }
}

#[test]
fn each_element_expires_once_and_neither_early_nor_late() {
    for seed in 0..20 {
        let rng = &mut StdRng::seed_from_u64(seed);
        let mut space = Handlespace::new(Policies::default(), 100);
        let keys: Vec<_> = (1..=100)
            .map(|id| space.insert(&handle(0), &element(0, id, 1, 0), ()).unwrap())
            .collect();
        let mut now = Instant::now();
        let mut model: BTreeMap<ElementKey, Instant> = BTreeMap::new();
        for _ in 0..3000 {
            let key = keys[rng.random_range(0..keys.len())];
            match rng.random_range(0..10) {
                0 => {
                    space.set_lifetime(key, now, None);
                    model.remove(&key);
                }
                1..=4 => {
                    let most = [1, 100, 10_000, 1_000_000][rng.random_range(0..4)];
                    let lifetime = Duration::from_millis(rng.random_range(0..most));
                    space.set_lifetime(key, now, Some(lifetime));
                    model.insert(key, now + lifetime);
                }
                5 => now += Duration::from_millis(rng.random_range(0..300_000)),
                6 => now = space.next_expiry().map_or(now, |next| next.max(now)),
                _ => now += Duration::from_millis(rng.random_range(0..100)),
            }
            while let Some(expired) = space.pop_expired(now) {
                let deadline = model.remove(&expired).expect("it has a deadline");
                assert!(deadline <= now, "seed {seed}");
            }
            let first = model.values().min().copied();
            assert!(first.is_none_or(|deadline| deadline + TICK > now), "seed {seed}");
            assert_eq!(space.next_expiry().is_some(), first.is_some());
            let late = |next: Instant| first.is_some_and(|first| next > first + TICK);
            assert!(!space.next_expiry().is_some_and(late), "seed {seed}");
        }
    }
}
