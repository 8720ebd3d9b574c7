//! Timers as entries of a queue, which state machines poll.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::time::{Duration, Instant};

/// The longest time that a setting may have: ten years, so that adding it to an instant does not
/// overflow.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 86_400);

/// Returns `time`, or ten years if that is less.
pub(crate) fn bounded(time: Duration) -> Duration {
    time.min(LONGEST)
}

/// A set of timers with at most one deadline for each key, in an ordered queue. Every operation is
/// O(log n).
#[derive(Debug)]
pub(crate) struct Timers<K> {
    queue: BTreeSet<(Instant, K)>,
    deadlines: HashMap<K, Instant>,
}

impl<K: Copy + Ord + Hash> Timers<K> {
    pub(crate) fn new() -> Self {
        Self { queue: BTreeSet::new(), deadlines: HashMap::new() }
    }

    /// Starts or restarts the timer of `key`.
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

    /// Removes and returns the next timer that is due at `now`.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<K> {
        let (deadline, key) = *self.queue.first()?;
        if deadline > now {
            return None;
        }
        self.queue.pop_first();
        self.deadlines.remove(&key);
        Some(key)
    }

    /// Releases unused memory.
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
