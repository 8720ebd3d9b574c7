//! Checkpoint and replay: requests and replies over a session. To the client, each request is
//! answered exactly once, even if servers crash.
//!
//! The client numbers its requests. It keeps each request until the request is answered and
//! included in a checkpoint. The server executes the requests in order. After it executes a
//! request, and before it replies, the server sends a *checkpoint* as the session's cookie. The
//! checkpoint contains the server's state, the number of the last request that the state reflects,
//! and the replies that the client has not yet acknowledged. When the server crashes, the client
//! sends the checkpoint to the next server, followed by all requests that it keeps. If a request
//! was executed before the checkpoint, the next server repeats the reply that the checkpoint
//! contains. It executes the other requests. The client drops replies that it has already received.
//!
//! A server may send checkpoints less often than after each request. The next server then executes
//! the requests since the last checkpoint again, starting from the state in that checkpoint. If its
//! replies differ from those of the first execution, the client may have received a reply that the
//! state does not reflect. Less frequent checkpoints are therefore only for services whose replies
//! depend on nothing but the state and the request.
//!
//! All answers that the client has not acknowledged have to fit into the checkpoint, together with
//! the state. If an answer does not fit, the server holds it back and asks the client to
//! acknowledge earlier answers. Meanwhile, further requests wait at the server, up to [`WINDOW`]
//! bytes. If an answer or a state would not fit even without earlier answers, the server fails that
//! request and restores the state from before the request.
//!
//! A request may crash its server. After a crash, the client marks the requests that it sends
//! again, and the server announces each marked request before it executes it. At the next crash,
//! the client therefore knows which request was being executed. After a configured number of
//! crashes, the client asks the server to fail that request instead of executing it. Such failures
//! are answers: they are numbered, and stored in checkpoints.
//!
//! If a checkpoint is refused or lost, the session ends, unless the client allows it to start from
//! the initial state. In that case, the client begins a new *epoch* of the session, and the server
//! creates a new state for this epoch. The client then sends the unanswered requests again, with
//! new numbers.
//!
//! | file | contents |
//! |---|---|
//! | `frame.rs` | the encoding of requests and replies in the session's messages |
//! | `answer.rs` | answers to requests, and their encoding in a checkpoint while unacknowledged |
//! | `client.rs` | the client's side |
//! | `deadline.rs` | time limits of requests |
//! | `progress.rs` | the client's state in the form in which it is stored |
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

/// The maximum number of requests between two checkpoints of a server. A client keeps answered
/// requests that no checkpoint includes yet. While it keeps more than this number, it submits no
/// further requests.
pub const MAX_CHECKPOINT_INTERVAL: u32 = 64;

/// The maximum total size, in bytes, of the requests of one session that wait at the server. A
/// single request may be larger. Not from the RFCs.
pub const WINDOW: usize = 256 * 1024;

/// Returns the number of bytes of the [`WINDOW`] that a request of `length` bytes occupies.
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
