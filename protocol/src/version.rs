//! The wire version.
//!
//! The wire only grows. A field may be added; an old reader ignores it and an old writer leaves it
//! out, so every added field has a default. A field is never renamed, reused or given another
//! meaning. What cannot be said that way needs a new version number, and a reader that meets a
//! newer number than its own answers `rejected: version` and does not guess.
//! `tests/wire/vN` holds bytes of every version; those files are never edited.

/// The version this program writes.
pub const CURRENT: u16 = 1;

/// The oldest version this program reads.
pub const OLDEST: u16 = 1;
