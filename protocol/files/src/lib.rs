//! Work on files that both programs do, and that is easily done almost right: a file that is received,
//! one that is sent, and one that is replaced as a whole and durably.
//!
//! Everything blocks; callers see to that. Knows nothing of messages, of links, of tasks, nor of which
//! program it works for.

mod attributes;
mod durable;
mod lock;
mod sink;
mod source;

pub use attributes::{Attributes, AttributesError};
pub use durable::{FileError, Over, Spot, make_directories, put, remove, sync_directory};
pub use lock::lock;
pub use sink::Sink;
pub use source::{Pinned, PinnedError, digest};
