//! Cookies (RFC 5352 sections 2.2.11 and 2.2.12).

use super::{DecodeError, Format, Reader, Writer, placeholder};
use crate::wire::parameter;

macro_rules! cookie_message {
    ($(#[$meta:meta])* $name:ident = $number:literal, $text:literal) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize))]
        pub struct $name {
            /// The session's state. rsplib needs its length to be a multiple of four.
            pub cookie: parameter::Cookie,
        }

        placeholder!($name { cookie });

        impl Format for $name {
            const TYPE: u8 = $number;
            const NAME: &'static str = $text;

            fn decode(&mut self, _: u8, reader: &mut Reader<'_>) -> Result<(), DecodeError> {
                reader.required(&mut self.cookie)
            }

            fn encode(&self, writer: &mut Writer<'_>) {
                writer.parameter(&self.cookie);
            }
        }
    };
}

cookie_message! {
    /// ASAP_COOKIE (RFC 5352 section 2.2.11): a pool element stores its state of a session at the
    /// pool user.
    Cookie = 0x0b, "ASAP_COOKIE"
}

cookie_message! {
    /// ASAP_COOKIE_ECHO (RFC 5352 section 2.2.12): the pool user sends the last cookie to the
    /// element that takes over, before any other message.
    CookieEcho = 0x0c, "ASAP_COOKIE_ECHO"
}
