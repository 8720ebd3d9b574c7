//! Weighted Round Robin (RFC 5356 section 4.2).

use std::collections::BTreeSet;
use std::sync::Arc;

use rand::Rng;

use super::{InvalidPolicy, Member, SelectionPolicy, Selector, Wanted, require_words};
use crate::wire::{PolicyParameters, PolicyType};

/// All elements in turn, in each round as often as their weight says and evenly spread (RFC
/// 5356 section 4.2). An element of weight 0 is never selected. Each operation costs O(log n) in
/// a pool of n elements, a selection of k elements O(k + log n).
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

/// The circular list of the RFC, of which only each element's next entry is there.
#[derive(Debug, Default)]
struct Rounds {
    queue: BTreeSet<(Entry, Member)>,
    /// By member: its weight and its next entry, unless the weight is 0.
    places: Vec<Place>,
    /// The entry that was selected last, which new elements come after.
    last: Entry,
    next_turn: u64,
}

#[derive(Debug, Clone, Copy)]
struct Place {
    weight: u32,
    /// The number of the entry in its round, from 0 on.
    number: u32,
    round: u64,
    turn: u64,
}

impl Place {
    /// Of a member that has no entry.
    const NONE: Self = Self { weight: 0, number: 0, round: 0, turn: 0 };

    fn entry(&self) -> Entry {
        Entry { round: self.round, place: place(self.number, self.weight), turn: self.turn }
    }
}

/// Where in the list an entry is: round, place in the round, and turn among those at one place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
struct Entry {
    round: u64,
    /// In parts of 2^33: the entries of weight w are at 1/2w, 3/2w, 5/2w ...
    place: u64,
    turn: u64,
}

fn place(number: u32, weight: u32) -> u64 {
    // At most (2^33 * 2^32) / 2^32.
    let numerator = u128::from(2 * u64::from(number) + 1) << 32;
    u64::try_from(numerator / u128::from(weight)).unwrap_or(u64::MAX)
}

impl Rounds {
    /// Puts in the first entry of an element of that weight behind `last`.
    fn join(&mut self, member: Member, weight: u32) {
        let index = member.0 as usize;
        if index >= self.places.len() {
            self.places.resize(index + 1, Place::NONE);
        }
        if weight == 0 {
            return;
        }
        // The first n with (2n + 1) / 2w behind where the list stands now.
        let next = (u128::from(self.last.place) * u128::from(weight) + (1 << 32)) >> 33;
        match u32::try_from(next) {
            Ok(number) if number < weight => {
                self.push(member, weight, self.last.round, number);
            }
            _ => self.push(member, weight, self.last.round + 1, 0),
        }
    }

    fn push(&mut self, member: Member, weight: u32, round: u64, number: u32) {
        self.next_turn += 1;
        let place = Place { weight, number, round, turn: self.next_turn };
        self.queue.insert((place.entry(), member));
        self.places[member.0 as usize] = place;
    }

    fn place(&self, member: Member) -> Option<Place> {
        self.places.get(member.0 as usize).filter(|place| place.weight > 0).copied()
    }

    fn take(&mut self, member: Member) -> Option<Place> {
        let place = self.place(member)?;
        self.places[member.0 as usize] = Place::NONE;
        self.queue.remove(&(place.entry(), member));
        Some(place)
    }
}

impl Selector for Rounds {
    fn insert(&mut self, member: Member, parameters: &PolicyParameters) {
        self.join(member, parameters.words()[0]);
    }

    fn update(&mut self, member: Member, parameters: &PolicyParameters) {
        let weight = parameters.words()[0];
        // Registering again is no reason to lose one's turn.
        if self.place(member).map_or(0, |place| place.weight) != weight {
            self.take(member);
            self.join(member, weight);
        }
    }

    fn remove(&mut self, member: Member) {
        self.take(member);
    }

    fn select(&mut self, wanted: Wanted, _: &mut dyn Rng, selected: &mut Vec<Member>) {
        let first = selected.len();
        selected.extend(self.queue.iter().take(wanted.items).map(|(_, member)| *member));
        // Only the first counts: the next answer starts one entry further.
        for member in selected[first..].iter().take(wanted.max_increment.unwrap_or(1)) {
            let Some(place) = self.take(*member) else { continue };
            self.last = self.last.max(place.entry());
            if place.number + 1 < place.weight {
                self.push(*member, place.weight, place.round, place.number + 1);
            } else {
                self.push(*member, place.weight, place.round + 1, 0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

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
        let rng = &mut StdRng::seed_from_u64(1);
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
    fn an_answer_has_each_element_once_and_moves_on_by_one() {
        let mut pool = pool(&[2, 1, 0]);
        let rng = &mut StdRng::seed_from_u64(1);
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
}
