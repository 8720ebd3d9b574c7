//! The server information parameter (RFC 5354 section 3.11).

use super::{Parameter, ParameterType, TransportAddress};
use crate::wire::message::Extras;
use crate::wire::{DecodeError, ParameterReader, Reader, RegistrarId, Writer};

/// A registrar and where its peers reach it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct ServerInformation {
    /// Its identifier.
    pub registrar: RegistrarId,
    /// Its ENRP transport address.
    pub transport: TransportAddress,
}

impl Parameter for ServerInformation {
    const NAME: &'static str = "Server Information";

    fn accepts(parameter: ParameterType) -> bool {
        parameter == ParameterType::ServerInformation
    }

    fn parameter_type(&self) -> ParameterType {
        ParameterType::ServerInformation
    }

    #[inline]
    fn decode(
        _: ParameterType,
        mut value: Reader<'_>,
        extras: &mut Extras,
    ) -> Result<Self, DecodeError> {
        let registrar = RegistrarId(value.u32()?);
        let mut parameters = ParameterReader::new(value, extras);
        let transport = parameters.required()?;
        parameters.finish()?;
        Ok(Self { registrar, transport })
    }

    fn encode(&self, writer: &mut Writer<'_>) {
        writer.u32(self.registrar.0);
        writer.parameter(&self.transport);
    }
}
