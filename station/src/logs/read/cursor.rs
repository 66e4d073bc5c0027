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
pub(super) struct Cursor {
    pub(super) line: Line,
    dir: String,
    segments: VecDeque<Segment>,
    from: Place,
    end: Place,
    /// What is left of the segment that is being read, or the next of it.
    entries: VecDeque<Entry>,
    /// How many of them are at hand, at most.
    window: usize,
    /// The file of that segment. It is opened when it is read: thousands of lines are more than a program may have open.
    place: Option<String>,
    /// How many finds of the first entry were handed out already.
    skip: usize,
    ready: VecDeque<Match>,
    group: usize,
    /// The latest time so far (backward: the earliest): times of a line never go back in what is shown.
    time: Option<Micros>,
}

impl Cursor {
    /// Returns a reader of what is between two places of a line.
    pub(super) fn new<D: Disk>(
        disk: &D,
        line: Line,
        (from, end): (Place, Place),
        (direction, window): (Direction, usize),
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
            window,
            place: None,
            skip: 0,
            ready: VecDeque::new(),
            group: 1,
            time: None,
        })
    }

    /// Returns the time of the next find, or of the next batch in which there may be one; nothing at the end.
    pub(super) fn time<D: Disk>(
        &mut self,
        disk: &D,
        query: &Query,
    ) -> Result<Option<Micros>, LogsError> {
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
    pub(super) fn fill<D: Disk>(
        &mut self,
        disk: &D,
        query: &Query,
        room: usize,
    ) -> Result<(), LogsError> {
        let place = self.place.as_deref().unwrap_or_default();
        let file = match disk.open(place, Mode::Read) {
            Ok(file) => file,
            // Retention was faster.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                self.entries.clear();
                return Ok(());
            }
            Err(error) => return Err(failed("open", place)(error)),
        };
        let (mut group, mut raw) = (0, 0);
        for entry in self.entries.iter().take(self.group) {
            raw += entry.raw as usize;
            if group > 0 && raw > room {
                break;
            }
            group += 1;
        }
        // The disk is at the next ones while these are unpacked.
        let ahead = self.entries.iter().take(group * 2);
        let bounds = ahead.fold((u64::MAX, 0), |(from, to), entry| {
            (from.min(entry.at), to.max(entry.end()))
        });
        disk.announce(&file, bounds.0, bounds.1.saturating_sub(bounds.0));
        let batches: Vec<Entry> = self.entries.iter().take(group).cloned().collect();
        let sieve = Sieve {
            disk,
            file: &file,
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

    fn open<D: Disk>(
        &mut self,
        disk: &D,
        segment: Segment,
        query: &Query,
    ) -> Result<(), LogsError> {
        let number = segment.name.number;
        let mut entries = catalog::entries(disk, &self.dir, &segment)?;
        entries.retain(|entry| {
            let place = (number, entry.at);
            place >= self.from && place < self.end && query.may_be_in(entry)
        });
        if query.direction == Direction::Backward {
            entries.reverse();
        }
        if entries.len() > self.window {
            entries.truncate(self.window);
            // The others are looked for again when these were read.
            match (query.direction, entries.last()) {
                (Direction::Forward, Some(last)) => self.from = (number, last.end()),
                (Direction::Backward, Some(last)) => self.end = (number, last.at),
                (_, None) => {}
            }
            self.segments.push_front(segment);
        }
        self.entries = entries.into();
        self.place = Some(path(&self.dir, &segment.name.log()));
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
