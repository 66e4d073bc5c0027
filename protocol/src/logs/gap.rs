//! Gaps: what is known to be missing, and why. A gap without a position is a record; one that takes the positions of
//! what was dropped is a batch. It does not know who reports it.

use serde::{Deserialize, Serialize};

use super::Micros;

/// Something that is missing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// How many messages; none when nobody can know.
    pub count: Option<u64>,
    /// Why.
    pub reason: Reason,
    /// Since when, as far as known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Micros>,
    /// Until when, as far as known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Micros>,
    /// More for a person to know, such as which file. At most [`Gap::MAX_DETAIL`] bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

impl Gap {
    /// Longest detail, in bytes.
    pub const MAX_DETAIL: usize = 512;

    /// Returns a gap of which only its size and its reason are known.
    pub fn new(count: Option<u64>, reason: Reason) -> Self {
        Self {
            count,
            reason,
            since: None,
            until: None,
            detail: None,
        }
    }

    /// Adds what a person should know, cut to [`Gap::MAX_DETAIL`] bytes.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self.bounded()
    }

    /// Cuts the detail to its limit.
    pub(super) fn bounded(mut self) -> Self {
        if let Some(detail) = &mut self.detail {
            detail.truncate(detail.floor_char_boundary(Self::MAX_DETAIL));
        }
        self
    }

    /// Adds from when until when.
    #[must_use]
    pub fn between(mut self, since: Micros, until: Micros) -> Self {
        self.since = Some(since);
        self.until = Some(until);
        self
    }
}

/// Why something is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The kernel had no room for it in a socket's buffer.
    KernelDrop,
    /// More came than a rule lets through.
    RateLimit,
    /// A rule lets only some through.
    Sampled,
    /// The spool was full, and what to do then is to drop.
    SpoolFull,
    /// The disk was full or failed, and the source does not wait.
    DiskFull,
    /// What was stored is damaged.
    Corrupt,
    /// It was longer than is taken, and nothing of it was kept.
    Oversize,
    /// A frame of the sender could not be told from the next.
    Framing,
    /// A file was truncated, or replaced, before it was read to its end.
    SourceTruncated,
    /// Where reading had stopped is not there any more, as in a journal that was rotated away.
    SourceVanished,
    /// The agent did not end in order; what stood in a receive buffer is gone.
    UncleanStart,
    /// The node's spool was lost or began anew.
    SpoolLost,
    /// The node has released it, to another station or to this one before it was restored.
    Released,
    /// A reason that a later version introduced.
    #[serde(other)]
    Other,
}
