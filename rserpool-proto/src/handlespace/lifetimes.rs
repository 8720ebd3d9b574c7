//! Expiry of elements.

use std::time::{Duration, Instant};

use super::ElementKey;

/// The length of a slot of the timer wheel, as a power of two: 2^25 nanoseconds, about 34 ms.
const TICK: u32 = 25;

/// The number of slots of the timer wheel, which together span about 137 seconds.
const SLOTS: usize = 4096;

/// The number of the list that takes the elements of a slot whose time is over. [`Lifetimes::pop`]
/// takes the elements from this list one by one.
const DRAINED: u32 = SLOTS as u32;

/// Stands for no element, or for no neighbour in a list.
const NONE: u32 = u32::MAX;

/// Flag in `previous`: the element is the first of its list, and the other bits are the number of
/// the list.
const FIRST: u32 = 1 << 31;

/// The deadlines of elements: at most one for each element, reported at most 34 ms late.
///
/// A timer wheel. Each slot has a list of the elements to check when the time of the slot is over.
/// An element whose deadline is postponed, or is beyond the span of the wheel, stays in its slot
/// until it is checked and is then moved to another slot. Postponing a deadline, which every
/// re-registration does, is thus a single store. Everything else is O(1), except for the search of
/// the next slot that is not empty, in a bitmap of 64 words.
#[derive(Debug)]
pub(super) struct Lifetimes {
    /// The time from which deadlines and ticks are counted; `None` before the first deadline is
    /// set.
    epoch: Option<Instant>,
    /// The deadline and the neighbours of each element, indexed by element key.
    entries: Vec<Entry>,
    /// The first element of each slot's list, and of the [`DRAINED`] list.
    heads: Vec<u32>,
    occupied: [u64; SLOTS / 64],
    /// The first tick that [`pop`](Self::pop) has not processed.
    tick: u64,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    /// The deadline in nanoseconds since [`Lifetimes::epoch`].
    deadline: u64,
    next: u32,
    /// The previous element of the list, or [`FIRST`] and the number of the list; [`NONE`] if the
    /// element has no deadline.
    previous: u32,
}

impl Entry {
    const UNSET: Self = Self { deadline: 0, next: NONE, previous: NONE };
}

impl Default for Lifetimes {
    fn default() -> Self {
        Self {
            epoch: None,
            entries: Vec::new(),
            heads: Vec::new(),
            occupied: [0; SLOTS / 64],
            tick: 0,
        }
    }
}

impl Lifetimes {
    /// Sets the deadline of an element to `lifetime` after `now`.
    pub(super) fn set(&mut self, key: ElementKey, now: Instant, lifetime: Duration) {
        let epoch = *self.epoch.get_or_insert(now);
        let age = nanoseconds(now.saturating_duration_since(epoch));
        let deadline = age.saturating_add(nanoseconds(lifetime));
        let index = key.index();
        if index >= self.entries.len() {
            self.entries.resize(index + 1, Entry::UNSET);
        }
        let entry = &mut self.entries[index];
        if entry.previous != NONE {
            if deadline >= entry.deadline {
                entry.deadline = deadline;
                return;
            }
            self.unlink(key.0);
        }
        self.link(key.0, deadline);
    }

    /// Releases the memory for elements with an index of `elements` or more. None of these may have
    /// a deadline.
    pub(super) fn shrink(&mut self, elements: usize) {
        self.entries.truncate(elements);
        self.entries.shrink_to_fit();
    }

    /// Removes the deadline of an element.
    pub(super) fn cancel(&mut self, key: ElementKey) {
        if self.entries.get(key.index()).is_some_and(|entry| entry.previous != NONE) {
            self.unlink(key.0);
        }
    }

    /// Returns an element whose deadline has passed at `now`, and removes the deadline.
    pub(super) fn pop(&mut self, now: Instant) -> Option<ElementKey> {
        let epoch = self.epoch?;
        let now = nanoseconds(now.saturating_duration_since(epoch)) >> TICK;
        loop {
            while let Some(key) = self.head(DRAINED) {
                self.unlink(key);
                let deadline = self.entries[key as usize].deadline;
                if deadline >> TICK < now {
                    return Some(ElementKey(key));
                }
                self.link(key, deadline);
            }
            match self.next_tick().filter(|tick| *tick < now) {
                Some(tick) => {
                    self.tick = tick + 1;
                    self.drain(slot(tick));
                }
                None => {
                    self.tick = self.tick.max(now);
                    return None;
                }
            }
        }
    }

    /// Returns the next time to call [`pop`](Self::pop). It may return nothing then.
    pub(super) fn next(&self) -> Option<Instant> {
        let end = |tick: u64| self.epoch.map(|epoch| epoch + Duration::from_nanos(tick << TICK));
        match self.head(DRAINED) {
            Some(_) => end(self.tick),
            None => end(self.next_tick()? + 1),
        }
    }

    fn head(&self, list: u32) -> Option<u32> {
        self.heads.get(list as usize).copied().filter(|head| *head != NONE)
    }

    /// Returns the first tick, from the current one on, whose slot is not empty.
    fn next_tick(&self) -> Option<u64> {
        let first = slot(self.tick);
        let (word, bit) = (first as usize / 64, first % 64);
        // The last step looks at the first word again, at the bits that the first step left out.
        for step in 0..=self.occupied.len() {
            let at = (word + step) % self.occupied.len();
            let mask = match step {
                0 => u64::MAX << bit,
                _ if step == self.occupied.len() => !(u64::MAX << bit),
                _ => u64::MAX,
            };
            let bits = self.occupied[at] & mask;
            if bits != 0 {
                let found = at as u64 * 64 + u64::from(bits.trailing_zeros());
                let ahead = (found + SLOTS as u64 - u64::from(first)) % SLOTS as u64;
                return Some(self.tick + ahead);
            }
        }
        None
    }

    fn link(&mut self, key: u32, deadline: u64) {
        if self.heads.is_empty() {
            self.heads = vec![NONE; SLOTS + 1];
        }
        let tick = (deadline >> TICK).clamp(self.tick, self.tick + SLOTS as u64 - 1);
        let list = slot(tick);
        self.occupied[list as usize / 64] |= 1 << (list % 64);
        let next = std::mem::replace(&mut self.heads[list as usize], key);
        if next != NONE {
            self.entries[next as usize].previous = key;
        }
        self.entries[key as usize] = Entry { deadline, next, previous: FIRST | list };
    }

    /// Removes an element from its list. Its deadline can still be read afterwards.
    fn unlink(&mut self, key: u32) {
        let Entry { next, previous, .. } = self.entries[key as usize];
        if previous & FIRST == 0 {
            self.entries[previous as usize].next = next;
        } else {
            let list = previous & !FIRST;
            self.heads[list as usize] = next;
            if next == NONE && list != DRAINED {
                self.occupied[list as usize / 64] &= !(1 << (list % 64));
            }
        }
        if next != NONE {
            self.entries[next as usize].previous = previous;
        }
        self.entries[key as usize].previous = NONE;
    }

    fn drain(&mut self, list: u32) {
        let head = std::mem::replace(&mut self.heads[list as usize], NONE);
        self.occupied[list as usize / 64] &= !(1 << (list % 64));
        self.heads[DRAINED as usize] = head;
        self.entries[head as usize].previous = FIRST | DRAINED;
    }
}

fn slot(tick: u64) -> u32 {
    (tick % SLOTS as u64) as u32
}

fn nanoseconds(duration: Duration) -> u64 {
    duration.as_secs().saturating_mul(1_000_000_000).saturating_add(duration.subsec_nanos().into())
}
