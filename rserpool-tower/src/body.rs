//! Bodies that can be sent again if they were not read.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use hyper::body::{Body, Frame, SizeHint};

/// A body that is taken out of its [`Slot`] when it is first read. Until then, the [`Slot`] can
/// give it to another request.
pub(crate) struct Reclaimable<B>(State<B>);

enum State<B> {
    Untouched(Slot<B>),
    Taken(Pin<Box<B>>),
}

/// Shared place that contains a body until it is first read.
pub(crate) struct Slot<B>(Arc<Mutex<Option<Pin<Box<B>>>>>);

impl<B> Slot<B> {
    pub(crate) fn new(body: B) -> Self {
        Self(Arc::new(Mutex::new(Some(Box::pin(body)))))
    }

    /// Returns a body for a request. Only one of the bodies can be read.
    pub(crate) fn body(&self) -> Reclaimable<B> {
        Reclaimable(State::Untouched(Self(Arc::clone(&self.0))))
    }

    /// Returns whether the body has been read, at least in part.
    pub(crate) fn is_taken(&self) -> bool {
        self.lock().is_none()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Pin<Box<B>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<B> std::fmt::Debug for Reclaimable<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reclaimable").finish_non_exhaustive()
    }
}

impl<B: Body> Body for Reclaimable<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let state = &mut self.get_mut().0;
        if let State::Untouched(slot) = state {
            let Some(body) = slot.lock().take() else { return Poll::Ready(None) };
            *state = State::Taken(body);
        }
        match state {
            State::Taken(body) => body.as_mut().poll_frame(cx),
            State::Untouched(_) => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            State::Taken(body) => body.is_end_stream(),
            State::Untouched(slot) => slot.lock().as_ref().is_none_or(|body| body.is_end_stream()),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            State::Taken(body) => body.size_hint(),
            State::Untouched(slot) => {
                slot.lock().as_ref().map_or_else(SizeHint::default, |body| body.size_hint())
            }
        }
    }
}
