//! A service for benchmarks.

use rserpool::{Bytes, InvalidState, Service};

/// A service that counts the requests of a session.
#[derive(Debug, Default)]
pub struct Counter(u64);

impl Service for Counter {
    async fn handle(&mut self, _: Bytes) -> Bytes {
        self.0 += 1;
        self.0.to_be_bytes().to_vec().into()
    }

    fn save(&self) -> Result<Vec<u8>, InvalidState> {
        Ok(self.0.to_be_bytes().to_vec())
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), InvalidState> {
        let state = state.try_into().map_err(|_| InvalidState::new("not a count"))?;
        self.0 = u64::from_be_bytes(state);
        Ok(())
    }
}
