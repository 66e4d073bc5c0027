//! One line: all logs of one domain of one node, in segments that are appended to.
//!
//! Batches are staged in memory, then written, then synced; only what was synced gets into the index
//! and counts. Whoever sees an error forgets the line and opens it again, which finds what is durable.
//! It does not know who sent the batches, nor when it is to sync.

use std::time::Duration;

use steward_protocol::{
    Generation,
    logs::{Batch, Header, Kind, Micros, frame},
};

use super::{
    LogsError,
    disk::{Disk, Mode, failed, read_from},
    index::{Entry, Index},
    name::{Line as Key, Name, day, path},
    past::Past,
    read::catalog,
    removed::Removed,
    take::{Holes, Verdict, judge},
};

/// A segment is closed at so many bytes: few enough to look through, enough for a busy day in a few hundred files.
pub const MAX_BYTES: u64 = 64 * 1024 * 1024;

/// A segment is closed at so many batches, however small they are, so that its index stays short.
pub const MAX_BATCHES: usize = 16 * 1024;

/// A segment is closed for a batch of an earlier day only when it has so many bytes: clocks that go
/// back and forth must not make a file for each batch.
const WORTH: u64 = 1024 * 1024;

/// The segment that is appended to.
struct Open<F> {
    name: Name,
    log: F,
    index: F,
    /// Durable bytes of batches.
    bytes: u64,
    index_bytes: u64,
    batches: usize,
}

/// One line, open for appending.
pub struct Line<D: Disk> {
    dir: String,
    past: Past,
    segment: Option<Open<D::File>>,
    /// The number of the next segment.
    number: u64,
    holes: Holes,
    /// Batches that are not written yet, with their heads.
    staged: Vec<u8>,
    /// What becomes part of the index once it is durable.
    entries: Vec<Entry>,
}

/// What became of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// The first position that is missing now, or will be once all is durable.
    pub next: u64,
    /// What was decided.
    pub verdict: Verdict,
    /// Whether the node is to be told to go back.
    pub again: bool,
    /// Whether the node has lost what came before: it does not know the generation that is here.
    pub lost: bool,
}

impl<D: Disk> Line<D> {
    /// Opens a line: finds the newest segment, and what of it is durable.
    pub fn open(disk: &D, key: &Key) -> Result<Self, LogsError> {
        let dir = key.dir();
        let files = disk.list(&dir).map_err(failed("list", &dir))?;
        let newest = files.iter().filter_map(|file| Name::read(&file.name)).max();
        let removed = Removed::load(disk, &dir)?.map_or(0, |removed| removed.through);
        let mut line = Self {
            past: Past::load(disk, &dir)?,
            dir,
            segment: None,
            number: newest.map_or(removed, |name| name.number) + 1,
            holes: Holes::default(),
            staged: Vec::new(),
            entries: Vec::new(),
        };
        if let Some(name) = newest {
            line.recover(disk, name)?;
        }
        Ok(line)
    }

    /// Takes a batch, if it continues what is there. It is durable only after [`Self::sync`].
    pub fn take(
        &mut self,
        disk: &D,
        (header, payload): (&Header, &[u8]),
        now: Duration,
    ) -> Result<Taken, LogsError> {
        let generation = header.generation;
        let known = self.past.next(disk, &self.dir, generation)?;
        let next = known.unwrap_or(0);
        let verdict = judge(next, header);
        if verdict != Verdict::Store {
            let again = verdict == Verdict::Again && self.holes.tell(generation, next, now);
            return Ok(Taken {
                next,
                verdict,
                again,
                lost: false,
            });
        }
        let newest = self.past.newest();
        // A gap at the very beginning stands where the batch was damaged that would have named what came before.
        let names_before = header.kind == Kind::Records || header.after.is_some();
        let is_other = newest.is_some() && header.after != newest;
        let lost = known.is_none() && is_other && names_before;
        if self.must_roll(header, known.is_none()) {
            self.roll(disk, day(header.from))?;
        }
        self.stage(disk, header, payload)?;
        self.holes.filled(generation);
        Ok(Taken {
            next: header.next(),
            verdict,
            again: false,
            lost,
        })
    }

    /// Writes what is staged.
    pub fn write(&mut self, disk: &D) -> Result<(), LogsError> {
        let Some(open) = &self.segment else {
            return Ok(());
        };
        if self.staged.is_empty() {
            return Ok(());
        }
        let place = path(&self.dir, &open.name.log());
        disk.write(&open.log, open.bytes, &self.staged)
            .map_err(failed("write", &place))
    }

