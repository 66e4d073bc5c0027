//! Which segments a line has, and what is in them by their headers.

use super::super::{
    LogsError,
    disk::{Disk, Mode, failed, read_from},
    index::{Entry, Index},
    line,
    name::{Name, path},
    removed::Removed,
};

use steward_protocol::logs::frame;

/// A segment as it was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Its name.
    pub name: Name,
    /// Bytes of its batches; of the newest one not all of them need be durable.
    pub bytes: u64,
    /// Whether it is the one that is appended to.
    pub is_newest: bool,
}

/// Returns the segments of a line, the oldest first.
///
/// # Errors
///
/// Fails when the disk does.
pub fn segments<D: Disk>(disk: &D, dir: &str) -> Result<Vec<Segment>, LogsError> {
    let through = Removed::load(disk, dir)?.map_or(0, |removed| removed.through);
    let files = disk.list(dir).map_err(failed("list", dir))?;
    let name = |file: &super::super::disk::Found| Some((Name::read(&file.name)?, file.bytes));
    let mut names: Vec<_> = files.iter().filter_map(name).collect();
    names.retain(|(name, _)| name.number > through);
    names.sort();
    let newest = names.last().map(|(name, _)| *name);
    let segment = |(name, bytes)| Segment {
        name,
        bytes,
        is_newest: Some(name) == newest,
    };
    Ok(names.into_iter().map(segment).collect())
}

/// Returns what the headers in a segment say: from its index and, where that ends too early in a
/// segment that is closed, from the batches themselves.
///
/// # Errors
///
/// Fails when the disk does.
pub fn entries<D: Disk>(disk: &D, dir: &str, segment: &Segment) -> Result<Vec<Entry>, LogsError> {
    let place = path(dir, &segment.name.index());
    let text = match disk.open(&place, Mode::Read) {
        Ok(file) => read_from(disk, &file, 0, u64::MAX).map_err(failed("read", &place))?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(failed("open", &place)(error)),
    };
    let mut index = Index::read(&text, 0);
    if !segment.is_newest && index.end() < segment.bytes {
        let log = path(dir, &segment.name.log());
        let file = disk.open(&log, Mode::Read).map_err(failed("open", &log))?;
        let from = index.end();
        let tail = read_from(disk, &file, from, u64::MAX).map_err(failed("read", &log))?;
        index.entries.extend(scan(&tail, from));
    }
    Ok(index.entries)
}

/// Returns the batches in `bytes`, which begin at `from`; what is damaged is left out.
pub fn scan(bytes: &[u8], from: u64) -> Vec<Entry> {
    let (mut found, mut at) = (Vec::new(), 0);
    while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
        match line::first(rest) {
            Some((header, length)) => {
                found.push(Entry::of(&header, from + at as u64, length));
                at += frame::HEAD + length;
            }
            None => match rest.get(1..).and_then(frame::find) {
                Some(next) => at += 1 + next,
                None => break,
            },
        }
    }
    found
}
