//! Reports of unreachable elements (RFC 5352 section 2.2.9).

use super::{DecodeError, Extras, Format, ParameterReader, Reader, Writer};
use crate::wire::{PoolElementId, PoolHandle};

/// ASAP_ENDPOINT_UNREACHABLE (RFC 5352 section 2.2.9): this element could not be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct EndpointUnreachable {
    /// The pool.
    pub pool_handle: PoolHandle,
    /// The element.
    pub identifier: PoolElementId,
}

impl Format for EndpointUnreachable {
    const TYPE: u8 = 0x09;
    const NAME: &'static str = "ASAP_ENDPOINT_UNREACHABLE";

    fn decode(_: u8, reader: Reader<'_>, extras: &mut Extras) -> Result<Self, DecodeError> {
        let mut parameters = ParameterReader::new(reader, extras)?;
        let pool_handle = parameters.required()?;
        let identifier = parameters.required()?;
        parameters.finish()?;
        Ok(Self { pool_handle, identifier })
    }

    fn encode(&self, writer: &mut Writer<'_>) {
        writer.parameter(&self.pool_handle);
        writer.parameter(&self.identifier);
    }
}
