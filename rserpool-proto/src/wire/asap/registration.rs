//! Registration and deregistration (RFC 5352 sections 2.2.1 to 2.2.4).

use super::{DecodeError, FLAG, Format, Reader, Writer, element_message, placeholder};
use crate::wire::order::Layout;
use crate::wire::{Bytes, OperationError, ParameterType, PoolElement, PoolElementId, PoolHandle};

/// ASAP_REGISTRATION (RFC 5352 section 2.2.1): a pool element joins a pool, or renews its
/// membership with new values.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Registration {
    /// The pool.
    pub pool_handle: PoolHandle,
    /// The element.
    pub pool_element: PoolElement,
}

placeholder!(Registration { pool_handle, pool_element });

impl Registration {
    /// Returns the pool handle and the identifier from the bytes of a registration that cannot be
    /// decoded. Returns `None` if they cannot be read.
    pub(crate) fn addressee(message: &Bytes) -> Option<(PoolHandle, PoolElementId)> {
        let [Self::TYPE, _, _, _] = message.first_chunk()? else { return None };
        let (mut pool_handle, mut identifier) = (None, None);
        let mut at = 4;
        while let Some([a, b, c, d]) = message.get(at..).and_then(<[u8]>::first_chunk) {
            let length = usize::from(u16::from_be_bytes([*c, *d]));
            match ParameterType::recognized(u16::from_be_bytes([*a, *b])) {
                Some(ParameterType::PoolHandle) => {
                    let value = message.get(at + 4..at + length);
                    pool_handle = value.and_then(|value| PoolHandle::new(value).ok());
                }
                // Its first field is the identifier, also if its length is wrong.
                Some(ParameterType::PoolElement) => {
                    let first = message.get(at + 4..).and_then(<[u8]>::first_chunk).copied();
                    identifier = first.map(|bytes| PoolElementId(u32::from_be_bytes(bytes)));
                }
                _ => {}
            }
            if length < 4 {
                break;
            }
            at += length.next_multiple_of(4);
        }
        pool_handle.zip(identifier)
    }
}

impl Format for Registration {
    const TYPE: u8 = 0x01;
    const NAME: &'static str = "ASAP_REGISTRATION";
    const LAYOUT: Option<Layout> =
        Some(Layout { fields: 0, order: &[ParameterType::PoolHandle, ParameterType::PoolElement] });

    #[inline]
    fn decode(&mut self, _: u8, reader: &mut Reader<'_>) -> Result<(), DecodeError> {
        reader.required(&mut self.pool_handle)?;
        reader.required(&mut self.pool_element)
    }

    fn encode(&self, writer: &mut Writer<'_>) {
        writer.parameter(&self.pool_handle);
        writer.parameter(&self.pool_element);
    }
}

element_message! {
    /// ASAP_DEREGISTRATION (RFC 5352 section 2.2.2): a pool element leaves its pool.
    Deregistration = 0x02, "ASAP_DEREGISTRATION"
}

/// ASAP_REGISTRATION_RESPONSE (RFC 5352 section 2.2.3): answers a registration.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct RegistrationResponse {
    /// True if the registrar refused the registration (the R flag).
    pub reject: bool,
    /// The pool.
    pub pool_handle: PoolHandle,
    /// The element.
    pub identifier: PoolElementId,
    /// The reason for the refusal. In a response that accepts the registration: a warning that the
    /// registrar changed some of its values.
    pub error: Option<OperationError>,
}

placeholder!(RegistrationResponse { reject, pool_handle, identifier, error });

impl Format for RegistrationResponse {
    const TYPE: u8 = 0x03;
    const NAME: &'static str = "ASAP_REGISTRATION_RESPONSE";
    const LAYOUT: Option<Layout> = Some(Layout {
        fields: 0,
        order: &[
            ParameterType::PoolHandle,
            ParameterType::PoolElementId,
            ParameterType::OperationError,
        ],
    });
    const FLAGS: u8 = FLAG;

    fn flags(&self) -> u8 {
        u8::from(self.reject)
    }

    #[inline]
    fn decode(&mut self, flags: u8, reader: &mut Reader<'_>) -> Result<(), DecodeError> {
        self.reject = flags & FLAG != 0;
        reader.required(&mut self.pool_handle)?;
        reader.required(&mut self.identifier)?;
        reader.optional(&mut self.error)
    }

    fn encode(&self, writer: &mut Writer<'_>) {
        writer.parameter(&self.pool_handle);
        writer.parameter(&self.identifier);
        writer.parameters(&self.error);
    }
}

/// ASAP_DEREGISTRATION_RESPONSE (RFC 5352 section 2.2.4): answers a deregistration, or reports that
/// a registration expired.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct DeregistrationResponse {
    /// The pool.
    pub pool_handle: PoolHandle,
    /// The element.
    pub identifier: PoolElementId,
    /// The reason why the registrar refused to remove the element; `None` if it removed the
    /// element.
    pub error: Option<OperationError>,
}

placeholder!(DeregistrationResponse { pool_handle, identifier, error });

impl Format for DeregistrationResponse {
    const TYPE: u8 = 0x04;
    const NAME: &'static str = "ASAP_DEREGISTRATION_RESPONSE";
    const LAYOUT: Option<Layout> = Some(Layout {
        fields: 0,
        order: &[
            ParameterType::PoolHandle,
            ParameterType::PoolElementId,
            ParameterType::OperationError,
        ],
    });

    #[inline]
    fn decode(&mut self, _: u8, reader: &mut Reader<'_>) -> Result<(), DecodeError> {
        reader.required(&mut self.pool_handle)?;
        reader.required(&mut self.identifier)?;
        reader.optional(&mut self.error)
    }

    fn encode(&self, writer: &mut Writer<'_>) {
        writer.parameter(&self.pool_handle);
        writer.parameter(&self.identifier);
        writer.parameters(&self.error);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_refused_is_known_whatever_the_length_of_the_element_is() {
        let handle = PoolHandle::new(b"Echo").ok();
        let message = |length: u8| {
            let handle = [0, 9, 0, 8, b'E', b'c', b'h', b'o'];
            let element = [0, 10, 0, length, 0, 0, 0, 7, 0, 0, 0, 0];
            Bytes::from([&[1, 0, 0, 24], &handle[..], &element].concat())
        };
        for length in [0, 3, 4, 8, 12, 200] {
            let known = handle.clone().zip(Some(PoolElementId(7)));
            assert_eq!(Registration::addressee(&message(length)), known, "{length}");
        }
        for cut in 0..20 {
            assert_eq!(Registration::addressee(&message(12).slice(..cut)), None, "{cut} bytes");
        }
    }
}
