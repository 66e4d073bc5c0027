//! What a receiver may be believed to have: TCP says only that bytes left. Pure; the time is handed in.
//!
//! What was written counts only after it has stood for a while on a connection that lived on. When one is lost, all that
//! does not count yet is sent again: rather twice than never.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use super::super::{
    follow::{Cursor, Cursors},
    name::Line,
};

/// How long. Longer than [`super::link::UNACKNOWLEDGED`], so that what the other host's kernel did not
/// acknowledge has broken the connection by then.
pub const SETTLE: Duration = Duration::from_secs(12);

/// What is written within so much time counts together: memory is bounded by how many lines there are.
const SLOT: Duration = Duration::from_secs(1);

/// Cursors that count, and those that do not yet.
#[derive(Debug)]
pub struct Settling {
    settled: Cursors,
    slots: VecDeque<(Instant, HashMap<Line, Cursor>)>,
    after: Duration,
    changed: bool,
}

impl Settling {
    /// Returns what counts at the beginning.
    pub fn new(settled: Cursors) -> Self {
        Self::after(settled, SETTLE)
    }

    /// The same with another time.
    pub fn after(settled: Cursors, after: Duration) -> Self {
        Self {
            settled,
            slots: VecDeque::new(),
            after,
            changed: false,
        }
    }

    /// Notes that all in front of a cursor was written.
    pub fn written(&mut self, now: Instant, line: &Line, cursor: Cursor) {
        match self.slots.back_mut() {
            Some((begin, slot)) if now.saturating_duration_since(*begin) < SLOT => {
                slot.insert(line.clone(), cursor);
            }
            _ => {
                let slot = HashMap::from([(line.clone(), cursor)]);
                self.slots.push_back((now, slot));
            }
        }
    }

    /// Counts what has stood for long enough.
    pub fn settle(&mut self, now: Instant) {
        let wait = SLOT + self.after;
        let is_due = |begin: Instant| now.saturating_duration_since(begin) >= wait;
        while self.slots.front().is_some_and(|(begin, _)| is_due(*begin)) {
            self.first();
        }
    }

    /// Counts everything: the receiver has said that it read to the end.
    pub fn all(&mut self) {
        while !self.slots.is_empty() {
            self.first();
        }
    }

    fn first(&mut self) {
        if let Some((_, slot)) = self.slots.pop_front() {
            self.settled.extend(slot);
            self.changed = true;
        }
    }

    /// Returns what counts.
    pub fn settled(&self) -> &Cursors {
        &self.settled
    }

    /// Tells whether that is other than when this was last asked.
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }
}
