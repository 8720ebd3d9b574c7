//! Configuration of a pool element.

use std::time::Duration;

use crate::HuntConfig;
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
    pub(super) seed: u64,
    pub(super) registration_timeout: Duration,
    pub(super) deregistration_timeout: Duration,
    pub(super) max_registration_attempts: u32,
    pub(super) load_interval: Duration,
}

impl ElementConfig {
    /// The defaults for an element of the pool `pool_handle` that serves its users at
    /// `user_transport`, looks for its registrar as `hunt` says, and whose random choices, its
    /// identifier among them, follow from `seed`.
    ///
    /// Without IP addresses in `user_transport`, it registers those that it reaches its
    /// registrar from.
    #[must_use]
    pub fn new(
        pool_handle: PoolHandle,
        user_transport: impl Into<UserTransport>,
        hunt: HuntConfig,
        seed: u64,
    ) -> Self {
        let timeout = hunt.profile().registration_timeout();
        Self {
            pool_handle,
            identifier: None,
            user_transport: user_transport.into(),
            asap_transport: None,
            policy: PolicyParameters::round_robin(),
            lifetime: Duration::from_secs(90),
            hunt,
            seed,
            registration_timeout: timeout,
            deregistration_timeout: timeout,
            max_registration_attempts: 2,
            load_interval: Duration::from_millis(100),
        }
    }

    /// The identifier in the pool: drawn at random (RFC 5352 section 3.1).
    #[must_use]
    pub fn identifier(mut self, identifier: PoolElementId) -> Self {
        self.identifier = Some(identifier);
        self
    }

    /// Sets the address on which the element accepts connections from registrars. Its IP addresses
    /// are ignored. Registrars need it over TCP alone.
    #[must_use]
    pub fn asap_transport(mut self, asap_transport: TransportAddress) -> Self {
        self.asap_transport = Some(asap_transport);
        self
    }

    /// The policy that the pool shall have, and this element's values: round robin.
    #[must_use]
    pub fn policy(mut self, policy: PolicyParameters) -> Self {
        self.policy = policy;
        self
    }

    /// The time that a registration lasts that is not renewed: 90 s, rsplib's. It is renewed
    /// T4-reregistration after it was made: 10 minutes or 20 s before it ends, whichever is less
    /// (RFC 5352 section 7.1), but not before a third of it has passed.
    #[must_use]
    pub fn lifetime(mut self, lifetime: Duration) -> Self {
        self.lifetime = lifetime;
        self
    }

    /// The time that a registrar may take to answer a registration, T2-registration, and a
    /// deregistration, T3-deregistration: 5 s, ours, or with
    /// [`Compatibility::Rfc`](crate::Compatibility::Rfc) the 30 s of RFC 5352 section 7.1.
    #[must_use]
    pub fn timeouts(mut self, registration: Duration, deregistration: Duration) -> Self {
        (self.registration_timeout, self.deregistration_timeout) = (registration, deregistration);
        self
    }

    /// Sets the minimum interval between registrations that report a changed load. Default: 100 ms.
    /// Not from the RFCs: bounds the traffic of an element whose load changes all the time.
    #[must_use]
    pub fn load_interval(mut self, interval: Duration) -> Self {
        self.load_interval = interval;
        self
    }

    /// After how many registrations without an answer the owner is told that there is none:
    /// MAX-REG-ATTEMPT, 2 (RFC 5352 section 7.3). The element goes on trying.
    #[must_use]
    pub fn max_registration_attempts(mut self, attempts: u32) -> Self {
        self.max_registration_attempts = attempts;
        self
    }
}
