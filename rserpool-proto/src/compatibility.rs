//! Differences between implementations and the RFCs, and the behaviour chosen for each.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::str::FromStr;
use std::time::Duration;

use crate::wire::{
    PolicyParameters, PolicyType, PoolHandle, RegistrarId, RegistrationLife, TransportProtocol,
};

/// The port of ASAP (RFC 5352 section 8.2).
const ASAP_PORT: u16 = 3863;

/// The port of ENRP (RFC 5353 section 5.3).
pub(crate) const ENRP_PORT: u16 = 9901;

/// IANA's multicast group (RFC 5352 section 8.4).
const GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 1, 185);

/// The maximum length of a pool handle for rsplib, in bytes. A registrar of rsplib terminates when
/// it receives a longer one.
const RSPLIB_MAX_HANDLE: usize = 32;

/// The implementations to interoperate with. Everything that depends on them is a method of this
/// type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Compatibility {
    /// All implementations, as far as one behaviour suits all of them. This is the default.
    #[default]
    All,
    /// rsplib 3, in an operational scope with registrars of rsplib. Operations that would crash or
    /// confuse these are refused.
    Rsplib,
    /// The RFCs to the letter.
    Rfc,
}

/// Error of an operation that the compatibility profile forbids. Nothing was sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Incompatible {
    /// The pool handle is too long for rsplib.
    #[error(
        "the pool handle {handle} has {} bytes, and rsplib's registrars end when they get more \
         than {RSPLIB_MAX_HANDLE}: choose a shorter one, or another compatibility profile",
        handle.as_bytes().len()
    )]
    PoolHandleTooLong {
        /// The handle.
        handle: PoolHandle,
    },
    /// The weight of an element is zero: a pool of such elements makes rsplib's registrars
    /// terminate.
    #[error(
        "a weight of 0 is not allowed, since rsplib's registrars end when all weights of a pool \
         are 0: choose a larger one, or another compatibility profile"
    )]
    ZeroWeight,
}

impl Compatibility {
    /// All profiles.
    pub const ALL: [Self; 3] = [Self::All, Self::Rsplib, Self::Rfc];

    /// Returns the lifetime of a registration as an element sends it: in seconds (RFC 5354 section
    /// 3.10) or, with [`Self::Rsplib`], in milliseconds. Registrars of rsplib read milliseconds,
    /// and drop elements of other registrars after that time.
    #[must_use]
    pub fn registration_life(self, lifetime: Duration) -> RegistrationLife {
        match self {
            Self::All | Self::Rfc => RegistrationLife::from_duration(lifetime),
            Self::Rsplib => {
                RegistrationLife(i32::try_from(lifetime.as_millis()).unwrap_or(i32::MAX))
            }
        }
    }

    /// Returns the lifetime of a registration as registrars send it to each other: in milliseconds,
    /// except with [`Self::Rfc`]. A registrar of rsplib reads milliseconds. It drops the element
    /// after that time, and downloads it again after each presence message. A registrar that reads
    /// seconds keeps the element for longer after a takeover. But it sends the element a
    /// keep-alive, and elements of this crate then register again.
    #[must_use]
    pub fn told_registration_life(self, lifetime: Duration) -> RegistrationLife {
        match self {
            Self::All | Self::Rsplib => Self::Rsplib.registration_life(lifetime),
            Self::Rfc => self.registration_life(lifetime),
        }
    }

    /// Returns the lifetime of a registration that carries `life`; `None` if it does not expire.
    /// With [`Self::Rsplib`], `life` is in milliseconds, but a number below 1000 counts as seconds:
    /// no element registers for less than a second, and the element may use another profile.
    #[must_use]
    pub fn lifetime(self, life: RegistrationLife) -> Option<Duration> {
        match self {
            Self::All | Self::Rfc => life.duration(),
            Self::Rsplib if life.0 < 1000 => life.duration(),
            Self::Rsplib => u64::try_from(life.0).ok().map(Duration::from_millis),
        }
    }

    /// Returns the multicast groups of the registrars' announcements (RFC 5352 section 3.6):
    /// IANA's, rsplib's, or both.
    #[must_use]
    pub fn announcement_groups(self) -> Vec<SocketAddrV4> {
        self.groups(Ipv4Addr::new(239, 0, 0, 50), ASAP_PORT)
    }

    /// Returns the multicast groups of the registrars' presence messages (RFC 5353 section 3.1):
    /// IANA's, rsplib's, or both.
    #[must_use]
    pub fn presence_groups(self) -> Vec<SocketAddrV4> {
        self.groups(Ipv4Addr::new(239, 0, 0, 51), ENRP_PORT)
    }

    fn groups(self, rsplib: Ipv4Addr, port: u16) -> Vec<SocketAddrV4> {
        let groups: &[Ipv4Addr] = match self {
            Self::All => &[GROUP, rsplib],
            Self::Rsplib => &[rsplib],
            Self::Rfc => &[GROUP],
        };
        groups.iter().map(|group| SocketAddrV4::new(*group, port)).collect()
    }

