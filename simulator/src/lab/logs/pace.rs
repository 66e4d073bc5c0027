//! How slow the machine is at a time: what a short pause and the sync of a few bytes take, again and again.
//!
//! It does not know what that excuses.

use std::{
    collections::VecDeque,
    fs::File,
    os::unix::fs::FileExt,
    path::Path,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(5);

/// How long a look counts.
const RECENT: Duration = Duration::from_secs(2);

/// What was seen of late.
#[derive(Debug)]
pub(super) struct Pace {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Since when the present look takes.
    since: Instant,
    looks: VecDeque<(Instant, Duration)>,
}

impl Pace {
    pub(super) fn new() -> Self {
        Self {
            state: Mutex::new(State {
                since: Instant::now(),
                looks: VecDeque::new(),
            }),
        }
    }

    /// Looks until it is over.
    pub(super) fn watch(&self, dir: &Path, over: &AtomicBool) {
        let Ok(file) = File::create(dir.join("pace")) else {
            return;
        };
        while !over.load(Ordering::Relaxed) {
            thread::sleep(PAUSE);
            // A disk that fails shows elsewhere.
            file.write_all_at(&[0; 512], 0).ok();
            file.sync_data().ok();
            let now = Instant::now();
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            let took = now - state.since;
            state.since = now;
            state.looks.push_back((now, took));
            while state
                .looks
                .front()
                .is_some_and(|(at, _)| now - *at > RECENT)
            {
                state.looks.pop_front();
            }
        }
    }

    /// Returns what a look took of late at most, beside the pause.
    pub(super) fn slowest(&self) -> Duration {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let looks = state.looks.iter().map(|(_, took)| *took);
        let slowest = looks.chain([state.since.elapsed()]).max();
        slowest.unwrap_or_default().saturating_sub(PAUSE)
    }
}