    /// Makes durable what was written.
    pub fn sync(&self, disk: &D) -> Result<(), LogsError> {
        match &self.segment {
            Some(open) if !self.staged.is_empty() => {
                let place = path(&self.dir, &open.name.log());
                disk.sync(&open.log).map_err(failed("make durable", &place))
            }
            _ => Ok(()),
        }
    }

    /// Adds to the index what was made durable.
    pub fn settle(&mut self, disk: &D) -> Result<(), LogsError> {
        let Some(open) = &mut self.segment else {
            return Ok(());
        };
        if self.entries.is_empty() {
            return Ok(());
        }
        let mut text = Vec::new();
        for entry in &self.entries {
            entry.write(&mut text);
        }
        let place = path(&self.dir, &open.name.index());
        disk.write(&open.index, open.index_bytes, &text)
            .map_err(failed("write", &place))?;
        open.index_bytes += text.len() as u64;
        open.bytes += self.staged.len() as u64;
        open.batches += self.entries.len();
        self.staged.clear();
        self.entries.clear();
        Ok(())
    }

    /// Closes the segment, if it is the one with this number and anything is in it, so that it can be removed.
    pub fn close(&mut self, disk: &D, number: u64) -> Result<(), LogsError> {
        match &self.segment {
            Some(open) if open.name.number == number && open.bytes > 0 => {
                let day = open.name.day;
                self.roll(disk, day)
            }
            _ => Ok(()),
        }
    }

    /// Returns the number of the newest segment and how many bytes of it are durable.
    pub fn tip(&self) -> (u64, u64) {
        self.segment
            .as_ref()
            .map_or((0, 0), |open| (open.name.number, open.bytes))
    }

    /// Returns the first position of a generation that is missing, all that is staged counted.
    pub fn next(&self, disk: &D, generation: Generation) -> Result<u64, LogsError> {
        Ok(self.past.next(disk, &self.dir, generation)?.unwrap_or(0))
    }

    fn stage(&mut self, disk: &D, header: &Header, payload: &[u8]) -> Result<(), LogsError> {
        let begin = self.segment.as_ref().map_or(0, |open| open.bytes);
        let entry = Entry::of(header, begin + self.staged.len() as u64, payload.len());
        self.past.note(disk, &self.dir, &entry)?;
        self.staged.extend_from_slice(&frame::head(payload.len()));
        self.staged.extend_from_slice(payload);
        self.entries.push(entry);
        Ok(())
    }

    fn must_roll(&self, header: &Header, is_new: bool) -> bool {
        let Some(open) = &self.segment else {
            return true;
        };
        let bytes = open.bytes + self.staged.len() as u64;
        let batches = open.batches + self.entries.len();
        if bytes >= MAX_BYTES || batches >= MAX_BATCHES || (is_new && self.past.is_full()) {
            return true;
        }
        // A gap is of the time it tells of, which may be none.
        let is_dated = header.kind == Kind::Records && header.from != Micros::default();
        let yesterday = open.name.day.yesterday().unwrap_or(open.name.day);
        let today = day(header.from);
        is_dated && bytes > 0 && (today > open.name.day || (today < yesterday && bytes >= WORTH))
    }

    /// Closes the segment, if there is one, and begins another.
    fn roll(&mut self, disk: &D, day: jiff::civil::Date) -> Result<(), LogsError> {
        self.write(disk)?;
        self.sync(disk)?;
        self.settle(disk)?;
        if let Some(open) = &self.segment {
            let place = path(&self.dir, &open.name.index());
            disk.sync(&open.index)
                .map_err(failed("make durable", &place))?;
        }
        disk.make_dir(&self.dir)
            .map_err(failed("make the directory", &self.dir))?;
        // Before the new segment: what is in the one before it is not looked at again.
        self.past.save(disk, &self.dir)?;
        let name = Name {
            number: self.number,
            day,
        };
        let open = |name: &str| {
            let place = path(&self.dir, name);
            disk.open(&place, Mode::Write)
                .map_err(failed("make", &place))
        };
        let segment = Open {
            name,
            log: open(&name.log())?,
            index: open(&name.index())?,
            bytes: 0,
            index_bytes: 0,
            batches: 0,
        };
        disk.sync_dir(&self.dir)
            .map_err(failed("make durable", &self.dir))?;
        self.segment = Some(segment);
        self.number += 1;
        Ok(())
    }

