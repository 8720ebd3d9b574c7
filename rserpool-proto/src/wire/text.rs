//! Parsing of addresses and identifiers from the text that their `Display` writes.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use super::{PoolElementId, Ppid, RegistrarId, TransportAddress, TransportProtocol};

/// Error of parsing an address, a protocol or an identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidText {
    /// The text is not a transport protocol.
    #[error("cannot parse {0:?} as a transport protocol: use sctp, tcp, udp or udp-lite")]
    Protocol(String),
    /// The text is not a transport address.
    #[error(
        "cannot parse {0:?} as a transport address: use PROTOCOL:IP:PORT, for example tcp:192.0.2.1:3863"
    )]
    Address(String),
    /// The text is not an identifier.
    #[error("cannot parse {0:?} as an identifier: use a 32-bit number, decimal or with 0x")]
    Identifier(String),
}

/// Parses `sctp`, `tcp`, `udp` or `udp-lite`.
impl FromStr for TransportProtocol {
    type Err = InvalidText;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let all = [Self::Sctp, Self::Tcp, Self::Udp, Self::UdpLite];
        let named = all.into_iter().find(|protocol| protocol.to_string() == text);
        named.ok_or_else(|| InvalidText::Protocol(text.to_owned()))
    }
}

/// Parses `PROTOCOL:IP:PORT`, or `PROTOCOL:[IP,IP]:PORT` for several addresses.
impl FromStr for TransportAddress {
    type Err = InvalidText;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidText::Address(text.to_owned());
        let (protocol, rest) = text.split_once(':').ok_or_else(invalid)?;
        let protocol = protocol.parse()?;
        if let Ok(address) = rest.parse::<SocketAddr>() {
            return Ok(Self::new(protocol, address));
        }
        let (addresses, port) =
            rest.strip_prefix('[').and_then(|rest| rest.split_once("]:")).ok_or_else(invalid)?;
        let addresses = addresses.split(',').map(str::parse::<IpAddr>);
        let addresses = addresses.collect::<Result<_, _>>().map_err(|_| invalid())?;
        let port = port.parse().map_err(|_| invalid())?;
        let any = SocketAddr::from(([0, 0, 0, 0], port));
        Ok(Self { addresses, ..Self::new(protocol, any) })
    }
}

fn identifier(text: &str) -> Result<u32, InvalidText> {
    let number = match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => text.parse(),
    };
    number.map_err(|_| InvalidText::Identifier(text.to_owned()))
}

macro_rules! number {
    ($name:ident) => {
        /// Parses a decimal number, or a hexadecimal one with the prefix `0x`.
        impl FromStr for $name {
            type Err = InvalidText;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                identifier(text).map(Self)
            }
        }

        impl From<u32> for $name {
            fn from(number: u32) -> Self {
                Self(number)
            }
        }
    };
}

number!(PoolElementId);
number!(RegistrarId);
number!(Ppid);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for text in [
            "tcp:127.0.0.1:3863",
            "sctp:[::1]:9901",
            "sctp:[10.0.0.1,2001:db8::1]:3863",
            "udp-lite:10.0.0.1:0",
        ] {
            assert_eq!(text.parse::<TransportAddress>().unwrap().to_string(), text);
        }
        for identifier in [PoolElementId(0), PoolElementId(7), PoolElementId(u32::MAX)] {
            assert_eq!(identifier.to_string().parse(), Ok(identifier));
        }
        assert_eq!("7".parse(), Ok(RegistrarId(7)));
        assert_eq!(Ppid::from(11), Ppid::ASAP);
    }

    #[test]
    fn anything_else_is_an_error_that_quotes_it() {
        for text in
            ["", "tcp", "tcp:", "tcp:1.2.3.4", "quic:1.2.3.4:5", "tcp:[1.2.3.4:5", "tcp:[]:5"]
        {
            let error = text.parse::<TransportAddress>().unwrap_err().to_string();
            assert!(error.contains('"'), "{error}");
        }
        for text in ["", "0x", "x", "-1", "4294967296", "0x100000000"] {
            assert!(text.parse::<PoolElementId>().is_err(), "{text}");
        }
    }
}
