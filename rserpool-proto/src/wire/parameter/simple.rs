//! Parameters of a single field.

use bytes::Bytes;

use super::{Parameter, ParameterType};
use crate::wire::{DecodeError, PoolElementId, PoolHandle, Reader, Writer, placeholder};

/// The state that a pool element hands to a pool user for the element that takes over (RFC 5354
/// section 3.13).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Cookie(
    #[cfg_attr(feature = "serde", serde(with = "crate::wire::serialize::hex"))] pub Bytes,
);

/// A checksum over pool elements (RFC 5353 section 3.6.1, RFC 5354 section 3.15).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PeChecksum(pub u16);

/// The number of pool elements that a handle resolution asks for: rsplib's extension 0x803f, which
/// other implementations skip. [`Self::ALL`] asks for as many as the registrar returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct ItemCount(pub u32);

impl ItemCount {
    /// Asks for all elements of the pool.
    pub const ALL: Self = Self(u32::MAX);
}

placeholder!(Cookie = Self(Bytes::new()));
placeholder!(PeChecksum = Self(0));
placeholder!(ItemCount = Self(0));

macro_rules! single_field {
    ($name:ident, $type:ident, $text:literal, $read:expr, $write:expr) => {
        impl Parameter for $name {
            const NAME: &'static str = $text;

            fn accepts(parameter: ParameterType) -> bool {
                parameter == ParameterType::$type
            }

            fn parameter_type(&self) -> ParameterType {
                ParameterType::$type
            }

            #[inline]
            fn decode(
                &mut self,
                _: ParameterType,
                reader: &mut Reader<'_>,
            ) -> Result<(), DecodeError> {
                let read: fn(&mut Reader<'_>) -> Result<Self, DecodeError> = $read;
                *self = read(reader)?;
                Ok(())
            }

            fn encode(&self, writer: &mut Writer<'_>) {
                let write: fn(&Self, &mut Writer<'_>) = $write;
                write(self, writer);
            }
        }
    };
}

single_field!(
    PoolHandle,
    PoolHandle,
    "Pool Handle",
    |reader| {
        let bytes = reader.rest();
        Self::new(bytes).map_err(|error| reader.error(error.into()))
    },
    |handle, writer| writer.slice(handle.as_bytes())
);
single_field!(
    PoolElementId,
    PoolElementId,
    "PE Identifier",
    |reader| reader.u32().map(Self),
    |identifier, writer| writer.u32(identifier.0)
);
single_field!(
    Cookie,
    Cookie,
    "Cookie",
    |reader| Ok(Self(reader.shared_rest())),
    |cookie, writer| writer.slice(&cookie.0)
);
single_field!(
    PeChecksum,
    PeChecksum,
    "PE Checksum",
    |reader| reader.u16().map(Self),
    |checksum, writer| writer.u16(checksum.0)
);
single_field!(
    ItemCount,
    ItemCount,
    "Handle Resolution Item Count",
    |reader| reader.u32().map(Self),
    |count, writer| writer.u32(count.0)
);
