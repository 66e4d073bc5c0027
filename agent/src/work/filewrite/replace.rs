//! Puts a new file in the place of an old one, by a temporary beside it and a rename.
//!
//! A run that is killed leaves its temporary behind; the next run for the same path removes it.

use std::{
    fmt::Write as _,
    fs::File,
    io::{self, Read, Write as _},
    os::unix::ffi::OsStrExt,
};

use rustix::{
    fs::{AtFlags, Dir, Gid, Mode, OFlags, RenameFlags, Uid},
    io::Errno,
};
use steward_protocol::Digest;
use uuid::Uuid;

use super::{
    WriteError,
    place::{Found, Place},
};

/// What the name of every temporary begins with.
const PREFIX: &str = ".steward-";

/// Digits of the file's name's digest in its temporaries' names: a name may be too long to be lengthened.
const NAME_DIGITS: usize = 16;

/// What is read and written at once.
const PIECE: usize = 64 << 10;

/// What a new file is given besides its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Attributes {
    /// Its permissions.
    pub(super) mode: u32,
    /// Its owner; the agent's user where nothing is said.
    pub(super) uid: Option<u32>,
    /// Its group; that of the agent's user, or of the directory.
    pub(super) gid: Option<u32>,
}

impl Attributes {
    /// Tells whether a file has them already.
    pub(super) fn are_those_of(&self, found: &Found) -> bool {
        self.mode == found.mode
            && self.uid.is_none_or(|uid| uid == found.uid)
            && self.gid.is_none_or(|gid| gid == found.gid)
    }
}

/// What may be in the place of the new file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Condition {
    /// Whatever there is.
    Any,
    /// Nothing, at the very moment of the rename.
    Absent,
}

/// A file that is being written beside its place. Dropped, it goes.
#[derive(Debug)]
pub(super) struct Temporary<'a> {
    place: &'a Place,
    name: String,
    file: File,
    hasher: blake3::Hasher,
    /// Whether it has become the file itself.
    put: bool,
}

/// Returns what the names of all temporaries for this place begin with.
fn prefix(place: &Place) -> String {
    let mut digits = Digest::of(place.name.as_bytes()).to_string();
    digits.truncate(NAME_DIGITS);
    format!("{PREFIX}{digits}-")
}

impl<'a> Temporary<'a> {
    /// Begins one.
    pub(super) fn create(place: &'a Place) -> Result<Self, WriteError> {
        let mut name = prefix(place);
        // Writing to a string does not fail.
        write!(name, "{}", Uuid::new_v4().simple()).ok();
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(place.directory(), &name, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|errno| place.failed("make a temporary file beside", errno.into()))?;
        Ok(Self {
            place,
            name,
            file: file.into(),
            hasher: blake3::Hasher::new(),
            put: false,
        })
    }

    /// Adds content.
    pub(super) fn write(&mut self, content: &mut impl Read) -> io::Result<()> {
        let mut piece = vec![0; PIECE];
        loop {
            let read = match content.read(&mut piece) {
                Ok(0) => return Ok(()),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            self.file.write_all(&piece[..read])?;
            self.hasher.update(&piece[..read]);
        }
    }

    /// Returns the digest of what it has so far.
    pub(super) fn digest(&self) -> Digest {
        self.hasher.finalize().into()
    }

    /// Gives it its attributes and makes it durable.
    pub(super) fn finish(&self, attributes: &Attributes) -> Result<(), WriteError> {
        let failed = |doing| move |error| self.place.failed(doing, error);
        let present = rustix::fs::fstat(&self.file)
            .map_err(io::Error::from)
            .map_err(failed("look at the temporary file for"))?;
        let uid = attributes.uid.filter(|uid| *uid != present.st_uid);
        let gid = attributes.gid.filter(|gid| *gid != present.st_gid);
        // The owner first: changing it takes set-user-id away.
        if uid.is_some() || gid.is_some() {
            rustix::fs::fchown(&self.file, uid.map(Uid::from_raw), gid.map(Gid::from_raw))
                .map_err(io::Error::from)
                .map_err(failed("set the owner of"))?;
        }
        rustix::fs::fchmod(&self.file, Mode::from_raw_mode(attributes.mode))
            .map_err(io::Error::from)
            .map_err(failed("set the permissions of"))?;
        self.file
            .sync_all()
            .map_err(failed("make the new content durable for"))
    }

    /// Puts it in its place, durably.
    pub(super) fn put(mut self, condition: Condition) -> Result<(), WriteError> {
        let (place, directory) = (self.place, self.place.directory());
        let renamed = match condition {
            Condition::Any => rustix::fs::renameat(directory, &self.name, directory, &place.name),
            Condition::Absent => self.put_absent(),
        };
        match renamed {
            Ok(()) => self.put = true,
            Err(Errno::EXIST) if condition == Condition::Absent => {
                return Err(WriteError::There {
                    path: place.path.clone(),
                    bytes: place.look().ok().flatten().map_or(0, |found| found.bytes),
                });
            }
            Err(errno) => return Err(place.failed("replace", errno.into())),
        }
        rustix::fs::fsync(directory).map_err(|errno| WriteError::NotDurable {
            path: place.path.clone(),
            source: errno.into(),
        })
    }

    /// Renames it unless something is there; nothing can come in between.
    fn put_absent(&self) -> Result<(), Errno> {
        let (place, directory) = (self.place, self.place.directory());
        let flags = RenameFlags::NOREPLACE;
        match rustix::fs::renameat_with(directory, &self.name, directory, &place.name, flags) {
            // Not every file system can do it; a second name does the same.
            Err(Errno::INVAL | Errno::NOSYS) => {}
            other => return other,
        }
        let flags = AtFlags::empty();
        rustix::fs::linkat(directory, &self.name, directory, &place.name, flags)?;
        rustix::fs::unlinkat(directory, &self.name, flags)
    }
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        if !self.put {
            // What stays is removed by the next run.
            rustix::fs::unlinkat(self.place.directory(), &self.name, AtFlags::empty()).ok();
        }
    }
}

/// Removes what killed runs left for this place. Under the lock of the directory nobody is at work on
/// any of it.
pub(super) fn clear(place: &Place) {
    let Ok(entries) = Dir::read_from(place.directory()) else {
        return;
    };
    if !place.locked {
        return;
    }
    let prefix = prefix(place);
    for entry in entries.flatten() {
        if entry.file_name().to_bytes().starts_with(prefix.as_bytes()) {
            rustix::fs::unlinkat(place.directory(), entry.file_name(), AtFlags::empty()).ok();
        }
    }
}
