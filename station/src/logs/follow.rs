//! The follower: reads on in every line from where it was, whatever is stored meanwhile.
//!
//! A relay and a mirror each have one. It reads segments piece by piece, never more than a piece at a time, and only
//! what is durable; the cursor moves when its owner says that a piece has been dealt with. It writes nothing, and holds nobody up.

use std::collections::{BTreeMap, VecDeque};

use steward_protocol::logs::{Batch, Gap, Kind, Micros, Reason, Record, Unpacker};
use steward_protocol::syslog::Severities;

use super::{
    LogsError,
    disk::{Disk, Mode, failed, read_from},
    name::{Line, Name, path},
    read::{Ends, catalog},
    removed::Removed,
};

pub mod cursor;
pub mod keep;
pub mod walk;

use self::{
    cursor::Ground,
    walk::{Found, Rest},
};
pub use self::{
    cursor::{Cursor, Mark},
    keep::Cursors,
};

/// Bytes of a segment that are read at a time: more than the largest batch has with its head.
const CHUNK: u64 = 1024 * 1024;

/// A piece is whole when so many bytes of records are in it, before compression.
const ROOM: u64 = 512 * 1024;

/// One thing that is read.
#[derive(Debug)]
pub enum Item<'a> {
    /// A message.
    Message(&'a Record<'a>),
    /// Something is missing here.
    Gap(Micros, &'a Gap),
}

/// Where a follower that never was anywhere begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begin {
    /// With the oldest that is kept.
    Oldest,
    /// With what comes.
    Newest,
}

/// A piece that was read.
#[derive(Debug)]
pub struct Portion {
    /// Of which line.
    pub line: Line,
    /// Where the piece ends.
    pub cursor: Cursor,
    /// How many messages are in it.
    pub messages: u64,
    /// How many were removed by retention before they could be read.
    pub missed: u64,
}

/// Reads on.
pub struct Follower<D: Disk> {
    disk: D,
    severities: Severities,
    cursors: Cursors,
    ends: Ends,
    /// Lines of which something is to be read, in turn.
    queue: VecDeque<Line>,
    /// The segments that are being read, so that directories need not be listed for each piece.
    names: BTreeMap<Line, Name>,
    unpacker: Unpacker,
}

impl<D: Disk> Follower<D> {
    /// Returns one that goes on from these cursors.
    ///
    /// # Errors
    ///
    /// Fails when there is no memory to unpack.
    pub fn new(disk: D, severities: Severities, cursors: Cursors) -> Result<Self, LogsError> {
        Ok(Self {
            disk,
            severities,
            cursors,
            ends: Ends::new(),
            queue: VecDeque::new(),
            names: BTreeMap::new(),
            unpacker: Unpacker::new().map_err(LogsError::Unpacker)?,
        })
    }

    /// Returns how far each line was followed.
    pub fn cursors(&self) -> &Cursors {
        &self.cursors
    }

    /// Goes back to these cursors; what they do not know is read from its beginning.
    pub fn rewind(&mut self, cursors: Cursors) {
        self.cursors = cursors;
        let ends = std::mem::take(&mut self.ends);
        self.queue.clear();
        self.learn(ends);
    }

    /// Takes note of how far lines are durable.
    pub fn learn(&mut self, ends: impl IntoIterator<Item = (Line, (u64, u64))>) {
        for (line, end) in ends {
            let known = self.ends.insert(line.clone(), end);
            let cursor = self.cursors.get(&line).copied().unwrap_or_default();
            if known != Some(end) && cursor.place() != end && !self.queue.contains(&line) {
                self.queue.push_back(line);
            }
        }
    }

