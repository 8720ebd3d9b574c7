//! Socket options (RFC 6458 section 8).

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use rserpool_proto::wire::{TransportAddress, TransportProtocol};
use socket2::Socket;

use super::{Sctp, address};
use crate::sys::{self, AssociationId};

const RTO_INFO: i32 = 0;
const ASSOCIATION_INFO: i32 = 1;
const INIT: i32 = 2;
const NO_DELAY: i32 = 3;
const PRIMARY_ADDRESS: i32 = 6;
const PEER_ADDRESS_PARAMETERS: i32 = 9;
const EVENTS: i32 = 11;
const STATUS: i32 = 14;
const RECEIVE_INFO: i32 = 32;
const BIND_ADD: i32 = 100;
const BIND_REMOVE: i32 = 101;
const GET_PEER_ADDRESSES: i32 = 108;
const GET_LOCAL_ADDRESSES: i32 = 109;
const ADDRESS_CHANGES_SUPPORTED: i32 = 128;
const AUTHENTICATION_SUPPORTED: i32 = 129;

const HEARTBEAT_ENABLE: u32 = 1;
/// Length of `struct sctp_paddrparams` up to its flow label, which was added later.
const PATH_PARAMETERS_LENGTH: usize = 152;
/// Maximum number of addresses read from an endpoint.
const MAX_ADDRESSES: usize = 64;

/// Timers that determine how soon an association notices that its peer is unreachable.
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

/// Sets the options of a socket, which its associations inherit.
pub(super) fn configure(socket: &Socket, timing: &Timing, streams: u16) -> io::Result<()> {
    let on = 1_i32.to_ne_bytes();
    sys::set_option(socket, NO_DELAY, &on)?;
    sys::set_option(socket, RECEIVE_INFO, &on)?;
    // Order: data information off; changes of associations and addresses, and send failures on;
    // remote errors off; shutdowns and partial deliveries on; adaptation layers off; keys on.
    sys::set_option(socket, EVENTS, &[0, 1, 1, 1, 0, 1, 1, 0, 1])?;

    let any = [0; 4];
    let [initial, max, min] =
        [timing.rto_initial, timing.rto_max, timing.rto_min].map(milliseconds);
    sys::set_option(socket, RTO_INFO, &[any, initial, max, min].concat())?;

    // The association identifier 0 sets the defaults of future associations.
    set_budget(socket, 0, timing.association_max_retransmissions)?;
    set_path_budget(socket, 0, timing.path_max_retransmissions)?;
    set_heartbeat(socket, 0, timing.heartbeat)?;

    let [out, inbound] = [streams, u16::MAX].map(u16::to_ne_bytes);
    let [attempts, timeout] = [[0; 2]; 2];
    sys::set_option(socket, INIT, &[out, inbound, attempts, timeout].concat())?;

    allow_address_changes(socket);
    Ok(())
}

/// Sets the number of consecutive retransmissions after which an association fails.
fn set_budget(socket: &Socket, association: AssociationId, retransmissions: u16) -> io::Result<()> {
    let mut parameters = [0; 20];
    parameters[..4].copy_from_slice(&association.to_ne_bytes());
    parameters[4..6].copy_from_slice(&retransmissions.to_ne_bytes());
    sys::set_option(socket, ASSOCIATION_INFO, &parameters)
}

/// Sets the number of consecutive retransmissions after which a path fails.
fn set_path_budget(
    socket: &Socket,
    association: AssociationId,
    retransmissions: u16,
) -> io::Result<()> {
    let mut path = [0; PATH_PARAMETERS_LENGTH];
    path[..4].copy_from_slice(&association.to_ne_bytes());
    path[136..138].copy_from_slice(&retransmissions.to_ne_bytes());
    sys::set_option(socket, PEER_ADDRESS_PARAMETERS, &path)
}

/// Sets the maximum number of retransmissions of an association according to the number of its
/// paths. Retransmissions on a silent path, even those of probes, count against the whole
/// association (RFC 9260 section 8.1). They must not end the association while another path works.
pub(super) fn budget_for_paths(
    socket: &Socket,
    association: AssociationId,
    Sctp { timing, .. }: &Sctp,
    paths: usize,
) -> io::Result<()> {
    let (path, association_max) =
        (timing.path_max_retransmissions, timing.association_max_retransmissions);
    let paths = u16::try_from(paths).unwrap_or(u16::MAX).max(1);
    let all = path.saturating_mul(paths - 1).saturating_add(association_max);
    // With several paths, Linux refuses a limit for the association that exceeds the sum of the
    // limits of its paths.
    let each = if paths > 1 { path.max(all.div_ceil(paths)) } else { path };
    set_path_budget(socket, association, each)?;
    set_budget(socket, association, all)
}

/// Sets the interval at which an idle path of the association is probed.
pub(super) fn set_heartbeat(
    socket: &Socket,
    association: AssociationId,
    interval: Duration,
) -> io::Result<()> {
    let mut path = [0; PATH_PARAMETERS_LENGTH];
    path[..4].copy_from_slice(&association.to_ne_bytes());
    path[132..136].copy_from_slice(&milliseconds(interval));
    path[146..150].copy_from_slice(&HEARTBEAT_ENABLE.to_ne_bytes());
    sys::set_option(socket, PEER_ADDRESS_PARAMETERS, &path)
}

