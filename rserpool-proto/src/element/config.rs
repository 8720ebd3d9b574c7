//! Configuration of a pool element.

use std::time::Duration;

use crate::HuntConfig;
use crate::timers::bounded;
use crate::wire::{PolicyParameters, PoolElementId, PoolHandle, TransportAddress, UserTransport};

/// The settings of a pool element.
#[derive(Debug, Clone)]
pub struct ElementConfig {
    pub(super) pool_handle: PoolHandle,
    pub(super) identifier: Option<PoolElementId>,
    pub(super) user_transport: UserTransport,
    pub(super) asap_transport: Option<TransportAddress>,
    pub(super) policy: PolicyParameters,
    pub(super) lifetime: Duration,
    pub(super) hunt: HuntConfig,
    /// T2-registration; `None` to use the value of the compatibility profile.
    pub(super) registration_timeout: Option<Duration>,
    pub(super) deregistration_timeout: Option<Duration>,
    pub(super) max_registration_attempts: u32,
    pub(super) load_interval: Duration,
}

impl ElementConfig {
    /// Creates the default configuration of an element of the pool `pool_handle`. The element
    /// serves its users at `user_transport` and searches for its registrar as `hunt` configures.
    ///
    /// If `user_transport` has no IP addresses, the element registers the local addresses of the
    /// connection to its registrar.
    #[must_use]
    pub fn new(
        pool_handle: PoolHandle,
        user_transport: impl Into<UserTransport>,
        hunt: HuntConfig,
    ) -> Self {
        Self {
            pool_handle,
            identifier: None,
            user_transport: user_transport.into(),
            asap_transport: None,
            policy: PolicyParameters::round_robin(),
            lifetime: Duration::from_secs(90),
            hunt,
            registration_timeout: None,
            deregistration_timeout: None,
            max_registration_attempts: 2,
            load_interval: Duration::from_millis(100),
        }
    }

    /// Sets the identifier in the pool. Default: drawn at random (RFC 5352 section 3.1).
    #[must_use]
    pub fn identifier(mut self, identifier: PoolElementId) -> Self {
        self.identifier = Some(identifier);
        self
    }

    /// Replaces the address at which the element serves its users.
    #[must_use]
    pub fn user_transport(mut self, user_transport: impl Into<UserTransport>) -> Self {
        self.user_transport = user_transport.into();
        self
    }

    /// Sets the address on which the element accepts connections from registrars. Its IP addresses
    /// are ignored. Registrars need it only over TCP.
    #[must_use]
    pub fn asap_transport(mut self, asap_transport: TransportAddress) -> Self {
        self.asap_transport = Some(asap_transport);
        self
    }

    /// Sets the policy of the pool, and this element's values for it. Default: round robin.
    #[must_use]
    pub fn policy(mut self, policy: PolicyParameters) -> Self {
        self.policy = policy;
        self
    }

    /// Sets the lifetime of a registration that is not renewed. Default: 90 s (rsplib). The
    /// registration is renewed by T4-reregistration: 10 minutes after it was made or 20 s before it
    /// expires, whichever is earlier (RFC 5352 section 7.1), but not before a third of its
    /// lifetime.
    #[must_use]
    pub fn lifetime(mut self, lifetime: Duration) -> Self {
        self.lifetime = bounded(lifetime);
        self
    }

    /// Sets T2-registration, the time that a registrar may take to answer a registration. Default:
    /// 5 s. Not from the RFCs: chosen to find another registrar soon; with
    /// [`Compatibility::Rfc`](crate::Compatibility::Rfc) 30 s (RFC 5352 section 7.1).
    #[must_use]
    pub fn registration_timeout(mut self, timeout: Duration) -> Self {
        self.registration_timeout = Some(bounded(timeout));
        self
    }

    /// Sets T3-deregistration, the time that a registrar may take to answer a deregistration.
    /// Default: as [`Self::registration_timeout`].
    #[must_use]
    pub fn deregistration_timeout(mut self, timeout: Duration) -> Self {
        self.deregistration_timeout = Some(bounded(timeout));
        self
    }

    /// Replaces the configuration of the search for registrars.
    #[must_use]
    pub fn hunt(mut self, hunt: HuntConfig) -> Self {
        self.hunt = hunt;
        self
    }

    /// Returns the configuration of the search for registrars.
    #[must_use]
    pub fn hunt_config(&self) -> &HuntConfig {
        &self.hunt
    }

    pub(super) fn t2_registration(&self) -> Duration {
        self.registration_timeout.unwrap_or(self.hunt.profile().registration_timeout())
    }

    pub(super) fn t3_deregistration(&self) -> Duration {
        self.deregistration_timeout.unwrap_or(self.hunt.profile().registration_timeout())
    }

    /// Sets the minimum interval between registrations that report a changed load. Default: 100 ms.
    /// Not from the RFCs: bounds the traffic of an element whose load changes all the time.
    #[must_use]
    pub fn load_interval(mut self, interval: Duration) -> Self {
        self.load_interval = bounded(interval);
        self
    }

    /// Sets MAX-REG-ATTEMPT, the number of unanswered registrations after which the element reports
    /// that there is no registrar. Default: 2 (RFC 5352 section 7.3). The element continues to
    /// register.
    #[must_use]
    pub fn max_registration_attempts(mut self, attempts: u32) -> Self {
        self.max_registration_attempts = attempts;
        self
    }
}
