//! Measures the shares of three servers in the sessions of pool users, for all built-in policies,
//! and compares them with RFC 5356 and rsplib's extensions.

use std::fmt::Write;
use std::time::Duration;

use crate::registrar::{Limits, RegistrarConfig};
use crate::user::{ResolveOptions, UserConfig};
use crate::wire::{PolicyParameters, RegistrarId, RegistrationLife};
use crate::{Registrar, User};

use crate::testing::by_hand::{registration, send_asap};
use crate::testing::echo_pool::{handle, hunt, resolve_with};
use crate::testing::world::World;

/// The number of sessions, divided among the users.
pub const SESSIONS: u32 = 1000;

/// A policy, its values for three servers, and the expected shares of the servers in the sessions.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// The policy and values of each server.
    pub servers: [&'static str; 3],
    /// The expected shares of the servers in the sessions, relative to each other.
    pub parts: [f64; 3],
}

const fn case(servers: [&'static str; 3], parts: [f64; 3]) -> Case {
    Case { servers, parts }
}

/// One or more cases for each built-in policy.
pub const CASES: [Case; 16] = [
    case(["RoundRobin", "RoundRobin", "RoundRobin"], [1.0, 1.0, 1.0]),
    case(["WeightedRoundRobin:1", "WeightedRoundRobin:2", "WeightedRoundRobin:3"], [1.0, 2.0, 3.0]),
    case(["Random", "Random", "Random"], [1.0, 1.0, 1.0]),
    case(["WeightedRandom:1", "WeightedRandom:2", "WeightedRandom:3"], [1.0, 2.0, 3.0]),
    case(["Priority:1", "Priority:9", "Priority:5"], [0.0, 1.0, 0.0]),
    // The servers with the lowest load are used in turn.
    case(["LeastUsed:10%", "LeastUsed:10%", "LeastUsed:50%"], [1.0, 1.0, 0.0]),
    // No server renews its registration, so degradation makes the loads of all grow together.
    case(
        [
            "LeastUsedDegradation:0:1000",
            "LeastUsedDegradation:0:2000",
            "LeastUsedDegradation:0:3000",
        ],
        [6.0, 3.0, 2.0],
    ),
    // The server with the lowest sum of load and degradation is selected.
    case(
        ["PriorityLeastUsed:10%:25%", "PriorityLeastUsed:5%:30%", "PriorityLeastUsed:0:40%"],
        [1.0, 1.0, 0.0],
    ),
    // Shares are proportional to the unused capacity.
    case(
        ["RandomizedLeastUsed:50%", "RandomizedLeastUsed:75%", "RandomizedLeastUsed:0"],
        [2.0, 1.0, 4.0],
    ),
    case(
        [
            "PriorityLeastUsedDegradation:0:1000",
            "PriorityLeastUsedDegradation:0:2000",
            "PriorityLeastUsedDegradation:0:3000",
        ],
        [6.0, 3.0, 2.0],
    ),
    // Shares are proportional to the unused capacity with one more session.
    case(
        [
            "RandomizedPriorityLeastUsed:25%:25%",
            "RandomizedPriorityLeastUsed:50%:25%",
            "RandomizedPriorityLeastUsed:0:0",
        ],
        [2.0, 1.0, 4.0],
    ),
    // The degradations are too small to matter.
    case(
        [
            "RandomizedLeastUsedDegradation:50%:1",
            "RandomizedLeastUsedDegradation:75%:1",
            "RandomizedLeastUsedDegradation:0:1",
        ],
        [2.0, 1.0, 4.0],
    ),
    case(
        [
            "RandomizedPriorityLeastUsedDegradation:50%:1",
            "RandomizedPriorityLeastUsedDegradation:75%:1",
            "RandomizedPriorityLeastUsedDegradation:0:1",
        ],
        [2.0, 1.0, 4.0],
    ),
    // The share of a server is its weight minus its delay penalty.
    case(
        [
            "WeightedRandomDPF:1000:5:100",
            "WeightedRandomDPF:1000:0:100",
            "WeightedRandomDPF:2500:10:100",
        ],
        [1.0, 2.0, 3.0],
    ),
    // The server with the lowest sum of load and delay penalty is selected.
    case(
        ["LeastUsedDPF:1000:5:100", "LeastUsedDPF:1500:0:100", "LeastUsedDPF:0:20:100"],
        [1.0, 1.0, 0.0],
    ),
    case(
        [
            "LeastUsedDegradationDPF:0:1000:5:100",
            "LeastUsedDegradationDPF:500:2000:0:100",
            "LeastUsedDegradationDPF:0:3000:5:100",
        ],
        [6.0, 3.0, 2.0],
    ),
];

/// The pool users that open the sessions.
#[derive(Debug, Clone, Copy)]
pub struct Audience {
    /// The number of users.
    pub users: u32,
    /// True if each user resolves the pool once and selects the servers for all of its sessions
    /// from the cached answer.
    pub cached: bool,
}

/// The groups of pool users for which [`table`] has a column.
pub const AUDIENCES: [Audience; 4] = [
    Audience { users: 1, cached: false },
    Audience { users: 30, cached: false },
    Audience { users: 1, cached: true },
    Audience { users: 30, cached: true },
];

impl Case {
    /// Returns the name of the policy.
    #[must_use]
    pub fn policy(&self) -> &str {
        self.servers[0].split(':').next().unwrap_or_default()
    }

    /// Returns the values of the servers.
    fn values(&self) -> String {
        let values = self.servers.map(|text| text.split_once(':').map_or("", |(_, rest)| rest));
        values.join(", ").trim_matches([',', ' ']).to_owned()
    }

    /// Returns the expected number of [`SESSIONS`] for each server.
    #[must_use]
    pub fn expected(&self) -> [f64; 3] {
        let all: f64 = self.parts.iter().sum();
        self.parts.map(|part| part / all * f64::from(SESSIONS))
    }

    /// Returns the number of sessions that go to each server.
    #[must_use]
    pub fn count(&self, audience: Audience, seed: u64) -> [u32; 3] {
        let mut world = World::default();
        let limits = Limits::default().resolutions(1_000_000);
        let config = RegistrarConfig::default().identifier(RegistrarId(1)).limits(limits);
        let registrar = world.registrar(Registrar::new(config.ready_after(Duration::ZERO), seed));
        for (identifier, values) in (1..).zip(self.servers) {
            let on = world.connect(registrar);
            let mut registration = registration(&handle().to_string(), identifier);
            registration.pool_element.registration_life = RegistrationLife::INFINITE;
            registration.pool_element.policy =
                values.parse::<PolicyParameters>().expect("a policy");
            send_asap(&mut world, on, registration);
        }
        let users: Vec<_> = (0..audience.users)
            .map(|user| {
                let seed = seed << 32 | u64::from(user);
                world.user(User::new(UserConfig::new(hunt(&[registrar])), seed))
            })
            .collect();
        world.run(Duration::ZERO);
        let max_age = if audience.cached { Duration::MAX } else { Duration::ZERO };
        let options = ResolveOptions::default().max_age(max_age);
        let mut counts = [0; 3];
        for user in users.iter().cycle().take(SESSIONS as usize) {
            let answer = resolve_with(&mut world, *user, &options).expect("there is a pool");
            counts[answer[0].0 as usize - 1] += 1;
        }
        counts
    }
}

/// Returns Pearson's statistic of the counts, for the expected numbers that are not 0; infinite if
/// a count is not 0 where 0 is expected.
#[must_use]
pub fn chi_squared(counts: &[u32], expected: &[f64]) -> f64 {
    let cells = counts.iter().zip(expected);
    cells
        .map(|(count, expected)| match (*count, *expected) {
            (0, 0.0) => 0.0,
            (_, 0.0) => f64::INFINITY,
            (count, expected) => (f64::from(count) - expected).powi(2) / expected,
        })
        .sum()
}

/// Returns the results for all cases and audiences as a table in Markdown.
#[must_use]
pub fn table() -> String {
    let mut table = "| policy | values of the three servers | expected \
        | one user | thirty users | one user, one answer | thirty users, one answer each |\n\
        |---|---|---|---|---|---|---|\n"
        .to_owned();
    for case in CASES {
        let expected = case.expected().map(|number| format!("{number:.0}")).join(" ");
        let _ = write!(table, "| {} | {} | {expected} |", case.policy(), case.values());
        for audience in AUDIENCES {
            let counts = case.count(audience, 1).map(|count| count.to_string()).join(" ");
            let _ = write!(table, " {counts} |");
        }
        table.push('\n');
    }
    table
}