    /// Returns the port of a registrar whose announcement has no transport parameters and came from
    /// the port `source`: `source`, as in rsplib, or with [`Self::Rfc`] the registered port (RFC
    /// 5352 section 3.6). The registrars of this crate announce from their ASAP port. If that is
    /// the registered port, it is the result with each profile.
    #[must_use]
    pub fn announced_port(self, source: u16) -> u16 {
        match self {
            Self::All | Self::Rsplib => source,
            Self::Rfc => ASAP_PORT,
        }
    }

    /// Returns whether announcements have transport parameters (RFC 5352 section 2.2.10) where the
    /// registrar is bound to specific addresses. rsplib never sends any.
    #[must_use]
    pub fn announces_transports(self) -> bool {
        self != Self::Rsplib
    }

    /// Returns the maximum number of transports in a registrar's announcement: one, except with
    /// [`Self::Rfc`], since rsplib cannot read a TCP transport. A listener that uses another
    /// protocol than that transport takes the source address of the datagram instead.
    #[must_use]
    pub fn max_announced_transports(self) -> usize {
        if self == Self::Rfc { usize::MAX } else { 1 }
    }

    /// Returns whether a keep-alive contains the identifier of its element, since one association
    /// may serve several elements. RFC 5352 section 2.2.7 has no parameter for it; rsplib has one.
    #[must_use]
    pub fn keep_alive_names_element(self) -> bool {
        self != Self::Rfc
    }

    /// Returns whether a registrar that leaves suggests to others to take over its elements, by a
    /// flag of ENRP_HANDLE_UPDATE that was added after the RFC
    /// (draft-dreibholz-rserpool-enrp-takeover).
    #[must_use]
    pub fn suggests_takeover(self) -> bool {
        self == Self::All
    }

    /// Returns whether the length of a sent message includes the padding of its last parameter, as
    /// in rsplib. RFC 5354 section 4 excludes it. Received messages may have either.
    #[must_use]
    pub fn counts_last_padding(self) -> bool {
        self != Self::Rfc
    }

    /// Returns whether a resolution tells the registrar the number of wanted elements. The
    /// parameter is an extension of rsplib; the bits of its type make other implementations skip
    /// it.
    #[must_use]
    pub fn sends_item_count(self) -> bool {
        self != Self::Rfc
    }

    /// Returns whether an answer with fewer elements than were asked for says that the pool has more
    /// ([`HandleResolutionResponse::partial`]). The RFCs do not define this flag.
    ///
    /// [`HandleResolutionResponse::partial`]: crate::wire::asap::HandleResolutionResponse::partial
    #[must_use]
    pub fn marks_partial_answers(self) -> bool {
        self == Self::All
    }

    /// Returns the time that a registrar may take to answer a user: T1-ENRPrequest of RFC 5352
    /// section 7.1, or 3 s (rsplib).
    #[must_use]
    pub fn request_timeout(self) -> Duration {
        Duration::from_secs(if self == Self::Rfc { 15 } else { 3 })
    }

    /// Returns the time that a registrar may take to answer a registration or a deregistration:
    /// T2-registration and T3-deregistration of RFC 5352 section 7.1, or 5 s (not from the RFCs).
    #[must_use]
    pub fn registration_timeout(self) -> Duration {
        Duration::from_secs(if self == Self::Rfc { 30 } else { 5 })
    }

    /// Returns the time that an attempt to reach a registrar may take while other addresses wait: 1 s
    /// (not from the RFCs) or, with [`Self::Rfc`], no other than T5-Serverhunt.
    pub(crate) fn hunt_turn(self, server_hunt: Duration) -> Duration {
        if self == Self::Rfc { server_hunt } else { Duration::from_secs(1) }
    }

    /// Returns the longest pause after a refused registration: RETRAN.max of RFC 5352 section 7.2,
    /// or 15 s (not from the RFCs): the pool may have changed, or a registrar that restarts waits for
    /// its elements.
    pub(crate) fn max_retry_delay(self) -> Duration {
        Duration::from_secs(if self == Self::Rfc { 60 } else { 15 })
    }

    /// Returns the timers with which registrars supervise each other: PEER-HEARTBEAT-CYCLE,
    /// MAX-TIME-LAST-HEARD and MAX-TIME-NO-RESPONSE of RFC 5353 section 4.2, or shorter times (not
    /// from the RFCs).
    #[must_use]
    pub fn heartbeat(self) -> [Duration; 3] {
        let seconds = if self == Self::Rfc { [30.0, 61.0, 5.0] } else { [2.0, 3.0, 1.5] };
        seconds.map(Duration::from_secs_f64)
    }

    /// Returns the number of elements of an answer to a resolution that count as selected, or
    /// `None` if the policy decides. With [`Self::Rfc`], Least Used with Degradation counts all
    /// elements of an answer as more loaded (RFC 5356 section 5.2.2). The other profiles do not: if
    /// an answer contains the whole pool, all loads increase alike, and the order of the elements
    /// does not change.
    #[must_use]
    pub fn max_increment(self, policy: PolicyType) -> Option<usize> {
        let all = self == Self::Rfc && policy == PolicyType::LEAST_USED_DEGRADATION;
        all.then_some(usize::MAX)
    }

