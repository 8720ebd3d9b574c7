//! Keep-alives between registrar and pool element (RFC 5352 sections 2.2.7 and 2.2.8).

use super::{DecodeError, FLAG, Format, Reader, Writer, element_message, placeholder};
use crate::wire::order::Layout;
use crate::wire::{ParameterType, PoolElementId, PoolHandle, RegistrarId};

/// ASAP_ENDPOINT_KEEP_ALIVE (RFC 5352 section 2.2.7): asks whether an element is alive.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct EndpointKeepAlive {
    /// True if the sender wants to be the element's home registrar (the H flag).
    pub home: bool,
    /// The registrar that sends the keep-alive.
    pub registrar: RegistrarId,
    /// The pool.
    pub pool_handle: PoolHandle,
    /// The element. The RFC has no such field: rsplib adds it, and so does this crate, since one
    /// association may serve several elements.
    pub identifier: Option<PoolElementId>,
}

placeholder!(EndpointKeepAlive { home, registrar, pool_handle, identifier });

impl Format for EndpointKeepAlive {
    const TYPE: u8 = 0x07;
    const NAME: &'static str = "ASAP_ENDPOINT_KEEP_ALIVE";
    const LAYOUT: Option<Layout> = Some(Layout {
        fields: 4,
        order: &[ParameterType::PoolHandle, ParameterType::PoolElementId],
    });
    const FLAGS: u8 = FLAG;

    fn flags(&self) -> u8 {
        u8::from(self.home)
    }

    fn decode(&mut self, flags: u8, reader: &mut Reader<'_>) -> Result<(), DecodeError> {
        self.home = flags & FLAG != 0;
        self.registrar = RegistrarId(reader.u32()?);
        reader.required(&mut self.pool_handle)?;
        reader.optional(&mut self.identifier)
    }

    fn encode(&self, writer: &mut Writer<'_>) {
        writer.u32(self.registrar.0);
        writer.parameter(&self.pool_handle);
        writer.parameters(&self.identifier);
    }
}

element_message! {
    /// ASAP_ENDPOINT_KEEP_ALIVE_ACK (RFC 5352 section 2.2.8): answers that the element is alive.
    EndpointKeepAliveAck = 0x08, "ASAP_ENDPOINT_KEEP_ALIVE_ACK"
}
