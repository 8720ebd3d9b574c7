//! Error reports (RFC 5353 section 2.10).

use super::{DecodeError, Extras, Format, ParameterReader, Reader, Route, Writer};
use crate::wire::OperationError;

/// ENRP_ERROR (RFC 5353 section 2.10): the sender did not understand a message.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Error {
    /// From whom, for whom.
    #[cfg_attr(feature = "serde", serde(flatten))]
    pub route: Route,
    /// What it did not understand.
    pub error: OperationError,
}

impl Error {
    /// The number of its type.
    pub const TYPE: u8 = 0x0a;
}

impl Format for Error {
    const TYPE: u8 = Self::TYPE;
    const NAME: &'static str = "ENRP_ERROR";

    fn decode(_: u8, mut reader: Reader<'_>, extras: &mut Extras) -> Result<Self, DecodeError> {
        let route = Route::decode(&mut reader)?;
        let mut parameters = ParameterReader::new(reader, extras);
        let error = parameters.required()?;
        parameters.finish()?;
        Ok(Self { route, error })
    }

    fn encode(&self, writer: &mut Writer<'_>) {
        self.route.encode(writer);
        writer.parameter(&self.error);
    }
}
