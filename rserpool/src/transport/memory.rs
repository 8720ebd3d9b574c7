//! A transport within one process, for tests and examples.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use futures::channel::mpsc;
use futures::stream::StreamExt;
use rserpool_proto::wire::{TransportAddress, TransportProtocol, UserMessage};

use super::{Connection, Endpoint, Event, Failed, Purpose, SendError, Transport};
use crate::runtime::Runtime;

/// Maximum number of messages that wait on a connection, and of connections that wait to be
/// accepted.
const CAPACITY: usize = 64;

/// Maximum length of a message, in bytes: the default of the other transports.
const MAX_MESSAGE_SIZE: usize = 1024 * 1024;

/// A network within the process. Endpoints reach each other if they were opened on clones of the
/// same `Memory`. It behaves like SCTP; an endpoint may be opened at any IP address.
#[derive(Clone, Default)]
pub struct Memory {
    network: Arc<Mutex<Network>>,
}

#[derive(Default)]
struct Network {
    listeners: BTreeMap<(IpAddr, u16), mpsc::Sender<MemoryConnection>>,
    last_port: u16,
}

impl Network {
    /// Returns a free port at `address`, above the range that servers use.
    fn free_port(&mut self, address: IpAddr) -> Option<u16> {
        (0..u16::MAX).find_map(|_| {
            self.last_port = self.last_port.checked_add(1).unwrap_or(0).max(0x8000);
            let port = self.last_port;
            (!self.listeners.contains_key(&(address, port))).then_some(port)
        })
    }
}

impl Memory {
    /// Creates a network without endpoints.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn with<R>(&self, act: impl FnOnce(&mut Network) -> R) -> R {
        act(&mut self.network.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").finish_non_exhaustive()
    }
}

impl Transport for Memory {
    fn protocol(&self) -> TransportProtocol {
        TransportProtocol::Sctp
    }

    fn open(
        &self,
        _: &Arc<dyn Runtime>,
        _: Purpose,
        listen: Option<&TransportAddress>,
    ) -> io::Result<Box<dyn Endpoint>> {
        let listener = match listen {
            None => None,
            Some(address) => {
                let (sender, receiver) = mpsc::channel(CAPACITY);
                let local = self.with(|network| listen_at(network, address, &sender))?;
                Some((receiver, local))
            }
        };
        Ok(Box::new(MemoryEndpoint { memory: self.clone(), listener }))
    }
}

fn listen_at(
    network: &mut Network,
    address: &TransportAddress,
    sender: &mpsc::Sender<MemoryConnection>,
) -> io::Result<TransportAddress> {
    let mut local = address.clone();
    for address in local.addresses.iter_mut() {
        if address.is_unspecified() {
            *address = Ipv4Addr::LOCALHOST.into();
        }
    }
    let Some(first) = local.addresses.first() else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    if local.port == 0 {
        local.port = network.free_port(*first).ok_or(io::ErrorKind::AddrNotAvailable)?;
    }
    let keys = || local.addresses.iter().map(|address| (*address, local.port));
    if keys().any(|key| network.listeners.get(&key).is_some_and(|other| !other.is_closed())) {
        return Err(io::ErrorKind::AddrInUse.into());
    }
    for key in keys() {
        network.listeners.insert(key, sender.clone());
    }
    Ok(local)
}

struct MemoryEndpoint {
    memory: Memory,
    listener: Option<(mpsc::Receiver<MemoryConnection>, TransportAddress)>,
}

impl fmt::Debug for MemoryEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryEndpoint").field("local", &self.local()).finish_non_exhaustive()
    }
}

impl Drop for MemoryEndpoint {
    fn drop(&mut self) {
        if let Some((_, local)) = self.listener.take() {
            self.memory.with(|network| {
                for address in local.addresses.iter().copied() {
                    network.listeners.remove(&(address, local.port));
                }
            });
        }
    }
}

