//! What is still to be told to the station, and when to try again: answers and events.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use serde::Serialize;
use steward_protocol::{EventId, FaultEvent, ReportEvent, TextEvent, retry::Backoff};

/// Most events kept until the station has stored them; beyond it the oldest goes and is counted. An
/// idle one costs less than a hundred bytes of memory.
pub const MAX_EVENTS: usize = 10_000;

/// Most bytes of events kept; beyond it the oldest goes and is counted (design section 8).
pub const MAX_BYTES: u64 = 64 << 20;

/// Beyond this many bytes, a report keeps little of what its command wrote: exit codes outlast output.
pub const SHORT_BYTES: u64 = MAX_BYTES / 2;

/// Bytes of each output stream that a report keeps when space is short.
pub const SHORT_OUTPUT: usize = 1024;

/// Shortest wait before an answer is repeated.
const FLOOR: Duration = Duration::from_secs(5);

/// Growth of the wait above [`FLOOR`].
const BACKOFF: Backoff = Backoff {
    base: Duration::from_secs(5),
    cap: Duration::from_secs(300),
};

/// Something the station is to know.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub enum Notice {
    /// A fault and the verdict on it.
    Fault(FaultEvent),
    /// Text for the station's log.
    Text(TextEvent),
    /// What came of an order this node gave itself.
    Report(Box<ReportEvent>),
}

impl Notice {
    /// Returns its id.
    pub fn id(&self) -> EventId {
        match self {
            Self::Fault(fault) => fault.id,
            Self::Text(text) => text.id,
            Self::Report(report) => report.id,
        }
    }

    /// Returns the word the journal's file keeps for its kind.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Fault(_) => "fault",
            Self::Text(_) => "text",
            Self::Report(_) => "report",
        }
    }

    /// Returns how many bytes it takes.
    pub fn bytes(&self) -> u64 {
        serde_json::to_vec(self).map_or(0, |json| json.len() as u64)
    }
}

/// An event as the spool knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// Its place, in the order the events happened.
    pub rank: u64,
    /// Its id.
    pub id: EventId,
    /// How many bytes it takes.
    pub bytes: u64,
    /// Whether it is text, which must arrive in its order.
    pub is_text: bool,
}

impl Kept {
    /// Returns what the spool keeps of an event.
    pub fn of(notice: &Notice) -> Self {
        Self {
            rank: 0,
            id: notice.id(),
            bytes: notice.bytes(),
            is_text: matches!(notice, Notice::Text(_)),
        }
    }
}

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
    events: BTreeMap<u64, (Kept, Resend)>,
    ranks: HashMap<EventId, u64>,
    texts: BTreeSet<u64>,
    bytes: u64,
    last: u64,
}

impl Spool {
    /// Returns the spool as it was kept.
    pub fn new(kept: impl IntoIterator<Item = Kept>) -> Self {
        let mut spool = Self::default();
        for kept in kept {
            spool.insert(kept);
        }
        spool
    }

    /// Returns how many events are kept.
    pub fn count(&self) -> usize {
        self.events.len()
    }

    /// Tells whether reports should be small.
    pub fn is_short(&self) -> bool {
        self.bytes > SHORT_BYTES
    }

    fn insert(&mut self, kept: Kept) {
        self.last = self.last.max(kept.rank);
        self.bytes += kept.bytes;
        self.ranks.insert(kept.id, kept.rank);
        if kept.is_text {
            self.texts.insert(kept.rank);
        }
        self.events.insert(kept.rank, (kept, Resend::default()));
    }

    fn remove(&mut self, rank: u64) {
        if let Some((kept, _)) = self.events.remove(&rank) {
            self.bytes -= kept.bytes;
            self.ranks.remove(&kept.id);
            self.texts.remove(&rank);
        }
    }

    /// Takes an event. Returns its rank and the ranks of those that had to go for it.
    pub fn push(&mut self, kept: Kept) -> (u64, Vec<u64>) {
        let rank = self.last + 1;
        self.insert(Kept { rank, ..kept });
        let mut dropped = Vec::new();
        while self.events.len() > MAX_EVENTS || self.bytes > MAX_BYTES {
            let Some(oldest) = self.events.keys().next().copied() else {
                break;
            };
            self.remove(oldest);
            dropped.push(oldest);
        }
        (rank, dropped)
    }

