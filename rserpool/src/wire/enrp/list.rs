//! Lists of registrars (RFC 5353 sections 2.5 and 2.6).

use super::{DecodeError, Extras, Format, ParameterReader, Reader, Route, Writer};
use crate::wire::ServerInformation;

/// ENRP_LIST_REQUEST (RFC 5353 section 2.5): which registrars do you know?
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct ListRequest {
    /// From whom, for whom.
    #[cfg_attr(feature = "serde", serde(flatten))]
    pub route: Route,
}

impl Format for ListRequest {
    const TYPE: u8 = 0x05;
    const NAME: &'static str = "ENRP_LIST_REQUEST";

    fn decode(_: u8, mut reader: Reader<'_>, extras: &mut Extras) -> Result<Self, DecodeError> {
        let route = Route::decode(&mut reader)?;
        ParameterReader::new(reader, extras).finish()?;
        Ok(Self { route })
    }

    fn encode(&self, writer: &mut Writer<'_>) {
        self.route.encode(writer);
    }
}

/// ENRP_LIST_RESPONSE (RFC 5353 section 2.6): these.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct ListResponse {
    /// Whether the request was refused (the R flag).
    pub reject: bool,
    /// From whom, for whom.
    #[cfg_attr(feature = "serde", serde(flatten))]
    pub route: Route,
    /// The registrars; rsplib leaves out the sender.
    pub servers: Vec<ServerInformation>,
}

impl Format for ListResponse {
    const TYPE: u8 = 0x06;
    const NAME: &'static str = "ENRP_LIST_RESPONSE";
    const FLAGS: u8 = 0x01;

    fn flags(&self) -> u8 {
        u8::from(self.reject)
    }

    fn decode(flags: u8, mut reader: Reader<'_>, extras: &mut Extras) -> Result<Self, DecodeError> {
        let route = Route::decode(&mut reader)?;
        let mut parameters = ParameterReader::new(reader, extras);
        let servers = parameters.repeated()?;
        parameters.finish()?;
        Ok(Self { reject: flags & 0x01 != 0, route, servers })
    }

    fn encode(&self, writer: &mut Writer<'_>) {
        self.route.encode(writer);
        writer.parameters(&self.servers);
    }
}
