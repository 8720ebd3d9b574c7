//! The connections of one task, each polled only after its waker was called.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use futures::task::AtomicWaker;
use rserpool_proto::wire::{TransportAddress, UserMessage};
use rserpool_proto::{ConnectionId, Identity};
use slab::Slab;

use crate::transport::{Connection, Event, SendError};
use crate::turns::Turns;

/// Maximum time that a closed connection may take to write its remaining data.
const LINGER: Duration = Duration::from_secs(2);

/// The connections of a task, by the identifiers that the state machine gave them. An operation on
/// a connection queues the connection, but need not wake the task: the task polls connections until
/// none is queued.
#[derive(Debug)]
pub(crate) struct Connections {
    slots: Slab<Slot>,
    names: HashMap<ConnectionId, usize>,
    woken: Arc<Woken>,
    /// Closed connections that still send their last data: the time at which each is dropped, the
    /// index of its slot, and the slot's generation, in the order of the times. If the slot has
    /// another generation now, the connection has been removed already.
    lingering: VecDeque<(Instant, usize, u64)>,
    generation: u64,
}

#[derive(Debug)]
struct Slot {
    name: ConnectionId,
    connection: Box<dyn Connection>,
    signal: Arc<Signal>,
    waker: Waker,
    closing: bool,
    /// True for a connection of a client: no event is read from it while its outgoing messages wait
    /// to be written.
    is_client: bool,
    generation: u64,
}

/// The queue of connections to be polled.
#[derive(Debug, Default)]
struct Woken {
    turns: Mutex<Turns>,
    task: AtomicWaker,
}

impl Woken {
    fn turns(&self) -> MutexGuard<'_, Turns> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Signal {
    index: usize,
    host: usize,
    queued: AtomicBool,
    woken: Arc<Woken>,
}

impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signal").field("index", &self.index).finish_non_exhaustive()
    }
}

impl Signal {
    /// Queues the connection to be polled. Returns false if the connection was queued already.
    fn enqueue(&self) -> bool {
        let new = !self.queued.swap(true, Ordering::AcqRel);
        if new {
            self.woken.turns().push(self.host, self.index);
        }
        new
    }

    /// Queues the connection from outside of the task, and wakes the task.
    fn raise(&self) {
        if self.enqueue() {
            self.woken.task.wake();
        }
    }
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        self.raise();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.raise();
    }
}

