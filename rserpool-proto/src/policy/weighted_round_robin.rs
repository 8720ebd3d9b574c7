//! Weighted Round Robin (RFC 5356 section 4.2).

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;

use rand::RngExt;

use super::{
    InvalidPolicy, Member, RandomSource, Rank, SelectionPolicy, Selector, Wanted, require_words,
};
use crate::wire::{PolicyParameters, PolicyType};

/// Selects all elements in turn. Each round selects an element as often as its weight says, evenly
/// spread over the round (RFC 5356 section 4.2). An element of weight 0 is not selected, unless all
/// have weight 0: then they are selected in turn. Each operation costs O(log n) in a pool of n
/// elements, a selection of k elements O(k + log n).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WeightedRoundRobin;

impl SelectionPolicy for WeightedRoundRobin {
    fn policy_type(&self) -> PolicyType {
        PolicyType::WEIGHTED_ROUND_ROBIN
    }

    fn validate(&self, parameters: &PolicyParameters) -> Result<(), InvalidPolicy> {
        require_words(1, parameters)
    }

    fn new_selector(self: Arc<Self>) -> Box<dyn Selector> {
        Box::new(Rounds::default())
    }
}

/// The circular list of RFC 5356 section 4.2, which has as many entries of an element as its weight
/// says. Only the next entry of each element is stored.
#[derive(Debug, Clone, Default)]
struct Rounds {
    /// The entries in the order of their turns; at the same position, by member number.
    queue: BTreeSet<(Position, Member)>,
    /// The weight and the next entry of each member, indexed by member number.
    entries: Vec<Entry>,
    /// The elements of weight 0. `last_idle` is the one that came first in the last selection.
    idle: BTreeSet<Member>,
    last_idle: Option<Member>,
    /// The position of the entry that was selected last. New elements are inserted after it.
    last: Position,
}

/// An element's weight, and the position of its next entry. The position has no meaning if the
/// weight is 0.
#[derive(Debug, Clone, Copy, Default)]
struct Entry {
    weight: u32,
    position: Position,
}

/// The position of an entry in the list: its round, and its place in the round as a multiple of
/// 1/2^33. The entries of an element of weight w are at 1/2w, 3/2w, 5/2w ... The position is stored
/// as two 32-bit halves, so that it needs no padding beside other 32-bit values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
struct Position {
    high: u32,
    low: u32,
}

/// The number of low bits of a position that hold its place within a round; the high bits hold the
/// round.
const PLACE: u32 = 33;

/// The number of rounds that a position can represent.
const ROUNDS: u64 = 1 << (64 - PLACE);

impl Position {
    /// Returns the position of the entry `number` of an element of that weight in the round.
    /// Numbers start at 0.
    fn new(round: u64, number: u32, weight: u32) -> Self {
        // The quotient is at most (2^33 * 2^32) / 2^32.
        let numerator = u128::from(2 * u64::from(number) + 1) << (PLACE - 1);
        let place = u64::try_from(numerator / u128::from(weight)).unwrap_or(u64::MAX);
        Self::from(round << PLACE | place)
    }

    fn value(self) -> u64 {
        u64::from(self.high) << 32 | u64::from(self.low)
    }

    fn round(self) -> u64 {
        self.value() >> PLACE
    }

    fn place(self) -> u64 {
        self.value() & ((1 << PLACE) - 1)
    }

    /// Returns the number of the entry in its round, for an element of that weight.
    fn number(self, weight: u32) -> u32 {
        // `new` adds half an entry to the number, and its division rounds off less than half an
        // entry. So rounding down here returns the number.
        ((u128::from(self.place()) * u128::from(weight)) >> PLACE) as u32
    }

    fn rounds_earlier(self, rounds: u64) -> Self {
        Self::from(self.value().saturating_sub(rounds << PLACE))
    }
}

impl From<u64> for Position {
    fn from(value: u64) -> Self {
        Self { high: (value >> 32) as u32, low: value as u32 }
    }
}

impl Rounds {
    /// Adds a member of that weight: inserts its first entry after the position `last`, or adds it
    /// to `idle` if the weight is 0.
    fn join(&mut self, member: Member, weight: u32) {
        let index = member.0 as usize;
        if index >= self.entries.len() {
            self.entries.resize(index + 1, Entry::default());
        }
        if weight == 0 {
            self.idle.insert(member);
            return;
        }
        let (round, number) = self.behind_last(weight);
        self.push(member, weight, round, number);
    }

    /// Returns the current round, and the number of the first entry after `last` for an element of
    /// that weight. This is the smallest n with (2n + 1) / 2w after `last`. It may equal the
    /// weight, which means the first entry of the next round.
    fn behind_last(&self, weight: u32) -> (u64, u32) {
        let half = 1 << (PLACE - 1);
        let next = (u128::from(self.last.place()) * u128::from(weight) + half) >> PLACE;
        (self.last.round(), u32::try_from(next).unwrap_or(u32::MAX))
    }

