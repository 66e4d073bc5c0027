//! How far a follower has come in one line, and where it goes on. Pure: it is told what the disk holds.

use serde::{Deserialize, Serialize};
use steward_protocol::{
    Generation,
    logs::{Gap, Header, Kind, Micros, Reason},
};

use super::super::{name::Name, read::catalog::Segment, removed::Removed};

/// How far a generation was followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reached {
    /// Which.
    pub generation: Generation,
    /// The position behind the last that was read.
    pub next: u64,
}

/// What a mirror knows of the file it writes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// The number of the file in its file system.
    pub inode: u64,
    /// How many of its bytes belong to what was read.
    pub bytes: u64,
}

/// How far a line was followed. The default is its very beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Cursor {
    /// The number of the segment that is read; 0 before the first.
    pub segment: u64,
    /// The first byte of it that was not read.
    pub at: u64,
    /// How many positions lie in front, counted as [`Removed::records`] are.
    pub records: u64,
    /// Where the last batch ended, unless what was in front of the next is known to be missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reached: Option<Reached>,
    /// Bytes that were no batch, and of which nothing was said yet.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub damaged: u64,
    /// When the latest record so far was received.
    #[serde(default)]
    pub time: Micros,
    /// What a mirror knows of its file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mark: Option<Mark>,
}

/// What a line has on the disk.
#[derive(Debug, Clone, Copy)]
pub struct Ground<'a> {
    /// Its segments, the oldest first.
    pub segments: &'a [Segment],
    /// What retention has removed of it.
    pub removed: &'a Removed,
    /// How far it is durable: the number of the newest segment, and bytes of it.
    pub end: (u64, u64),
}

impl Ground<'_> {
    /// Returns how many bytes of a segment may be read.
    fn bytes(&self, segment: &Segment) -> u64 {
        match segment.name.number == self.end.0 {
            true => self.end.1,
            false => segment.bytes,
        }
    }

    /// Tells whether there are segments, and all of them have lower numbers.
    fn is_behind(&self, number: u64) -> bool {
        let newest = self.segments.last();
        newest.is_some_and(|newest| newest.name.number < number)
    }

    fn behind(&self, number: u64) -> Option<&Segment> {
        let may = number + 1..=self.end.0;
        self.segments
            .iter()
            .find(|segment| may.contains(&segment.name.number))
    }
}

impl Cursor {
    /// Returns the beginning of a line of which this was removed before anybody wanted to follow it.
    pub fn behind(removed: &Removed) -> Self {
        Self {
            records: removed.records,
            ..Self::default()
        }
    }

    /// Returns the end of a line: only what comes is wanted.
    pub fn end((segment, at): (u64, u64), records: u64) -> Self {
        Self {
            segment,
            at,
            records,
            ..Self::default()
        }
    }

    /// Returns its place, to be compared with the end of a line.
    pub fn place(&self) -> (u64, u64) {
        (self.segment, self.at)
    }

    /// Moves to where there is something to be read, and returns the segment it is in; nothing if all was read.
    /// Says what retention took away before it could be read.
    pub fn find(&mut self, ground: &Ground<'_>) -> (Option<Name>, Option<Gap>) {
        let missed = self.skip_removed(ground.removed);
        loop {
            let is_here = |segment: &&Segment| segment.name.number == self.segment;
            match ground.segments.iter().find(is_here) {
                Some(here) if self.at < ground.bytes(here) => return (Some(here.name), missed),
                // What was read is not known to be durable yet.
                Some(here) if self.at > ground.bytes(here) && self.at <= here.bytes => {
                    return (None, missed);
                }
                // It is another file than the one that was read: nothing of it was.
                Some(here) if self.at > ground.bytes(here) => self.begin(here.name.number),
                found => match ground.behind(self.segment) {
                    Some(next) => {
                        let was_whole = found.is_some() || self.segment == ground.removed.through;
                        if !was_whole || next.name.number != self.segment + 1 {
                            self.damaged += 1;
                        }
                        (self.segment, self.at) = (next.name.number, 0);
                    }
                    // The numbers began anew: it is another store.
                    None if ground.is_behind(self.segment) => {
                        self.begin(ground.removed.through);
                        self.records = ground.removed.records;
                    }
                    None => return (None, missed),
                },
            }
        }
    }

    fn begin(&mut self, segment: u64) {
        (self.segment, self.at, self.reached) = (segment, 0, None);
    }

    fn skip_removed(&mut self, removed: &Removed) -> Option<Gap> {
        if removed.through == 0 || self.segment > removed.through {
            return None;
        }
        let count = removed.records.saturating_sub(self.records);
        if count > 0 {
            self.reached = None;
            self.damaged = 0;
        }
        (self.segment, self.at) = (removed.through, u64::MAX);
        self.records = self.records.max(removed.records);
        let gap = Gap::new(Some(count), Reason::Other)
            .between(self.time.min(removed.until), removed.until)
            .with_detail("the station's retention removed them before they were passed on");
        (count > 0).then_some(gap)
    }

    /// Moves behind a batch. Returns what is missing in front of it, as `steward logs --gaps` says it.
    pub fn meet(&mut self, header: &Header) -> Option<Gap> {
        let gap = self.missing(header);
        self.damaged = 0;
        self.reached = Some(Reached {
            generation: header.generation,
            next: header.next(),
        });
        self.records = self.records.saturating_add(header.count);
        if header.to != Micros::default() {
            self.time = self.time.max(header.to);
        }
        gap.map(|gap| gap.between(self.time.min(header.from), header.from))
    }

    fn missing(&self, header: &Header) -> Option<Gap> {
        let corrupt = |count| {
            Gap::new(count, Reason::Corrupt).with_detail("it is not at the station any more")
        };
        let reached = match self.reached {
            Some(reached) if reached.generation == header.generation => {
                let count = header.first.saturating_sub(reached.next);
                return (count > 0).then(|| corrupt(Some(count)));
            }
            other => other,
        };
        if self.damaged > 0 {
            return Some(corrupt(
                (header.first > 0 && self.records == 0).then_some(header.first),
            ));
        }
        // A gap at the very beginning stands where the batch was damaged that would have named what came before.
        let names_before = header.kind == Kind::Records || header.after.is_some();
        let is_lost = header.first == 0
            && names_before
            && reached.is_some_and(|reached| header.after != Some(reached.generation));
        is_lost.then(|| {
            Gap::new(None, Reason::SpoolLost)
                .with_detail("the node does not know what it had logged before")
        })
    }
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}
