//! Batches: `u32 big endian header length ‖ header JSON with checksum ‖ body`.
//!
//! The checksum covers the header, the header names the digest of the body, and what stands in front of the header is
//! right if the checksum stands where it says: any flipped bit is noticed. What a batch says is checked here, the
//! records in its body where they are unpacked.

use serde::{Deserialize, Serialize};

use super::{Gap, MAX_BATCH, MAX_HEADER, MAX_RAW, MAX_SOURCES, Micros, VERSION, record::LEAST};
use crate::{
    checksum,
    id::{Digest, Generation},
    name::Domain,
    syslog::Severities,
};

/// Bytes in front of the header.
pub(super) const PREFIX: usize = 4;

/// A numbering of a domain's records. Which node it is of is known from where it comes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Stream {
    /// Which numbering.
    pub generation: Generation,
    /// The one before it at this node, if the node knows. A station that knows one and does not find it here has
    /// learned of a loss.
    pub after: Option<Generation>,
    /// What the records are of.
    pub domain: Domain,
}

/// What a batch holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Records, in its body.
    Records,
    /// Nothing: its positions are missing.
    Gap,
}

/// How a body is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Codec {
    /// Not at all: it would not have become smaller.
    None,
    /// By zstd.
    Zstd,
}

/// What is known of a batch without its body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Version of the layout.
    pub v: u16,
    /// Which numbering.
    pub generation: Generation,
    /// What the records are of.
    pub domain: Domain,
    /// The numbering before this one, in its first batch; none if the node knows of none, as when its spool was lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Generation>,
    /// Position of the first record.
    pub first: u64,
    /// How many positions it takes; at least one.
    pub count: u64,
    /// What it holds.
    pub kind: Kind,
    /// When its earliest record was received.
    pub from: Micros,
    /// When its latest record was received.
    pub to: Micros,
    /// Which severities are in it.
    pub severities: Severities,
    /// Which programs are in it; none if not all are known, or they are more than [`super::MAX_APPS`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub apps: Option<Vec<String>>,
    /// How many of its records are gaps.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub gaps: u64,
    /// Names of the sources, which records name by their place.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<String>,
    /// What is missing, if it is a gap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gap: Option<Gap>,
    /// How the body is compressed.
    pub codec: Codec,
    /// Bytes of the body before compression.
    pub raw_len: u32,
    /// Bytes of the body.
    pub body_len: u32,
    /// Digest of the body.
    pub blake3: Digest,
}

impl Header {
    /// Returns the position behind its last record.
    pub fn next(&self) -> u64 {
        self.first.saturating_add(self.count)
    }

    /// Tells whether something is missing in it, or all of it is.
    pub fn has_gaps(&self) -> bool {
        self.gaps > 0 || self.kind == Kind::Gap
    }

    /// Reads the header of a batch of which at least the header is there, and returns it with the place where the body
    /// begins. Never panics, whatever the bytes; the body is not looked at.
    ///
    /// # Errors
    ///
    /// Says whether it was too large, too short, damaged, of another version, or contradicts itself.
    pub fn read(payload: &[u8]) -> Result<(Self, usize), BatchError> {
        let short = || BatchError::Short {
            bytes: payload.len(),
        };
        let (length, rest) = payload.split_first_chunk::<PREFIX>().ok_or_else(short)?;
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        if length > MAX_HEADER {
            return Err(BatchError::TooLarge {
                bytes: length,
                limit: MAX_HEADER,
            });
        }
        let json = rest.get(..length).ok_or_else(short)?;
        if !checksum::is_sound(json) {
            return Err(BatchError::Damaged);
        }
        let Version { v } = serde_json::from_slice(json).map_err(BatchError::Json)?;
        if v != VERSION {
            return Err(BatchError::Version(v));
        }
        let header: Self = serde_json::from_slice(json).map_err(BatchError::Json)?;
        header.check().map_err(BatchError::Contradiction)?;
        Ok((header, PREFIX + length))
    }

