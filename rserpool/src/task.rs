//! The background task that runs one state machine.

use std::future::poll_fn;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::channel::{mpsc, oneshot};
use futures::future::Shared;
use futures::stream::StreamExt;
use rserpool_proto::wire::{Ppid, TransportAddress};
use rserpool_proto::{ConnectionEvent, Machine, Output};

use crate::Network;
use crate::connections::Connections;
use crate::log::{self, ANYBODY, warn_limited};
use crate::timer::LazyTimer;
use crate::transport::multicast::Multicast;
use crate::transport::{Connection, Endpoint, Event, SendError, is_shortage};
use crate::wake_filter::WakeFilter;

/// Maximum number of connections of one task. Not from the RFCs. Further incoming ones are dropped.
const MAX_CONNECTIONS: usize = 65_536;

/// Maximum number of rounds in one poll of the task; then other tasks run, including the reactor,
/// which finds the sockets that are readable.
const ROUNDS: u32 = 128;

/// Maximum number of bytes received and sent in one poll of the task. This bounds the delay that a
/// host can cause with messages that are expensive to process. Bytes are counted instead of time
/// because reading the clock is a system call on some machines.
const BYTES: usize = 64 * 1024;

/// Pause in accepting connections after accepting failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Maximum delay of timers while there is input to read. The delay lets the task handle input that
/// arrived before a deadline before the timer. After this delay, the timer fires even if there is
/// more input.
const TIMER_SLACK: Duration = Duration::from_millis(200);

/// The part of a task that differs between registrar, element and pool user.
pub(crate) trait Role: Send + 'static {
    type Machine: Machine + Send;
    type Command: Send;

    /// Name of the role in the log.
    const NAME: &'static str;

    fn machine(&mut self) -> &mut Self::Machine;

    /// Handles a command of the task's owner. The machine's outputs are drained afterwards.
    fn handle_command(&mut self, now: Instant, command: Self::Command);

    fn handle_event(&mut self, now: Instant, event: <Self::Machine as Machine>::Event);

    /// Handles the drop of the task's handle.
    fn handle_abandoned(&mut self, now: Instant);

    /// Returns whether the task is finished, except for closing its connections.
    fn is_finished(&self) -> bool;
}

/// Future that is ready when a task has finished or panicked.
pub(crate) type Ended = Shared<oneshot::Receiver<()>>;

pub(crate) struct Task<R: Role> {
    role: R,
    network: Network,
    /// The endpoints, each with its protocol. No endpoint is left once the task is closing, so that
    /// no more connections are accepted.
    endpoints: Vec<(Ppid, WakeFilter<Box<dyn Endpoint>>)>,
    connections: Connections,
    commands: Option<mpsc::Receiver<R::Command>>,
    multicast: Vec<WakeFilter<Multicast>>,
    timer: LazyTimer,
    accept_again: Option<Instant>,
    /// Time at which the task was woken. The clock is not read again for each event.
    now: Instant,
    /// Number of bytes received and sent since `now`.
    bytes: usize,
    /// Sender whose drop, together with the task, makes its [`Ended`] ready.
    _ended: oneshot::Sender<()>,
}

