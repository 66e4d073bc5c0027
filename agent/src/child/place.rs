//! One command's directory: what is in it, and how it is written and read.
//!
//! Knows neither the command nor who waits for it. What is there says all: `spec.json` before the
//! start, `output` while it runs, `end.json` once it is over, written so that it is there whole or
//! not at all.

use std::{
    fs::{self, DirBuilder, File},
    io::{self, Write},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use serde::{Serialize, de::DeserializeOwned};

use super::{End, Spec};

/// What to run.
const SPEC: &str = "spec.json";

/// What the name of a directory ends with until what is to run stands in it.
const UNFINISHED: &str = ".new";
/// How it ended.
const END: &str = "end.json";
/// The same while it is written.
const END_NEW: &str = "end.new";
/// What it wrote.
const OUTPUT: &str = "output";
/// How much of that is somebody else's care by now.
const RELEASED: &str = "released";
/// What the warden could not tell in any other way.
const TROUBLE: &str = "trouble";

/// Only the agent's user sees what commands are given and write.
const PRIVATE: u32 = 0o700;

/// Why a directory could not be used.
#[derive(Debug, thiserror::Error)]
#[error("{doing} {path}", path = .path.display())]
pub struct PlaceError {
    /// What was tried.
    pub doing: &'static str,
    /// With which file.
    pub path: PathBuf,
    /// Why not.
    #[source]
    pub source: io::Error,
}

impl PlaceError {
    /// Tells whether something is there already; that does not change by waiting.
    pub fn is_taken(&self) -> bool {
        self.source.kind() == io::ErrorKind::AlreadyExists
    }

    /// Tells whether the node ran out of something other than room.
    pub fn is_shortage(&self) -> bool {
        super::is_shortage(&self.source)
    }
}

/// One command's directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    dir: PathBuf,
}

impl Place {
    /// Names a directory; nothing is looked at.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// Returns its path.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Returns the path of what the command wrote.
    pub(super) fn output(&self) -> PathBuf {
        self.dir.join(OUTPUT)
    }

    /// Returns the path of the number that says how much of it was released.
    pub(super) fn released(&self) -> PathBuf {
        self.dir.join(RELEASED)
    }

    /// Makes the directory and says in it what is to run. One that is there already is not used again.
    ///
    /// It is made beside its place and renamed: where that fails half-way, as on a full disk, it can be done again.
    ///
    /// # Errors
    ///
    /// Fails when it exists or cannot be written.
    pub fn create(&self, spec: &Spec) -> Result<(), PlaceError> {
        if fs::symlink_metadata(&self.dir).is_ok() {
            let source = io::ErrorKind::AlreadyExists.into();
            return Err(failed("make the directory", &self.dir)(source));
        }
        let mut new = self.dir.clone().into_os_string();
        new.push(UNFINISHED);
        let new = PathBuf::from(new);
        let mut builder = DirBuilder::new();
        // What is left there is ours, and nobody was ever told of it.
        builder.mode(PRIVATE).recursive(true);
        builder
            .create(&new)
            .map_err(failed("make the directory", &new))?;
        // Not durable: a command does not outlive the power, and its order is in the journal.
        let path = new.join(SPEC);
        let written = json(spec)
            .and_then(|text| fs::write(&path, text))
            .map_err(failed("write", &path));
        let moved = written.and_then(|()| {
            let rename = fs::rename(&new, &self.dir);
            rename.map_err(failed("rename to", &self.dir))
        });
        if moved.is_err() {
            // Of no use like that. Without descriptors it cannot be listed.
            fs::remove_file(&path).ok();
            fs::remove_dir(&new).ok();
        }
        moved
    }

    /// Reads what is to run, and removes it: what a command is given may be secret, and is not needed
    /// again.
    ///
    /// # Errors
    ///
    /// Fails when it is not there or not what this version writes.
    pub(super) fn take_spec(&self) -> Result<Spec, PlaceError> {
        let path = self.dir.join(SPEC);
        let spec = read(&path)?.ok_or_else(|| PlaceError {
            doing: "find",
            path: path.clone(),
            source: io::ErrorKind::NotFound.into(),
        })?;
        fs::remove_file(&path).map_err(failed("remove", &path))?;
        Ok(spec)
    }

