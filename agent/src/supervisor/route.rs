//! Sorts frames: to the process of their subject, to the desk, or nowhere. Knows no task.

use steward_protocol::{Deferral, Subject};

use super::{Duty, MAX_PROCESSES, Supervisor, context::Mail, slot::Slot, view::Lifecycle};
use crate::{
    bus::Arrived,
    check::{self, Route},
    counters::Counter,
    journal::Stance,
};

impl Supervisor {
    /// Gives a frame to the process it is for.
    pub(super) fn sort(&mut self, frame: Arrived) {
        match check::route(&frame.subject, &self.setup.config.node) {
            Route::Order(subject) => self.order(subject, frame.payload),
            Route::Cancel(subject) => self.to_desk(Mail::Cancel {
                subject,
                payload: frame.payload,
            }),
            Route::Welcome => self.to_desk(Mail::Welcome(frame.payload)),
            Route::Confirm => self.to_desk(Mail::Confirm(frame.payload)),
            Route::Want(domain) => self.to_transfers(Mail::Want {
                domain,
                payload: frame.payload,
            }),
            Route::Content => self.to_transfers(Mail::Content {
                payload: frame.payload,
            }),
            Route::Kept(domain) => self.to_logs(Mail::Kept {
                domain,
                payload: frame.payload,
            }),
            Route::Unwanted(subject) => self.to_desk(Mail::Order {
                subject,
                payload: frame.payload,
                // The desk's own check refuses it.
                stance: Stance::Serve,
            }),
            Route::Garbage(detail) => {
                self.setup.counters.note(Counter::GarbageSubject, &detail);
            }
        }
    }

    fn to_transfers(&self, mail: Mail) {
        let config = &self.setup.config;
        if let Some(subject) = Duty::Transfers.subject(&config.node, &config.station) {
            self.post(&subject, mail);
        }
    }

    /// Without an input in the config, nobody here has anything to forget.
    fn to_logs(&self, mail: Mail) {
        let config = &self.setup.config;
        if config.logs.is_some()
            && let Some(subject) = Duty::Logs.subject(&config.node, &config.station)
        {
            self.post(&subject, mail);
        }
    }

    fn order(&mut self, subject: Subject, payload: Vec<u8>) {
        let desk = |stance| Mail::Order {
            subject: subject.clone(),
            payload: payload.clone(),
            stance,
        };
        match self.slots.get(&subject).map(|slot| slot.lifecycle) {
            Some(Lifecycle::Alive) => {}
            Some(_) if self.deadline.is_some() => {
                return self.to_desk(desk(Stance::Hold(Deferral::Stopping)));
            }
            Some(Lifecycle::Restarting) => {
                let detail = format!("a frame on {subject}");
                return self.setup.counters.note(Counter::Restarting, &detail);
            }
            Some(Lifecycle::Stopped) => {
                return self.to_desk(desk(Stance::Hold(Deferral::Stopped)));
            }
            // The desk refuses what is not offered here.
            None if !self.serves(&subject) => return self.to_desk(desk(Stance::Serve)),
            None if self.deadline.is_some() => {
                return self.to_desk(desk(Stance::Hold(Deferral::Stopping)));
            }
            None if self.order_slots() >= MAX_PROCESSES => {
                return self.to_desk(desk(Stance::Hold(Deferral::Busy)));
            }
            None => {
                self.spawn(&subject, Duty::Orders);
                self.publish();
            }
        }
        let mail = desk(Stance::Serve);
        self.post(&subject, mail);
    }

    pub(super) fn serves(&self, subject: &Subject) -> bool {
        let policy = self.setup.config.policy();
        policy.methods.has(&subject.method)
            && policy
                .domains
                .is_none_or(|allowed| allowed.contains(&subject.domain))
    }

    pub(super) fn order_slots(&self) -> usize {
        let orders = |slot: &&Slot| slot.duty == Duty::Orders;
        self.slots.values().filter(orders).count()
    }

    fn to_desk(&self, mail: Mail) {
        if let Some(desk) = &self.desk {
            self.post(desk, mail);
        }
    }

    fn post(&self, subject: &Subject, mail: Mail) {
        let mailbox = self
            .slots
            .get(subject)
            .and_then(|slot| slot.mailbox.as_ref());
        let sent = mailbox.map(|mailbox| mailbox.try_send(mail));
        if !matches!(sent, Some(Ok(()))) {
            let detail = format!("a frame for {subject}");
            self.setup.counters.note(Counter::MailboxFull, &detail);
        }
    }
}
