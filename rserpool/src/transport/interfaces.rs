//! The addresses of this host.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use rserpool_proto::wire::parameter::Addresses;
use rserpool_proto::wire::{TransportAddress, TransportProtocol};

/// The addresses of the interfaces that may have other hosts behind them.
fn outside() -> impl Iterator<Item = IpAddr> {
    let found = if_addrs::get_if_addrs().unwrap_or_default();
    found.into_iter().map(|interface| interface.ip()).filter(|address| match address {
        IpAddr::V4(address) => !address.is_loopback() && !address.is_link_local(),
        IpAddr::V6(address) => !address.is_loopback() && !address.is_unicast_link_local(),
    })
}

/// Those of version 4.
pub(crate) fn version_4() -> Vec<Ipv4Addr> {
    outside()
        .filter_map(|address| match address {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => None,
        })
        .collect()
}

/// The address of this host from which it reaches another. Nothing is sent.
pub(crate) fn towards(address: SocketAddr) -> Option<IpAddr> {
    let any: IpAddr = match address {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(address).ok()?;
    socket.local_addr().ok().map(|local| local.ip())
}

/// Returns the addresses at which others reach a socket bound to `bound`: these, or, for the
/// unspecified address, those of the interfaces. Without any interface, `bound` is returned.
pub(crate) fn reachable(bound: &TransportAddress) -> TransportAddress {
    if !bound.addresses.iter().any(IpAddr::is_unspecified) {
        return bound.clone();
    }
    let version_6 = bound.addresses.iter().any(IpAddr::is_ipv6);
    let mut addresses: Addresses =
        outside().filter(|address| version_6 || address.is_ipv4()).collect();
    if bound.protocol != TransportProtocol::Sctp {
        addresses.truncate(1);
    }
    if addresses.is_empty() {
        return bound.clone();
    }
    TransportAddress { addresses, ..bound.clone() }
}
