//! The inbox on disk: its folders, safe opening, and moves from one folder to the next.
//!
//! Everything here blocks. It knows where files belong and how to move them without losing one; when
//! to move which is decided elsewhere.

use std::{
    ffi::OsStr,
    fs::{self, DirBuilder, Metadata, OpenOptions},
    io::{self, Read},
    os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use jiff::{Timestamp, tz::TimeZone};
use rustix::fs::{CWD, OFlags, RenameFlags, renameat_with};
use serde_json::{Value, json};
use steward_files::sync_directory;
use uuid::Uuid;

use super::{intake::MAX_FILE, names::Claimed, report, settle::Look};
use crate::view::{Problem, Receipt};

/// What opening a file in the inbox gave.
pub(super) enum Opened {
    /// A regular file that fits; the uid of its owner, its content, and what it looks like.
    Regular {
        uid: u32,
        bytes: Vec<u8>,
        look: Look,
    },
    /// Something that is never read, and why.
    Never(String),
}

/// The inbox's folders.
#[derive(Debug, Clone)]
pub(super) struct Folder {
    root: PathBuf,
}

impl Folder {
    pub(super) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// Creates what is missing of the folders. What exists keeps its permissions.
    pub(super) fn create(&self) -> io::Result<()> {
        for path in [
            self.root.clone(),
            self.processing(),
            self.root.join(".done"),
            self.rejected(),
        ] {
            // Whoever can write here can give orders, so nobody else can unless an admin allows it.
            DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        }
        Ok(())
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn processing(&self) -> PathBuf {
        self.root.join(".processing")
    }

    pub(super) fn done(&self) -> PathBuf {
        self.root.join(".done")
    }

    pub(super) fn rejected(&self) -> PathBuf {
        self.root.join(".rejected")
    }

    /// Returns what tells this folder from another one put in its place.
    pub(super) fn identity(&self) -> Option<(u64, u64)> {
        let metadata = fs::metadata(&self.root).ok()?;
        Some((metadata.dev(), metadata.ino()))
    }

    pub(super) fn claimed_path(&self, claimed: &Claimed) -> PathBuf {
        self.processing().join(claimed.to_string())
    }

    /// Moves a file from the inbox into `.processing`. Not durable until [`Self::sync_claims`].
    pub(super) fn claim(&self, name: &OsStr, claimed: &Claimed) -> io::Result<()> {
        fs::rename(self.root.join(name), self.claimed_path(claimed))
    }

    /// Makes claims durable. After a power cut a claim must not lie in the inbox again under its old
    /// name: it would be a new request.
    pub(super) fn sync_claims(&self) -> io::Result<()> {
        sync_directory(&self.processing())?;
        sync_directory(&self.root)
    }

    /// Moves a claimed file back, unless its name has been taken again.
    pub(super) fn put_back(&self, claimed: &Claimed, name: &OsStr) -> io::Result<()> {
        rename_new(&self.claimed_path(claimed), &self.root.join(name))
    }

    /// Moves an accepted file to `.done` and says beside it what it became.
    ///
    /// Not made durable: after a power cut the file is claimed still, and submitting it again under
    /// the same intake gives the same receipt. It is filed under the day of its claim, so that a
    /// second try after midnight finds the note of the first.
    pub(super) fn finish_done(
        &self,
        claimed: &Claimed,
        receipt: &Receipt,
        at: Timestamp,
    ) -> io::Result<()> {
        let day = claimed_at(claimed).unwrap_or(at);
        let date = day.to_zoned(TimeZone::UTC).date().to_string();
        let folder = self.done().join(date);
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)?;
        let see = match receipt.messages.as_slice() {
            [line] => format!("steward msg show {}", line.id),
            _ => "steward msg show ID".to_owned(),
        };
        let status = json!({
            "file": claimed.name,
            "accepted_at": at,
            "messages": receipt.messages,
            "see": see,
        });
        let path = folder.join(claimed.to_string());
        fs::write(with_ending(&path, ".status.json"), format!("{status:#}\n"))?;
        fs::rename(self.claimed_path(claimed), path)
    }

    /// Moves a refused file to `.rejected` and says beside it why, for people and for programs.
    pub(super) fn finish_rejected(
        &self,
        claimed: &Claimed,
        bytes: Option<&[u8]>,
        problems: &[Problem],
    ) -> io::Result<PathBuf> {
        match self.reject_as(&claimed.name, claimed, bytes, problems) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.reject_as(&claimed.to_string(), claimed, bytes, problems)
            }
            result => result,
        }
    }

    fn reject_as(
        &self,
        name: &str,
        claimed: &Claimed,
        bytes: Option<&[u8]>,
        problems: &[Problem],
    ) -> io::Result<PathBuf> {
        let path = self.rejected().join(name);
        let text = format!(
            "Rejected, nothing of it was run. Correct the file and drop it into the inbox again.\n\n{}",
            report::render(&claimed.name, bytes, problems)
        );
        let json = json!({ "file": claimed.name, "intake": claimed.intake, "problems": problems });
        let [json_path, text_path] = [JSON_NOTE, TEXT_NOTE].map(|end| with_ending(&path, end));
        // A try of the same intake that was cut short left what it had placed.
        let resumed = intake_of(&json_path) == Some(claimed.intake);
        // A file that merely has the name of a note has notes of its own.
        let text_is_ours = resumed && intake_of(&with_ending(&text_path, JSON_NOTE)).is_none();
        let notes = [
            (json_path, format!("{json:#}\n"), resumed),
            (text_path, text, text_is_ours),
        ];
        let mut placed = Vec::new();
        // The notes go first: the file must never lie there without them.
        let result = notes
            .into_iter()
            .try_for_each(|(note, text, is_ours)| {
                let draft = self.rejected().join(format!(".{}.note", claimed.intake));
                fs::write(&draft, text)?;
                let moved = if is_ours {
                    fs::rename(&draft, &note)
                } else {
                    rename_new(&draft, &note)
                };
                placed.push(if moved.is_ok() { note } else { draft });
                moved
            })
            .and_then(|()| rename_new(&self.claimed_path(claimed), &path));
        if let Err(error) = result {
            for note in placed {
                // What stays is known by its intake and used by the next try.
                drop(fs::remove_file(note));
            }
            return Err(error);
        }
        Ok(path)
    }
}

