//! Checkpoint and replay: requests and replies over a session. To the client, each request is
//! answered exactly once, even if servers crash.
//!
//! The client numbers its requests and keeps each until it is answered. The server executes them in
//! order. After a request, and before its reply, it sends a *checkpoint* as the session's cookie.
//! The checkpoint contains the server's state, the number of the last request in that state, and
//! the replies that the client has not yet acknowledged. When the server crashes, the client sends
//! the checkpoint to the next server, and then all requests that it keeps. The next server answers
//! the requests that were executed from the checkpoint and executes the others. The client drops
//! replies that it has already received.
//!
//! A server may send its checkpoint less often than after each request. The next server then
//! executes the requests since the last checkpoint again, on the same state. If its replies differ
//! from the earlier ones, the client may have received a reply that the state does not reflect. So
//! rarer checkpoints are only for services whose replies follow from state and request alone.
//!
//! All answers that the client has not acknowledged have to fit the checkpoint, beside the state. If
//! an answer does not fit, the server keeps it back and asks the client to acknowledge the earlier
//! ones. Meanwhile, further requests wait at the server, up to [`WINDOW`] bytes. If an answer or a
//! state does not even fit alone, the server fails that request and returns to the state before it.
//!
//! A request may crash its server. After a crash, the client marks the requests that it sends again,
//! and the server announces each before it executes it. So the client knows which request was being
//! executed at the next crash. After a number of crashes it has the request failed instead of
//! executed. Such failures are answers: they are numbered, and kept in checkpoints.
//!
//! If a checkpoint is refused or lost, the session is over, unless the client allows it to start
//! afresh. The client then begins a new *epoch* of the session, for which the server creates a new
//! state, and sends the unanswered requests again under new numbers.
//!
//! | file | what is in it |
//! |---|---|
//! | `frame.rs` | how requests and replies look in the session's messages |
//! | `answer.rs` | answers to requests, and the place of unacknowledged ones in a checkpoint |
//! | `client.rs` | the client's side |
//! | `deadline.rs` | limits of the time that a request may take |
//! | `progress.rs` | the client's side, as it is stored |
//! | `server.rs` | the server's side |

mod answer;
mod client;
mod deadline;
mod frame;
mod progress;
mod server;

pub use answer::{Answer, RequestFailure};
pub use client::{Client, ClientConfig, ClientEvent};
pub use deadline::RequestOptions;
pub use frame::{Epoch, Frame, InvalidFrame, RequestNumber};
pub use progress::Progress;
pub use server::{Action, InvalidCheckpoint, REACH_LENGTH, Server, ServerConfig, ServerError};

/// The maximum number of requests between two checkpoints of a server. A client that keeps more
/// answered requests than this submits no further ones.
pub const MAX_CHECKPOINT_INTERVAL: u32 = 64;

/// The maximum total size, in bytes, of the requests of one session that wait at the server. A single
/// request may be larger. Not from the RFCs.
pub const WINDOW: usize = 256 * 1024;

/// The size, in bytes, that a request of `length` bytes takes of the [`WINDOW`].
fn window_size(length: usize) -> usize {
    length + 64
}

/// The reason for which a server refuses to continue a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RefusalReason {
    /// The session began at another server, and this server received no checkpoint of it.
    #[error("the server received no checkpoint of the session")]
    NoCheckpoint,
    /// The checkpoint is forged, from another service, or corrupt.
    #[error("the server rejected the checkpoint")]
    CheckpointRefused,
    /// The server does not have the key with which the checkpoint is sealed.
    #[error("the checkpoint is sealed with a key that the server does not have")]
    UnknownKey,
    /// The checkpoint is too old, or the clocks of the servers differ.
    #[error("the checkpoint has expired by the server's clock")]
    Expired,
    /// The server has received a newer checkpoint of the session.
    #[error("the checkpoint is not the latest of the session")]
    Replayed,
    /// The service cannot restore the state in the checkpoint, for example because it is of another
    /// version of the program.
    #[error("the service cannot restore the state in the checkpoint")]
    StateRejected,
    /// The client skipped a request number.
    #[error("requests out of order")]
    OutOfOrder,
    /// The state after a request does not fit a cookie.
    #[error("the server's state is too large for a checkpoint")]
    StateTooLarge,
    /// A reason that this implementation does not know; contains its number.
    #[error("the server refused the session: unknown reason {0}")]
    Other(u8),
}

impl RefusalReason {
    /// Returns whether another server may accept the session: one with other keys, another clock,
    /// or another version of the program.
    #[must_use]
    pub fn depends_on_server(self) -> bool {
        match self {
            Self::CheckpointRefused
            | Self::UnknownKey
            | Self::Expired
            | Self::Replayed
            | Self::StateRejected
            | Self::Other(_) => true,
            Self::NoCheckpoint | Self::OutOfOrder | Self::StateTooLarge => false,
        }
    }
}
