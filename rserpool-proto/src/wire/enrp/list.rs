//! Lists of registrars (RFC 5353 sections 2.5 and 2.6).

use super::{DecodeError, Format, Reader, Route, Writer, placeholder};
use crate::wire::ServerInformation;
use crate::wire::order::Layout;

/// ENRP_LIST_REQUEST (RFC 5353 section 2.5): asks for the registrars that the receiver knows.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct ListRequest {
    /// The sender and the receiver.
    #[cfg_attr(feature = "serde", serde(flatten))]
    pub route: Route,
}

placeholder!(ListRequest { route });

impl Format for ListRequest {
    const TYPE: u8 = 0x05;
    const NAME: &'static str = "ENRP_LIST_REQUEST";
    const LAYOUT: Option<Layout> = Some(Layout { fields: 8, order: &[] });

    fn decode(&mut self, _: u8, reader: &mut Reader<'_>) -> Result<(), DecodeError> {
        self.route.decode(reader)
    }

    fn encode(&self, writer: &mut Writer<'_>) {
        self.route.encode(writer);
    }
}

/// ENRP_LIST_RESPONSE (RFC 5353 section 2.6): lists the registrars that the sender knows.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct ListResponse {
    /// True if the sender refuses the request (the R flag).
    pub reject: bool,
    /// The sender and the receiver.
    #[cfg_attr(feature = "serde", serde(flatten))]
    pub route: Route,
    /// The registrars that the sender knows; rsplib leaves out the sender itself.
    pub servers: Vec<ServerInformation>,
}

placeholder!(ListResponse { reject, route, servers });

impl Format for ListResponse {
    const TYPE: u8 = 0x06;
    const NAME: &'static str = "ENRP_LIST_RESPONSE";
    const FLAGS: u8 = 0x01;

    fn flags(&self) -> u8 {
        u8::from(self.reject)
    }

    fn decode(&mut self, flags: u8, reader: &mut Reader<'_>) -> Result<(), DecodeError> {
        self.reject = flags & 0x01 != 0;
        self.route.decode(reader)?;
        reader.repeated(&mut self.servers)
    }

    fn encode(&self, writer: &mut Writer<'_>) {
        self.route.encode(writer);
        writer.parameters(&self.servers);
    }
}
