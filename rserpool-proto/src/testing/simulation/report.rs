//! Statistics of runs.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::plan::Fault;

/// Statistics of one run or of many.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    runs: u64,
    pub(super) faults: BTreeMap<Fault, u64>,
    pub(super) simulated: Duration,
    pub(super) messages: u64,
    pub(super) steps: u64,
    /// Time from the last fault until the registrars agree, one for each run.
    pub(super) settled: Vec<Duration>,
    /// The numbers of registrars, elements and users, summed over the runs.
    pub(super) sizes: [u64; 3],
    /// The number of runs with each property, such as a transport or a way of discovery.
    pub(super) kinds: BTreeMap<String, u64>,
}

impl Tally {
    pub(super) fn one(kinds: impl IntoIterator<Item = String>, sizes: [u64; 3]) -> Self {
        let kinds = kinds.into_iter().map(|kind| (kind, 1)).collect();
        Self { runs: 1, kinds, sizes, ..Self::default() }
    }

    /// Adds the numbers of other runs.
    pub fn add(&mut self, other: Self) {
        self.runs += other.runs;
        for (fault, count) in other.faults {
            *self.faults.entry(fault).or_default() += count;
        }
        for (kind, count) in other.kinds {
            *self.kinds.entry(kind).or_default() += count;
        }
        self.simulated += other.simulated;
        self.messages += other.messages;
        self.steps += other.steps;
        self.settled.extend(other.settled);
        for (size, count) in self.sizes.iter_mut().zip(other.sizes) {
            *size += count;
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [registrars, elements, users] = self.sizes;
        let hours = self.simulated.as_secs_f64() / 3600.0;
        writeln!(
            f,
            "{} runs: {registrars} registrars, {elements} elements, {users} users;",
            self.runs
        )?;
        writeln!(f, "{hours:.1} hours, {} messages, {} steps", self.messages, self.steps)?;
        writeln!(f, "\nruns with")?;
        for (kind, count) in &self.kinds {
            writeln!(f, "  {count:>9} {kind}")?;
        }
        writeln!(f, "\nfaults")?;
        for (fault, count) in &self.faults {
            writeln!(f, "  {count:>9} {fault}")?;
        }
        let mut settled = self.settled.clone();
        settled.sort_unstable();
        if let Some(last) = settled.last() {
            let at = |part: usize| settled[(settled.len() - 1) * part / 1000];
            writeln!(
                f,
                "\ntime from the last fault until all registrars had the correct state\n  \
                 {:.0?} (half of {} times), {:.0?} (99 %), {:.0?} (99.9 %), {last:.0?} (all)",
                at(500),
                settled.len(),
                at(990),
                at(999),
            )?;
        }
        Ok(())
    }
}
