//! What is known of the files of one input: which there are, how far each was read, and by what it is known again.
//!
//! A *log* is a name that a program writes to; its *parts* are the files that were or are behind that name, oldest
//! first. It reads no files and decides nothing.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet, VecDeque},
    ffi::OsString,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use steward_protocol::logs::{Micros, Reason};

/// Bytes at the beginning of a file by which it is known again: more than a banner has that all files begin with.
pub(super) const HEAD: usize = 1024;

/// Bytes in front of the place up to which a file was read by which that place is known again.
pub(super) const TAIL: usize = 64;

/// Files that were read to their end of which a log remembers that; `logrotate` keeps about as many.
const PAST: usize = 16;

/// Most of them, however quickly files are rotated.
const MAX_PAST: usize = 256;

/// How much older than the newest that was seen a file may be that was not: a listing takes a while, and clocks of file
/// systems are coarse. In nanoseconds.
pub(super) const SLACK: i64 = 100_000_000;

/// Which file it is, for as long as it exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(super) struct Key(pub(super) u64, pub(super) u64);

/// What some bytes are known by: their number and their hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Print(pub(super) u16, pub(super) u64);

impl Print {
    pub(super) fn of(bytes: &[u8]) -> Self {
        Self(
            u16::try_from(bytes.len()).unwrap_or(u16::MAX),
            hash(&[bytes]),
        )
    }

    pub(super) fn length(self) -> usize {
        usize::from(self.0)
    }
}

/// Returns the hash of texts that belong together.
pub(in super::super) fn hash(texts: &[&[u8]]) -> u64 {
    let mut hasher = blake3::Hasher::new();
    for text in texts {
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text);
    }
    let mut first = [0; 8];
    first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    u64::from_le_bytes(first)
}

/// How a file is packed, as its name says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) enum Packing {
    /// Not at all.
    #[default]
    Plain,
    /// By gzip.
    Gz,
    /// By zstd.
    Zst,
    /// In a way that cannot be read here.
    Strange,
}

impl Packing {
    /// Tells how a file is packed, and what it is called without that.
    pub(super) fn of(name: &str) -> (Self, &str) {
        for (ending, packing) in [
            (".gz", Self::Gz),
            (".zst", Self::Zst),
            (".xz", Self::Strange),
            (".bz2", Self::Strange),
            (".lz4", Self::Strange),
            (".Z", Self::Strange),
        ] {
            if let Some(rest) = name.strip_suffix(ending) {
                return (packing, rest);
            }
        }
        (Self::Plain, name)
    }
}

/// How far a file was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Mark {
    /// The first byte that was not.
    pub(super) offset: u64,
    /// What is in front of it.
    pub(super) tail: Print,
}

/// A file behind a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Part {
    /// What it is called here, whatever becomes of its name; not kept.
    #[serde(skip)]
    pub(super) id: u64,
    pub(super) key: Key,
    #[serde(with = "form")]
    pub(super) path: PathBuf,
    #[serde(default)]
    pub(super) packing: Packing,
    /// Its first bytes, as far as they were there.
    pub(super) head: Print,
    /// How far it was read, durably.
    pub(super) done: Mark,
    /// When it was last written to, by its file system, in nanoseconds.
    pub(super) modified: i64,
    /// Its length when it was last looked at; of what it is packed into, if it is.
    pub(super) size: u64,
    /// Whether it was read to its end after its program had left it.
    #[serde(default)]
    pub(super) ended: bool,
    /// How far it was read, durably or not; the rest of the fields is not kept.
    #[serde(skip)]
    pub(super) read: Mark,
    /// How far it was read durably, while that is not to be noted yet.
    #[serde(skip)]
    pub(super) held: Option<Mark>,
    /// How often it was looked for in vain.
    #[serde(skip)]
    pub(super) sought: u8,
    /// Why it cannot be read to its end; it stays until that is told.
    #[serde(skip)]
    pub(super) lost: Option<Reason>,
    /// Whether its content may be another.
    #[serde(skip)]
    pub(super) doubtful: bool,
    /// Whether it was written to without becoming longer than what was read: it may have been truncated.
    #[serde(skip)]
    pub(super) touched: bool,
    /// Whether it has no name any more, and is read because it is still open.
    #[serde(skip)]
    pub(super) unlinked: bool,
    /// Whether its key stands for another file meanwhile.
    #[serde(skip)]
    pub(super) replaced: bool,
}

/// What is remembered of a file that was read to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Past {
    pub(super) head: Print,
    pub(super) end: Mark,
    /// When it was last written to.
    #[serde(default)]
    pub(super) modified: i64,
}

