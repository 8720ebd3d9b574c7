//! Configuration of a pool user.

use std::time::Duration;

use crate::HuntConfig;
use crate::policy::Policies;
use crate::timers::bounded;

/// The settings of a pool user.
#[derive(Debug, Clone)]
pub struct UserConfig {
    pub(super) hunt: HuntConfig,
    pub(super) policies: Policies,
    /// `None` to use the value of the compatibility profile.
    pub(super) request_timeout: Option<Duration>,
    pub(super) max_request_retransmit: u32,
    pub(super) cache_capacity: usize,
    pub(super) items: u32,
}

impl UserConfig {
    /// Returns the default settings of a user that searches for its registrar with the
    /// configuration `hunt`.
    #[must_use]
    pub fn new(hunt: HuntConfig) -> Self {
        Self {
            hunt,
            policies: Policies::default(),
            request_timeout: None,
            max_request_retransmit: 2,
            cache_capacity: 1024,
            items: 32,
        }
    }

    /// Returns the configuration of the search for a registrar.
    #[must_use]
    pub fn hunt_config(&self) -> &HuntConfig {
        &self.hunt
    }

    /// Sets the number of elements that a resolution asks for, unless its options specify one.
    /// Default: 32. Not from the RFCs: an answer of this size leaves other elements to try when one
    /// fails. An answer with fewer elements is known to contain the whole pool. With
    /// [`Compatibility::Rfc`](crate::Compatibility::Rfc), requests cannot contain the number.
    #[must_use]
    pub fn items(mut self, items: u32) -> Self {
        self.items = items;
        self
    }

    /// Sets the policies by which the user selects. Default: the built-in ones.
    #[must_use]
    pub fn policies(mut self, policies: Policies) -> Self {
        self.policies = policies;
        self
    }

    /// Sets the time that a registrar may take to answer: T1-ENRPrequest. Default: 3 s (rsplib);
    /// with [`Compatibility::Rfc`](crate::Compatibility::Rfc), 15 s (RFC 5352 section 7.1).
    #[must_use]
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = Some(bounded(timeout));
        self
    }

    /// Sets the number of times that an unanswered request is repeated: MAX-REQUEST-RETRANSMIT.
    /// Default: 2 (RFC 5352 section 7.3).
    #[must_use]
    pub fn max_request_retransmit(mut self, times: u32) -> Self {
        self.max_request_retransmit = times;
        self
    }

    /// Sets the number of pools in the cache. Default: 1024. Not from the RFCs. The pool that was
    /// resolved longest ago is evicted first.
    #[must_use]
    pub fn cache_capacity(mut self, pools: usize) -> Self {
        self.cache_capacity = pools;
        self
    }
}

/// Options of a resolution.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ResolveOptions {
    pub(crate) items: Option<u32>,
    pub(crate) max_age: Duration,
    pub(crate) allow_stale: bool,
}

impl ResolveOptions {
    /// Sets the number of elements to ask for. Default: that of the user, see
    /// [`UserConfig::items`].
    #[must_use]
    pub fn items(mut self, items: u32) -> Self {
        self.items = Some(items);
        self
    }

    /// Sets the maximum age of a cached answer: stale_cache_value (RFC 5352 section 7.2). Default:
    /// zero, which always asks the registrar.
    #[must_use]
    pub fn max_age(mut self, age: Duration) -> Self {
        self.max_age = age;
        self
    }

    /// Sets whether an older answer in the cache is used while no registrar answers. Default: no.
    #[must_use]
    pub fn allow_stale(mut self, yes: bool) -> Self {
        self.allow_stale = yes;
        self
    }
}
