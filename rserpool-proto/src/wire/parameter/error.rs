//! The operation error parameter and its causes (RFC 5354 section 3.12).

use std::fmt;

use bytes::Bytes;

use super::{Parameter, ParameterType};
use crate::wire::{DecodeError, Reader, Writer, placeholder};

/// One or more reasons why a request was refused or not understood.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct OperationError {
    /// The reasons.
    pub causes: Vec<ErrorCause>,
}

/// One reason why a request was refused or not understood. Where the RFC puts a parameter into a
/// cause, the variant's field contains the parameter as on the wire, type and length included.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorCause {
    /// An unspecified error.
    Unspecified,
    /// A parameter has an unknown type; contains the parameter.
    UnrecognizedParameter(Bytes),
    /// A message has an unknown type; contains the message.
    UnrecognizedMessage(Bytes),
    /// A parameter has a wrong value; contains the parameter.
    InvalidValues(Bytes),
    /// Another element of the pool has the same identifier.
    NonUniqueIdentifier,
    /// The pool has another policy; contains that policy's parameter, which rsplib leaves out.
    InconsistentPolicy(Bytes),
    /// The registrar lacks the resources for the request.
    LackOfResources,
    /// The pool has another transport; contains that transport's parameter.
    InconsistentTransport(Bytes),
    /// Either the element or the pool has a control channel, but not both.
    InconsistentDataControl,
    /// There is no such pool.
    UnknownPoolHandle,
    /// The sender is not authorized for the request.
    Security,
    /// A cause that is not in the RFC, for example one of rsplib's.
    Other {
        /// The number of the cause.
        code: u16,
        /// The information field.
        information: Bytes,
    },
}

impl ErrorCause {
    /// The number of the cause.
    #[must_use]
    pub fn code(&self) -> u16 {
        match self {
            Self::Unspecified => 0x0,
            Self::UnrecognizedParameter(_) => 0x1,
            Self::UnrecognizedMessage(_) => 0x2,
            Self::InvalidValues(_) => 0x3,
            Self::NonUniqueIdentifier => 0x4,
            Self::InconsistentPolicy(_) => 0x5,
            Self::LackOfResources => 0x6,
            Self::InconsistentTransport(_) => 0x7,
            Self::InconsistentDataControl => 0x8,
            Self::UnknownPoolHandle => 0x9,
            Self::Security => 0xa,
            Self::Other { code, .. } => *code,
        }
    }

    /// Returns the cause-specific information.
    #[must_use]
    pub fn information(&self) -> &[u8] {
        match self {
            Self::UnrecognizedParameter(bytes)
            | Self::UnrecognizedMessage(bytes)
            | Self::InvalidValues(bytes)
            | Self::InconsistentPolicy(bytes)
            | Self::InconsistentTransport(bytes)
            | Self::Other { information: bytes, .. } => bytes,
            Self::Unspecified
            | Self::NonUniqueIdentifier
            | Self::LackOfResources
            | Self::InconsistentDataControl
            | Self::UnknownPoolHandle
            | Self::Security => &[],
        }
    }

    fn new(code: u16, information: Bytes) -> Self {
        let bare = information.is_empty();
        match code {
            0x0 if bare => Self::Unspecified,
            0x1 => Self::UnrecognizedParameter(information),
            0x2 => Self::UnrecognizedMessage(information),
            0x3 => Self::InvalidValues(information),
            0x4 if bare => Self::NonUniqueIdentifier,
            0x5 => Self::InconsistentPolicy(information),
            0x6 if bare => Self::LackOfResources,
            0x7 => Self::InconsistentTransport(information),
            0x8 if bare => Self::InconsistentDataControl,
            0x9 if bare => Self::UnknownPoolHandle,
            0xa if bare => Self::Security,
            _ => Self::Other { code, information },
        }
    }
}

impl fmt::Display for ErrorCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.code() {
            0x0 => "unspecified error",
            0x1 => "unrecognized parameter",
            0x2 => "unrecognized message",
            0x3 => "invalid values",
            0x4 => "the identifier is used by another element of the pool",
            0x5 => "the pool has another policy",
            0x6 => "lack of resources",
            0x7 => "the pool has another transport",
            0x8 => "the pool has another control channel configuration",
            0x9 => "unknown pool handle",
            0xa => "rejected due to security considerations",
            code => return write!(f, "error cause {code:#06x}"),
        })
    }
}

impl From<ErrorCause> for OperationError {
    fn from(cause: ErrorCause) -> Self {
        Self { causes: vec![cause] }
    }
}

impl FromIterator<ErrorCause> for OperationError {
    fn from_iter<I: IntoIterator<Item = ErrorCause>>(causes: I) -> Self {
        Self { causes: causes.into_iter().collect() }
    }
}

impl fmt::Display for OperationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.causes.is_empty() {
            return f.write_str("no cause given");
        }
        for (index, cause) in self.causes.iter().enumerate() {
            write!(f, "{}{cause}", if index == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

placeholder!(OperationError = Self::default());

impl Parameter for OperationError {
    const NAME: &'static str = "Operation Error";

    fn accepts(parameter: ParameterType) -> bool {
        parameter == ParameterType::OperationError
    }

    fn parameter_type(&self) -> ParameterType {
        ParameterType::OperationError
    }

    #[inline]
    fn decode(&mut self, _: ParameterType, reader: &mut Reader<'_>) -> Result<(), DecodeError> {
        while let Some((code, information)) = reader.tlv()? {
            self.causes.push(ErrorCause::new(code, information));
        }
        Ok(())
    }

    fn encode(&self, writer: &mut Writer<'_>) {
        for cause in &self.causes {
            writer.tlv(cause.code(), |writer| writer.slice(cause.information()));
        }
    }
}
