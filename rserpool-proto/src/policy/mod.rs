//! Pool member selection policies (RFC 5356), and the traits to implement new ones.
//!
//! A [`SelectionPolicy`] is shared by all pools; it creates the [`Selector`] that holds the state
//! of one pool. Most policies have one of two forms. Each form has a helper trait, which makes a
//! policy a dozen lines long:
//!
//! - an [`Order`]: the smallest key is selected first, and round robin decides among equals;
//! - a [`Weight`]: elements are drawn at random in proportion to their weights.
//!
//! Registrars and pool users run the same policy objects. A registrar selects among all elements of
//! a pool. A pool user uses each answer of the registrar unchanged, because the registrar has
//! already selected. If the pool user uses the same answer again, from its cache, it selects among
//! the elements of that answer.
//!
//! ```
//! use rserpool_proto::policy::{ByOrder, Order, Policies};
//! use rserpool_proto::wire::{PolicyParameters, PolicyType};
//!
//! /// Elements say how far away they are; the nearest is best.
//! #[derive(Debug)]
//! struct Nearest;
//!
//! impl Order for Nearest {
//!     fn policy_type(&self) -> PolicyType {
//!         PolicyType(0x8000_0001)
//!     }
//!
//!     fn words(&self) -> usize {
//!         1
//!     }
//!
//!     fn key(&self, parameters: &PolicyParameters) -> u64 {
//!         u64::from(parameters.words()[0])
//!     }
//! }
//!
//! let policies = Policies::default().with(ByOrder(Nearest));
//! # let nearest = PolicyParameters::new(PolicyType(0x8000_0001), &[3]);
//! # assert!(policies.validate(&nearest).is_ok());
//! ```

#![allow(
    clippy::exhaustive_structs,
    reason = "policies have no fields, or are all that there is to them"
)]

mod extension;
mod least_used;
mod order;
mod priority;
mod random;
mod random_source;
mod round_robin;
mod weight;
mod weighted_round_robin;

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use crate::access::Identity;
use crate::wire::{PolicyParameters, PolicyType};

pub use extension::{
    LeastUsedDegradationDpf, LeastUsedDpf, PriorityLeastUsedDegradation,
    RandomizedLeastUsedDegradation, RandomizedPriorityLeastUsed,
    RandomizedPriorityLeastUsedDegradation, WeightedRandomDpf,
};
pub use least_used::{LeastUsed, LeastUsedDegradation, PriorityLeastUsed, RandomizedLeastUsed};
pub use order::{ByOrder, Order};
pub use priority::Priority;
pub use random::{Random, WeightedRandom};
pub use random_source::RandomSource;
pub use round_robin::RoundRobin;
pub use weight::{ByWeight, Weight};
pub use weighted_round_robin::WeightedRoundRobin;

/// The number of an element in the [`Selector`] of its pool. It is small, unique in the pool as
/// long as the element is in the pool, and reused afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Member(pub u32);

/// A policy to select pool elements.
pub trait SelectionPolicy: fmt::Debug + Send + Sync + 'static {
    /// Returns the number under which elements register for this policy.
    fn policy_type(&self) -> PolicyType;

    /// Checks the policy parameters of an element. Selectors only receive parameters that passed
    /// this check.
    ///
    /// # Errors
    ///
    /// Returns an error if the policy cannot work with these parameters; the registration is then
    /// refused.
    fn validate(&self, parameters: &PolicyParameters) -> Result<(), InvalidPolicy>;

    /// Creates the state of this policy for one pool, which has no elements yet.
    fn new_selector(self: Arc<Self>) -> Box<dyn Selector>;
}

/// The state of a policy for one pool.
pub trait Selector: fmt::Debug + Send {
    /// Adds an element that joined the pool.
    fn insert(&mut self, member: Member, parameters: &PolicyParameters);

    /// Updates an element that registered again.
    fn update(&mut self, member: Member, parameters: &PolicyParameters);

    /// Removes an element that left the pool.
    fn remove(&mut self, member: Member);

    /// Appends at most as many elements as are wanted to `selected`, without duplicates, in the
    /// order in which the pool user shall try them. Appends fewer only if the pool has no more to
    /// offer.
    fn select(&mut self, wanted: Wanted, rng: &mut RandomSource, selected: &mut Vec<Member>);

    /// Prepares the selector of a pool user for selections that follow a registrar's answer. Before
    /// this call, all elements of the answer were inserted in the `order` of the answer. The pool
    /// user first uses the answer unchanged, so the next selection has to return the elements that
    /// come after that. If `complete` is true, the answer contains all elements of the pool.
    /// Otherwise the registrar has already chosen the elements by their weights, which must not
    /// count again. Default: does nothing; the selector then uses the parameters alone, as if it
    /// had not selected yet.
    fn resume(&mut self, order: &[Member], complete: bool, rng: &mut RandomSource) {
        let _ = (order, complete, rng);
    }

