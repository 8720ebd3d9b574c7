//! Associations that are being established.

use std::io;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use socket2::Socket;

use crate::sys::AssociationId;

/// An association that the endpoint establishes on behalf of a connection.
#[derive(Debug)]
pub(super) struct Dial(Mutex<DialState>);

#[derive(Debug)]
pub(super) enum DialState {
    Waiting(Option<Waker>),
    Up(Socket, AssociationId),
    Failed,
    Done,
}

impl Dial {
    pub(super) fn new() -> Self {
        Self(Mutex::new(DialState::Waiting(None)))
    }

    pub(super) fn with<R>(&self, act: impl FnOnce(&mut DialState) -> R) -> R {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn finish(&self, outcome: DialState) {
        let before = self.with(|state| std::mem::replace(state, outcome));
        if let DialState::Waiting(Some(waker)) = before {
            waker.wake();
        }
    }

    /// Polls for the outcome, which is returned only once.
    pub(super) fn poll(&self, cx: &mut Context<'_>) -> Poll<io::Result<(Socket, AssociationId)>> {
        self.with(|state| match std::mem::replace(state, DialState::Done) {
            DialState::Waiting(_) => {
                *state = DialState::Waiting(Some(cx.waker().clone()));
                Poll::Pending
            }
            DialState::Up(socket, association) => Poll::Ready(Ok((socket, association))),
            DialState::Failed | DialState::Done => {
                Poll::Ready(Err(io::ErrorKind::ConnectionRefused.into()))
            }
        })
    }
}
