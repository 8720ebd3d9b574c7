//! The parameters that ASAP and ENRP share (RFC 5354 section 3).

mod error;
mod policy;
mod pool_element;
mod server_information;
mod simple;
mod transport;

use std::fmt;

use super::{DecodeError, Placeholder, Reader, Writer};

pub use error::{ErrorCause, OperationError};
pub use policy::{InvalidPolicyText, PolicyParameters, PolicyType, PolicyValue};
pub use pool_element::PoolElement;
pub use server_information::ServerInformation;
pub use simple::{Cookie, ItemCount, PeChecksum};
pub use transport::{Addresses, TransportAddress, TransportProtocol, TransportUse, UserTransport};

/// A parameter that can stand in a message or in another parameter.
pub(crate) trait Parameter: Placeholder {
    /// The name of the parameter in error messages.
    const NAME: &'static str;

    fn accepts(parameter: ParameterType) -> bool;

    fn parameter_type(&self) -> ParameterType;

    /// Decodes the parameter into `self`, which is a placeholder before.
    fn decode(
        &mut self,
        parameter: ParameterType,
        reader: &mut Reader<'_>,
    ) -> Result<(), DecodeError>;

    fn encode(&self, writer: &mut Writer<'_>);
}

macro_rules! parameter_types {
    ($($(#[$meta:meta])* $name:ident = $number:literal, $text:literal;)*) => {
        /// The known types of parameters (RFC 5354 section 3).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        #[repr(u16)]
        pub enum ParameterType {
            $($(#[$meta])* $name = $number,)*
        }

        impl ParameterType {
            /// Returns the type with this number; `None` if it is unknown.
            #[must_use]
            #[inline]
            pub fn recognized(number: u16) -> Option<Self> {
                match number {
                    $($number => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// Returns the number of the type.
            #[must_use]
            pub fn number(self) -> u16 {
                self as u16
            }
        }

        impl fmt::Display for ParameterType {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self {
                    $(Self::$name => $text,)*
                })
            }
        }
    };
}

parameter_types! {
    /// An IPv4 address.
    Ipv4Address = 0x1, "IPv4 Address";
    /// An IPv6 address.
    Ipv6Address = 0x2, "IPv6 Address";
    /// A DCCP transport address.
    DccpTransport = 0x3, "DCCP Transport";
    /// An SCTP transport address, of one or more IP addresses.
    SctpTransport = 0x4, "SCTP Transport";
    /// A TCP transport address.
    TcpTransport = 0x5, "TCP Transport";
    /// A UDP transport address.
    UdpTransport = 0x6, "UDP Transport";
    /// A UDP-Lite transport address.
    UdpLiteTransport = 0x7, "UDP-Lite Transport";
    /// A pool member selection policy.
    Policy = 0x8, "Pool Member Selection Policy";
    /// A pool handle.
    PoolHandle = 0x9, "Pool Handle";
    /// A pool element.
    PoolElement = 0xa, "Pool Element";
    /// A registrar's identifier and address.
    ServerInformation = 0xb, "Server Information";
    /// An error report.
    OperationError = 0xc, "Operation Error";
    /// A cookie.
    Cookie = 0xd, "Cookie";
    /// The identifier of a pool element.
    PoolElementId = 0xe, "PE Identifier";
    /// The checksum of a registrar's pool elements.
    PeChecksum = 0xf, "PE Checksum";
    /// A transport address that only the application understands.
    OpaqueTransport = 0x10, "Opaque Transport";
    /// The number of elements that a handle resolution asks for; rsplib's extension.
    ItemCount = 0x803f, "Handle Resolution Item Count";
}
