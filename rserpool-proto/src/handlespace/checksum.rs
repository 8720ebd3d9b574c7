//! The checksum of the elements that a registrar owns (RFC 5353 section 3.6.2).

use crate::Compatibility;
use crate::wire::parameter::PeChecksum;
use crate::wire::{PoolElementId, PoolHandle};

/// A checksum of pool elements. Adding or subtracting an element costs O(length of its pool
/// handle).
///
/// The state is the exact sum of all 16-bit words, so that subtraction is exact. The arithmetic of
/// the Internet checksum (RFC 1071) is applied at the end. The words are little-endian, which makes
/// a difference only to rsplib's variant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Checksum(u64);

impl Checksum {
    /// Adds an element.
    pub fn add(&mut self, handle: &PoolHandle, identifier: PoolElementId) {
        self.0 += contribution(handle, identifier);
    }

    /// Subtracts an element that was added.
    pub fn subtract(&mut self, handle: &PoolHandle, identifier: PoolElementId) {
        self.0 -= contribution(handle, identifier);
    }

    /// Returns the checksum as the implementations of `profile` compute it.
    #[must_use]
    pub fn of_profile(self, profile: Compatibility) -> PeChecksum {
        match profile {
            Compatibility::All | Compatibility::Rfc => self.value(),
            Compatibility::Rsplib => self.rsplib_value(),
        }
    }

    /// Returns the checksum of RFC 5353 section 3.6.2.
    #[must_use]
    pub fn value(self) -> PeChecksum {
        PeChecksum(fold(self.0).swap_bytes())
    }

    /// Returns the checksum that rsplib computes on a little-endian machine. Its sum has 32 bits
    /// and drops the carry, so it differs from that of the RFC if there are more than a few
    /// thousand elements.
    #[must_use]
    pub fn rsplib_value(self) -> PeChecksum {
        PeChecksum(fold(self.0 & u64::from(u32::MAX)).swap_bytes())
    }
}

fn contribution(handle: &PoolHandle, identifier: PoolElementId) -> u64 {
    let word = |bytes: &[u8]| {
        let high = bytes.get(1).copied().unwrap_or(0);
        u64::from(u16::from_le_bytes([bytes[0], high]))
    };
    let identifier = identifier.0.to_be_bytes();
    handle.as_bytes().chunks(2).chain(identifier.chunks(2)).map(word).sum()
}

fn fold(mut sum: u64) -> u16 {
    while sum > u64::from(u16::MAX) {
        sum = (sum & u64::from(u16::MAX)) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checksum(elements: &[(&str, u32)]) -> Checksum {
        let mut sum = Checksum::default();
        for (handle, identifier) in elements {
            sum.add(&handle.parse().unwrap(), PoolElementId(*identifier));
        }
        sum
    }

    #[test]
    fn small_sums_equal_those_of_rsplib() {
        let one = ("CalcAppPool", 0x5562_e917);
        let other = ("CalcAppPool", 0x3775_a3bd);
        for (elements, expected) in [
            (&[][..], 0xffff),
            (&[one][..], 0x8490),
            (&[other][..], 0xe7d7),
            (&[one, other][..], 0x6c68),
            (&[("EchoPool", 1)][..], 0x9250),
        ] {
            let sum = checksum(elements);
            assert_eq!((sum.value().0, sum.rsplib_value().0), (expected, expected));
        }
    }

    #[test]
    fn large_sums_follow_each_way() {
        let handle: PoolHandle = "A".repeat(32).parse().unwrap();
        let mut sum = Checksum::default();
        for _ in 0..10_000 {
            sum.add(&handle, PoolElementId(u32::MAX));
        }
        assert_eq!((sum.value().0, sum.rsplib_value().0), (0xafaf, 0xafaf));
        for _ in 0..1_000 {
            sum.add(&handle, PoolElementId(u32::MAX));
        }
        assert_eq!((sum.value().0, sum.rsplib_value().0), (0x4141, 0x4241));
        for _ in 0..11_000 {
            sum.subtract(&handle, PoolElementId(u32::MAX));
        }
        assert_eq!(sum, Checksum::default());
    }
}
