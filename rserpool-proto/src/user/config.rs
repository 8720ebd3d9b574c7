//! Configuration of a pool user.

use std::time::Duration;

use crate::policy::Policies;

/// The settings of a pool user.
#[derive(Debug, Clone)]
pub struct UserConfig {
    pub(super) policies: Policies,
    /// None where the compatibility profile decides.
    pub(super) request_timeout: Option<Duration>,
    pub(super) max_request_retransmit: u32,
    pub(super) cache_capacity: usize,
    pub(super) items: u32,
}

impl Default for UserConfig {
    fn default() -> Self {
        Self {
            policies: Policies::default(),
            request_timeout: None,
            max_request_retransmit: 2,
            cache_capacity: 1024,
            items: 32,
        }
    }
}

impl UserConfig {
    /// The number of elements a resolution asks for that does not say it: 32, ours, so that there
    /// are enough to go on with when one fails, and so that the user knows whether a shorter answer
    /// has all of the pool. The profile of the RFCs has no way to say it.
    #[must_use]
    pub fn items(mut self, items: u32) -> Self {
        self.items = items;
        self
    }

    /// The policies that the user selects by: the built-in ones.
    #[must_use]
    pub fn policies(mut self, policies: Policies) -> Self {
        self.policies = policies;
        self
    }

    /// The time that a registrar may take to answer, T1-ENRPrequest: 3 s, rsplib's, or with
    /// [`Compatibility::Rfc`](crate::Compatibility::Rfc) the 15 s of RFC 5352 section 7.1.
    #[must_use]
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = Some(timeout);
        self
    }

    /// Sets the number of repetitions of a request that was not answered: MAX-REQUEST-RETRANSMIT.
    /// Default: 2 (RFC 5352 section 7.3).
    #[must_use]
    pub fn max_request_retransmit(mut self, times: u32) -> Self {
        self.max_request_retransmit = times;
        self
    }

    /// The number of pools that are remembered: 1024, ours. The one resolved longest ago is
    /// forgotten first.
    #[must_use]
    pub fn cache_capacity(mut self, pools: usize) -> Self {
        self.cache_capacity = pools;
        self
    }
}
