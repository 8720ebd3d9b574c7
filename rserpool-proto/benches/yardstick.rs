//! Measures one dependent access to memory, for comparison with structures that do little else.

use rand::rngs::StdRng;
use rand::seq::SliceRandom;

/// Memory of 192 bytes for each of a number of elements, in which each place contains the number of
/// the next one.
pub struct Yardstick {
    places: Vec<[u32; 48]>,
    at: u32,
}

impl Yardstick {
    pub fn new(size: usize, rng: &mut StdRng) -> Self {
        let mut places = vec![[0_u32; 48]; size];
        let mut order: Vec<u32> = (0..size as u32).collect();
        order.shuffle(rng);
        for (at, next) in order.iter().zip(order.iter().cycle().skip(1)) {
            places[*at as usize][0] = *next;
        }
        Self { places, at: 0 }
    }

    /// Does `count` reads, each of a place that the one before named.
    pub fn look(&mut self, count: usize) -> u32 {
        for _ in 0..count {
            self.at = self.places[self.at as usize][0];
        }
        self.at
    }
}
