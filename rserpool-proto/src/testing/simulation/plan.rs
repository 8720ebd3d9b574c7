//! The plan of a run, drawn from its seed before anything runs.

use std::fmt;
use std::time::Duration;

use crate::Compatibility;
use crate::wire::{PolicyParameters, Ppid, TransportProtocol};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, RngExt};

use super::network::Weather;

/// Means by which registrars are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Discovery {
    /// The addresses of all registrars are configured on all hosts.
    Configured,
    /// One or two registrars are configured on all hosts, and these know the others.
    WellKnown(usize),
    /// No registrar is configured: they announce themselves.
    Multicast,
    /// One registrar is configured on all hosts, and all announce themselves.
    Both,
}

impl Discovery {
    pub(super) fn multicast(self) -> bool {
        matches!(self, Self::Multicast | Self::Both)
    }

    /// Returns the number of the `registrars` that are configured on all hosts.
    pub(super) fn known(self, registrars: usize) -> usize {
        match self {
            Self::Configured => registrars,
            Self::WellKnown(known) => known.min(registrars),
            Self::Multicast => 0,
            Self::Both => 1,
        }
    }
}

/// The faults that can be injected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fault {
    /// A process is killed; its host closes its connections.
    Kill,
    /// A host loses its power; its connections are not closed.
    PowerLoss,
    /// A process that was killed, or a host without power, starts again.
    Restart,
    /// A process stops for a while.
    Pause,
    /// A connection breaks.
    Break,
    /// All packets from one host to another are lost, but not those in the other direction.
    OneWayCut,
    /// The hosts are partitioned into two groups.
    Partition,
    /// All packets get through again.
    Mend,
    /// A registrar leaves the other registrars gracefully.
    Leave,
}

impl Fault {
    pub(super) const ALL: [Self; 9] = [
        Self::Kill,
        Self::PowerLoss,
        Self::Restart,
        Self::Pause,
        Self::Break,
        Self::OneWayCut,
        Self::Partition,
        Self::Mend,
        Self::Leave,
    ];
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kill => "process killed",
            Self::PowerLoss => "host without power",
            Self::Restart => "started again",
            Self::Pause => "process stopped for a while",
            Self::Break => "connection broken",
            Self::OneWayCut => "packets dropped in one direction",
            Self::Partition => "network partitioned",
            Self::Mend => "network mended",
            Self::Leave => "registrar left",
        })
    }
}

/// The kind of a pool's policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Selection {
    RoundRobin,
    LeastUsed,
    Weighted,
}

impl Selection {
    pub(super) fn draw(rng: &mut StdRng) -> Self {
        let all = [Self::RoundRobin, Self::LeastUsed, Self::Weighted];
        *all.choose(rng).expect("there are some")
    }

    /// Draws the policy of an element of the pool.
    pub(super) fn policy(self, rng: &mut StdRng) -> PolicyParameters {
        match self {
            Self::RoundRobin => PolicyParameters::round_robin(),
            Self::LeastUsed => PolicyParameters::least_used(rng.next_u32()),
            Self::Weighted => {
                let weight = rng.random_range(1..100);
                format!("WeightedRandom:{weight}").parse().expect("a policy")
            }
        }
    }
}

/// Parameters of a run.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) protocol: TransportProtocol,
    pub(super) discovery: Discovery,
    pub(super) compatibility: Compatibility,
    pub(super) registrars: usize,
    pub(super) elements: usize,
    pub(super) users: usize,
    pub(super) pools: Vec<Selection>,
    /// True if elements of one pool have policies of different kinds. A registrar accepts only one
    /// kind in a pool, and different registrars may have accepted different kinds.
    pub(super) quarrel: bool,
    pub(super) weather: Weather,
    /// The protocol of the hosts that send arbitrary messages, if there are any.
    pub(super) adversary: Option<Ppid>,
    /// Maximum error of a clock's rate, in parts per million.
    pub(super) skew: u32,
    /// Kinds of faults in this run.
    pub(super) faults: Vec<Fault>,
    /// The number of rounds of faults.
    pub(super) rounds: usize,
    pub(super) faults_each: usize,
    /// Maximum time between two faults.
    pub(super) pause: Duration,
}

impl Plan {
    pub(super) fn draw(rng: &mut StdRng) -> Self {
        let protocol =
            if rng.random_bool(0.6) { TransportProtocol::Sctp } else { TransportProtocol::Tcp };
        let discovery = match rng.random_range(0..4) {
            0 => Discovery::Configured,
            1 => Discovery::WellKnown(rng.random_range(1..=2)),
            2 => Discovery::Multicast,
            _ => Discovery::Both,
        };
        let compatibility = match rng.random_range(0..8) {
            0 => Compatibility::Rfc,
            1 => Compatibility::Rsplib,
            _ => Compatibility::All,
        };
        let pools = (0..rng.random_range(1..=3)).map(|_| Selection::draw(rng)).collect();
        // Each run has only some kinds of faults, because some errors do not show when all kinds
        // are mixed.
        let mut faults: Vec<_> = Fault::ALL.into_iter().filter(|_| rng.random_bool(0.6)).collect();
        if faults.is_empty() {
            faults.push(Fault::Kill);
        }
        Self {
            adversary: None,
            protocol,
            discovery,
            compatibility,
            registrars: rng.random_range(1..=5),
            elements: rng.random_range(1..=10),
            users: rng.random_range(0..=3),
            pools,
            quarrel: rng.random_bool(0.1),
            weather: weather(protocol, rng),
            skew: *[0, 100, 10_000, 50_000].choose(rng).expect("there are some"),
            faults,
            rounds: rng.random_range(1..=3),
            faults_each: rng.random_range(1..=12),
            pause: Duration::from_millis(rng.random_range(10..8_000)),
        }
    }
}

fn weather(protocol: TransportProtocol, rng: &mut StdRng) -> Weather {
    let fastest = Duration::from_micros(rng.random_range(20..20_000));
    let slowest = fastest + Duration::from_micros(rng.random_range(1..50_000));
    let seconds = Duration::from_secs_f64;
    // These are the timeouts of this project's transports: SCTP gives up after some seconds, TCP
    // after half a minute.
    let (silence, connecting) = if protocol == TransportProtocol::Tcp {
        (seconds(10.0)..seconds(35.0), seconds(30.0))
    } else {
        (seconds(1.5)..seconds(4.0), seconds(4.0))
    };
    Weather {
        latency: fastest..slowest,
        silence,
        connecting,
        retransmission: seconds(2.0),
        loss: rng.random_range(0.0..0.3),
        duplication: rng.random_range(0.0..0.2),
        disorder: Duration::from_millis(rng.random_range(1..2_000)),
    }
}