    /// Inserts the entry `number` of the member in the round. A number past the end of the round
    /// stands for the first entry of the next round.
    fn push(&mut self, member: Member, weight: u32, mut round: u64, mut number: u32) {
        if number >= weight {
            (round, number) = (round + 1, 0);
        }
        if round >= ROUNDS {
            round -= self.begin_anew();
        }
        let position = Position::new(round, number, weight);
        self.queue.insert((position, member));
        self.entries[member.0 as usize] = Entry { weight, position };
    }

    /// Renumbers the rounds so that the current one becomes round 0. Returns the amount subtracted
    /// from each round's number.
    fn begin_anew(&mut self) -> u64 {
        let past = self.last.round();
        let queue = std::mem::take(&mut self.queue).into_iter();
        self.queue =
            queue.map(|(position, member)| (position.rounds_earlier(past), member)).collect();
        for entry in &mut self.entries {
            entry.position = entry.position.rounds_earlier(past);
        }
        self.last = self.last.rounds_earlier(past);
        past
    }

    fn entry(&self, member: Member) -> Option<Entry> {
        self.entries.get(member.0 as usize).filter(|entry| entry.weight > 0).copied()
    }

    fn take(&mut self, member: Member) -> Option<Entry> {
        self.idle.remove(&member);
        let entry = self.entry(member)?;
        self.entries[member.0 as usize] = Entry::default();
        self.queue.remove(&(entry.position, member));
        Some(entry)
    }
}

impl Selector for Rounds {
    fn insert(&mut self, member: Member, parameters: &PolicyParameters) {
        self.join(member, parameters.words()[0]);
    }

    fn update(&mut self, member: Member, parameters: &PolicyParameters) {
        let weight = parameters.words()[0];
        // An element that registers again with the same weight keeps its turn.
        if self.entry(member).map_or(0, |entry| entry.weight) != weight {
            self.take(member);
            self.join(member, weight);
        }
    }

    fn remove(&mut self, member: Member) {
        self.take(member);
    }

    fn select(&mut self, wanted: Wanted, _: &mut RandomSource, selected: &mut Vec<Member>) {
        let first = selected.len();
        if self.queue.is_empty() {
            let after = self.last_idle.map_or(Bound::Unbounded, Bound::Excluded);
            let idle = self.idle.range((after, Bound::Unbounded)).chain(&self.idle);
            selected.extend(idle.take(wanted.items.min(self.idle.len())));
            self.last_idle = selected.get(first).copied().or(self.last_idle);
            return;
        }
        selected.extend(self.queue.iter().take(wanted.items).map(|(_, member)| *member));
        // By default, only the first selected element counts, so that the next answer starts one
        // entry further.
        for member in selected[first..].iter().take(wanted.max_increment.unwrap_or(1)) {
            self.count(*member);
        }
    }

    fn resume(&mut self, order: &[Member], complete: bool, rng: &mut RandomSource) {
        if !complete {
            for member in order {
                if self.entry(*member).is_some() {
                    self.take(*member);
                    self.join(*member, 1);
                }
            }
        }
        let Some((first, Entry { weight, .. })) =
            order.iter().find_map(|member| Some((*member, self.entry(*member)?)))
        else {
            self.last_idle = order.first().copied();
            return;
        };
        // The current position becomes a random entry of the first element, and all others are
        // placed after it. Over all users, each element therefore follows as often as its weight
        // requires.
        let number = rng.rng().random_range(0..weight);
        self.last = Position::new(1, number, weight);
        for member in order {
            let Some(Entry { weight, .. }) = self.entry(*member) else { continue };
            self.take(*member);
            let (round, next) = self.behind_last(weight);
            // An entry at the same position as the first element's entry is placed after it.
            let beside = |number: &u32| Position::new(1, *number, weight) == self.last;
            match next.checked_sub(1).filter(beside) {
                Some(number) => self.push(*member, weight, 1, number),
                None => self.push(*member, weight, round, next),
            }
        }
        self.count(first);
    }

    fn fork(&self) -> Option<Box<dyn Selector>> {
        Some(Box::new(self.clone()))
    }

    fn rank(&self, member: Member) -> Option<Rank> {
        Some(Rank::Weight(self.entry(member).map_or(0, |entry| entry.weight.into())))
    }
}

impl Rounds {
    /// Counts a selection of the member: replaces its entry by its next one.
    fn count(&mut self, member: Member) {
        let Some(Entry { weight, position }) = self.take(member) else { return };
        self.last = self.last.max(position);
        self.push(member, weight, position.round(), position.number(weight) + 1);
    }
}

#[cfg(test)]
mod tests {

    use super::*;

    fn weight(weight: u32) -> PolicyParameters {
        PolicyParameters::new(PolicyType::WEIGHTED_ROUND_ROBIN, &[weight])
    }

