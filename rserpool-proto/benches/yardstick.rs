//! The cost of one access to memory: the yardstick for structures that do little else.

use rand::rngs::StdRng;
use rand::seq::SliceRandom;

/// As much memory as so many elements need, 192 bytes each, where each place says which is next.
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

    /// So many looks, each of which depends on what was seen before.
    pub fn look(&mut self, count: usize) -> u32 {
        for _ in 0..count {
            self.at = self.places[self.at as usize][0];
        }
        self.at
    }
}
