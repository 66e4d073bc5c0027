//! What retention has removed of a line, so that nobody takes it for lost.
//!
//! It is written down before a segment is removed, and replaced as a whole.

use serde::{Deserialize, Serialize};
use steward_protocol::{Generation, checksum, logs::Micros};

use super::{
    LogsError,
    disk::{Disk, Mode, failed, read_from},
    index::Entry,
    name::{REMOVED, REMOVED_NEW, path},
    past::Reached,
};

/// Longest such file that is read: generations of one segment, and some numbers.
const MAX_FILE: u64 = 64 * 1024;

/// What was removed of a line: its oldest segments, whole ones.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removed {
    /// The number of the last segment that was removed, and with it all before it.
    pub through: u64,
    /// How far the generations came that were in that segment.
    pub generations: Vec<Reached>,
    /// The generation that had begun last.
    pub newest: Option<Generation>,
    /// Records in all that was removed, gaps with their positions.
    pub records: u64,
    /// Bytes of all that was removed.
    pub bytes: u64,
    /// When the latest record was received that was removed.
    pub until: Micros,
}

impl Removed {
    /// Reads what was removed of a line; nothing, if nothing was.
    pub fn load<D: Disk>(disk: &D, dir: &str) -> Result<Option<Self>, LogsError> {
        let place = path(dir, REMOVED);
        let file = match disk.open(&place, Mode::Read) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed("open", &place)(error)),
        };
        let text = read_from(disk, &file, 0, MAX_FILE).map_err(failed("read", &place))?;
        let sound = checksum::is_sound(&text);
        let removed = sound.then(|| serde_json::from_slice(&text).ok()).flatten();
        removed.map(Some).ok_or(LogsError::Damaged { path: place })
    }

    /// Adds a segment with these batches.
    pub fn add(&mut self, number: u64, entries: &[Entry], bytes: u64) {
        self.through = number;
        self.bytes += bytes;
        self.generations.clear();
        for entry in entries {
            self.records = self.records.saturating_add(entry.count);
            self.until = self.until.max(entry.to);
            let generation = entry.generation;
            self.generations
                .retain(|known| known.generation != generation);
            self.generations.push(Reached {
                generation,
                order: 0,
                next: entry.next(),
            });
            if entry.first == 0 {
                self.newest = Some(generation);
            }
        }
    }

    /// Writes it down, durably.
    pub fn save<D: Disk>(&self, disk: &D, dir: &str) -> Result<(), LogsError> {
        // Numbers always have a spelling.
        let text = checksum::append(serde_json::to_vec(self).unwrap_or_default());
        let (new, place) = (path(dir, REMOVED_NEW), path(dir, REMOVED));
        let file = disk.open(&new, Mode::Write).map_err(failed("make", &new))?;
        disk.truncate(&file, 0)
            .and_then(|()| disk.write(&file, 0, &text))
            .and_then(|()| disk.sync(&file))
            .map_err(failed("write", &new))?;
        disk.rename(&new, &place)
            .and_then(|()| disk.sync_dir(dir))
            .map_err(failed("make durable", &place))
    }
}
