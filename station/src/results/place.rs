//! Files below one directory, and never outside of it: every step on the way is opened from the one
//! before and none of them may be a link.
//!
//! It knows nothing of what is written.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::{FileExt, MetadataExt},
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, CWD, Mode, OFlags, mkdirat, openat, renameat, statat},
    io::Errno,
};
use steward_files::Spot;

/// Directories are the owner's; the umask may take more away.
const DIRECTORY: Mode = Mode::RWXU.union(Mode::RGRP).union(Mode::XGRP);

/// So are files.
const FILE: Mode = Mode::RUSR.union(Mode::WUSR).union(Mode::RGRP);

/// Longest name of one file or directory, as the common filesystems have it.
const MAX_NAME: usize = 255;

/// Why something cannot be written there.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// It would be outside, or cannot be a name.
    #[error("write {path}: {part:?} is no name of a file or directory below results/")]
    Name {
        /// The whole.
        path: String,
        /// What is wrong in it.
        part: String,
    },
    /// Something on the way is a link, or no directory, or no file.
    #[error("write {path}: {part:?} {problem}")]
    Foreign {
        /// The whole.
        path: String,
        /// What is in the way.
        part: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The system says no.
    #[error("{doing} {path}: {source}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// With what.
        path: String,
        /// Why not.
        source: io::Error,
    },
}

/// A file below the directory, by the directory it is in and its name there.
#[derive(Debug)]
pub struct Place {
    path: String,
    parent: OwnedFd,
    name: String,
}

impl Place {
    /// Finds the place of `path` below `root`, making the directories on the way.
    ///
    /// # Errors
    ///
    /// Fails when it would be outside, when a link is in the way, and when the system says no.
    pub fn below(root: &Path, path: &str) -> Result<Self, PlaceError> {
        let io = |doing| {
            move |errno: Errno| PlaceError::Io {
                doing,
                path: path.to_owned(),
                source: errno.into(),
            }
        };
        steward_files::make_directories(root).map_err(|error| PlaceError::Io {
            doing: "make the directory for",
            path: path.to_owned(),
            source: error.source,
        })?;
        let directory = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::RDONLY;
        let mut parent = openat(CWD, root, directory, Mode::empty()).map_err(io("open"))?;
        let mut parts: Vec<&str> = path.split('/').collect();
        if let Some(part) = parts.iter().find(|part| !is_name(part)) {
            return Err(PlaceError::Name {
                path: path.to_owned(),
                part: (*part).to_owned(),
            });
        }
        let name = parts.pop().unwrap_or_default();
        for part in parts {
            match mkdirat(&parent, part, DIRECTORY) {
                // What is in it must not be lost with its name. Whoever made it may have been killed
                // before he came to this.
                Ok(()) | Err(Errno::EXIST) => {
                    rustix::fs::fsync(&parent).map_err(io("make durable"))?;
                }
                Err(errno) => return Err(io("make the directory for")(errno)),
            }
            parent = match openat(&parent, part, directory | OFlags::NOFOLLOW, Mode::empty()) {
                Ok(found) => found,
                Err(Errno::LOOP | Errno::NOTDIR) => {
                    return Err(PlaceError::Foreign {
                        path: path.to_owned(),
                        part: part.to_owned(),
                        problem: "is a link or no directory",
                    });
                }
                Err(errno) => return Err(io("open")(errno)),
            };
        }
        Ok(Self {
            path: path.to_owned(),
            parent,
            name: name.to_owned(),
        })
    }

    fn io(&self, doing: &'static str) -> impl FnOnce(io::Error) -> PlaceError {
        let path = self.path.clone();
        move |source| PlaceError::Io {
            doing,
            path,
            source,
        }
    }

    fn foreign(&self, problem: &'static str) -> PlaceError {
        PlaceError::Foreign {
            path: self.path.clone(),
            part: self.name.clone(),
            problem,
        }
    }

    /// Puts `content` in the file's place, whatever was there: all of it or nothing.
    ///
    /// # Errors
    ///
    /// Fails when something else than a file is there, and when the system says no.
    pub fn replace(&self, content: &[u8]) -> Result<(), PlaceError> {
        match statat(&self.parent, &self.name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) if rustix::fs::FileType::from_raw_mode(found.st_mode).is_file() => {}
            Ok(_) => return Err(self.foreign("is a link or no file")),
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(self.io("look at")(errno.into())),
        }
        // Only one writer there is; what it left half done is overwritten.
        let digest = steward_protocol::Digest::of(self.name.as_bytes()).to_string();
        let temporary = format!(".{}.new", digest.get(..16).unwrap_or_default());
        let spot = Spot {
            directory: self.parent.as_fd(),
            name: self.name.as_ref(),
            beside: temporary.as_ref(),
        };
        spot.replace(content, FILE.as_raw_mode())
            .map_err(self.io("write"))
    }

    /// Puts the complete file `from` there, which has to be on the same file system. Durable when this
    /// returns. A link in its place is replaced, not followed.
    ///
    /// # Errors
    ///
    /// Fails when a directory is there, and when the system says no.
    pub fn put(&self, from: &Path) -> Result<(), PlaceError> {
        renameat(CWD, from, &self.parent, &self.name)
            .map_err(|errno| self.io("move into place")(errno.into()))?;
        rustix::fs::fsync(&self.parent).map_err(|errno| self.io("make durable")(errno.into()))
    }

    /// Opens the file for appending, making it where there is none.
    ///
    /// # Errors
    ///
    /// Fails when something else than a file is there, and when the system says no.
    pub fn open(&self) -> Result<Log, PlaceError> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file = match openat(&self.parent, &self.name, flags | OFlags::CLOEXEC, FILE) {
            Ok(file) => File::from(file),
            Err(Errno::LOOP | Errno::ISDIR | Errno::NXIO) => {
                return Err(self.foreign("is a link or no file"));
            }
            Err(errno) => return Err(self.io("open")(errno.into())),
        };
        let metadata = file.metadata().map_err(self.io("look at"))?;
        if !metadata.is_file() {
            return Err(self.foreign("is a link or no file"));
        }
        rustix::fs::fsync(&self.parent).map_err(|errno| self.io("make durable")(errno.into()))?;
        Ok(Log {
            path: self.path.clone(),
            inode: metadata.ino(),
            length: metadata.len(),
            file,
        })
    }
}

