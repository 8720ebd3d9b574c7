//! The addresses of this host.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

/// Returns the addresses of the interfaces through which other hosts may be reached.
#[cfg(any(feature = "multicast", feature = "registrar"))]
pub(crate) fn outside() -> impl Iterator<Item = IpAddr> {
    let found = if_addrs::get_if_addrs().unwrap_or_default();
    found.into_iter().map(|interface| interface.ip()).filter(|address| match address {
        IpAddr::V4(address) => !address.is_loopback() && !address.is_link_local(),
        IpAddr::V6(address) => !address.is_loopback() && !address.is_unicast_link_local(),
    })
}

/// Returns the IPv4 addresses of the interfaces through which other hosts may be reached.
#[cfg(feature = "multicast")]
pub(crate) fn version_4() -> Vec<Ipv4Addr> {
    outside()
        .filter_map(|address| match address {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => None,
        })
        .collect()
}

/// Returns the local address from which this host reaches `address`. Nothing is sent.
pub(crate) fn towards(address: SocketAddr) -> Option<IpAddr> {
    let any: IpAddr = match address {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(address).ok()?;
    socket.local_addr().ok().map(|local| local.ip())
}
