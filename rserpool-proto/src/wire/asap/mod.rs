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

/// Defines a message whose only content is the pool handle and the identifier of an element.
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
        /// Registers a pool element, or renews its registration.
        Registration,
        /// Removes a pool element from its pool.
        Deregistration,
        /// Answers a registration.
        RegistrationResponse,
        /// Answers a deregistration, or reports that a registration expired.
        DeregistrationResponse,
        /// Asks for the elements of a pool.
        HandleResolution,
        /// Answers a handle resolution with elements or an error.
        HandleResolutionResponse,
        /// Asks whether an element is alive.
        EndpointKeepAlive,
        /// Answers that the element is alive.
        EndpointKeepAliveAck,
        /// Reports that an element could not be reached.
        EndpointUnreachable,
        /// Announces a registrar.
        ServerAnnounce,
        /// Stores the state of a session for the element that takes over.
        Cookie,
        /// Returns the last cookie to the element that takes over.
        CookieEcho,
        /// Identifies the sender and the elements that may replace it.
        BusinessCard,
        /// Reports that a message was not understood.
        Error,
        /// Asks whether the program at the other end of the session responds, or answers such a
        /// request.
        SessionHeartbeat,
    }
}

/// Bit 0 of the flags, the only one that the RFC defines for any ASAP message.
const FLAG: u8 = 0x01;