fn is_name(part: &str) -> bool {
    !part.is_empty()
        && part.len() <= MAX_NAME
        && part != "."
        && part != ".."
        && !part.contains('\0')
}

/// A file that is appended to.
#[derive(Debug)]
pub struct Log {
    path: String,
    file: File,
    /// Which file it is.
    pub inode: u64,
    /// How long it was when it was opened.
    pub length: u64,
}

impl Log {
    /// Writes `content` from `base` on; doing so again changes nothing.
    ///
    /// # Errors
    ///
    /// Fails when the system says no.
    pub fn write(&self, base: u64, content: &[u8]) -> Result<(), PlaceError> {
        self.file
            .write_all_at(content, base)
            .map_err(|source| self.failed(source))
    }

    /// Makes what was written durable.
    ///
    /// # Errors
    ///
    /// Fails when the system says no.
    pub fn sync(&self) -> Result<(), PlaceError> {
        self.file.sync_all().map_err(|source| self.failed(source))
    }

    fn failed(&self, source: io::Error) -> PlaceError {
        PlaceError::Io {
            doing: "write",
            path: self.path.clone(),
            source,
        }
    }
}

/// Returns where results go in a state directory.
pub fn root(state_dir: &Path) -> PathBuf {
    state_dir.join("results")
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn nothing_is_written_outside_nor_through_a_link() {
        let dir = tempfile::tempdir().expect("a directory");
        let outside = dir.path().join("outside");
        let root = dir.path().join("results");
        fs::create_dir_all(root.join("d/ship1")).expect("directories");
        fs::create_dir(&outside).expect("a directory");
        fs::write(outside.join("file"), "untouched").expect("a file");
        symlink(&outside, root.join("link")).expect("a link");
        symlink(outside.join("file"), root.join("d/ship1/link")).expect("a link");
        symlink(outside.join("new"), root.join("d/ship1/dangling")).expect("a link");
        fs::create_dir(root.join("d/ship1/dir")).expect("a directory");
        fs::write(root.join("d/plain"), "").expect("a file");
        for path in [
            "../outside/file",
            "d/../../outside/file",
            "",
            "/outside",
            "d//x",
            "d/./x",
            "d/..",
        ] {
            let place = Place::below(&root, path);
            assert!(
                matches!(place, Err(PlaceError::Name { .. })),
                "{path}: {place:?}"
            );
        }
        for path in ["link/file", "d/plain/x"] {
            let place = Place::below(&root, path);
            assert!(
                matches!(place, Err(PlaceError::Foreign { .. })),
                "{path}: {place:?}"
            );
        }
        for path in ["d/ship1/link", "d/ship1/dangling", "d/ship1/dir"] {
            let place = Place::below(&root, path).expect("its directory is fine");
            let replaced = place.replace(b"x");
            assert!(
                matches!(replaced, Err(PlaceError::Foreign { .. })),
                "{path}: {replaced:?}"
            );
            assert!(
                matches!(place.open(), Err(PlaceError::Foreign { .. })),
                "{path}"
            );
        }
        let untouched = fs::read_to_string(outside.join("file")).expect("still there");
        assert_eq!(untouched, "untouched");
        assert!(!outside.join("new").exists());
    }

    #[test]
    fn a_file_is_replaced_whole_and_an_append_repeated_changes_nothing() {
        let dir = tempfile::tempdir().expect("a directory");
        let root = root(dir.path());
        let place = Place::below(&root, "a/b/c").expect("a place");
        for content in ["first, and longer", "second"] {
            place.replace(content.as_bytes()).expect("written");
            let found = fs::read_to_string(root.join("a/b/c")).expect("there");
            assert_eq!(found, content);
        }
        let log = place.open().expect("a file");
        for _ in 0..2 {
            log.write(log.length, b" and more").expect("written");
            log.sync().expect("durable");
        }
        let found = fs::read_to_string(root.join("a/b/c")).expect("there");
        assert_eq!(found, "second and more");
        assert_eq!(fs::read_dir(root.join("a/b")).expect("there").count(), 1);
    }
}
