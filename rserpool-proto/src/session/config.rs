//! Configuration of a session.

use std::time::Duration;

use bytes::Bytes;

use crate::timers::bounded;
use crate::wire::{PoolElementId, TransportProtocol};

/// The settings of a session.
#[derive(Debug, Clone)]
pub struct SessionConfig {
    pub(super) preferred_transport: Option<TransportProtocol>,
    pub(super) connect_timeout: Duration,
    pub(super) retry_delay: Duration,
    pub(super) give_up_after: Duration,
    pub(super) automatic_failover: bool,
    pub(super) items: Option<u32>,
    pub(super) max_age: Duration,
    pub(super) heartbeat: Duration,
    /// The interval of the transport's heartbeats; `None` for the transport's default.
    pub(super) transport_heartbeat: Option<Duration>,
    pub(super) element: Option<PoolElementId>,
    pub(super) cookie: Option<Bytes>,
}

impl Default for SessionConfig {
    fn default() -> Self {
        Self {
            preferred_transport: None,
            connect_timeout: Duration::from_secs(5),
            retry_delay: Duration::from_millis(100),
            give_up_after: Duration::from_secs(60),
            automatic_failover: true,
            items: None,
            max_age: Duration::ZERO,
            heartbeat: Duration::from_secs(5),
            transport_heartbeat: None,
            element: None,
            cookie: None,
        }
    }
}

impl SessionConfig {
    /// Sets the only element with which the session may begin. Default: the pool's policy chooses
    /// (RFC 5352 section 6.5.3). A failover may go to any element.
    #[must_use]
    pub fn element(mut self, identifier: PoolElementId) -> Self {
        self.element = Some(identifier);
        self
    }

    /// Sets the cookie to send to the first element, as after a failover. It contains the state of
    /// an earlier session, which the first element continues. Default: none.
    #[must_use]
    pub fn cookie(mut self, cookie: impl Into<Option<Bytes>>) -> Self {
        self.cookie = cookie.into();
        self
    }

    /// Sets the transport protocol whose elements are tried first. Default: the one used towards
    /// registrars. A protocol that the program does not use has no effect.
    #[must_use]
    pub fn preferred_transport(mut self, protocol: TransportProtocol) -> Self {
        self.preferred_transport = Some(protocol);
        self
    }

    /// Sets the time without a message from the element after which the session sends a heartbeat,
    /// which the element's program has to answer. While the application waits for an answer to a
    /// message, this time is at most 300 ms. At least 10 ms. Default: 5 s. Not from the RFCs: chosen to detect a
    /// program that hangs within seconds at little cost.
    ///
    /// An element that does not respond within 2 s, or twice the interval if that is less, is
    /// reported as unreachable, and the session fails over. While the application of an element is
    /// busy, the element responds every 250 ms. Intervals below 250 ms are therefore suitable only
    /// for elements that answer quickly. Elements of other implementations do not answer
    /// heartbeats. For these, the session relies on the failure detection of the transport. This
    /// method also sets the interval of the transport's heartbeats.
    #[must_use]
    pub fn heartbeat(mut self, interval: Duration) -> Self {
        self.heartbeat = bounded(interval).max(Duration::from_millis(10));
        self.transport_heartbeat = Some(bounded(interval));
        self
    }

    /// Returns the time that an element has to respond to a heartbeat.
    pub(super) fn heartbeat_timeout(&self) -> Duration {
        Duration::from_secs(2).min(self.heartbeat * 2)
    }

    /// Sets the time that an element may take to accept a connection before the next one is tried.
    /// Default: 5 s (rsplib).
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = bounded(timeout);
        self
    }

    /// Sets the time to wait before the pool is resolved again when none of its elements accepted a
    /// connection. Default: 100 ms. Not from the RFCs; rsplib has 250 ms.
    #[must_use]
    pub fn retry_delay(mut self, delay: Duration) -> Self {
        self.retry_delay = bounded(delay);
        self
    }

    /// Sets whether the session fails over by itself when it loses its element. Default: yes.
    /// Otherwise it waits, after [`Event::FailoverStarted`](super::Event::FailoverStarted), until
    /// the application calls [`Session::fail_over`](super::Session::fail_over).
    #[must_use]
    pub fn automatic_failover(mut self, yes: bool) -> Self {
        self.automatic_failover = yes;
        self
    }

    /// Sets the number of elements to request with each resolution. Default: that of
    /// [`UserConfig::items`](crate::user::UserConfig::items). With one, as in rsplib, a session
    /// that has to try several elements resolves the pool for each.
    #[must_use]
    pub fn items(mut self, items: u32) -> Self {
        self.items = Some(items.max(1));
        self
    }

    /// Sets the maximum age of a cached answer with which the session may begin: stale_cache_value
    /// (RFC 5352 section 7.2). Default: 0, so that a session begins with the current elements; the
    /// RFC has 30 s. A failover always asks the registrar.
    #[must_use]
    pub fn max_age(mut self, age: Duration) -> Self {
        self.max_age = bounded(age);
        self
    }

    /// Sets the time that a session may be without an element before it fails. Default: 60 s. Not
    /// from the RFCs.
    #[must_use]
    pub fn give_up_after(mut self, duration: Duration) -> Self {
        self.give_up_after = bounded(duration);
        self
    }
}
