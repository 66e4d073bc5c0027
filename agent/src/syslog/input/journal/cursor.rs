//! Where reading a journal had come to: the text that the journal gives each entry, and the file that keeps one.

use std::{
    fs::{self, DirBuilder, File},
    io::{self, ErrorKind},
    os::{fd::AsFd, unix::fs::DirBuilderExt},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use steward_files::Spot;
use steward_protocol::logs::Micros;

/// The directory of these files in that of logs.
const DIR: &str = "journal";

/// A place in a journal, as the journal names it: `s=…;i=…;b=…;m=…;t=…;x=…`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Cursor(String);

impl Cursor {
    /// Reads what stands in an entry.
    pub(super) fn new(bytes: &[u8]) -> Option<Self> {
        let text = str::from_utf8(bytes).ok()?;
        let is_one = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        is_one.then(|| Self(text.to_owned()))
    }

    /// Returns it as the journal writes it.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    fn part(&self, name: &str) -> Option<&str> {
        let mut parts = self.0.split(';').filter_map(|part| part.split_once('='));
        Some(parts.find(|(key, _)| *key == name)?.1)
    }

    /// Tells whether both are the same entry. One that was copied from the journal in memory to the one on the disk has
    /// another number there, in another numbering; boot, times and content are what they were.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let is_alike = |name| self.part(name) == other.part(name);
        let is_numbered_alike = !is_alike("s") || is_alike("i");
        self.0 == other.0
            || (["b", "m", "t", "x"].into_iter().all(is_alike)
                && self.part("x").is_some()
                && is_numbered_alike)
    }

    /// Returns when the journal took the entry.
    pub(super) fn at(&self) -> Option<Micros> {
        i64::from_str_radix(self.part("t")?, 16).ok().map(Micros)
    }

    /// Returns how many entries are missing between this one and a later one, where the journal numbered both.
    pub(super) fn missing_before(&self, later: &Self) -> Option<u64> {
        let number = |one: &Self| u64::from_str_radix(one.part("i")?, 16).ok();
        let missing = number(later)?.checked_sub(number(self)?)?.checked_sub(1)?;
        (self.part("s") == later.part("s")).then_some(missing)
    }
}

/// What a file says.
#[derive(Debug, Serialize, Deserialize)]
struct Content {
    /// The input, for people.
    input: String,
    #[serde(flatten)]
    place: Place,
}

/// How far a journal was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    /// The last entry that was read.
    pub(super) cursor: Cursor,
    /// When the portion was received that it came with; no other was received at that time.
    #[serde(default)]
    pub(super) stamp: Micros,
}

/// What was found in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kept {
    /// There is none: nothing was read yet.
    Nothing,
    /// Reading had come so far.
    Place(Place),
    /// It says nothing that can be read.
    Damaged,
}

/// The file that keeps the place of one input.
#[derive(Debug, Clone)]
pub(super) struct Keeper {
    dir: PathBuf,
    name: String,
    input: String,
}

impl Keeper {
    /// Returns the one of an input; its file is in the directory of logs.
    pub(super) fn new(dir: &Path, input: &str) -> Self {
        let mut name = blake3::hash(input.as_bytes()).to_hex().to_string();
        name.truncate(16);
        Self {
            dir: dir.join(DIR),
            name,
            input: input.to_owned(),
        }
    }

    /// Reads it.
    ///
    /// # Errors
    ///
    /// Fails when the disk does.
    pub(super) fn read(&self) -> io::Result<Kept> {
        match fs::read(self.dir.join(&self.name)) {
            Ok(bytes) => Ok(serde_json::from_slice::<Content>(&bytes)
                .map_or(Kept::Damaged, |content| Kept::Place(content.place))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Kept::Nothing),
            Err(error) => Err(error),
        }
    }

    /// Writes it, durably.
    ///
    /// # Errors
    ///
    /// Fails when the disk does; then what was there before is there.
    pub(super) fn write(&self, place: &Place) -> io::Result<()> {
        if !self.dir.is_dir() {
            DirBuilder::new().mode(0o700).create(&self.dir)?;
            let parent = self.dir.parent().unwrap_or(&self.dir);
            steward_files::sync_directory(parent)?;
        }
        let content = Content {
            input: self.input.clone(),
            place: place.clone(),
        };
        let content = serde_json::to_vec(&content)?;
        let directory = File::open(&self.dir)?;
        let beside = format!("{}.new", self.name);
        let spot = Spot {
            directory: directory.as_fd(),
            name: self.name.as_ref(),
            beside: beside.as_ref(),
        };
        spot.replace(&content, 0o600)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "s=8dca;i=14;b=5c9d;m=f8c78;t=660c4bf532a38;x=168271e9489aefe3";

    fn cursor(text: &str) -> Cursor {
        Cursor::new(text.as_bytes()).expect("a cursor")
    }

    #[test]
    fn an_entry_is_the_same_where_it_was_copied_and_no_other() {
        let one = cursor(ONE);
        for (other, is_same) in [
            (ONE.to_owned(), true),
            (ONE.replace("s=8dca;i=14", "s=1111;i=2"), true),
            (ONE.replace("i=14", "i=15"), false),
            (ONE.replace("x=168271e9489aefe3", "x=0"), false),
            (ONE.replace("t=660c4bf532a38", "t=660c4bf532a39"), false),
            (ONE.replace("b=5c9d", "b=5c9e"), false),
            ("something else".replace(' ', "_"), false),
        ] {
            assert_eq!(one.is_same(&cursor(&other)), is_same, "{other}");
        }
        assert!(cursor("odd").is_same(&cursor("odd")));
        assert!(!cursor("odd").is_same(&cursor("even")));
    }

    #[test]
    fn a_cursor_tells_its_time_and_how_many_are_missing_behind_it() {
        let one = cursor(ONE);
        assert_eq!(one.at(), Some(Micros(1_795_248_000_019_000)));
        for (later, missing) in [
            (ONE.replace("i=14", "i=15"), Some(0)),
            (ONE.replace("i=14", "i=33"), Some(30)),
            (ONE.replace("i=14", "i=13"), None),
            (ONE.replace("s=8dca;i=14", "s=1111;i=33"), None),
        ] {
            assert_eq!(one.missing_before(&cursor(&later)), missing, "{later}");
        }
        for odd in [&b""[..], b"a b", b"\xff"] {
            assert_eq!(Cursor::new(odd), None);
        }
    }

    #[test]
    fn a_place_is_kept_and_a_damaged_file_is_none() {
        let dir = tempfile::tempdir().expect("a directory");
        let keeper = Keeper::new(dir.path(), "journal:");
        assert_eq!(keeper.read().expect("readable"), Kept::Nothing);
        for text in [ONE, "another"] {
            let place = Place {
                cursor: cursor(text),
                stamp: Micros(7),
            };
            keeper.write(&place).expect("written");
            assert_eq!(keeper.read().expect("readable"), Kept::Place(place));
        }
        let other = Keeper::new(dir.path(), "journal:///var/log/journal");
        assert_eq!(other.read().expect("readable"), Kept::Nothing);
        fs::write(dir.path().join(DIR).join(&keeper.name), "{").expect("written");
        assert_eq!(keeper.read().expect("readable"), Kept::Damaged);
    }
}
