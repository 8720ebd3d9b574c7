//! Error reports (RFC 5353 section 2.10).

use super::{DecodeError, Format, Reader, Route, Writer, placeholder};
use crate::wire::order::Layout;
use crate::wire::{OperationError, ParameterType};

/// ENRP_ERROR (RFC 5353 section 2.10): reports that the sender did not understand a message.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Error {
    /// The sender and the receiver.
    #[cfg_attr(feature = "serde", serde(flatten))]
    pub route: Route,
    /// The cause, and the part of the message that was not understood.
    pub error: OperationError,
}

impl Error {
    /// The message type of ENRP_ERROR.
    pub const TYPE: u8 = 0x0a;
}

placeholder!(Error { route, error });

impl Format for Error {
    const TYPE: u8 = Self::TYPE;
    const NAME: &'static str = "ENRP_ERROR";
    const LAYOUT: Option<Layout> =
        Some(Layout { fields: 8, order: &[ParameterType::OperationError] });

    fn decode(&mut self, _: u8, reader: &mut Reader<'_>) -> Result<(), DecodeError> {
        self.route.decode(reader)?;
        reader.required(&mut self.error)
    }

    fn encode(&self, writer: &mut Writer<'_>) {
        self.route.encode(writer);
        writer.parameter(&self.error);
    }
}
