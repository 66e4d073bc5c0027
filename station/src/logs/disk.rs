//! What the store of logs needs of a disk, so that tests can take its power away.
//!
//! Directories of files. Nothing is durable before it is synced: bytes by [`Disk::sync`], names by
//! [`Disk::sync_dir`]. It knows nothing of batches.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    num::NonZeroU64,
    os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use rustix::fs::Advice;

use super::LogsError;

/// Permissions of files and directories: what nodes log is nobody's business but the station's.
const FILE: u32 = 0o600;
const DIRECTORY: u32 = 0o700;

/// Bytes that are announced with one call: of more the kernel would read no more than its device takes at once.
const HINT: u64 = 128 * 1024;

/// What is found in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its name.
    pub name: String,
    /// Its length.
    pub bytes: u64,
}

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// It must be there.
    Read,
    /// It is made if it is not there.
    Write,
}

/// A tree of directories of files, all named relative to its root. Clones are the same one.
pub trait Disk: Clone + Send + Sync + 'static {
    /// An open file.
    type File: Send + Sync;

    /// Returns what is in a directory, by name; nothing if there is none.
    ///
    /// # Errors
    ///
    /// Fails when the disk does.
    fn list(&self, dir: &str) -> io::Result<Vec<Found>>;

    /// Makes a directory and those above it, durably, unless they are there.
    ///
    /// # Errors
    ///
    /// Fails when the disk does.
    fn make_dir(&self, dir: &str) -> io::Result<()>;

    /// Opens a file.
    ///
    /// # Errors
    ///
    /// Fails when the disk does, or there is none and none is made.
    fn open(&self, path: &str, mode: Mode) -> io::Result<Self::File>;

    /// Returns the length of a file.
    ///
    /// # Errors
    ///
    /// Fails when the disk does.
    fn bytes(&self, file: &Self::File) -> io::Result<u64>;

    /// Fills `bytes` from a place in the file, and returns how many there were.
    ///
    /// # Errors
    ///
    /// Fails when the disk does.
    fn read(&self, file: &Self::File, at: u64, bytes: &mut [u8]) -> io::Result<usize>;

    /// Says that so many bytes of the file will be read soon. A hint that may come to nothing.
    fn announce(&self, _file: &Self::File, _at: u64, _bytes: u64) {}

    /// Writes all of `bytes` at a place in the file.
    ///
    /// # Errors
    ///
    /// Fails when not all could be written; how many were is unknown.
    fn write(&self, file: &Self::File, at: u64, bytes: &[u8]) -> io::Result<()>;

    /// Makes the bytes of the file durable.
    ///
    /// # Errors
    ///
    /// Fails when the disk does; what was written since the last time may then be lost, whatever a
    /// later sync says.
    fn sync(&self, file: &Self::File) -> io::Result<()>;

    /// Makes the names in a directory durable.
    ///
    /// # Errors
    ///
    /// Fails when the disk does.
    fn sync_dir(&self, dir: &str) -> io::Result<()>;

    /// Cuts a file.
    ///
    /// # Errors
    ///
    /// Fails when the disk does.
    fn truncate(&self, file: &Self::File, bytes: u64) -> io::Result<()>;

    /// Gives a file another name, in the place of one that has it.
    ///
    /// # Errors
    ///
    /// Fails when the disk does, or there is none.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file; one that is not there is removed already.
    ///
    /// # Errors
    ///
    /// Fails when the disk does.
    fn remove(&self, path: &str) -> io::Result<()>;
}

/// The real disk, below a directory.
#[derive(Debug, Clone)]
pub struct Files {
    root: PathBuf,
}

impl Files {
    /// Returns the tree below `root`, which is made when it is first needed.
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// Returns its root.
    pub fn root(&self) -> &Path {
        &self.root
    }
}

impl Disk for Files {
    type File = File;

    fn list(&self, dir: &str) -> io::Result<Vec<Found>> {
        let entries = match fs::read_dir(self.root.join(dir)) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry?;
            // What has such a name is not ours.
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            match entry.metadata() {
                Ok(metadata) => found.push(Found {
                    name,
                    bytes: metadata.len(),
                }),
                // Retention was faster.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        found.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(found)
    }

    fn make_dir(&self, dir: &str) -> io::Result<()> {
        make(&self.root.join(dir))
    }

    fn open(&self, path: &str, mode: Mode) -> io::Result<File> {
        let writes = mode == Mode::Write;
        OpenOptions::new()
            .read(true)
            .write(writes)
            .create(writes)
            .mode(FILE)
            .open(self.root.join(path))
    }

    fn bytes(&self, file: &File) -> io::Result<u64> {
        Ok(file.metadata()?.len())
    }

    fn read(&self, file: &File, at: u64, bytes: &mut [u8]) -> io::Result<usize> {
        let mut got = 0;
        while let Some(rest) = bytes.get_mut(got..).filter(|rest| !rest.is_empty()) {
            match file.read_at(rest, at + got as u64) {
                Ok(0) => break,
                Ok(count) => got += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(got)
    }

    fn announce(&self, file: &File, at: u64, bytes: u64) {
        let mut at = at;
        let end = at.saturating_add(bytes);
        while let Some(length) = NonZeroU64::new(end.saturating_sub(at).min(HINT)) {
            // What the kernel makes of a hint changes nothing but the time.
            rustix::fs::fadvise(file, at, Some(length), Advice::WillNeed).ok();
            at += length.get();
        }
    }

    fn write(&self, file: &File, at: u64, bytes: &[u8]) -> io::Result<()> {
        file.write_all_at(bytes, at)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        File::open(self.root.join(dir))?.sync_all()
    }

    fn truncate(&self, file: &File, bytes: u64) -> io::Result<()> {
        file.set_len(bytes)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.root.join(from), self.root.join(to))
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        match fs::remove_file(self.root.join(path)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

fn make(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    let above = dir.parent().unwrap_or(Path::new("/"));
    make(above)?;
    match DirBuilder::new().mode(DIRECTORY).create(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        made => made?,
    }
    File::open(above)?.sync_all()
}

/// Returns what makes an error of the disk one of the store, that says what was done to what.
pub(super) fn failed<'a>(
    doing: &'static str,
    path: &'a str,
) -> impl FnOnce(io::Error) -> LogsError + 'a {
    move |source| LogsError::Disk {
        doing,
        path: path.to_owned(),
        source,
    }
}

/// Reads a file from a place to its end, at most `limit` bytes of it.
pub(super) fn read_from<D: Disk>(
    disk: &D,
    file: &D::File,
    at: u64,
    limit: u64,
) -> io::Result<Vec<u8>> {
    let length = disk.bytes(file)?.saturating_sub(at).min(limit);
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
    let got = disk.read(file, at, &mut bytes)?;
    bytes.truncate(got);
    Ok(bytes)
}
