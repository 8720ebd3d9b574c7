//! The messages of ENRP (RFC 5353 section 2).
//!
//! Each message begins with the identifiers of the sending and the receiving registrar.

mod error;
mod handle_table;
mod handle_update;
mod list;
mod presence;
mod takeover;

use super::message::{Format, UnknownMessage, protocol};
use super::{DecodeError, Reader, RegistrarId, Writer, placeholder};

pub use error::Error;
pub use handle_table::{HandleTableRequest, HandleTableResponse, PoolEntry};
pub use handle_update::{HandleUpdate, UpdateAction};
pub use list::{ListRequest, ListResponse};
pub use presence::Presence;
pub use takeover::{InitTakeover, InitTakeoverAck, TakeoverServer};

/// An ENRP message.
pub type Message = super::Message<Body>;

protocol! {
    /// Body of an ENRP message.
    "ENRP" {
        /// Announces a registrar, with the checksum of its elements.
        Presence,
        /// Asks for all elements that the receiver knows, or only for those whose home registrar is
        /// the receiver.
        HandleTableRequest,
        /// Answers a handle table request with one page (part) of the handlespace.
        HandleTableResponse,
        /// Reports that an element was added, changed or removed.
        HandleUpdate,
        /// Asks for the receiver's list of registrars.
        ListRequest,
        /// Answers with the list of registrars.
        ListResponse,
        /// Announces that the sender intends to take over a registrar's elements.
        InitTakeover,
        /// Agrees to a takeover that another registrar announced.
        InitTakeoverAck,
        /// Announces that the sender has taken over a registrar's elements.
        TakeoverServer,
        /// Reports that a message was not understood.
        Error,
    }
}

impl Body {
    /// Returns the sender and the receiver of the message; `None` if its type is unknown.
    #[must_use]
    pub fn route(&self) -> Option<Route> {
        Some(match self {
            Self::Presence(message) => message.route,
            Self::HandleTableRequest(message) => message.route,
            Self::HandleTableResponse(message) => message.route,
            Self::HandleUpdate(message) => message.route,
            Self::ListRequest(message) => message.route,
            Self::ListResponse(message) => message.route,
            Self::InitTakeover(message) => message.route,
            Self::InitTakeoverAck(message) => message.route,
            Self::TakeoverServer(message) => message.route,
            Self::Error(message) => message.route,
            Self::Unknown(_) => return None,
        })
    }
}

/// The sending and the receiving registrar of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Route {
    /// The sender.
    pub sender: RegistrarId,
    /// The receiver; zero means all registrars, or one whose identifier is not known yet.
    pub receiver: RegistrarId,
}

placeholder!(Route { sender, receiver });

impl Route {
    fn decode(&mut self, reader: &mut Reader<'_>) -> Result<(), DecodeError> {
        self.sender = RegistrarId(reader.u32()?);
        self.receiver = RegistrarId(reader.u32()?);
        Ok(())
    }

    fn encode(self, writer: &mut Writer<'_>) {
        writer.u32(self.sender.0);
        writer.u32(self.receiver.0);
    }
}
