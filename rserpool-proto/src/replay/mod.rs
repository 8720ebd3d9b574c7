//! Checkpoint and replay: requests and replies over a session, each answered exactly once as the
//! client sees it, whatever becomes of the servers.
//!
//! The client numbers its requests and keeps each until it is answered. The server works them
//! off in order. After a request, before its reply, it sends a *checkpoint* as the session's
//! cookie: its state, up to which request that holds, and those replies which the client has not
//! said yet that it has. When the server dies, the next one is given the checkpoint, and then all
//! requests that the client keeps. It answers from the checkpoint what is done, does what is not,
//! and the client drops what it has seen before.
//!
//! A server may send its checkpoint less often than after each request. The requests since the
//! last one are then done again by the next server, on the same state, and if it comes to other
//! replies than the one before, the client may see a reply that the state does not remember:
//! that is for services whose replies follow from state and request alone.
//!
//! Where a checkpoint is refused, or lost, the session is over, unless the client allows to
//! start afresh: then the server begins a new *epoch* of the session with a new state, and the
//! client sends again, under new numbers, what is not answered.
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

/// After so many requests at the latest, a server sends a checkpoint: clients keep no more than
/// that of what they have replies to.
pub const MAX_CHECKPOINT_INTERVAL: u32 = 64;

/// Why a server does not go on with a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RefusalReason {
    /// The session began with another server, of which this one was given no checkpoint.
    #[error("the server was given no checkpoint of the session")]
    NoCheckpoint,
    /// The checkpoint is forged, foreign, expired, replayed or broken.
    #[error("the server does not accept the checkpoint")]
    CheckpointRefused,
    /// A request number was left out, or answered and acknowledged before.
    #[error("the requests were not in order")]
    OutOfOrder,
    /// The state after a request does not fit a cookie.
    #[error("the server's state is too large for a checkpoint")]
    StateTooLarge,
    /// A reason that we do not know.
    #[error("the server refused for reason {0}")]
    Other(u8),
}