    /// Reads how the command ended, if it has.
    ///
    /// # Errors
    ///
    /// Fails when the file is there and cannot be read.
    pub fn end(&self) -> Result<Option<End>, PlaceError> {
        read(&self.dir.join(END))
    }

    /// Writes how the command ended: durable when this returns.
    ///
    /// # Errors
    ///
    /// Fails when it cannot be written; nothing is there then.
    pub fn write_end(&self, end: &End) -> Result<(), PlaceError> {
        let (new, path) = (self.dir.join(END_NEW), self.dir.join(END));
        let text = json(end).map_err(failed("write", &new))?;
        let mut file = File::create(&new).map_err(failed("create", &new))?;
        file.write_all(&text).map_err(failed("write", &new))?;
        fs::rename(&new, &path).map_err(failed("rename to", &path))?;
        // Once, and after the rename: a journaling file system commits a file's name with the file, so
        // this makes both durable at half the cost. Torn by the loss of power, it is read as no end.
        file.sync_all().map_err(failed("sync", &path))
    }

    /// Lets what the command wrote go, so that there is room.
    pub(super) fn drop_output(&self) {
        if let Ok(file) = File::options().write(true).open(self.output()) {
            file.set_len(0).ok();
        }
    }

    /// Leaves words behind for whoever finds no end here. Best effort: what stopped the warden may
    /// stop this too.
    pub(super) fn lament(&self, words: &str) {
        fs::write(self.dir.join(TROUBLE), words).ok();
    }

    /// Returns the words left behind.
    pub(super) fn trouble(&self) -> Option<String> {
        fs::read_to_string(self.dir.join(TROUBLE)).ok()
    }

    /// Removes the directory and everything in it.
    ///
    /// # Errors
    ///
    /// Fails when something of it stays.
    pub fn remove(&self) -> Result<(), PlaceError> {
        match fs::remove_dir_all(&self.dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(failed("remove", &self.dir)(error))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> PlaceError {
    let path = path.to_owned();
    move |source| PlaceError {
        doing,
        path,
        source,
    }
}

fn json(value: &impl Serialize) -> io::Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(io::Error::from)
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, PlaceError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed("read", path)(error)),
    };
    let value = serde_json::from_slice(&bytes).map_err(io::Error::from);
    value.map(Some).map_err(failed("understand", path))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn spec() -> Spec {
        let value = json!({
            "argv": ["true"],
            "insist": "best_effort",
            "timeout": {"secs": 1, "nanos": 0},
            "grace": {"secs": 1, "nanos": 0},
            "cap": 1,
            "following": "nobody",
            "node": "ship1",
            "message_id": "01a1fffb-a633-759a-b75a-f19d1e0d0785",
            "attempt": 1,
            "success_codes": [0],
        });
        serde_json::from_value(value).expect("a spec")
    }

    #[test]
    fn a_directory_that_could_not_be_made_whole_can_be_made_again_and_a_whole_one_not() {
        let dir = tempfile::tempdir().expect("a directory");
        let place = Place::new(dir.path().join("one"));
        // As a disk that takes neither what is written nor that it is removed.
        let in_the_way = dir.path().join("one.new").join(SPEC).join("in-the-way");
        fs::create_dir_all(&in_the_way).expect("a directory");
        let failed = place.create(&spec()).expect_err("it cannot be written");
        assert!(!failed.is_taken(), "{failed}");
        assert!(!place.dir().exists());
        fs::remove_dir_all(dir.path().join("one.new").join(SPEC)).expect("it is removed");
        place.create(&spec()).expect("it is made");
        assert_eq!(place.take_spec().expect("it is there"), spec());
        // Empty by now, and somebody may be at work in it.
        let failed = place.create(&spec()).expect_err("it is there");
        assert!(failed.is_taken(), "{failed}");
    }
}