impl<R: Role> Task<R> {
    /// Runs `role` in the background. Returns the channel for its commands; the task finishes some
    /// time after the sender is dropped.
    ///
    /// If a task panics, its state is dropped, so that the handle reports the same as when the
    /// runtime has stopped.
    pub(crate) fn spawn(
        mut role: R,
        network: &Network,
        endpoints: Vec<(Ppid, Box<dyn Endpoint>)>,
        multicast: impl IntoIterator<Item = Multicast>,
    ) -> (mpsc::Sender<R::Command>, Ended) {
        let (sender, commands) = mpsc::channel(16);
        let (guard, ended) = oneshot::channel();
        role.machine().start(network.now());
        let mut task = Some(Self {
            role,
            network: network.clone(),
            endpoints: endpoints
                .into_iter()
                .map(|(protocol, endpoint)| (protocol, WakeFilter::new(endpoint)))
                .collect(),
            connections: Connections::new(),
            commands: Some(commands),
            multicast: multicast.into_iter().map(WakeFilter::new).collect(),
            timer: LazyTimer::default(),
            accept_again: None,
            now: network.now(),
            bytes: 0,
            _ended: guard,
        });
        let run = move |cx: &mut Context<'_>| {
            let Some(running) = &mut task else { return Poll::Ready(()) };
            // The state after a panic is not used, only dropped.
            let polled = catch_unwind(AssertUnwindSafe(|| running.poll(cx)));
            if polled.is_err() {
                tracing::error!(task = R::NAME, "the task panicked and has stopped");
            }
            if !matches!(polled, Ok(Poll::Pending)) {
                task = None;
                return Poll::Ready(());
            }
            Poll::Pending
        };
        network.runtime().spawn(Box::pin(poll_fn(run)));
        (sender, ended.shared())
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.now = self.network.now();
        self.bytes = 0;
        for _ in 0..ROUNDS {
            self.drain();
            if self.role.is_finished() && !self.endpoints.is_empty() {
                self.endpoints.clear();
                self.connections.close_all(self.now);
            }
            // Poll each source in each round, so that none delays the others. Timers run when
            // nothing else is ready, or when they are overdue.
            let sources =
                [Self::poll_commands, Self::poll_multicast, Self::poll_accept, Self::poll_event];
            let mut idle = true;
            for source in sources {
                if source(self, cx).is_ready() {
                    idle = false;
                    self.drain();
                }
            }
            if (idle || self.timers_are_late()) && self.poll_timer(cx).is_ready() {
                idle = false;
                self.drain();
            }
            if self.endpoints.is_empty() && self.connections.len() == 0 {
                return Poll::Ready(());
            }
            if idle {
                return Poll::Pending;
            }
            if self.bytes >= BYTES {
                break;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn timers_are_late(&mut self) -> bool {
        let due = self.role.machine().poll_timeout();
        due.is_some_and(|due| due + TIMER_SLACK <= self.now)
    }

    /// Returns the endpoint that dials `to`: the one with the transport of `to`, or the only
    /// endpoint, which then reports the error.
    fn endpoint_for(
        &mut self,
        protocol: Ppid,
        to: &TransportAddress,
    ) -> Option<&mut Box<dyn Endpoint>> {
        let mut of_protocol = self.endpoints.iter_mut().filter(|(its, _)| *its == protocol);
        let fits = |endpoint: &WakeFilter<Box<dyn Endpoint>>| {
            endpoint.source.local().is_some_and(|local| local.protocol == to.protocol)
        };
        let first = of_protocol.next()?;
        if fits(&first.1) {
            return Some(&mut first.1.source);
        }
        let other = of_protocol.find(|(_, endpoint)| fits(endpoint));
        Some(&mut other.unwrap_or(first).1.source)
    }

    /// Handles all outputs of the state machine.
    fn drain(&mut self) {
        let (mut measured, mut events) = (Vec::new(), Vec::new());
        loop {
            while let Some(output) = self.role.machine().poll_output() {
                match output {
                    Output::Connect { connection, protocol, to } => {
                        if let Some(endpoint) = self.endpoint_for(protocol, &to) {
                            let dialled = endpoint.connect(&to);
                            self.connections.insert(connection, dialled);
                        }
                    }
                    Output::Send { connection, message } => {
                        self.bytes += message.payload.len();
                        match self.connections.send(connection, message) {
                            // The connection is over, and its last event will inform the state
                            // machine.
                            Ok(()) | Err(SendError::NotConnected) => {}
                            Err(error) => {
                                let now = self.now;
                                warn_limited!(now, ANYBODY, "connection dropped", %error);
                                self.connections.abort(connection);
                                // Report the connection as lost: a peer that does not read its
                                // answers must not fill this host's memory.
                                events.push((connection, ConnectionEvent::Lost));
                            }
                        }
                    }
                    Output::Measure(connection) => {
                        let round_trip = self.connections.round_trip_time(connection);
                        measured.extend(round_trip.map(|time| (connection, time)));
                    }
                    Output::Addresses(connection) => {
                        let addresses = self.connections.addresses(connection);
                        events.extend(addresses.map(|(local, peer)| {
                            (connection, ConnectionEvent::Addresses { local, peer })
                        }));
                    }
                    Output::Announce(message) => {
                        for multicast in &self.multicast {
                            if multicast.source.protocol() == message.ppid {
                                multicast.source.send(&message.payload);
                            }
                        }
                    }
                    Output::Close { connection, abort: true } => {
                        self.connections.abort(connection);
                    }
                    Output::Close { connection, abort: false } => {
                        self.connections.close(self.now, connection);
                    }
                    Output::Event(event) => self.role.handle_event(self.now, event),
                }
            }
            if let Some((connection, time)) = measured.pop() {
                self.role.machine().handle_round_trip(self.now, connection, time);
                continue;
            }
            let Some((connection, event)) = events.pop() else { return };
            self.role.machine().handle_connection(self.now, connection, event);
        }
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let (name, event) = ready!(self.connections.poll_event(cx));
        let now = self.now;
        let machine = self.role.machine();
        match event {
            Event::Established { local, peer } => {
                let identity = self.connections.identity(name);
                let event = ConnectionEvent::Established { local, peer, identity };
                let machine = self.role.machine();
                machine.handle_connection(now, name, event);
            }
            Event::Message(message) => {
                self.bytes += message.payload.len();
                machine.handle_message(now, name, message);
            }
            Event::Addresses { local, peer } => {
                tracing::info!(connection = name.0, %local, %peer, "addresses changed");
                let event = ConnectionEvent::Addresses { local, peer };
                machine.handle_connection(now, name, event);
            }
            Event::Path { address, up } => {
                tracing::info!(connection = name.0, %address, up, "path changed");
            }
            Event::SendFailed(message) => {
                tracing::debug!(connection = name.0, ppid = %message.ppid, "given up");
            }
            Event::Closed => machine.handle_connection(now, name, ConnectionEvent::Closed),
            Event::Lost(error) => {
                tracing::debug!(connection = name.0, %error, "connection lost");
                machine.handle_connection(now, name, reason_of(&error));
            }
        }
        Poll::Ready(())
    }

    fn poll_commands(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(commands) = &mut self.commands else { return Poll::Pending };
        if self.endpoints.is_empty() {
            return Poll::Pending;
        }
        let command = ready!(commands.poll_next_unpin(cx));
        let now = self.now;
        match command {
            Some(command) => self.role.handle_command(now, command),
            None => {
                self.commands = None;
                self.role.handle_abandoned(now);
            }
        }
        Poll::Ready(())
    }

    fn poll_multicast(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut idle = true;
        for index in (0..self.multicast.len()).rev() {
            let polled = self.multicast[index].poll(cx, |multicast, cx| multicast.poll_receive(cx));
            let Poll::Ready(received) = polled else { continue };
            idle = false;
            match received {
                Ok((source, message)) => {
                    let source = TransportAddress::new(self.network.protocol(), source);
                    self.role.machine().handle_announcement(self.now, source, message);
                    self.drain();
                }
                Err(error) => {
                    tracing::debug!(%error, "multicast stopped");
                    self.multicast.remove(index);
                }
            }
        }
        if idle { Poll::Pending } else { Poll::Ready(()) }
    }

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut idle = true;
        for index in 0..self.endpoints.len() {
            if self.accept_again.is_some() {
                break;
            }
            let (protocol, endpoint) = &mut self.endpoints[index];
            if let Poll::Ready(accepted) = endpoint.poll(cx, |it, cx| it.poll_accept(cx)) {
                idle = false;
                let protocol = *protocol;
                self.accept(protocol, accepted);
                self.drain();
            }
        }
        if idle { Poll::Pending } else { Poll::Ready(()) }
    }

    fn accept(&mut self, protocol: Ppid, accepted: io::Result<Box<dyn Connection>>) {
        let now = self.now;
        match accepted {
            Ok(connection) if self.connections.len() < MAX_CONNECTIONS => {
                let (peer, identity) = (connection.peer().clone(), connection.identity());
                let name = self.role.machine().accept(now, protocol, peer, identity);
                // Only ASAP connections stop reading while they wait to write. Two registrars that
                // send each other much data would wait for each other.
                if protocol == Ppid::ASAP {
                    self.connections.insert_client(name, connection);
                } else {
                    self.connections.insert(name, connection);
                }
            }
            Ok(connection) => {
                tracing::debug!(peer = %connection.peer(), "too many connections");
                self.role.machine().handle_crowded(now);
            }
            Err(error) if is_shortage(&error) => {
                warn_limited!(now, ANYBODY, "cannot accept a connection", %error);
                self.role.machine().handle_crowded(now);
                self.accept_again = Some(now + ACCEPT_PAUSE);
            }
            // The connection failed before it was accepted; there may be another.
            Err(error) => tracing::debug!(%error, "cannot accept a connection"),
        }
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let machine = self.role.machine().poll_timeout();
        let deadlines = [machine, self.connections.poll_timeout(), self.accept_again];
        let next = deadlines.into_iter().flatten().min();
        ready!(self.timer.poll(cx, self.network.runtime(), next));
        self.now = self.network.now();
        let now = self.now;
        if self.accept_again.is_some_and(|again| again <= now) {
            self.accept_again = None;
        }
        self.connections.handle_timeout(now);
        if machine.is_some_and(|deadline| deadline <= now) {
            self.role.machine().handle_timeout(now);
        }
        log::summarize(now);
        Poll::Ready(())
    }
}

/// Maps a connection's error to an event.
fn reason_of(error: &io::Error) -> ConnectionEvent {
    use io::ErrorKind::{AddrInUse, AddrNotAvailable, AlreadyExists, ConnectionRefused};
    // Local reasons for which the kernel refuses to connect: there is an association already, or no
    // local address to send from.
    let local = [AddrInUse, AddrNotAvailable, AlreadyExists];
    if error.kind() == ConnectionRefused {
        ConnectionEvent::Refused
    } else if local.contains(&error.kind()) || is_shortage(error) || is_connected_already(error) {
        ConnectionEvent::Impossible
    } else {
        ConnectionEvent::Lost
    }
}

#[cfg(unix)]
fn is_connected_already(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EISCONN | libc::EALREADY))
}

#[cfg(not(unix))]
fn is_connected_already(_: &io::Error) -> bool {
    false
}
