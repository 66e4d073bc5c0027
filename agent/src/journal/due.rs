//! What is to be said again and when, and which orders waited here past their deadline.

use steward_protocol::EventId;

use super::{
    Answer, Due, Journal, Ticket, Write,
    entry::{Ending, Fact, Timeliness},
    spool::{self, Kept, Notice},
    too_late,
};
use crate::clock::Moment;

/// Most answers repeated at a time, so that a long absence does not end in one burst.
const DUE_ANSWERS: usize = 16;

/// Most events repeated at a time.
const DUE_EVENTS: usize = 64;

impl Journal {
    pub(super) fn due(&mut self, all: bool, dice: u64, now: &Moment) -> Due {
        if all {
            self.resends.clear();
            self.spool.hurry();
        }
        self.expire(now);
        let mut due = Due::default();
        let waiting: Vec<Ticket> = self.shelf.unconfirmed().iter().copied().collect();
        self.resends
            .retain(|ticket, _| waiting.binary_search(ticket).is_ok());
        for ticket in waiting {
            let resend = self.resends.get(&ticket).copied().unwrap_or_default();
            if resend.due_ms <= now.boot_ms && due.answers.len() < DUE_ANSWERS {
                let resend = resend.again(now.boot_ms, spool::mix(dice, ticket.0));
                self.resends.insert(ticket, resend);
                due.answers.push(ticket);
                due.next_ms = sooner(due.next_ms, resend.due_ms);
            } else {
                due.next_ms = sooner(due.next_ms, resend.due_ms);
            }
        }
        due.events = self.spool.due(now.boot_ms, dice, DUE_EVENTS);
        let next_event = self.spool.next_due();
        let deadlines = self
            .shelf
            .received()
            .iter()
            .filter_map(|ticket| self.shelf.get(*ticket))
            .filter(|entry| entry.deadline.boot_id == now.boot_id)
            .map(|entry| entry.deadline.boot_ms);
        due.next_ms = deadlines.chain(next_event).fold(due.next_ms, sooner);
        due
    }

    pub(super) fn report(&mut self, notice: Notice) -> Answer {
        self.keep(notice);
        Answer::Reported
    }

    /// Keeps an event until the station has it. The oldest go when there are too many, and are counted.
    pub(super) fn keep(&mut self, notice: Notice) {
        let (rank, dropped) = self.spool.push(Kept::of(&notice));
        self.writes.push(Write::Event(rank, Box::new(notice)));
        if !dropped.is_empty() {
            self.dropped += dropped.len() as u64;
            self.writes.push(Write::Dropped(self.dropped));
        }
        let forgets = dropped.into_iter().map(Write::ForgetEvent);
        self.writes.extend(forgets);
    }

    /// Returns the text before the event of this rank that the station has not confirmed.
    pub fn text_before(&self, rank: u64) -> Option<EventId> {
        self.spool.text_before(rank)
    }

    /// Ends the orders that waited here past their deadline.
    fn expire(&mut self, now: &Moment) {
        let late: Vec<(Ticket, Ending)> = self
            .shelf
            .received()
            .iter()
            .filter_map(|ticket| Some((*ticket, self.shelf.get(*ticket)?)))
            .filter(|(_, entry)| entry.timeliness(now, self.wall) == Timeliness::Late)
            .map(|(ticket, entry)| (ticket, too_late(entry)))
            .collect();
        for (ticket, ending) in late {
            self.apply(ticket, Fact::End(ending), now).ok();
            // Nobody else says this one.
            self.resends.remove(&ticket);
        }
    }
}

fn sooner(known: Option<u64>, other: u64) -> Option<u64> {
    Some(known.map_or(other, |known| known.min(other)))
}
