//! Decoding errors, and the error causes to send back for them.

use std::fmt;
use std::ops::Range;

use bytes::Bytes;

use super::{ErrorCause, InvalidPoolHandle, ParameterType};

/// Error of decoding: the bytes are not a valid message or parameter. Nothing was decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodeError(Box<Fault>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Fault {
    kind: DecodeErrorKind,
    offset: usize,
    parameter: Option<(ParameterType, Range<usize>)>,
}

impl DecodeError {
    #[cold]
    pub(super) fn new(kind: DecodeErrorKind, offset: usize) -> Self {
        Self(Box::new(Fault { kind, offset, parameter: None }))
    }

    /// Records the parameter that contains the error, and its byte range. The first call, which
    /// comes from the innermost parameter, takes precedence over later calls.
    pub(super) fn within(mut self, parameter: ParameterType, range: Range<usize>) -> Self {
        self.0.parameter.get_or_insert((parameter, range));
        self
    }

    /// Returns the kind of the error.
    #[must_use]
    pub fn kind(&self) -> &DecodeErrorKind {
        &self.0.kind
    }

    /// Returns the position of the error, in bytes from the start of the message.
    #[must_use]
    pub fn offset(&self) -> usize {
        self.0.offset
    }

    /// Returns the innermost parameter that contains the error; `None` if the error is in the
    /// message itself.
    #[must_use]
    pub fn parameter(&self) -> Option<ParameterType> {
        self.0.parameter.as_ref().map(|(parameter, _)| *parameter)
    }

    /// Returns the error cause (RFC 5354 section 3.12) to send back. `message` is the input of the
    /// failed decoding. If the error is in a parameter, the cause quotes that parameter as having a
    /// wrong value; otherwise it is an unspecified error.
    #[must_use]
    pub fn cause(&self, message: &Bytes) -> ErrorCause {
        match &self.0.parameter {
            Some((_, range)) if range.end <= message.len() => {
                ErrorCause::InvalidValues(message.slice(range.clone()))
            }
            _ => ErrorCause::Unspecified,
        }
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at offset {}", self.0.kind, self.0.offset)?;
        match self.parameter() {
            Some(parameter) => write!(f, " in the {parameter} parameter"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for DecodeError {}

/// Kinds of decoding errors.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeErrorKind {
    /// A field or a length needs more bytes than there are.
    #[error("truncated: {needed} bytes needed, {available} available")]
    Truncated {
        /// The number of bytes that the field needs.
        needed: usize,
        /// The number of bytes that are available.
        available: usize,
    },
    /// A length field smaller than the header that it counts.
    #[error("length field of {0} is smaller than the header")]
    LengthTooSmall(u16),
    /// There are bytes after the end of the message or of a parameter's value.
    #[error("{0} trailing bytes")]
    TrailingBytes(usize),
    /// There is a parameter that does not belong at this place.
    #[error("unexpected {0} parameter")]
    Unexpected(ParameterType),
    /// A parameter that is required at this place is missing.
    #[error("{0} parameter missing")]
    Missing(&'static str),
    /// The bytes are not a valid pool handle.
    #[error(transparent)]
    PoolHandle(#[from] InvalidPoolHandle),
}

/// Error of encoding a message. Nothing was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[allow(clippy::exhaustive_enums, reason = "an encoding fails in no other way")]
pub enum EncodeError {
    /// The message or one of its parameters needs more than 65,535 bytes.
    #[error("cannot encode: {length} bytes exceed the limit of 65535")]
    TooLong {
        /// The number of bytes that the message or parameter needs.
        length: usize,
    },
}
