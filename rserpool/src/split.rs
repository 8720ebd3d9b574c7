//! Sessions as streams and sinks, and their halves.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker, ready};

use bytes::Bytes;
use futures::sink::Sink;
use futures::stream::Stream;
use futures::task::AtomicWaker;
use rserpool_proto::session::Event;
use rserpool_proto::wire::{Ppid, UserMessage};

use crate::session::Session;
use crate::session_error::{SessionClosed, SessionSendError, TrySendError};

/// The half of a [`Session`] that sends. The session is aborted when both halves are dropped. If the
/// other half is dropped, its events are discarded while this one is used.
///
/// It is a [`Sink`] of messages.
#[derive(Debug)]
pub struct SessionSender(Half);

/// The half of a [`Session`] that receives. The session is aborted when both halves are dropped.
///
/// It is a [`Stream`] of events, which ends with the session.
#[derive(Debug)]
pub struct SessionReceiver(Half);

/// A session that two tasks share.
struct Shared {
    session: Mutex<Session>,
    tasks: Arc<Tasks>,
    /// Wakes the tasks of both halves, because any event of the session may concern either half.
    waker: Waker,
}

/// The tasks that wait for a session.
#[derive(Debug, Default)]
struct Tasks {
    sender: AtomicWaker,
    receiver: AtomicWaker,
}

impl Wake for Tasks {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.sender.wake();
        self.receiver.wake();
    }
}

struct Half(Arc<Shared>);

impl fmt::Debug for Half {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.session().fmt(f)
    }
}

impl Half {
    fn session(&self) -> MutexGuard<'_, Session> {
        self.0.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn poll<R>(
        &self,
        other: &AtomicWaker,
        poll: impl FnOnce(&mut Session, &mut Context<'_>) -> Poll<R>,
    ) -> Poll<R> {
        let polled = poll(&mut self.session(), &mut Context::from_waker(&self.0.waker));
        if polled.is_ready() {
            // The other half may wait for what this one has changed, and nothing else wakes it.
            other.wake();
        }
        polled
    }
}

pub(crate) fn split(session: Session) -> (SessionSender, SessionReceiver) {
    let tasks = Arc::new(Tasks::default());
    let waker = Waker::from(Arc::clone(&tasks));
    let shared = Arc::new(Shared { session: Mutex::new(session), tasks, waker });
    (SessionSender(Half(Arc::clone(&shared))), SessionReceiver(Half(shared)))
}

impl SessionSender {
    fn poll<R>(
        &self,
        cx: &Context<'_>,
        poll: impl FnOnce(&mut Session, &mut Context<'_>) -> Poll<R>,
    ) -> Poll<R> {
        let Tasks { sender, receiver } = &*self.0.0.tasks;
        sender.register(cx.waker());
        if Arc::strong_count(&self.0.0) == 1 {
            // Nobody receives any more, and unread events would hold the session up.
            let mut cx = Context::from_waker(&self.0.0.waker);
            while let Poll::Ready(Ok(_)) = self.0.session().poll_recv(&mut cx) {}
        }
        self.0.poll(receiver, poll)
    }

    /// Sends a message as [`Session::send`] does.
    ///
    /// # Errors
    ///
    /// Returns an error in the cases of [`Session::send`].
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before it is ready, the message was not sent.
    pub async fn send(
        &mut self,
        ppid: Ppid,
        payload: impl Into<Bytes>,
    ) -> Result<(), SessionSendError> {
        self.send_message(UserMessage::new(ppid, payload)).await
    }

    /// Sends a message as [`Session::send_message`] does.
    ///
    /// # Errors
    ///
    /// Returns an error in the cases of [`Session::send_message`].
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before it is ready, the message was not sent.
    pub async fn send_message(&mut self, message: UserMessage) -> Result<(), SessionSendError> {
        let mut message = Some(message);
        poll_fn(|cx| self.poll(cx, |session, cx| session.poll_send_message(cx, &mut message))).await
    }

    /// Sends a message if there is room for it now: see [`Session::try_send`].
    ///
    /// # Errors
    ///
    /// Returns an error in the cases of [`Session::try_send`].
    pub fn try_send(&mut self, message: UserMessage) -> Result<(), TrySendError> {
        let mut message = Some(message);
        let receiver = &self.0.0.tasks.receiver;
        match self.0.poll(receiver, |session, cx| session.poll_send_message(cx, &mut message)) {
            Poll::Ready(sent) => Ok(sent?),
            Poll::Pending => message.map_or(Ok(()), |message| Err(TrySendError::NoRoom(message))),
        }
    }

    /// Fails over as [`Session::fail_over`] does.
    pub fn fail_over(&mut self) {
        self.0.session().fail_over();
        self.0.0.waker.wake_by_ref();
    }

    /// Closes the session in good order, after all messages are written. The receiving half then
    /// returns [`SessionClosed::Here`].
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, closing continues with the next call, or the session is aborted when
    /// the halves are dropped.
    pub async fn close(&mut self) {
        poll_fn(|cx| self.poll(cx, Session::poll_close)).await;
    }

    /// Joins the halves again.
    ///
    /// # Errors
    ///
    /// Returns both halves as the error if they are of different sessions.
    pub fn reunite(self, receiver: SessionReceiver) -> Result<Session, (Self, SessionReceiver)> {
        if !Arc::ptr_eq(&self.0.0, &receiver.0.0) {
            return Err((self, receiver));
        }
        drop(receiver);
        let shared = Arc::try_unwrap(self.0.0).map_err(|shared| {
            let half = Half(Arc::clone(&shared));
            (Self(Half(shared)), SessionReceiver(half))
        })?;
        Ok(shared.session.into_inner().unwrap_or_else(PoisonError::into_inner))
    }
}

impl SessionReceiver {
    fn poll(&self, cx: &Context<'_>) -> Poll<Result<Event, SessionClosed>> {
        let Tasks { sender, receiver } = &*self.0.0.tasks;
        receiver.register(cx.waker());
        self.0.poll(sender, Session::poll_recv)
    }