    fn pool(weights: &[u32]) -> Rounds {
        let mut pool = Rounds::default();
        for (member, value) in (0..).map(Member).zip(weights) {
            pool.insert(member, &weight(*value));
        }
        pool
    }

    fn turns(pool: &mut Rounds, count: usize) -> String {
        let rng = &mut RandomSource::from_seed(1);
        let mut selected = Vec::new();
        for _ in 0..count {
            pool.select(Wanted::items(1), rng, &mut selected);
        }
        selected.iter().map(|Member(number)| char::from(b'a' + *number as u8)).collect()
    }

    #[test]
    fn each_round_has_each_element_as_often_as_its_weight_evenly_spread() {
        assert_eq!(turns(&mut pool(&[3, 2]), 10), "ababaababa");
        assert_eq!(turns(&mut pool(&[4, 1]), 10), "aabaaaabaa");
        assert_eq!(turns(&mut pool(&[1, 1, 1]), 7), "abcabca");
        assert_eq!(turns(&mut pool(&[0, 2]), 3), "bbb");
        let round = turns(&mut pool(&[10, 5, 1]), 16 * 3);
        for (name, times) in [('a', 30), ('b', 15), ('c', 3)] {
            assert_eq!(round.matches(name).count(), times, "{round}");
        }
        assert!(!round.contains("bb") && !round.contains("aaaa"), "{round}");
    }

    #[test]
    fn the_largest_weights_keep_their_ratio() {
        let chosen = turns(&mut pool(&[u32::MAX, u32::MAX, u32::MAX / 2]), 1000);
        for (name, times) in [('a', 400), ('b', 400), ('c', 200)] {
            assert!(chosen.matches(name).count().abs_diff(times) <= 1, "{name} in {chosen}");
        }
    }

    #[test]
    fn rounds_are_counted_without_end() {
        let late = |weights: &[u32]| {
            let mut pool =
                Rounds { last: Position::from((ROUNDS - 2) << PLACE), ..Rounds::default() };
            for (member, value) in (0..).map(Member).zip(weights) {
                pool.insert(member, &weight(*value));
            }
            pool
        };
        for weights in [[3, 2, 7], [1, 1, 1], [u32::MAX, 5, 1]] {
            assert_eq!(turns(&mut late(&weights), 60), turns(&mut pool(&weights), 60));
        }
        for (value, number) in [(u32::MAX, u32::MAX - 1), (u32::MAX, 0), (1, 0), (7, 3)] {
            let position = Position::new(ROUNDS - 1, number, value);
            assert_eq!((position.round(), position.number(value)), (ROUNDS - 1, number));
        }
    }

    #[test]
    fn an_answer_has_each_element_once_and_moves_on_by_one() {
        let mut pool = pool(&[2, 1, 0]);
        let rng = &mut RandomSource::from_seed(1);
        let mut lists = Vec::new();
        for _ in 0..3 {
            let mut selected = Vec::new();
            pool.select(Wanted::items(9), rng, &mut selected);
            lists.push(selected.iter().map(|Member(number)| *number).collect::<Vec<_>>());
        }
        assert_eq!(lists, [[0, 1], [1, 0], [0, 1]]);
    }

    #[test]
    fn who_joins_late_or_changes_its_weight_does_not_catch_up() {
        let mut pool = pool(&[2, 2]);
        assert_eq!(turns(&mut pool, 5), "ababa");
        pool.insert(Member(2), &weight(2));
        let chosen = turns(&mut pool, 30);
        assert!(chosen.matches('c').count().abs_diff(10) <= 1, "{chosen}");
        pool.update(Member(2), &weight(4));
        let chosen = turns(&mut pool, 40);
        assert!(chosen.matches('c').count().abs_diff(20) <= 1, "{chosen}");
        pool.update(Member(2), &weight(0));
        assert_eq!(turns(&mut pool, 20).matches('c').count(), 0);
        pool.remove(Member(2));
        pool.remove(Member(1));
        assert_eq!(turns(&mut pool, 3), "aaa");
    }

    #[test]
    fn a_part_of_the_pool_counts_once_each_but_weight_zero_stays_idle() {
        for (complete, expected) in [(true, [5, 1, 0]), (false, [3, 3, 0])] {
            let mut pool = pool(&[5, 1, 0]);
            let order = [Member(0), Member(1), Member(2)];
            pool.resume(&order, complete, &mut RandomSource::from_seed(1));
            let chosen = turns(&mut pool, 6);
            let times = ['a', 'b', 'c'].map(|name| chosen.matches(name).count());
            assert_eq!(times, expected, "{chosen}");
        }
        let mut pool = pool(&[0, 0]);
        let order = [Member(1), Member(0)];
        pool.resume(&order, false, &mut RandomSource::from_seed(1));
        assert_eq!(turns(&mut pool, 4), "abab");
    }
}
