//! A file that is there while stream inputs are open: found at a start, it says that the start before did not end in order.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use steward_protocol::logs::Micros;

/// Its name in the directory of logs.
const NAME: &str = "running";

/// How the start before this one ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Before {
    /// In order, or there was none.
    Ended,
    /// It was cut off; it had begun then.
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
    file.set_modified(std::time::SystemTime::now())?;
    file.sync_all()?;
    File::open(dir)?.sync_all()?;
    Ok(before)
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
    fn only_a_start_that_was_cut_off_leaves_the_mark() {
        let dir = tempfile::tempdir().expect("a directory");
        assert_eq!(begin(dir.path()).expect("a mark"), Before::Ended);
        assert!(matches!(begin(dir.path()), Ok(Before::CutOff(since)) if since.0 > 0));
        end(dir.path()).expect("the mark goes");
        assert_eq!(begin(dir.path()).expect("a mark"), Before::Ended);
    }
}
