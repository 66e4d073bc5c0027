//! Where bytes to be sent come from: a file as it was when its digest was taken, or the record log of
//! a command. Blocks; callers see to that. Knows nothing of who wants them.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt},
    path::Path,
};

use steward_protocol::{
    Digest, Output,
    transfer::{CommandEnd, Extent, Failed, Failure, Whole},
};

use crate::child::{
    How,
    log::{Log, LogError},
};

/// Bytes read at a time while a digest is taken.
const GULP: usize = 1 << 20;

/// What a source has to offer at present.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Look {
    /// As many bytes can be had.
    pub(super) available: u64,
    /// The bytes below this cannot be had any more.
    pub(super) released: u64,
    /// What all of it comes to, once that is known.
    pub(super) whole: Option<Whole>,
}

/// Where bytes come from.
#[derive(Debug)]
pub(super) enum Source {
    /// A command's record log; grows while it runs.
    Output(Log),
    /// A file that must not change.
    File(Pinned),
}

impl Source {
    /// Tells whether all of it is to go to the station, whoever began.
    pub(super) fn is_awaited(&self) -> bool {
        match self {
            Self::Output(log) => super::stream::is_awaited(log.dir()),
            Self::File(_) => false,
        }
    }

    /// Looks what there is.
    pub(super) fn look(&self) -> Result<Look, Failed> {
        match self {
            Self::File(pinned) => Ok(Look {
                available: pinned.bytes,
                released: 0,
                whole: Some(Whole {
                    bytes: pinned.bytes,
                    blake3: pinned.blake3,
                    command: None,
                }),
            }),
            Self::Output(log) => {
                // The end first: once it is there, so is the last byte.
                let end = log.end().map_err(|error| gone(&error))?;
                let whole = end.map(|end| Whole {
                    bytes: end.log.bytes,
                    blake3: end.log.blake3,
                    command: Some(CommandEnd {
                        exit_code: codes(&end.how).0,
                        signal: codes(&end.how).1,
                        stdout: extent(&end.stdout),
                        stderr: extent(&end.stderr),
                    }),
                });
                Ok(Look {
                    available: log.length().map_err(|error| gone(&error))?,
                    released: log.released().map_err(|error| gone(&error))?,
                    whole,
                })
            }
        }
    }

    /// Reads `length` bytes from `offset` on.
    pub(super) fn read(&self, offset: u64, length: usize) -> Result<Vec<u8>, Failed> {
        match self {
            Self::File(pinned) => pinned.read(offset, length),
            Self::Output(log) => {
                let mut bytes = vec![0; length];
                let mut got = 0;
                while got < length {
                    let rest = bytes.get_mut(got..).unwrap_or_default();
                    match log.read(offset + got as u64, rest) {
                        Ok(0) => {
                            return Err(Failed::new(Failure::Changed, "its log became shorter"));
                        }
                        Ok(count) => got += count,
                        Err(error) => return Err(gone(&error)),
                    }
                }
                Ok(bytes)
            }
        }
    }

    /// Lets go of what is below `upto`, if there is no need to keep it.
    pub(super) fn release(&self, upto: u64) {
        if let Self::Output(log) = self
            && let Err(error) = log.release(upto)
        {
            tracing::warn!(%error, "what the station has of an output was not released");
        }
    }
}

fn codes(how: &How) -> (Option<i32>, Option<i32>) {
    match how {
        How::Ended {
            exit_code, signal, ..
        } => (*exit_code, *signal),
        How::NotStarted { exit_code, .. } => (*exit_code, None),
    }
}

fn extent(output: &Output) -> Extent {
    Extent {
        bytes: output.bytes,
        blake3: output.blake3,
    }
}

fn gone(error: &LogError) -> Failed {
    let why = match error {
        LogError::Released { .. } => Failure::Released,
        LogError::File { .. } | LogError::Place(_) => Failure::Gone,
    };
    Failed::new(why, crate::keeper::chain(error))
}

/// What tells one state of a file from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Face {
    inode: (u64, u64),
    bytes: u64,
    modified: (i64, i64),
}

