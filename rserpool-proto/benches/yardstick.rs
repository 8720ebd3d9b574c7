//! Measures the time of one dependent memory access, for comparison with data structures whose
//! operations consist of little else.

use rand::rngs::StdRng;
use rand::seq::SliceRandom;

/// An array with an entry of 192 bytes for each element. Each entry contains the index of the next
/// one to read.
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

    /// Does `count` dependent reads: each entry contains the index of the next one.
    pub fn look(&mut self, count: usize) -> u32 {
        for _ in 0..count {
            self.at = self.places[self.at as usize][0];
        }
        self.at
    }
}
