//! Decoding errors, and the error causes to send back for them.

use std::fmt;
use std::ops::Range;

use bytes::Bytes;

use super::{ErrorCause, InvalidPoolHandle, ParameterType};

/// Bytes that are not the message they claim to be. Nothing was decoded.
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

    /// In which parameter it is, and where that is; said first by the innermost.
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

    /// The innermost parameter in which it is; `None` in the message itself.
    #[must_use]
    pub fn parameter(&self) -> Option<ParameterType> {
        self.0.parameter.as_ref().map(|(parameter, _)| *parameter)
    }

    /// The error cause (RFC 5354 section 3.12) to answer with, where `message` is what was to
    /// be decoded: the parameter with the wrong value, if the fault is in one, else an
    /// unspecified error.
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
    /// Fewer bytes than a field or a length needs.
    #[error("{needed} more bytes needed, {available} left")]
    Truncated {
        /// The number of bytes the field needs.
        needed: usize,
        /// Number of bytes that are there.
        available: usize,
    },
    /// A length field smaller than the header that it counts.
    #[error("length field of {0} is smaller than the header")]
    LengthTooSmall(u16),
    /// Bytes after the end of the message or of a parameter's value.
    #[error("{0} bytes too many")]
    TrailingBytes(usize),
    /// A parameter that does not belong here.
    #[error("unexpected {0} parameter")]
    Unexpected(ParameterType),
    /// A parameter that must be here is not.
    #[error("{0} parameter missing")]
    Missing(&'static str),
    /// The handle is not one.
    #[error(transparent)]
    PoolHandle(#[from] InvalidPoolHandle),
}

/// A message that has no encoding. Nothing was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[allow(clippy::exhaustive_enums, reason = "an encoding fails in no other way")]
pub enum EncodeError {
    /// The message or one of its parameters needs more than 65,535 bytes.
    #[error("{length} bytes do not fit a length field: at most 65535 do")]
    TooLong {
        /// The number of bytes it needs.
        length: usize,
    },
}
