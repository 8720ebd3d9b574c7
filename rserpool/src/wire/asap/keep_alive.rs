//! Keep-alives between registrar and pool element (RFC 5352 sections 2.2.7 and 2.2.8).

use super::{DecodeError, Extras, FLAG, Format, ParameterReader, Reader, Writer, element_message};
use crate::wire::{PoolElementId, PoolHandle, RegistrarId};

/// ASAP_ENDPOINT_KEEP_ALIVE (RFC 5352 section 2.2.7): is this element alive?
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct EndpointKeepAlive {
    /// Whether the sender wants to be the element's home registrar (the H flag).
    pub home: bool,
    /// The registrar that asks.
    pub registrar: RegistrarId,
    /// The pool.
    pub pool_handle: PoolHandle,
    /// The element: rsplib adds it, and so do we, since one association may serve several.
    pub identifier: Option<PoolElementId>,
}

impl Format for EndpointKeepAlive {
    const TYPE: u8 = 0x07;
    const NAME: &'static str = "ASAP_ENDPOINT_KEEP_ALIVE";
    const FLAGS: u8 = FLAG;

    fn flags(&self) -> u8 {
        u8::from(self.home)
    }

    fn decode(flags: u8, mut reader: Reader<'_>, extras: &mut Extras) -> Result<Self, DecodeError> {
        let registrar = RegistrarId(reader.u32()?);
        let mut parameters = ParameterReader::new(reader, extras);
        let pool_handle = parameters.required()?;
        let identifier = parameters.optional()?;
        parameters.finish()?;
        Ok(Self { home: flags & FLAG != 0, registrar, pool_handle, identifier })
    }

    fn encode(&self, writer: &mut Writer<'_>) {
        writer.u32(self.registrar.0);
        writer.parameter(&self.pool_handle);
        writer.parameters(&self.identifier);
    }
}

element_message! {
    /// ASAP_ENDPOINT_KEEP_ALIVE_ACK (RFC 5352 section 2.2.8): it is.
    EndpointKeepAliveAck = 0x08, "ASAP_ENDPOINT_KEEP_ALIVE_ACK"
}
