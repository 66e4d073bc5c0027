//! Listens to the inbox folder: who finished writing, who renamed a file into it.
//!
//! A notice only wakes the inbox early; the scans find everything again. That a file was created is
//! no notice: its writer has only just begun.

use std::{
    ffi::OsString,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use notify::{
    Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode, ModifyKind, RenameMode},
};
use tokio::sync::mpsc;

use super::names;

/// Notices that may wait. The kernel keeps as many by default; more here would not help, and what is
/// lost is found by the scan that follows.
const MAX_NOTICES: usize = 16_384;

/// What happened in the folder.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Notice {
    /// A writer closed this file.
    Written(OsString),
    /// This file was renamed into the folder.
    Renamed(OsString),
    /// Notices were lost: look at everything.
    Lost,
}

/// A folder being listened to.
pub(super) struct Watch {
    // Held because dropping it ends the listening.
    _watcher: RecommendedWatcher,
    notices: mpsc::Receiver<Notice>,
    lost: Arc<AtomicBool>,
}

impl Watch {
    /// Begins to listen to `folder`.
    pub(super) fn begin(folder: &Path) -> Result<Self, notify::Error> {
        let (sender, notices) = mpsc::channel(MAX_NOTICES);
        let lost = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&lost);
        let mut watcher = notify::recommended_watcher(move |event| {
            for notice in notices_of(event) {
                if sender.try_send(notice).is_err() {
                    flag.store(true, Ordering::Release);
                }
            }
        })?;
        watcher.watch(folder, RecursiveMode::NonRecursive)?;
        Ok(Self {
            _watcher: watcher,
            notices,
            lost,
        })
    }

    /// Waits for the next notice. Safe to drop while waiting.
    pub(super) async fn next(&mut self) -> Notice {
        if self.lost.swap(false, Ordering::AcqRel) {
            return Notice::Lost;
        }
        match self.notices.recv().await {
            Some(notice) => notice,
            // The listener's thread is gone; only the scans are left.
            None => std::future::pending().await,
        }
    }
}

fn notices_of(event: notify::Result<Event>) -> Vec<Notice> {
    let Ok(event) = event else {
        return vec![Notice::Lost];
    };
    if event.need_rescan() {
        return vec![Notice::Lost];
    }
    let notice: fn(OsString) -> Notice = match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => Notice::Written,
        EventKind::Modify(ModifyKind::Name(RenameMode::To)) => Notice::Renamed,
        _ => return Vec::new(),
    };
    event
        .paths
        .iter()
        .filter_map(|path| path.file_name())
        .filter(|name| names::left_alone(name).is_none())
        .map(|name| notice(name.to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use notify::event::{CreateKind, Flag};

    use super::*;

    #[test]
    fn only_finished_files_and_lost_notices_wake_the_inbox() {
        let event = |kind: EventKind, name: &str| {
            notices_of(Ok(Event::new(kind).add_path(Path::new("/in").join(name))))
        };
        let closed = EventKind::Access(AccessKind::Close(AccessMode::Write));
        let renamed = EventKind::Modify(ModifyKind::Name(RenameMode::To));
        assert_eq!(event(closed, "a"), [Notice::Written("a".into())]);
        assert_eq!(event(renamed, "a"), [Notice::Renamed("a".into())]);
        assert_eq!(event(closed, ".a"), []);
        assert_eq!(event(renamed, "a.tmp"), []);
        assert_eq!(event(EventKind::Create(CreateKind::File), "a"), []);
        let overflow = Event::new(EventKind::Other).set_flag(Flag::Rescan);
        assert_eq!(notices_of(Ok(overflow)), [Notice::Lost]);
        assert_eq!(notices_of(Err(notify::Error::generic("x"))), [Notice::Lost]);
    }
}
