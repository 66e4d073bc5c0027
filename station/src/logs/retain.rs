//! Retention: the oldest segments go, whole ones, when they are too old or all of them are too many.
//!
//! How old a segment is tells the station's own clock: when something was last stored in it. A node's
//! clock may say anything. The newest segment of a line never goes; one that is old is to be closed first.

use std::{
    fs,
    time::{Duration, SystemTime},
};

use super::{
    LogsError,
    disk::{Disk, Files},
    name::{Line, Name, path},
    read::catalog::{self, Segment},
    removed::Removed,
    store,
};
use crate::station::chain;

/// What a segment costs at least, however little is in it: blocks of two files.
const LEAST: u64 = 8 * 1024;

/// What is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// For how long.
    pub age: Duration,
    /// Up to how many bytes.
    pub bytes: u64,
}

/// A segment that may go.
struct Closed {
    line: Line,
    segment: Segment,
    bytes: u64,
    used: SystemTime,
}

/// Removes what is to be removed, and returns which segments are to be closed so that they can be. Blocks.
pub fn tidy(disk: &Files, limits: Limits, now: SystemTime) -> Vec<(Line, u64)> {
    let (mut to_close, mut closed, mut total) = (Vec::new(), Vec::new(), 0);
    let lines = store::lines(disk).unwrap_or_else(|error| {
        tracing::warn!(error = chain(&error), "logs cannot be tidied");
        Vec::new()
    });
    let is_old = |used: SystemTime| now.duration_since(used).is_ok_and(|age| age > limits.age);
    for line in lines {
        let segments = match segments(disk, &line) {
            Ok(segments) => segments,
            Err(error) => {
                tracing::warn!(%line, error = chain(&error), "a line of logs cannot be tidied");
                continue;
            }
        };
        for found in segments {
            total += found.bytes;
            match found.segment.is_newest {
                true if found.segment.bytes > 0 && is_old(found.used) => {
                    to_close.push((line.clone(), found.segment.name.number));
                }
                true => {}
                false => closed.push(found),
            }
        }
    }
    // A segment is never older than the one before it, see `segments`.
    closed.sort_by_key(|closed| (closed.used, closed.segment.name.number));
    let mut stuck: Vec<Line> = Vec::new();
    for old in closed {
        if !is_old(old.used) && total <= limits.bytes {
            break;
        }
        // What comes behind a segment that stays must stay as well.
        if stuck.contains(&old.line) {
            continue;
        }
        match remove(disk, &old) {
            Ok(()) => {
                total = total.saturating_sub(old.bytes);
                tracing::info!(line = %old.line, number = old.segment.name.number, bytes = old.bytes, "a segment of logs was removed, as the retention says");
            }
            Err(error) => {
                tracing::warn!(line = %old.line, error = chain(&error), "an old segment of logs cannot be removed");
                stuck.push(old.line);
            }
        }
    }
    to_close
}

/// Returns the segments of a line, the oldest first; removes what should have been removed already.
fn segments(disk: &Files, line: &Line) -> Result<Vec<Closed>, LogsError> {
    let dir = line.dir();
    let through = Removed::load(disk, &dir)?.map_or(0, |removed| removed.through);
    let files = disk.list(&dir).map_err(super::disk::failed("list", &dir))?;
    for name in files.iter().filter_map(|file| Name::read(&file.name)) {
        if name.number <= through {
            unlink(disk, &dir, name)?;
        }
    }
    let mut used = SystemTime::UNIX_EPOCH;
    let mut found = Vec::new();
    for segment in catalog::segments(disk, &dir)? {
        let metadata = |name: &str| fs::metadata(disk.root().join(&dir).join(name)).ok();
        let log = metadata(&segment.name.log());
        let index = metadata(&segment.name.index()).map_or(0, |index| index.len());
        let modified = log.and_then(|log| log.modified().ok()).unwrap_or(used);
        used = used.max(modified);
        found.push(Closed {
            line: line.clone(),
            bytes: (segment.bytes + index).max(LEAST),
            segment,
            used,
        });
    }
    Ok(found)
}

fn remove(disk: &Files, old: &Closed) -> Result<(), LogsError> {
    let dir = old.line.dir();
    let entries = catalog::entries(disk, &dir, &old.segment)?;
    let mut removed = Removed::load(disk, &dir)?.unwrap_or_default();
    removed.add(old.segment.name.number, &entries, old.segment.bytes);
    // Before the file is gone: what is missing then is known not to be lost.
    removed.save(disk, &dir)?;
    unlink(disk, &dir, old.segment.name)
}

fn unlink(disk: &Files, dir: &str, name: Name) -> Result<(), LogsError> {
    for file in [name.log(), name.index(), name.torn()] {
        let place = path(dir, &file);
        disk.remove(&place)
            .map_err(super::disk::failed("remove", &place))?;
    }
    Ok(())
}
