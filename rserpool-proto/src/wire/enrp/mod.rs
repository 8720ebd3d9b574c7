//! The messages of ENRP (RFC 5353 section 2).
//!
//! Each begins with the identifiers of the sending and of the receiving registrar.

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
        /// A registrar is here, and its elements have this checksum.
        Presence,
        /// Send me your handlespace, or your own elements.
        HandleTableRequest,
        /// A page of it.
        HandleTableResponse,
        /// An element came, changed or left.
        HandleUpdate,
        /// Asks for the receiver's list of registrars.
        ListRequest,
        /// These.
        ListResponse,
        /// I am going to take over that registrar's elements.
        InitTakeover,
        /// I do not object.
        InitTakeoverAck,
        /// I took them over.
        TakeoverServer,
        /// I did not understand.
        Error,
    }
}

impl Body {
    /// Its sender and its receiver; none in a message of unknown type.
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

/// From which registrar a message comes and for which it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Route {
    /// The sender.
    pub sender: RegistrarId,
    /// The receiver; zero is everyone, or not known yet.
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
