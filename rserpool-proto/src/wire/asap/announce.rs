//! Announcements of registrars (RFC 5352 section 2.2.10).

use super::{DecodeError, Format, Reader, Writer, placeholder};
use crate::wire::{RegistrarId, TransportAddress};

/// ASAP_SERVER_ANNOUNCE (RFC 5352 section 2.2.10): a registrar announces itself and its addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct ServerAnnounce {
    /// The registrar.
    pub registrar: RegistrarId,
    /// ASAP addresses of the registrar. If empty: SCTP at the announcement's source address.
    pub transports: Vec<TransportAddress>,
}

placeholder!(ServerAnnounce { registrar, transports });

impl Format for ServerAnnounce {
    const TYPE: u8 = 0x0a;
    const NAME: &'static str = "ASAP_SERVER_ANNOUNCE";

    fn decode(&mut self, _: u8, reader: &mut Reader<'_>) -> Result<(), DecodeError> {
        self.registrar = RegistrarId(reader.u32()?);
        reader.repeated(&mut self.transports)
    }

    fn encode(&self, writer: &mut Writer<'_>) {
        writer.u32(self.registrar.0);
        writer.parameters(&self.transports);
    }
}