/// Returns when a file was claimed, as the version 7 UUID of its intake says.
fn claimed_at(claimed: &Claimed) -> Option<Timestamp> {
    let (seconds, nanoseconds) = claimed.intake.get_timestamp()?.to_unix();
    let nanoseconds = i32::try_from(nanoseconds).ok()?;
    Timestamp::new(i64::try_from(seconds).ok()?, nanoseconds).ok()
}

/// Returns the intake that a note for programs names: whose it is.
fn intake_of(note: &Path) -> Option<Uuid> {
    let Ok(Opened::Regular { bytes, .. }) = open(note, Durability::None) else {
        return None;
    };
    let note: Value = serde_json::from_slice(&bytes).ok()?;
    note.get("intake")?.as_str()?.parse().ok()
}

/// Returns `path` with `ending` after its whole name.
pub(super) fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(ending);
    path.into()
}

/// Ending of the note beside a refused file that programs read.
pub(super) const JSON_NOTE: &str = ".error.json";

/// Ending of the note beside a refused file that people read.
const TEXT_NOTE: &str = ".error.txt";

/// Endings of the notes written beside a finished file.
const NOTES: [&str; 3] = [".status.json", JSON_NOTE, TEXT_NOTE];

/// Returns the file that a note is about, or the path itself if its name is not that of a note.
pub(super) fn noted(path: &Path) -> PathBuf {
    let stem = NOTES.iter().find_map(|ending| {
        let name = path.file_name()?.to_str()?;
        name.strip_suffix(ending).filter(|stem| !stem.is_empty())
    });
    stem.map_or_else(|| path.to_owned(), |stem| path.with_file_name(stem))
}

/// Renames, and fails if the new name is taken.
fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    Ok(renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE)?)
}

/// Returns what kind of thing it is that is not a regular file.
fn strange_kind(metadata: &Metadata) -> Option<&'static str> {
    let kind = metadata.file_type();
    if kind.is_file() {
        None
    } else if kind.is_symlink() {
        Some("a symbolic link")
    } else if kind.is_dir() {
        Some("a directory")
    } else if kind.is_fifo() {
        Some("a named pipe (FIFO)")
    } else if kind.is_socket() {
        Some("a socket")
    } else {
        Some("a device")
    }
}

/// Returns what a file looks like without opening it.
pub(super) fn look(path: &Path) -> io::Result<(Look, Option<&'static str>)> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((look_of(&metadata), strange_kind(&metadata)))
}

fn look_of(metadata: &Metadata) -> Look {
    Look {
        inode: metadata.ino(),
        size: metadata.size(),
        modified: time(metadata.mtime(), metadata.mtime_nsec()),
        changed: changed(metadata),
    }
}

/// Returns when a file was last changed or moved. No writer can set this time.
pub(super) fn changed(metadata: &Metadata) -> SystemTime {
    time(metadata.ctime(), metadata.ctime_nsec())
}

fn time(seconds: i64, nanoseconds: i64) -> SystemTime {
    let distance = Duration::from_secs(seconds.unsigned_abs());
    let whole = if seconds < 0 {
        UNIX_EPOCH.checked_sub(distance)
    } else {
        UNIX_EPOCH.checked_add(distance)
    };
    whole.unwrap_or(UNIX_EPOCH) + Duration::from_nanos(nanoseconds.unsigned_abs())
}

/// Whether the content has to survive a power cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Durability {
    /// Only looked at.
    None,
    /// Acted upon.
    Synced,
}

/// Reads a file, at most [`MAX_FILE`] bytes, following no link and waiting for nobody.
///
/// Fails only when it is gone or its folder cannot be read; everything else is an answer.
pub(super) fn open(path: &Path, durability: Durability) -> io::Result<Opened> {
    let metadata = fs::symlink_metadata(path)?;
    if let Some(kind) = strange_kind(&metadata) {
        return Ok(Opened::Never(format!(
            "is {kind}; only regular files are read"
        )));
    }
    // Between the look and this the file may have become something else, hence the flags.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let flags = i32::try_from(flags.bits()).expect("open flags fit in 32 bits");
    let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(error),
        Err(error) => return Ok(Opened::Never(format!("cannot be read: {error}"))),
    };
    let metadata = file.metadata()?;
    if let Some(kind) = strange_kind(&metadata) {
        return Ok(Opened::Never(format!(
            "is {kind}; only regular files are read"
        )));
    }
    let mut bytes = Vec::new();
    let limit = MAX_FILE as u64;
    if let Err(error) = (&file).take(limit + 1).read_to_end(&mut bytes) {
        return Ok(Opened::Never(format!("cannot be read: {error}")));
    }
    if bytes.len() > MAX_FILE {
        let size = metadata.size().max(limit + 1);
        return Ok(Opened::Never(format!(
            "is {size} bytes; at most {limit} are allowed"
        )));
    }
    if durability == Durability::Synced {
        file.sync_data()?;
    }
    Ok(Opened::Regular {
        uid: metadata.uid(),
        bytes,
        look: look_of(&metadata),
    })
}
