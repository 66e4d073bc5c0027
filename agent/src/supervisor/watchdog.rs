//! What is due by time: restarts, tasks that do not leave, pulses that stand still.
//!
//! A task that blocks its thread cannot be aborted. It is left behind: a new process takes its place,
//! and the journal sees to it that both together do nothing twice.

use steward_protocol::Subject;
use tokio::time::Instant;

use super::{
    Supervisor,
    kernel::Fault,
    pulse::Pulse,
    slot::{Slot, Step},
    view::Lifecycle,
};
use crate::counters::Counter;

impl Supervisor {
    /// Returns when something is due next.
    pub(super) fn next_time(&self) -> Instant {
        let slots = self.slots.values();
        let due = slots.flat_map(|slot| {
            let leaving = slot.leaving.and_then(|leaving| leaving.next);
            [slot.restart_due(), leaving].into_iter().flatten()
        });
        due.min().map_or(self.feel_at, |due| due.min(self.feel_at))
    }

    /// Does what is due.
    pub(super) fn time(&mut self) {
        let now = Instant::now();
        for subject in self.those(|slot| {
            let next = slot.leaving.and_then(|leaving| leaving.next);
            next.is_some_and(|next| next <= now)
        }) {
            self.linger(&subject);
        }
        if self.feel_at <= now {
            self.feel(now);
        }
        let due = self.those(|slot| slot.restart_due().is_some_and(|at| at <= now));
        for subject in &due {
            if let Some(slot) = self.slots.get_mut(subject) {
                slot.restarts = slot.restarts.saturating_add(1);
                let duty = slot.duty;
                self.spawn(subject, duty);
            }
        }
        if !due.is_empty() {
            self.publish();
        }
    }

    fn those(&self, fits: impl Fn(&Slot) -> bool) -> Vec<Subject> {
        self.slots
            .iter()
            .filter(|(_, slot)| fits(slot))
            .map(|(subject, _)| subject.clone())
            .collect()
    }

    /// Deals with a task that should have ended by now: it is aborted, or left behind.
    fn linger(&mut self, subject: &Subject) {
        let Some(slot) = self.slots.get_mut(subject) else {
            return;
        };
        let Some(leaving) = slot.leaving else {
            return;
        };
        if leaving.step == Step::Told {
            tracing::warn!(%subject, "a process did not leave when told, and is aborted");
            return slot.abort(Step::Aborted);
        }
        slot.task = None;
        slot.leaving = None;
        let counters = &self.setup.counters;
        counters.note(Counter::LeftBehind, &format!("the process of {subject}"));
        if leaving.step == Step::Wedged {
            let still = self.stood_still();
            let detail = format!(
                "{still}; it blocks its thread and cannot be ended, so it is left behind and whatever follows runs beside it"
            );
            self.fault(Some(subject.clone()), Fault::Wedged(detail));
        }
    }

    /// Feels the pulse of every process, and aborts those that stood still for too long.
    fn feel(&mut self, now: Instant) {
        let after = self.setup.config.wedged_after;
        let interval = Pulse::interval(after);
        // A supervisor that comes late did not run itself, nor did anybody else: the machine slept.
        let late = now >= self.feel_at + interval;
        self.feel_at = now + interval;
        let mut wedged = false;
        for slot in self.slots.values_mut() {
            let beats = slot.pulse.beats();
            if late || beats != slot.felt.0 || slot.task.is_none() || slot.leaving.is_some() {
                slot.felt = (beats, now);
            } else if now >= slot.felt.1 + after {
                slot.rest(Lifecycle::Restarting);
                slot.abort(Step::Wedged);
                wedged = true;
            }
        }
        if wedged {
            self.publish();
        }
    }
}
