//! What every ASAP and ENRP message has in common (RFC 5354 section 4).

use std::fmt;

use bytes::Bytes;

use super::{DecodeError, DecodeErrorKind, EncodeError, ErrorCause, Reader, Writer, padded};

/// What a protocol puts into a message: [`asap::Body`](super::asap::Body) or
/// [`enrp::Body`](super::enrp::Body).
pub trait Body: Sized + fmt::Debug + sealed::Sealed {
    /// The number in the header.
    fn message_type(&self) -> u8;

    /// The name that the RFC has for the message.
    fn name(&self) -> &'static str;

    /// The flags of the header that mean something in this message.
    fn flags(&self) -> u8;
}

pub(super) mod sealed {
    use super::{DecodeError, Reader, Writer};
    use crate::wire::message::Extras;

    pub trait Sealed: Sized {
        /// The flags that a message of this type defines.
        #[doc(hidden)]
        fn known_flags(message_type: u8) -> u8;

        #[doc(hidden)]
        #[allow(private_interfaces)]
        fn decode(
            message_type: u8,
            flags: u8,
            reader: Reader<'_>,
            extras: &mut Extras,
        ) -> Result<Self, DecodeError>;

        #[doc(hidden)]
        #[allow(private_interfaces)]
        fn encode(&self, writer: &mut Writer<'_>);
    }
}

/// One message of ASAP or ENRP: its body, and whatever else it came with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message<B> {
    /// What it says.
    pub body: B,
    extras: Extras,
}

/// What a receiver keeps of a message so that it encodes back to the same bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Extras {
    unrecognized: Vec<Unrecognized>,
    reserved_flags: u8,
    /// The header's length leaves out the padding of the last parameter.
    length_without_padding: bool,
    ordinal: u32,
    depth: u8,
}

/// A parameter whose type we do not know, and where it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unrecognized {
    /// How many known parameters began before it, nested ones included.
    pub(super) ordinal: u32,
    /// In how many parameters it is nested.
    pub(super) depth: u8,
    pub(super) bytes: Bytes,
}

impl Unrecognized {
    /// The number of its type.
    #[must_use]
    pub fn number(&self) -> u16 {
        u16::from_be_bytes([self.bytes[0], self.bytes[1]])
    }

    /// The whole parameter, type and length included, without padding.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }
}

impl Extras {
    #[cold]
    pub(super) fn push(&mut self, bytes: Bytes) {
        let Self { ordinal, depth, .. } = *self;
        self.unrecognized.push(Unrecognized { ordinal, depth, bytes });
    }

    #[inline]
    pub(super) fn enter(&mut self) {
        self.ordinal += 1;
        self.depth += 1;
    }

    /// Back from all that was entered since the depth was this.
    #[inline]
    pub(super) fn leave_to(&mut self, depth: u8) {
        self.depth = depth;
    }

    #[inline]
    pub(super) fn depth(&self) -> u8 {
        self.depth
    }

    pub(super) fn unrecognized(&self) -> &[Unrecognized] {
        &self.unrecognized
    }
}

/// What a receiver has to do with a message because of the unknown parameters in it: the two
/// high bits of their types say so (RFC 5354 section 3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disposition {
    /// Whether to process the message at all.
    pub process: bool,
    /// The error causes to send back; empty for nearly every message.
    pub report: Vec<ErrorCause>,
}

