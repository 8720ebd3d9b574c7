//! Business cards (RFC 5352 section 2.2.13).

use super::{DecodeError, Format, Reader, Writer, placeholder};
use crate::wire::order::Layout;
use crate::wire::{ParameterType, PoolElement, PoolHandle};

/// ASAP_BUSINESS_CARD (RFC 5352 section 2.2.13): names the sender's pool and the elements that
/// should take over from the sender, the preferred one first.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct BusinessCard {
    /// The pool of the sender.
    pub pool_handle: PoolHandle,
    /// The elements that should take over from the sender, the preferred one first.
    pub elements: Vec<PoolElement>,
}

placeholder!(BusinessCard { pool_handle, elements });

impl Format for BusinessCard {
    const TYPE: u8 = 0x0d;
    const NAME: &'static str = "ASAP_BUSINESS_CARD";
    const LAYOUT: Option<Layout> =
        Some(Layout { fields: 0, order: &[ParameterType::PoolHandle, ParameterType::PoolElement] });

    fn decode(&mut self, _: u8, reader: &mut Reader<'_>) -> Result<(), DecodeError> {
        reader.required(&mut self.pool_handle)?;
        reader.repeated(&mut self.elements)
    }

    fn encode(&self, writer: &mut Writer<'_>) {
        writer.parameter(&self.pool_handle);
        writer.parameters(&self.elements);
    }
}