    /// Opens the newest segment, takes from its index what is durable, and looks at what stands behind that.
    fn recover(&mut self, disk: &D, name: Name) -> Result<(), LogsError> {
        let (log_place, index_place) =
            (path(&self.dir, &name.log()), path(&self.dir, &name.index()));
        let log = disk
            .open(&log_place, Mode::Write)
            .map_err(failed("open", &log_place))?;
        let file = disk
            .open(&index_place, Mode::Write)
            .map_err(failed("open", &index_place))?;
        let length = disk.bytes(&log).map_err(failed("read", &log_place))?;
        let text = read_from(disk, &file, 0, u64::MAX).map_err(failed("read", &index_place))?;
        if text.is_empty() {
            // Whoever made these files may not have come to making their names durable.
            disk.sync_dir(&self.dir)
                .map_err(failed("make durable", &self.dir))?;
        }
        let mut index = Index::read(&text, 0);
        if index.end() > length {
            // The file system has lost what was durable; what is left is looked at anew.
            index = Index::default();
        }
        for entry in &index.entries {
            self.past.note(disk, &self.dir, entry)?;
        }
        let mut open = Open {
            name,
            log,
            index: file,
            bytes: index.end(),
            index_bytes: index.bytes,
            batches: index.entries.len(),
        };
        if text.len() as u64 > open.index_bytes {
            disk.truncate(&open.index, open.index_bytes)
                .map_err(failed("cut", &index_place))?;
        }
        if length > open.bytes {
            let tail = read_from(disk, &open.log, open.bytes, u64::MAX);
            let tail = tail.map_err(failed("read", &log_place))?;
            self.take_tail(disk, &mut open, tail)?;
        }
        self.segment = Some(open);
        // Staged by the tail, and durable by now.
        self.settle(disk)
    }

    /// Keeps the whole batches of a tail the index does not know, and cuts off what is torn. They are
    /// written once more: after a sync that failed they may be in memory only, and look durable.
    fn take_tail(
        &mut self,
        disk: &D,
        open: &mut Open<D::File>,
        mut tail: Vec<u8>,
    ) -> Result<(), LogsError> {
        let place = path(&self.dir, &open.name.log());
        let mut at = 0;
        while let Some((header, length)) = first(tail.get(at..).unwrap_or_default()) {
            let next = self
                .past
                .next(disk, &self.dir, header.generation)?
                .unwrap_or(0);
            if judge(next, &header) != Verdict::Store {
                break;
            }
            let entry = Entry::of(&header, open.bytes + at as u64, length);
            self.past.note(disk, &self.dir, &entry)?;
            self.entries.push(entry);
            at += frame::HEAD + length;
        }
        if at < tail.len() {
            self.set_aside(disk, open.name, tail.get(at..).unwrap_or_default())?;
            tracing::warn!(
                file = place,
                bytes = tail.len() - at,
                "the end of a segment was torn and is cut off; what was not confirmed comes again"
            );
            let whole = open.bytes + at as u64;
            disk.truncate(&open.log, whole)
                .map_err(failed("cut", &place))?;
        }
        tail.truncate(at);
        disk.write(&open.log, open.bytes, &tail)
            .and_then(|()| disk.sync(&open.log))
            .map_err(failed("write", &place))?;
        self.staged = tail;
        Ok(())
    }
}

impl<D: Disk> Line<D> {
    /// Keeps what is cut off, if there are whole batches in it that are nowhere else: behind damage may stand
    /// what was confirmed, of which the index has lost its lines. Their nodes say whether they still have them.
    fn set_aside(&self, disk: &D, name: Name, torn: &[u8]) -> Result<(), LogsError> {
        let mut is_new = false;
        for entry in catalog::scan(torn, 0) {
            let known = self.past.next(disk, &self.dir, entry.generation)?;
            is_new |= known.unwrap_or(0) < entry.next();
        }
        if !is_new {
            return Ok(());
        }
        let place = path(&self.dir, &name.torn());
        let file = disk
            .open(&place, Mode::Write)
            .map_err(failed("make", &place))?;
        // Behind what an earlier start has set aside.
        disk.bytes(&file)
            .and_then(|at| disk.write(&file, at, torn))
            .and_then(|()| disk.sync(&file))
            .and_then(|()| disk.sync_dir(&self.dir))
            .map_err(failed("write", &place))?;
        tracing::error!(
            file = place,
            bytes = torn.len(),
            "whole batches stood behind damage and are set aside"
        );
        Ok(())
    }
}

/// Returns the header and the length of the batch that `bytes` begin with, if it is whole.
pub(super) fn first(bytes: &[u8]) -> Option<(Header, usize)> {
    let length = frame::length(bytes)?;
    let payload = bytes.get(frame::HEAD..frame::HEAD + length)?;
    let batch = Batch::read(payload).ok()?;
    Some((batch.into_header(), length))
}