    /// Reads the next piece, and hands out what is in it; nothing when all was read.
    ///
    /// # Errors
    ///
    /// Fails when the disk does; another line has its turn next.
    pub fn pull(
        &mut self,
        emit: &mut dyn FnMut(&Line, Item<'_>),
    ) -> Result<Option<Portion>, LogsError> {
        while let Some(line) = self.queue.front().cloned() {
            match self.read(&line, emit) {
                Ok(Some(portion)) => return Ok(Some(portion)),
                Ok(None) => drop(self.queue.pop_front()),
                Err(error) => {
                    self.queue.rotate_left(1);
                    self.names.remove(&line);
                    return Err(error);
                }
            }
        }
        Ok(None)
    }

    /// Moves behind a piece: it has been dealt with.
    pub fn passed(&mut self, portion: &Portion) {
        self.cursors.insert(portion.line.clone(), portion.cursor);
        if self.queue.front() == Some(&portion.line) {
            self.queue.rotate_left(1);
        }
    }

    /// Sets what a mirror knows of its file.
    pub fn mark(&mut self, line: &Line, mark: Mark) {
        self.cursors.entry(line.clone()).or_default().mark = Some(mark);
    }

    fn read(
        &mut self,
        line: &Line,
        emit: &mut dyn FnMut(&Line, Item<'_>),
    ) -> Result<Option<Portion>, LogsError> {
        let cursor = self.cursors.get(line).copied().unwrap_or_default();
        let end = self.ends.get(line).copied().unwrap_or_default();
        let mut portion = Portion {
            line: line.clone(),
            cursor,
            messages: 0,
            missed: 0,
        };
        let mut piece = self.next_chunk(&portion.cursor, line, end)?;
        if piece.is_none() {
            self.names.remove(line);
            let missed = self.find(&mut portion.cursor, line, end)?;
            if let Some(gap) = &missed {
                portion.missed = gap.count.unwrap_or(0);
                emit(line, Item::Gap(gap.until.unwrap_or_default(), gap));
                // Said by itself: it is passed on even if what follows cannot be read.
                return Ok(Some(portion));
            }
            piece = self.next_chunk(&portion.cursor, line, end)?;
        }
        let Some((bytes, rest)) = piece else {
            // What was moved over was empty.
            self.cursors.insert(line.clone(), portion.cursor);
            return Ok(None);
        };
        self.take(&mut portion, (&bytes, rest), emit);
        Ok(Some(portion))
    }

    /// Takes batches out of `bytes` until the piece is whole.
    fn take(
        &mut self,
        portion: &mut Portion,
        (bytes, rest): (&[u8], Rest),
        emit: &mut dyn FnMut(&Line, Item<'_>),
    ) {
        let (mut used, mut raw) = (0, 0);
        while let Some(here) = bytes.get(used..).filter(|here| !here.is_empty())
            && raw < ROOM
        {
            match walk::first(here, rest) {
                Found::Batch(batch, length) => {
                    self.batch(portion, &batch, emit);
                    raw += u64::from(batch.header().raw_len) + batch.header().count;
                    used += length;
                }
                Found::Damage(length) => {
                    portion.cursor.damaged += length as u64;
                    used += length;
                }
                Found::Short => break,
            }
        }
        portion.cursor.at += used as u64;
    }

    fn batch(
        &mut self,
        portion: &mut Portion,
        batch: &Batch<'_>,
        emit: &mut dyn FnMut(&Line, Item<'_>),
    ) {
        let (header, line) = (batch.header(), portion.line.clone());
        if let Some(gap) = portion.cursor.meet(header) {
            emit(&line, Item::Gap(header.from, &gap));
        }
        if let Some(gap) = header.gap.as_ref().filter(|_| header.kind == Kind::Gap) {
            let gap = Gap {
                count: Some(header.count),
                ..gap.clone()
            };
            emit(&line, Item::Gap(portion.cursor.time.max(header.to), &gap));
            return;
        }
        if header.gaps == 0 && !self.severities.meets(header.severities) {
            return;
        }
        let left = self.records(portion, batch, emit);
        if left > 0 {
            let gap = Gap::new(Some(left), Reason::Corrupt).between(header.from, header.to);
            emit(&line, Item::Gap(header.from, &gap));
        }
    }

    /// Hands out the records of a batch, and returns how many could not be read.
    fn records(
        &mut self,
        portion: &mut Portion,
        batch: &Batch<'_>,
        emit: &mut dyn FnMut(&Line, Item<'_>),
    ) -> u64 {
        let mut left = batch.header().count;
        let Ok(records) = self.unpacker.records(batch) else {
            return left;
        };
        for record in records {
            let Ok(record) = record else {
                return left;
            };
            left = left.saturating_sub(1);
            match record.gap() {
                Some(gap) => emit(&portion.line, Item::Gap(record.received, &gap)),
                None if self.severities.contains(record.severity) => {
                    portion.messages += 1;
                    emit(&portion.line, Item::Message(&record));
                }
                None => {}
            }
        }
        left
    }

    /// Reads bytes from the segment at hand; nothing if none are left there.
    fn next_chunk(
        &self,
        cursor: &Cursor,
        line: &Line,
        end: (u64, u64),
    ) -> Result<Option<(Vec<u8>, Rest)>, LogsError> {
        let here = self.names.get(line);
        let Some(name) = here.filter(|name| name.number == cursor.segment) else {
            return Ok(None);
        };
        let place = path(&line.dir(), &name.log());
        let file = match self.disk.open(&place, Mode::Read) {
            Ok(file) => file,
            // Retention was faster.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed("open", &place)(error)),
        };
        let bytes = match name.number == end.0 {
            true => end.1,
            false => self.disk.bytes(&file).map_err(failed("read", &place))?,
        };
        let left = bytes.saturating_sub(cursor.at);
        let bytes = read_from(&self.disk, &file, cursor.at, left.min(CHUNK));
        let bytes = bytes.map_err(failed("read", &place))?;
        let rest = match bytes.len() as u64 == left {
            true => Rest::All,
            false => Rest::Part,
        };
        Ok((!bytes.is_empty()).then_some((bytes, rest)))
    }

    /// Moves to the segment in which there is something to be read, and returns what was missed on the way.
    fn find(
        &mut self,
        cursor: &mut Cursor,
        line: &Line,
        end: (u64, u64),
    ) -> Result<Option<Gap>, LogsError> {
        let dir = line.dir();
        // In this order: a segment that goes in between is then known to have been removed.
        let segments = catalog::segments(&self.disk, &dir)?;
        let removed = Removed::load(&self.disk, &dir)?.unwrap_or_default();
        let ground = Ground {
            segments: &segments,
            removed: &removed,
            end,
        };
        let (name, missed) = cursor.find(&ground);
        if let Some(name) = name {
            self.names.insert(line.clone(), name);
        }
        Ok(missed)
    }
}

/// Returns the cursors of a follower that never was anywhere.
///
/// # Errors
///
/// Fails when the disk does.
pub fn begin<D: Disk>(disk: &D, ends: &Ends, begin: Begin) -> Result<Cursors, LogsError> {
    let mut cursors = Cursors::new();
    for (line, end) in ends {
        let dir = line.dir();
        let removed = Removed::load(disk, &dir)?.unwrap_or_default();
        let cursor = match begin {
            Begin::Oldest => Cursor::behind(&removed),
            Begin::Newest => {
                let mut records = removed.records;
                for segment in catalog::segments(disk, &dir)? {
                    let entries = catalog::entries(disk, &dir, &segment)?;
                    let within = entries
                        .iter()
                        .filter(|entry| (segment.name.number, entry.at) < *end);
                    records += within.map(|entry| entry.count).sum::<u64>();
                }
                Cursor::end(*end, records)
            }
        };
        cursors.insert(line.clone(), cursor);
    }
    Ok(cursors)
}