    /// Returns a copy with the same state, on which selections can be tried without an effect on
    /// this one. Default: `None`; then operators get no forecast of the selections.
    fn fork(&self) -> Option<Box<dyn Selector>> {
        None
    }

    /// Returns the basis on which the policy selects an element, for operators. Default: `None`,
    /// nothing that could be said.
    fn rank(&self, member: Member) -> Option<Rank> {
        let _ = member;
        None
    }
}

/// Basis on which a policy selects an element among those of its pool, see [`Selector::rank`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rank {
    /// The element with the smallest key is selected first.
    Key(u64),
    /// Elements are selected in proportion to their weights.
    Weight(u64),
}

/// A request for a selection: the number of elements, and the pool user that asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Wanted<'a> {
    /// The maximum number of elements.
    pub items: usize,
    /// The number of returned elements, from the first one on, that the policy counts as selected;
    /// `None` is the policy's default. For built-in policies the default is one, because the pool
    /// user uses the first element, and others only if the first fails.
    pub max_increment: Option<usize>,
    /// The pool user that asks; `None` if a pool user selects for itself.
    pub asker: Option<Asker<'a>>,
}

/// The pool user that asks a registrar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Asker<'a> {
    /// The address from which the pool user is connected; the first one, if the pool user has
    /// several.
    pub address: IpAddr,
    /// The names in its certificate; `None` if it was not authenticated.
    pub identity: Option<&'a Identity>,
}

impl<'a> Wanted<'a> {
    /// Requests at most `items` elements; the policy's default number of them counts as selected.
    #[must_use]
    pub fn items(items: usize) -> Self {
        Self { items, max_increment: None, asker: None }
    }

    /// Sets the number of elements that count as selected. Default: `None`, which leaves it to the
    /// policy.
    #[must_use]
    pub fn max_increment(mut self, elements: Option<usize>) -> Self {
        self.max_increment = elements;
        self
    }

    /// Sets the address and the identity of the pool user that asks. Default: none.
    #[must_use]
    pub fn for_asker(mut self, address: IpAddr, identity: Option<&'a Identity>) -> Self {
        self.asker = Some(Asker { address, identity });
        self
    }
}

/// Error of [`SelectionPolicy::validate`]: the policy cannot work with the parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidPolicy {
    /// The parameters contain fewer values than the policy needs.
    #[error("too few policy values: {needed} needed, {given} given")]
    MissingValues {
        /// The number of 32-bit words that the policy needs.
        needed: usize,
        /// The number of 32-bit words that were given.
        given: usize,
    },
    /// A value is outside of what the policy allows.
    #[error("a policy value is out of range")]
    OutOfRange,
}

pub(crate) fn require_words(
    needed: usize,
    parameters: &PolicyParameters,
) -> Result<(), InvalidPolicy> {
    let given = parameters.words().len();
    if given < needed { Err(InvalidPolicy::MissingValues { needed, given }) } else { Ok(()) }
}

/// The policies that a registrar or a pool user knows.
///
/// A registrar does not refuse elements with another policy: it relays their parameters unchanged,
/// and selects them round robin.
#[derive(Debug, Clone)]
pub struct Policies {
    known: BTreeMap<PolicyType, Arc<dyn SelectionPolicy>>,
    fallback: Arc<dyn SelectionPolicy>,
}

impl Default for Policies {
    /// Returns the built-in policies: all of RFC 5356, and rsplib's extensions.
    fn default() -> Self {
        Self { known: BTreeMap::new(), fallback: Arc::new(ByOrder(RoundRobin)) }
            .with(ByOrder(RoundRobin))
            .with(WeightedRoundRobin)
            .with(ByOrder(Priority))
            .with(ByOrder(LeastUsed))
            .with(ByOrder(LeastUsedDegradation))
            .with(ByOrder(PriorityLeastUsed))
            .with(ByWeight(Random))
            .with(ByWeight(WeightedRandom))
            .with(ByWeight(RandomizedLeastUsed))
            .with(ByWeight(RandomizedPriorityLeastUsed))
            .with(ByWeight(RandomizedLeastUsedDegradation))
            .with(ByOrder(PriorityLeastUsedDegradation))
            .with(ByWeight(RandomizedPriorityLeastUsedDegradation))
            .with(ByWeight(WeightedRandomDpf))
            .with(ByOrder(LeastUsedDpf))
            .with(ByOrder(LeastUsedDegradationDpf))
    }
}

impl Policies {
    /// Adds `policy`; it replaces a policy of the same number.
    #[must_use]
    pub fn with(mut self, policy: impl SelectionPolicy) -> Self {
        self.known.insert(policy.policy_type(), Arc::new(policy));
        self
    }

    fn get(&self, policy_type: PolicyType) -> &Arc<dyn SelectionPolicy> {
        self.known.get(&policy_type).unwrap_or(&self.fallback)
    }

    /// Checks the policy parameters of an element.
    ///
    /// # Errors
    ///
    /// Returns an error if the policy is known and cannot work with these parameters.
    pub fn validate(&self, parameters: &PolicyParameters) -> Result<(), InvalidPolicy> {
        self.get(parameters.policy_type()).validate(parameters)
    }

