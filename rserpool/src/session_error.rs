//! Errors of sessions, at either end.

use std::io;

use rserpool_proto::session::SessionError;
use rserpool_proto::wire::{Ppid, UserMessage};

use crate::transport::SendError;

/// The reason why a session is over, at either of its ends.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SessionClosed {
    /// The other end closed the session in good order.
    #[error("the other end closed the session")]
    ByPeer,
    /// This program closed the session, at this end.
    #[error("the session was closed here")]
    Here,
    /// No element can continue the session. Reported to the pool user.
    #[error(transparent)]
    Failed(#[from] SessionError),
    /// The connection to the pool user broke. The pool user may fail over to another element.
    /// Reported to the element.
    #[error("the connection to the pool user is lost: {0}")]
    Lost(io::ErrorKind),
}

/// Error of sending a message in a session.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SessionSendError {
    /// The session is over.
    #[error(transparent)]
    Closed(#[from] SessionClosed),
    /// The message cannot be sent. The session continues.
    #[error(transparent)]
    Message(#[from] SendError),
}

/// Error of [`Session::try_send`](crate::Session::try_send).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TrySendError {
    /// There is no room for the message now. It is returned.
    #[error("there is no room for the message now")]
    NoRoom(UserMessage),
    /// The message cannot be sent.
    #[error(transparent)]
    Send(#[from] SessionSendError),
}

/// Returns `message`, or an error if its identifier is reserved for the control channel.
pub(crate) fn data(message: UserMessage) -> Result<UserMessage, SendError> {
    match message.ppid {
        Ppid::ASAP => Err(SendError::Reserved),
        _ => Ok(message),
    }
}
