//! Forgets old files in `.done` and `.rejected`, by age and by total size.
//!
//! Only what was judged is ever removed: a directory somebody dropped holds files nobody read, so it
//! stays until a person takes it away. The inbox itself and `.processing` are not looked at.

use std::{
    collections::HashMap,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use super::folder::{self, Folder};

/// Files of one folder judged in one sweep; the next sweep sees the rest. Holding more names at once
/// would cost more memory than the files are worth.
const MAX_SWEPT: usize = 100_000;

/// How long, and how much, to keep of what was done and of what was rejected: each for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Files older than this are removed.
    pub age: Duration,
    /// Of more than this many bytes, the oldest are removed.
    pub bytes: u64,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            age: Duration::from_secs(30 * 24 * 3600),
            bytes: 256 * 1024 * 1024,
        }
    }
}

/// A finished file and the notes beside it, which live and go together.
struct Kept {
    // When the last of them came to lie there.
    since: SystemTime,
    bytes: u64,
    paths: Vec<PathBuf>,
    // Whether one of them is a directory.
    unread: bool,
}

/// Removes what is too old or too much at `now` from the inbox at `root`; returns how many files that
/// were.
///
/// # Errors
///
/// Fails when a folder cannot be read.
pub fn sweep(root: &Path, retention: Retention, now: SystemTime) -> io::Result<usize> {
    let folder = Folder::new(root.to_owned());
    let mut done = HashMap::new();
    for day in fs::read_dir(folder.done())? {
        let day = day?;
        if day.file_type()?.is_dir() {
            collect(&day.path(), &mut done)?;
        }
    }
    let mut rejected = HashMap::new();
    collect(&folder.rejected(), &mut rejected)?;
    let removed = remove(done, retention, now) + remove(rejected, retention, now);
    for day in fs::read_dir(folder.done())? {
        // Fails on the days that still hold something, as it should.
        drop(fs::remove_dir(day?.path()));
    }
    Ok(removed)
}

fn collect(path: &Path, kept: &mut HashMap<PathBuf, Kept>) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let path = entry?.path();
        if kept.len() >= MAX_SWEPT {
            break;
        }
        let Ok(metadata) = fs::symlink_metadata(&path) else {
            continue;
        };
        let since = folder::changed(&metadata);
        let group = kept.entry(folder::noted(&path)).or_insert(Kept {
            since,
            bytes: 0,
            paths: Vec::new(),
            unread: false,
        });
        group.since = group.since.max(since);
        group.bytes = group.bytes.saturating_add(metadata.size());
        group.unread |= metadata.is_dir();
        group.paths.push(path);
    }
    Ok(())
}

fn remove(kept: HashMap<PathBuf, Kept>, retention: Retention, now: SystemTime) -> usize {
    let mut groups: Vec<Kept> = kept.into_values().filter(|group| !group.unread).collect();
    groups.sort_by(|one, other| (other.since, &other.paths).cmp(&(one.since, &one.paths)));
    let mut bytes = 0_u64;
    let mut removed = 0;
    for group in groups {
        bytes = bytes.saturating_add(group.bytes);
        let age = now.duration_since(group.since).unwrap_or_default();
        if age > retention.age || bytes > retention.bytes {
            removed += group
                .paths
                .iter()
                .filter(|path| fs::remove_file(path).is_ok())
                .count();
        }
    }
    removed
}
