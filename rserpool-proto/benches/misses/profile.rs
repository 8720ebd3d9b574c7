//! The output file of valgrind.

use std::collections::HashMap;

use super::operation::BATCH;

/// The counters of an operation.
#[derive(Debug, Clone, Copy, Default)]
pub struct Profile {
    pub instructions: f64,
    /// Misses of the nearest data cache (L1).
    pub nearest: f64,
    /// Misses of the last-level cache by data accesses.
    pub last: f64,
}

impl Profile {
    /// Reads the counters of a batch of operations, and divides them by its size.
    pub fn read(profile: &str) -> Self {
        let line = |key| {
            let line = profile.lines().find_map(|line| line.strip_prefix(key)).unwrap();
            line.split_whitespace()
        };
        // Valgrind leaves out zeros at the end of a line.
        let counts: HashMap<&str, f64> =
            line("events:").zip(line("totals:").map(|count| count.parse().unwrap())).collect();
        let each = |events: &[&str]| {
            events.iter().map(|event| counts.get(event).unwrap_or(&0.0)).sum::<f64>() / BATCH as f64
        };
        Self {
            instructions: each(&["Ir"]),
            nearest: each(&["D1mr", "D1mw"]),
            last: each(&["DLmr", "DLmw"]),
        }
    }

    pub fn mean(profiles: &[Self]) -> Self {
        let mean = |value: fn(&Self) -> f64| {
            profiles.iter().map(value).sum::<f64>() / profiles.len() as f64
        };
        Self {
            instructions: mean(|profile| profile.instructions),
            nearest: mean(|profile| profile.nearest),
            last: mean(|profile| profile.last),
        }
    }
}