impl Face {
    fn of(file: &File) -> io::Result<Self> {
        let found = file.metadata()?;
        Ok(Self {
            inode: (found.dev(), found.ino()),
            bytes: found.len(),
            modified: (found.mtime(), found.mtime_nsec()),
        })
    }
}

/// A file whose length and digest are known.
#[derive(Debug)]
pub(super) struct Pinned {
    file: File,
    face: Face,
    pub(super) bytes: u64,
    pub(super) blake3: Digest,
}

impl Pinned {
    /// Opens a file and takes its digest, which takes a while.
    pub(super) fn take(path: &Path) -> Result<Self, Failed> {
        let shown = path.display();
        let unreadable = |error: io::Error| {
            let why = match error.kind() {
                io::ErrorKind::NotFound => Failure::Gone,
                io::ErrorKind::PermissionDenied => Failure::Refused,
                _ => Failure::Storage,
            };
            Failed::new(why, format!("{shown} cannot be read: {error}"))
        };
        let nonblock = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        let file = OpenOptions::new()
            .read(true)
            // The end of a pipe would be waited for.
            .custom_flags(nonblock)
            .open(path)
            .map_err(unreadable)?;
        if !file.metadata().map_err(unreadable)?.is_file() {
            return Err(Failed::new(
                Failure::Refused,
                format!("{shown} is not a regular file"),
            ));
        }
        let face = Face::of(&file).map_err(unreadable)?;
        let (bytes, blake3) = digest(&file).map_err(unreadable)?;
        if bytes != face.bytes || Face::of(&file).map_err(unreadable)? != face {
            return Err(changed(path));
        }
        Ok(Self {
            file,
            face,
            bytes,
            blake3,
        })
    }

    fn read(&self, offset: u64, length: usize) -> Result<Vec<u8>, Failed> {
        let mut bytes = vec![0; length];
        let read = self.file.read_exact_at(&mut bytes, offset);
        // Asked afterwards: what was read is what the digest was taken of.
        match (read, Face::of(&self.file)) {
            (Ok(()), Ok(face)) if face == self.face => Ok(bytes),
            (Err(error), Ok(face)) if face == self.face => Err(Failed::new(
                Failure::Storage,
                format!("the file cannot be read: {error}"),
            )),
            (_, Err(error)) => Err(Failed::new(
                Failure::Storage,
                format!("the file cannot be looked at: {error}"),
            )),
            (_, Ok(_)) => Err(Failed::new(
                Failure::Changed,
                "the file changed while it was transferred",
            )),
        }
    }
}

fn changed(path: &Path) -> Failed {
    let shown = path.display();
    Failed::new(
        Failure::Changed,
        format!("{shown} changed while it was read"),
    )
}

/// Returns length and digest of what a file holds.
pub(super) fn digest(file: &File) -> io::Result<(u64, Digest)> {
    let (bytes, hasher) = hash(file)?;
    Ok((bytes, hasher.finalize().into()))
}

/// Takes in what a file holds, from its beginning.
pub(super) fn hash(file: &File) -> io::Result<(u64, blake3::Hasher)> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; GULP];
    let mut offset = 0;
    loop {
        let count = file.read_at(&mut buffer, offset)?;
        if count == 0 {
            return Ok((offset, hasher));
        }
        hasher.update(buffer.get(..count).unwrap_or_default());
        offset += count as u64;
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_file_that_changes_after_its_digest_was_taken_is_not_read_any_more() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("file");
        std::fs::write(&path, b"some bytes").expect("written");
        let pinned = Pinned::take(&path).expect("a file");
        assert_eq!(pinned.read(5, 5).expect("unchanged"), b"bytes");
        let mut file = OpenOptions::new().append(true).open(&path).expect("open");
        file.write_all(b"more").expect("written");
        let failed = pinned.read(0, 4).expect_err("it changed");
        assert_eq!(failed.why, Failure::Changed);
    }

    #[test]
    fn what_is_no_regular_file_is_refused_and_what_is_missing_is_gone() {
        let dir = tempfile::tempdir().expect("a directory");
        for (name, expected) in [("", Failure::Refused), ("missing", Failure::Gone)] {
            let failed = Pinned::take(&dir.path().join(name)).expect_err("it cannot be had");
            assert_eq!(failed.why, expected, "{name}: {}", failed.reason);
        }
    }
}
