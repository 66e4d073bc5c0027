//! How the store's files are called: `<number>-<day>.log`, `.idx` and `.torn` in the directory of a line.
//!
//! Numbers rise by one, so that a segment that is missing is noticed. Pure.

use std::fmt;

use jiff::{civil::Date, tz::TimeZone};
use steward_protocol::{Domain, NodeName, logs::Micros};

/// Which generations a line has had.
pub const GENERATIONS: &str = "generations";

/// What retention has removed.
pub const REMOVED: &str = "removed";

/// What becomes [`REMOVED`] as soon as it is complete.
pub const REMOVED_NEW: &str = "removed.new";

/// All logs of one domain of one node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Line {
    /// The node.
    pub node: NodeName,
    /// What they are of.
    pub domain: Domain,
}

impl Line {
    /// Returns its directory.
    pub fn dir(&self) -> String {
        format!("{}/{}", self.node, self.domain)
    }
}

impl fmt::Display for Line {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.node, self.domain)
    }
}

/// One segment of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    /// Its number, from 1.
    pub number: u64,
    /// The day (UTC) its first batch begins on, by the node's clock.
    pub day: Date,
}

impl Name {
    /// Returns the name of the file of batches.
    pub fn log(self) -> String {
        format!("{:08}-{}.log", self.number, self.day)
    }

    /// Returns the name of its index.
    pub fn index(self) -> String {
        format!("{:08}-{}.idx", self.number, self.day)
    }

    /// Returns the name of the file for what stood behind damage at its end.
    pub fn torn(self) -> String {
        format!("{:08}-{}.torn", self.number, self.day)
    }

    /// Reads the name of a file of batches.
    pub fn read(text: &str) -> Option<Self> {
        let (number, day) = text.strip_suffix(".log")?.split_once('-')?;
        let name = Self {
            number: number.parse().ok()?,
            day: day.parse().ok()?,
        };
        (name.log() == text).then_some(name)
    }
}

/// Returns the day a moment is in (UTC).
pub fn day(at: Micros) -> Date {
    at.timestamp().to_zoned(TimeZone::UTC).date()
}

/// Returns the path of a file.
pub fn path(dir: &str, name: &str) -> String {
    format!("{dir}/{name}")
}
