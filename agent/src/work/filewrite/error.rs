//! Why a file was not written, in words that say what to do about it.

use std::{io, path::PathBuf};

use rustix::io::Errno;
use steward_protocol::Digest;

use super::MAX_REWRITTEN;
use crate::owner::Nobody;

/// Why a file was not written. The path has the content it had, but for [`WriteError::NotDurable`].
#[derive(Debug, thiserror::Error)]
pub(in crate::work) enum WriteError {
    /// The content cannot be read; the body was checked, so this does not happen.
    #[error("read the content: it is neither text nor base64")]
    Content,
    /// Nobody has this name.
    #[error(transparent)]
    Nobody(Nobody),
    /// A directory is missing.
    #[error("write {path}: the directory {missing} is missing; make it, or send \"parents\": true")]
    NoDirectory {
        /// The path.
        path: PathBuf,
        /// The directory.
        missing: PathBuf,
    },
    /// A link leads nowhere.
    #[error(
        "write {path}: it is a symbolic link to {target}, which is missing; remove the link, or write to where it points"
    )]
    Dangling {
        /// The path.
        path: PathBuf,
        /// Where the link points.
        target: PathBuf,
    },
    /// It is no file.
    #[error("write {path}: it is {kind}, and only regular files are written; name another path")]
    Kind {
        /// The path.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// Something is there.
    #[error(
        "write {path}: \"if_match\" is \"absent\", and a file of {bytes} bytes is there; remove it, or send its digest as \"if_match\""
    )]
    There {
        /// The path.
        path: PathBuf,
        /// Length of what is there.
        bytes: u64,
    },
    /// Nothing is there.
    #[error(
        "write {path}: \"if_match\" is a digest, and no file is there; send \"if_match\": \"absent\" to make it"
    )]
    Missing {
        /// The path.
        path: PathBuf,
    },
    /// Something else is there.
    #[error(
        "write {path}: the file there has {bytes} bytes with the digest {present}, and \"if_match\" is {wanted}; look at it, then send the digest of what is to be replaced"
    )]
    Other {
        /// The path.
        path: PathBuf,
        /// Length of what is there.
        bytes: u64,
        /// Digest of what is there.
        present: Digest,
        /// Digest of what was to be there.
        wanted: Digest,
    },
    /// It would become too long.
    #[error(
        "append to {path}: it would have {bytes} bytes, and files are appended to up to {MAX_REWRITTEN} bytes; rotate it, or append with a shellcommand"
    )]
    TooLong {
        /// The path.
        path: PathBuf,
        /// Length it would have.
        bytes: u64,
    },
    /// Somebody else writes to it all the time.
    #[error(
        "append to {path}: something else changed it each time it was copied; append with a shellcommand, or stop what writes to it"
    )]
    Restless {
        /// The path.
        path: PathBuf,
    },
    /// The very last step failed.
    #[error(
        "make {path} durable: the new content is in place, and may be lost if the power goes now{}; look at the disk, then at the file before sending this again", hint(.source)
    )]
    NotDurable {
        /// The path.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The system refused something.
    #[error("{doing} {path}{}", hint(.source))]
    System {
        /// What was tried.
        doing: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// Returns what to do about an error of the system, as far as that can be said.
fn hint(error: &io::Error) -> &'static str {
    match Errno::from_io_error(error) {
        Some(Errno::ACCESS | Errno::PERM) => {
            " (the agent's user is not allowed to: give it the right, or run the agent as root)"
        }
        Some(Errno::NOSPC | Errno::DQUOT) => " (make room on its file system)",
        Some(Errno::ROFS) => " (its file system is mounted read-only)",
        Some(Errno::BUSY) => {
            " (it is a mount point, which cannot be replaced: write to what is mounted there)"
        }
        _ => "",
    }
}
