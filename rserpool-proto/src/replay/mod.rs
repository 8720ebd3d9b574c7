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
//! If a checkpoint is refused or lost, the session is over, unless the client allows it to start
//! afresh. The client then begins a new *epoch* of the session, for which the server creates a new
//! state, and sends the unanswered requests again under new numbers.
//!
//! | file | what is in it |
//! |---|---|
//! | `frame.rs` | how requests and replies look in the session's messages |
//! | `client.rs` | the client's side |
//! | `server.rs` | the server's side |

mod client;
mod frame;
mod server;

pub use client::{Client, ClientEvent};
pub use frame::{Epoch, Frame, InvalidFrame, RequestNumber};
pub use server::{Action, InvalidCheckpoint, Server};

/// The maximum number of requests between two checkpoints of a server. A client that keeps more
/// answered requests than this submits no further ones.
pub const MAX_CHECKPOINT_INTERVAL: u32 = 64;

/// The reason for which a server refuses to continue a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RefusalReason {
    /// The session began at another server, and this server received no checkpoint of it.
    #[error("the server received no checkpoint of the session")]
    NoCheckpoint,
    /// The checkpoint is forged, from another service, expired, replayed or corrupt.
    #[error("the server rejected the checkpoint")]
    CheckpointRefused,
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
