//! Decides when a file that lies in the inbox has been left alone long enough to be taken.
//!
//! A scan cannot see an open writer; it can only see that nothing changed for a while. Time is
//! handed in. Where the wall clock cannot be trusted, what was observed by the monotonic clock counts.

use std::{
    collections::HashMap,
    ffi::{OsStr, OsString},
    time::{Duration, Instant, SystemTime},
};

/// Files watched for change at once. Beyond it a file waits until another one has been taken; the
/// usual file, whose times lie in the past, needs no watching at all.
const MAX_WATCHED: usize = 10_000;

/// What changes when a file is written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Look {
    pub(super) inode: u64,
    pub(super) size: u64,
    pub(super) modified: SystemTime,
    pub(super) changed: SystemTime,
}

/// How long to leave files alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InboxTiming {
    /// Time between two scans of the folder.
    pub rescan: Duration,
    /// How long a file must be unchanged before a scan takes it.
    pub settle: Duration,
    /// How long a file that ends too early must be unchanged before it is refused.
    pub give_up: Duration,
}

impl Default for InboxTiming {
    fn default() -> Self {
        Self {
            rescan: Duration::from_secs(10),
            settle: Duration::from_secs(5),
            give_up: Duration::from_secs(60),
        }
    }
}

/// The two clocks at one moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clocks {
    pub(super) monotonic: Instant,
    pub(super) wall: SystemTime,
}

impl Clocks {
    pub(super) fn now() -> Self {
        Self {
            monotonic: Instant::now(),
            wall: SystemTime::now(),
        }
    }
}

/// Whether a file is to be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// It has been left alone long enough.
    Settled,
    /// It ends too early and has been left alone so long that no more will come.
    GivenUp,
    /// Not before this long.
    After(Duration),
}

struct Seen {
    look: Look,
    since: Instant,
    incomplete: bool,
    // Number of the scan that saw it last, so that files that are gone are forgotten.
    scan: u64,
}

/// What is remembered of files that wait.
#[derive(Default)]
pub(super) struct Patience {
    seen: HashMap<OsString, Seen>,
    scan: u64,
}

impl Patience {
    /// Begins a scan.
    pub(super) fn begin(&mut self) {
        self.scan += 1;
    }

    /// Ends a scan that saw the whole folder: what it did not see is gone.
    pub(super) fn end(&mut self) {
        let scan = self.scan;
        self.seen.retain(|_, seen| seen.scan == scan);
    }

    /// Returns whether a file seen by a scan is due.
    pub(super) fn due(
        &mut self,
        name: &OsStr,
        look: Look,
        clocks: Clocks,
        timing: InboxTiming,
    ) -> Due {
        let scan = self.scan;
        let known = self.seen.get_mut(name).filter(|seen| seen.look == look);
        if let Some(seen) = known {
            seen.scan = scan;
            let age = clocks.monotonic.saturating_duration_since(seen.since);
            let (needed, due) = if seen.incomplete {
                (timing.give_up, Due::GivenUp)
            } else {
                (timing.settle, Due::Settled)
            };
            if age >= needed {
                return due;
            }
            if seen.incomplete {
                return Due::After(needed - age);
            }
        }
        // A time in the future says nothing about how long ago it was.
        let age = clocks
            .wall
            .duration_since(look.modified.max(look.changed))
            .unwrap_or_default();
        if age >= timing.settle {
            return Due::Settled;
        }
        self.watch(name, look, clocks.monotonic, false);
        Due::After(timing.settle - age)
    }

    /// Notes that a file was read and ends too early.
    pub(super) fn incomplete(&mut self, name: &OsStr, look: Look, now: Instant) {
        self.watch(name, look, now, true);
    }

