//! What a station does with logs: takes what continues what it has, says what that is, forgets nothing.

use std::{collections::BTreeMap, fs, path::Path};

use steward_protocol::{
    Domain, Generation,
    logs::{Batch, Gap, Kept, Kind, Micros, Unpacker, frame},
};

/// One record as it was stored.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pub(crate) domain: Domain,
    pub(crate) generation: Generation,
    pub(crate) position: u64,
    pub(crate) source: String,
    pub(crate) text: String,
    /// The same, byte for byte.
    pub(crate) raw: Vec<u8>,
    pub(crate) length: u64,
    pub(crate) severity: u8,
    pub(crate) gap: Option<Gap>,
    pub(crate) received: Micros,
}

/// Logs of all nodes.
pub(crate) struct Logs {
    /// Whether batches are taken.
    pub(crate) keeps: bool,
    pub(crate) records: Vec<Stored>,
    /// The first batch of each generation names the one before it.
    pub(crate) order: Vec<(Generation, Option<Generation>)>,
    next: BTreeMap<(Domain, Generation), u64>,
    /// Messages of each domain.
    counts: BTreeMap<Domain, usize>,
}

impl Default for Logs {
    fn default() -> Self {
        Self {
            keeps: true,
            records: Vec::new(),
            order: Vec::new(),
            next: BTreeMap::new(),
            counts: BTreeMap::new(),
        }
    }
}

impl Logs {
    /// Takes a batch and returns what is to be said.
    pub(crate) fn take(&mut self, subject: &str, payload: &[u8]) -> Option<(Domain, Kept)> {
        let batch = Batch::read(payload).expect("a sound batch");
        let header = batch.header();
        let (domain, generation) = (header.domain.clone(), header.generation);
        assert_eq!(subject.split('.').nth(3), Some(domain.as_str()));
        if !self.keeps {
            return None;
        }
        let next = self.next.entry((domain.clone(), generation)).or_insert(0);
        let again = header.first > *next;
        if header.first == *next {
            *next = header.next();
            if header.first == 0 {
                self.order.push((generation, header.after));
            }
            self.store(&batch);
        }
        let next = self.next[&(domain.clone(), generation)];
        let kept = Kept {
            generation,
            next,
            again,
        };
        Some((domain, kept))
    }

    fn store(&mut self, batch: &Batch<'_>) {
        let header = batch.header();
        let base = |position| Stored {
            domain: header.domain.clone(),
            generation: header.generation,
            position,
            source: String::new(),
            text: String::new(),
            raw: Vec::new(),
            length: 0,
            severity: 5,
            gap: None,
            received: header.from,
        };
        if header.kind == Kind::Gap {
            self.records.push(Stored {
                gap: header.gap.clone(),
                ..base(header.first)
            });
        }
        let mut unpacker = Unpacker::new().expect("memory");
        for record in unpacker.records(batch).expect("a sound body") {
            let record = record.expect("a sound record");
            if record.gap().is_none() {
                *self.counts.entry(header.domain.clone()).or_default() += 1;
            }
            self.records.push(Stored {
                source: record.source.to_owned(),
                text: String::from_utf8_lossy(record.bytes).into_owned(),
                raw: record.bytes.to_vec(),
                length: record.original,
                severity: record.severity,
                gap: record.gap(),
                received: record.received,
                ..base(record.position)
            });
        }
    }

    /// Returns how many messages of a domain there are.
    pub(crate) fn count(&self, domain: &str) -> usize {
        let mut counts = self.counts.iter();
        let found = counts.find(|(name, _)| name.as_str() == domain);
        found.map_or(0, |(_, count)| *count)
    }

    /// Returns the messages of a domain in the order they were stored.
    pub(crate) fn texts(&self, domain: &str) -> Vec<String> {
        let is_it = |record: &&Stored| record.domain.as_str() == domain && record.gap.is_none();
        let records = self.records.iter().filter(is_it);
        records.map(|record| record.text.clone()).collect()
    }

    /// Returns the gaps of a domain in the order they were stored.
    pub(crate) fn gaps(&self, domain: &str) -> Vec<Gap> {
        let records = self.records.iter();
        records
            .filter(|record| record.domain.as_str() == domain)
            .filter_map(|record| record.gap.clone())
            .collect()
    }
}

/// Returns how many records the files of a spool have in whole batches: so much survives whatever happens to the agent.
pub(crate) fn spooled(dir: &Path) -> u64 {
    let files = fs::read_dir(dir).into_iter().flatten().flatten();
    files.map(|entry| spooled_in(&entry.path())).sum()
}

fn spooled_in(path: &Path) -> u64 {
    // It may have been removed meanwhile.
    let bytes = fs::read(path).unwrap_or_default();
    let (mut rest, mut count) = (bytes.as_slice(), 0);
    while let Some(at) = frame::find(rest) {
        let length = frame::length(&rest[at..]).expect("it was found");
        let payload = rest.get(at + frame::HEAD..at + frame::HEAD + length);
        let Some(payload) = payload else { break };
        if let Ok(batch) = Batch::read(payload)
            && batch.header().kind == Kind::Records
        {
            count += batch.header().count;
        }
        rest = &rest[at + frame::HEAD + length..];
    }
    count
}
