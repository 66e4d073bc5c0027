//! Puts a received file in its place: permissions, owner, and then one rename. Blocks.

use std::{
    ffi::OsStr,
    fs::{self, File, Metadata},
    io,
    os::{fd::AsFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
};

use steward_files::{Attributes, AttributesError, Over, Sink, Spot, digest, make_directories};
use steward_protocol::{
    body::{IfMatch, Mode},
    transfer::{Failed, Failure},
};

use super::send::storage;
use crate::owner::Owner;

/// Permissions of a file that is new and of which nothing else was said.
const PLAIN: u32 = 0o644;

/// Permission bits, without the type of the file.
const BITS: u32 = 0o7777;

/// Where a file goes, and how it is to be there.
#[derive(Debug, Clone)]
pub(super) struct Wish {
    pub(super) target: PathBuf,
    pub(super) mode: Option<Mode>,
    pub(super) owner: Option<String>,
    pub(super) if_match: Option<IfMatch>,
    pub(super) parents: bool,
}

impl Wish {
    fn directory(&self) -> &Path {
        self.target.parent().unwrap_or(Path::new("/"))
    }
}

/// Makes sure, before anything is received, that the file could be put there now.
pub(super) fn prepare(wish: &Wish) -> Result<(), Failed> {
    if wish.parents {
        let directory = wish.directory();
        make_directories(directory)
            .map_err(|error| storage(error.doing, &error.path, &error.source))?;
    }
    owner(wish)?;
    there(wish)?;
    Ok(())
}

/// Puts the file in its place. Durable when this returns.
pub(super) fn install(sink: &Sink, wish: &Wish) -> Result<(), Failed> {
    let attributes = attributes(wish, there(wish)?.as_ref())?;
    let (file, part) = (sink.file(), sink.path());
    attributes.give(file).map_err(|error| match error {
        AttributesError::Look(error) => storage("look at", part, &error),
        AttributesError::Owner(error) => storage("give an owner to", part, &error),
        AttributesError::Permissions(error) => storage("set the permissions of", part, &error),
    })?;
    file.sync_all()
        .map_err(|error| storage("make durable", part, &error))?;
    let unable = |error| storage("open", wish.directory(), &error);
    let directory = File::open(wish.directory()).map_err(unable)?;
    let spot = Spot {
        directory: directory.as_fd(),
        name: wish.target.file_name().unwrap_or(OsStr::new("")),
        beside: part.file_name().unwrap_or(OsStr::new("")),
    };
    let over = match wish.if_match {
        // What has come to be there since it was looked at must not be replaced.
        Some(IfMatch::Absent) => Over::Nothing,
        Some(IfMatch::Content(_)) | None => Over::Anything,
    };
    spot.rename(over)
        .map_err(|error| storage("put in its place", &wish.target, &error))?;
    spot.sync()
        .map_err(|error| storage("make durable", wish.directory(), &error))
}

/// Returns what the file is to have: what was asked for, else what is there, else what is usual.
fn attributes(wish: &Wish, known: Option<&Metadata>) -> Result<Attributes, Failed> {
    let owner = owner(wish)?;
    let mode = wish.mode.map(|mode| mode.0);
    Ok(Attributes {
        mode: mode
            .or(known.map(|found| found.mode() & BITS))
            .unwrap_or(PLAIN),
        uid: owner.uid.or(known.map(Metadata::uid)),
        gid: owner.gid.or(known.map(Metadata::gid)),
    })
}

/// Looks what stands in the place, and whether it is what must be there.
fn there(wish: &Wish) -> Result<Option<Metadata>, Failed> {
    let target = &wish.target;
    let refused = |reason: String| Failed::new(Failure::Refused, reason);
    let found = match fs::symlink_metadata(target) {
        Ok(found) => Some(found),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(storage("look at", target, &error)),
    };
    if found.as_ref().is_some_and(Metadata::is_dir) {
        return Err(refused(format!("{} is a directory", target.display())));
    }
    match (wish.if_match, &found) {
        (None, _) | (Some(IfMatch::Absent), None) => {}
        (Some(IfMatch::Absent), Some(_)) => {
            return Err(refused(format!(
                "{} is there, and must not be",
                target.display()
            )));
        }
        (Some(IfMatch::Content(expected)), None) => {
            let shown = target.display();
            return Err(refused(format!(
                "{shown} is not there, and must have the digest {expected}"
            )));
        }
        (Some(IfMatch::Content(expected)), Some(_)) => {
            let file = File::open(target).map_err(|error| storage("read", target, &error))?;
            let (_, now) = digest(&file).map_err(|error| storage("read", target, &error))?;
            if now != expected {
                let shown = target.display();
                return Err(refused(format!(
                    "{shown} has the digest {now}, and must have {expected}"
                )));
            }
        }
    }
    // The permissions of a link are not those of what it leads to.
    Ok(found.filter(Metadata::is_file))
}

/// Looks up who the file is to belong to.
fn owner(wish: &Wish) -> Result<Owner, Failed> {
    Owner::named(wish.owner.as_deref())
        .map_err(|nobody| Failed::new(Failure::Refused, format!("cannot {nobody}")))
}

#[cfg(test)]
mod tests {
    use steward_protocol::Digest;

    use super::*;

    fn wish(target: &Path) -> Wish {
        Wish {
            target: target.to_owned(),
            mode: None,
            owner: None,
            if_match: None,
            parents: false,
        }
    }

    fn put(wish: &Wish, content: &[u8]) -> Result<(), Failed> {
        prepare(wish)?;
        let part = wish.target.with_file_name(".part");
        let mut sink = Sink::open(&part).map_err(|error| storage("open", &part, &error))?;
        sink.append(content).expect("room");
        sink.sync().expect("durable");
        let installed = install(&sink, wish);
        fs::remove_file(part).ok();
        installed
    }

    #[test]
    fn a_file_gets_the_permissions_it_had_or_those_wished_for() {
        let dir = tempfile::tempdir().expect("a directory");
        let target = dir.path().join("below/it");
        let mode = |target: &Path| fs::metadata(target).expect("there").mode() & BITS;
        assert!(
            put(&wish(&target), b"1").is_err(),
            "its directory is missing"
        );
        let mut first = wish(&target);
        first.parents = true;
        put(&first, b"1").expect("installed");
        assert_eq!(mode(&target), PLAIN);
        let mut second = wish(&target);
        second.mode = Some(Mode(0o600));
        put(&second, b"2").expect("installed");
        put(&wish(&target), b"3").expect("installed");
        assert_eq!(mode(&target), 0o600, "it keeps what it had");
        assert_eq!(fs::read(&target).expect("there"), b"3");
    }

    #[test]
    fn what_must_be_there_is_looked_at_first() {
        let dir = tempfile::tempdir().expect("a directory");
        let target = dir.path().join("it");
        for (if_match, content, expected) in [
            (IfMatch::Content(Digest::of(b"one")), b"two", false),
            (IfMatch::Absent, b"one", true),
            (IfMatch::Absent, b"two", false),
            (IfMatch::Content(Digest::of(b"two")), b"two", false),
            (IfMatch::Content(Digest::of(b"one")), b"two", true),
        ] {
            let mut wish = wish(&target);
            wish.if_match = Some(if_match);
            let result = put(&wish, content);
            assert_eq!(result.is_ok(), expected, "{if_match}: {result:?}");
        }
    }

    #[test]
    fn an_owner_that_nobody_is_refuses_the_file_before_anything_is_received() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut wish = wish(&dir.path().join("it"));
        wish.owner = Some("root:nobody-of-that-name".to_owned());
        let failed = prepare(&wish).expect_err("nobody has this name");
        assert_eq!(failed.why, Failure::Refused);
        assert_eq!(
            failed.reason,
            "cannot give the file to \"nobody-of-that-name\": this node knows no group of this name; use a number, or a name that `getent group` shows"
        );
        wish.owner = Some("root".to_owned());
        assert_eq!(prepare(&wish), Ok(()));
    }
}
