//! Where a fetched file goes below `results/`: one plain name below another. Blocks.

use std::{io, path::Path};

use steward_protocol::{NodeName, Reply};

use crate::results::place::{self as results, PlaceError};

/// The directory of fetched files of which nothing else was said.
const DIRECTORY: &str = "files";

/// Longest name of a file.
const MAX_NAME: usize = 255;

/// Where a fetched file goes: the names of the directories below `results/`, and of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    directories: Vec<String>,
    name: String,
}

impl Place {
    /// Returns where the file at `path` of a node goes. Nothing if its name cannot be used here.
    pub(super) fn of(path: &str, reply: Option<&Reply>, node: &NodeName) -> Option<Self> {
        let directory = reply
            .and_then(|reply| reply.directory.as_deref())
            .unwrap_or(DIRECTORY);
        let base = path.rsplit('/').next().unwrap_or_default();
        let name = reply
            .and_then(|reply| reply.file_name.as_deref())
            .unwrap_or(base);
        let mut names: Vec<String> = directory.split('/').map(str::to_owned).collect();
        names.push(node.to_string());
        names.extend(name.split('/').map(str::to_owned));
        if !names.iter().all(|name| is_plain(name)) {
            return None;
        }
        let name = names.pop()?;
        Some(Self {
            directories: names,
            name,
        })
    }

    /// Returns it as a path below `results/`.
    pub(super) fn shown(&self) -> String {
        format!("{}/{}", self.directories.join("/"), self.name)
    }

    /// Puts the complete file `from` there. Durable when this returns.
    pub(super) fn put(&self, state_dir: &Path, from: &Path) -> io::Result<()> {
        let below = results::Place::below(&results::root(state_dir), &self.shown());
        let put = below.and_then(|place| place.put(from));
        put.map_err(|error| match error {
            PlaceError::Io { source, .. } => source,
            other => io::Error::other(other),
        })
    }
}

/// Tells whether a name is one, and not a way.
fn is_plain(name: &str) -> bool {
    !name.is_empty()
        && name != "."
        && name != ".."
        && name.len() <= MAX_NAME
        && !name.contains(|character: char| character == '/' || character.is_control())
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use steward_protocol::message::ReplyTo;

    use super::*;

    fn node() -> NodeName {
        "ship1".parse().expect("a name")
    }

    fn reply(directory: Option<&str>, file_name: Option<&str>) -> Reply {
        Reply {
            to: ReplyTo::File,
            directory: directory.map(str::to_owned),
            file_name: file_name.map(str::to_owned),
        }
    }

    #[test]
    fn a_place_is_below_results_or_nowhere() {
        for (path, directory, name, expected) in [
            ("/var/log/syslog", None, None, Some("files/ship1/syslog")),
            (
                "/var/log/syslog",
                Some("logs/all"),
                Some("today"),
                Some("logs/all/ship1/today"),
            ),
            ("/var/log/syslog", Some("../up"), None, None),
            ("/var/log/syslog", Some("/etc"), None, None),
            ("/var/log/syslog", None, Some("../../x"), None),
            ("/var/log/..", None, None, None),
            ("/var/log/", None, None, None),
            ("/var/log/a\nb", None, None, None),
        ] {
            let place = Place::of(path, Some(&reply(directory, name)), &node());
            let shown = place.map(|place| place.shown());
            assert_eq!(shown.as_deref(), expected, "{path} {directory:?} {name:?}");
        }
    }

    #[test]
    fn no_link_leads_out_of_results() {
        let state = tempfile::tempdir().expect("a directory");
        let outside = tempfile::tempdir().expect("a directory");
        let from = state.path().join("part");
        let place = Place::of("/a/it", None, &node()).expect("a place");
        fs::write(&from, b"one").expect("written");
        place.put(state.path(), &from).expect("put");
        let there = state.path().join("results/files/ship1/it");
        assert_eq!(fs::read(&there).expect("there"), b"one");
        // The file is a link: it is replaced.
        let secret = outside.path().join("secret");
        fs::write(&secret, b"secret").expect("written");
        fs::remove_file(&there).expect("removed");
        symlink(&secret, &there).expect("linked");
        fs::write(&from, b"two").expect("written");
        place.put(state.path(), &from).expect("put");
        assert_eq!(fs::read(&secret).expect("there"), b"secret");
        assert_eq!(fs::read(&there).expect("there"), b"two");
        // A directory on the way is a link: nothing is put there.
        fs::remove_dir_all(state.path().join("results/files")).expect("removed");
        symlink(outside.path(), state.path().join("results/files")).expect("linked");
        fs::write(&from, b"three").expect("written");
        assert!(place.put(state.path(), &from).is_err());
        assert!(!outside.path().join("ship1").exists());
    }
}
