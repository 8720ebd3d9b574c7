//! The structure that all ASAP and ENRP messages share (RFC 5354 section 4).

use std::fmt;

use bytes::Bytes;

use super::order::{self, Layout};
use super::{
    DecodeError, DecodeErrorKind, EncodeError, ErrorCause, Placeholder, Reader, Writer, padded,
};

/// The maximum number of unknown parameters of a message to report. Not from the RFCs, which
/// require a report of all of them: limited because a message may have ten thousand unknown
/// parameters.
const MAX_REPORTED: usize = 32;

/// Body of a message of one protocol: [`asap::Body`](super::asap::Body) or
/// [`enrp::Body`](super::enrp::Body).
pub trait Body: Sized + fmt::Debug + sealed::Sealed {
    /// Returns the number of the message's type in the header.
    fn message_type(&self) -> u8;

    /// Returns the name of the message in the RFC.
    fn name(&self) -> &'static str;

    /// Returns those flags of the header that this type of message defines.
    fn flags(&self) -> u8;
}

pub(super) mod sealed {
    use super::{DecodeError, Layout, Reader, Writer};

    pub trait Sealed: Sized {
        /// Returns the flags that a message of this type defines.
        #[doc(hidden)]
        fn known_flags(message_type: u8) -> u8;

        #[doc(hidden)]
        #[allow(private_interfaces)]
        fn layout(message_type: u8) -> Option<Layout>;

        #[doc(hidden)]
        fn placeholder(message_type: u8) -> Self;

        #[doc(hidden)]
        #[allow(private_interfaces)]
        fn decode(&mut self, flags: u8, reader: &mut Reader<'_>) -> Result<(), DecodeError>;

        #[doc(hidden)]
        #[allow(private_interfaces)]
        fn encode(&self, writer: &mut Writer<'_>);
    }
}

/// A message of ASAP or ENRP: its body, and the parts of the received bytes that the body does not
/// express.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message<B> {
    /// The body.
    pub body: B,
    extras: Extras,
}

/// Parts of a received message that its types do not express, kept so that it encodes to the same
/// bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Extras {
    unrecognized: Vec<Unrecognized>,
    reserved_flags: u8,
    /// True if the length in the header leaves out the padding of the last parameter.
    length_without_padding: bool,
}

/// A parameter of unknown type, and its place in the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unrecognized {
    /// The number of known parameters, nested ones included, that began before this parameter.
    pub(super) ordinal: u32,
    /// The number of parameters that enclose this parameter.
    pub(super) depth: u8,
    pub(super) bytes: Bytes,
}

impl Unrecognized {
    /// The number of the type.
    #[must_use]
    pub fn number(&self) -> u16 {
        u16::from_be_bytes([self.bytes[0], self.bytes[1]])
    }

    /// Returns the whole parameter, with type and length but without padding.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }
}

impl Extras {
    pub(super) fn unrecognized(&self) -> &[Unrecognized] {
        &self.unrecognized
    }
}

/// The action that unknown parameters require of the receiver, by the two high bits of their types
/// (RFC 5354 section 3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disposition {
    /// True if the receiver shall process the message.
    pub process: bool,
    /// The error causes to send back; empty for nearly every message.
    pub report: Vec<ErrorCause>,
}

impl<B: Body> Message<B> {
    /// Decodes one message, which must fill `bytes`. Its parameters may be in any order that is
    /// unambiguous. Known parameters that do not belong in the message are skipped.
    ///
    /// # Errors
    ///
    /// Returns an error if a length or a field violates the RFCs, or if a parameter is missing or
    /// superfluous. A message or parameter of unknown type is not an error.
    pub fn decode(bytes: &Bytes) -> Result<Self, DecodeError> {
        Self::decode_in_order(bytes).or_else(|error| Self::decode_in_any_order(bytes, error))
    }

    #[cold]
    fn decode_in_any_order(bytes: &Bytes, error: DecodeError) -> Result<Self, DecodeError> {
        let layout = || B::layout(*bytes.first()?);
        let ordered = match layout() {
            Some(layout) if order::may_help(error.kind()) => order::in_order(bytes, layout),
            _ => None,
        };
        ordered.and_then(|ordered| Self::decode_in_order(&ordered).ok()).ok_or(error)
    }

