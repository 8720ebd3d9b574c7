//! The progress of a client's session, as it is stored to continue the session later.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::{Epoch, InvalidCheckpoint};

/// The exclusive upper bound of the request numbers in a stored session, so that later additions to
/// them cannot overflow.
const MAX_NUMBER: u64 = 1 << 62;

/// The progress of a client, with which another [`Client`](super::Client) can continue the session.
/// The last cookie is needed as well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    pub(super) epoch: Epoch,
    /// The number of requests that were answered in earlier epochs.
    pub(super) before: u64,
    /// The number of the first of `requests`.
    pub(super) first: u64,
    /// The number of the last answered request.
    pub(super) acknowledged: u64,
    /// The requests that may have to be sent again.
    pub(super) requests: Vec<StoredRequest>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StoredRequest {
    pub(super) body: Bytes,
    /// The number of servers that crashed while they executed the request.
    pub(super) crashes: u32,
}

impl Progress {
    /// Returns the number of requests that are not answered.
    #[must_use]
    pub fn unanswered(&self) -> usize {
        (self.first + self.requests.len() as u64 - 1 - self.acknowledged) as usize
    }

    /// Encodes the progress.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let bodies: usize = self.requests.iter().map(|request| 8 + request.body.len()).sum();
        let mut bytes = BytesMut::with_capacity(28 + bodies);
        bytes.put_u32(self.epoch.0);
        bytes.put_u64(self.before);
        bytes.put_u64(self.first);
        bytes.put_u64(self.acknowledged);
        for StoredRequest { body, crashes } in &self.requests {
            bytes.put_u32(*crashes);
            bytes.put_u32(u32::try_from(body.len()).unwrap_or(u32::MAX));
            bytes.put_slice(body);
        }
        bytes.freeze()
    }

    /// Decodes what [`Self::encode`] returned. The requests share the memory of `bytes`.
    ///
    /// # Errors
    ///
    /// Returns an error if the bytes are damaged.
    pub fn decode(mut bytes: Bytes) -> Result<Self, InvalidCheckpoint> {
        let progress = Self::read(&mut bytes).ok_or(InvalidCheckpoint)?;
        let Self { before, first, acknowledged, .. } = progress;
        let next = first.checked_add(progress.requests.len() as u64);
        let valid = next.is_some_and(|next| {
            // The client discards only answered requests, so the first stored request is at most
            // the first unanswered one.
            (1..=acknowledged.saturating_add(1)).contains(&first)
                && acknowledged < next
                && next.checked_add(before).is_some_and(|last| last < MAX_NUMBER)
        });
        valid.then_some(progress).ok_or(InvalidCheckpoint)
    }

    fn read(bytes: &mut Bytes) -> Option<Self> {
        let epoch = Epoch(bytes.try_get_u32().ok()?);
        let before = bytes.try_get_u64().ok()?;
        let first = bytes.try_get_u64().ok()?;
        let acknowledged = bytes.try_get_u64().ok()?;
        let mut requests = Vec::new();
        while !bytes.is_empty() {
            let crashes = bytes.try_get_u32().ok()?;
            let length = bytes.try_get_u32().ok()? as usize;
            if length > bytes.len() {
                return None;
            }
            requests.push(StoredRequest { body: bytes.split_to(length), crashes });
        }
        Some(Self { epoch, before, first, acknowledged, requests })
    }
}
