//! Puts a received file in its place: permissions, owner, and then one rename. Blocks.

use std::{
    fs::{self, File, Metadata, Permissions},
    io,
    os::unix::fs::{MetadataExt, PermissionsExt, fchown},
    path::{Path, PathBuf},
};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use steward_protocol::{
    body::{IfMatch, Mode},
    transfer::{Failed, Failure},
};

use super::{send::storage, sink::Sink, source::digest};
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
        fs::create_dir_all(directory).map_err(|error| storage("make", directory, &error))?;
    }
    owner(wish)?;
    there(wish)?;
    Ok(())
}

/// Puts the file in its place. Durable when this returns.
pub(super) fn install(sink: &Sink, wish: &Wish) -> Result<(), Failed> {
    let known = there(wish)?;
    let (file, part) = (sink.file(), sink.path());
    let failed = |doing: &'static str| move |error: io::Error| storage(doing, part, &error);
    let wanted = owner(wish)?;
    let uid = wanted.uid.or(known.as_ref().map(MetadataExt::uid));
    let gid = wanted.gid.or(known.as_ref().map(MetadataExt::gid));
    let own = file.metadata().map_err(failed("look at"))?;
    if uid.is_some_and(|uid| uid != own.uid()) || gid.is_some_and(|gid| gid != own.gid()) {
        fchown(file, uid, gid).map_err(failed("give an owner to"))?;
    }
    // After the owner: a change of it takes the set-user bit away.
    let kept = known.as_ref().map(|found| found.mode() & BITS);
    let mode = wish.mode.map(|mode| mode.0).or(kept).unwrap_or(PLAIN);
    file.set_permissions(Permissions::from_mode(mode))
        .map_err(failed("set the permissions of"))?;
    file.sync_all().map_err(failed("make durable"))?;
    let flags = match wish.if_match {
        // What has come to be there since it was looked at must not be replaced.
        Some(IfMatch::Absent) => RenameFlags::NOREPLACE,
        Some(IfMatch::Content(_)) | None => RenameFlags::empty(),
    };
    renameat_with(CWD, part, CWD, &wish.target, flags)
        .map_err(|error| storage("put in its place", &wish.target, &error.into()))?;
    let directory = wish.directory();
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(|error| storage("make durable", directory, &error))
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
