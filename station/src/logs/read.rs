//! Reading what is stored: by line, time, severity, program and regular expression, merged by time.
//!
//! It reads files and never waits for the writer. Only what the index of the newest segment names is
//! durable; that is where reading ends.

pub mod catalog;
mod crew;
mod cursor;
pub mod gaps;
mod merge;
mod query;
mod sift;
pub mod verify;

pub use self::{
    merge::{Ends, Merge, ends},
    query::{Direction, Query},
    sift::Match,
};
