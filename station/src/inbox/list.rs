//! Tells where every file of the inbox stands and why, from the folder alone.
//!
//! Nothing is remembered and nothing is moved: the station may run or not.

use std::{
    ffi::OsStr,
    fs, io,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
    time::SystemTime,
};

use jiff::Timestamp;
use serde::Deserialize;
use steward_protocol::MessageId;

use super::{
    durations::spell,
    folder::{self, Durability, Folder, Opened, with_ending},
    intake::{self, Format, Unreadable},
    names::{self, Claimed},
    settle::InboxTiming,
    take::{Trigger, may_take},
};
use crate::view::{InboxFileView, InboxPlace, Problem};

/// Lists the files of the inbox at `root`: waiting, claimed, rejected and done, newest first, at most
/// `limit` of each of these (and of the ignored).
///
/// # Errors
///
/// Fails when the folder cannot be read.
pub fn list(root: &Path, timing: InboxTiming, limit: usize) -> io::Result<Vec<InboxFileView>> {
    let folder = Folder::new(root.to_owned());
    let mut views = Vec::new();
    let (ignored, waiting): (Vec<PathBuf>, Vec<PathBuf>) = paths(root)?
        .into_iter()
        .partition(|path| names::left_alone(name_of(path)).is_some());
    let ignored = ignored.into_iter().filter(|path| !ours(&folder, path));
    views.extend(newest(waiting, limit, |file| waiting_view(file, timing)));
    views.extend(newest(paths(&folder.processing())?, limit, claimed_view));
    let rejected = paths(&folder.rejected())?
        .into_iter()
        .filter(|path| !is_note(path) && !is_draft(path));
    views.extend(newest(rejected, limit, rejected_view));
    views.extend(done(&folder, limit)?);
    views.extend(newest(ignored, limit, |file| {
        let why = names::left_alone(name_of(&file.path));
        file.view(InboxPlace::Ignored, why.map(str::to_owned))
    }));
    Ok(views)
}

/// The newest done files; the days are visited from the last, and only as many as are needed.
fn done(folder: &Folder, limit: usize) -> io::Result<Vec<InboxFileView>> {
    let mut days = paths(&folder.done())?;
    days.sort();
    let mut views = Vec::new();
    for day in days.into_iter().rev() {
        if views.len() >= limit {
            break;
        }
        let files = paths(&day)?.into_iter().filter(|path| !is_note(path));
        views.extend(newest(files, limit - views.len(), done_view));
    }
    Ok(views)
}

