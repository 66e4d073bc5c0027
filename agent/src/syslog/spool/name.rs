//! Names of segments: `<ordinal>-<generation>-<first position>.log`, or `.gap` for one that was dropped.
//!
//! They sort in the order in which they are to be delivered. The ordinal counts the generations of a domain; a
//! generation's own time cannot do that, since clocks of edge nodes go backwards.

use std::{fmt, str::FromStr};

use steward_protocol::Generation;

/// What a segment holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Shape {
    /// Batches.
    Log,
    /// One batch that says that all of it was dropped.
    Gap,
}

/// The name of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name {
    /// Which of the domain's generations, counted from 0.
    pub(super) ordinal: u64,
    pub(super) generation: Generation,
    /// The position with which it begins.
    pub(super) first: u64,
    pub(super) shape: Shape,
}

impl fmt::Display for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let suffix = match self.shape {
            Shape::Log => "log",
            Shape::Gap => "gap",
        };
        write!(
            formatter,
            "{:010}-{}-{:020}.{suffix}",
            self.ordinal, self.generation, self.first
        )
    }
}

/// A text that names no segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NotASegment;

impl FromStr for Name {
    type Err = NotASegment;

    fn from_str(text: &str) -> Result<Self, NotASegment> {
        let (stem, suffix) = text.rsplit_once('.').ok_or(NotASegment)?;
        let shape = match suffix {
            "log" => Shape::Log,
            "gap" => Shape::Gap,
            _ => return Err(NotASegment),
        };
        let (ordinal, rest) = stem.split_once('-').ok_or(NotASegment)?;
        let (generation, first) = rest.rsplit_once('-').ok_or(NotASegment)?;
        let name = Self {
            ordinal: ordinal.parse().map_err(|_| NotASegment)?,
            generation: generation.parse().map_err(|_| NotASegment)?,
            first: first.parse().map_err(|_| NotASegment)?,
            shape,
        };
        // One name, one text: what differs in zeros or case was not written by us.
        if name.to_string() == text {
            Ok(name)
        } else {
            Err(NotASegment)
        }
    }
}
