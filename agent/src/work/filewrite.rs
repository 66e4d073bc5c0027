//! `filewrite` and `fileappend`: content for a path, there as a whole or not at all.
//!
//! ```text
//! lock directory ─ clear leftovers ─ temporary ─ owner, mode ─ fsync ─ compare ─ rename ─ fsync directory
//! ```
//!
//! Whatever moment the program is killed at, the path has its old content or its new one.

use std::{io::Read, path::PathBuf};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Serialize;
use steward_files::{Attributes, Over};
use steward_protocol::{
    Digest,
    body::{IfMatch, Mode, WriteBody},
};

use self::{
    error::WriteError,
    place::{Found, Place},
    replace::Temporary,
};
use crate::owner::{self, Owner};

mod error;
mod place;
mod replace;

/// Longest file that is appended to: all of it is copied for every `fileappend`.
const MAX_REWRITTEN: u64 = 64 << 20;

/// Tries to copy a file that somebody else is writing to.
const COPIES: u32 = 5;

/// Permissions of a file that was not there.
const NEW_FILE: u32 = 0o644;

/// What was done; printed as JSON.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// The path asked for.
    path: String,
    /// The file written, when the path is a symbolic link to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<PathBuf>,
    /// What became of it.
    result: Done,
    /// Its length now.
    bytes: u64,
    /// Digest of its content now.
    blake3: String,
    /// Its permissions now.
    mode: Mode,
    /// Its owner and group now.
    owner: String,
}

/// What became of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Done {
    /// There was none.
    Created,
    /// It has other content, permissions or another owner than before.
    Replaced,
    /// It was like this already, and was not touched.
    Unchanged,
}

/// Puts content at a path.
pub(super) fn write(body: &WriteBody) -> Result<Report, WriteError> {
    let content = content(body)?;
    let wanted = Owner::named(body.owner.as_deref()).map_err(WriteError::Nobody)?;
    let place = Place::open(body)?;
    replace::clear(&place);
    let attributes = attributes(body, wanted, place.found());
    let digest = Digest::of(&content);
    if let Some(found) = place.found()
        && body.if_match != Some(IfMatch::Absent)
        && found.has(&attributes)
        && found.bytes == content.len() as u64
        // What cannot be read is replaced.
        && place.read().is_ok_and(|file| steward_files::digest(&file).is_ok_and(|(_, there)| there == digest))
    {
        matches(&place, body.if_match, || Ok(digest))?;
        return Ok(report(
            body,
            &place,
            Done::Unchanged,
            (content.len() as u64, digest),
        ));
    }
    let mut temporary = Temporary::create(&place)?;
    temporary
        .write(&mut content.as_slice())
        .map_err(|error| place.failed("write the new content beside", error))?;
    temporary.finish(&attributes)?;
    // As late as can be: from here to the rename it is microseconds.
    matches(&place, body.if_match, || {
        place
            .read()
            .and_then(|file| {
                steward_files::digest(&file).map_err(|error| place.failed("read", error))
            })
            .map(|(_, there)| there)
    })?;
    temporary.put(over(body))?;
    let done = done(&place);
    Ok(report(body, &place, done, (content.len() as u64, digest)))
}

/// Adds content to the end of a file.
pub(super) fn append(body: &WriteBody) -> Result<Report, WriteError> {
    let content = content(body)?;
    let wanted = Owner::named(body.owner.as_deref()).map_err(WriteError::Nobody)?;
    for _ in 0..COPIES {
        let place = Place::open(body)?;
        replace::clear(&place);
        let attributes = attributes(body, wanted.clone(), place.found());
        let before = place.found().map_or(0, |found| found.bytes);
        let bytes = before.saturating_add(content.len() as u64);
        if bytes > MAX_REWRITTEN {
            return Err(WriteError::TooLong {
                path: place.path.clone(),
                bytes,
            });
        }
        let mut temporary = Temporary::create(&place)?;
        let old = copy_old(&place, &mut temporary, before)?;
        temporary
            .write(&mut content.as_slice())
            .map_err(|error| place.failed("write the new content beside", error))?;
        let digest = temporary.digest();
        temporary.finish(&attributes)?;
        matches(&place, body.if_match, || Ok(old))?;
        if place.has_changed() {
            // Somebody else wrote to it meanwhile, and that must not be lost.
            continue;
        }
        let over = match place.found() {
            Some(_) => Over::Anything,
            None => Over::Nothing,
        };
        match temporary.put(over) {
            Ok(()) => {}
            // Somebody else has made it meanwhile.
            Err(WriteError::There { .. }) if body.if_match.is_none() => continue,
            Err(error) => return Err(error),
        }
        return Ok(report(body, &place, done(&place), (bytes, digest)));
    }
    Err(WriteError::Restless {
        path: body.path.clone().into(),
    })
}