fn paths(folder: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(folder) {
        Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        // A file where a folder belongs holds nothing of ours.
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn name_of(path: &Path) -> &OsStr {
    path.file_name().unwrap_or_default()
}

fn ours(folder: &Folder, path: &Path) -> bool {
    [folder.processing(), folder.done(), folder.rejected()]
        .iter()
        .any(|ours| ours == path)
}

/// Returns whether a file is a note beside another. Notes are written before the file is moved to them,
/// so one without its file is a note too, unless it has notes of its own: then that is just its name.
fn is_note(path: &Path) -> bool {
    let there = |path: PathBuf| path.symlink_metadata().is_ok();
    let about = folder::noted(path);
    about != path
        && (there(about)
            || ![".status.json", folder::JSON_NOTE]
                .iter()
                .any(|ending| there(with_ending(path, ending))))
}

/// Returns whether a file is a note that is just being written. No file whose name begins like this
/// is ever taken from the inbox.
fn is_draft(path: &Path) -> bool {
    name_of(path).as_bytes().starts_with(b".")
}

struct Listed {
    path: PathBuf,
    since: Timestamp,
    bytes: u64,
}

impl Listed {
    fn name(&self) -> String {
        names::escaped(name_of(&self.path))
    }

    fn view(&self, place: InboxPlace, reason: Option<String>) -> InboxFileView {
        InboxFileView {
            name: self.name(),
            place,
            since: self.since,
            bytes: self.bytes,
            reason,
            problems: Vec::new(),
            messages: Vec::new(),
        }
    }
}

fn newest(
    paths: impl IntoIterator<Item = PathBuf>,
    limit: usize,
    view: impl Fn(&Listed) -> InboxFileView,
) -> Vec<InboxFileView> {
    let mut files: Vec<Listed> = paths
        .into_iter()
        .filter_map(|path| {
            // Moved on since it was listed.
            let metadata = fs::symlink_metadata(&path).ok()?;
            let nanoseconds = i32::try_from(metadata.ctime_nsec()).ok()?;
            Some(Listed {
                since: Timestamp::new(metadata.ctime(), nanoseconds).ok()?,
                bytes: metadata.size(),
                path,
            })
        })
        .collect();
    files.sort_by(|one, other| {
        let newer = other.since.cmp(&one.since);
        newer.then_with(|| one.path.cmp(&other.path))
    });
    files.truncate(limit);
    files.iter().map(view).collect()
}

fn waiting_view(file: &Listed, timing: InboxTiming) -> InboxFileView {
    let (reason, problems) = waiting_reason(&file.path, timing);
    InboxFileView {
        problems,
        ..file.view(InboxPlace::Waiting, Some(reason))
    }
}

fn waiting_reason(path: &Path, timing: InboxTiming) -> (String, Vec<Problem>) {
    let format = Format::of_name(name_of(path));
    let settle = spell(timing.settle);
    let rescan = spell(timing.rescan);
    let opened = folder::open(path, Durability::None);
    let bytes = match &opened {
        Ok(Opened::Regular { bytes, look, .. }) => {
            let age = SystemTime::now().duration_since(look.modified.max(look.changed));
            if !may_take(format, Trigger::Settled) {
                let reason = "YAML is taken only when it is renamed into the inbox while the station runs, because a half-written file may read as another message: move it out and in again, or use steward submit";
                return (reason.to_owned(), problems_of(bytes, format));
            }
            if age.is_ok_and(|age| age < timing.settle) {
                let reason = format!(
                    "has just changed; a scan takes it once it has been unchanged for {settle}"
                );
                return (reason, problems_of(bytes, format));
            }
            bytes
        }
        Ok(Opened::Never(why)) => {
            let reason = format!("{why}; the next scan rejects it");
            return (reason, Vec::new());
        }
        Err(error) => return (format!("cannot be looked at: {error}"), Vec::new()),
    };
    let reason = match intake::read(bytes, format) {
        Err(Unreadable::Incomplete) => {
            let give_up = spell(timing.give_up);
            format!(
                "ends too early; its writer may not be done, so it waits until it has been unchanged for {give_up} and is rejected then"
            )
        }
        _ => format!("is due: a running station takes it within {rescan}"),
    };
    (reason, problems_of(bytes, format))
}

fn problems_of(bytes: &[u8], format: Format) -> Vec<Problem> {
    match intake::read(bytes, format) {
        Err(Unreadable::Rejected(problems)) => problems,
        Ok(_) | Err(Unreadable::Incomplete) => Vec::new(),
    }
}

fn claimed_view(file: &Listed) -> InboxFileView {
    match Claimed::parse(name_of(&file.path)) {
        Some(claimed) => InboxFileView {
            name: claimed.name,
            ..file.view(
                InboxPlace::Processing,
                Some("claimed; the station is storing what it asks, and tries again until that is done".to_owned()),
            )
        },
        None => file.view(
            InboxPlace::Processing,
            Some("was not put here by the station, which leaves it alone; move it into the inbox".to_owned()),
        ),
    }
}

/// What a note beside a file says.
#[derive(Deserialize, Default)]
struct Note {
    file: Option<String>,
    #[serde(default)]
    problems: Vec<Problem>,
    #[serde(default)]
    messages: Vec<NotedMessage>,
}

#[derive(Deserialize)]
struct NotedMessage {
    id: MessageId,
}

fn note(file: &Listed, ending: &str) -> Note {
    let read = || {
        let opened = folder::open(&with_ending(&file.path, ending), Durability::None).ok()?;
        match opened {
            Opened::Regular { bytes, .. } => serde_json::from_slice(&bytes).ok(),
            Opened::Never(_) => None,
        }
    };
    read().unwrap_or_default()
}

fn rejected_view(file: &Listed) -> InboxFileView {
    let note = note(file, folder::JSON_NOTE);
    let reason = note.problems.first().map(|problem| problem.reason.clone());
    let mut view = file.view(InboxPlace::Rejected, reason);
    view.problems = note.problems;
    // The name it lies under is what a person has to type: ours already, perhaps with a uuid.
    view.name = names::written(name_of(&file.path));
    view
}

fn done_view(file: &Listed) -> InboxFileView {
    let note = note(file, ".status.json");
    let mut view = file.view(InboxPlace::Done, None);
    let claimed = Claimed::parse(name_of(&file.path)).map(|claimed| claimed.name);
    view.name = note.file.or(claimed).unwrap_or(view.name);
    view.messages = note.messages.iter().map(|message| message.id).collect();
    view
}
