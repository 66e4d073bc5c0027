//! Packing and unpacking: the only place that knows zstd. Level 1, because a node has better things to do.
//!
//! What is unpacked never takes more memory than its header names, and the header not more than [`MAX_RAW`].

use std::fmt;

use zstd::bulk::{Compressor, Decompressor};

use super::{
    Batch, BatchError, Builder, Codec, Gap, Header, Kind, MAX_RAW, Micros, Records, Stream, VERSION,
};
use crate::{id::Digest, syslog::Severities};

/// How hard is tried: fast, and logs shrink to a fifth all the same.
const LEVEL: i32 = 1;

/// Why a batch could not be made.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// There is nothing to be packed.
    #[error("pack a batch without records")]
    Empty,
    /// Compressing did not work.
    #[error("compress a batch")]
    Compress(#[source] std::io::Error),
    /// The header did not become JSON.
    #[error("write the header of a batch")]
    Json(#[source] serde_json::Error),
    /// The header is too large, because of the names in it.
    #[error("write the header of a batch: it has {0} bytes")]
    Header(usize),
}

/// Makes batches; keeps its memory from one to the next.
pub struct Packer {
    compressor: Compressor<'static>,
    body: Vec<u8>,
    payload: Vec<u8>,
}

impl Packer {
    /// Returns a packer.
    ///
    /// # Errors
    ///
    /// Fails when there is no memory for it.
    pub fn new() -> Result<Self, PackError> {
        Ok(Self {
            compressor: Compressor::new(LEVEL).map_err(PackError::Compress)?,
            body: Vec::new(),
            payload: Vec::new(),
        })
    }

    /// Makes a batch of the records in `builder`, the first of which takes the position `first`. `builder` stays as it is.
    ///
    /// # Errors
    ///
    /// Fails when there are no records, or there is no memory to compress them.
    pub fn records(
        &mut self,
        stream: &Stream,
        first: u64,
        builder: &Builder,
    ) -> Result<&[u8], PackError> {
        if builder.is_empty() {
            return Err(PackError::Empty);
        }
        let raw = &builder.raw;
        self.body.clear();
        self.body
            .reserve(zstd::zstd_safe::compress_bound(raw.len()));
        let length = self
            .compressor
            .compress_to_buffer(raw, &mut self.body)
            .map_err(PackError::Compress)?;
        let (codec, body) = if length < raw.len() {
            (Codec::Zstd, &self.body)
        } else {
            (Codec::None, raw)
        };
        let header = Header {
            v: VERSION,
            generation: stream.generation,
            domain: stream.domain.clone(),
            after: stream.after.filter(|_| first == 0),
            first,
            count: builder.count,
            kind: Kind::Records,
            from: builder.from,
            to: builder.to,
            severities: builder.severities,
            apps: builder.apps.clone(),
            gaps: builder.gaps,
            sources: builder.sources.clone(),
            gap: None,
            codec,
            raw_len: length_of(raw),
            body_len: length_of(body),
            blake3: Digest::of(body),
        };
        self.payload.clear();
        header.write(&mut self.payload)?;
        self.payload.extend_from_slice(body);
        Ok(&self.payload)
    }

    /// Makes a batch that says that `count` positions from `first` on are missing. Readers look for it by the times in
    /// `gap`.
    ///
    /// # Errors
    ///
    /// Fails when `count` is 0.
    pub fn gap(
        &mut self,
        stream: &Stream,
        first: u64,
        count: u64,
        gap: Gap,
    ) -> Result<&[u8], PackError> {
        if count == 0 {
            return Err(PackError::Empty);
        }
        let until = gap.until.or(gap.since).unwrap_or_default();
        let header = Header {
            v: VERSION,
            generation: stream.generation,
            domain: stream.domain.clone(),
            after: stream.after.filter(|_| first == 0),
            first,
            count,
            kind: Kind::Gap,
            from: gap.since.unwrap_or(until).min(until),
            to: until,
            severities: Severities::default(),
            apps: None,
            gaps: 0,
            sources: Vec::new(),
            gap: Some(gap.bounded()),
            codec: Codec::None,
            raw_len: 0,
            body_len: 0,
            blake3: Digest::of(&[]),
        };
        self.payload.clear();
        header.write(&mut self.payload)?;
        Ok(&self.payload)
    }
}

impl fmt::Debug for Packer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Packer").finish_non_exhaustive()
    }
}

/// Unpacks batches; keeps its memory from one to the next.
pub struct Unpacker {
    decompressor: Decompressor<'static>,
    raw: Vec<u8>,
}

impl Unpacker {
    /// Returns an unpacker.
    ///
    /// # Errors
    ///
    /// Fails when there is no memory for it.
    pub fn new() -> Result<Self, PackError> {
        Ok(Self {
            decompressor: Decompressor::new().map_err(PackError::Compress)?,
            raw: Vec::new(),
        })
    }

    /// Unpacks a batch and returns its records; none if it is a gap. Each is checked when its turn comes.
    ///
    /// # Errors
    ///
    /// Fails when the body does not unpack to the length its header names.
    pub fn records<'a>(&'a mut self, batch: &'a Batch<'_>) -> Result<Records<'a>, BatchError> {
        let header = batch.header();
        let count = match header.kind {
            Kind::Records => header.count,
            Kind::Gap => 0,
        };
        let raw = match header.codec {
            Codec::None => batch.body(),
            Codec::Zstd => {
                self.unpack(batch.body(), header.raw_len as usize)?;
                &self.raw
            }
        };
        Ok(Records::new(raw, &header.sources, header.first, count))
    }

    /// Unpacks a batch and checks every record, and that the header speaks the truth about them.
    ///
    /// # Errors
    ///
    /// Says what is wrong first.
    pub fn check(&mut self, batch: &Batch<'_>) -> Result<(), BatchError> {
        let header = batch.header();
        if header.kind == Kind::Gap {
            return Ok(());
        }
        let (mut from, mut to) = (Micros(i64::MAX), Micros(i64::MIN));
        let (mut gaps, mut severities) = (0, Severities::default());
        for record in self.records(batch)? {
            let record = record?;
            from = from.min(record.received);
            to = to.max(record.received);
            gaps += u64::from(record.is_gap());
            severities.insert(record.severity);
        }
        let said = (header.from, header.to, header.gaps, header.severities);
        if said == (from, to, gaps, severities) {
            return Ok(());
        }
        Err(BatchError::Contradiction(
            "its records are not of the times, severities or gaps it names",
        ))
    }

    fn unpack(&mut self, body: &[u8], length: usize) -> Result<(), BatchError> {
        self.raw.clear();
        // Not more than is allowed, whatever anybody says; the header was checked, too.
        self.raw.reserve_exact(length.min(MAX_RAW));
        let found = self
            .decompressor
            .decompress_to_buffer(body, &mut self.raw)
            .map_err(|error| BatchError::Unpack(Some(error)))?;
        if found == length {
            Ok(())
        } else {
            Err(BatchError::Unpack(None))
        }
    }
}

impl fmt::Debug for Unpacker {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Unpacker").finish_non_exhaustive()
    }
}

/// Bodies are smaller than a batch, which is smaller than what a `u32` counts.
fn length_of(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}
