//! What is heard: frames become events for the courier, and what cannot be believed is held
//! against whoever sent it.
//!
//! It decides nothing about deliveries; that is the courier's.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use steward_protocol::{Digest, EventId, MessageId};

use super::{Station, chain, moment, uplink};
use crate::{
    bus::{self, Heard},
    courier::{self, Action, KnownReport, Record},
    roster::Moment,
    transfer::Transfers,
    view::NodeView,
};

/// Counts text that is not taken now: the text before it is missing, or too much waits to be written.
const NOT_NOW: &str = "text_not_now";

/// What is to be recorded with the next commit. What was only heard does not count: a copy from
/// somebody who is not believed must not stand for what is said by who is.
#[derive(Default)]
struct Fresh {
    reports: BTreeMap<MessageId, Digest>,
    texts: BTreeSet<EventId>,
}

impl Fresh {
    /// Takes in what the courier decided.
    fn note(&mut self, decided: &[Action]) {
        for action in decided {
            match action {
                Action::Record(Record::Reported(report)) => {
                    let (id, digest) = (report.order.order().id, report.order.digest());
                    self.reports.insert(id, digest);
                }
                Action::Record(Record::Text(text)) => {
                    self.texts.insert(text.id);
                }
                _ => {}
            }
        }
    }

    /// Returns what is known of a report, of which the ledger knows `known`.
    fn known(&self, id: MessageId, digest: Digest, known: KnownReport) -> KnownReport {
        match self.reports.get(&id) {
            None => known,
            Some(earlier) if *earlier == digest => KnownReport::Same,
            Some(_) => KnownReport::Other,
        }
    }
}

/// Counts a fault beyond what one node may report.
const FAULT_FLOOD: &str = "fault_flood";

impl Station {
    /// Lets the courier judge what was heard, and acts on it.
    pub(super) async fn on_heard(&mut self, heard: Vec<Heard>) {
        let mut actions = Vec::new();
        let mut fresh = Fresh::default();
        for heard in heard {
            let now = moment(self.born);
            let event = match heard {
                Heard::Connected => courier::Event::Connected,
                Heard::Disconnected => courier::Event::Disconnected,
                Heard::NoResponders { node, sent_ms } => {
                    let sent = Duration::from_millis(sent_ms);
                    courier::Event::NoResponders { node, sent }
                }
                Heard::Offence {
                    sender,
                    kind,
                    count,
                } => {
                    *self.counters.entry(kind).or_default() += count;
                    self.offenders.note(sender.as_ref(), kind, count, now);
                    continue;
                }
                Heard::Frame { subject, payload } if Transfers::concern(&subject) => {
                    self.settings.transfers.hear(subject, payload);
                    continue;
                }
                Heard::Frame { subject, payload } => match uplink::decode(&subject, &payload) {
                    Ok(event) => match self.with_ledger(event, &fresh) {
                        Some(event) => event,
                        None => continue,
                    },
                    Err(garbage) => {
                        self.note_garbage(&subject, &garbage, now);
                        continue;
                    }
                },
            };
            let sender = uplink::sender(&event).cloned();
            if let (courier::Event::Fault { .. }, Some(node)) = (&event, &sender)
                && !self.offenders.may_report(node, now.mono)
            {
                *self.counters.entry(FAULT_FLOOD).or_default() += 1;
                self.offenders.note(sender.as_ref(), FAULT_FLOOD, 1, now);
                continue;
            }
            let mut decided = self.courier.on(event, now);
            fresh.note(&decided);
            if let Some(kind) = self.courier.take_counted() {
                self.offenders.note(sender.as_ref(), kind, 1, now);
                // What is not believed makes a fault here and there, not for every frame.
                if sender.is_some_and(|node| !self.offenders.may_report(&node, now.mono)) {
                    decided.retain(|action| !matches!(action, Action::Record(Record::Fault(_))));
                }
            }
            actions.extend(decided);
        }
        self.tell_of_offenders(&mut actions);
        self.carry_out(actions).await;
    }

    /// Adds what only the ledger knows. Nothing comes back when it cannot be taken now: the node says
    /// it again.
    fn with_ledger(&mut self, mut event: courier::Event, fresh: &Fresh) -> Option<courier::Event> {
        let answer = match &mut event {
            courier::Event::Text { text, .. } => {
                let after = text.after.filter(|after| !fresh.texts.contains(after));
                self.store.takes_text(after)
            }
            courier::Event::Report { report, .. } => {
                let (id, digest) = (report.order.order().id, report.order.digest());
                self.store.find_report(id, digest).map(|known| {
                    report.known = fresh.known(id, digest, known);
                    true
                })
            }
            _ => Ok(true),
        };
        match answer {
            Ok(true) => return Some(event),
            Ok(false) => *self.counters.entry(NOT_NOW).or_default() += 1,
            Err(error) => {
                tracing::error!(error = chain(&error), "the ledger cannot be read");
            }
        }
        None
    }

    /// Counts a frame that means nothing, and logs the first of each kind.
    fn note_garbage(&mut self, subject: &str, garbage: &uplink::Garbage, now: Moment) {
        let sender = bus::sender_of(subject.as_bytes());
        self.offenders.note(sender.as_ref(), garbage.kind(), 1, now);
        let count = self.counters.entry(garbage.kind()).or_default();
        *count += 1;
        if *count == 1 {
            let kind = garbage.kind();
            let subject: String = subject
                .chars()
                .take(200)
                .flat_map(char::escape_default)
                .collect();
            tracing::warn!(kind, subject, reason = %garbage, "a frame was not understood; more of this kind are only counted");
        }
    }

    /// Counts what came about transfers and cannot be believed.
    pub(super) fn note_transfers(&mut self) {
        let now = moment(self.born);
        for ((sender, kind), count) in self.settings.transfers.take_offences() {
            *self.counters.entry(kind).or_default() += count;
            self.offenders.note(sender.as_ref(), kind, count, now);
        }
    }

    /// Makes faults and log lines of what senders did that was not believed.
    pub(super) fn tell_of_offenders(&mut self, actions: &mut Vec<Action>) {
        for fault in self.offenders.take_faults() {
            tracing::warn!(detail = fault.detail, "{}", fault.verdict);
            actions.push(Action::Record(Record::Fault(fault)));
        }
    }

    /// Returns what the outside sees of every node.
    pub(super) fn nodes(&self) -> Vec<NodeView> {
        let mut nodes = self.courier.nodes();
        for node in &mut nodes {
            node.garbage = self.offenders.of(&node.name);
        }
        nodes
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use uuid::Uuid;

    use super::*;
    use crate::courier::TextRecord;

    #[test]
    fn only_what_is_recorded_stands_for_what_comes_after_it() {
        let (id, digest) = (MessageId(Uuid::from_u128(1)), Digest::of(b"an order"));
        let text = EventId(Uuid::from_u128(2));
        let mut fresh = Fresh::default();
        // Held back, it decided nothing.
        fresh.note(&[]);
        assert_eq!(fresh.known(id, digest, KnownReport::New), KnownReport::New);
        fresh.note(&[Action::Record(Record::Text(TextRecord {
            id: text,
            at: Timestamp::UNIX_EPOCH,
            node: "ship1".parse().expect("a name"),
            domain: "os".parse().expect("a name"),
            lines: Vec::new(),
        }))]);
        assert!(fresh.texts.contains(&text));
        fresh.reports.insert(id, digest);
        for (digest, expected) in [
            (digest, KnownReport::Same),
            (Digest::of(b"another"), KnownReport::Other),
        ] {
            assert_eq!(fresh.known(id, digest, KnownReport::New), expected);
        }
    }
}
