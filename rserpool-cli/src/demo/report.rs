//! The output of the demonstration: events as they happen, and a summary.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Write;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::client::{News, Tally};
use crate::process::ServerProcess;

/// Standard output, on which events are printed if `visible` is set.
#[derive(Debug)]
pub(super) struct Screen {
    visible: bool,
    start: Instant,
}

impl Screen {
    pub(super) fn new(visible: bool) -> Self {
        Self { visible, start: Instant::now() }
    }

    pub(super) fn say(&self, text: &str) {
        self.say_at(Instant::now(), text);
    }

    pub(super) fn joined(&self, server: &ServerProcess) {
        let (identifier, process) = (&server.identifier, server.id());
        self.say(&format!("server {identifier} joined the pool (process {process})"));
    }

    fn say_at(&self, time: Instant, text: &str) {
        if self.visible {
            // Ignore errors: nobody may read the output any more.
            let time = (time - self.start).as_secs_f64();
            let _ = writeln!(std::io::stdout(), "{time:8.3} s  {text}");
        }
    }
}

/// The data for the summary.
#[derive(Debug, Default)]
pub(super) struct Report {
    tallies: BTreeMap<usize, Tally>,
    serving: BTreeMap<usize, String>,
    kills: BTreeMap<String, Instant>,
    /// Times from a kill to the first answer of the next server.
    interruptions: Vec<Duration>,
    registrars_killed: u64,
    /// Times from the kill of a registrar to the first resolution after it.
    resolutions: Vec<Duration>,
    broken: Vec<String>,
}

impl Report {
    /// Returns the servers that have sessions.
    pub(super) fn serving(&self) -> Vec<String> {
        self.serving.values().cloned().collect()
    }

    pub(super) fn killed(&mut self, identifier: &str, screen: &Screen, process: u32) {
        let served: Vec<_> = self
            .serving
            .iter()
            .filter(|(_, by)| *by == identifier)
            .map(|(session, _)| session.to_string())
            .collect();
        let served = match served.as_slice() {
            [] => "it served nobody".to_owned(),
            [one] => format!("it served session {one}"),
            many => format!("it served sessions {}", many.join(" and ")),
        };
        screen.say(&format!("KILL    server {identifier} (process {process}): {served}"));
        self.kills.insert(identifier.to_owned(), Instant::now());
    }

    pub(super) fn take(&mut self, news: News, screen: &Screen) {
        match news {
            News::Served { session, by } => {
                screen.say(&format!("session {session} is served by {by}"));
                self.serving.insert(session, by);
            }
            News::FailedOver { session, from, to, count, answered, noticed } => {
                let killed = self.kills.get(&from).copied().unwrap_or(noticed);
                let without = answered - killed;
                let milliseconds = without.as_secs_f64() * 1000.0;
                screen.say_at(
                    answered,
                    &format!(
                        "session {session}: {from} -> {to}, {milliseconds:.1} ms without a \
                         server, the count goes on at {count}"
                    ),
                );
                self.interruptions.push(without);
                self.serving.insert(session, to);
            }
            News::Progress { session, tally } => {
                self.tallies.insert(session, tally);
            }
            News::Broken { session, error } => {
                screen.say(&format!("session {session} BROKE: {error}"));
                self.broken.push(format!("session {session}: {error}"));
            }
        }
    }

    fn total(&self, part: fn(&Tally) -> u64) -> u64 {
        self.tallies.values().map(part).sum()
    }

    fn lost(&self) -> u64 {
        let unanswered = self.total(|tally| tally.sent) - self.total(|tally| tally.answered);
        unanswered.max(self.total(|tally| tally.missed))
    }

    pub(super) fn is_flawless(&self) -> bool {
        self.lost() == 0
            && self.total(|tally| tally.answered_twice) == 0
            && self.broken.is_empty()
            && self.total(|tally| tally.answered) > 0
    }

    pub(super) fn registrar_killed(&mut self) {
        self.registrars_killed += 1;
    }

    pub(super) fn resolved(&mut self, after: Duration, screen: &Screen) {
        let milliseconds = after.as_secs_f64() * 1000.0;
        screen.say(&format!("the pool is resolved, {milliseconds:.1} ms after that"));
        self.resolutions.push(after);
    }

    pub(super) fn json(&self) -> Value {
        let spread = |durations: &[Duration]| {
            let rounded = |milliseconds: f64| (milliseconds * 1000.0).round() / 1000.0;
            let spread = spread(durations);
            let (median, worst) = spread.map(|(m, w)| (rounded(m), rounded(w))).unzip();
            json!({ "median": median, "worst": worst })
        };
        json!({
            "sent": self.total(|tally| tally.sent),
            "answered": self.total(|tally| tally.answered),
            "answered_twice": self.total(|tally| tally.answered_twice),
            "lost": self.lost(),
            "failovers": self.interruptions.len(),
            "failover_ms": spread(&self.interruptions),
            "registrars_killed": self.registrars_killed,
            "resolved_again_ms": spread(&self.resolutions),
        })
    }
}

/// Returns the median and the maximum of the durations, in milliseconds.
fn spread(durations: &[Duration]) -> Option<(f64, f64)> {
    let mut sorted: Vec<_> =
        durations.iter().map(|duration| duration.as_secs_f64() * 1000.0).collect();
    sorted.sort_by(f64::total_cmp);
    let worst = *sorted.last()?;
    let middle = sorted.len() / 2;
    let median = match sorted.len() % 2 {
        0 => f64::midpoint(sorted[middle - 1], sorted[middle]),
        _ => sorted[middle],
    };
    Some((median, worst))
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f)?;
        writeln!(f, "requests sent           {:8}", self.total(|tally| tally.sent))?;
        writeln!(f, "         answered       {:8}", self.total(|tally| tally.answered))?;
        writeln!(f, "         answered twice {:8}", self.total(|tally| tally.answered_twice))?;
        writeln!(f, "         lost           {:8}", self.lost())?;
        writeln!(f, "failovers               {:8}", self.interruptions.len())?;
        if let Some((median, worst)) = spread(&self.interruptions) {
            writeln!(
                f,
                "  from SIGKILL to the next answer: median {median:.1} ms, worst {worst:.1} ms"
            )?;
        }
        writeln!(f, "registrars killed       {:8}", self.registrars_killed)?;
        if let Some((median, worst)) = spread(&self.resolutions) {
            writeln!(
                f,
                "  from SIGKILL to the next resolution: median {median:.1} ms, worst {worst:.1} ms"
            )?;
        }
        for broken in &self.broken {
            writeln!(f, "BROKEN {broken}")?;
        }
        let verdict = if self.is_flawless() {
            "No request was lost, none was counted twice."
        } else {
            "Requests were lost or counted twice."
        };
        write!(f, "{verdict}")
    }
}
