//! What is still to be told to the station, and when to try again: answers and events.

use std::collections::BTreeMap;
use std::time::Duration;

use steward_protocol::{EventId, retry::Backoff};

/// Most events kept until the station has stored them; beyond it the oldest goes and is counted.
pub const MAX_EVENTS: usize = 1000;

/// Shortest wait before an answer is repeated.
const FLOOR: Duration = Duration::from_secs(5);

/// Growth of the wait above [`FLOOR`].
const BACKOFF: Backoff = Backoff {
    base: Duration::from_secs(5),
    cap: Duration::from_secs(300),
};

/// When something was said and when it is to be said again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Resend {
    attempt: u32,
    /// On the clock of this boot.
    pub due_ms: u64,
}

impl Resend {
    /// Returns the plan for something that has just been said for the first time.
    pub fn said(now_ms: u64, dice: u64) -> Self {
        Self::default().again(now_ms, dice)
    }

    /// Returns the plan after it has been said once more.
    #[must_use]
    pub fn again(self, now_ms: u64, dice: u64) -> Self {
        let wait = BACKOFF.above(FLOOR, self.attempt, dice);
        Self {
            attempt: self.attempt.saturating_add(1),
            due_ms: now_ms + u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
        }
    }
}

/// Spreads one random number over many things, so that they are not all repeated at once.
pub fn mix(dice: u64, salt: u64) -> u64 {
    let mut value = dice ^ salt.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

/// The events not yet handed over, in the order they happened.
#[derive(Debug, Default)]
pub struct Spool {
    events: BTreeMap<u64, (EventId, Resend)>,
    last: u64,
}

impl Spool {
    /// Returns the spool as it was kept.
    pub fn new(kept: impl IntoIterator<Item = (u64, EventId)>) -> Self {
        let events: BTreeMap<_, _> = kept
            .into_iter()
            .map(|(rank, id)| (rank, (id, Resend::default())))
            .collect();
        let last = events.keys().last().copied().unwrap_or(0);
        Self { events, last }
    }

    /// Returns how many events are kept.
    pub fn count(&self) -> usize {
        self.events.len()
    }

    /// Takes an event. Returns its rank and the rank of the one that had to go for it.
    pub fn push(&mut self, id: EventId) -> (u64, Option<u64>) {
        self.last += 1;
        self.events.insert(self.last, (id, Resend::default()));
        let full = self.events.len() > MAX_EVENTS;
        let dropped = if full { self.events.pop_first() } else { None };
        (self.last, dropped.map(|(rank, _)| rank))
    }

    /// Removes an event the station has stored. Returns its rank.
    pub fn confirm(&mut self, id: EventId) -> Option<u64> {
        let rank = self
            .events
            .iter()
            .find(|(_, (known, _))| *known == id)
            .map(|(rank, _)| *rank)?;
        self.events.remove(&rank);
        Some(rank)
    }

    /// Makes everything due.
    pub fn hurry(&mut self) {
        for (_, resend) in self.events.values_mut() {
            *resend = Resend::default();
        }
    }

    /// Takes up to `most` events that are due, and plans their repetition.
    pub fn due(&mut self, now_ms: u64, dice: u64, most: usize) -> Vec<u64> {
        let mut ranks = Vec::new();
        for (rank, (_, resend)) in &mut self.events {
            if ranks.len() == most {
                break;
            }
            if resend.due_ms <= now_ms {
                *resend = resend.again(now_ms, mix(dice, *rank));
                ranks.push(*rank);
            }
        }
        ranks
    }

    /// Returns when the next event is due.
    pub fn next_due(&self) -> Option<u64> {
        self.events.values().map(|(_, resend)| resend.due_ms).min()
    }
}