/// A name that a program writes to, and the files behind it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Log {
    /// Oldest first; the last one is the one with the name, if there is one.
    pub(super) parts: VecDeque<Part>,
    #[serde(default)]
    pub(super) past: VecDeque<Past>,
    /// When the newest of them was last written to at the look before the last one: what is newer and not known has not
    /// been read. A listing that is made while files are renamed may lack one; the next has it.
    #[serde(default)]
    pub(super) seen: i64,
    /// When the last portion was received up to which it is noted, in microseconds: what the spool has of later ones is
    /// read again. Never 0 once it was looked at.
    #[serde(default)]
    pub(super) stamp: i64,
    /// Files beside it that have nothing new.
    #[serde(default)]
    pub(super) known: BTreeSet<(Key, u64, i64)>,
    /// Files beside it that may be being made, as they were when they were seen first.
    #[serde(skip)]
    pub(super) young: HashSet<(Key, u64, i64)>,
    /// When the newest part was last written to, at the last look.
    #[serde(skip)]
    pub(super) newest: i64,
    /// Whether its name stands for another file than before, and what is between them was not looked for yet.
    #[serde(skip)]
    pub(super) turned: bool,
}

impl Log {
    /// Has noted what is durable up to a portion.
    pub(super) fn let_go(&mut self, stamp: Micros) {
        for part in &mut self.parts {
            if let Some(mark) = part.held.take() {
                part.done = mark;
            }
        }
        self.stamp = stamp.0;
    }

    /// Remembers that a file was read to its end: some of them, and all that may be taken for new.
    pub(super) fn leave(&mut self, part: &Part) {
        if part.head.length() == 0 {
            return;
        }
        let is_old = |past: &Past| past.modified < self.seen.saturating_sub(SLACK);
        while self.past.len() >= MAX_PAST
            || (self.past.len() >= PAST && self.past.front().is_some_and(is_old))
        {
            self.past.pop_front();
        }
        self.past.push_back(Past {
            head: part.head,
            end: part.done,
            modified: part.modified,
        });
    }
}

/// All files of an input.
#[derive(Debug, Clone, Default)]
pub(super) struct Book {
    pub(super) logs: BTreeMap<PathBuf, Log>,
    /// When the last portion was received that is durable: what the spool has of later ones was not noted any more.
    pub(super) stamp: Micros,
    ids: u64,
}

impl Book {
    /// Returns a part that nothing is known of but its place.
    pub(super) fn part(&mut self, key: Key, path: &Path) -> Part {
        let name = path.to_string_lossy();
        Part {
            id: self.id(),
            key,
            path: path.to_owned(),
            packing: Packing::of(&name).0,
            head: Print::default(),
            done: Mark::default(),
            modified: 0,
            size: 0,
            ended: false,
            read: Mark::default(),
            held: None,
            sought: 0,
            lost: None,
            doubtful: false,
            touched: false,
            unlinked: false,
            replaced: false,
        }
    }

    /// Returns a number that no part has had.
    pub(super) fn id(&mut self) -> u64 {
        self.ids += 1;
        self.ids
    }

    /// Takes a log as it was noted: what was read then is to be looked at again.
    pub(super) fn restore(&mut self, name: PathBuf, mut log: Log) {
        if log.stamp == 0 {
            log.stamp = self.stamp.0;
        }
        for part in &mut log.parts {
            part.id = self.id();
            part.read = part.done;
            part.doubtful = true;
        }
        self.logs.insert(name, log);
    }

    /// Returns how many files there are.
    pub(super) fn len(&self) -> usize {
        self.logs.values().map(|log| log.parts.len()).sum()
    }

    /// Returns how many bytes are there that are not durably read.
    pub(super) fn behind(&self) -> u64 {
        let parts = self.logs.values().flat_map(|log| &log.parts);
        parts
            .filter(|part| part.packing == Packing::Plain && part.lost.is_none())
            .map(|part| part.size.saturating_sub(part.done.offset))
            .sum()
    }

    /// Returns a part by its log and number.
    pub(super) fn find(&mut self, name: &Path, id: u64) -> Option<&mut Part> {
        let log = self.logs.get_mut(name)?;
        log.parts.iter_mut().find(|part| part.id == id)
    }
}

/// Names as text, or as bytes if they are none.
pub(super) mod form {
    use super::{
        Deserialize, Deserializer, OsStrExt, OsString, OsStringExt, Path, PathBuf, Serialize,
        Serializer,
    };

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Form {
        Text(String),
        Bytes(Vec<u8>),
    }

    pub(in super::super) fn serialize<S: Serializer>(
        path: &Path,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match path.to_str() {
            Some(text) => text.serialize(serializer),
            None => path.as_os_str().as_bytes().serialize(serializer),
        }
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<PathBuf, D::Error> {
        Ok(match Form::deserialize(deserializer)? {
            Form::Text(text) => text.into(),
            Form::Bytes(bytes) => OsString::from_vec(bytes).into(),
        })
    }
}
