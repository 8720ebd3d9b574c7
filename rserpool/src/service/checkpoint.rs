//! Checkpoints of sessions, at the client.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use rserpool_proto::replay::Progress;

/// Version of the encoding.
const VERSION: u8 = 1;

/// The progress of a [`RequestSession`](crate::RequestSession), with which it can be continued later,
/// also in another process ([`RequestConfig::resume`](crate::RequestConfig::resume)).
///
/// It contains the state of the service, sealed by a server, and the unanswered requests in clear.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    pub(crate) cookie: Option<Bytes>,
    pub(super) progress: Progress,
}

/// Error of [`Checkpoint::from_bytes`]: the bytes are damaged, or of another version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a checkpoint of a session")]
#[non_exhaustive]
pub struct InvalidCheckpoint;

impl Checkpoint {
    /// Returns the number of requests that were not answered. They are sent again when the session is
    /// continued.
    #[must_use]
    pub fn unanswered(&self) -> usize {
        self.progress.unanswered()
    }

    /// Encodes the checkpoint to be stored.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        let (cookie, progress) = (self.cookie.as_deref(), self.progress.encode());
        let length = cookie.map_or(0, <[u8]>::len);
        let mut bytes = BytesMut::with_capacity(6 + length + progress.len());
        bytes.put_slice(&[VERSION, u8::from(cookie.is_some())]);
        bytes.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
        bytes.put_slice(cookie.unwrap_or_default());
        bytes.put_slice(&progress);
        bytes.freeze()
    }

    /// Decodes what [`Self::to_bytes`] returned.
    ///
    /// # Errors
    ///
    /// Returns an error if the bytes are not a checkpoint.
    pub fn from_bytes(bytes: impl Into<Bytes>) -> Result<Self, InvalidCheckpoint> {
        let mut bytes = bytes.into();
        let version = bytes.try_get_u8().map_err(|_| InvalidCheckpoint)?;
        let has_cookie = bytes.try_get_u8().map_err(|_| InvalidCheckpoint)?;
        let length = bytes.try_get_u32().map_err(|_| InvalidCheckpoint)? as usize;
        if version != VERSION || length > bytes.len() {
            return Err(InvalidCheckpoint);
        }
        let cookie = bytes.split_to(length);
        let progress = Progress::decode(bytes).map_err(|_| InvalidCheckpoint)?;
        Ok(Self { cookie: (has_cookie != 0).then_some(cookie), progress })
    }
}