    /// Removes an event the station has stored. Returns its rank.
    pub fn confirm(&mut self, id: EventId) -> Option<u64> {
        let rank = self.ranks.get(&id).copied()?;
        self.remove(rank);
        Some(rank)
    }

    /// Makes everything due.
    pub fn hurry(&mut self) {
        for (_, resend) in self.events.values_mut() {
            *resend = Resend::default();
        }
    }

    /// Returns the text before the one of this rank that the station has not confirmed.
    pub fn text_before(&self, rank: u64) -> Option<EventId> {
        let before = self.texts.range(..rank).next_back()?;
        self.events.get(before).map(|(kept, _)| kept.id)
    }

    /// Takes up to `most` events that are due, and plans their repetition. The texts are repeated
    /// together, when the oldest of them is due: none is stored before the one before it.
    pub fn due(&mut self, now_ms: u64, dice: u64, most: usize) -> Vec<u64> {
        let mut ranks = Vec::new();
        let oldest = self.texts.first().and_then(|rank| self.events.get(rank));
        let texts_again = oldest.is_some_and(|(_, resend)| resend.due_ms <= now_ms);
        for (rank, (kept, resend)) in &mut self.events {
            if ranks.len() == most {
                break;
            }
            let is_due = match kept.is_text && resend.attempt > 0 {
                true => texts_again,
                false => resend.due_ms <= now_ms,
            };
            if is_due {
                *resend = resend.again(now_ms, mix(dice, *rank));
                ranks.push(*rank);
            }
        }
        ranks
    }

    /// Returns when the next event is due.
    pub fn next_due(&self) -> Option<u64> {
        let oldest = self.texts.first();
        let waits = |(rank, (kept, resend)): (&u64, &(Kept, Resend))| {
            let follows = kept.is_text && resend.attempt > 0 && Some(rank) != oldest;
            (!follows).then_some(resend.due_ms)
        };
        self.events.iter().filter_map(waits).min()
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn id(number: u128) -> EventId {
        EventId(Uuid::from_u128(number))
    }

    fn kept(number: u128, bytes: u64) -> Kept {
        Kept {
            rank: 0,
            id: id(number),
            bytes,
            is_text: false,
        }
    }

    #[test]
    fn texts_are_repeated_together_and_each_names_the_one_before() {
        let mut spool = Spool::default();
        for number in 1..=4 {
            let is_text = number != 2;
            spool.push(Kept {
                is_text,
                ..kept(number, 1)
            });
        }
        assert_eq!(spool.due(0, 3, 9), [1, 2, 3, 4]);
        let before: Vec<_> = [1, 3, 4].map(|rank| spool.text_before(rank)).to_vec();
        assert_eq!(before, [None, Some(id(1)), Some(id(3))]);
        // The oldest is due again: all of them go, also the one that is not due itself.
        let first = spool.events[&1].1.due_ms;
        let others = spool.due(first, 3, 9);
        assert!(others.contains(&1) && others.contains(&3) && others.contains(&4));
        assert_eq!(spool.confirm(id(1)), Some(1));
        assert_eq!(spool.text_before(3), None);
    }

    #[test]
    fn what_is_too_much_drops_the_oldest() {
        let mut spool = Spool::default();
        for number in 1..=MAX_EVENTS as u64 {
            assert_eq!(spool.push(kept(number.into(), 1)), (number, Vec::new()));
        }
        let (rank, dropped) = spool.push(kept(0, 1));
        assert_eq!((rank, dropped), (MAX_EVENTS as u64 + 1, vec![1]));
        assert_eq!(spool.confirm(id(1)), None);
    }

    #[test]
    fn bytes_count_as_well_as_numbers() {
        let half = MAX_BYTES / 2;
        let mut spool = Spool::new([Kept {
            rank: 7,
            ..kept(7, half)
        }]);
        assert_eq!(spool.push(kept(8, half - 1)), (8, Vec::new()));
        assert_eq!(spool.push(kept(9, 1)), (9, Vec::new()));
        assert_eq!(spool.push(kept(10, 1)), (10, vec![7]));
        assert_eq!(spool.push(kept(11, MAX_BYTES)), (11, vec![8, 9, 10]));
        assert_eq!(spool.confirm(id(11)), Some(11));
        assert_eq!(spool.bytes, 0);
    }
}
