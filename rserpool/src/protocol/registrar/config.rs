//! What a registrar can be told.

use std::time::Duration;

use crate::policy::Policies;
use crate::protocol::Compatibility;
use crate::wire::{RegistrarId, TransportAddress};

/// The settings of a registrar.
#[derive(Debug, Clone)]
pub struct RegistrarConfig {
    pub(super) identifier: RegistrarId,
    pub(super) seed: u64,
    pub(super) policies: Policies,
    pub(super) capacity: usize,
    pub(super) default_items: u32,
    pub(super) max_items: u32,
    pub(super) max_bad_pe_reports: usize,
    pub(super) keep_alive_interval: Duration,
    pub(super) keep_alive_timeout: Duration,
    pub(super) first_message_timeout: Duration,
    pub(super) announce: Option<Announce>,
    pub(super) compatibility: Compatibility,
    pub(super) enrp: Option<TransportAddress>,
}

#[derive(Debug, Clone)]
pub(super) struct Announce {
    pub(super) transports: Vec<TransportAddress>,
    pub(super) interval: Duration,
    pub(super) outdate: Duration,
}

impl RegistrarConfig {
    /// The defaults for a registrar called `identifier`, which must not be zero and should be
    /// drawn at random (RFC 5353 section 3.2.1), whose random choices follow from `seed`.
    #[must_use]
    pub fn new(identifier: RegistrarId, seed: u64) -> Self {
        Self {
            identifier,
            seed,
            policies: Policies::default(),
            capacity: 1_000_000,
            default_items: 32,
            max_items: 128,
            max_bad_pe_reports: 3,
            keep_alive_interval: Duration::from_secs(5),
            keep_alive_timeout: Duration::from_secs(5),
            first_message_timeout: Duration::from_secs(60),
            announce: None,
            compatibility: Compatibility::default(),
            enrp: None,
        }
    }

    /// The policies that the registrar selects by: the built-in ones.
    #[must_use]
    pub fn policies(mut self, policies: Policies) -> Self {
        self.policies = policies;
        self
    }

    /// The most pool elements: one million, ours. More are refused for lack of resources.
    #[must_use]
    pub fn capacity(mut self, elements: usize) -> Self {
        self.capacity = elements;
        self
    }

    /// How many elements a resolution returns that asks for no number, 32, and the most that
    /// any returns, 128: ours, for RFC 5352 section 3.3 would list all. rsplib has 3 and 128.
    #[must_use]
    pub fn items(mut self, default: u32, max: u32) -> Self {
        (self.default_items, self.max_items) = (default, max);
        self
    }

    /// How many pool users may report an element as unreachable between two of its
    /// registrations, though it answers keep-alives: MAX-BAD-PE-REPORT, 3 (RFC 5353 section
    /// 4.2). Each connection of a user counts once.
    #[must_use]
    pub fn max_bad_pe_reports(mut self, reports: usize) -> Self {
        self.max_bad_pe_reports = reports;
        self
    }

    /// How often elements are asked whether they are alive, 5 s, varied by 50 % (RFC 5352
    /// section 3.5), and how long they may take to answer, 5 s. Both values are rsplib's.
    #[must_use]
    pub fn keep_alive(mut self, interval: Duration, timeout: Duration) -> Self {
        (self.keep_alive_interval, self.keep_alive_timeout) = (interval, timeout);
        self
    }

    /// How long who connects may take to send a message that makes sense: 60 s, ours. An element
    /// of rsplib that finds another registrar says nothing for 30 s.
    #[must_use]
    pub fn first_message_timeout(mut self, timeout: Duration) -> Self {
        self.first_message_timeout = timeout;
        self
    }

    /// With which implementations to be compatible: all of them.
    #[must_use]
    pub fn compatibility(mut self, profile: Compatibility) -> Self {
        self.compatibility = profile;
        self
    }

    /// Where other registrars reach this one (RFC 5353): nowhere, so that it stays alone.
    #[must_use]
    pub fn enrp(mut self, transport: TransportAddress) -> Self {
        self.enrp = Some(transport);
        self
    }

    pub(crate) fn enrp_transport(&self) -> Option<&TransportAddress> {
        self.enrp.as_ref()
    }

    pub(crate) fn profile(&self) -> Compatibility {
        self.compatibility
    }

    pub(crate) fn announces(&self) -> bool {
        self.announce.is_some()
    }

    /// Announces the registrar at `transports` every T6-Serverannounce, 1 s, times the number
    /// of registrars heard; those not heard for T7-ENRPoutdate, 5 s, do not count (RFC 5352
    /// sections 3.6 and 7.1). Without this there are no announcements.
    #[must_use]
    pub fn announce(mut self, transports: impl IntoIterator<Item = TransportAddress>) -> Self {
        self.announce = Some(Announce {
            transports: transports.into_iter().collect(),
            interval: Duration::from_secs(1),
            outdate: Duration::from_secs(5),
        });
        self
    }
}
