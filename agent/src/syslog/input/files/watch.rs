//! Hints that something was written to a directory's files. A hint may be missing: whoever uses them looks anyway.

use std::{
    collections::{BTreeSet, HashMap},
    ffi::OsStr,
    io,
    mem::MaybeUninit,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
};

use rustix::{
    fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags},
    io::Errno,
};
use tokio::io::{Interest, unix::AsyncFd};

/// Bytes of hints that are read with one call.
const BUFFER: usize = 8 << 10;

/// Names that are told one by one; beyond, everything is looked at.
const MAX_NAMES: usize = 1024;

/// What is known to have happened.
#[derive(Debug, Default)]
pub(super) struct Hints {
    /// Files that were written to.
    pub(super) written: BTreeSet<PathBuf>,
    /// Whether names came, went or changed.
    pub(super) renamed: bool,
}

/// Watches directories.
#[derive(Debug)]
pub(super) struct Watch {
    fd: AsyncFd<OwnedFd>,
    dirs: HashMap<i32, PathBuf>,
}

impl Watch {
    /// Begins to watch nothing.
    ///
    /// # Errors
    ///
    /// Fails when the system gives none.
    pub(super) fn new() -> io::Result<Self> {
        let fd = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        #[expect(
            deprecated,
            reason = "what is to be used instead is unsafe; an OwnedFd is what that asks for"
        )]
        let fd = AsyncFd::with_interest(fd, Interest::READABLE)?;
        Ok(Self {
            fd,
            dirs: HashMap::new(),
        })
    }

    /// Watches these directories and no others, and tells whether it can.
    pub(super) fn set(&mut self, dirs: &[PathBuf]) -> bool {
        let gone = |dir: &Path| !dirs.iter().any(|one| one == dir);
        let left: Vec<i32> = (self.dirs.iter())
            .filter(|(_, dir)| gone(dir))
            .map(|(id, _)| *id)
            .collect();
        for id in left {
            self.dirs.remove(&id);
            // It is gone by itself with its directory.
            inotify::remove_watch(&self.fd, id).ok();
        }
        let flags = WatchFlags::MODIFY
            | WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO
            | WatchFlags::ONLYDIR;
        let mut is_whole = true;
        for dir in dirs {
            // Again: its name may stand for another one by now. The same one keeps its number.
            match inotify::add_watch(&self.fd, dir, flags) {
                Ok(id) => drop(self.dirs.insert(id, dir.clone())),
                Err(_) => is_whole = false,
            }
        }
        is_whole
    }

    /// Waits until there are hints. Safe to drop and call again.
    pub(super) async fn wait(&self) {
        if self.fd.readable().await.is_err() {
            std::future::pending().await
        }
    }

    /// Takes the hints there are.
    pub(super) fn take(&self) -> Hints {
        let mut hints = Hints::default();
        let mut buffer = [MaybeUninit::uninit(); BUFFER];
        let taken = self.fd.try_io(Interest::READABLE, |fd| {
            let mut reader = Reader::new(fd, &mut buffer);
            loop {
                let event = reader.next().map_err(io::Error::from)?;
                let flags = event.events();
                let dir = self.dirs.get(&event.wd());
                let name = event
                    .file_name()
                    .map(|name| OsStr::from_bytes(name.to_bytes()));
                match (dir, name) {
                    (Some(dir), Some(name))
                        if flags == ReadFlags::MODIFY && hints.written.len() < MAX_NAMES =>
                    {
                        hints.written.insert(dir.join(name));
                    }
                    _ => hints.renamed = true,
                }
            }
        });
        let is_end =
            |error: &io::Error| error.raw_os_error() == Some(Errno::WOULDBLOCK.raw_os_error());
        let taken: Result<(), io::Error> = taken;
        if let Err(error) = taken
            && !is_end(&error)
        {
            hints.renamed = true;
        }
        hints
    }
}
