//! Configuration of a registrar.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use super::Limits;
use crate::Compatibility;
use crate::access::AccessRules;
use crate::policy::Policies;
use crate::timers::bounded;
use crate::wire::{RegistrarId, TransportAddress};

/// The settings of a registrar.
#[derive(Debug, Clone)]
pub struct RegistrarConfig {
    /// The registrar's identifier. Zero: it is drawn at random.
    pub(super) identifier: RegistrarId,
    pub(super) policies: Policies,
    pub(super) limits: Limits,
    pub(super) access: AccessRules,
    pub(super) default_items: u32,
    pub(super) max_items: u32,
    pub(super) max_increment: Option<usize>,
    pub(super) distance_step: Duration,
    pub(super) max_bad_pe_reports: usize,
    pub(super) keep_alive_interval: Duration,
    pub(super) keep_alive_timeout: Duration,
    pub(super) first_message_timeout: Duration,
    pub(super) ready_after: Duration,
    /// Transports for announcements. None disables announcements.
    pub(super) announced: Option<Vec<TransportAddress>>,
    pub(super) announce_interval: Duration,
    pub(super) announce_outdate: Duration,
    pub(super) compatibility: Compatibility,
    pub(super) enrp: Option<TransportAddress>,
    pub(super) peers: Vec<TransportAddress>,
    pub(super) multicast_presence: bool,
    /// The configured timers with which registrars supervise each other. `None`: the compatibility
    /// profile decides.
    heartbeat_cycle: Option<Duration>,
    max_time_last_heard: Option<Duration>,
    max_time_no_response: Option<Duration>,
    pub(super) mentor_discovery: Duration,
    pub(super) takeover_expiry: Duration,
}

/// The timers with which registrars supervise each other (RFC 5353 section 4.2).
#[derive(Debug, Clone, Copy)]
pub(super) struct Heartbeat {
    pub(super) cycle: Duration,
    pub(super) max_last_heard: Duration,
    pub(super) max_no_response: Duration,
}

impl Default for RegistrarConfig {
    fn default() -> Self {
        Self {
            identifier: RegistrarId(0),
            policies: Policies::default(),
            limits: Limits::default(),
            access: AccessRules::default(),
            default_items: 32,
            max_items: 128,
            max_increment: None,
            distance_step: Duration::from_millis(50),
            max_bad_pe_reports: 3,
            keep_alive_interval: Duration::from_secs(5),
            keep_alive_timeout: Duration::from_secs(5),
            first_message_timeout: Duration::from_secs(10),
            ready_after: Duration::from_secs(3),
            announced: None,
            announce_interval: Duration::from_secs(1),
            announce_outdate: Duration::from_secs(5),
            compatibility: Compatibility::default(),
            enrp: None,
            peers: Vec::new(),
            multicast_presence: false,
            heartbeat_cycle: None,
            max_time_last_heard: None,
            max_time_no_response: None,
            mentor_discovery: Duration::from_secs(5),
            takeover_expiry: Duration::from_secs(5),
        }
    }
}

impl RegistrarConfig {
    /// Sets the registrar's identifier. Default: drawn at random (RFC 5353 section 3.2.1), also if
    /// `identifier` is zero.
    #[must_use]
    pub fn identifier(mut self, identifier: RegistrarId) -> Self {
        self.identifier = identifier;
        self
    }

    /// Sets the policies that the registrar selects by. Default: the built-in ones.
    #[must_use]
    pub fn policies(mut self, policies: Policies) -> Self {
        self.policies = policies;
        self
    }

    /// Sets the limits on the resources of one host and of all hosts together.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets the rules on who may use the registrar, and in which role. Default:
    /// [`AccessRules::default`]. Configured peers need the role of a registrar like others.
    #[must_use]
    pub fn access(mut self, rules: AccessRules) -> Self {
        self.access = rules;
        self
    }

    /// Returns the rules on who may use the registrar.
    #[must_use]
    pub fn access_rules(&self) -> &AccessRules {
        &self.access
    }

    /// Sets the number of elements of an answer that count as selected, for all policies
    /// (MaxIncrement in rsplib). Default: none, so that each policy decides. The built-in policies
    /// count one element. With [`Compatibility::Rfc`], Least Used with Degradation counts all
    /// elements of an answer (RFC 5356 section 5.2.2).
    #[must_use]
    pub fn max_increment(mut self, elements: Option<usize>) -> Self {
        self.max_increment = elements;
        self
    }