    #[inline(always)]
    fn decode_in_order(bytes: &Bytes) -> Result<Self, DecodeError> {
        let Header { message_type, flags, end } = Header::decode(bytes)?;
        let reserved_flags = flags & !B::known_flags(message_type);
        let mut message = Self {
            body: B::placeholder(message_type),
            extras: Extras {
                unrecognized: Vec::new(),
                reserved_flags,
                length_without_padding: end != padded(end),
            },
        };
        let mut reader = Reader::new(bytes, 4..end, &mut message.extras.unrecognized);
        message.body.decode(flags & !reserved_flags, &mut reader)?;
        reader.no_more_parameters()?;
        Ok(message)
    }

    /// Encodes the message.
    ///
    /// # Errors
    ///
    /// Returns an error if the message needs more than 65,535 bytes.
    pub fn encode(&self) -> Result<Bytes, EncodeError> {
        let mut writer = Writer::new(&self.extras);
        writer.u8(self.body.message_type());
        writer.u8(self.body.flags() | self.extras.reserved_flags);
        writer.u16(0);
        self.body.encode(&mut writer);
        writer.finish(!self.extras.length_without_padding)
    }

    /// Sets whether the length in the header includes the padding of the last parameter. Default
    /// for messages that this crate creates: included, as in rsplib. RFC 5354 section 4 leaves the
    /// padding out.
    #[must_use]
    pub fn counting_padding(mut self, counts: bool) -> Self {
        self.extras.length_without_padding = !counts;
        self
    }

    /// Returns the flags of the header, reserved ones included.
    #[must_use]
    pub fn flags(&self) -> u8 {
        self.body.flags() | self.extras.reserved_flags
    }

    /// Returns the parameters of unknown type, in the order in which they were received.
    #[must_use]
    pub fn unrecognized(&self) -> &[Unrecognized] {
        &self.extras.unrecognized
    }

    /// Returns the action that the unknown parameters of this message require of its receiver.
    #[must_use]
    pub fn disposition(&self) -> Disposition {
        let mut disposition = Disposition { process: true, report: Vec::new() };
        for parameter in self.unrecognized() {
            if parameter.number() & 0x4000 != 0 && disposition.report.len() < MAX_REPORTED {
                disposition.report.push(ErrorCause::UnrecognizedParameter(parameter.bytes.clone()));
            }
            if parameter.number() & 0x8000 == 0 {
                disposition.process = false;
                break;
            }
        }
        disposition
    }
}

struct Header {
    message_type: u8,
    flags: u8,
    /// The end of the message without its padding. Only padding may follow.
    end: usize,
}

impl Header {
    #[inline(always)]
    fn decode(bytes: &Bytes) -> Result<Self, DecodeError> {
        let Some(&[message_type, flags, high, low]) = bytes.first_chunk() else {
            let kind = DecodeErrorKind::Truncated { needed: 4, available: bytes.len() };
            return Err(DecodeError::new(kind, 0));
        };
        let length = u16::from_be_bytes([high, low]);
        let error = |kind| Err(DecodeError::new(kind, 2));
        let end = usize::from(length);
        if end < 4 {
            return error(DecodeErrorKind::LengthTooSmall(length));
        }
        if end > bytes.len() {
            return error(DecodeErrorKind::Truncated {
                needed: end - 4,
                available: bytes.len() - 4,
            });
        }
        if bytes.len() > padded(end) {
            let kind = DecodeErrorKind::TrailingBytes(bytes.len() - padded(end));
            return Err(DecodeError::new(kind, padded(end)));
        }
        Ok(Self { message_type, flags, end })
    }
}

impl<B: Body> From<B> for Message<B> {
    fn from(body: B) -> Self {
        Self { body, extras: Extras::default() }
    }
}

/// The format of a type of message.
pub(super) trait Format: Placeholder {
    const TYPE: u8;
    const NAME: &'static str;
    /// The flags that the type defines.
    const FLAGS: u8 = 0;
    /// The usual order of the parameters; `None` if no other order is accepted.
    const LAYOUT: Option<Layout> = None;

