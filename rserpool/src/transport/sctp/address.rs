//! Lists of socket addresses in the form of the SCTP options: packed one after the other.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rserpool_proto::wire::parameter::Addresses;

const FAMILY_4: u16 = libc::AF_INET as u16;
const FAMILY_6: u16 = libc::AF_INET6 as u16;
/// Length of `struct sockaddr_in`: family, port, address, padding.
const LENGTH_4: usize = 16;
/// Length of `struct sockaddr_in6`: family, port, flow, address, scope.
const LENGTH_6: usize = 28;

/// Packs addresses that share a port. IPv4 addresses can be used on an IPv6 socket without being
/// mapped.
pub(super) fn pack(addresses: &[IpAddr], port: u16) -> Vec<u8> {
    let mut packed = Vec::with_capacity(addresses.len() * LENGTH_6);
    for address in addresses {
        match address {
            IpAddr::V4(address) => {
                packed.extend(FAMILY_4.to_ne_bytes());
                packed.extend(port.to_be_bytes());
                packed.extend(address.octets());
                packed.extend([0; 8]);
            }
            IpAddr::V6(address) => {
                packed.extend(FAMILY_6.to_ne_bytes());
                packed.extend(port.to_be_bytes());
                packed.extend([0; 4]);
                packed.extend(address.octets());
                packed.extend([0; 4]);
            }
        }
    }
    packed
}

/// Unpacks up to `count` addresses and the port of the last one. Stops at the first invalid
/// address.
pub(super) fn unpack(mut packed: &[u8], count: usize) -> (Addresses, u16) {
    let mut addresses = Addresses::default();
    let mut port = 0;
    while addresses.len() < count
        && let Some((address, its_port, length)) = first(packed)
    {
        addresses.push(address);
        port = its_port;
        packed = &packed[length..];
    }
    (addresses, port)
}

/// Returns the first address, its port, and its packed length. An IPv4-mapped IPv6 address is
/// returned as IPv4.
pub(super) fn first(packed: &[u8]) -> Option<(IpAddr, u16, usize)> {
    let (family, rest) = packed.split_first_chunk::<2>()?;
    let (port, rest) = rest.split_first_chunk::<2>()?;
    let port = u16::from_be_bytes(*port);
    match u16::from_ne_bytes(*family) {
        FAMILY_4 if packed.len() >= LENGTH_4 => {
            let octets = rest.first_chunk::<4>()?;
            Some((Ipv4Addr::from(*octets).into(), port, LENGTH_4))
        }
        FAMILY_6 if packed.len() >= LENGTH_6 => {
            let octets = rest[4..].first_chunk::<16>()?;
            Some((Ipv6Addr::from(*octets).to_canonical(), port, LENGTH_6))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_is_unpacked() {
        let addresses: Vec<IpAddr> =
            ["10.0.0.1", "fd00::1", "127.0.0.1"].map(|text| text.parse().unwrap()).to_vec();
        let mut packed = pack(&addresses, 3863);
        assert_eq!(packed.len(), 16 + 28 + 16);
        let (unpacked, port) = unpack(&packed, 9);
        assert_eq!((&unpacked[..], port), (&addresses[..], 3863));
        assert_eq!(unpack(&packed, 2).0.len(), 2);
        packed.pop();
        assert_eq!(unpack(&packed, 9).0.len(), 2, "the last one is cut off");
        packed[16] = 77;
        assert_eq!(unpack(&packed, 9).0.len(), 1, "the second one is of no family");
        assert_eq!(unpack(&[], 9).0.len(), 0);
    }

    #[test]
    fn version_4_is_recognised_in_version_6() {
        let packed = pack(&["::ffff:10.0.0.1".parse().unwrap()], 1);
        assert_eq!(first(&packed).unwrap().0, "10.0.0.1".parse::<IpAddr>().unwrap());
    }
}
