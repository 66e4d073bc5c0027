//! Puts a new file in the place of an old one, by a temporary beside it and a rename.
//!
//! A run that is killed leaves its temporary behind; the next run for the same path removes it.

use std::{
    fmt::Write as _,
    fs::File,
    io::{self, Read, Write as _},
    os::unix::ffi::OsStrExt,
};

use rustix::fs::{AtFlags, Dir, Mode, OFlags};
use steward_files::{Attributes, AttributesError, Over, Spot};
use steward_protocol::Digest;
use uuid::Uuid;

use super::{WriteError, place::Place};

/// What the name of every temporary begins with.
const PREFIX: &str = ".steward-";

/// Digits of the file's name's digest in its temporaries' names: a name may be too long to be lengthened.
const NAME_DIGITS: usize = 16;

/// What is read and written at once.
const PIECE: usize = 64 << 10;

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
        attributes.give(&self.file).map_err(|error| match error {
            AttributesError::Look(error) => {
                self.place.failed("look at the temporary file for", error)
            }
            AttributesError::Owner(error) => self.place.failed("set the owner of", error),
            AttributesError::Permissions(error) => {
                self.place.failed("set the permissions of", error)
            }
        })?;
        self.file
            .sync_all()
            .map_err(|error| self.place.failed("make the new content durable for", error))
    }

    /// Puts it in its place, durably.
    pub(super) fn put(mut self, over: Over) -> Result<(), WriteError> {
        let place = self.place;
        let spot = Spot {
            directory: place.directory(),
            name: &place.name,
            beside: self.name.as_ref(),
        };
        match spot.rename(over) {
            Ok(()) => {}
            Err(error) if over == Over::Nothing && error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(WriteError::There {
                    path: place.path.clone(),
                    bytes: place.look().ok().flatten().map_or(0, |found| found.bytes),
                });
            }
            Err(error) => return Err(place.failed("replace", error)),
        }
        let synced = spot.sync();
        self.put = true;
        synced.map_err(|source| WriteError::NotDurable {
            path: place.path.clone(),
            source,
        })
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
