//! Rate-limited log lines for events that remote hosts can cause: a few lines a minute for each source
//! and kind, with a count of the suppressed ones.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Time after the first line of a source and kind during which only [`BURST`] lines are written.
const PERIOD: Duration = Duration::from_secs(60);

/// Number of lines of one source and kind in a [`PERIOD`]. Further ones are only counted. Several
/// registrars or elements of one host may fail at once.
const BURST: u32 = 4;

/// Maximum number of sources and kinds that are distinguished. Not from the RFCs: bounds the log to
/// some lines a second.
const MAX_KEYS: usize = 256;

/// Address that stands for an unknown source, and for all sources beyond [`MAX_KEYS`].
pub(crate) const ANYBODY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

#[derive(Debug, Clone, Copy)]
struct Seen {
    /// The time of the first line.
    written: Instant,
    /// The number of lines since then.
    lines: u32,
    /// The number of lines of this source and kind that were suppressed since `written`.
    left_out: u64,
}

type Key = (&'static str, IpAddr);

/// The state of the rate limit, shared by all tasks of the process.
static SEEN: Mutex<BTreeMap<Key, Seen>> = Mutex::new(BTreeMap::new());

/// Returns `None` if the line is to be suppressed; otherwise the number of lines of this kind about
/// `source` that were suppressed before it.
pub(crate) fn admit(now: Instant, kind: &'static str, source: IpAddr) -> Option<u64> {
    let mut seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner);
    admit_among(&mut seen, now, (kind, source))
}

fn admit_among(seen: &mut BTreeMap<Key, Seen>, now: Instant, mut key: Key) -> Option<u64> {
    if !seen.contains_key(&key) && seen.len() >= MAX_KEYS {
        key.1 = ANYBODY;
    }
    let known = seen.entry(key).or_insert(Seen { written: now, lines: 0, left_out: 0 });
    if now >= known.written + PERIOD {
        (known.written, known.lines) = (now, 0);
    }
    if known.lines == BURST {
        known.left_out += 1;
        return None;
    }
    known.lines += 1;
    Some(std::mem::take(&mut known.left_out))
}

/// Logs the number of suppressed lines, for each source and kind whose minute is over. Tasks call
/// this now and then.
pub(crate) fn summarize(now: Instant) {
    let over = {
        let mut seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner);
        take_over(&mut seen, now)
    };
    for ((kind, source), left_out) in over {
        if source == ANYBODY {
            tracing::warn!(times = left_out, "again: {kind}");
        } else {
            tracing::warn!(%source, times = left_out, "again: {kind}");
        }
    }
}

fn take_over(seen: &mut BTreeMap<Key, Seen>, now: Instant) -> Vec<(Key, u64)> {
    let mut over = Vec::new();
    seen.retain(|key, known| {
        if now < known.written + PERIOD {
            return true;
        }
        if known.left_out > 0 {
            over.push((*key, std::mem::take(&mut known.left_out)));
            (known.written, known.lines) = (now, BURST);
            return true;
        }
        false
    });
    over
}

/// Logs a rate-limited warning: `warn_limited!(now, source, "kind", fields...)`.
macro_rules! warn_limited {
    ($now:expr, $source:expr, $kind:literal $(, $($fields:tt)+)?) => {
        if let Some(left_out) = $crate::log::admit($now, $kind, $source) {
            let again = (left_out > 0).then_some(left_out);
            tracing::warn!($($($fields)+,)? again, $kind);
        }
    };
}
pub(crate) use warn_limited;

/// Logs a rate-limited notice of a recovery, which the default log level shows: `note_limited!(now,
/// source, "kind", fields...)`. Its target is `rserpool::notice`.
macro_rules! note_limited {
    ($now:expr, $source:expr, $kind:literal $(, $($fields:tt)+)?) => {
        if let Some(left_out) = $crate::log::admit($now, $kind, $source) {
            let again = (left_out > 0).then_some(left_out);
            tracing::info!(target: "rserpool::notice", $($($fields)+,)? again, $kind);
        }
    };
}
pub(crate) use note_limited;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::disallowed_methods, reason = "any instant will do")]
    fn a_few_lines_a_minute_for_each_source_and_kind_and_the_others_are_counted() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let (one, two) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let seen = &mut BTreeMap::new();
        assert_eq!(admit_among(seen, at(0), ("lost", one)), Some(0));
        assert_eq!(admit_among(seen, at(0), ("lost", two)), Some(0));
        assert_eq!(admit_among(seen, at(0), ("found", one)), Some(0));
        for _ in 1..BURST {
            assert_eq!(admit_among(seen, at(0), ("lost", one)), Some(0));
        }
        for second in 1..60 {
            assert_eq!(admit_among(seen, at(second), ("lost", one)), None);
        }
        assert_eq!(admit_among(seen, at(60), ("lost", one)), Some(59));
        for _ in 1..BURST {
            assert_eq!(admit_among(seen, at(60), ("lost", one)), Some(0));
        }
        assert_eq!(admit_among(seen, at(61), ("lost", one)), None);
        // Suppressed lines are reported once, then the entry is removed.
        assert_eq!(take_over(seen, at(119)), []);
        assert_eq!(take_over(seen, at(120)), [(("lost", one), 1)]);
        assert_eq!(take_over(seen, at(180)), []);
        assert!(seen.is_empty());
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "any instant will do")]
    fn many_sources_are_one() {
        let start = Instant::now();
        let seen = &mut BTreeMap::new();
        let source = |number: u32| IpAddr::from(number.to_be_bytes());
        let admitted = (1..10_000).filter_map(|n| admit_among(seen, start, ("lost", source(n))));
        assert_eq!(admitted.count(), MAX_KEYS + BURST as usize);
        assert_eq!(seen.len(), MAX_KEYS + 1);
    }
}
