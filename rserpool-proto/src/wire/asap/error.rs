//! Error reports (RFC 5352 section 2.2.14).

use super::{DecodeError, Format, Reader, Writer, placeholder};
use crate::wire::order::Layout;
use crate::wire::{OperationError, ParameterType};

/// ASAP_ERROR (RFC 5352 section 2.2.14): reports that the sender did not understand a message.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Error {
    /// The cause, and the part of the message that was not understood.
    pub error: OperationError,
}

impl Error {
    /// The message type of ASAP_ERROR.
    pub const TYPE: u8 = 0x0e;
}

placeholder!(Error { error });

impl Format for Error {
    const TYPE: u8 = Self::TYPE;
    const NAME: &'static str = "ASAP_ERROR";
    const LAYOUT: Option<Layout> =
        Some(Layout { fields: 0, order: &[ParameterType::OperationError] });

    fn decode(&mut self, _: u8, reader: &mut Reader<'_>) -> Result<(), DecodeError> {
        reader.required(&mut self.error)
    }

    fn encode(&self, writer: &mut Writer<'_>) {
        writer.parameter(&self.error);
    }
}
