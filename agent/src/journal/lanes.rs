//! Where each ordered subject stands: the sequence number it takes next.
//!
//! Bounded: a lane that has not been used for longest is forgotten first. That is safe because
//! every ordered transmission carries `seq_low`, and a known order moves its lane past itself.

use std::collections::HashMap;

use steward_protocol::Subject;

/// Most lanes kept. A node has a handful; this bounds what a confused station can make it keep.
pub const MAX_LANES: usize = 4096;

/// One lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lane {
    /// The sequence number it takes next; everything smaller was taken or is settled.
    pub next: u64,
    /// Rises with every use, over all lanes.
    pub used: u64,
}

/// How a sequence number stands to its lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// It is the next one.
    Next,
    /// An earlier one is missing.
    Gap {
        /// The one expected.
        expected: u64,
    },
    /// It was taken, or settled, before.
    Past,
}

/// All lanes.
#[derive(Debug, Default)]
pub struct Lanes {
    lanes: HashMap<Subject, Lane>,
    clock: u64,
}

impl Lanes {
    /// Returns the lanes as they were kept.
    pub fn new(kept: impl IntoIterator<Item = (Subject, Lane)>) -> Self {
        let lanes: HashMap<Subject, Lane> = kept.into_iter().collect();
        let clock = lanes.values().map(|lane| lane.used).max().unwrap_or(0);
        Self { lanes, clock }
    }

    /// Tells how `seq` stands, everything below `seq_low` being settled.
    pub fn turn(&self, subject: &Subject, seq: u64, seq_low: u64) -> Turn {
        let known = self.lanes.get(subject).map_or(1, |lane| lane.next);
        let next = known.max(seq_low);
        match seq.cmp(&next) {
            std::cmp::Ordering::Less => Turn::Past,
            std::cmp::Ordering::Equal => Turn::Next,
            std::cmp::Ordering::Greater => Turn::Gap { expected: next },
        }
    }

    /// Moves a lane past `seq`. Returns the lane when that changed it.
    pub fn advance(&mut self, subject: &Subject, seq: u64) -> Option<Lane> {
        let next = seq.saturating_add(1);
        let known = self.lanes.get(subject).map_or(1, |lane| lane.next);
        if next <= known {
            return None;
        }
        self.clock += 1;
        let lane = Lane {
            next,
            used: self.clock,
        };
        self.lanes.insert(subject.clone(), lane);
        Some(lane)
    }

    /// Forgets the lane unused for longest when there are too many. Returns which.
    pub fn evict(&mut self) -> Option<Subject> {
        if self.lanes.len() <= MAX_LANES {
            return None;
        }
        let oldest = self
            .lanes
            .iter()
            .min_by_key(|(_, lane)| lane.used)
            .map(|(subject, _)| subject.clone())?;
        self.lanes.remove(&oldest);
        Some(oldest)
    }

    /// Forgets every lane. Returns which there were.
    pub fn clear(&mut self) -> Vec<Subject> {
        self.lanes.drain().map(|(subject, _)| subject).collect()
    }

    /// Returns the `most` lanes used last, with the sequence number each took last.
    pub fn recent(&self, most: usize) -> Vec<(Subject, u64)> {
        let mut lanes: Vec<_> = self.lanes.iter().collect();
        lanes.sort_by_key(|(_, lane)| std::cmp::Reverse(lane.used));
        lanes
            .into_iter()
            .take(most)
            .map(|(subject, lane)| (subject.clone(), lane.next.saturating_sub(1)))
            .collect()
    }
}
