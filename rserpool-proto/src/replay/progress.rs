//! The progress of a client's session, as it is stored to continue the session later.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::{Epoch, InvalidCheckpoint};

/// The numbers of a stored session are below this, so that they can be added to.
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
    /// The requests that may have to be sent again. Answered ones come first.
    pub(super) requests: Vec<StoredRequest>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StoredRequest {
    pub(super) body: Bytes,
    pub(super) answered: bool,
    /// The number of servers that crashed while they executed the request.
    pub(super) crashes: u32,
}

impl Progress {
    /// Returns the number of requests that are not answered.
    #[must_use]
    pub fn unanswered(&self) -> usize {
        self.requests.iter().filter(|request| !request.answered).count()
    }

    /// Encodes the progress.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let bodies: usize = self.requests.iter().map(|request| 9 + request.body.len()).sum();
        let mut bytes = BytesMut::with_capacity(20 + bodies);
        bytes.put_u32(self.epoch.0);
        bytes.put_u64(self.before);
        bytes.put_u64(self.first);
        for StoredRequest { body, answered, crashes } in &self.requests {
            bytes.put_u8(u8::from(*answered));
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
        let last = progress.first.checked_add(progress.requests.len() as u64);
        let last = last.and_then(|last| last.checked_add(progress.before));
        let in_order = progress.requests.is_sorted_by_key(|request| !request.answered);
        let valid = in_order && progress.first > 0 && last.is_some_and(|last| last < MAX_NUMBER);
        valid.then_some(progress).ok_or(InvalidCheckpoint)
    }

    fn read(bytes: &mut Bytes) -> Option<Self> {
        let epoch = Epoch(bytes.try_get_u32().ok()?);
        let before = bytes.try_get_u64().ok()?;
        let first = bytes.try_get_u64().ok()?;
        let mut requests = Vec::new();
        while !bytes.is_empty() {
            let answered = bytes.get_u8() != 0;
            let crashes = bytes.try_get_u32().ok()?;
            let length = bytes.try_get_u32().ok()? as usize;
            if length > bytes.len() {
                return None;
            }
            requests.push(StoredRequest { body: bytes.split_to(length), answered, crashes });
        }
        Some(Self { epoch, before, first, requests })
    }
}
