//! The dice: a small generator whose numbers a seed fixes for ever.
//!
//! Knows nothing of what is decided with them. A library's generator may change with its version;
//! a seed that showed a defect must show it again in a year.

/// xoshiro256** (D. Blackman, S. Vigna, "Scrambled linear pseudorandom number generators", 2021).
#[derive(Debug, Clone)]
pub struct Dice {
    state: [u64; 4],
}

impl Dice {
    /// Returns the dice of `seed`.
    pub fn new(seed: u64) -> Self {
        let mut word = seed;
        // Neighbouring seeds must not begin alike: splitmix64 spreads them.
        let state = std::array::from_fn(|_| {
            word = word.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut mixed = word;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            mixed ^ (mixed >> 31)
        });
        Self { state }
    }

    /// Returns the next number.
    pub fn roll(&mut self) -> u64 {
        let [a, b, c, d] = self.state;
        let result = b.wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let (c, d) = (c ^ a, d ^ b);
        self.state = [a ^ d, b ^ c, c ^ (b << 17), d.rotate_left(45)];
        result
    }

    /// Returns a number below `bound`, which is not zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        let wide = u128::from(self.roll()) * u128::from(bound);
        u64::try_from(wide >> 64).unwrap_or(0)
    }

    /// Returns a number from `low` to `high`, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// Returns an index below `bound`, which is not zero.
    pub fn index(&mut self, bound: usize) -> usize {
        usize::try_from(self.below(bound as u64)).unwrap_or(0)
    }

    /// Tells whether something that happens `per_mille` times in a thousand happens now.
    pub fn chance(&mut self, per_mille: u64) -> bool {
        per_mille > 0 && self.below(1000) < per_mille
    }

    /// Returns one of `choices`, which is not empty.
    pub fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.index(choices.len())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_names_the_same_numbers_for_ever() {
        let mut dice = Dice::new(42);
        let first: Vec<u64> = (0..3).map(|_| dice.below(1000)).collect();
        assert_eq!(first, [83, 378, 680]);
    }

    #[test]
    fn a_number_stays_within_its_bounds() {
        let mut dice = Dice::new(7);
        for _ in 0..1000 {
            assert!((3..=5).contains(&dice.between(3, 5)));
            assert!(!dice.chance(0));
            assert!(dice.chance(1000));
        }
    }
}
