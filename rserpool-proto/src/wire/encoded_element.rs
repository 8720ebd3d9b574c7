//! Pool elements in the form in which they are stored: encoded, and small enough for every message.

use std::fmt;
use std::ops::Range;

use bytes::Bytes;
use smallvec::SmallVec;

use super::message::Extras;
use super::{
    Parameter, ParameterType, Placeholder, PoolElement, PoolElementId, PoolHandle, Reader,
    RegistrarId, Writer, padded,
};

/// A pool element stored as its encoded parameter (RFC 5354 section 3.10). It takes 72 bytes if it
/// has one IPv4 address.
///
/// Together with its pool handle it takes at most [`MAX_SIZE`](Self::MAX_SIZE) bytes. It therefore
/// fits into every message that contains an element, and encoding such a message cannot fail.
#[derive(Clone, PartialEq, Eq)]
pub struct EncodedElement(SmallVec<[u8; 64]>);

/// Error of [`EncodedElement::new`]: the element is too large to be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "cannot store the pool element: {size} bytes with its handle exceed the limit of {}",
    EncodedElement::MAX_SIZE
)]
pub struct ElementTooLarge {
    /// The total size of the encoded parameters of the element and of its pool handle, in bytes.
    pub size: usize,
}

/// Range of the identifier in the encoded parameter.
const IDENTIFIER: Range<usize> = 4..8;
const HOME: Range<usize> = 8..12;
const USER_TRANSPORT: usize = 16;

impl EncodedElement {
    /// The size limit of an element together with its pool handle, in bytes of their parameters.
    ///
    /// 4096 is not from the RFCs. It leaves room for two transports of 64 IPv6 addresses each and
    /// for long policies, keeps answers small, and lets a few elements always fit into one answer.
    pub const MAX_SIZE: usize = 4096;

    /// Encodes `element` of the pool `handle`.
    ///
    /// # Errors
    ///
    /// Returns an error if the element and the handle need more than [`Self::MAX_SIZE`] bytes.
    pub fn new(handle: &PoolHandle, element: &PoolElement) -> Result<Self, ElementTooLarge> {
        let mut encoded = Self(SmallVec::new());
        encoded.assign(handle, element, &mut Vec::with_capacity(128))?;
        Ok(encoded)
    }

    /// Replaces this element by `element` of the pool `handle`, encoding it in the buffer
    /// `scratch`. Returns whether pool users see a difference.
    ///
    /// # Errors
    ///
    /// Returns an error if the element and the handle need more than [`Self::MAX_SIZE`] bytes. The
    /// stored element is then unchanged.
    pub(crate) fn assign(
        &mut self,
        handle: &PoolHandle,
        element: &PoolElement,
        scratch: &mut Vec<u8>,
    ) -> Result<bool, ElementTooLarge> {
        scratch.clear();
        let extras = Extras::default();
        let mut writer = Writer::over(std::mem::take(scratch), &extras);
        writer.parameter(element);
        *scratch = writer.into_padded();
        let size = padded(4 + handle.as_bytes().len()) + scratch.len();
        if size > Self::MAX_SIZE {
            return Err(ElementTooLarge { size });
        }
        let differs = self.0.is_empty() || user_values(&self.0) != user_values(scratch);
        if scratch.len() == self.0.len() {
            self.0.copy_from_slice(scratch);
        } else {
            self.0 = SmallVec::from_slice(scratch);
        }
        Ok(differs)
    }

    /// Returns the decoded element.
    #[must_use]
    pub fn decode(&self) -> PoolElement {
        let bytes = Bytes::copy_from_slice(&self.0[..self.length()]);
        let mut unrecognized = Vec::new();
        let mut reader = Reader::new(&bytes, IDENTIFIER.start..bytes.len(), &mut unrecognized);
        let mut element = PoolElement::placeholder();
        element.decode(ParameterType::PoolElement, &mut reader).expect("it was encoded");
        element
    }

    /// Returns the identifier of the element.
    #[must_use]
    pub fn identifier(&self) -> PoolElementId {
        PoolElementId(self.u32(IDENTIFIER))
    }

    /// Returns the home registrar of the element.
    #[must_use]
    pub fn home_registrar(&self) -> RegistrarId {
        RegistrarId(self.u32(HOME))
    }

    /// Sets the home registrar of the element.
    pub fn set_home_registrar(&mut self, home: RegistrarId) {
        self.0[HOME].copy_from_slice(&home.0.to_be_bytes());
    }

    /// Returns the encoded parameter with its padding.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Returns the element's policy parameter without padding.
    pub(super) fn policy(&self) -> &[u8] {
        &self.0[policy_range(&self.0)]
    }

    /// Returns the length and the unpadded value of the element's parameter as pool users receive
    /// it. It leaves out the address of the element's ASAP endpoint, which comes last and is of no
    /// use to pool users.
    pub(super) fn for_users(&self) -> (u16, &[u8]) {
        const { assert!(Self::MAX_SIZE <= u16::MAX as usize) };
        let end = policy_range(&self.0).end;
        (end as u16, &self.0[IDENTIFIER.start..end])
    }

    /// Returns the number of bytes that the element takes in a message to pool users.
    pub(super) fn user_size(&self) -> usize {
        padded(policy_range(&self.0).end)
    }

    fn length(&self) -> usize {
        u16_at(&self.0, 2).into()
    }

    fn u32(&self, at: Range<usize>) -> u32 {
        self.0[at].iter().fold(0, |number, byte| number << 8 | u32::from(*byte))
    }
}

fn policy_range(element: &[u8]) -> Range<usize> {
    let start = USER_TRANSPORT + padded(u16_at(element, USER_TRANSPORT + 2).into());
    start..start + usize::from(u16_at(element, start + 2))
}

/// Returns the bytes of the user transport and the policy.
fn user_values(element: &[u8]) -> &[u8] {
    &element[USER_TRANSPORT..policy_range(element).end]
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
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
                    let pool = "Pool".parse().unwrap();
                    let mut encoded = EncodedElement::new(&pool, &element).unwrap();
                    assert_eq!(encoded.decode(), element);
                    assert_eq!(encoded.identifier(), element.identifier);
                    assert_eq!(encoded.home_registrar(), element.home_registrar);
                    encoded.set_home_registrar(RegistrarId(9));
                    element.home_registrar = RegistrarId(9);
                    assert_eq!(encoded, EncodedElement::new(&pool, &element).unwrap());
                }
            }
        }
    }
    #[test]
    fn the_limit_counts_the_handle() {
        let mut element = PoolElement {
            identifier: PoolElementId(1),
            home_registrar: RegistrarId(1),
            registration_life: RegistrationLife(60),
            user_transport: TransportAddress::tcp("10.0.0.1:80".parse().unwrap()).into(),
            policy: PolicyParameters::from_bytes(PolicyType(0x9999), &[0; 2000]),
            asap_transport: None,
        };
        let size = |handle: usize, element: &PoolElement| {
            let handle = PoolHandle::new(vec![b'x'; handle]).unwrap();
            EncodedElement::new(&handle, element).map(|encoded| encoded.as_bytes().len())
        };
        let length = size(4, &element).unwrap();
        let room = EncodedElement::MAX_SIZE - length - 4;
        assert_eq!(size(room, &element), Ok(length));
        let too_large = ElementTooLarge { size: EncodedElement::MAX_SIZE + 4 };
        assert_eq!(size(room + 1, &element), Err(too_large));
        element.policy = PolicyParameters::from_bytes(PolicyType(0x9999), &[0; 65_500]);
        assert!(size(4, &element).is_err());
    }
}