    /// Sets the granularity of the elements' distances, for the policies with a delay penalty
    /// factor. Default: 50 ms (rsplib).
    #[must_use]
    pub fn distance_step(mut self, step: Duration) -> Self {
        self.distance_step = bounded(step);
        self
    }

    /// Sets the number of elements in the answer to a resolution that asks for no number. Default:
    /// 32. Not from the RFCs: RFC 5352 section 3.3 would list all; rsplib has 3.
    #[must_use]
    pub fn default_items(mut self, elements: u32) -> Self {
        self.default_items = elements;
        self
    }

    /// Sets the maximum number of elements in the answer to a resolution. Default: 128 (rsplib).
    #[must_use]
    pub fn max_items(mut self, elements: u32) -> Self {
        self.max_items = elements;
        self
    }

    /// Sets MAX-BAD-PE-REPORT: if users on more hosts than this report an element as unreachable,
    /// it has only a second left to answer a keep-alive. Default: 3 (RFC 5353 section 4.2). The
    /// answer clears the reports. An element that answers is not removed, however many hosts report
    /// it (RFC 5352 section 3.5).
    #[must_use]
    pub fn max_bad_pe_reports(mut self, reports: usize) -> Self {
        self.max_bad_pe_reports = reports;
        self
    }

    /// Sets the time between two keep-alives to an element, which is varied by 50 % (RFC 5352
    /// section 3.5). At least 10 ms. Default: 5 s (rsplib).
    #[must_use]
    pub fn keep_alive_interval(mut self, interval: Duration) -> Self {
        self.keep_alive_interval = bounded(interval).max(Duration::from_millis(10));
        self
    }

    /// Sets the time within which an element has to answer a keep-alive. Default: 5 s (rsplib).
    #[must_use]
    pub fn keep_alive_timeout(mut self, timeout: Duration) -> Self {
        self.keep_alive_timeout = bounded(timeout);
        self
    }

    /// Sets the time within which another registrar that connects has to send its first message.
    /// Default: 10 s. Not from the RFCs: a registrar sends a message as soon as it is connected.
    /// Elements and users may be silent; see [`Limits`].
    #[must_use]
    pub fn first_message_timeout(mut self, timeout: Duration) -> Self {
        self.first_message_timeout = bounded(timeout);
        self
    }

    /// Sets the time for which the registrar, after its start, defers its answers about unknown
    /// pools. The time ends early if other registrars announce elements. Default: 3 s. Not from the
    /// RFCs: elements that lost their registrar look for another at least once a second.
    #[must_use]
    pub fn ready_after(mut self, time: Duration) -> Self {
        self.ready_after = bounded(time);
        self
    }

    /// Sets the implementations to be compatible with. Default: [`Compatibility::All`]. The profile
    /// decides the defaults of [`Self::heartbeat_cycle`], [`Self::max_time_last_heard`] and
    /// [`Self::max_time_no_response`].
    #[must_use]
    pub fn compatibility(mut self, profile: Compatibility) -> Self {
        self.compatibility = profile;
        self
    }

    /// Sets the address at which other registrars reach this one (RFC 5353). Default: none; the
    /// registrar has no peers.
    #[must_use]
    pub fn enrp(mut self, transport: TransportAddress) -> Self {
        self.enrp = Some(transport);
        self
    }

    /// Sets the ENRP addresses of other registrars. Default: none. One of them becomes the mentor
    /// (RFC 5353 section 3.2.2). The registrar tries to reach them as long as it runs. Needs
    /// [`Self::enrp`].
    #[must_use]
    pub fn peers(mut self, peers: impl IntoIterator<Item = TransportAddress>) -> Self {
        self.peers = peers.into_iter().collect();
        self
    }

    /// Enables presence messages to and from other registrars by multicast (RFC 5353 section 3.1).
    /// Default: disabled. Needs [`Self::enrp`].
    #[must_use]
    pub fn multicast_presence(mut self) -> Self {
        self.multicast_presence = true;
        self
    }

    /// Returns whether presence messages are sent and received by multicast.
    #[must_use]
    pub fn has_multicast_presence(&self) -> bool {
        self.multicast_presence
    }

