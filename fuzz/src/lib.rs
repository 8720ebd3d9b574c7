//! Drives the state machines of the protocols with the bytes of a fuzzer. The bytes select messages
//! that are well formed in structure but hostile in content, arbitrary bytes, connections that open
//! and close, and the passage of time.

pub mod pipe;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use arbitrary::{Arbitrary, Result, Unstructured};
use rserpool::proto::wire::asap::{self, Resolved};
use rserpool::proto::wire::enrp::{self, Route, UpdateAction};
use rserpool::proto::wire::parameter::{Cookie, ItemCount, PeChecksum};
use rserpool::proto::wire::{
    Bytes, ErrorCause, OperationError, PolicyParameters, PolicyType, PoolElement, PoolElementId,
    PoolHandle, Ppid, RegistrarId, RegistrationLife, ServerInformation, TransportAddress,
    TransportUse, UserMessage,
};
use rserpool::proto::{ConnectionEvent, ConnectionId, Identity, Machine, Output};

/// The address of one of a few hosts.
pub fn address(u: &mut Unstructured<'_>) -> Result<TransportAddress> {
    let host = IpAddr::from(Ipv4Addr::new(10, 0, 0, u.int_in_range(0..=4)?));
    let port = *u.choose(&[0, 7, 3863, 3864])?;
    let socket = SocketAddr::new(host, port);
    let address = match u.int_in_range(0..=5)? {
        0 => TransportAddress::sctp(socket),
        1 => TransportAddress::tcp(socket).with_usage(TransportUse::DATA_PLUS_CONTROL),
        _ => TransportAddress::tcp(socket),
    };
    Ok(address)
}

/// One of a few identities, or none.
pub fn identity(u: &mut Unstructured<'_>) -> Result<Option<Identity>> {
    const NAMES: [&str; 5] = [
        "spiffe://example.org/a",
        "rserpool:registrar:0x00000002",
        "rserpool:element:P*?max=2",
        "rserpool:user:*",
        "rserpool:elephant",
    ];
    Ok(match u.int_in_range(0..=7)? {
        0 => Some(Identity::default()),
        1 => Some(Identity::new([*u.choose(&NAMES)?])),
        2 => Some(Identity::new([*u.choose(&NAMES)?, *u.choose(&NAMES)?])),
        _ => None,
    })
}

/// One of a few handles, or a long one.
pub fn handle(u: &mut Unstructured<'_>) -> Result<PoolHandle> {
    let handle = match u.int_in_range(0..=7)? {
        0 => vec![b'x'; u.int_in_range(1..=PoolHandle::MAX_LENGTH)?],
        number => vec![b'a' + number; 1],
    };
    Ok(PoolHandle::new(handle).expect("neither empty nor too long"))
}

fn identifier(u: &mut Unstructured<'_>) -> Result<PoolElementId> {
    Ok(PoolElementId(u.int_in_range(0..=5)?))
}

fn registrar(u: &mut Unstructured<'_>) -> Result<RegistrarId> {
    Ok(RegistrarId(u.int_in_range(0..=4)?))
}

fn policy(u: &mut Unstructured<'_>) -> Result<PolicyParameters> {
    let number = PolicyType(*u.choose(&[1, 2, 3, 4, 5, 0x4000_0001, 0x4000_0002, 0x9999_9999])?);
    let length = match u.int_in_range(0..=9)? {
        0 => u.int_in_range(0..=65_400)?,
        _ => u.int_in_range(0..=24)?,
    };
    let mut bytes = vec![0; length];
    let filled = length.min(8).min(u.len());
    u.fill_buffer(&mut bytes[..filled])?;
    Ok(PolicyParameters::from_bytes(number, &bytes))
}

fn element(u: &mut Unstructured<'_>) -> Result<PoolElement> {
    Ok(PoolElement {
        identifier: identifier(u)?,
        home_registrar: registrar(u)?,
        registration_life: RegistrationLife(*u.choose(&[-1, 0, 1, 90, i32::MAX, i32::MIN])?),
        user_transport: address(u)?.into(),
        policy: policy(u)?,
        asap_transport: if u.arbitrary()? { Some(address(u)?) } else { None },
    })
}

fn elements(u: &mut Unstructured<'_>) -> Result<Vec<PoolElement>> {
    let count = u.int_in_range(0..=3)?;
    (0..count).map(|_| element(u)).collect()
}

fn error(u: &mut Unstructured<'_>) -> Result<OperationError> {
    let quote = Bytes::from(vec![0; u.int_in_range(0..=40)?]);
    Ok(match u.int_in_range(0..=5)? {
        0 => ErrorCause::UnknownPoolHandle,
        1 => ErrorCause::LackOfResources,
        2 => ErrorCause::NonUniqueIdentifier,
        3 => ErrorCause::InconsistentPolicy(quote),
        4 => ErrorCause::UnrecognizedMessage(quote),
        _ => ErrorCause::Security,
    }
    .into())
}

