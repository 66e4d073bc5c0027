//! The files a station may send: those below its `files/` directory, and nothing that a link leads
//! out of it to. Blocks; callers see to that.

use std::{fs::File, io, path::Path};

use rustix::{
    fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2},
    io::Errno,
};
use steward_files::{Pinned, PinnedError};
use steward_protocol::{
    Body, Message,
    body::SendBody,
    transfer::{Failed, Failure},
};

use crate::view::Problem;

/// The directory of the files that may be sent, in the state directory.
pub const FILES: &str = "files";

/// Opens `source` below `files/` and takes its digest, which takes a while.
pub(super) fn take(state_dir: &Path, source: &str) -> Result<Pinned, Failed> {
    let failed = |error: io::Error| match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NOENT) => Failed::new(
            Failure::Gone,
            format!("there is no file {FILES}/{source} at the station"),
        ),
        Some(Errno::XDEV | Errno::LOOP) => Failed::new(
            Failure::Refused,
            format!("{FILES}/{source} leads out of {FILES}/, and only what is below it is sent"),
        ),
        _ => Failed::new(
            Failure::Storage,
            format!("{FILES}/{source} cannot be read: {error}"),
        ),
    };
    let file = open(state_dir, source).map_err(failed)?;
    Pinned::take(file).map_err(|error| match error {
        PinnedError::Irregular => Failed::new(
            Failure::Refused,
            format!("{FILES}/{source} is not a regular file"),
        ),
        PinnedError::Changed => Failed::new(
            Failure::Changed,
            format!("{FILES}/{source} changed while it was read"),
        ),
        PinnedError::Look(error) | PinnedError::Read(error) => failed(error),
    })
}

/// Reads a part of a file that is being sent.
pub(super) fn read(pinned: &Pinned, offset: u64, length: usize) -> Result<Vec<u8>, Failed> {
    pinned.read(offset, length).map_err(|error| match error {
        PinnedError::Irregular | PinnedError::Changed => Failed::new(
            Failure::Changed,
            "the file changed at the station while it was sent",
        ),
        PinnedError::Look(error) | PinnedError::Read(error) => Failed::new(
            Failure::Storage,
            format!("the file cannot be read at the station: {error}"),
        ),
    })
}

/// Makes the directory of files that may be sent.
///
/// # Errors
///
/// Fails when it cannot be made.
pub fn prepare(state_dir: &Path) -> io::Result<()> {
    std::fs::create_dir_all(state_dir.join(FILES))
}

fn open(state_dir: &Path, source: &str) -> io::Result<File> {
    let directory = OFlags::DIRECTORY | OFlags::CLOEXEC;
    let files = openat(CWD, state_dir.join(FILES), directory, Mode::empty())?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    Ok(File::from(openat2(
        files,
        source,
        flags,
        Mode::empty(),
        resolve,
    )?))
}

/// Writes down, in messages that send a file, what that file is now. From here on another content
/// under its name is another file.
///
/// # Errors
///
/// Names every message whose file cannot be sent, and why.
pub fn pin(state_dir: &Path, messages: &mut [Message]) -> Result<(), Vec<Problem>> {
    let mut problems = Vec::new();
    for (index, message) in messages.iter_mut().enumerate() {
        if let Body::Send(body) = &mut message.body
            && let Err(reason) = pin_one(state_dir, body)
        {
            problems.push(Problem {
                line: None,
                column: None,
                path: format!("/{index}/source"),
                reason,
                hint: Some(format!(
                    "put the file below {}, and name it by its path from there",
                    state_dir.join(FILES).display()
                )),
            });
        }
    }
    match problems.is_empty() {
        true => Ok(()),
        false => Err(problems),
    }
}

fn pin_one(state_dir: &Path, body: &mut SendBody) -> Result<(), String> {
    let pinned = take(state_dir, &body.source).map_err(|failed| failed.reason)?;
    let (bytes, blake3) = (pinned.bytes(), pinned.blake3());
    if body.bytes.is_some_and(|wanted| wanted != bytes)
        || body.blake3.is_some_and(|wanted| wanted != blake3)
    {
        return Err(format!(
            "{FILES}/{} has {bytes} bytes and the digest {blake3}, which is not what the message says",
            body.source
        ));
    }
    body.bytes = Some(bytes);
    body.blake3 = Some(blake3);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use steward_protocol::Digest;

    use super::*;

    #[test]
    fn only_what_is_below_files_is_sent_wherever_links_lead() {
        let state = tempfile::tempdir().expect("a directory");
        let files = state.path().join(FILES);
        fs::create_dir_all(files.join("below")).expect("made");
        fs::write(state.path().join("secret"), b"secret").expect("written");
        fs::write(files.join("below/it"), b"content").expect("written");
        symlink("below/it", files.join("inside")).expect("linked");
        symlink("../secret", files.join("outside")).expect("linked");
        symlink("/etc/passwd", files.join("absolute")).expect("linked");
        symlink("..", files.join("up")).expect("linked");
        for (source, expected) in [
            ("below/it", None),
            ("inside", None),
            ("outside", Some(Failure::Refused)),
            ("absolute", Some(Failure::Refused)),
            ("up/secret", Some(Failure::Refused)),
            ("../secret", Some(Failure::Refused)),
            ("/etc/passwd", Some(Failure::Refused)),
            ("below", Some(Failure::Refused)),
            ("missing", Some(Failure::Gone)),
        ] {
            let taken = take(state.path(), source);
            assert_eq!(taken.err().map(|failed| failed.why), expected, "{source}");
        }
    }

    #[test]
    fn a_message_that_names_another_digest_than_the_file_has_is_refused() {
        let state = tempfile::tempdir().expect("a directory");
        fs::create_dir(state.path().join(FILES)).expect("made");
        fs::write(state.path().join(FILES).join("it"), b"content").expect("written");
        for (blake3, expected) in [
            (None, true),
            (Some(Digest::of(b"content")), true),
            (Some(Digest::of(b"other")), false),
        ] {
            let mut body = SendBody {
                source: "it".to_owned(),
                path: "/target".to_owned(),
                blake3,
                ..SendBody::default()
            };
            let pinned = pin_one(state.path(), &mut body);
            assert_eq!(pinned.is_ok(), expected, "{blake3:?}");
            if expected {
                assert_eq!(body.bytes, Some(7));
                assert_eq!(body.blake3, Some(Digest::of(b"content")));
            }
        }
    }
}
