//! Counts what a spool could not take, until it can be written down.

use steward_protocol::logs::{Gap, Micros, Reason};

/// Longest wait, in commits, until what is lost is written down although more is being lost: about a minute.
const RARELY: u32 = 1024;

/// What was lost for one reason.
#[derive(Debug, Clone, Copy)]
struct Loss {
    reason: Reason,
    count: u64,
    since: Micros,
    until: Micros,
}

/// What was lost since it was last written down.
#[derive(Debug, Default)]
pub(super) struct Lost {
    losses: Vec<Loss>,
    /// Commits since it was last written down, and how many are waited for.
    commits: u32,
    wait: u32,
    total: u64,
}

impl Lost {
    /// Counts what was lost.
    pub(super) fn add(&mut self, reason: Reason, count: u64, at: Micros) {
        if count == 0 {
            return;
        }
        self.total += count;
        match self.losses.iter_mut().find(|loss| loss.reason == reason) {
            Some(loss) => {
                loss.count += count;
                loss.since = loss.since.min(at);
                loss.until = loss.until.max(at);
            }
            None => self.losses.push(Loss {
                reason,
                count,
                since: at,
                until: at,
            }),
        }
    }

    /// Returns how many were lost since the start.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// Tells whether nothing waits to be written down.
    pub(super) fn is_empty(&self) -> bool {
        self.losses.is_empty()
    }

    /// Tells, once per commit, whether it is to be written down although there is no room: ever more rarely, so
    /// that a spool that stays full for days grows by next to nothing.
    pub(super) fn is_due(&mut self) -> bool {
        if self.is_empty() {
            return false;
        }
        self.commits += 1;
        if self.commits < self.wait {
            return false;
        }
        self.commits = 0;
        self.wait = (self.wait * 2).clamp(1, RARELY);
        true
    }

    /// Forgets how long it has been full.
    pub(super) fn relax(&mut self) {
        self.commits = 0;
        self.wait = 0;
    }

    /// Takes what is to be written down.
    pub(super) fn take(&mut self) -> impl Iterator<Item = (Gap, Micros)> + use<> {
        std::mem::take(&mut self.losses).into_iter().map(|loss| {
            let gap = Gap::new(Some(loss.count), loss.reason).between(loss.since, loss.until);
            (gap, loss.until)
        })
    }
}