impl<B: Body> Message<B> {
    /// Decodes one message, which must fill `bytes`.
    ///
    /// # Errors
    ///
    /// When a length, a field or the order of the parameters is not what the RFCs say. A type
    /// of message or parameter that we do not know is not an error.
    pub fn decode(bytes: &Bytes) -> Result<Self, DecodeError> {
        let mut header = Reader::new(bytes, 0..bytes.len());
        let [message_type, flags] = header.array()?;
        let length = header.u16()?;
        let error = |kind| Err(DecodeError::new(kind, 2, None));
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
            return Err(DecodeError::new(kind, padded(end), None));
        }
        let known = B::known_flags(message_type);
        let mut extras = Extras {
            reserved_flags: flags & !known,
            length_without_padding: end != padded(end),
            ..Extras::default()
        };
        let body = B::decode(message_type, flags & known, Reader::new(bytes, 4..end), &mut extras)?;
        (extras.ordinal, extras.depth) = (0, 0);
        Ok(Self { body, extras })
    }

    /// Encodes the message.
    ///
    /// # Errors
    ///
    /// When it needs more than 65,535 bytes.
    pub fn encode(&self) -> Result<Bytes, EncodeError> {
        let mut writer = Writer::new(&self.extras);
        writer.u8(self.body.message_type());
        writer.u8(self.body.flags() | self.extras.reserved_flags);
        writer.u16(0);
        self.body.encode(&mut writer);
        writer.finish(!self.extras.length_without_padding)
    }

    /// The flags of the header, reserved ones included.
    #[must_use]
    pub fn flags(&self) -> u8 {
        self.body.flags() | self.extras.reserved_flags
    }

    /// The parameters of unknown type, in the order in which they came.
    #[must_use]
    pub fn unrecognized(&self) -> &[Unrecognized] {
        &self.extras.unrecognized
    }

    /// What the unknown parameters of this message ask of its receiver.
    #[must_use]
    pub fn disposition(&self) -> Disposition {
        let mut disposition = Disposition { process: true, report: Vec::new() };
        for parameter in self.unrecognized() {
            if parameter.number() & 0x4000 != 0 {
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

impl<B: Body> From<B> for Message<B> {
    fn from(body: B) -> Self {
        Self { body, extras: Extras::default() }
    }
}

/// The format of one type of message.
pub(super) trait Format: Sized {
    const TYPE: u8;
    const NAME: &'static str;
    /// The flags that the type defines.
    const FLAGS: u8 = 0;

    fn flags(&self) -> u8 {
        0
    }

    fn decode(flags: u8, reader: Reader<'_>, extras: &mut Extras) -> Result<Self, DecodeError>;

    fn encode(&self, writer: &mut Writer<'_>);
}

/// Makes the `Body` of a protocol of the formats that it has.
macro_rules! protocol {
    ($(#[$meta:meta])* $protocol:literal { $($(#[$variant_meta:meta])* $variant:ident,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize))]
        #[cfg_attr(feature = "serde", serde(untagged))]
        #[non_exhaustive]
        pub enum Body {
            $($(#[$variant_meta])* $variant($variant),)*
            /// A message of a type that we do not know, the two high bits of which say what to
            /// do about it (RFC 5354 section 4).
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
            fn decode(
                message_type: u8,
                flags: u8,
                mut reader: Reader<'_>,
                extras: &mut Extras,
            ) -> Result<Self, DecodeError> {
                Ok(match message_type {
                    $(<$variant as Format>::TYPE => {
                        Self::$variant(Format::decode(flags, reader, extras)?)
                    })*
                    _ => Self::Unknown(UnknownMessage { message_type, flags, value: reader.rest() }),
                })
            }

            #[allow(private_interfaces, reason = "only this crate encodes")]
            fn encode(&self, writer: &mut Writer<'_>) {
                match self {
                    $(Self::$variant(body) => body.encode(writer),)*
                    Self::Unknown(message) => writer.opaque_value(&message.value),
                }
            }
        }
    };
}
pub(super) use protocol;

/// A message of unknown type, as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct UnknownMessage {
    /// The number of its type.
    #[cfg_attr(feature = "serde", serde(skip))]
    pub message_type: u8,
    /// All of its flags.
    #[cfg_attr(feature = "serde", serde(skip))]
    pub flags: u8,
    /// What follows the header.
    #[cfg_attr(feature = "serde", serde(with = "super::serialize::hex"))]
    pub value: Bytes,
}

impl UnknownMessage {
    /// Whether its sender wants to be told that we do not know it (RFC 5354 section 4).
    #[must_use]
    pub fn wants_report(&self) -> bool {
        self.message_type >> 6 == 0b01
    }
}
