//! Timers as data.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::time::Instant;

/// At most one deadline for each key, in one ordered queue: every operation is O(log n).
#[derive(Debug)]
pub(crate) struct Timers<K> {
    queue: BTreeSet<(Instant, K)>,
    deadlines: HashMap<K, Instant>,
}

impl<K: Copy + Ord + Hash> Timers<K> {
    pub(crate) fn new() -> Self {
        Self { queue: BTreeSet::new(), deadlines: HashMap::new() }
    }

    /// Starts the timer of `key`, or starts it anew.
    pub(crate) fn set(&mut self, key: K, deadline: Instant) {
        if let Some(old) = self.deadlines.insert(key, deadline) {
            self.queue.remove(&(old, key));
        }
        self.queue.insert((deadline, key));
    }

    pub(crate) fn cancel(&mut self, key: K) {
        if let Some(deadline) = self.deadlines.remove(&key) {
            self.queue.remove(&(deadline, key));
        }
    }

    pub(crate) fn clear(&mut self) {
        self.queue.clear();
        self.deadlines.clear();
    }

    /// The next timer that is due at `now`, which is gone then.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<K> {
        let (deadline, key) = *self.queue.first()?;
        if deadline > now {
            return None;
        }
        self.queue.pop_first();
        self.deadlines.remove(&key);
        Some(key)
    }

    /// Gives memory back that is not needed.
    pub(crate) fn shrink(&mut self) {
        self.deadlines.shrink_to_fit();
    }

    pub(crate) fn is_set(&self, key: K) -> bool {
        self.deadlines.contains_key(&key)
    }

    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        self.queue.first().map(|(deadline, _)| *deadline)
    }
}