/// Allows the addresses of associations to change, which requires authentication (RFC 5061 section
/// 4). Old kernels have one setting for all sockets. A socket that was peeled off does not inherit
/// the option.
pub(super) fn allow_address_changes(socket: &Socket) {
    if enable_authentication(socket).is_ok() {
        let _ = sys::set_option(socket, ADDRESS_CHANGES_SUPPORTED, &ENABLED);
    }
}

/// A `struct sctp_assoc_value`: future associations, and the value 1.
const ENABLED: [u8; 8] = {
    let [a, b, c, d] = 1_u32.to_ne_bytes();
    [0, 0, 0, 0, a, b, c, d]
};

/// Offers authentication to the peers of future associations (RFC 4895).
pub(super) fn enable_authentication(socket: &Socket) -> io::Result<()> {
    sys::set_option(socket, AUTHENTICATION_SUPPORTED, &ENABLED)
}

/// Returns whether the peer of an association supports authentication.
pub(super) fn is_authenticated(socket: &Socket, association: AssociationId) -> io::Result<bool> {
    let mut value = [0; 8];
    value[..4].copy_from_slice(&association.to_ne_bytes());
    sys::get_option(socket, AUTHENTICATION_SUPPORTED, &mut value)?;
    Ok(value[4..] != [0; 4])
}

/// Binds further addresses with the port of the socket, also to established associations.
pub(super) fn bind_more(socket: &Socket, packed: &[u8]) -> io::Result<()> {
    sys::set_option(socket, BIND_ADD, packed)
}

/// Removes addresses from the socket and its associations.
pub(super) fn unbind(socket: &Socket, packed: &[u8]) -> io::Result<()> {
    sys::set_option(socket, BIND_REMOVE, packed)
}

/// Length of `struct sctp_prim`: the association, and a `struct sockaddr_storage`.
const PRIMARY_LENGTH: usize = 4 + 128;

pub(super) fn primary(socket: &Socket, association: AssociationId) -> io::Result<IpAddr> {
    let mut buffer = [0; PRIMARY_LENGTH];
    buffer[..4].copy_from_slice(&association.to_ne_bytes());
    sys::get_option(socket, PRIMARY_ADDRESS, &mut buffer)?;
    let (address, ..) = address::first(&buffer[4..]).ok_or(io::ErrorKind::InvalidData)?;
    Ok(address)
}

pub(super) fn set_primary(
    socket: &Socket,
    association: AssociationId,
    packed: &[u8],
) -> io::Result<()> {
    let mut buffer = [0; PRIMARY_LENGTH];
    buffer[..4].copy_from_slice(&association.to_ne_bytes());
    let space = buffer.get_mut(4..4 + packed.len()).ok_or(io::ErrorKind::InvalidInput)?;
    space.copy_from_slice(packed);
    sys::set_option(socket, PRIMARY_ADDRESS, &buffer)
}

/// Length of `struct sctp_status`, which ends with the `struct sctp_paddrinfo` of the primary path.
const STATUS_LENGTH: usize = 24 + 152;
const SMOOTHED_ROUND_TRIP: usize = 24 + 140;
const OUTBOUND_STREAMS: usize = 18;

/// Returns the smoothed round-trip time of the primary path. RFC 6458 section 8.2.1 defines it in
/// milliseconds; kernels whose tick is not 1 ms return it in ticks.
pub(super) fn round_trip_time(socket: &Socket, association: AssociationId) -> io::Result<Duration> {
    let mut buffer = [0; STATUS_LENGTH];
    buffer[..4].copy_from_slice(&association.to_ne_bytes());
    let length = sys::get_option(socket, STATUS, &mut buffer)?;
    let time = buffer[..length].get(SMOOTHED_ROUND_TRIP..).and_then(<[u8]>::first_chunk);
    let time = time.ok_or(io::ErrorKind::InvalidData)?;
    Ok(Duration::from_millis(u32::from_ne_bytes(*time).into()))
}

/// Returns the number of outgoing streams.
pub(super) fn streams(socket: &Socket, association: AssociationId) -> io::Result<u16> {
    let mut buffer = [0; STATUS_LENGTH];
    buffer[..4].copy_from_slice(&association.to_ne_bytes());
    let length = sys::get_option(socket, STATUS, &mut buffer)?;
    let streams = buffer[..length].get(OUTBOUND_STREAMS..).and_then(<[u8]>::first_chunk);
    Ok(u16::from_ne_bytes(*streams.ok_or(io::ErrorKind::InvalidData)?))
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
    // struct sctp_getaddrs: the association, the number of addresses, the addresses.
    let mut buffer = [0; 8 + MAX_ADDRESSES * 28];
    buffer[..4].copy_from_slice(&association.to_ne_bytes());
    let length = sys::get_option(socket, option, &mut buffer)?;
    let count = u32::from_ne_bytes([buffer[4], buffer[5], buffer[6], buffer[7]]);
    let count = usize::try_from(count).unwrap_or(usize::MAX).min(MAX_ADDRESSES);
    // Some kernels return the length of the addresses, some the total length.
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
