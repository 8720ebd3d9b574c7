//! Transport addresses (RFC 5354 sections 3.1 to 3.7 and 3.16).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::{Deref, DerefMut};

use bytes::Bytes;
use smallvec::SmallVec;

use super::{Parameter, ParameterType};
use crate::wire::{DecodeError, Reader, Writer, placeholder};

/// The IP addresses of one endpoint. Only SCTP endpoints have more than one. Dereferences to a
/// slice.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(transparent))]
pub struct Addresses(SmallVec<[IpAddr; 1]>);

impl Addresses {
    /// Appends an address.
    pub fn push(&mut self, address: IpAddr) {
        self.0.push(address);
    }

    /// Inserts an address at `index`.
    ///
    /// # Panics
    ///
    /// Panics if `index` is greater than the number of addresses.
    pub fn insert(&mut self, index: usize, address: IpAddr) {
        self.0.insert(index, address);
    }

    /// Removes the addresses for which `keep` returns false.
    pub fn retain(&mut self, mut keep: impl FnMut(&IpAddr) -> bool) {
        self.0.retain(|address| keep(address));
    }

    /// Removes all but the first `length` addresses.
    pub fn truncate(&mut self, length: usize) {
        self.0.truncate(length);
    }

    /// Removes all addresses.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

impl Deref for Addresses {
    type Target = [IpAddr];

    fn deref(&self) -> &[IpAddr] {
        &self.0
    }
}

impl DerefMut for Addresses {
    fn deref_mut(&mut self) -> &mut [IpAddr] {
        &mut self.0
    }
}

impl From<IpAddr> for Addresses {
    fn from(address: IpAddr) -> Self {
        Self(SmallVec::from_buf([address]))
    }
}

impl FromIterator<IpAddr> for Addresses {
    fn from_iter<I: IntoIterator<Item = IpAddr>>(addresses: I) -> Self {
        Self(addresses.into_iter().collect())
    }
}

impl Extend<IpAddr> for Addresses {
    fn extend<I: IntoIterator<Item = IpAddr>>(&mut self, addresses: I) {
        self.0.extend(addresses);
    }
}

impl<'a> IntoIterator for &'a Addresses {
    type Item = &'a IpAddr;
    type IntoIter = std::slice::Iter<'a, IpAddr>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

/// The transport protocol of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum TransportProtocol {
    /// DCCP, with its service code.
    Dccp {
        /// The DCCP service code.
        service_code: u32,
    },
    /// SCTP.
    Sctp,
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// UDP-Lite.
    UdpLite,
}

impl fmt::Display for TransportProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dccp { .. } => "dccp",
            Self::Sctp => "sctp",
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::UdpLite => "udp-lite",
        })
    }
}

/// The services that a pool element offers at a transport address (RFC 5354 section 3.4).
///
/// The RFC defines the field for SCTP only and reserves it elsewhere. rsplib and this crate use it
/// for TCP too, because a session over TCP also has a control channel.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct TransportUse(pub u16);

impl TransportUse {
    /// Application data only.
    pub const DATA_ONLY: Self = Self(0);
    /// Application data, and a control channel for cookies and business cards.
    pub const DATA_PLUS_CONTROL: Self = Self(1);
}

impl fmt::Debug for TransportUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::DATA_ONLY => f.write_str("data only"),
            Self::DATA_PLUS_CONTROL => f.write_str("data plus control"),
            Self(other) => write!(f, "{other:#06x}"),
        }
    }
}

/// A transport protocol, a port and one or more IP addresses.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TransportAddress {
    /// The protocol.
    pub protocol: TransportProtocol,
    /// The port.
    pub port: u16,
    /// The services at the address.
    pub usage: TransportUse,
    /// The IP addresses, at least one in a message.
    pub addresses: Addresses,
}

impl TransportAddress {
    /// Creates the address of `socket_address` over `protocol`, for data only.
    #[must_use]
    pub fn new(protocol: TransportProtocol, socket_address: SocketAddr) -> Self {
        Self {
            protocol,
            port: socket_address.port(),
            usage: TransportUse::DATA_ONLY,
            addresses: socket_address.ip().into(),
        }
    }

