//! Random numbers for selections.

use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

/// A generator of pseudo-random numbers, which are determined by its seed.
#[derive(Debug)]
pub struct RandomSource(StdRng);

impl RandomSource {
    /// Creates a generator. Equal seeds give equal numbers as long as the program was built with the
    /// same version of this crate.
    #[must_use]
    pub fn from_seed(seed: u64) -> Self {
        Self(StdRng::seed_from_u64(seed))
    }

    /// Returns a number of 32 random bits.
    pub fn next_u32(&mut self) -> u32 {
        self.0.next_u32()
    }

    /// Returns a number of 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// Returns a uniformly distributed random number below `bound`, or 0 if `bound` is 0.
    ///
    /// ```
    /// let mut source = rserpool_proto::policy::RandomSource::from_seed(7);
    /// assert!((0..100).all(|_| source.below(6) < 6));
    /// ```
    pub fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.0.random_range(..bound) }
    }

    pub(crate) fn rng(&mut self) -> &mut StdRng {
        &mut self.0
    }
}
