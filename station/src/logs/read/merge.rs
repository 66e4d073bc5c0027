//! Many lines read side by side, merged by time; each line stays in its order.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
};

use steward_protocol::logs::Micros;

use super::{
    super::{LogsError, disk::Disk, name::Line},
    catalog,
    crew::Crew,
    cursor::{Cursor, Keeping, Place},
    query::{Direction, Query},
    sift::Match,
};

/// Bytes of finds at hand in all lines of a reader, and in one line at least and at most.
const ROOM: usize = 64 * 1024 * 1024;
const LEAST: usize = 16 * 1024;
const MOST: usize = 8 * 1024 * 1024;

/// Entries of indexes at hand in all lines of a reader, and in one line at least: each is some hundred bytes.
const ENTRIES: usize = 256 * 1024;
const FEWEST: usize = 64;

/// Lines of which the file may stay open while others are read.
const MAX_OPEN: usize = 64;

/// How far lines go.
pub type Ends = BTreeMap<Line, Place>;

/// Returns how far lines go at present.
///
/// # Errors
///
/// Fails when the disk does.
pub fn ends<D: Disk>(disk: &D, lines: &[Line]) -> Result<Ends, LogsError> {
    let mut ends = Ends::new();
    for line in lines {
        let dir = line.dir();
        let newest = catalog::segments(disk, &dir)?.pop();
        if let Some(segment) = newest {
            let entries = catalog::entries(disk, &dir, &segment)?;
            let end = entries.last().map_or(0, super::super::index::Entry::end);
            ends.insert(line.clone(), (segment.name.number, end));
        }
    }
    Ok(ends)
}

/// Which line is next.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Turn {
    Forward(Reverse<(Micros, usize)>),
    Backward(Micros, Reverse<usize>),
}

impl Turn {
    fn new(direction: Direction, time: Micros, number: usize) -> Self {
        match direction {
            Direction::Forward => Self::Forward(Reverse((time, number))),
            Direction::Backward => Self::Backward(time, Reverse(number)),
        }
    }

    fn number(&self) -> usize {
        match self {
            Self::Forward(Reverse((_, number))) | Self::Backward(_, Reverse(number)) => *number,
        }
    }
}

/// Lines that are being read.
pub struct Merge<D: Disk> {
    crew: Crew<D>,
    cursors: Vec<Option<Cursor<D>>>,
    turns: BinaryHeap<Turn>,
    room: usize,
}

impl<D: Disk> Merge<D> {
    /// Returns a reader of what lies between `from` and `ends`; of a line that is not in `from`, from its beginning.
    ///
    /// # Errors
    ///
    /// Fails when the disk does.
    pub fn new(disk: &D, query: Query, from: &Ends, ends: &Ends) -> Result<Self, LogsError> {
        let room = (ROOM / ends.len().max(1)).clamp(LEAST, MOST);
        Self::with_room(disk, query, (from, ends), room)
    }

    /// The same, with as many bytes of finds at hand of each line.
    ///
    /// # Errors
    ///
    /// Fails when the disk does.
    pub fn with_room(
        disk: &D,
        query: Query,
        (from, ends): (&Ends, &Ends),
        room: usize,
    ) -> Result<Self, LogsError> {
        let mut merge = Self {
            crew: Crew::new(disk.clone(), query)?,
            cursors: Vec::new(),
            turns: BinaryHeap::new(),
            room,
        };
        let window = (ENTRIES / ends.len().max(1)).max(FEWEST);
        for (line, end) in ends {
            let from = from.get(line).copied().unwrap_or_default();
            if from < *end {
                let how = (merge.crew.query().direction, window);
                let cursor = Cursor::new(disk, line.clone(), (from, *end), how)?;
                merge.cursors.push(Some(cursor));
                merge.queue(merge.cursors.len() - 1)?;
            }
        }
        Ok(merge)
    }

    /// Returns the next find.
    ///
    /// # Errors
    ///
    /// Fails when the disk does. A batch that is damaged is no error but a gap.
    pub fn pull(&mut self) -> Result<Option<(Line, Match)>, LogsError> {
        let keeping = match self.cursors.len() {
            0..=MAX_OPEN => Keeping::All,
            _ => Keeping::Little,
        };
        while let Some(turn) = self.turns.pop() {
            let number = turn.number();
            let Some(cursor) = self.cursors.get_mut(number).and_then(Option::as_mut) else {
                continue;
            };
            let found = match cursor.is_ready() {
                true => cursor.pop(self.crew.query().direction),
                false => {
                    cursor.fill(&mut self.crew, (self.room, keeping))?;
                    None
                }
            };
            let line = found.as_ref().map(|_| cursor.line.clone());
            self.queue(number)?;
            if let (Some(line), Some(found)) = (line, found) {
                return Ok(Some((line, found)));
            }
        }
        Ok(None)
    }

    fn queue(&mut self, number: usize) -> Result<(), LogsError> {
        let Some(place) = self.cursors.get_mut(number) else {
            return Ok(());
        };
        let time = match place {
            Some(cursor) => cursor.time(self.crew.disk(), self.crew.query())?,
            None => None,
        };
        match time {
            Some(time) => self
                .turns
                .push(Turn::new(self.crew.query().direction, time, number)),
            // Its file and its memory are free.
            None => *place = None,
        }
        Ok(())
    }
}