    fn flags(&self) -> u8 {
        0
    }

    /// Decodes a message's body into `self`, which is a placeholder before.
    fn decode(&mut self, flags: u8, reader: &mut Reader<'_>) -> Result<(), DecodeError>;

    fn encode(&self, writer: &mut Writer<'_>);
}

/// Defines the `Body` enum of a protocol from its message types.
macro_rules! protocol {
    ($(#[$meta:meta])* $protocol:literal { $($(#[$variant_meta:meta])* $variant:ident,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize))]
        #[cfg_attr(feature = "serde", serde(untagged))]
        #[non_exhaustive]
        pub enum Body {
            $($(#[$variant_meta])* $variant($variant),)*
            /// A message of unknown type. The two high bits of the type specify how to handle it
            /// (RFC 5354 section 4).
            Unknown(UnknownMessage),
        }

        $(impl From<$variant> for Body {
            fn from(body: $variant) -> Self {
                Self::$variant(body)
            }
        }

        impl From<$variant> for Message {
            fn from(body: $variant) -> Self {
                Self::from(Body::$variant(body))
            }
        })*

        impl $crate::wire::Body for Body {
            fn message_type(&self) -> u8 {
                match self {
                    $(Self::$variant(_) => <$variant as Format>::TYPE,)*
                    Self::Unknown(message) => message.message_type,
                }
            }

            fn name(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => <$variant as Format>::NAME,)*
                    Self::Unknown(_) => concat!($protocol, "_UNKNOWN"),
                }
            }

            fn flags(&self) -> u8 {
                match self {
                    $(Self::$variant(body) => Format::flags(body),)*
                    Self::Unknown(message) => message.flags,
                }
            }
        }

        impl $crate::wire::message::sealed::Sealed for Body {
            fn known_flags(message_type: u8) -> u8 {
                match message_type {
                    $(<$variant as Format>::TYPE => <$variant as Format>::FLAGS,)*
                    _ => u8::MAX,
                }
            }

            #[allow(private_interfaces, reason = "only this crate decodes")]
            fn layout(message_type: u8) -> Option<$crate::wire::order::Layout> {
                match message_type {
                    $(<$variant as Format>::TYPE => <$variant as Format>::LAYOUT,)*
                    _ => None,
                }
            }

            #[inline(always)]
            fn placeholder(message_type: u8) -> Self {
                match message_type {
                    $(<$variant as Format>::TYPE => Self::$variant($crate::wire::Placeholder::placeholder()),)*
                    _ => Self::Unknown(UnknownMessage {
                        message_type,
                        flags: 0,
                        value: $crate::wire::Bytes::new(),
                    }),
                }
            }

            #[allow(private_interfaces, reason = "only this crate decodes")]
            fn decode(&mut self, flags: u8, reader: &mut Reader<'_>) -> Result<(), DecodeError> {
                match self {
                    $(Self::$variant(body) => body.decode(flags, reader),)*
                    Self::Unknown(message) => {
                        message.flags = flags;
                        message.value = reader.shared_rest();
                        Ok(())
                    }
                }
            }

            #[allow(private_interfaces, reason = "only this crate encodes")]
            fn encode(&self, writer: &mut Writer<'_>) {
                match self {
                    $(Self::$variant(body) => body.encode(writer),)*
                    Self::Unknown(message) => writer.slice(&message.value),
                }
            }
        }
    };
}
pub(super) use protocol;

/// A message of unknown type, unchanged.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct UnknownMessage {
    /// The number of the type.
    #[cfg_attr(feature = "serde", serde(skip))]
    pub message_type: u8,
    /// All flags of the header.
    #[cfg_attr(feature = "serde", serde(skip))]
    pub flags: u8,
    /// The bytes after the header.
    #[cfg_attr(feature = "serde", serde(with = "super::serialize::hex"))]
    pub value: Bytes,
}

impl UnknownMessage {
    /// Returns whether the sender wants a report that the type is unknown (RFC 5354 section 4).
    #[must_use]
    pub fn wants_report(&self) -> bool {
        self.message_type >> 6 == 0b01
    }
}
