//! Where a file goes: its directory, held and locked, and what is there now.
//!
//! A symbolic link at the path is followed, and the file it points to is written; the link stays.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File},
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags, Stat};
use steward_files::{Attributes, make_directories};
use steward_protocol::body::WriteBody;

use super::WriteError;

/// The directory a file goes to. While it lives, no other run writes there.
#[derive(Debug)]
pub(super) struct Place {
    /// The file itself, links followed.
    pub(super) path: PathBuf,
    /// Its name in the directory.
    pub(super) name: OsString,
    directory: OwnedFd,
    /// Whether nobody else writes there: not every file system has locks.
    pub(super) locked: bool,
    found: Option<Found>,
}

/// A file that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    /// Its length.
    pub(super) bytes: u64,
    /// Its permissions.
    pub(super) mode: u32,
    /// Its owner.
    pub(super) uid: u32,
    /// Its group.
    pub(super) gid: u32,
    /// What tells it from every other file, and from what it was at another time.
    version: (u64, u64, i64, i64),
}

impl Place {
    /// Finds out where a body's content goes, and looks at what is there.
    pub(super) fn open(body: &WriteBody) -> Result<Self, WriteError> {
        let path = follow(Path::new(&body.path))?;
        // The body was checked: the path is absolute and ends with a name.
        let parent = path.parent().unwrap_or(Path::new("/")).to_owned();
        let name = path.file_name().unwrap_or(OsStr::new("")).to_owned();
        if body.parents {
            make_directories(&parent).map_err(|error| WriteError::System {
                doing: error.doing,
                path: error.path,
                source: error.source,
            })?;
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(&parent, flags, Mode::empty()).map_err(|errno| {
            let source = io::Error::from(errno);
            match source.kind() {
                io::ErrorKind::NotFound => WriteError::NoDirectory {
                    path: path.clone(),
                    missing: parent.clone(),
                },
                _ => WriteError::System {
                    doing: "open the directory",
                    path: parent.clone(),
                    source,
                },
            }
        })?;
        let locked = rustix::fs::flock(&directory, FlockOperation::LockExclusive).is_ok();
        let mut place = Self {
            path,
            name,
            directory,
            locked,
            found: None,
        };
        place.found = place.look()?;
        Ok(place)
    }

    /// Returns what was there when the place was opened.
    pub(super) fn found(&self) -> Option<&Found> {
        self.found.as_ref()
    }

    /// Returns the directory.
    pub(super) fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// Looks at what is there now.
    pub(super) fn look(&self) -> Result<Option<Found>, WriteError> {
        let stat = match rustix::fs::statat(&self.directory, &self.name, AtFlags::SYMLINK_NOFOLLOW)
        {
            Ok(stat) => stat,
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(self.failed("look at", errno.into())),
        };
        match kind(&stat) {
            None => Ok(Some(Found::from(&stat))),
            Some(kind) => Err(WriteError::Kind {
                path: self.path.clone(),
                kind,
            }),
        }
    }

    /// Tells whether something else is there than when the place was opened.
    pub(super) fn has_changed(&self) -> bool {
        self.look().ok() != Some(self.found.clone())
    }

    /// Opens what is there.
    pub(super) fn read(&self) -> Result<File, WriteError> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        rustix::fs::openat(&self.directory, &self.name, flags, Mode::empty())
            .map(File::from)
            .map_err(|errno| self.failed("read", errno.into()))
    }

    /// Returns the error of something that was tried with this file.
    pub(super) fn failed(&self, doing: &'static str, source: io::Error) -> WriteError {
        WriteError::System {
            doing,
            path: self.path.clone(),
            source,
        }
    }
}

impl Found {
    /// Tells whether it has these attributes already.
    pub(super) fn has(&self, attributes: &Attributes) -> bool {
        attributes.mode == self.mode
            && attributes.uid.is_none_or(|uid| uid == self.uid)
            && attributes.gid.is_none_or(|gid| gid == self.gid)
    }
}

impl From<&Stat> for Found {
    fn from(stat: &Stat) -> Self {
        Self {
            bytes: u64::try_from(stat.st_size).unwrap_or(0),
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            version: (
                stat.st_dev,
                stat.st_ino,
                stat.st_mtime,
                i64::try_from(stat.st_mtime_nsec).unwrap_or(0),
            ),
        }
    }
}

/// Returns the file that a path leads to.
fn follow(path: &Path) -> Result<PathBuf, WriteError> {
    let link = match fs::symlink_metadata(path) {
        Ok(found) => found.file_type().is_symlink(),
        // What is wrong with it shows where it is used.
        Err(_) => false,
    };
    if !link {
        return Ok(path.to_owned());
    }
    fs::canonicalize(path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => WriteError::Dangling {
            path: path.to_owned(),
            target: fs::read_link(path).unwrap_or_default(),
        },
        _ => WriteError::System {
            doing: "follow the symbolic link",
            path: path.to_owned(),
            source,
        },
    })
}

/// Returns what something is that is no regular file.
fn kind(stat: &Stat) -> Option<&'static str> {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => None,
        FileType::Directory => Some("a directory"),
        FileType::Symlink => Some("a symbolic link that was put there just now"),
        FileType::Fifo => Some("a fifo"),
        FileType::Socket => Some("a socket"),
        FileType::CharacterDevice | FileType::BlockDevice => Some("a device"),
        FileType::Unknown => Some("something unknown"),
    }
}
