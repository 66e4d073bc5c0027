//! Takes batches apart, several at once, and keeps what is looked for.
//!
//! What cannot be read is found as a gap: nobody should take what is damaged for nothing.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

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
    query::Query,
};
use crate::station::chain;

/// Threads of one reader, at most.
const THREADS: usize = 4;

/// What a record costs in memory beside its bytes.
const COST: usize = 160;

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

/// A file of batches, and which of them.
pub(super) struct Sieve<'a, D: Disk> {
    pub(super) disk: &'a D,
    pub(super) file: &'a D::File,
    pub(super) place: &'a str,
    pub(super) query: &'a Query,
}

impl<D: Disk> Sieve<'_, D> {
    /// Returns what is looked for of each of `entries`.
    pub(super) fn sift(&self, entries: &[Entry]) -> Result<Vec<Vec<Match>>, LogsError> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = cores.min(THREADS).min(entries.len());
        if threads < 2 {
            let mut unpacker = Unpacker::new().map_err(LogsError::Unpacker)?;
            let one = |entry| self.one(entry, &mut unpacker);
            return Ok(entries.iter().map(one).collect());
        }
        let next = AtomicUsize::new(0);
        let found = Mutex::new(vec![Vec::new(); entries.len()]);
        let work = || -> Result<(), LogsError> {
            let mut unpacker = Unpacker::new().map_err(LogsError::Unpacker)?;
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let Some(entry) = entries.get(at) else {
                    return Ok(());
                };
                let matches = self.one(entry, &mut unpacker);
                let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(place) = found.get_mut(at) {
                    *place = matches;
                }
            }
        };
        std::thread::scope(|scope| {
            let workers: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
            let own = work();
            let gone = || LogsError::Damaged {
                path: self.place.to_owned(),
            };
            let join = |worker: std::thread::ScopedJoinHandle<'_, _>| {
                worker.join().unwrap_or_else(|_| Err(gone()))
            };
            workers.into_iter().map(join).fold(own, Result::and)
        })?;
        Ok(found.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    fn one(&self, entry: &Entry, unpacker: &mut Unpacker) -> Vec<Match> {
        if let Some(gap) = &entry.gap {
            return vec![Match::missing(entry, gap.clone())];
        }
        self.records(entry, unpacker).unwrap_or_else(|error| {
            let gap = Gap::new(Some(entry.count), Reason::Corrupt).between(entry.from, entry.to);
            vec![Match::missing(
                entry,
                gap.with_detail(format!("at the station: failed to {}", chain(&error))),
            )]
        })
    }

    fn records(&self, entry: &Entry, unpacker: &mut Unpacker) -> Result<Vec<Match>, LogsError> {
        let mut payload = vec![0; entry.bytes as usize];
        let got = self
            .disk
            .read(self.file, entry.at + frame::HEAD as u64, &mut payload)
            .map_err(failed("read", self.place))?;
        payload.truncate(got);
        let wrong = |source| LogsError::Batch {
            at: entry.at,
            path: self.place.to_owned(),
            source,
        };
        let batch = Batch::read(&payload).map_err(wrong)?;
        let mut records = unpacker.records(&batch).map_err(wrong)?;
        let raw = records.raw();
        let mut candidate = self.query.candidate(raw, 0);
        let mut found = Vec::new();
        while let Some(record) = records.next() {
            let record = record.map_err(wrong)?;
            let end = raw.len() - records.raw().len();
            let may_be_in = candidate.is_some_and(|at| at < end);
            if candidate.is_none() && entry.gaps == 0 {
                break;
            }
            if may_be_in {
                candidate = self.query.candidate(raw, end);
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
