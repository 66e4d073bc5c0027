//! A station in memory that keeps to its rules, and a sender without a window: what the spool is judged by.

use std::collections::BTreeMap;

use steward_protocol::{
    Domain, Generation,
    logs::{Batch, Gap, Header, Kind, Unpacker},
};

use crate::syslog::spool::{Found, Spool, disk::Disk};

/// What was stored of one domain.
#[derive(Debug, Default)]
pub(super) struct Stored {
    next: BTreeMap<Generation, u64>,
    newest: Option<Generation>,
    /// Lines and gaps in the order of the store.
    pub(super) lines: Vec<String>,
    pub(super) gaps: Vec<Gap>,
    /// How often a generation did not name the one before it.
    pub(super) losses: u32,
}

impl Stored {
    fn next(&self, generation: Generation) -> u64 {
        self.next.get(&generation).copied().unwrap_or(0)
    }

    /// Takes a batch, and returns the position it wants.
    fn take(&mut self, payload: &[u8]) -> u64 {
        let batch = Batch::read(payload).expect("what is sent is sound");
        let mut unpacker = Unpacker::new().expect("memory");
        unpacker.check(&batch).expect("its records are");
        let header = batch.header();
        let next = self.next(header.generation);
        if header.first != next {
            return next;
        }
        self.see(header);
        if header.kind == Kind::Gap {
            self.gaps.extend(header.gap.clone());
        }
        for record in unpacker.records(&batch).expect("unpacks") {
            let record = record.expect("a record");
            match record.gap() {
                Some(gap) => self.gaps.push(gap),
                None => self
                    .lines
                    .push(String::from_utf8_lossy(record.bytes).into_owned()),
            }
        }
        self.next.insert(header.generation, header.next());
        header.next()
    }

    fn see(&mut self, header: &Header) {
        if self.next.contains_key(&header.generation) {
            return;
        }
        // The batch that would have named the one before may be what is damaged; the gap in its place says enough.
        let is_unknown = header.kind == Kind::Gap && header.after.is_none();
        if self.newest.is_some() && header.after != self.newest && !is_unknown {
            self.losses += 1;
        }
        self.newest = Some(header.generation);
    }

    /// How many messages gaps of known size say are missing.
    pub(super) fn missing(&self) -> u64 {
        self.gaps.iter().filter_map(|gap| gap.count).sum()
    }
}

/// Carries at most `batches` from the spool to the station, from its beginning, and releases what is there.
pub(super) fn deliver<D: Disk>(
    spool: &mut Spool<D>,
    domain: &Domain,
    stored: &mut Stored,
    batches: usize,
) {
    let Some(mut place) = spool.start(domain) else {
        return;
    };
    let mut patience = 100_u32;
    for _ in 0..batches {
        let found = match spool.read(domain, place) {
            Ok(found) => found,
            Err(error) => {
                patience -= 1;
                assert!(patience > 0, "cannot read for good: {error}");
                continue;
            }
        };
        match found {
            Found::Batch(batch) => {
                assert!(batch.first <= place.position && place.position < batch.next);
                let wanted = stored.take(&batch.payload);
                patience -= u32::from(wanted == place.position);
                assert!(patience > 0, "{place:?} is not what the station wants");
                place.position = wanted;
                spool.release(domain, place.generation, place.position);
            }
            Found::Nothing => return,
            Found::End { next, follows } => {
                let kept = stored.next(place.generation);
                if stored.next.contains_key(&place.generation) && kept < next {
                    place.position = kept;
                    continue;
                }
                spool.finish(domain, place.generation, next);
                match follows {
                    Some(follows) => place = follows,
                    None => return,
                }
            }
        }
    }
}

/// Everything.
pub(super) const ALL: usize = usize::MAX;
