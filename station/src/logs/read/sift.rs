//! Takes a batch apart and keeps what is looked for.
//!
//! What cannot be read is found as a gap: nobody should take what is damaged for nothing. It knows nothing of threads.

use steward_protocol::{
    Generation,
    logs::{Batch, Gap, Micros, Reason, Unpacker, frame},
};

use super::{
    super::{
        LogsError,
        disk::{Disk, failed},
        index::Entry,
    },
    query::{Direction, Query},
};
use crate::station::chain;

/// What a record costs in memory beside its bytes.
pub(super) const COST: usize = 160;

/// How often an expression may match across records of a batch until each of them is looked at alone: such a match is looked
/// for up to the end of the batch, again and again.
const BEYOND: usize = 4;

/// A record that was looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Match {
    /// Which numbering.
    pub generation: Generation,
    /// Its number.
    pub position: u64,
    /// When it was received.
    pub received: Micros,
    /// Its severity.
    pub severity: u8,
    /// Whether it could not be read as syslog.
    pub unparsed: bool,
    /// Its length as it came.
    pub original: u64,
    /// Where it came from.
    pub source: String,
    /// The message as it came; of a gap nothing.
    pub bytes: Vec<u8>,
    /// What is missing, if it is a gap.
    pub gap: Option<Gap>,
}

impl Match {
    /// Returns about how much memory it takes.
    pub(super) fn cost(&self) -> usize {
        COST + self.bytes.len() + self.source.len()
    }

    fn missing(entry: &Entry, gap: Gap) -> Self {
        Self {
            generation: entry.generation,
            position: entry.first,
            received: entry.from,
            severity: 4,
            unparsed: false,
            original: 0,
            source: String::new(),
            bytes: Vec::new(),
            gap: Some(gap),
        }
    }
}

/// An open file of batches.
#[derive(Debug)]
pub(super) struct Source<D: Disk> {
    pub(super) file: D::File,
    pub(super) place: String,
}

/// Which finds of a batch are wanted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Share {
    /// How many were handed out already.
    pub(super) skip: usize,
    /// How many bytes of them there is room for; there is always room for one.
    pub(super) room: usize,
}

/// What was found in a batch, in the direction of the query.
#[derive(Debug)]
pub(super) struct Sifted {
    pub(super) found: Vec<Match>,
    /// Whether there is more of it, for which there was no room.
    pub(super) is_cut: bool,
}

/// Looks through one batch after the other, and keeps its memory from one to the next.
pub(super) struct Sieve {
    pub(super) query: Query,
    unpacker: Unpacker,
    payload: Vec<u8>,
}

impl Sieve {
    pub(super) fn new(query: Query) -> Result<Self, LogsError> {
        Ok(Self {
            query,
            unpacker: Unpacker::new().map_err(LogsError::Unpacker)?,
            payload: Vec::new(),
        })
    }

    /// Returns what is looked for of a batch.
    pub(super) fn sift<D: Disk>(
        &mut self,
        disk: &D,
        source: &Source<D>,
        entry: &Entry,
        share: Share,
    ) -> Sifted {
        let mut found = self.all(disk, source, entry);
        if self.query.direction == Direction::Backward {
            found.reverse();
        }
        found.drain(..share.skip.min(found.len()));
        let mut cost = 0;
        let mut fits = |one: &Match| {
            let has_room = cost <= share.room;
            cost += one.cost();
            has_room
        };
        let kept = found.iter().position(|one| !fits(one));
        found.truncate(kept.unwrap_or(found.len()));
        Sifted {
            found,
            is_cut: kept.is_some(),
        }
    }

    fn all<D: Disk>(&mut self, disk: &D, source: &Source<D>, entry: &Entry) -> Vec<Match> {
        if let Some(gap) = &entry.gap {
            return vec![Match::missing(entry, gap.clone())];
        }
        self.records(disk, source, entry).unwrap_or_else(|error| {
            let gap = Gap::new(Some(entry.count), Reason::Corrupt).between(entry.from, entry.to);
            vec![Match::missing(
                entry,
                gap.with_detail(format!("at the station: failed to {}", chain(&error))),
            )]
        })
    }

    fn records<D: Disk>(
        &mut self,
        disk: &D,
        source: &Source<D>,
        entry: &Entry,
    ) -> Result<Vec<Match>, LogsError> {
        self.payload.resize(entry.bytes as usize, 0);
        let at = entry.at + frame::HEAD as u64;
        let got = disk
            .read(&source.file, at, &mut self.payload)
            .map_err(failed("read", &source.place))?;
        self.payload.truncate(got);
        let wrong = |error| LogsError::Batch {
            at: entry.at,
            path: source.place.clone(),
            source: error,
        };
        let batch = Batch::read(&self.payload).map_err(wrong)?;
        let mut records = self.unpacker.records(&batch).map_err(wrong)?;
        let raw = records.raw();
        let mut candidate = self.query.candidate(raw, 0);
        let (mut found, mut beyond) = (Vec::new(), 0);
        while let Some(record) = records.next() {
            let record = record.map_err(wrong)?;
            let end = raw.len() - records.raw().len();
            let may_be_in = candidate.as_ref().is_some_and(|range| range.start < end);
            if candidate.is_none() && entry.gaps == 0 {
                break;
            }
            if may_be_in {
                beyond += usize::from(candidate.is_some_and(|range| range.end > end));
                candidate = match beyond < BEYOND {
                    true => self.query.candidate(raw, end),
                    false => Some(end..end),
                };
            }
            if (may_be_in || record.is_gap()) && self.query.finds(&record) {
                let gap = record.gap();
                found.push(Match {
                    generation: entry.generation,
                    position: record.position,
                    received: record.received,
                    severity: record.severity,
                    unparsed: record.unparsed,
                    original: record.original,
                    source: record.source.to_owned(),
                    bytes: match gap {
                        Some(_) => Vec::new(),
                        None => record.bytes.to_vec(),
                    },
                    gap,
                });
            }
        }
        Ok(found)
    }
}
