//! Selections without an effect on the real ones.

use super::pool::Pool;
use super::{ElementKey, Scope};
use crate::policy::{Member, RandomSource, Rank, Selector, Wanted};

/// A copy of the state of a pool's policy, on which selections can be tried.
#[derive(Debug)]
pub struct Trial {
    selector: Box<dyn Selector>,
    /// The members that these hosts are told about, in the order of their keys.
    members: Vec<(ElementKey, Member)>,
    /// The keys of the members, in the order of the members' numbers.
    keys: Vec<(Member, ElementKey)>,
    selected: Vec<Member>,
}

impl Trial {
    pub(super) fn new(pool: &Pool, from: Scope) -> Option<Self> {
        let selector = pool.fork(from)?;
        let keys: Vec<_> =
            pool.numbered().filter(|(member, _)| pool.scope(*member) >= from).collect();
        let mut members: Vec<_> = keys.iter().map(|(member, key)| (*key, *member)).collect();
        members.sort_unstable();
        Some(Self { selector, members, keys, selected: Vec::new() })
    }

    /// Returns the basis on which the policy selects an element; `None` if the element is not told to
    /// these hosts, or the policy does not say.
    #[must_use]
    pub fn rank(&self, key: ElementKey) -> Option<Rank> {
        let place = self.members.binary_search_by_key(&key, |(key, _)| *key).ok()?;
        self.selector.rank(self.members[place].1)
    }

    /// Selects elements, as [`Handlespace::select`](super::Handlespace::select) would.
    pub fn select(&mut self, wanted: Wanted<'_>, rng: &mut RandomSource) -> Vec<ElementKey> {
        self.selected.clear();
        self.selector.select(wanted, rng, &mut self.selected);
        let key = |member: &Member| {
            let place = self.keys.binary_search_by_key(member, |(member, _)| *member).ok()?;
            Some(self.keys[place].1)
        };
        self.selected.iter().filter_map(key).collect()
    }
}
