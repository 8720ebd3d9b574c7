//! Takeover of a dead registrar's elements (RFC 5353 sections 2.7 to 2.9).

use super::{DecodeError, Format, Reader, RegistrarId, Route, Writer, placeholder};
use crate::wire::order::Layout;

macro_rules! takeover_message {
    ($(#[$meta:meta])* $name:ident = $number:literal, $text:literal) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize))]
        pub struct $name {
            /// The sender and the receiver.
            #[cfg_attr(feature = "serde", serde(flatten))]
            pub route: Route,
            /// The registrar whose elements are taken over.
            pub target: RegistrarId,
        }

        placeholder!($name { route, target });

        impl Format for $name {
            const TYPE: u8 = $number;
            const NAME: &'static str = $text;
            const LAYOUT: Option<Layout> = Some(Layout { fields: 12, order: &[] });

            fn decode(&mut self, _: u8, reader: &mut Reader<'_>) -> Result<(), DecodeError> {
                self.route.decode(reader)?;
                self.target = RegistrarId(reader.u32()?);
                Ok(())
            }

            fn encode(&self, writer: &mut Writer<'_>) {
                self.route.encode(writer);
                writer.u32(self.target.0);
            }
        }
    };
}

takeover_message! {
    /// ENRP_INIT_TAKEOVER (RFC 5353 section 2.7): announces that the sender intends to take over
    /// the target's elements.
    InitTakeover = 0x07, "ENRP_INIT_TAKEOVER"
}

takeover_message! {
    /// ENRP_INIT_TAKEOVER_ACK (RFC 5353 section 2.8): agrees to a takeover.
    InitTakeoverAck = 0x08, "ENRP_INIT_TAKEOVER_ACK"
}

takeover_message! {
    /// ENRP_TAKEOVER_SERVER (RFC 5353 section 2.9): announces that the sender has taken over the
    /// target's elements.
    TakeoverServer = 0x09, "ENRP_TAKEOVER_SERVER"
}
