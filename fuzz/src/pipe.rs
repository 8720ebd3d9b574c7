//! A transport in memory whose bytes the fuzzer delivers in parts, alters and cuts off, and a runtime
//! without sockets whose clock the fuzzer moves.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use rserpool::proto::wire::{Bytes, Ppid, TransportAddress, TransportProtocol, UserMessage};
use rserpool::runtime::{RegisteredSocket, Runtime, Socket, Timer};
use rserpool::transport::{Connection, Endpoint, Event, Purpose, SendError, Transport};

/// The two directions of a connection, and whether it takes further bytes.
#[derive(Debug, Default)]
pub struct Wire {
    pub directions: [Direction; 2],
    pub stalled: bool,
}

/// One direction of a connection.
#[derive(Debug, Default)]
pub struct Direction {
    /// Bytes that were sent and not received yet.
    pub bytes: VecDeque<u8>,
    /// Number of bytes that may be received.
    pub delivered: usize,
    /// True if no bytes follow.
    pub ended: bool,
    /// True if the connection is lost after the bytes.
    pub lost: bool,
}

#[derive(Debug)]
struct End {
    wire: Arc<Mutex<Wire>>,
    /// The direction in which this end sends.
    direction: usize,
    peer: TransportAddress,
    established: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("a target has one thread")
}

fn address() -> TransportAddress {
    TransportAddress::tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, 3863)))
}

impl Connection for End {
    fn peer(&self) -> &TransportAddress {
        &self.peer
    }

    fn poll_event(&mut self, _: &mut Context<'_>) -> Poll<Event> {
        if !std::mem::replace(&mut self.established, true) {
            return Poll::Ready(Event::Established { local: address(), peer: address() });
        }
        let mut wire = lock(&self.wire);
        let incoming = &mut wire.directions[1 - self.direction];
        let length = incoming.delivered.min(incoming.bytes.len());
        if length > 0 {
            incoming.delivered -= length;
            let bytes: Bytes = incoming.bytes.drain(..length).collect();
            return Poll::Ready(Event::Message(UserMessage::new(Ppid::NONE, bytes)));
        }
        match incoming {
            Direction { lost: true, .. } => {
                Poll::Ready(Event::Lost(io::ErrorKind::ConnectionReset.into()))
            }
            Direction { ended: true, bytes, .. } if bytes.is_empty() => Poll::Ready(Event::Closed),
            _ => Poll::Pending,
        }
    }

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<()> {
        if lock(&self.wire).stalled { Poll::Pending } else { Poll::Ready(()) }
    }

    fn send(&mut self, message: UserMessage) -> Result<(), SendError> {
        let outgoing = &mut lock(&self.wire).directions[self.direction];
        if outgoing.ended || outgoing.lost {
            return Err(SendError::NotConnected);
        }
        outgoing.bytes.extend(&message.payload);
        Ok(())
    }

    fn poll_close(&mut self, _: &mut Context<'_>) -> Poll<()> {
        lock(&self.wire).directions[self.direction].ended = true;
        Poll::Ready(())
    }
}

/// The transport. It has one endpoint that accepts.
#[derive(Debug, Clone, Default)]
pub struct Pipes(Arc<Mutex<Opened>>);

#[derive(Debug, Default)]
struct Opened {
    waiting: VecDeque<End>,
    last: Arc<Mutex<Wire>>,
}

impl Pipes {
    /// Returns what is between the ends of the last connection.
    pub fn wire(&self) -> Arc<Mutex<Wire>> {
        Arc::clone(&lock(&self.0).last)
    }
}

impl Transport for Pipes {
    fn protocol(&self) -> TransportProtocol {
        TransportProtocol::Tcp
    }

    fn open(
        &self,
        _: &Arc<dyn Runtime>,
        _: Purpose,
        listen: Option<&TransportAddress>,
    ) -> io::Result<Box<dyn Endpoint>> {
        Ok(Box::new(PipeEndpoint { pipes: self.clone(), local: listen.cloned() }))
    }
}

#[derive(Debug)]
struct PipeEndpoint {
    pipes: Pipes,
    local: Option<TransportAddress>,
}

impl Endpoint for PipeEndpoint {
    fn local(&self) -> Option<&TransportAddress> {
        self.local.as_ref()
    }

    fn connect(&mut self, to: &TransportAddress) -> Box<dyn Connection> {
        let wire = Arc::<Mutex<Wire>>::default();
        let end = |direction, established| End {
            wire: Arc::clone(&wire),
            direction,
            peer: to.clone(),
            established,
        };
        let mut opened = lock(&self.pipes.0);
        opened.waiting.clear();
        opened.waiting.push_back(end(1, true));
        opened.last = Arc::clone(&wire);
        Box::new(end(0, false))
    }

    fn poll_accept(&mut self, _: &mut Context<'_>) -> Poll<io::Result<Box<dyn Connection>>> {
        if self.local.is_none() {
            return Poll::Pending;
        }
        match lock(&self.pipes.0).waiting.pop_front() {
            Some(end) => Poll::Ready(Ok(Box::new(end))),
            None => Poll::Pending,
        }
    }
}

/// A runtime whose tasks and clock the fuzzer drives.
#[derive(Debug, Clone)]
pub struct Driven(Arc<Mutex<State>>);

struct State {
    now: Instant,
    tasks: Vec<BoxFuture<'static, ()>>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("now", &self.now).finish_non_exhaustive()
    }
}

impl Default for Driven {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(State { now: Instant::now(), tasks: Vec::new() })))
    }
}

impl Driven {
    /// Polls each task once.
    pub fn run(&self) {
        let mut tasks = std::mem::take(&mut lock(&self.0).tasks);
        tasks.retain_mut(|task| {
            task.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending()
        });
        lock(&self.0).tasks.append(&mut tasks);
    }

    /// Ends the tasks, which own the runtime.
    pub fn stop(&self) {
        let tasks = std::mem::take(&mut lock(&self.0).tasks);
        drop(tasks);
    }

    /// Moves the clock.
    pub fn pass(&self, time: Duration) {
        lock(&self.0).now += time;
    }
}

struct Alarm {
    runtime: Driven,
    deadline: Instant,
}

impl Future for Alarm {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        if self.runtime.now() < self.deadline { Poll::Pending } else { Poll::Ready(()) }
    }
}

impl Timer for Alarm {
    fn reset(mut self: Pin<&mut Self>, deadline: Instant) {
        self.deadline = deadline;
    }
}

impl Runtime for Driven {
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        lock(&self.0).tasks.push(task);
    }

    fn timer(&self, deadline: Instant) -> Pin<Box<dyn Timer>> {
        Box::pin(Alarm { runtime: self.clone(), deadline })
    }

    fn register(&self, _: Socket) -> io::Result<Box<dyn RegisteredSocket>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn now(&self) -> Instant {
        lock(&self.0).now
    }
}