/// An ASAP message.
pub fn asap(u: &mut Unstructured<'_>) -> Result<asap::Message> {
    let pool_handle = handle(u)?;
    Ok(match u.int_in_range(0..=14)? {
        0 => asap::Registration { pool_handle, pool_element: element(u)? }.into(),
        1 => asap::Deregistration { pool_handle, identifier: identifier(u)? }.into(),
        2 => asap::RegistrationResponse {
            reject: u.arbitrary()?,
            pool_handle,
            identifier: identifier(u)?,
            error: if u.arbitrary()? { Some(error(u)?) } else { None },
        }
        .into(),
        3 => asap::DeregistrationResponse {
            pool_handle,
            identifier: identifier(u)?,
            error: if u.arbitrary()? { Some(error(u)?) } else { None },
        }
        .into(),
        4 => asap::HandleResolution {
            subscribe: u.arbitrary()?,
            pool_handle,
            items: if u.arbitrary()? { Some(ItemCount(u.arbitrary()?)) } else { None },
        }
        .into(),
        5 => {
            let policy = if u.arbitrary()? { Some(policy(u)?) } else { None };
            let result = Resolved::Pool { policy, elements: elements(u)? };
            let (subscribed, partial) = (u.arbitrary()?, u.arbitrary()?);
            asap::HandleResolutionResponse { subscribed, partial, pool_handle, result }.into()
        }
        6 => {
            let (subscribed, partial) = (u.arbitrary()?, u.arbitrary()?);
            let result = Resolved::Error(error(u)?);
            asap::HandleResolutionResponse { subscribed, partial, pool_handle, result }.into()
        }
        7 => asap::EndpointKeepAlive {
            home: u.arbitrary()?,
            registrar: registrar(u)?,
            pool_handle,
            identifier: if u.arbitrary()? { Some(identifier(u)?) } else { None },
        }
        .into(),
        8 => asap::EndpointKeepAliveAck { pool_handle, identifier: identifier(u)? }.into(),
        9 => asap::EndpointUnreachable { pool_handle, identifier: identifier(u)? }.into(),
        10 => asap::Cookie { cookie: Cookie(Bytes::from(vec![0; u.arbitrary::<u16>()?.into()])) }
            .into(),
        11 => {
            asap::CookieEcho { cookie: Cookie(Bytes::from(vec![0; u.int_in_range(0..=9)?])) }.into()
        }
        12 => asap::BusinessCard { pool_handle, elements: elements(u)? }.into(),
        13 => asap::SessionHeartbeat { reply: u.arbitrary()? }.into(),
        _ => asap::Error { error: error(u)? }.into(),
    })
}

/// An ENRP message.
pub fn enrp(u: &mut Unstructured<'_>) -> Result<enrp::Message> {
    let route = Route { sender: registrar(u)?, receiver: registrar(u)? };
    let server = |u: &mut Unstructured<'_>| -> Result<ServerInformation> {
        Ok(ServerInformation { registrar: registrar(u)?, transport: address(u)? })
    };
    Ok(match u.int_in_range(0..=9)? {
        0 => enrp::Presence {
            reply_required: u.arbitrary()?,
            route,
            checksum: if u.arbitrary()? { Some(PeChecksum(u.arbitrary()?)) } else { None },
            server: if u.arbitrary()? { Some(server(u)?) } else { None },
        }
        .into(),
        1 => enrp::ListRequest { route }.into(),
        2 => {
            let count = u.int_in_range(0..=4)?;
            let servers = (0..count).map(|_| server(u)).collect::<Result<_>>()?;
            enrp::ListResponse { reject: u.arbitrary()?, route, servers }.into()
        }
        3 => enrp::HandleTableRequest { own_children_only: u.arbitrary()?, route }.into(),
        4 => {
            let pools = vec![enrp::PoolEntry { pool_handle: handle(u)?, elements: elements(u)? }];
            let (more_to_send, reject) = (u.arbitrary()?, u.arbitrary()?);
            enrp::HandleTableResponse { more_to_send, reject, route, pools }.into()
        }
        5 | 6 => enrp::HandleUpdate {
            takeover_suggested: u.arbitrary()?,
            route,
            action: *u.choose(&[UpdateAction::Add, UpdateAction::Add, UpdateAction::Delete])?,
            reserved: 0,
            pool_handle: handle(u)?,
            pool_element: element(u)?,
        }
        .into(),
        7 => enrp::InitTakeover { route, target: registrar(u)? }.into(),
        8 => enrp::InitTakeoverAck { route, target: registrar(u)? }.into(),
        _ => enrp::TakeoverServer { route, target: registrar(u)? }.into(),
    })
}

