//! Counters of a registrar.

use super::{Event, Limit, RemovalReason};
use crate::access::AccessRole;

/// Numbers of events and messages of a registrar since it started.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct RegistrarCounters {
    /// Elements that registered and joined a pool. Renewals are not counted.
    pub registrations: u64,
    /// Registrations that were renewed.
    pub renewals: u64,
    /// Registrations that were refused.
    pub refusals: u64,
    /// Resolutions that were requested.
    pub resolutions: u64,
    /// Resolutions that were answered with an error: the pool is unknown, the user is denied, or its
    /// host asks too often.
    pub failed_resolutions: u64,
    /// Keep-alives that were sent to elements.
    pub keep_alives: u64,
    /// Keep-alives that were answered.
    pub keep_alive_acks: u64,
    /// Reports of users that an element is unreachable.
    pub reports: u64,
    /// Messages of other registrars.
    pub enrp_messages: u64,
    /// Registrars whose elements this one took over.
    pub takeovers: u64,
    /// Peers that violated ASAP or ENRP.
    pub violations: u64,
    removals: [u64; RemovalReason::ALL.len()],
    denials: [u64; AccessRole::ALL.len()],
    limit_hits: [u64; Limit::ALL.len()],
}

impl RegistrarCounters {
    /// Returns the number of elements that were removed for a reason.
    #[must_use]
    pub fn removals(&self, reason: RemovalReason) -> u64 {
        self.removals[reason as usize]
    }

    /// Returns the number of connections and requests that were denied since their sender does not
    /// have this role. A connection that neither an element nor a user may make counts for both. A
    /// host that is refused before a TLS handshake is not counted.
    #[must_use]
    pub fn denials(&self, role: AccessRole) -> u64 {
        self.denials[role as usize]
    }

    /// Returns how often a limit was reached.
    #[must_use]
    pub fn limit_hits(&self, limit: Limit) -> u64 {
        self.limit_hits[limit as usize]
    }

    /// Counts an event that the registrar reports.
    pub(super) fn count(&mut self, event: &Event) {
        match event {
            Event::Registered(..) => self.registrations += 1,
            Event::Reregistered(_) => self.renewals += 1,
            Event::Refused(..) => self.refusals += 1,
            Event::Removed(_, reason, _) => self.removals[*reason as usize] += 1,
            Event::TookOver { .. } => self.takeovers += 1,
            Event::Misbehaved { .. } => self.violations += 1,
            Event::Denied(denial) => self.denials[denial.role as usize] += 1,
            Event::LimitHit(limit, _) => self.limit_hits[*limit as usize] += 1,
            Event::NotTaken(..)
            | Event::PeerFound(..)
            | Event::PeerConnected(..)
            | Event::PeerLost(..)
            | Event::PeerSilent(_)
            | Event::PeerDead(_)
            | Event::Near(..)
            | Event::Drained(_)
            | Event::Undrained(_)
            | Event::Joined { .. }
            | Event::Ready { .. }
            | Event::Behind { .. }
            | Event::Crowded { .. }
            | Event::TakenOver { .. }
            | Event::Left => {}
        }
    }
}