    /// Creates the state for a pool with the policy `policy_type`.
    #[must_use]
    pub fn new_selector(&self, policy_type: PolicyType) -> Box<dyn Selector> {
        Arc::clone(self.get(policy_type)).new_selector()
    }
}

#[cfg(test)]
mod tests {

    use super::*;

    fn pool(elements: &[PolicyParameters]) -> Box<dyn Selector> {
        let mut selector = Policies::default().new_selector(elements[0].policy_type());
        for (member, parameters) in (0..).map(Member).zip(elements) {
            selector.insert(member, parameters);
        }
        selector
    }

    fn select(selector: &mut dyn Selector, count: usize, rng: &mut RandomSource) -> Vec<u32> {
        let mut selected = Vec::new();
        selector.select(Wanted::items(count), rng, &mut selected);
        selected.into_iter().map(|Member(number)| number).collect()
    }

    #[test]
    fn round_robin_advances_by_one_whatever_was_asked_for() {
        let rng = &mut RandomSource::from_seed(1);
        let mut pool = pool(&vec![PolicyParameters::round_robin(); 3]);
        let lists: Vec<_> = (0..4).map(|_| select(&mut *pool, 2, rng)).collect();
        assert_eq!(lists, [[0, 1], [1, 2], [2, 0], [0, 1]]);
        assert_eq!(select(&mut *pool, 9, rng), [1, 2, 0]);
        pool.remove(Member(2));
        assert_eq!(select(&mut *pool, 9, rng), [0, 1]);
        pool.insert(Member(2), &PolicyParameters::round_robin());
        assert_eq!(select(&mut *pool, 1, rng), [1]);
    }

    #[test]
    fn least_used_is_ascending_and_round_robin_among_equals() {
        let rng = &mut RandomSource::from_seed(1);
        let mut pool = pool(&[70, 10, 50, 10].map(PolicyParameters::least_used));
        assert_eq!(select(&mut *pool, 4, rng), [1, 3, 2, 0]);
        assert_eq!(select(&mut *pool, 4, rng), [3, 1, 2, 0]);
        pool.update(Member(0), &PolicyParameters::least_used(0));
        assert_eq!(select(&mut *pool, 2, rng), [0, 1]);
    }

    #[test]
    fn degradation_counts_each_selection_until_the_next_registration() {
        let rng = &mut RandomSource::from_seed(1);
        let degrading = |load, degradation| {
            PolicyParameters::new(PolicyType::LEAST_USED_DEGRADATION, &[load, degradation])
        };
        let mut pool = pool(&[degrading(10, 10), degrading(25, 1)]);
        let picks: Vec<_> = (0..4).map(|_| select(&mut *pool, 1, rng)[0]).collect();
        assert_eq!(picks, [0, 0, 1, 1]);
        pool.update(Member(0), &degrading(10, 10));
        assert_eq!(select(&mut *pool, 2, rng), [0, 1]);
    }

    #[test]
    fn priority_prefers_the_largest_number() {
        let rng = &mut RandomSource::from_seed(1);
        let mut pool = pool(&[1, 9, 5].map(|n| PolicyParameters::new(PolicyType::PRIORITY, &[n])));
        assert_eq!(select(&mut *pool, 3, rng), [1, 2, 0]);
        assert_eq!(select(&mut *pool, 1, rng), [1]);
    }

    #[test]
    fn random_draws_each_element_once_and_zero_weights_never() {
        let rng = &mut RandomSource::from_seed(1);
        let mut even = pool(&vec![PolicyParameters::new(PolicyType::RANDOM, &[]); 5]);
        for _ in 0..100 {
            let mut selected = select(&mut *even, 5, rng);
            selected.sort_unstable();
            assert_eq!(selected, [0, 1, 2, 3, 4]);
        }
        let weighted = |n| PolicyParameters::new(PolicyType::WEIGHTED_RANDOM, &[n]);
        let mut uneven = pool(&[0, 1, 3].map(weighted));
        let mut drawn = [0; 3];
        for _ in 0..4000 {
            drawn[select(&mut *uneven, 1, rng)[0] as usize] += 1;
        }
        assert_eq!(drawn[0], 0);
        assert!((2850..3150).contains(&drawn[2]), "{drawn:?}");
        assert_eq!(select(&mut *uneven, 3, rng).len(), 2);
        let mut idle = select(&mut *pool(&[0, 0].map(weighted)), 2, rng);
        idle.sort_unstable();
        assert_eq!(idle, [0, 1], "better than nobody");
    }

    #[test]
    fn short_parameters_are_refused_and_unknown_policies_are_not() {
        let policies = Policies::default();
        assert_eq!(
            policies.validate(&PolicyParameters::new(PolicyType::LEAST_USED, &[])),
            Err(InvalidPolicy::MissingValues { needed: 1, given: 0 })
        );
        assert!(policies.validate(&PolicyParameters::new(PolicyType(0x8765_4321), &[])).is_ok());
    }
}
