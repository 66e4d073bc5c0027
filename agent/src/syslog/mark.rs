//! A file that is there while sockets are open: found at a start, it says that the start before did not end in order.
//!
//! Its time says up to when all that was received is durable for certain.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use jiff::Timestamp;
use steward_protocol::logs::Micros;

/// Its name in the directory of logs.
const NAME: &str = "running";

/// How often its time is set, and so how much too far back a gap may reach.
pub(super) const INTERVAL: Duration = Duration::from_secs(5);

/// How long a message may be on its way from its socket to the spool's queue, which needs milliseconds.
const ON_THE_WAY: Duration = Duration::from_secs(2);

/// How the start before this one ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Before {
    /// In order, or there was none.
    Ended,
    /// It was cut off; what had been received until then was durable.
    CutOff(Micros),
}

/// Puts the mark there, durably, and says whether it already was.
///
/// # Errors
///
/// Fails when the disk does.
pub(super) fn begin(dir: &Path) -> io::Result<Before> {
    let before = match fs::metadata(path(dir)) {
        Ok(found) => {
            let since = found.modified()?;
            let since = Timestamp::try_from(since).unwrap_or(Timestamp::UNIX_EPOCH);
            Before::CutOff(since.into())
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Before::Ended,
        Err(error) => return Err(error),
    };
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path(dir))?;
    file.set_modified(SystemTime::now())?;
    file.sync_all()?;
    File::open(dir)?.sync_all()?;
    Ok(before)
}

/// Notes that everything is durable that was handed to the spool before `at`. It need not be durable itself: an earlier time
/// makes the gap wider, not wrong.
///
/// # Errors
///
/// Fails when the disk does.
pub(super) fn settle(dir: &Path, at: SystemTime) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(path(dir))?;
    file.set_modified(at.checked_sub(ON_THE_WAY).unwrap_or(at))
}

/// Takes the mark away: everything that was read is durable.
///
/// # Errors
///
/// Fails when the disk does.
pub(super) fn end(dir: &Path) -> io::Result<()> {
    fs::remove_file(path(dir))?;
    File::open(dir)?.sync_all()
}

fn path(dir: &Path) -> PathBuf {
    dir.join(NAME)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_says_until_when_all_was_durable() {
        let dir = tempfile::tempdir().expect("a directory");
        begin(dir.path()).expect("a mark");
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        settle(dir.path(), at).expect("a time");
        let since = Micros(999_998_000_000);
        assert_eq!(begin(dir.path()).expect("a mark"), Before::CutOff(since));
    }

    #[test]
    fn only_a_start_that_was_cut_off_leaves_the_mark() {
        let dir = tempfile::tempdir().expect("a directory");
        assert_eq!(begin(dir.path()).expect("a mark"), Before::Ended);
        assert!(matches!(begin(dir.path()), Ok(Before::CutOff(since)) if since.0 > 0));
        end(dir.path()).expect("the mark goes");
        assert_eq!(begin(dir.path()).expect("a mark"), Before::Ended);
    }
}
