//! Reads a registrar's handlespace, for operators.

use std::future::poll_fn;
use std::io;
use std::time::{Duration, Instant};

use futures::future::{Either, select};
use rand::RngExt;
use rserpool_proto::handlespace::Checksum;
use rserpool_proto::wire::enrp::{self, Body, Message, PoolEntry, Route};
use rserpool_proto::wire::parameter::PeChecksum;
use rserpool_proto::wire::{
    DecodeError, EncodeError, Ppid, RegistrarId, ServerInformation, TransportAddress, UserMessage,
};

use crate::transport::{Connection, Event, Purpose, SendError};
use crate::{Elapsed, Network};

/// The handlespace of a registrar, and the other registrars that it knows.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Dump {
    /// Identifier of the registrar.
    pub registrar: RegistrarId,
    /// The PE checksum that the registrar reports. It covers the elements whose home registrar is
    /// this one.
    pub checksum: Option<PeChecksum>,
    /// The other registrars that this registrar knows.
    pub peers: Vec<ServerInformation>,
    /// The pools and their elements, sorted by pool handle and element identifier.
    pub pools: Vec<PoolEntry>,
}

/// Error of [`dump`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DumpError {
    /// No connection could be made, or it broke.
    #[error("no registrar offers ENRP at {0}: {1}")]
    Unreachable(TransportAddress, io::Error),
    /// The registrar did not answer in time.
    #[error("the registrar at {0} does not answer")]
    Timeout(TransportAddress),
    /// The registrar refuses the download. A later request may succeed.
    #[error("the registrar at {0} refuses the download")]
    Rejected(TransportAddress),
    /// The registrar's answer is not ENRP.
    #[error("the registrar at {0} sent a malformed ENRP message: {1}")]
    Malformed(TransportAddress, DecodeError),
    /// A request was not accepted for sending.
    #[error(transparent)]
    Send(#[from] SendError),
    /// A request could not be encoded.
    #[error(transparent)]
    Encode(#[from] EncodeError),
}

/// Asks the registrar that offers ENRP at `address` for its handlespace, as another registrar
/// would (RFC 5353 section 3.2). Each answer may take `timeout`.
///
/// # Errors
///
/// Returns an error if the registrar cannot be asked or does not answer. Nothing has changed then.
///
/// # Cancel safety
///
/// If the future is dropped, the connection is aborted.
pub async fn dump(
    network: &Network,
    address: &TransportAddress,
    timeout: Duration,
) -> Result<Dump, DumpError> {
    let unreachable = |error| DumpError::Unreachable(address.clone(), error);
    let mut endpoint = network.dialler(Purpose::Protocol(Ppid::ENRP)).map_err(unreachable)?;
    let connection = endpoint.connect(address);
    let ours = RegistrarId(rand::rng().random_range(1..=u32::MAX));
    let deadline = network.now() + timeout;
    let mut asker = Asker { network, address, timeout, deadline, connection, ours };
    asker.ask().await
}

struct Asker<'d> {
    network: &'d Network,
    address: &'d TransportAddress,
    timeout: Duration,
    /// Deadline for the answer to the last request.
    deadline: Instant,
    connection: Box<dyn Connection>,
    ours: RegistrarId,
}

impl Asker<'_> {
    /// Returns the registrar's identifier and checksum.
    async fn introduce(
        &mut self,
        server: Option<ServerInformation>,
    ) -> Result<(RegistrarId, Option<PeChecksum>), DumpError> {
        self.send(enrp::Presence {
            reply_required: true,
            route: self.route(RegistrarId(0)),
            checksum: Some(Checksum::default().value()),
            server,
        })?;
        loop {
            if let Body::Presence(presence) = self.receive().await? {
                return Ok((presence.route.sender, presence.checksum));
            }
        }
    }

    async fn ask(&mut self) -> Result<Dump, DumpError> {
        let local = loop {
            if let Event::Established { local, .. } = self.next().await? {
                break local;
            }
        };
        // A registrar answers only registrars, so introduce this program as one. It says no address of
        // its own, by which registrars tell it from others; those of rsplib do not answer without.
        let (network, patience) = (self.network, self.timeout / 4);
        let known = network.timeout(patience, self.introduce(None)).await;
        let (registrar, checksum) = match known {
            Ok(known) => known?,
            Err(Elapsed) => {
                let server = ServerInformation { registrar: self.ours, transport: local };
                self.introduce(Some(server)).await?
            }
        };
        self.send(enrp::ListRequest { route: self.route(registrar) })?;
        let mut peers = loop {
            if let Body::ListResponse(response) = self.receive().await? {
                break response.servers;
            }
        };
        peers.retain(|peer| peer.registrar != self.ours);
        let pools = self.download(registrar).await?;
        let timer = self.network.runtime().timer(self.network.now() + self.timeout);
        select(poll_fn(|cx| self.connection.poll_close(cx)), timer).await;
        Ok(Dump { registrar, checksum, peers, pools })
    }

    async fn download(&mut self, registrar: RegistrarId) -> Result<Vec<PoolEntry>, DumpError> {
        let mut pools: Vec<PoolEntry> = Vec::new();
        loop {
            let route = self.route(registrar);
            self.send(enrp::HandleTableRequest { own_children_only: false, route })?;
            let response = loop {
                if let Body::HandleTableResponse(response) = self.receive().await? {
                    break response;
                }
            };
            if response.reject {
                return Err(DumpError::Rejected(self.address.clone()));
            }
            pools.extend(response.pools);
            if !response.more_to_send {
                break;
            }
        }
        // Merge pools: the answers divide the handlespace into pages, and a pool may be spread over
        // several.
        pools.sort_by(|one, other| one.pool_handle.cmp(&other.pool_handle));
        pools.dedup_by(|next, kept| {
            let same = next.pool_handle == kept.pool_handle;
            if same {
                kept.elements.append(&mut next.elements);
            }
            same
        });
        for pool in &mut pools {
            pool.elements.sort_by_key(|element| element.identifier);
        }
        Ok(pools)
    }

    fn route(&self, receiver: RegistrarId) -> Route {
        Route { sender: self.ours, receiver }
    }

    fn send(&mut self, message: impl Into<Message>) -> Result<(), DumpError> {
        let payload = message.into().encode()?;
        self.deadline = self.network.now() + self.timeout;
        Ok(self.connection.send(UserMessage::new(Ppid::ENRP, payload))?)
    }

    async fn receive(&mut self) -> Result<Body, DumpError> {
        loop {
            if let Event::Message(message) = self.next().await?
                && message.ppid == Ppid::ENRP
            {
                let decoded = Message::decode(&message.payload);
                let malformed = |error| DumpError::Malformed(self.address.clone(), error);
                return Ok(decoded.map_err(malformed)?.body);
            }
        }
    }

    async fn next(&mut self) -> Result<Event, DumpError> {
        let timer = self.network.runtime().timer(self.deadline);
        let event = poll_fn(|cx| self.connection.poll_event(cx));
        let address = || self.address.clone();
        match select(event, timer).await {
            Either::Left((Event::Lost(error), _)) => Err(DumpError::Unreachable(address(), error)),
            Either::Left((Event::Closed, _)) => {
                let error = io::ErrorKind::ConnectionAborted.into();
                Err(DumpError::Unreachable(address(), error))
            }
            Either::Left((event, _)) => Ok(event),
            Either::Right(_) => Err(DumpError::Timeout(address())),
        }
    }
}
