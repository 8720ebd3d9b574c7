//! The options of a socket (RFC 6458 section 8).

use std::io;
use std::time::Duration;

use socket2::Socket;

use super::address;
use crate::sys::{self, AssociationId};
use crate::wire::{TransportAddress, TransportProtocol};

const RTO_INFO: i32 = 0;
const ASSOCIATION_INFO: i32 = 1;
const INIT: i32 = 2;
const NO_DELAY: i32 = 3;
const PEER_ADDRESS_PARAMETERS: i32 = 9;
const EVENTS: i32 = 11;
const RECEIVE_INFO: i32 = 32;
const BIND_ADD: i32 = 100;
const GET_PEER_ADDRESSES: i32 = 108;
const GET_LOCAL_ADDRESSES: i32 = 109;

const HEARTBEAT_ENABLE: u32 = 1;
/// `struct sctp_paddrparams` up to its flow label, which came later.
const PATH_PARAMETERS_LENGTH: usize = 152;
/// The most addresses of an endpoint that are asked for.
const MAX_ADDRESSES: usize = 64;

/// How soon an association notices that its peer is gone.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timing {
    pub(super) rto_initial: Duration,
    pub(super) rto_min: Duration,
    pub(super) rto_max: Duration,
    pub(super) association_max_retransmissions: u16,
    pub(super) path_max_retransmissions: u16,
    pub(super) heartbeat: Duration,
}

fn milliseconds(duration: Duration) -> [u8; 4] {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX).to_ne_bytes()
}

/// Settings of every socket, which its associations inherit.
pub(super) fn configure(socket: &Socket, timing: &Timing, streams: u16) -> io::Result<()> {
    let on = 1_i32.to_ne_bytes();
    sys::set_option(socket, NO_DELAY, &on)?;
    sys::set_option(socket, RECEIVE_INFO, &on)?;
    // No data information, but changes of associations and addresses, failures to send, nothing
    // of remote errors, shutdowns, partial deliveries.
    sys::set_option(socket, EVENTS, &[0, 1, 1, 1, 0, 1, 1])?;

    let any = [0; 4];
    let [initial, max, min] =
        [timing.rto_initial, timing.rto_max, timing.rto_min].map(milliseconds);
    sys::set_option(socket, RTO_INFO, &[any, initial, max, min].concat())?;

    let mut parameters = [0; 20];
    parameters[4..6].copy_from_slice(&timing.association_max_retransmissions.to_ne_bytes());
    sys::set_option(socket, ASSOCIATION_INFO, &parameters)?;

    let mut path = [0; PATH_PARAMETERS_LENGTH];
    path[132..136].copy_from_slice(&milliseconds(timing.heartbeat));
    path[136..138].copy_from_slice(&timing.path_max_retransmissions.to_ne_bytes());
    path[146..150].copy_from_slice(&HEARTBEAT_ENABLE.to_ne_bytes());
    sys::set_option(socket, PEER_ADDRESS_PARAMETERS, &path)?;

    let [out, inbound] = [streams, u16::MAX].map(u16::to_ne_bytes);
    let [attempts, timeout] = [[0; 2]; 2];
    sys::set_option(socket, INIT, &[out, inbound, attempts, timeout].concat())
}

/// Binds further addresses of the port that the socket is bound to.
pub(super) fn bind_more(socket: &Socket, packed: &[u8]) -> io::Result<()> {
    sys::set_option(socket, BIND_ADD, packed)
}

pub(super) fn local_addresses(
    socket: &Socket,
    association: AssociationId,
) -> io::Result<TransportAddress> {
    addresses(socket, association, GET_LOCAL_ADDRESSES)
}

pub(super) fn peer_addresses(
    socket: &Socket,
    association: AssociationId,
) -> io::Result<TransportAddress> {
    addresses(socket, association, GET_PEER_ADDRESSES)
}

fn addresses(
    socket: &Socket,
    association: AssociationId,
    option: i32,
) -> io::Result<TransportAddress> {
    // struct sctp_getaddrs: the association, how many there are, the addresses.
    let mut buffer = [0; 8 + MAX_ADDRESSES * 28];
    buffer[..4].copy_from_slice(&association.to_ne_bytes());
    let length = sys::get_option(socket, option, &mut buffer)?;
    let count = u32::from_ne_bytes([buffer[4], buffer[5], buffer[6], buffer[7]]);
    let count = usize::try_from(count).unwrap_or(usize::MAX).min(MAX_ADDRESSES);
    // Some kernels say how long the addresses are, some how long all is.
    let end = (8 + length).min(buffer.len());
    let (addresses, port) = address::unpack(&buffer[8..end], count);
    if addresses.is_empty() {
        return Err(io::ErrorKind::AddrNotAvailable.into());
    }
    Ok(TransportAddress {
        protocol: TransportProtocol::Sctp,
        port,
        usage: Default::default(),
        addresses,
    })
}
