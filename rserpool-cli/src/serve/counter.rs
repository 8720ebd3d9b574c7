//! A service with state: it counts the requests of each session, and replies with the count.
//!
//! This file needs no code for failover: the framework keeps the count when a server crashes, and
//! counts no request twice.

use rserpool::proto::wire::Bytes;
use rserpool::{InvalidState, Service};

/// The count of one session.
#[derive(Debug, Default)]
pub(super) struct Counter(u64);

impl Service for Counter {
    async fn handle(&mut self, _request: Bytes) -> Bytes {
        self.0 = self.0.wrapping_add(1);
        Bytes::copy_from_slice(&self.0.to_be_bytes())
    }

    fn save(&self) -> Result<Vec<u8>, InvalidState> {
        Ok(self.0.to_be_bytes().to_vec())
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), InvalidState> {
        self.0 = read_count(state).ok_or_else(|| InvalidState::new("not a count"))?;
        Ok(())
    }
}

/// Parses a number of 64 bits in network byte order.
pub(crate) fn read_count(bytes: &[u8]) -> Option<u64> {
    bytes.try_into().ok().map(u64::from_be_bytes)
}