    /// Waits for the next event, as [`Session::recv`] does.
    ///
    /// # Errors
    ///
    /// Returns an error if the session is over.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, no event is lost.
    pub async fn recv(&mut self) -> Result<Event, SessionClosed> {
        poll_fn(|cx| self.poll(cx)).await
    }
}

impl Drop for SessionReceiver {
    fn drop(&mut self) {
        self.0.0.tasks.sender.wake();
    }
}

impl Stream for SessionReceiver {
    type Item = Event;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        self.poll(cx).map(Result::ok)
    }
}

/// Returns the events. The stream ends with the session.
impl Stream for Session {
    type Item = Event;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        self.get_mut().poll_recv(cx).map(Result::ok)
    }
}

impl Sink<UserMessage> for Session {
    type Error = SessionSendError;

    fn poll_ready(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.get_mut().poll_queued(cx)
    }

    fn start_send(self: Pin<&mut Self>, message: UserMessage) -> Result<(), Self::Error> {
        self.get_mut().queue(message)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.get_mut().poll_queued(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        let session = self.get_mut();
        ready!(session.poll_queued(cx))?;
        session.poll_close(cx).map(Ok)
    }
}

impl Sink<UserMessage> for SessionSender {
    type Error = SessionSendError;

    fn poll_ready(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.poll(cx, Session::poll_queued)
    }

    fn start_send(self: Pin<&mut Self>, message: UserMessage) -> Result<(), Self::Error> {
        self.0.session().queue(message)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.poll(cx, Session::poll_queued)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.poll(cx, |session, cx| {
            ready!(session.poll_queued(cx))?;
            session.poll_close(cx).map(Ok)
        })
    }
}
