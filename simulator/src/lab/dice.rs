//! Seeded chance: the same seed gives the same plan, on every machine.
//!
//! It knows nothing of what is decided by it. (The real programs keep their own timing, so the same plan need
//! not meet the same moments twice.)

use std::time::Duration;

/// A generator of random numbers (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014).
#[derive(Debug, Clone)]
pub(crate) struct Dice {
    state: u64,
}

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// Returns dice of their own for part number `n`, so that parts do not depend on each other's throws.
    pub(crate) fn fork(&self, n: u64) -> Self {
        let mut fork = Self::new(self.state ^ n.wrapping_mul(0xA076_1D64_78BD_642F));
        fork.next();
        fork
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut value = self.state;
        value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        value ^ (value >> 31)
    }

    /// Returns a number below `bound`; 0 when there is none.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound).unwrap_or(u64::MAX).max(1);
        usize::try_from(self.next() % bound).unwrap_or(0)
    }

    /// Returns a number from `low` to `high`, both included.
    pub(crate) fn within(&mut self, low: usize, high: usize) -> usize {
        low + self.below(high.saturating_sub(low) + 1)
    }

    /// Returns true `per_thousand` times in a thousand.
    pub(crate) fn chance(&mut self, per_thousand: u32) -> bool {
        self.next() % 1000 < u64::from(per_thousand)
    }

    /// Returns a time up to `longest`.
    pub(crate) fn time(&mut self, longest: Duration) -> Duration {
        let micros = u64::try_from(longest.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(self.next() % micros.max(1))
    }

    /// Returns one of `choices`, which are not empty.
    pub(crate) fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_throws_the_same_and_bounds_are_kept() {
        let (mut one, mut two) = (Dice::new(7), Dice::new(7));
        for _ in 0..1000 {
            let number = one.within(3, 5);
            assert_eq!(number, two.within(3, 5));
            assert!((3..=5).contains(&number));
        }
        assert!(!Dice::new(1).chance(0));
        assert!(Dice::new(1).chance(1000));
        assert_ne!(Dice::new(1).fork(1).next(), Dice::new(1).fork(2).next());
    }
}
