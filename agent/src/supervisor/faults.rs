//! Has faults judged, carries the verdicts out and reports both.

use std::any::Any;

use steward_protocol::{EventId, FaultEvent, Method, Subject};
use tokio::{
    task::{Id, JoinError},
    time::Instant,
};
use uuid::Uuid;

use super::{
    Duty, Supervisor,
    kernel::{Fault, Policy, Verdict, Weight},
    process::{ProcessError, Quit},
    slot::Step,
    view::Lifecycle,
};
use crate::{counters::Counter, journal::entry::brief, keeper::chain};

/// How the task of a process ended.
pub(super) enum End {
    /// By itself.
    Quit(Quit),
    /// With a fault.
    Fault(Fault),
    /// Because it was aborted.
    Aborted,
}

impl Supervisor {
    pub(super) fn joined(&mut self, id: Id, end: End) {
        let Some(subject) = self.subjects.remove(&id) else {
            return;
        };
        let Some(slot) = self.slots.get_mut(&subject) else {
            return;
        };
        if slot.task.as_ref().map(tokio::task::AbortHandle::id) != Some(id) {
            tracing::info!(%subject, "a process that had been left behind has ended");
            return;
        }
        slot.task = None;
        let step = slot.leaving.take().map(|leaving| leaving.step);
        match (step, end) {
            (Some(Step::Wedged), _) => {
                let detail = format!("{}; it was ended", self.stood_still());
                self.fault(Some(subject), Fault::Wedged(detail));
            }
            (None, End::Quit(quit)) => {
                tracing::debug!(%subject, ?quit, "a process ended");
                self.slots.remove(&subject);
                self.publish();
            }
            (None, End::Fault(fault)) => {
                self.fault(Some(subject), fault);
            }
            (None, End::Aborted) => {
                let fault = Fault::Failed("its task was aborted".to_owned());
                self.fault(Some(subject), fault);
            }
            (Some(Step::Told | Step::Aborted), End::Fault(fault)) => {
                // What becomes of it is decided already.
                let verdict = match slot.lifecycle {
                    Lifecycle::Stopped => Verdict::Stop,
                    Lifecycle::Alive | Lifecycle::Restarting => Verdict::Continue,
                };
                self.report(Some(subject), &fault, verdict);
                self.publish();
            }
            (Some(Step::Told | Step::Aborted), End::Quit(_) | End::Aborted) => {
                tracing::debug!(%subject, "a process that was told to has ended");
                self.publish();
            }
        }
    }

    /// Says how long a wedged process stood still at least.
    pub(super) fn stood_still(&self) -> String {
        let after = humantime::format_duration(self.setup.config.wedged_after);
        format!("its loop made no progress for {after}")
    }

    /// Has a fault judged, carries out the verdict and reports both.
    pub(super) fn fault(&mut self, subject: Option<Subject>, fault: Fault) -> Verdict {
        let now_ms = self.now_ms();
        let policy = self.policy(subject.as_ref());
        let ending = self.deadline.is_some();
        let slot = subject
            .as_ref()
            .and_then(|subject| self.slots.get_mut(subject));
        let verdict = match slot {
            // It is on its way out already; until then it goes on.
            Some(slot) if slot.leaving.is_some() => Verdict::Continue,
            Some(slot) => {
                let verdict = slot.history.suffer(&fault, &policy, now_ms);
                slot.suffer(fault.detail(), verdict);
                if ending {
                    // A process that fails while the agent ends is not needed again.
                    slot.restart_at = None;
                }
                verdict
            }
            None => super::kernel::History::default().suffer(&fault, &policy, now_ms),
        };
        if verdict == Verdict::Escalate {
            self.escalated = Some(format!("{}: {}", fault.kind(), fault.detail()));
        }
        self.report(subject, &fault, verdict);
        self.publish();
        verdict
    }

    /// Says in the log and to the station what happened and what was decided.
    pub(super) fn report(&mut self, subject: Option<Subject>, fault: &Fault, verdict: Verdict) {
        let shown = subject.as_ref().map(Subject::to_string).unwrap_or_default();
        tracing::error!(
            subject = shown,
            kind = fault.kind(),
            detail = fault.detail(),
            verdict = %verdict,
            "a fault was judged"
        );
        let event = FaultEvent {
            id: EventId(Uuid::now_v7()),
            at: self.setup.clock.now().wall,
            kind: fault.kind().to_owned(),
            subject,
            detail: brief(fault.detail().to_owned()),
            verdict: verdict.to_string(),
        };
        if self.setup.reports.try_send(event).is_err() {
            self.setup.counters.count(Counter::EventsDropped);
        }
    }

    /// Returns the time of the histories.
    fn now_ms(&self) -> u64 {
        let passed = Instant::now().duration_since(self.epoch);
        u64::try_from(passed.as_millis()).unwrap_or(u64::MAX)
    }

    fn policy(&self, subject: Option<&Subject>) -> Policy {
        let slot = subject.and_then(|subject| self.slots.get(subject));
        let method = subject.and_then(|subject| Method::from_name(&subject.method));
        let config = &self.setup.config;
        let own = method.and_then(|method| config.restart_of.get(&method));
        let weight = match (subject, slot.map(|slot| slot.duty)) {
            (Some(_), Some(Duty::Orders | Duty::Transfers | Duty::Logs) | None) => Weight::Ordinary,
            (None, _) | (_, Some(Duty::Desk | Duty::Heartbeat | Duty::Courier | Duty::Local)) => {
                Weight::Vital
            }
        };
        Policy {
            restart: *own.unwrap_or(&config.restart),
            weight,
        }
    }
}

/// Returns whose task ended, and how.
pub(super) fn end_of(joined: Result<(Id, Result<Quit, ProcessError>), JoinError>) -> (Id, End) {
    match joined {
        Ok((id, Ok(quit))) => (id, End::Quit(quit)),
        Ok((id, Err(error))) => (id, End::Fault(Fault::Failed(chain(&error)))),
        Err(error) => {
            let id = error.id();
            let end = match error.try_into_panic() {
                Ok(panic) => End::Fault(Fault::Panicked(words_of(panic.as_ref()))),
                Err(_) => End::Aborted,
            };
            (id, end)
        }
    }
}

/// Returns what a panic said, if it said anything.
fn words_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("a panic without words").to_owned()
}
