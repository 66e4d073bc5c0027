//! Which generations a line has had, and how far each came.
//!
//! A batch of a generation that is over can come again, long after: a node may have kept it, or a disk
//! image of it may have been restored. So no generation is ever forgotten: the last ones are in
//! memory, the others in the file `generations`, a line of JSON with a checksum for each, written
//! whenever a segment is closed. The generations of the newest segment follow from its batches.

use serde::{Deserialize, Serialize};
use steward_protocol::{Generation, checksum};

use super::{
    LogsError,
    disk::{Disk, Mode, failed, read_from},
    index::Entry,
    name::{GENERATIONS, path},
};

/// Generations of a line in memory after a segment was closed. A node is at most a few behind.
const KEPT: usize = 16;

/// Generations that may begin in one segment. A node that starts over and over makes small segments.
const MAX_IN_SEGMENT: usize = 64;

/// Bytes of the file that are read when a line is opened: some hundred generations.
const TAIL: u64 = 64 * 1024;

/// Bytes that are read at a time when all of it is looked through.
const PIECE: u64 = 1024 * 1024;

/// How far one generation came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reached {
    /// Which.
    pub generation: Generation,
    /// How many of the line's generations began before it.
    pub order: u64,
    /// The first position that is not there.
    pub next: u64,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    reached: Reached,
    /// Whether the file does not know it as it is.
    changed: bool,
}

/// The generations of a line.
#[derive(Debug, Default)]
pub struct Past {
    known: Vec<Known>,
    /// Whether there are others, in the file only.
    has_older: bool,
    /// How many generations there are.
    count: u64,
    newest: Option<Generation>,
    /// Bytes of the file that are sound.
    bytes: u64,
    /// The end of them as it was read: after a sync that failed it may be in memory only, and look durable. It is written
    /// once more in front of what comes first.
    unsure: Vec<u8>,
}

impl Past {
    /// Reads the end of the file, if there is one.
    pub fn load<D: Disk>(disk: &D, dir: &str) -> Result<Self, LogsError> {
        let place = path(dir, GENERATIONS);
        let file = match disk.open(&place, Mode::Read) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Self::default());
            }
            Err(error) => return Err(failed("open", &place)(error)),
        };
        let length = disk.bytes(&file).map_err(failed("read", &place))?;
        let from = length.saturating_sub(TAIL);
        let text = read_from(disk, &file, from, TAIL).map_err(failed("read", &place))?;
        // The first line may be cut at its beginning, the last one at its end.
        let skip = match from {
            0 => 0,
            _ => text
                .iter()
                .position(|byte| *byte == b'\n')
                .map_or(text.len(), |at| at + 1),
        };
        let whole = text
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(skip, |at| at + 1);
        let mut past = Self {
            has_older: from > 0,
            bytes: from + whole as u64,
            ..Self::default()
        };
        for reached in text.get(skip..whole).into_iter().flat_map(lines) {
            past.put(reached, false);
        }
        past.shrink();
        past.unsure = text;
        past.unsure.truncate(whole);
        Ok(past)
    }

    /// Returns the generation that began last.
    pub fn newest(&self) -> Option<Generation> {
        self.newest
    }

    /// Returns the first position of a generation that is not there; nothing if it is not known.
    pub fn next<D: Disk>(
        &self,
        disk: &D,
        dir: &str,
        generation: Generation,
    ) -> Result<Option<u64>, LogsError> {
        let found = self
            .known
            .iter()
            .find(|known| known.reached.generation == generation);
        match found {
            Some(known) => Ok(Some(known.reached.next)),
            None if self.has_older => Ok(self.search(disk, dir, generation)?.map(|old| old.next)),
            None => Ok(None),
        }
    }

    /// Tells whether no more generations may begin in this segment.
    pub fn is_full(&self) -> bool {
        self.known.iter().filter(|known| known.changed).count() >= MAX_IN_SEGMENT
    }

    /// Notes that a batch was stored.
    pub fn note<D: Disk>(&mut self, disk: &D, dir: &str, entry: &Entry) -> Result<(), LogsError> {
        let generation = entry.generation;
        let known = self
            .known
            .iter()
            .find(|known| known.reached.generation == generation);
        let order = match known {
            Some(known) => known.reached.order,
            None => match self.has_older.then(|| self.search(disk, dir, generation)) {
                Some(old) => old?.map_or(self.count, |old| old.order),
                None => self.count,
            },
        };
        let next = entry.next();
        self.put(
            Reached {
                generation,
                order,
                next,
            },
            true,
        );
        Ok(())
    }

    /// Writes down, durably, what the file does not know yet.
    pub fn save<D: Disk>(&mut self, disk: &D, dir: &str) -> Result<(), LogsError> {
        let mut text = Vec::new();
        for known in self.known.iter().filter(|known| known.changed) {
            // Numbers always have a spelling.
            let line = serde_json::to_vec(&known.reached).unwrap_or_default();
            text.append(&mut checksum::append(line));
            text.push(b'\n');
        }
        if text.is_empty() {
            return Ok(());
        }
        let place = path(dir, GENERATIONS);
        let file = disk
            .open(&place, Mode::Write)
            .map_err(failed("open", &place))?;
        let added = text.len() as u64;
        let begin = self.bytes - self.unsure.len() as u64;
        text.splice(..0, self.unsure.iter().copied());
        disk.write(&file, begin, &text)
            .and_then(|()| disk.sync(&file))
            .map_err(failed("write", &place))?;
        if begin == 0 {
            disk.sync_dir(dir).map_err(failed("make durable", dir))?;
        }
        self.bytes += added;
        self.unsure = Vec::new();
        for known in &mut self.known {
            known.changed = false;
        }
        self.shrink();
        Ok(())
    }

    fn put(&mut self, mut reached: Reached, changed: bool) {
        let same = |known: &Known| known.reached.generation == reached.generation;
        if let Some(at) = self.known.iter().position(same) {
            // The one used last stands last. A line that a crash left behind may be older.
            reached.next = reached.next.max(self.known.remove(at).reached.next);
        }
        self.known.push(Known { reached, changed });
        if reached.order >= self.count {
            self.count = reached.order + 1;
            self.newest = Some(reached.generation);
        }
    }

    fn shrink(&mut self) {
        let surplus = self.known.len().saturating_sub(KEPT);
        self.has_older |= surplus > 0;
        self.known.drain(..surplus);
    }

    /// Looks through the whole file for a generation. That happens once per start of an agent.
    fn search<D: Disk>(
        &self,
        disk: &D,
        dir: &str,
        generation: Generation,
    ) -> Result<Option<Reached>, LogsError> {
        let place = path(dir, GENERATIONS);
        let file = disk
            .open(&place, Mode::Read)
            .map_err(failed("open", &place))?;
        let (mut at, mut found) = (0, None);
        while at < self.bytes {
            let piece = PIECE.min(self.bytes - at);
            let text = read_from(disk, &file, at, piece).map_err(failed("read", &place))?;
            let Some(end) = text.iter().rposition(|byte| *byte == b'\n') else {
                break;
            };
            let of = |reached: &Reached| reached.generation == generation;
            let here = text.get(..=end).into_iter().flat_map(lines).filter(of);
            found = here.chain(found).max_by_key(|reached| reached.next);
            at += end as u64 + 1;
        }
        Ok(found)
    }
}

/// Reads the lines that are sound; others were torn, and what they said follows from the segments.
fn lines(text: &[u8]) -> impl Iterator<Item = Reached> {
    text.split(|byte| *byte == b'\n')
        .filter(|line| checksum::is_sound(line))
        .filter_map(|line| serde_json::from_slice(line).ok())
}