    /// Returns whether the registrar tells an element that registers over `protocol` which of its
    /// addresses it ignored (RFC 5352 section 2.2.3). An element of rsplib takes that message for a
    /// refusal. rsplib does not support TCP, so elements over TCP are always told.
    #[must_use]
    pub fn tells_left_out_addresses(self, protocol: TransportProtocol) -> bool {
        match self {
            Self::All => protocol == TransportProtocol::Tcp,
            Self::Rsplib => false,
            Self::Rfc => true,
        }
    }

    /// Returns whether the registrar `ours` yields to `other` if both want to take over the
    /// elements of the same dead registrar. The registrar with the smaller identifier yields (RFC
    /// 5353 section 3.5.1). With [`Self::Rsplib`], the one with the larger identifier does.
    #[must_use]
    pub fn yields(self, ours: RegistrarId, other: RegistrarId) -> bool {
        match self {
            Self::All | Self::Rfc => ours < other,
            Self::Rsplib => ours > other,
        }
    }

    /// Checks whether a pool handle and a policy may be sent with this profile.
    ///
    /// # Errors
    ///
    /// Returns an error if the handle or the policy would make a registrar of the profile
    /// terminate.
    pub fn check(
        self,
        handle: &PoolHandle,
        policy: Option<&PolicyParameters>,
    ) -> Result<(), Incompatible> {
        if self != Self::Rsplib {
            return Ok(());
        }
        if handle.as_bytes().len() > RSPLIB_MAX_HANDLE {
            return Err(Incompatible::PoolHandleTooLong { handle: handle.clone() });
        }
        let random = [PolicyType::WEIGHTED_RANDOM, PolicyType::WEIGHTED_RANDOM_DPF];
        match policy {
            Some(policy)
                if random.contains(&policy.policy_type()) && policy.words().first() == Some(&0) =>
            {
                Err(Incompatible::ZeroWeight)
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Compatibility {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::All => "all",
            Self::Rsplib => "rsplib",
            Self::Rfc => "rfc",
        })
    }
}

/// Error of parsing a name that is not a compatibility profile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown compatibility profile: choose all, rsplib or rfc")]
#[non_exhaustive]
pub struct UnknownProfile;

impl FromStr for Compatibility {
    type Err = UnknownProfile;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|profile| profile.to_string() == text).ok_or(UnknownProfile)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes_come_back_in_each_unit() {
        let lifetime = Duration::from_secs(90);
        for (profile, number) in Compatibility::ALL.into_iter().zip([90, 90_000, 90]) {
            let life = profile.registration_life(lifetime);
            assert_eq!(life.0, number);
            assert_eq!(profile.lifetime(life), Some(lifetime));
            assert_eq!(profile.lifetime(RegistrationLife::INFINITE), None);
            assert_eq!(profile.lifetime(RegistrationLife(90)), Some(lifetime));
        }
    }

    #[test]
    fn what_ends_rsplib_is_refused_under_its_profile_alone() {
        let short: PoolHandle = "x".repeat(32).parse().unwrap();
        let long: PoolHandle = "x".repeat(33).parse().unwrap();
        let weightless = "WeightedRandom:0".parse().unwrap();
        for profile in [Compatibility::All, Compatibility::Rfc] {
            assert_eq!(profile.check(&long, Some(&weightless)), Ok(()));
        }
        fn check(
            handle: &PoolHandle,
            policy: Option<&PolicyParameters>,
        ) -> Result<(), Incompatible> {
            Compatibility::Rsplib.check(handle, policy)
        }
        assert_eq!(check(&short, None), Ok(()));
        for harmless in ["WeightedRandom:1", "LeastUsed:0"] {
            let policy = harmless.parse().unwrap();
            assert_eq!(check(&short, Some(&policy)), Ok(()));
        }
        assert_eq!(check(&short, Some(&weightless)), Err(Incompatible::ZeroWeight));
        let message = check(&long, None).unwrap_err().to_string();
        assert!(message.contains("33 bytes"), "{message}");
    }

    #[test]
    fn the_profile_rfc_is_the_letter_of_the_rfcs() {
        let rfc = Compatibility::Rfc;
        assert!(!rfc.sends_item_count() && !rfc.keep_alive_names_element());
        assert!(!rfc.counts_last_padding() && !rfc.suggests_takeover());
        assert!(!rfc.marks_partial_answers());
        assert!(rfc.announces_transports() && rfc.max_announced_transports() > 1);
        for protocol in [TransportProtocol::Tcp, TransportProtocol::Sctp] {
            assert!(rfc.tells_left_out_addresses(protocol));
        }
        assert_eq!(rfc.hunt_turn(Duration::from_secs(10)), Duration::from_secs(10));
        assert_eq!(rfc.max_retry_delay(), Duration::from_secs(60));
    }

    #[test]
    fn profiles_have_names() {
        for profile in Compatibility::ALL {
            assert_eq!(profile.to_string().parse(), Ok(profile));
        }
        assert_eq!("cisco".parse::<Compatibility>(), Err(UnknownProfile));
    }
}