    fn watch(&mut self, name: &OsStr, look: Look, now: Instant, incomplete: bool) {
        let scan = self.scan;
        if let Some(seen) = self.seen.get_mut(name) {
            if seen.look != look {
                seen.since = now;
                seen.incomplete = false;
            }
            seen.look = look;
            seen.incomplete |= incomplete;
            seen.scan = scan;
        } else if self.seen.len() < MAX_WATCHED {
            let seen = Seen {
                look,
                since: now,
                incomplete,
                scan,
            };
            self.seen.insert(name.to_owned(), seen);
        }
    }

    /// Forgets a file that was taken.
    pub(super) fn forget(&mut self, name: &OsStr) {
        self.seen.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMING: InboxTiming = InboxTiming {
        rescan: Duration::from_secs(10),
        settle: Duration::from_secs(5),
        give_up: Duration::from_secs(60),
    };

    struct World {
        patience: Patience,
        start: Clocks,
    }

    impl World {
        fn new() -> Self {
            Self {
                patience: Patience::default(),
                start: Clocks::now(),
            }
        }

        fn at(&self, seconds: u64) -> Clocks {
            let passed = Duration::from_secs(seconds);
            Clocks {
                monotonic: self.start.monotonic + passed,
                wall: self.start.wall + passed,
            }
        }

        /// A file whose content last changed this many seconds after the start.
        fn look(&self, seconds: i64, size: u64) -> Look {
            let distance = Duration::from_secs(seconds.unsigned_abs());
            let modified = if seconds < 0 {
                self.start.wall - distance
            } else {
                self.start.wall + distance
            };
            Look {
                inode: 1,
                size,
                modified,
                changed: modified,
            }
        }

        fn due(&mut self, look: Look, seconds: u64) -> Due {
            let clocks = self.at(seconds);
            self.patience.begin();
            let due = self.patience.due(OsStr::new("a"), look, clocks, TIMING);
            self.patience.end();
            due
        }
    }

    #[test]
    fn a_file_is_settled_when_its_times_lie_far_enough_in_the_past() {
        let mut world = World::new();
        let seconds = Duration::from_secs;
        assert_eq!(world.due(world.look(-4, 1), 0), Due::After(seconds(1)));
        assert_eq!(world.due(world.look(-5, 1), 0), Due::Settled);
    }

    #[test]
    fn a_file_from_the_future_is_settled_after_nothing_was_seen_to_change() {
        let mut world = World::new();
        let future = |size| World::new().look(3600, size);
        let (small, large) = (future(1), future(2));
        assert!(matches!(world.due(small, 0), Due::After(_)));
        assert!(matches!(world.due(small, 4), Due::After(_)));
        assert!(matches!(world.due(large, 5), Due::After(_)));
        assert!(matches!(world.due(large, 9), Due::After(_)));
        assert_eq!(world.due(large, 10), Due::Settled);
    }

    #[test]
    fn an_incomplete_file_is_given_up_only_after_it_was_seen_unchanged_long_enough() {
        let mut world = World::new();
        // Its times lie an hour back: the clock may have jumped, so that proves nothing.
        let look = world.look(-3600, 1);
        assert_eq!(world.due(look, 0), Due::Settled);
        let start = world.start.monotonic;
        world.patience.incomplete(OsStr::new("a"), look, start);
        assert_eq!(world.due(look, 10), Due::After(Duration::from_secs(50)));
        assert_eq!(world.due(look, 60), Due::GivenUp);
        let grown = world.look(61, 2);
        assert!(matches!(world.due(grown, 61), Due::After(_)));
        assert_eq!(world.due(grown, 66), Due::Settled);
        let later = world.at(66).monotonic;
        world.patience.incomplete(OsStr::new("a"), grown, later);
        assert!(matches!(world.due(grown, 119), Due::After(_)));
    }

    #[test]
    fn files_that_are_gone_are_forgotten() {
        let mut world = World::new();
        let look = world.look(0, 1);
        world.due(look, 0);
        assert_eq!(world.patience.seen.len(), 1);
        world.patience.begin();
        world.patience.end();
        assert!(world.patience.seen.is_empty());
    }
}
