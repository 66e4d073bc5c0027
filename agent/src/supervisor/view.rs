//! What others see of the processes: the list for the hello.

use jiff::Timestamp;
use steward_protocol::{ProcessState, ProcessView, Subject};
use tokio::sync::watch;

/// What a process says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gauges {
    /// Orders being carried out.
    pub running: u32,
    /// Orders taken and not started.
    pub queued: u32,
    /// Orders brought to their end.
    pub handled: u64,
    /// Since when it is idle, or at work.
    pub since: Timestamp,
}

impl Gauges {
    /// Takes in what a process is doing now.
    pub(super) fn show(&mut self, running: usize, queued: usize, handled: u64) {
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let running = count(running);
        if (self.running > 0) != (running > 0) {
            self.since = Timestamp::now();
        }
        self.running = running;
        self.queued = count(queued);
        self.handled = handled;
    }
}

/// What the supervisor says of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifecycle {
    /// It exists.
    Alive,
    /// It waits for its restart.
    Restarting,
    /// It is given up.
    Stopped,
}

/// One process on the supervisor's list.
#[derive(Debug, Clone)]
pub struct Listed {
    /// The subject it serves.
    pub subject: Subject,
    /// What the supervisor says of it.
    pub lifecycle: Lifecycle,
    /// Since when.
    pub since: Timestamp,
    /// How often it was restarted.
    pub restarts: u32,
    /// Its last fault.
    pub last_fault: Option<String>,
    /// What it says itself; outlives it.
    pub gauges: watch::Receiver<Gauges>,
}

impl Listed {
    /// Returns what is told about it.
    pub fn view(&self) -> ProcessView {
        let gauges = *self.gauges.borrow();
        let (state, since) = match self.lifecycle {
            Lifecycle::Alive if gauges.running > 0 => {
                (ProcessState::Running, gauges.since.max(self.since))
            }
            Lifecycle::Alive => (ProcessState::Idle, gauges.since.max(self.since)),
            Lifecycle::Restarting => (ProcessState::Restarting, self.since),
            Lifecycle::Stopped => (ProcessState::Stopped, self.since),
        };
        ProcessView {
            subject: self.subject.clone(),
            state,
            since,
            restarts: self.restarts,
            queued: gauges.queued,
            handled: gauges.handled,
            last_fault: self.last_fault.clone(),
        }
    }
}