    /// Creates a TCP address, for data only.
    #[must_use]
    pub fn tcp(socket_address: SocketAddr) -> Self {
        Self::new(TransportProtocol::Tcp, socket_address)
    }

    /// Creates an SCTP address with a single IP address, for data only.
    #[must_use]
    pub fn sctp(socket_address: SocketAddr) -> Self {
        Self::new(TransportProtocol::Sctp, socket_address)
    }

    /// Sets the services at the address.
    #[must_use]
    pub fn with_usage(mut self, usage: TransportUse) -> Self {
        self.usage = usage;
        self
    }

    /// Returns the address that identifies the host: the first one, or the unspecified address if
    /// there is none.
    #[must_use]
    pub fn host(&self) -> IpAddr {
        self.addresses.first().copied().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED))
    }

    /// Returns one socket address for each IP address.
    pub fn socket_addresses(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.addresses.iter().map(|address| SocketAddr::new(*address, self.port))
    }

    /// Returns whether this and the `other` address have the same protocol, the same port and at
    /// least one common IP address.
    #[must_use]
    pub fn reaches_same(&self, other: &Self) -> bool {
        self.protocol == other.protocol && self.port == other.port && self.shares_address(other)
    }

    /// Returns whether this and the `other` address have an IP address in common.
    #[must_use]
    pub fn shares_address(&self, other: &Self) -> bool {
        self.addresses.iter().any(|address| other.addresses.contains(address))
    }
}

impl fmt::Display for TransportAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.protocol)?;
        match &*self.addresses {
            [address] => write!(f, "{}", SocketAddr::new(*address, self.port)),
            addresses => {
                f.write_str("[")?;
                for (index, address) in addresses.iter().enumerate() {
                    write!(f, "{}{address}", if index == 0 { "" } else { "," })?;
                }
                write!(f, "]:{}", self.port)
            }
        }
    }
}

placeholder!(
    TransportAddress = Self {
        protocol: TransportProtocol::Sctp,
        port: 0,
        usage: TransportUse::DATA_ONLY,
        addresses: IpAddr::placeholder().into(),
    }
);

impl Parameter for TransportAddress {
    const NAME: &'static str = "Transport";

    fn accepts(parameter: ParameterType) -> bool {
        protocol(parameter).is_some()
    }

    fn parameter_type(&self) -> ParameterType {
        match self.protocol {
            TransportProtocol::Dccp { .. } => ParameterType::DccpTransport,
            TransportProtocol::Sctp => ParameterType::SctpTransport,
            TransportProtocol::Tcp => ParameterType::TcpTransport,
            TransportProtocol::Udp => ParameterType::UdpTransport,
            TransportProtocol::UdpLite => ParameterType::UdpLiteTransport,
        }
    }

    #[inline(always)]
    fn decode(
        &mut self,
        parameter: ParameterType,
        reader: &mut Reader<'_>,
    ) -> Result<(), DecodeError> {
        self.port = reader.u16()?;
        self.usage = TransportUse(reader.u16()?);
        self.protocol = match protocol(parameter) {
            Some(TransportProtocol::Dccp { .. }) => {
                TransportProtocol::Dccp { service_code: reader.u32()? }
            }
            other => other.unwrap_or(TransportProtocol::Sctp),
        };
        reader.required(&mut self.addresses[0])?;
        if parameter == ParameterType::SctpTransport {
            while let Some(address) = reader.next()? {
                self.addresses.push(address);
            }
        }
        reader.no_more_parameters()
    }

    #[inline(always)]
    fn encode(&self, writer: &mut Writer<'_>) {
        writer.slice([self.port, self.usage.0].map(u16::to_be_bytes).as_flattened());
        if let TransportProtocol::Dccp { service_code } = self.protocol {
            writer.u32(service_code);
        }
        writer.parameters(&self.addresses);
    }
}

