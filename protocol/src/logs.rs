//! Log records in batches: what a node's spool, the wire and a station's segments hold, byte for byte the same.
//!
//! A *record* is one log message with what is known of it, or a *gap*: something is known to be missing. A *batch* is a
//! run of records of one stream, compressed and never changed. A *stream* is a node's domain in one generation, its
//! records numbered without a hole from 0; the number of a record is its *position*.
//!
//! Everything here is pure. It knows no file and no broker, and does not read what a log message says.
//!
//! ```text
//! Entry ─▶ Builder ─▶ Packer ─▶ payload ─▶ Batch::read ─▶ Unpacker ─▶ Records ─▶ Record
//!                                  └─ frame::head + payload, in a file
//! ```

mod batch;
pub mod frame;
mod gap;
mod pack;
mod record;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use self::{
    batch::{Batch, BatchError, Codec, Header, Kind, Stream},
    gap::{Gap, Reason},
    pack::{PackError, Packer, Unpacker},
    record::{Builder, Entry, Push, Record, Records},
};
use crate::{envelope::Body, id::Generation, limits::MAX_FRAME};

/// Version of the layout of batches.
pub const VERSION: u16 = 1;

/// Largest batch, in bytes of its payload.
pub const MAX_BATCH: usize = MAX_FRAME;

/// Largest header of a batch. It holds the names of sources and programs; a [`Builder`] is full before they exceed it.
pub const MAX_HEADER: usize = 32 * 1024;

/// Most bytes of records in a batch before compression; they fit into [`MAX_BATCH`] even when they do not compress.
pub const MAX_RAW: usize = 384 * 1024;

/// Longest log message in a record; what is longer is cut before. A hundred times what is usual.
pub const MAX_BYTES: usize = 256 * 1024;

/// Most names of sources in a batch.
pub const MAX_SOURCES: usize = 256;

/// Longest name of a source, in bytes; what is longer is cut. Longer than any path is in practice.
pub const MAX_SOURCE: usize = 1024;

/// Most bytes of all names of sources in a batch, as JSON: three quarters of a header.
pub const MAX_SOURCES_BYTES: usize = 24 * 1024;

/// Most names of programs in a batch; a batch with more names none.
pub const MAX_APPS: usize = 16;

/// Longest name of a program that is named: the longest APP-NAME of RFC 5424.
pub const MAX_APP: usize = 48;

/// A moment, in microseconds since 1970 (UTC).
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Micros(pub i64);

impl From<Timestamp> for Micros {
    fn from(at: Timestamp) -> Self {
        Self(at.as_microsecond())
    }
}

impl Micros {
    /// Returns the moment as a timestamp; one beyond what a timestamp can be is the nearest one.
    pub fn timestamp(self) -> Timestamp {
        let nearest = if self.0 < 0 {
            Timestamp::MIN
        } else {
            Timestamp::MAX
        };
        Timestamp::from_microsecond(self.0).unwrap_or(nearest)
    }
}

/// The station's word on a stream: what it has durably, so that the node may release it.
///
/// It travels on `<node>.event.kept.<domain>`, as `{"send": …, "kept": …}` with a [`crate::Reign`] in front.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Which numbering.
    pub generation: Generation,
    /// The first position the station does not have; everything below is durably stored. 0 for a generation it does not
    /// know: a node that has nothing below some position any more says so with a gap.
    pub next: u64,
    /// Whether what came last did not continue what it has, so that the node is to go back to `next`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub again: bool,
}

impl Body for Kept {
    const KEY: &'static str = "kept";
}
