//! One process and its past: how it comes to be, how it is told to leave, what is said of it.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use steward_protocol::Subject;
use tokio::{
    sync::{mpsc, watch},
    task::AbortHandle,
    time::Instant,
};

use super::{
    Duty, MAILBOX, Supervisor,
    context::{Born, Mail},
    kernel::{History, Verdict},
    process,
    pulse::Pulse,
    view::{Gauges, Lifecycle, Listed},
};
use crate::journal::entry::brief;

/// How long a process may take to obey a verdict before its task is aborted.
const OBEY: Duration = Duration::from_secs(2);

/// How long an aborted task may take to be gone; one that blocks its thread never is.
pub(super) const ABORT: Duration = Duration::from_secs(1);

/// One process and its past.
pub(super) struct Slot {
    pub(super) duty: Duty,
    pub(super) mailbox: Option<mpsc::Sender<Mail>>,
    pub(super) lifecycle: Lifecycle,
    pub(super) since: Timestamp,
    pub(super) restarts: u32,
    pub(super) history: History,
    pub(super) last_fault: Option<String>,
    pub(super) gauges: watch::Sender<Gauges>,
    pub(super) restart_at: Option<Instant>,
    /// Its task, until that has ended or is left behind.
    pub(super) task: Option<AbortHandle>,
    /// How its task is being ended, if it is.
    pub(super) leaving: Option<Leaving>,
    pub(super) pulse: Arc<Pulse>,
    /// What was felt of its pulse last, and since when that is so.
    pub(super) felt: (u64, Instant),
}

/// How a task is being ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Leaving {
    pub(super) step: Step,
    /// When to go one step further; never, when it may take the time it needs.
    pub(super) next: Option<Instant>,
}

/// How far the ending of a task has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// It was told, and its verdict stands.
    Told,
    /// It was told and did not obey, and is aborted; its verdict stands.
    Aborted,
    /// It stood still and is aborted; it is judged once it is known what came of that.
    Wedged,
}

impl Slot {
    fn new(duty: Duty, pulse: Arc<Pulse>) -> Self {
        Self {
            duty,
            mailbox: None,
            lifecycle: Lifecycle::Restarting,
            since: Timestamp::now(),
            restarts: 0,
            history: History::default(),
            last_fault: None,
            gauges: watch::Sender::new(process::at_rest()),
            restart_at: None,
            task: None,
            leaving: None,
            pulse,
            felt: (0, Instant::now()),
        }
    }

    /// Takes a verdict on a fault of its process.
    pub(super) fn suffer(&mut self, detail: &str, verdict: Verdict) {
        self.last_fault = Some(brief(detail.to_owned()));
        match verdict {
            Verdict::Continue | Verdict::Escalate => {}
            Verdict::RestartAfter(wait) => {
                self.restart_at = Some(Instant::now() + wait);
                self.leave(Lifecycle::Restarting, Some(OBEY));
            }
            Verdict::Stop => {
                self.restart_at = None;
                self.leave(Lifecycle::Stopped, Some(OBEY));
            }
        }
    }

    /// Tells its task, if it has one, to end `within` some time; without, what runs comes to its end.
    pub(super) fn leave(&mut self, lifecycle: Lifecycle, within: Option<Duration>) {
        self.rest(lifecycle);
        if self.task.is_some() {
            self.leaving = Some(Leaving {
                step: Step::Told,
                next: within.map(|within| Instant::now() + within),
            });
        }
    }

    /// Aborts its task, if it has one.
    pub(super) fn abort(&mut self, step: Step) {
        if let Some(task) = &self.task {
            task.abort();
            self.leaving = Some(Leaving {
                step,
                next: Some(Instant::now() + ABORT),
            });
        }
    }

    /// Lets go of the mailbox, which tells the process to leave.
    pub(super) fn rest(&mut self, lifecycle: Lifecycle) {
        self.mailbox = None;
        self.lifecycle = lifecycle;
        self.since = Timestamp::now();
    }

    /// Returns when it is to be restarted, if nothing of the one before is in the way.
    pub(super) fn restart_due(&self) -> Option<Instant> {
        self.restart_at.filter(|_| self.task.is_none())
    }

    /// Returns it as the list shows it.
    pub(super) fn listed(&self, subject: &Subject) -> Listed {
        Listed {
            subject: subject.clone(),
            lifecycle: self.lifecycle,
            since: self.since,
            restarts: self.restarts,
            last_fault: self.last_fault.clone(),
            gauges: self.gauges.subscribe(),
        }
    }
}

impl Supervisor {
    /// Spawns the process of a subject, unless it is there already.
    pub(super) fn spawn(&mut self, subject: &Subject, duty: Duty) {
        // The one before may still feed its own.
        let pulse = Pulse::new(self.setup.config.wedged_after);
        let slot = self
            .slots
            .entry(subject.clone())
            .or_insert_with(|| Slot::new(duty, Arc::clone(&pulse)));
        if slot.task.is_some() {
            return;
        }
        let (mailbox, inbox) = mpsc::channel(MAILBOX);
        slot.mailbox = Some(mailbox);
        slot.lifecycle = Lifecycle::Alive;
        slot.since = Timestamp::now();
        slot.restart_at = None;
        slot.leaving = None;
        slot.pulse = Arc::clone(&pulse);
        slot.felt = (0, Instant::now());
        let born = Born {
            subject: subject.clone(),
            mailbox: inbox,
            gauges: slot.gauges.clone(),
        };
        let life = pulse.of((self.setup.birth)(duty, born));
        let task = self.tasks.spawn_on(life, &self.setup.runtime);
        self.subjects.insert(task.id(), subject.clone());
        slot.task = Some(task);
        tracing::debug!(%subject, "a process was spawned");
    }
}
