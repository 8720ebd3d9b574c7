//! The server information parameter (RFC 5354 section 3.11).

use super::{Parameter, ParameterType, TransportAddress};
use crate::wire::{DecodeError, Reader, RegistrarId, Writer, placeholder};

/// The identifier and the ENRP address of a registrar.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct ServerInformation {
    /// The registrar's identifier.
    pub registrar: RegistrarId,
    /// The registrar's ENRP transport address.
    pub transport: TransportAddress,
}

placeholder!(ServerInformation { registrar, transport });

impl Parameter for ServerInformation {
    const NAME: &'static str = "Server Information";

    fn accepts(parameter: ParameterType) -> bool {
        parameter == ParameterType::ServerInformation
    }

    fn parameter_type(&self) -> ParameterType {
        ParameterType::ServerInformation
    }

    #[inline]
    fn decode(&mut self, _: ParameterType, reader: &mut Reader<'_>) -> Result<(), DecodeError> {
        self.registrar = RegistrarId(reader.u32()?);
        reader.required(&mut self.transport)?;
        reader.no_more_parameters()
    }

    fn encode(&self, writer: &mut Writer<'_>) {
        writer.u32(self.registrar.0);
        writer.parameter(&self.transport);
    }
}