/// Returns a message of `protocol`, or arbitrary bytes. An unknown parameter may follow the
/// message.
pub fn message(u: &mut Unstructured<'_>, protocol: Ppid) -> Result<UserMessage> {
    let encoded = match u.int_in_range(0..=9)? {
        0 => Ok(Bytes::from(<Vec<u8>>::arbitrary(u)?)),
        _ if protocol == Ppid::ASAP => asap(u)?.encode(),
        _ => enrp(u)?.encode(),
    };
    let mut payload = encoded.map(Vec::from).unwrap_or_default();
    if u.ratio(1, 8)? && payload.len() > 4 {
        // Append a parameter of unknown type. The high bits of the type say that it may be skipped.
        payload.extend_from_slice(&[0xc0, 0xff, 0, 4]);
        if let Ok(length) = u16::try_from(payload.len()) {
            payload[2..4].copy_from_slice(&length.to_be_bytes());
        }
    }
    Ok(UserMessage::new(protocol, payload))
}

/// Feeds fuzzed inputs to a state machine, with connections and a clock that the input controls.
pub struct Player<M> {
    /// The state machine under test.
    pub machine: M,
    /// The current time of the state machine.
    pub now: Instant,
    connections: Vec<(ConnectionId, Ppid, bool)>,
}

impl<M: Machine> Player<M> {
    /// Starts `machine`, and returns a player for it.
    pub fn new(mut machine: M) -> Self {
        let now = Instant::now();
        machine.start(now);
        let mut player = Self { machine, now, connections: Vec::new() };
        player.drain();
        player
    }

    /// Handles the pending outputs of the state machine. Panics if it produces outputs without end.
    pub fn drain(&mut self) {
        let mut outputs = 0;
        while let Some(output) = self.machine.poll_output() {
            outputs += 1;
            assert!(outputs < 100_000, "no end of outputs");
            match output {
                Output::Connect { connection, protocol, .. } => {
                    self.connections.push((connection, protocol, false));
                }
                Output::Close { connection, .. } => {
                    self.connections.retain(|(its, ..)| *its != connection);
                }
                Output::Send { message, .. } => assert!(message.payload.len() <= 65_536),
                _ => {}
            }
        }
    }

    /// Performs the next action that the input selects.
    pub fn step(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        match u.int_in_range(0..=11)? {
            0 => {
                let protocol = if u.arbitrary()? { Ppid::ASAP } else { Ppid::ENRP };
                let (from, identity) = (address(u)?, identity(u)?);
                let connection = self.machine.accept(self.now, protocol, from, identity);
                self.connections.push((connection, protocol, true));
            }
            1 | 2 => {
                let milliseconds =
                    *u.choose(&[1, 50, 250, 1_000, 3_000, 6_000, 40_000, 100_000])?;
                let end = self.now + Duration::from_millis(milliseconds);
                let mut timeouts = 0;
                while let Some(due) = self.machine.poll_timeout().filter(|due| *due <= end) {
                    timeouts += 1;
                    assert!(timeouts < 100_000, "no end of timeouts");
                    self.now = self.now.max(due);
                    self.machine.handle_timeout(self.now);
                    self.drain();
                }
                self.now = end;
            }
            3 => {
                if !self.connections.is_empty() {
                    let index = u.choose_index(self.connections.len())?;
                    let (connection, _, open) = self.connections[index];
                    let event = match u.int_in_range(0..=5)? {
                        0 | 1 if !open => {
                            self.connections[index].2 = true;
                            let (local, peer) = (address(u)?, address(u)?);
                            ConnectionEvent::Established { local, peer, identity: identity(u)? }
                        }
                        2 if !open => ConnectionEvent::Refused,
                        3 if !open => ConnectionEvent::Impossible,
                        4 => ConnectionEvent::Closed,
                        _ => ConnectionEvent::Lost,
                    };
                    if !matches!(event, ConnectionEvent::Established { .. }) {
                        self.connections.remove(index);
                    }
                    self.machine.handle_connection(self.now, connection, event);
                }
            }
            4 => {
                let protocol = if u.arbitrary()? { Ppid::ASAP } else { Ppid::ENRP };
                let (source, message) = (address(u)?, message(u, protocol)?);
                self.machine.handle_announcement(self.now, source, message);
            }
            5 => {
                self.drain();
                self.machine.handle_crowded(self.now);
            }
            _ => {
                if !self.connections.is_empty() {
                    let (connection, protocol, open) = *u.choose(&self.connections)?;
                    if open {
                        let message = message(u, protocol)?;
                        self.machine.handle_message(self.now, connection, message);
                    }
                }
            }
        }
        self.drain();
        Ok(())
    }
}
