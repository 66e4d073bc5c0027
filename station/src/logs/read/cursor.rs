//! One line, read in one direction: loads batches as late as it can, and few of them.

use std::collections::VecDeque;

use steward_protocol::logs::Micros;

use super::{
    super::{
        LogsError,
        disk::{Disk, Mode, failed},
        index::Entry,
        name::{Line, path},
    },
    catalog::{self, Segment},
    query::{Direction, Query},
    sift::{Match, Sieve},
};

/// Batches that are sifted together, at most.
const MAX_GROUP: usize = 64;

/// Where in a line: the number of a segment, and a byte of it.
pub(super) type Place = (u64, u64);

/// One line that is being read.
pub(super) struct Cursor<D: Disk> {
    pub(super) line: Line,
    dir: String,
    segments: VecDeque<Segment>,
    from: Place,
    end: Place,
    /// What is left of the segment that is being read.
    entries: VecDeque<Entry>,
    file: Option<(String, D::File)>,
    /// How many finds of the first entry were handed out already.
    skip: usize,
    ready: VecDeque<Match>,
    group: usize,
    /// The latest time so far (backward: the earliest): times of a line never go back in what is shown.
    time: Option<Micros>,
}

impl<D: Disk> Cursor<D> {
    /// Returns a reader of what is between two places of a line.
    pub(super) fn new(
        disk: &D,
        line: Line,
        (from, end): (Place, Place),
        direction: Direction,
    ) -> Result<Self, LogsError> {
        let dir = line.dir();
        let mut segments = catalog::segments(disk, &dir)?;
        segments.retain(|segment| (from.0..=end.0).contains(&segment.name.number));
        if direction == Direction::Backward {
            segments.reverse();
        }
        Ok(Self {
            line,
            dir,
            segments: segments.into(),
            from,
            end,
            entries: VecDeque::new(),
            file: None,
            skip: 0,
            ready: VecDeque::new(),
            group: 1,
            time: None,
        })
    }

    /// Returns the time of the next find, or of the next batch in which there may be one; nothing at the end.
    pub(super) fn time(&mut self, disk: &D, query: &Query) -> Result<Option<Micros>, LogsError> {
        if let Some(found) = self.ready.front() {
            return Ok(Some(self.clamp(found.received, query.direction)));
        }
        while self.entries.is_empty() {
            let Some(segment) = self.segments.pop_front() else {
                return Ok(None);
            };
            self.open(disk, segment, query)?;
        }
        let time = self.entries.front().map(|entry| match query.direction {
            Direction::Forward => entry.from,
            Direction::Backward => entry.to,
        });
        Ok(time.map(|time| self.clamp(time, query.direction)))
    }

    /// Tells whether a find is at hand.
    pub(super) fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Returns the find at hand.
    pub(super) fn pop(&mut self, direction: Direction) -> Option<Match> {
        let found = self.ready.pop_front()?;
        self.time = Some(self.clamp(found.received, direction));
        Some(found)
    }

    /// Looks into the next batches for something; `room` is how many bytes may be at hand.
    pub(super) fn fill(&mut self, disk: &D, query: &Query, room: usize) -> Result<(), LogsError> {
        let Some((place, file)) = &self.file else {
            self.entries.clear();
            return Ok(());
        };
        let (mut group, mut raw) = (0, 0);
        for entry in self.entries.iter().take(self.group) {
            raw += entry.raw as usize;
            if group > 0 && raw > room {
                break;
            }
            group += 1;
        }
        let batches: Vec<Entry> = self.entries.iter().take(group).cloned().collect();
        let sieve = Sieve {
            disk,
            file,
            place,
            query,
        };
        let mut cost = 0;
        for mut found in sieve.sift(&batches)? {
            if query.direction == Direction::Backward {
                found.reverse();
            }
            let all = found.len();
            let mut kept = self.skip;
            for one in found.into_iter().skip(self.skip) {
                if cost > room {
                    break;
                }
                cost += one.cost();
                kept += 1;
                self.ready.push_back(one);
            }
            if kept < all {
                // The rest of this batch is unpacked once more, when there is room for it.
                self.skip = kept;
                self.group = 1;
                return Ok(());
            }
            self.skip = 0;
            self.entries.pop_front();
        }
        self.group = match cost < room / 4 {
            true => (self.group * 2).min(MAX_GROUP),
            false => (self.group / 2).max(1),
        };
        Ok(())
    }

    fn open(&mut self, disk: &D, segment: Segment, query: &Query) -> Result<(), LogsError> {
        let number = segment.name.number;
        let place = path(&self.dir, &segment.name.log());
        let file = match disk.open(&place, Mode::Read) {
            Ok(file) => file,
            // Retention was faster.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(failed("open", &place)(error)),
        };
        let mut entries = catalog::entries(disk, &self.dir, &segment)?;
        entries.retain(|entry| {
            let place = (number, entry.at);
            place >= self.from && place < self.end && query.may_be_in(entry)
        });
        if query.direction == Direction::Backward {
            entries.reverse();
        }
        self.entries = entries.into();
        self.file = Some((place, file));
        Ok(())
    }

    fn clamp(&self, time: Micros, direction: Direction) -> Micros {
        match (self.time, direction) {
            (None, _) => time,
            (Some(last), Direction::Forward) => time.max(last),
            (Some(last), Direction::Backward) => time.min(last),
        }
    }
}
