//! The files beside a log that it was before: `app.log.1`, `app.log-20261121`, in the order they were written.
//!
//! Knows names and times, no content.

use std::{
    cmp::Reverse,
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use super::generation::Identity;

/// Ends of names of files that hold something else, or the same in another form.
const OTHER: [&str; 12] = [
    ".gz", ".xz", ".bz2", ".zst", ".lz4", ".Z", ".zip", ".swp", ".tmp", ".part", ".lock", "~",
];

/// Most files beside a log that are looked at; more is no log directory.
const MAX_SIBLINGS: usize = 4096;

/// A file beside a log.
#[derive(Debug, Clone)]
pub(super) struct Sibling {
    /// Where it is.
    pub(super) path: PathBuf,
    /// Which file it is.
    pub(super) identity: Identity,
    /// When it was written, what number it has, and when it was made: the order of generations.
    pub(super) age: Age,
}

/// Sorts generations: the oldest first. Times may be equal within a tick of the clock; higher numbers are older.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Age {
    written: Option<SystemTime>,
    number: Reverse<u64>,
    born: Option<SystemTime>,
}

/// Returns the files that may have been the log at `path`, the oldest first. The log itself is not among
/// them, unless it is renamed just now.
pub(super) fn list(path: &Path) -> io::Result<Vec<Sibling>> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Ok(Vec::new());
    };
    let name = name.to_string_lossy();
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)?.take(MAX_SIBLINGS) {
        let entry = entry?;
        let other = entry.file_name();
        let Some(number) = number(&name, &other.to_string_lossy()) else {
            continue;
        };
        // It may be gone by now.
        let Ok(metadata) = entry.metadata() else {
            continue;
        };
        if metadata.is_file() {
            found.push(Sibling {
                path: entry.path(),
                identity: Identity::from(&metadata),
                age: Age {
                    written: metadata.modified().ok(),
                    number: Reverse(number),
                    born: metadata.created().ok(),
                },
            });
        }
    }
    found.sort_by_key(|sibling| sibling.age);
    Ok(found)
}

/// Returns the identities of all of them.
pub(super) fn identities(path: &Path) -> io::Result<BTreeSet<Identity>> {
    Ok(list(path)?.iter().map(|one| one.identity).collect())
}

/// Returns the number in the name of an earlier generation of the log called `name`; none if it is none.
fn number(name: &str, other: &str) -> Option<u64> {
    let rest = other.strip_prefix(name)?.strip_prefix(['.', '-'])?;
    if rest.is_empty() || OTHER.iter().any(|end| other.ends_with(end)) {
        return None;
    }
    // A date is no count of rotations, and is told by the time.
    let digits = rest.len() <= 4 && rest.bytes().all(|byte| byte.is_ascii_digit());
    Some(if digits { rest.parse().unwrap_or(0) } else { 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_log_was_before_is_told_from_other_files_by_its_name() {
        for (other, expected) in [
            ("app.log.1", Some(1)),
            ("app.log.12", Some(12)),
            ("app.log-20261121", Some(0)),
            ("app.log.old", Some(0)),
            ("app.log", None),
            ("app.log.", None),
            ("app.log2", None),
            ("app.log.1.gz", None),
            ("app.log.swp", None),
            ("app.log~", None),
            ("other.log.1", None),
        ] {
            assert_eq!(number("app.log", other), expected, "{other}");
        }
    }
}