    fn check(&self) -> Result<(), &'static str> {
        let (raw, body) = (self.raw_len as usize, self.body_len as usize);
        if self.count == 0 || self.first.checked_add(self.count).is_none() {
            return Err("its positions are none, or beyond what can be counted");
        }
        if self.from > self.to {
            return Err("it ends before it begins");
        }
        match self.kind {
            Kind::Gap if self.gap.is_none() || raw != 0 || body != 0 => {
                return Err("it is a gap with records, or without a reason");
            }
            Kind::Gap => {}
            Kind::Records if self.gap.is_some() || self.gaps > self.count => {
                return Err("it has more gaps than records");
            }
            Kind::Records if u64::from(self.raw_len) / LEAST < self.count => {
                return Err("it has more records than bytes for them");
            }
            Kind::Records => {}
        }
        if raw > MAX_RAW || body > MAX_BATCH || self.sources.len() > MAX_SOURCES {
            return Err("it has more bytes or sources than are taken");
        }
        if self.codec == Codec::None && raw != body {
            return Err("it is not compressed and yet of another length");
        }
        Ok(())
    }

    /// Writes the header, with what stands in front of it.
    pub(super) fn write(&self, payload: &mut Vec<u8>) -> Result<(), super::PackError> {
        let json = serde_json::to_vec(self).map_err(super::PackError::Json)?;
        let json = checksum::append(json);
        let length = u32::try_from(json.len())
            .ok()
            .filter(|_| json.len() <= MAX_HEADER)
            .ok_or(super::PackError::Header(json.len()))?;
        payload.extend_from_slice(&length.to_be_bytes());
        payload.extend_from_slice(&json);
        Ok(())
    }
}

#[derive(Deserialize)]
struct Version {
    v: u16,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// A batch whose header and body are what they were when it was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch<'a> {
    header: Header,
    payload: &'a [u8],
    body: usize,
}

impl<'a> Batch<'a> {
    /// Reads a batch and checks all that can be checked without unpacking it. Never panics, whatever the bytes.
    ///
    /// # Errors
    ///
    /// Says whether it was too large, too short, damaged, of another version, or contradicts itself.
    pub fn read(payload: &'a [u8]) -> Result<Self, BatchError> {
        if payload.len() > MAX_BATCH {
            return Err(BatchError::TooLarge {
                bytes: payload.len(),
                limit: MAX_BATCH,
            });
        }
        let (header, body) = Header::read(payload)?;
        let bytes = payload.get(body..).unwrap_or_default();
        if bytes.len() != header.body_len as usize || Digest::of(bytes) != header.blake3 {
            return Err(BatchError::Damaged);
        }
        Ok(Self {
            header,
            payload,
            body,
        })
    }

    /// Returns what is known of it without its body.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Returns its header alone.
    pub fn into_header(self) -> Header {
        self.header
    }

    /// Returns all its bytes.
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// Returns its records, compressed as the header says.
    pub fn body(&self) -> &'a [u8] {
        self.payload.get(self.body..).unwrap_or_default()
    }
}

/// Why a batch was not understood.
#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    /// It is larger than the limit, or its header is.
    #[error("is {bytes} bytes long; at most {limit} are read")]
    TooLarge {
        /// Bytes found.
        bytes: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// It ends before its header does.
    #[error("ends after {bytes} bytes, before its header does")]
    Short {
        /// Bytes found.
        bytes: usize,
    },
    /// Header or body are not what they were.
    #[error("is damaged: its bytes are not those it was made of")]
    Damaged,
    /// Its header is sound and yet none.
    #[error("has a header that cannot be read")]
    Json(#[source] serde_json::Error),
    /// It is of a later version.
    #[error("is of version {0}; {VERSION} is read")]
    Version(u16),
    /// What its header says cannot be.
    #[error("contradicts itself: {0}")]
    Contradiction(&'static str),
    /// Its body cannot be unpacked to the length its header names.
    #[error("cannot be unpacked to the length it names")]
    Unpack(#[source] Option<std::io::Error>),
    /// One of its records is none.
    #[error("has no record where the one with number {0} should be")]
    Record(u64),
}