impl Connections {
    pub(crate) fn new() -> Self {
        Self {
            slots: Slab::new(),
            names: HashMap::new(),
            woken: Arc::default(),
            lingering: VecDeque::new(),
            generation: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Adds a connection to a peer.
    pub(crate) fn insert(&mut self, name: ConnectionId, connection: Box<dyn Connection>) {
        self.add(name, connection, false);
    }

    /// Adds a connection of a client, which sends requests and receives answers. Nothing more is
    /// read from it while its answers wait to be written.
    pub(crate) fn insert_client(&mut self, name: ConnectionId, connection: Box<dyn Connection>) {
        self.add(name, connection, true);
    }

    fn add(&mut self, name: ConnectionId, connection: Box<dyn Connection>, is_client: bool) {
        let entry = self.slots.vacant_entry();
        let index = entry.key();
        let woken = Arc::clone(&self.woken);
        let host = woken.turns().join(connection.peer().host());
        let signal = Arc::new(Signal { index, host, queued: AtomicBool::new(false), woken });
        signal.enqueue();
        let waker = Waker::from(Arc::clone(&signal));
        self.generation += 1;
        let generation = self.generation;
        let closing = false;
        entry.insert(Slot { name, connection, signal, waker, closing, is_client, generation });
        self.names.insert(name, index);
    }

    /// Queues a message to send; it is written when the connections are polled.
    pub(crate) fn send(
        &mut self,
        name: ConnectionId,
        message: UserMessage,
    ) -> Result<(), SendError> {
        let index = *self.names.get(&name).ok_or(SendError::NotConnected)?;
        let slot = &mut self.slots[index];
        slot.connection.send(message)?;
        slot.signal.enqueue();
        Ok(())
    }

    /// Returns the authenticated identity of the other end of a connection.
    pub(crate) fn identity(&self, name: ConnectionId) -> Option<Identity> {
        self.slots[*self.names.get(&name)?].connection.identity()
    }

    /// Returns the round-trip time, where the transport knows it.
    pub(crate) fn round_trip_time(&mut self, name: ConnectionId) -> Option<Duration> {
        let slot = &mut self.slots[*self.names.get(&name)?];
        slot.connection.paths()?.round_trip_time().ok()
    }

    /// Returns the addresses of both ends, for a transport whose addresses can change.
    pub(crate) fn addresses(
        &mut self,
        name: ConnectionId,
    ) -> Option<(TransportAddress, TransportAddress)> {
        let slot = &mut self.slots[*self.names.get(&name)?];
        let paths = slot.connection.paths()?;
        Some((paths.local().ok()?, paths.peer().ok()?))
    }

    pub(crate) fn contains(&self, name: ConnectionId) -> bool {
        self.names.contains_key(&name)
    }

    /// Removes a connection and returns it.
    pub(crate) fn take(&mut self, name: ConnectionId) -> Option<Box<dyn Connection>> {
        let index = self.names.remove(&name)?;
        Some(self.remove(index).connection)
    }

    /// Drops a connection together with its unwritten data.
    pub(crate) fn abort(&mut self, name: ConnectionId) {
        if let Some(index) = self.names.remove(&name) {
            self.remove(index);
        }
    }

    fn remove(&mut self, index: usize) -> Slot {
        let slot = self.slots.remove(index);
        self.woken.turns().leave(slot.signal.host);
        slot
    }

    /// Closes a connection after its remaining data is written.
    pub(crate) fn close(&mut self, now: Instant, name: ConnectionId) {
        if let Some(index) = self.names.remove(&name) {
            let slot = &mut self.slots[index];
            slot.closing = true;
            slot.signal.enqueue();
            self.lingering.push_back((now + LINGER, index, slot.generation));
        }
    }

    pub(crate) fn close_all(&mut self, now: Instant) {
        let mut names: Vec<_> = self.names.keys().copied().collect();
        names.sort_unstable();
        for name in names {
            self.close(now, name);
        }
    }

    /// Returns the time at which to call [`Self::handle_timeout`] next.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.lingering.front().map(|(deadline, ..)| *deadline)
    }

    /// Drops the connections that have taken longer than [`LINGER`] to close.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        while let Some((deadline, index, generation)) = self.lingering.front().copied()
            && deadline <= now
        {
            self.lingering.pop_front();
            if self.slots.get(index).is_some_and(|slot| slot.generation == generation) {
                self.remove(index);
            }
        }
    }

    /// Polls for the next event of any connection; the hosts take turns. A connection is removed
    /// when its last event is returned.
    pub(crate) fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<(ConnectionId, Event)> {
        self.woken.task.register(cx.waker());
        loop {
            let next = self.woken.turns().pop();
            let Some(index) = next else { return Poll::Pending };
            let Some(slot) = self.slots.get_mut(index) else { continue };
            slot.signal.queued.store(false, Ordering::Release);
            let waker = slot.waker.clone();
            let cx = &mut Context::from_waker(&waker);
            if slot.closing {
                if slot.connection.poll_close(cx).is_ready() {
                    self.remove(index);
                }
                continue;
            }
            let connection = &mut slot.connection;
            if slot.is_client && connection.has_backlog() && connection.poll_ready(cx).is_pending()
            {
                continue;
            }
            if let Poll::Ready(event) = slot.connection.poll_event(cx) {
                let name = slot.name;
                if matches!(event, Event::Closed | Event::Lost(_)) {
                    self.names.remove(&name);
                    self.remove(index);
                } else {
                    slot.signal.enqueue();
                }
                return Poll::Ready((name, event));
            }
        }
    }
}
