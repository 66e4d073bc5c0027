//! How long to wait before trying again: exponential growth, a cap, full jitter.
//!
//! Full jitter draws uniformly from zero to the grown bound; it spreads a fleet that lost the same
//! link at the same moment (M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015).

use std::time::Duration;

/// A back-off policy. The random number is handed in, so that a decision can be repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// Bound of the first wait.
    pub base: Duration,
    /// Bound that no wait exceeds.
    pub cap: Duration,
}

impl Backoff {
    /// Returns the upper bound of the wait before try number `attempt` (counted from 0).
    pub fn bound(self, attempt: u32) -> Duration {
        let factor = 1_u32.checked_shl(attempt.min(31)).unwrap_or(u32::MAX);
        self.base.saturating_mul(factor).min(self.cap)
    }

    /// Returns a wait between zero and [`Self::bound`], chosen by `dice`.
    pub fn full_jitter(self, attempt: u32, dice: u64) -> Duration {
        scale(self.bound(attempt), dice)
    }

    /// Returns a wait between `floor` and `floor` + [`Self::bound`], chosen by `dice`.
    pub fn above(self, floor: Duration, attempt: u32, dice: u64) -> Duration {
        (floor + self.full_jitter(attempt, dice)).min(self.cap.max(floor))
    }
}

fn scale(bound: Duration, dice: u64) -> Duration {
    let nanos = bound.as_nanos() * u128::from(dice) / u128::from(u64::MAX);
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_stays_between_zero_and_the_cap() {
        let policy = Backoff {
            base: Duration::from_secs(1),
            cap: Duration::from_secs(300),
        };
        for attempt in 0..70 {
            assert_eq!(policy.full_jitter(attempt, 0), Duration::ZERO);
            assert_eq!(policy.full_jitter(attempt, u64::MAX), policy.bound(attempt));
            assert!(policy.bound(attempt) <= policy.cap);
        }
        assert_eq!(policy.bound(3), Duration::from_secs(8));
        assert_eq!(policy.bound(9), policy.cap);
    }
}
