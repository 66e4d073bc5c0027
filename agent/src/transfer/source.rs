//! Where bytes to be sent come from: a file as it was when its digest was taken, or the record log of
//! a command. Blocks; callers see to that. Knows nothing of who wants them.

use std::{fs::OpenOptions, io, os::unix::fs::OpenOptionsExt, path::Path};

use steward_files::{Pinned, PinnedError};
use steward_protocol::{
    Output,
    transfer::{CommandEnd, Extent, Failed, Failure, Whole},
};

use crate::child::{
    How,
    log::{Log, LogError},
};

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
                available: pinned.bytes(),
                released: 0,
                whole: Some(Whole {
                    bytes: pinned.bytes(),
                    blake3: pinned.blake3(),
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
            Self::File(pinned) => pinned.read(offset, length).map_err(broken),
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

/// Opens a file of the node and takes its digest, which takes a while.
pub(super) fn pin(path: &Path) -> Result<Pinned, Failed> {
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
    Pinned::take(file).map_err(|error| match error {
        PinnedError::Irregular => {
            Failed::new(Failure::Refused, format!("{shown} is not a regular file"))
        }
        PinnedError::Changed => {
            let reason = format!("{shown} changed while it was read");
            Failed::new(Failure::Changed, reason)
        }
        PinnedError::Look(error) | PinnedError::Read(error) => unreadable(error),
    })
}

/// Says why bytes of a file cannot be had that were promised.
fn broken(error: PinnedError) -> Failed {
    match error {
        PinnedError::Irregular | PinnedError::Changed => Failed::new(
            Failure::Changed,
            "the file changed while it was transferred",
        ),
        PinnedError::Look(error) => Failed::new(
            Failure::Storage,
            format!("the file cannot be looked at: {error}"),
        ),
        PinnedError::Read(error) => Failed::new(
            Failure::Storage,
            format!("the file cannot be read: {error}"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_changes_after_its_digest_was_taken_is_not_sent_any_more() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("file");
        std::fs::write(&path, b"some bytes").expect("written");
        let source = Source::File(pin(&path).expect("a file"));
        assert_eq!(source.read(5, 5).expect("unchanged"), b"bytes");
        std::fs::write(&path, b"other bytes").expect("written");
        let failed = source.read(0, 4).expect_err("it changed");
        assert_eq!(failed.why, Failure::Changed);
    }

    #[test]
    fn what_is_no_regular_file_is_refused_and_what_is_missing_is_gone() {
        let dir = tempfile::tempdir().expect("a directory");
        for (name, expected) in [("", Failure::Refused), ("missing", Failure::Gone)] {
            let failed = pin(&dir.path().join(name)).expect_err("it cannot be had");
            assert_eq!(failed.why, expected, "{name}: {}", failed.reason);
        }
    }
}
