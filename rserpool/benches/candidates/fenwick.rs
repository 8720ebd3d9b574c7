//! The candidate for weighted drawing that was not taken.

/// Weights with their prefix sums, after P. Fenwick, "A new data structure for cumulative
/// frequency tables" (1994).
#[derive(Debug, Default)]
pub struct Fenwick {
    weights: Vec<u32>,
    /// At `i`: the sum of the `lowest_bit(i + 1)` weights that end with weight `i`. Its length
    /// is a power of two, so that the last one is the sum of all.
    sums: Vec<u64>,
}

impl Fenwick {
    pub fn total(&self) -> u64 {
        self.sums.last().copied().unwrap_or(0)
    }

    pub fn weight(&self, index: usize) -> u32 {
        self.weights[index]
    }

    pub fn set(&mut self, index: usize, weight: u32) {
        if index >= self.weights.len() {
            self.grow(index + 1);
        }
        let old = std::mem::replace(&mut self.weights[index], weight);
        let mut position = index + 1;
        while position <= self.sums.len() {
            let sum = &mut self.sums[position - 1];
            *sum = *sum - u64::from(old) + u64::from(weight);
            position += position & position.wrapping_neg();
        }
    }

    fn grow(&mut self, length: usize) {
        let total = self.total();
        let length = length.next_power_of_two();
        let old = self.sums.len();
        self.weights.resize(length, 0);
        self.sums.resize(length, 0);
        // New sums are empty but for those that reach back over all the old weights.
        let mut position = old.max(1) * 2;
        while old > 0 && position <= length {
            self.sums[position - 1] = total;
            position *= 2;
        }
    }

    /// The index whose share of the total contains `point`.
    pub fn find(&self, mut point: u64) -> usize {
        let mut position = 0;
        let mut step = self.sums.len();
        while step > 0 {
            let next = position + step;
            if next <= self.sums.len() && self.sums[next - 1] <= point {
                point -= self.sums[next - 1];
                position = next;
            }
            step /= 2;
        }
        position
    }
}
