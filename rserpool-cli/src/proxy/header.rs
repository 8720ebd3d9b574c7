//! The PROXY protocol, by which proxies tell servers the addresses of their clients
//! (<https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>).

use std::net::{IpAddr, SocketAddr};

/// The first bytes of a header of version 2.
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Version 2, for a connection that the proxy makes by itself.
const LOCAL: u8 = 0x20;

/// Version 2, for the connection of a client.
const PROXY: u8 = 0x21;

/// Returns the header of version 2 for a client: with its address and the proxy's, to which it
/// connected. A client without an address has none.
pub(super) fn version_2(ends: Option<(SocketAddr, SocketAddr)>) -> Vec<u8> {
    let mut header = SIGNATURE.to_vec();
    let Some((client, proxy)) = ends else {
        header.extend([LOCAL, 0, 0, 0]);
        return header;
    };
    // An IPv4 client of a socket for both versions.
    let hosts = (client.ip().to_canonical(), proxy.ip().to_canonical());
    match hosts {
        (IpAddr::V4(client), IpAddr::V4(proxy)) => {
            // TCP over IPv4, and the length of what follows.
            header.extend([PROXY, 0x11, 0, 12]);
            header.extend(client.octets());
            header.extend(proxy.octets());
        }
        _ => {
            let version_6 = |host: IpAddr| match host {
                IpAddr::V4(host) => host.to_ipv6_mapped().octets(),
                IpAddr::V6(host) => host.octets(),
            };
            header.extend([PROXY, 0x21, 0, 36]);
            header.extend(version_6(hosts.0));
            header.extend(version_6(hosts.1));
        }
    }
    header.extend(client.port().to_be_bytes());
    header.extend(proxy.port().to_be_bytes());
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(client: &str, proxy: &str) -> Vec<u8> {
        let address = |text: &str| text.parse().expect("an address");
        version_2(Some((address(client), address(proxy)))).split_off(SIGNATURE.len())
    }

    #[test]
    fn a_header_has_the_ends_of_the_connection() {
        let expected = b"\x21\x11\0\x0c\xc0\0\x02\x07\xc0\0\x02\x01\x12\x34\0\x50";
        assert_eq!(header("192.0.2.7:4660", "192.0.2.1:80"), expected);
        assert_eq!(header("[::ffff:192.0.2.7]:4660", "[::ffff:192.0.2.1]:80"), expected);
        let long = header("[2001:db8::7]:4660", "[2001:db8::1]:80");
        assert_eq!((&long[..4], long.len()), (&b"\x21\x21\0\x24"[..], 4 + 36));
        assert_eq!(&long[4..8], b"\x20\x01\x0d\xb8");
        assert_eq!(&long[36..], b"\x12\x34\0\x50");
        assert_eq!(version_2(None), b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0");
    }
}
