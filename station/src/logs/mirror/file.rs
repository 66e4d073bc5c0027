//! The files of the mirror: append at a known place, so that nothing is there twice, and rotate.
//!
//! How far a file counts is in its [`Mark`], which its owner keeps durably beside the cursor; what stands behind it was
//! written before a crash and is written again. It knows nothing of messages.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use super::super::{follow::Mark, name::Line};

/// Permissions: tools of the same group may read.
const FILE: u32 = 0o640;
const DIRECTORY: u32 = 0o750;

/// How large files become, and how many of them stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rotation {
    /// A file that would become larger becomes `.1`.
    pub bytes: u64,
    /// How many of these stay.
    pub keep: u32,
}

/// Why a file cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("{doing} {}", path.display())]
pub struct FileError {
    /// What was tried.
    doing: &'static str,
    /// With which file.
    path: PathBuf,
    /// Why not.
    source: io::Error,
}

impl FileError {
    fn at(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self {
            doing,
            path,
            source,
        }
    }
}

/// The mirror's directory.
#[derive(Debug, Clone)]
pub struct Tree {
    root: PathBuf,
}

/// What is to be done before a file is appended to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Nothing; what counts ends here.
    Append(Mark),
    /// It is another file than the one that is known, or the first: its mark is to be kept first.
    Mark(Mark),
    /// It would become too large: what is known is to be kept first, then it is to be rotated.
    Rotate,
}

impl Tree {
    /// Returns the tree below a directory.
    pub fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
        }
    }

    /// Returns the file of a line.
    pub fn path(&self, line: &Line) -> PathBuf {
        self.root
            .join(line.node.as_str())
            .join(format!("{}.log", line.domain))
    }

    /// Says what is needed before `more` bytes can be appended.
    ///
    /// # Errors
    ///
    /// Fails when the disk does.
    pub fn need(
        &self,
        line: &Line,
        mark: Option<Mark>,
        (more, rotation): (u64, Rotation),
    ) -> Result<Need, FileError> {
        let path = self.path(line);
        let file = self.open(line)?;
        let found = file.metadata().map_err(FileError::at("read", &path))?;
        let here = Mark {
            inode: found.ino(),
            bytes: found.len(),
        };
        Ok(match mark.filter(|mark| mark.inode == here.inode) {
            None => Need::Mark(here),
            // Somebody has emptied or cut it.
            Some(mark) if mark.bytes > here.bytes => Need::Mark(here),
            // A kill, or a write that failed: that is written again, here or in the next file.
            Some(mark) if mark.bytes < here.bytes => {
                file.set_len(mark.bytes)
                    .map_err(FileError::at("cut", &path))?;
                return self.need(line, Some(mark), (more, rotation));
            }
            Some(mark) if mark.bytes > 0 && mark.bytes + more > rotation.bytes => Need::Rotate,
            Some(mark) => Need::Append(mark),
        })
    }

    /// Writes behind what counts, and returns what then does.
    ///
    /// # Errors
    ///
    /// Fails when the disk does, as when it is full; the mark then still holds.
    pub fn append(&self, line: &Line, mark: Mark, bytes: &[u8]) -> Result<Mark, FileError> {
        let path = self.path(line);
        let file = self.open(line)?;
        file.write_all_at(bytes, mark.bytes)
            .map_err(FileError::at("write", &path))?;
        Ok(Mark {
            bytes: mark.bytes + bytes.len() as u64,
            ..mark
        })
    }

    /// Makes a file durable.
    ///
    /// # Errors
    ///
    /// Fails when the disk does.
    pub fn sync(&self, line: &Line) -> Result<(), FileError> {
        let path = self.path(line);
        match File::open(&path) {
            Ok(file) => file
                .sync_data()
                .map_err(FileError::at("make durable", &path)),
            // Somebody has removed it; what was in it is nobody's concern any more.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(FileError::at("make durable", &path)(error)),
        }
    }

    /// Makes durable that there is a file for a line.
    ///
    /// # Errors
    ///
    /// Fails when the disk does.
    pub fn sync_name(&self, line: &Line) -> Result<(), FileError> {
        let path = self.path(line);
        // The directory of the node may be new as well.
        for dir in path.ancestors().skip(1).take(2) {
            sync_dir(dir)?;
        }
        Ok(())
    }

    /// Gives the file of a line the name with `.1`, and the others the next one. The last is removed.
    ///
    /// # Errors
    ///
    /// Fails when the disk does; it can be tried again.
    pub fn rotate(&self, line: &Line, rotation: Rotation) -> Result<(), FileError> {
        let path = self.path(line);
        let numbered = |number: u32| PathBuf::from(format!("{}.{number}", path.display()));
        if rotation.keep == 0 {
            return match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    Err(FileError::at("remove", &path)(error))
                }
                _ => Ok(()),
            };
        }
        // Only up to the first number that is free: after a crash in the middle none is lost.
        let free = (1..rotation.keep).find(|number| !numbered(*number).exists());
        for number in (1..free.unwrap_or(rotation.keep)).rev() {
            rename(&numbered(number), &numbered(number + 1))?;
        }
        rename(&path, &numbered(1))?;
        sync_dir(path.parent().unwrap_or(&self.root))
    }

    fn open(&self, line: &Line) -> Result<File, FileError> {
        let path = self.path(line);
        let open = || {
            OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .mode(FILE)
                .open(&path)
        };
        let opened = match open() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let dir = path.parent().unwrap_or(&self.root);
                fs::DirBuilder::new()
                    .recursive(true)
                    .mode(DIRECTORY)
                    .create(dir)
                    .map_err(FileError::at("make the directory", dir))?;
                open()
            }
            opened => opened,
        };
        opened.map_err(FileError::at("open", &path))
    }
}

fn rename(from: &Path, to: &Path) -> Result<(), FileError> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        renamed => renamed.map_err(FileError::at("rename", from)),
    }
}

fn sync_dir(dir: &Path) -> Result<(), FileError> {
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(FileError::at("make durable", dir))
}
