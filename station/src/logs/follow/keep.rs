//! Cursors on the disk: one file for each follower, replaced as a whole.
//!
//! A line of JSON with a checksum for each line of logs, and a last one that says how many there are.

use std::{collections::BTreeMap, io};

use serde::{Deserialize, Serialize};
use steward_protocol::checksum;

use super::{
    super::{
        LogsError,
        disk::{Disk, Mode, failed, read_from},
        name::Line,
    },
    Cursor,
};

/// How far each line was followed.
pub type Cursors = BTreeMap<Line, Cursor>;

/// Numbers of formats.
const VERSION: u16 = 1;

#[derive(Serialize, Deserialize)]
struct Row {
    node: steward_protocol::NodeName,
    domain: steward_protocol::Domain,
    cursor: Cursor,
}

#[derive(Serialize, Deserialize)]
struct End {
    v: u16,
    lines: usize,
}

/// Reads the cursors of a follower; nothing if it never had any.
///
/// # Errors
///
/// Fails when the disk does, and when the file is damaged.
pub fn load<D: Disk>(disk: &D, name: &str) -> Result<Option<Cursors>, LogsError> {
    let file = match disk.open(name, Mode::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed("open", name)(error)),
    };
    let text = read_from(disk, &file, 0, u64::MAX).map_err(failed("read", name))?;
    let damaged = || LogsError::Damaged {
        path: name.to_owned(),
    };
    parse(&text).ok_or_else(damaged).map(Some)
}

fn parse(text: &[u8]) -> Option<Cursors> {
    let mut cursors = Cursors::new();
    for line in text.strip_suffix(b"\n")?.split(|byte| *byte == b'\n') {
        if !checksum::is_sound(line) {
            return None;
        }
        if let Ok(End { v, lines }) = serde_json::from_slice(line) {
            return (v == VERSION && lines == cursors.len()).then_some(cursors);
        }
        let Row {
            node,
            domain,
            cursor,
        } = serde_json::from_slice(line).ok()?;
        cursors.insert(Line { node, domain }, cursor);
    }
    None
}

/// Writes the cursors of a follower down, durably.
///
/// # Errors
///
/// Fails when the disk does; those of before are then still there.
pub fn save<D: Disk>(disk: &D, name: &str, cursors: &Cursors) -> Result<(), LogsError> {
    let mut text = Vec::new();
    for (line, cursor) in cursors {
        let row = Row {
            node: line.node.clone(),
            domain: line.domain.clone(),
            cursor: *cursor,
        };
        put(&mut text, &row);
    }
    let end = End {
        v: VERSION,
        lines: cursors.len(),
    };
    put(&mut text, &end);
    let new = format!("{name}.new");
    disk.make_dir("")
        .map_err(failed("make the directory of", name))?;
    let file = disk.open(&new, Mode::Write).map_err(failed("make", &new))?;
    disk.truncate(&file, 0)
        .and_then(|()| disk.write(&file, 0, &text))
        .and_then(|()| disk.sync(&file))
        .map_err(failed("write", &new))?;
    disk.rename(&new, name)
        .and_then(|()| disk.sync_dir(""))
        .map_err(failed("make durable", name))
}

fn put<T: Serialize>(text: &mut Vec<u8>, row: &T) {
    // Numbers and names always have a spelling.
    let line = serde_json::to_vec(row).unwrap_or_default();
    text.append(&mut checksum::append(line));
    text.push(b'\n');
}
