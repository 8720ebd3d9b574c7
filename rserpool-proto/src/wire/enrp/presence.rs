//! Presence of registrars (RFC 5353 section 2.1).

use super::{DecodeError, Format, Reader, Route, Writer, placeholder};
use crate::wire::order::Layout;
use crate::wire::parameter::PeChecksum;
use crate::wire::{ParameterType, ServerInformation};

/// ENRP_PRESENCE (RFC 5353 section 2.1): announces a registrar.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Presence {
    /// True if the receiver shall answer with its own presence. RFC 5353 section 3.4 mentions such
    /// a flag but assigns no bit to it; rsplib and this crate use bit 0.
    pub reply_required: bool,
    /// The sender and the receiver.
    #[cfg_attr(feature = "serde", serde(flatten))]
    pub route: Route,
    /// The checksum of the elements whose home registrar is the sender.
    pub checksum: Option<PeChecksum>,
    /// The address of the sender.
    pub server: Option<ServerInformation>,
}

placeholder!(Presence { reply_required, route, checksum, server });

impl Format for Presence {
    const TYPE: u8 = 0x01;
    const NAME: &'static str = "ENRP_PRESENCE";
    const LAYOUT: Option<Layout> = Some(Layout {
        fields: 8,
        order: &[ParameterType::PeChecksum, ParameterType::ServerInformation],
    });
    const FLAGS: u8 = 0x01;

    fn flags(&self) -> u8 {
        u8::from(self.reply_required)
    }

    fn decode(&mut self, flags: u8, reader: &mut Reader<'_>) -> Result<(), DecodeError> {
        self.reply_required = flags & 0x01 != 0;
        self.route.decode(reader)?;
        reader.optional(&mut self.checksum)?;
        reader.optional(&mut self.server)
    }

    fn encode(&self, writer: &mut Writer<'_>) {
        self.route.encode(writer);
        writer.parameters(&self.checksum);
        writer.parameters(&self.server);
    }
}
