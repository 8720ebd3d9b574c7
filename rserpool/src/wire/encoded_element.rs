//! Pool elements as they are kept: encoded.

use std::fmt;
use std::ops::Range;

use bytes::Bytes;
use smallvec::SmallVec;

use super::message::Extras;
use super::{
    Blank, EncodeError, Parameter, ParameterType, PoolElement, PoolElementId, Reader, RegistrarId,
    Writer, padded,
};

/// A pool element as the parameter that a message has of it (RFC 5354 section 3.10), in 72 bytes
/// where it has one IPv4 address; of those who keep many, and give them to many.
#[derive(Clone, PartialEq, Eq)]
pub struct EncodedElement(SmallVec<[u8; 64]>);

/// Where the parameter has its fields.
const IDENTIFIER: Range<usize> = 4..8;
const HOME: Range<usize> = 8..12;
const USER_TRANSPORT: usize = 16;

impl EncodedElement {
    /// Encodes `element`.
    ///
    /// # Errors
    ///
    /// When it needs more than 65,535 bytes.
    pub fn new(element: &PoolElement) -> Result<Self, EncodeError> {
        let mut encoded = Self(SmallVec::new());
        encoded.assign(element, &mut Vec::with_capacity(128))?;
        Ok(encoded)
    }

    /// Encodes `element` in the place of this one, with the help of `scratch`.
    ///
    /// # Errors
    ///
    /// When it needs more than 65,535 bytes. This one is as it was then.
    pub(crate) fn assign(
        &mut self,
        element: &PoolElement,
        scratch: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        scratch.clear();
        let extras = Extras::default();
        let mut writer = Writer::over(std::mem::take(scratch), &extras);
        writer.parameter(element);
        let result = writer.written().map(|bytes| {
            if bytes.len() == self.0.len() {
                self.0.copy_from_slice(bytes);
            } else {
                self.0 = SmallVec::from_slice(bytes);
            }
        });
        *scratch = writer.into_bytes();
        result
    }

    /// The element.
    #[must_use]
    pub fn decode(&self) -> PoolElement {
        let bytes = Bytes::copy_from_slice(&self.0[..self.length()]);
        let mut unrecognized = Vec::new();
        let mut reader = Reader::new(&bytes, IDENTIFIER.start..bytes.len(), &mut unrecognized);
        let mut element = PoolElement::blank();
        element.decode(ParameterType::PoolElement, &mut reader).expect("it was encoded");
        element
    }

    /// The identifier of the element.
    #[must_use]
    pub fn identifier(&self) -> PoolElementId {
        PoolElementId(self.u32(IDENTIFIER))
    }

    /// The home registrar of the element.
    #[must_use]
    pub fn home_registrar(&self) -> RegistrarId {
        RegistrarId(self.u32(HOME))
    }

    /// Gives the element another home registrar.
    pub fn set_home_registrar(&mut self, home: RegistrarId) {
        self.0[HOME].copy_from_slice(&home.0.to_be_bytes());
    }

    /// The parameter, its padding included.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The policy parameter within, without padding.
    pub(super) fn policy(&self) -> &[u8] {
        &self.0[self.policy_range()]
    }

    /// Of the parameter what pool users get, without padding: its length, and its value. They
    /// have no business with the element's ASAP endpoint, which comes last.
    pub(super) fn for_users(&self) -> (u16, &[u8]) {
        let end = self.policy_range().end;
        let length = u16::try_from(end).expect("no longer than the whole, which has such a length");
        (length, &self.0[IDENTIFIER.start..end])
    }

    /// How many bytes a pool user gets.
    pub(crate) fn user_size(&self) -> usize {
        padded(self.policy_range().end)
    }

    fn length(&self) -> usize {
        self.u16(2).into()
    }

    fn policy_range(&self) -> Range<usize> {
        let start = USER_TRANSPORT + padded(self.u16(USER_TRANSPORT + 2).into());
        start..start + usize::from(self.u16(start + 2))
    }

    fn u16(&self, at: usize) -> u16 {
        u16::from_be_bytes([self.0[at], self.0[at + 1]])
    }

    fn u32(&self, at: Range<usize>) -> u32 {
        self.0[at].iter().fold(0, |number, byte| number << 8 | u32::from(*byte))
    }
}

impl fmt::Debug for EncodedElement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.decode().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{PolicyParameters, PolicyType, RegistrationLife, TransportAddress};

    #[test]
    fn what_was_encoded_is_what_it_was() {
        let sctp = TransportAddress::sctp("10.0.0.1:80".parse().unwrap());
        let mut multi_homed = sctp.clone();
        multi_homed.addresses.extend(["fd00::1".parse::<std::net::IpAddr>().unwrap(); 5]);
        let opaque = || crate::wire::UserTransport::Opaque(Bytes::from_static(b"anywhere"));
        let odd = PolicyParameters::from_bytes(PolicyType(0x9999), b"12345");
        for user_transport in [sctp.clone().into(), multi_homed.clone().into(), opaque()] {
            for policy in ["RoundRobin", "LeastUsedDegradationDPF:1:2:3:4"]
                .map(|text| text.parse().unwrap())
                .into_iter()
                .chain([odd.clone()])
            {
                for asap_transport in [None, Some(sctp.clone()), Some(multi_homed.clone())] {
                    let mut element = PoolElement {
                        identifier: PoolElementId(0x8000_0001),
                        home_registrar: RegistrarId(7),
                        registration_life: RegistrationLife(60),
                        user_transport: user_transport.clone(),
                        policy: policy.clone(),
                        asap_transport,
                    };
                    let mut encoded = EncodedElement::new(&element).unwrap();
                    assert_eq!(encoded.decode(), element);
                    assert_eq!(encoded.identifier(), element.identifier);
                    assert_eq!(encoded.home_registrar(), element.home_registrar);
                    encoded.set_home_registrar(RegistrarId(9));
                    element.home_registrar = RegistrarId(9);
                    assert_eq!(encoded, EncodedElement::new(&element).unwrap());
                }
            }
        }
    }
}
