//! The index of a segment: what the headers of its batches say, and where they are.
//!
//! One line of JSON with a checksum for each batch, in the order of the batches. It is written after
//! the batches are durable, so that what it names is there; it is never needed, for the segment can be
//! read instead. Pure: it knows no files.

use serde::{Deserialize, Serialize};
use steward_protocol::{
    Generation, checksum,
    logs::{Gap, Header, Kind, Micros, frame},
    syslog::Severities,
};

/// One batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Where its head begins.
    pub at: u64,
    /// Bytes of its payload.
    pub bytes: u32,
    /// Which numbering.
    pub generation: Generation,
    /// The numbering before it, as the node knew it, in the first batch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Generation>,
    /// Position of the first record.
    pub first: u64,
    /// How many positions it takes.
    pub count: u64,
    /// When its earliest record was received.
    pub from: Micros,
    /// When its latest record was received.
    pub to: Micros,
    /// Which severities are in it.
    pub severities: Severities,
    /// Which programs, if all are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub apps: Option<Vec<String>>,
    /// How many of its records are gaps.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub gaps: u64,
    /// What is missing, if all of it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gap: Option<Gap>,
    /// Bytes of its records before compression.
    pub raw: u32,
}

impl Entry {
    /// Returns the entry of a batch whose head begins at `at`.
    pub fn of(header: &Header, at: u64, bytes: usize) -> Self {
        Self {
            at,
            // A batch is far smaller.
            bytes: u32::try_from(bytes).unwrap_or(u32::MAX),
            generation: header.generation,
            after: header.after,
            first: header.first,
            count: header.count,
            from: header.from,
            to: header.to,
            severities: header.severities,
            apps: header.apps.clone(),
            gaps: header.gaps,
            gap: header.gap.clone().filter(|_| header.kind == Kind::Gap),
            raw: header.raw_len,
        }
    }

    /// Returns the position behind its last record.
    pub fn next(&self) -> u64 {
        self.first.saturating_add(self.count)
    }

    /// Returns where the batch behind it begins.
    pub fn end(&self) -> u64 {
        self.at + frame::HEAD as u64 + u64::from(self.bytes)
    }

    /// Adds its line to `text`.
    pub fn write(&self, text: &mut Vec<u8>) {
        // Numbers and texts always have a spelling.
        let line = serde_json::to_vec(self).unwrap_or_default();
        text.append(&mut checksum::append(line));
        text.push(b'\n');
    }

    fn read(line: &[u8]) -> Option<Self> {
        checksum::is_sound(line).then(|| serde_json::from_slice(line).ok())?
    }
}

/// What is read of an index.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Index {
    /// Its sound entries from the beginning.
    pub entries: Vec<Entry>,
    /// Bytes of their lines.
    pub bytes: u64,
}

impl Index {
    /// Reads as much as is sound and without a hole, beginning where in the segment `at` is.
    pub fn read(text: &[u8], mut at: u64) -> Self {
        let mut index = Self::default();
        for line in text.split_inclusive(|byte| *byte == b'\n') {
            let entry = line.strip_suffix(b"\n").and_then(Entry::read);
            let Some(entry) = entry.filter(|entry| entry.at == at) else {
                break;
            };
            at = entry.end();
            index.entries.push(entry);
            index.bytes += line.len() as u64;
        }
        index
    }

    /// Returns where in the segment the batches end that it knows.
    pub fn end(&self) -> u64 {
        self.entries.last().map_or(0, Entry::end)
    }
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}
