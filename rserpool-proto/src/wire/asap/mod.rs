//! The messages of ASAP (RFC 5352 section 2.2).

mod announce;
mod business_card;
mod cookie;
mod error;
mod heartbeat;
mod keep_alive;
mod registration;
mod resolution;
mod unreachable;

/// A message that is the name of an element and nothing else.
macro_rules! element_message {
    ($(#[$meta:meta])* $name:ident = $number:literal, $text:literal) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize))]
        pub struct $name {
            /// The pool.
            pub pool_handle: PoolHandle,
            /// The element.
            pub identifier: PoolElementId,
        }

        placeholder!($name { pool_handle, identifier });

        impl Format for $name {
            const TYPE: u8 = $number;
            const NAME: &'static str = $text;
            const LAYOUT: Option<$crate::wire::order::Layout> = Some($crate::wire::order::Layout {
                fields: 0,
                order: &[
                    $crate::wire::ParameterType::PoolHandle,
                    $crate::wire::ParameterType::PoolElementId,
                ],
            });

            fn decode(&mut self, _: u8, reader: &mut Reader<'_>) -> Result<(), DecodeError> {
                reader.required(&mut self.pool_handle)?;
                reader.required(&mut self.identifier)
            }

            fn encode(&self, writer: &mut Writer<'_>) {
                writer.parameter(&self.pool_handle);
                writer.parameter(&self.identifier);
            }
        }
    };
}
use element_message;

use super::message::{Format, UnknownMessage, protocol};
use super::{DecodeError, Reader, Writer, placeholder};

pub use announce::ServerAnnounce;
pub use business_card::BusinessCard;
pub use cookie::{Cookie, CookieEcho};
pub use error::Error;
pub use heartbeat::SessionHeartbeat;
pub use keep_alive::{EndpointKeepAlive, EndpointKeepAliveAck};
pub use registration::{
    Deregistration, DeregistrationResponse, Registration, RegistrationResponse,
};
pub use resolution::{HandleResolution, HandleResolutionResponse, Resolved};
pub use unreachable::EndpointUnreachable;

/// An ASAP message.
pub type Message = super::Message<Body>;

protocol! {
    /// Body of an ASAP message.
    "ASAP" {
        /// A pool element registers, or registers again.
        Registration,
        /// A pool element leaves its pool.
        Deregistration,
        /// The answer to a registration.
        RegistrationResponse,
        /// The answer to a deregistration, or the news that a registration expired.
        DeregistrationResponse,
        /// Asks for the elements of a pool.
        HandleResolution,
        /// These, or none.
        HandleResolutionResponse,
        /// Are you alive?
        EndpointKeepAlive,
        /// I am.
        EndpointKeepAliveAck,
        /// This element is not reachable.
        EndpointUnreachable,
        /// A registrar is here.
        ServerAnnounce,
        /// State for the successor of a pool element.
        Cookie,
        /// The last cookie, given to the successor.
        CookieEcho,
        /// Identifies the sender and the elements that may replace it.
        BusinessCard,
        /// I did not understand.
        Error,
        /// Is the program at the other end of the session there?
        SessionHeartbeat,
    }
}

/// Bit 0 of the flags, the only one that any ASAP message defines.
const FLAG: u8 = 0x01;