fn protocol(parameter: ParameterType) -> Option<TransportProtocol> {
    use ParameterType as Type;
    #[allow(clippy::wildcard_enum_match_arm, reason = "all other parameters are no transport")]
    match parameter {
        Type::DccpTransport => Some(TransportProtocol::Dccp { service_code: 0 }),
        Type::SctpTransport => Some(TransportProtocol::Sctp),
        Type::TcpTransport => Some(TransportProtocol::Tcp),
        Type::UdpTransport => Some(TransportProtocol::Udp),
        Type::UdpLiteTransport => Some(TransportProtocol::UdpLite),
        _ => None,
    }
}

impl Parameter for IpAddr {
    const NAME: &'static str = "IP Address";

    fn accepts(parameter: ParameterType) -> bool {
        matches!(parameter, ParameterType::Ipv4Address | ParameterType::Ipv6Address)
    }

    fn parameter_type(&self) -> ParameterType {
        match self {
            Self::V4(_) => ParameterType::Ipv4Address,
            Self::V6(_) => ParameterType::Ipv6Address,
        }
    }

    #[inline(always)]
    fn decode(
        &mut self,
        parameter: ParameterType,
        reader: &mut Reader<'_>,
    ) -> Result<(), DecodeError> {
        *self = if parameter == ParameterType::Ipv4Address {
            Self::from(reader.array::<4>()?)
        } else {
            Self::from(reader.array::<16>()?)
        };
        Ok(())
    }

    #[inline(always)]
    fn encode(&self, writer: &mut Writer<'_>) {
        match self {
            Self::V4(address) => writer.slice(&address.octets()),
            Self::V6(address) => writer.slice(&address.octets()),
        }
    }
}

/// The address at which a pool element serves its users.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum UserTransport {
    /// A transport address.
    Address(TransportAddress),
    /// An address that only the application understands (RFC 5354 section 3.16).
    Opaque(#[cfg_attr(feature = "serde", serde(with = "crate::wire::serialize::hex"))] Bytes),
}

impl UserTransport {
    /// Returns the transport address; `None` if the address is opaque.
    #[must_use]
    pub fn address(&self) -> Option<&TransportAddress> {
        match self {
            Self::Address(address) => Some(address),
            Self::Opaque(_) => None,
        }
    }
}

impl From<TransportAddress> for UserTransport {
    fn from(address: TransportAddress) -> Self {
        Self::Address(address)
    }
}

impl fmt::Display for UserTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Opaque(bytes) => write!(f, "opaque:{bytes:x}"),
        }
    }
}

placeholder!(UserTransport = Self::Address(TransportAddress::placeholder()));

impl Parameter for UserTransport {
    const NAME: &'static str = "User Transport";

    fn accepts(parameter: ParameterType) -> bool {
        parameter == ParameterType::OpaqueTransport || TransportAddress::accepts(parameter)
    }

    fn parameter_type(&self) -> ParameterType {
        match self {
            Self::Address(address) => address.parameter_type(),
            Self::Opaque(_) => ParameterType::OpaqueTransport,
        }
    }

    #[inline(always)]
    fn decode(
        &mut self,
        parameter: ParameterType,
        reader: &mut Reader<'_>,
    ) -> Result<(), DecodeError> {
        if parameter == ParameterType::OpaqueTransport {
            *self = Self::Opaque(reader.shared_rest());
        } else if let Self::Address(address) = self {
            address.decode(parameter, reader)?;
        }
        Ok(())
    }

    #[inline(always)]
    fn encode(&self, writer: &mut Writer<'_>) {
        match self {
            Self::Address(address) => address.encode(writer),
            Self::Opaque(bytes) => writer.slice(bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_like_socket_addresses() {
        let mut address = TransportAddress::sctp("10.0.0.1:3863".parse().unwrap());
        assert_eq!(address.to_string(), "sctp:10.0.0.1:3863");
        address.addresses.push("fd00::1".parse().unwrap());
        assert_eq!(address.to_string(), "sctp:[10.0.0.1,fd00::1]:3863");
    }
}