/// Copies what is there, and returns its digest.
fn copy_old(
    place: &Place,
    temporary: &mut Temporary<'_>,
    bytes: u64,
) -> Result<Digest, WriteError> {
    if place.found().is_some() {
        let old = place.read()?;
        temporary
            .write(&mut old.take(bytes))
            .map_err(|error| place.failed("copy", error))?;
    }
    Ok(temporary.digest())
}

fn content(body: &WriteBody) -> Result<Vec<u8>, WriteError> {
    match (&body.content, &body.base64) {
        (Some(text), _) => Ok(text.clone().into_bytes()),
        (None, Some(text)) => STANDARD.decode(text).map_err(|_| WriteError::Content),
        (None, None) => Err(WriteError::Content),
    }
}

/// Returns what the new file is to have: what was asked for, else what is there, else what is usual.
fn attributes(body: &WriteBody, wanted: Owner, found: Option<&Found>) -> Attributes {
    let mode = match (body.mode, found) {
        (Some(Mode(mode)), _) => mode,
        (None, Some(found)) => found.mode,
        (None, None) => NEW_FILE,
    };
    Attributes {
        mode,
        uid: wanted.uid.or_else(|| found.map(|found| found.uid)),
        gid: wanted.gid.or_else(|| found.map(|found| found.gid)),
    }
}

fn over(body: &WriteBody) -> Over {
    match body.if_match {
        Some(IfMatch::Absent) => Over::Nothing,
        Some(IfMatch::Content(_)) | None => Over::Anything,
    }
}

/// Fails when something else is there than has to be; `present` is asked only when that matters.
fn matches(
    place: &Place,
    wanted: Option<IfMatch>,
    present: impl FnOnce() -> Result<Digest, WriteError>,
) -> Result<(), WriteError> {
    let path = place.path.clone();
    match (wanted, place.found()) {
        (None, _) | (Some(IfMatch::Absent), None) => Ok(()),
        (Some(IfMatch::Absent), Some(found)) => Err(WriteError::There {
            path,
            bytes: found.bytes,
        }),
        (Some(IfMatch::Content(_)), None) => Err(WriteError::Missing { path }),
        (Some(IfMatch::Content(wanted)), Some(found)) => {
            let present = present()?;
            if present == wanted {
                return Ok(());
            }
            let bytes = found.bytes;
            Err(WriteError::Other {
                path,
                bytes,
                present,
                wanted,
            })
        }
    }
}

fn done(place: &Place) -> Done {
    match place.found() {
        Some(_) => Done::Replaced,
        None => Done::Created,
    }
}

fn report(body: &WriteBody, place: &Place, result: Done, new: (u64, Digest)) -> Report {
    let (bytes, digest) = new;
    // Said as it is now, and not as it was meant.
    let now = place.look().ok().flatten();
    let asked = PathBuf::from(&body.path);
    Report {
        path: body.path.clone(),
        file: Some(place.path.clone()).filter(|path| *path != asked),
        result,
        bytes,
        blake3: digest.to_string(),
        mode: Mode(now.as_ref().map_or(0, |now| now.mode)),
        owner: now.map_or_else(String::new, |now| owner::words(now.uid, now.gid)),
    }
}