impl MemoryEndpoint {
    fn dial(&self, to: &TransportAddress) -> io::Result<MemoryConnection> {
        self.memory.with(|network| {
            let local = match self.local() {
                Some(local) => local.clone(),
                None => {
                    let address = IpAddr::from(Ipv4Addr::LOCALHOST);
                    let port = network.free_port(address).unwrap_or(0);
                    TransportAddress::sctp((address, port).into())
                }
            };
            let mut keys = to.addresses.iter().map(|address| (*address, to.port));
            let key = keys.find(|key| network.listeners.contains_key(key));
            let listener = key
                .and_then(|key| network.listeners.get_mut(&key))
                .ok_or(io::ErrorKind::ConnectionRefused)?;
            let (ours, theirs) = MemoryConnection::pair(local, to.clone());
            let refused = |_| io::Error::from(io::ErrorKind::ConnectionRefused);
            listener.try_send(theirs).map_err(refused)?;
            Ok(ours)
        })
    }
}

impl Endpoint for MemoryEndpoint {
    fn local(&self) -> Option<&TransportAddress> {
        self.listener.as_ref().map(|(_, local)| local)
    }

    fn connect(&mut self, to: &TransportAddress) -> Box<dyn Connection> {
        match self.dial(to) {
            Ok(connection) => Box::new(connection),
            Err(error) => Box::new(Failed::new(to.clone(), error)),
        }
    }

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Box<dyn Connection>>> {
        let Some((listener, _)) = &mut self.listener else { return Poll::Pending };
        match ready!(listener.poll_next_unpin(cx)) {
            Some(connection) => Poll::Ready(Ok(Box::new(connection))),
            None => Poll::Pending,
        }
    }
}

enum Parcel {
    Message(UserMessage),
    End,
}

struct MemoryConnection {
    /// The local address, until the connection's first event has reported it.
    unannounced: Option<TransportAddress>,
    peer: TransportAddress,
    /// Channel to the other end; `None` once the end of the stream was sent.
    outgoing: Option<mpsc::Sender<Parcel>>,
    incoming: mpsc::Receiver<Parcel>,
}

impl MemoryConnection {
    fn pair(local: TransportAddress, peer: TransportAddress) -> (Self, Self) {
        let (to_peer, from_us) = mpsc::channel(CAPACITY);
        let (to_us, from_peer) = mpsc::channel(CAPACITY);
        let theirs = Self {
            unannounced: None,
            peer: local.clone(),
            outgoing: Some(to_us),
            incoming: from_us,
        };
        let ours =
            Self { unannounced: Some(local), peer, outgoing: Some(to_peer), incoming: from_peer };
        (ours, theirs)
    }
}

impl fmt::Debug for MemoryConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryConnection").field("peer", &self.peer).finish_non_exhaustive()
    }
}

impl Connection for MemoryConnection {
    fn peer(&self) -> &TransportAddress {
        &self.peer
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        if let Some(local) = self.unannounced.take() {
            return Poll::Ready(Event::Established { local, peer: self.peer.clone() });
        }
        Poll::Ready(match ready!(self.incoming.poll_next_unpin(cx)) {
            Some(Parcel::Message(message)) => Event::Message(message),
            Some(Parcel::End) => Event::Closed,
            None => Event::Lost(io::ErrorKind::ConnectionReset.into()),
        })
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.outgoing {
            Some(outgoing) => outgoing.poll_ready(cx).map(drop),
            None => Poll::Ready(()),
        }
    }

    fn send(&mut self, message: UserMessage) -> Result<(), SendError> {
        let (length, limit) = (message.payload.len(), MAX_MESSAGE_SIZE);
        if length > limit {
            return Err(SendError::TooLong { length, limit });
        }
        let outgoing = self.outgoing.as_mut().ok_or(SendError::NotConnected)?;
        outgoing.try_send(Parcel::Message(message)).map_err(|error| {
            if error.is_full() { SendError::Full } else { SendError::NotConnected }
        })
    }

    fn max_message_size(&mut self) -> usize {
        MAX_MESSAGE_SIZE
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(outgoing) = &mut self.outgoing {
            if ready!(outgoing.poll_ready(cx)).is_ok() {
                let _ = outgoing.try_send(Parcel::End);
            }
            self.outgoing = None;
        }
        while ready!(self.incoming.poll_next_unpin(cx)).is_some() {}
        Poll::Ready(())
    }
}
