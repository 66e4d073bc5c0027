//! What a cancellation changes: a tombstone for an order not known yet, the end of one that waits,
//! a word to its process for one that is started, nothing for one that is over.

use steward_protocol::{Deferral, State};

use super::{
    Cancellation, Cancelled, Ending, Entry, Journal, MAX_ENTRIES, Phase, Revoked, Ticket, deadline,
    entry::Fact, lanes::Turn,
};
use crate::{
    check::{self, Bar},
    clock::Moment,
    counters::Counter,
};

impl Journal {
    pub(super) fn cancel(&mut self, cancellation: &Cancellation, now: &Moment) -> Cancelled {
        let (send, cancel) = (&cancellation.send, &cancellation.body);
        if let Err(bar) = check::admit(&self.standing(), send) {
            return barred(bar);
        }
        self.rise(send.epoch, send.low);
        if let Some(ticket) = self.shelf.find(cancel.id, cancel.digest) {
            return self.revoke(ticket, Revoked::by(cancel), now);
        }
        if self.shelf.with_id(cancel.id).next().is_some() {
            return Cancelled::Ignored(Counter::OtherContent);
        }
        if send.pos < send.low.max(self.low()) {
            return Cancelled::Ignored(Counter::Settled);
        }
        let seq_low = send.seq_low.unwrap_or(1);
        let turn = |seq| self.lanes.turn(&cancel.subject, seq, seq_low);
        match send.seq.map(turn) {
            Some(Turn::Gap { expected }) => Cancelled::Deferred {
                deferral: Deferral::Gap,
                expected_seq: Some(expected),
            },
            // Taken before, and forgotten since.
            Some(Turn::Past) => Cancelled::Ignored(Counter::Settled),
            Some(Turn::Next) | None => self.bury(cancellation, now),
        }
    }

    /// Answers a cancellation without writing anything: what runs can be stopped all the same.
    pub(super) fn halt(&self, cancellation: &Cancellation) -> Cancelled {
        let (send, cancel) = (&cancellation.send, &cancellation.body);
        if let Err(bar) = check::admit(&self.standing(), send) {
            return barred(bar);
        }
        let ticket = self.shelf.find(cancel.id, cancel.digest);
        let known = ticket.and_then(|ticket| Some((ticket, &self.shelf.get(ticket)?.phase)));
        match known {
            Some((ticket, Phase::Started(_))) => Cancelled::Stop(ticket),
            Some((ticket, Phase::Final(_))) => Cancelled::Over(ticket),
            Some((_, Phase::Received)) | None => not_now(Deferral::Storage),
        }
    }

    /// An order the journal knows is cancelled.
    fn revoke(&mut self, ticket: Ticket, revoked: Revoked, now: &Moment) -> Cancelled {
        let Some(entry) = self.shelf.get(ticket).cloned() else {
            return Cancelled::Ignored(Counter::Settled);
        };
        if let Some(seq) = entry.seq {
            // As for an order that comes again: its lane may have been evicted.
            self.advance(&entry.subject, seq);
        }
        match entry.phase {
            Phase::Received => {
                let ending = called_off(entry.starts, &revoked);
                self.apply(ticket, Fact::End(ending), now).ok();
                Cancelled::Over(ticket)
            }
            Phase::Started(started) => {
                if started.revoked.is_none() {
                    self.apply(ticket, Fact::Revoke(revoked), now).ok();
                }
                Cancelled::Stop(ticket)
            }
            Phase::Final(_) => Cancelled::Over(ticket),
        }
    }

    /// Keeps the place of an order that was never seen, so that a late copy of it never runs.
    fn bury(&mut self, cancellation: &Cancellation, now: &Moment) -> Cancelled {
        if self.shelf.len() >= MAX_ENTRIES {
            return not_now(Deferral::Busy);
        }
        let (send, cancel) = (&cancellation.send, &cancellation.body);
        if let Some(seq) = send.seq {
            self.advance(&cancel.subject, seq);
        }
        let entry = Entry {
            id: cancel.id,
            digest: cancel.digest,
            subject: cancel.subject.clone(),
            ledger_id: send.ledger_id,
            pos: send.pos,
            seq: send.seq,
            idempotent: false,
            timeout_ms: 0,
            expires_at: now.wall,
            deadline: deadline(now, 0),
            starts: 0,
            phase: Phase::Final(called_off(0, &Revoked::by(cancel))),
            at: now.wall,
        };
        let ticket = self.shelf.ticket();
        self.put(ticket, entry);
        self.said(ticket, now);
        Cancelled::Over(ticket)
    }
}

/// Returns the truth about an order that was cancelled while it did not run.
fn called_off(starts: u32, revoked: &Revoked) -> Ending {
    if starts == 0 {
        Ending::plain(State::Cancelled, format!("{revoked}, and never started"))
    } else {
        Ending::plain(
            State::Interrupted,
            format!(
                "it was started before and its end is unknown; {revoked}, before it could be started again"
            ),
        )
    }
}

fn barred(bar: Bar) -> Cancelled {
    match bar {
        Bar::Ignore(counter) => Cancelled::Ignored(counter),
        Bar::Defer(deferral) => not_now(deferral),
    }
}

fn not_now(deferral: Deferral) -> Cancelled {
    Cancelled::Deferred {
        deferral,
        expected_seq: None,
    }
}