    /// Sets PEER-HEARTBEAT-CYCLE, the time between two ENRP_PRESENCE messages to each peer.
    /// Default: 2 s, about the value of rsplib; with [`Compatibility::Rfc`] 30 s (RFC 5353 section
    /// 4.2).
    ///
    /// A silent peer counts as dead after [`Self::max_time_last_heard`] plus
    /// [`Self::max_time_no_response`]. This registrar takes over its elements as soon as the other
    /// peers agree. A peer whose process was killed counts as dead at once, when its host refuses a
    /// connection.
    #[must_use]
    pub fn heartbeat_cycle(mut self, cycle: Duration) -> Self {
        self.heartbeat_cycle = Some(bounded(cycle));
        self
    }

    /// Sets MAX-TIME-LAST-HEARD, the time that a peer may be silent before this registrar asks for
    /// its presence. Default: 3 s. Not from the RFCs: chosen for takeovers within seconds; with
    /// [`Compatibility::Rfc`] 61 s (RFC 5353 section 4.2).
    #[must_use]
    pub fn max_time_last_heard(mut self, time: Duration) -> Self {
        self.max_time_last_heard = Some(bounded(time));
        self
    }

    /// Sets MAX-TIME-NO-RESPONSE, the time within which a silent peer has to answer after this
    /// registrar asked for its presence. Default: 1.5 s. Not from the RFCs: chosen for takeovers
    /// within seconds; with [`Compatibility::Rfc`] 5 s (RFC 5353 section 4.2).
    #[must_use]
    pub fn max_time_no_response(mut self, time: Duration) -> Self {
        self.max_time_no_response = Some(bounded(time));
        self
    }

    /// Sets the time for which the registrar looks for a mentor before it works alone. Default: 5 s
    /// (rsplib).
    #[must_use]
    pub fn mentor_discovery(mut self, time: Duration) -> Self {
        self.mentor_discovery = bounded(time);
        self
    }

    /// Sets the time after which this registrar asks peers again that have not agreed to a
    /// takeover. Default: 5 s (rsplib).
    #[must_use]
    pub fn takeover_expiry(mut self, time: Duration) -> Self {
        self.takeover_expiry = bounded(time);
        self
    }

    /// Returns the timers with which registrars supervise each other: those configured, or those of
    /// the compatibility profile.
    pub(super) fn heartbeat(&self) -> Heartbeat {
        let [cycle, last_heard, no_response] = self.compatibility.heartbeat();
        Heartbeat {
            cycle: self.heartbeat_cycle.unwrap_or(cycle),
            max_last_heard: self.max_time_last_heard.unwrap_or(last_heard),
            max_no_response: self.max_time_no_response.unwrap_or(no_response),
        }
    }

    /// Returns the address at which other registrars reach this one by ENRP, or `None` if it has no
    /// peers.
    #[must_use]
    pub fn enrp_transport(&self) -> Option<&TransportAddress> {
        self.enrp.as_ref()
    }

    /// Returns an address whose scope tells whether other hosts can reach this registrar.
    pub(super) fn reached_at(&self) -> IpAddr {
        let enrp = self.enrp.as_ref().and_then(|enrp| enrp.addresses.first().copied());
        enrp.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
    }

    /// Returns the compatibility profile.
    #[must_use]
    pub fn profile(&self) -> Compatibility {
        self.compatibility
    }

    /// Sets T6-Serverannounce: the time between two announcements is this interval times the number
    /// of registrars that announce themselves. Default: 1 s (RFC 5352 section 7.1).
    #[must_use]
    pub fn announce_interval(mut self, interval: Duration) -> Self {
        self.announce_interval = bounded(interval);
        self
    }

    /// Sets T7-ENRPoutdate, the time for which an announcement of another registrar is valid.
    /// Default: 5 s (RFC 5352 section 7.1).
    #[must_use]
    pub fn announce_outdate(mut self, time: Duration) -> Self {
        self.announce_outdate = bounded(time);
        self
    }

    /// Returns whether the registrar announces itself.
    #[must_use]
    pub fn announces(&self) -> bool {
        self.announced.is_some()
    }

    /// Enables announcements of the registrar at `transports`; see [`Self::announce_interval`].
    /// Default: disabled.
    #[must_use]
    pub fn announce(mut self, transports: impl IntoIterator<Item = TransportAddress>) -> Self {
        self.announced = Some(transports.into_iter().collect());
        self
    }
}
