//! What a session can be told.

use std::time::Duration;

use crate::wire::TransportProtocol;

/// The settings of a session.
#[derive(Debug, Clone)]
pub struct SessionConfig {
    pub(super) protocol: TransportProtocol,
    pub(super) connect_timeout: Duration,
    pub(super) retry_delay: Duration,
    pub(super) give_up_after: Duration,
}

impl SessionConfig {
    /// The defaults for sessions over `protocol`.
    #[must_use]
    pub fn new(protocol: TransportProtocol) -> Self {
        Self {
            protocol,
            connect_timeout: Duration::from_secs(5),
            retry_delay: Duration::from_millis(100),
            give_up_after: Duration::from_secs(60),
        }
    }

    /// How long an element may take to accept a connection before the next one is tried: 5 s,
    /// rsplib's.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How long to wait before the pool is resolved again when none of its elements accepted a
    /// connection: 100 ms, ours, where rsplib has 250 ms.
    #[must_use]
    pub fn retry_delay(mut self, delay: Duration) -> Self {
        self.retry_delay = delay;
        self
    }

    /// How long a session may be without an element before it fails: 60 s, ours.
    #[must_use]
    pub fn give_up_after(mut self, duration: Duration) -> Self {
        self.give_up_after = duration;
        self
    }
}
