//! Encoding and decoding of messages: the formats of ASAP (RFC 5352), ENRP (RFC 5353), their
//! parameters (RFC 5354) and the policies' parameters (RFC 5356).
//!
//! Decoding shares the memory of the input ([`Bytes`]), never panics, and reports the offset and
//! the parameter of an error. A message that was decoded encodes back to the same bytes, unknown
//! parameters, unknown policies and reserved bits included. The only exception is padding that was
//! not zero: it becomes zero.
//!
//! ```
//! use rserpool_proto::wire::{PoolHandle, asap};
//!
//! let request = asap::HandleResolution::new(PoolHandle::new("EchoPool")?);
//! let bytes = asap::Message::from(request).encode()?;
//! assert_eq!(bytes.len(), 16);
//! assert!(matches!(asap::Message::decode(&bytes)?.body, asap::Body::HandleResolution(_)));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Padding
//!
//! RFC 5354 section 4 leaves the padding of the last parameter out of the message length; rsplib
//! counts it. This crate sends what rsplib sends and accepts both.

#![allow(clippy::exhaustive_structs, reason = "the fields are those of the RFCs")]

pub mod asap;
mod encoded_element;
pub mod enrp;
mod error;
mod id;
mod message;
mod order;
pub mod parameter;
mod placeholder;
mod reader;
#[cfg(feature = "serde")]
mod serialize;
mod text;
mod user_message;
mod writer;

pub use bytes::Bytes;
pub use encoded_element::{ElementTooLarge, EncodedElement};
pub use error::{DecodeError, DecodeErrorKind, EncodeError};
pub use id::{
    InvalidPoolHandle, PoolElementId, PoolHandle, RegistrarId, RegistrationLife, escape,
    is_printable,
};
pub use message::{Body, Disposition, Message, UnknownMessage, Unrecognized};
pub use parameter::{
    ErrorCause, OperationError, ParameterType, PolicyParameters, PolicyType, PolicyValue,
    PoolElement, ServerInformation, TransportAddress, TransportProtocol, TransportUse,
    UserTransport,
};
pub use text::InvalidText;
pub use user_message::{Ppid, Reliability, UserMessage};

pub(crate) use parameter::Parameter;
pub(crate) use placeholder::Placeholder;
use placeholder::placeholder;
pub(crate) use reader::Reader;
pub(crate) use writer::{Writer, quote};

/// Returns the number of bytes that `length` bytes take when padded to a multiple of four.
pub const fn padded(length: usize) -> usize {
    length.next_multiple_of(4)
}
