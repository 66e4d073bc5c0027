//! The journal's decisions: what an order, a fact or a word of the station changes.
//!
//! Pure: a question and a moment go in, an answer and the writes that make it true come out. It
//! knows no store, no clock, no bus, no task and no dice. Whoever asks must make the writes durable
//! before acting on the answer (rules J1, J4, J8), and after a failed write throw this value away
//! and [`Journal::reload`] it from what is durable.

use std::{collections::HashMap, sync::Arc};

use steward_protocol::{Deferral, InstanceId, Method, Outcome, State, Subject, limits};

use crate::{
    check::{self, Bar, Standing},
    clock::Moment,
    counters::Counter,
};

mod cancel;
mod due;
pub mod entry;
pub mod lanes;
pub mod local;
mod reign;
pub mod schedule;
mod shelf;
pub mod spool;
mod talk;

pub use self::{
    entry::{
        ChildMark, Contradiction, Deadline, Ending, Entry, Phase, Revoked, Started, Ticket,
        WallClock,
    },
    reign::{Welcomed, What, Word},
    talk::{
        Answer, Ask, Begun, Cancellation, Cancelled, Due, Fate, Finish, Held, Identity, Image,
        Limits, Offer, Offered, OpenOrder, Pinned, Snapshot, Stance, Unread, Write,
    },
};
use self::{
    entry::{Fact, Timeliness},
    lanes::{Lanes, Turn},
    local::Locals,
    shelf::Shelf,
    spool::{Resend, Spool},
};

/// Most entries kept. Entries are small and go once confirmed and below `low`; this bounds what a
/// confused station or a forger can make a node keep.
pub const MAX_ENTRIES: usize = 200_000;

/// The journal of one start of the agent.
#[derive(Debug)]
pub struct Journal {
    instance: InstanceId,
    limits: Limits,
    identity: Identity,
    shelf: Shelf,
    lanes: Lanes,
    spool: Spool,
    /// Events that had to go since the journal was created.
    dropped: u64,
    locals: Locals,
    /// Plans for answers; one that is missing is due at once.
    resends: HashMap<Ticket, Resend>,
    welcomed: bool,
    wall: WallClock,
    /// The two clocks when the station last welcomed this start.
    welcomed_at: Option<(jiff::Timestamp, u64)>,
    writes: Vec<Write>,
}

impl Journal {
    /// Returns the journal of a new start.
    pub fn new(instance: InstanceId, limits: Limits, image: Image) -> Self {
        let mut journal = Self {
            instance,
            limits,
            identity: image.identity,
            shelf: Shelf::default(),
            lanes: Lanes::default(),
            spool: Spool::default(),
            dropped: 0,
            locals: Locals::default(),
            resends: HashMap::new(),
            welcomed: false,
            wall: WallClock::Doubtful,
            welcomed_at: None,
            writes: Vec::new(),
        };
        journal.reload(image);
        journal
    }

    /// Replaces what is believed by what is durable; what this start learned stays.
    pub fn reload(&mut self, image: Image) {
        // A pin that did not become durable was no welcome.
        self.welcomed &= image.identity.pinned.map(|pinned| pinned.ledger_id)
            == self.identity.pinned.map(|pinned| pinned.ledger_id);
        self.identity = image.identity;
        self.shelf = Shelf::after(&self.shelf);
        for (ticket, entry) in image.entries {
            self.shelf.put(ticket, entry);
        }
        self.lanes = Lanes::new(image.lanes);
        self.spool = Spool::new(image.events);
        self.dropped = image.dropped;
        self.locals.reload(image.locals, image.schedules);
        self.writes.clear();
    }

    /// Answers a question and returns what must be durable before the answer is used.
    pub fn next(&mut self, ask: Ask, now: &Moment) -> (Answer, Vec<Write>) {
        self.doubt(now);
        let answer = match ask {
            Ask::Offer(offer) => Answer::Offered(self.offer(*offer, now)),
            Ask::Unread(unread) => Answer::Offered(self.unread(unread, now)),
            Ask::Cancel(cancellation) => Answer::Cancelled(self.cancel(&cancellation, now)),
            Ask::Halt(cancellation) => Answer::Cancelled(self.halt(&cancellation)),
            Ask::Begin(ticket) if ticket.is_local() => self.begin_local(ticket, now),
            Ask::Spawned(ticket, child) if ticket.is_local() => {
                self.fact_local(ticket, Fact::Spawn(child), now)
            }
            Ask::Finish(ticket, finish) if ticket.is_local() => {
                self.finish_local(ticket, *finish, now)
            }
            Ask::Lost(ticket, reason) if ticket.is_local() => self.lost_local(ticket, reason, now),
            Ask::Perform(ticket, deed) => self.perform(ticket, *deed, now),
            Ask::Local(ask) => Answer::Local(self.local(*ask, now)),
            Ask::Begin(ticket) => self.begin(ticket, now),
            Ask::Spawned(ticket, child) => self.stands(ticket, Fact::Spawn(child), now),
            Ask::Finish(ticket, finish) => self.finish(ticket, *finish, now),
            Ask::Lost(ticket, reason) => self.lost(ticket, reason, now),
            Ask::Word(word) => Answer::Word(self.word(word, now)),
            Ask::Report(notice) => self.report(*notice),
            Ask::Due { all, dice } => Answer::Due(self.due(all, dice, now)),
            Ask::Open(subject) => Answer::Open(self.open(&subject)),
            Ask::OpenSubjects => Answer::OpenSubjects(self.shelf.open_subjects()),
            Ask::Snapshot => Answer::Snapshot(self.snapshot()),
            Ask::Fates(ids) => Answer::Fates(ids.into_iter().map(|id| self.fate(id)).collect()),
        };
        (answer, std::mem::take(&mut self.writes))
    }

    /// Returns what is kept of an order.
    pub fn entry(&self, ticket: Ticket) -> Option<&Entry> {
        match ticket.is_local() {
            true => self.locals.get(ticket).map(|local| &local.entry),
            false => self.shelf.get(ticket),
        }
    }

    /// Returns who the journal is and whose.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    fn standing(&self) -> Standing {
        Standing {
            instance: self.instance,
            welcomed: self.welcomed,
            pinned: self
                .identity
                .pinned
                .map(|pinned| (pinned.ledger_id, pinned.epoch)),
        }
    }

    fn offer(&mut self, offer: Offer, now: &Moment) -> Offered {
        match check::admit(&self.standing(), &offer.send) {
            Ok(()) => {}
            Err(Bar::Ignore(counter)) => return Offered::Ignored(counter),
            Err(Bar::Defer(deferral)) => return deferred(deferral),
        }
        self.rise(offer.send.epoch, offer.send.low);
        let order = offer.order.order();
        if let Some(ticket) = self.shelf.find(order.id, offer.order.digest()) {
            return self.repeat(ticket, &offer, now);
        }
        if offer.send.pos < offer.send.low.max(self.low()) {
            return Offered::Ignored(Counter::Settled);
        }
        let conflict = self.shelf.with_id(order.id).next().is_some();
        let lane = offer.lane();
        match lane.map(|(seq, seq_low)| self.lanes.turn(&order.subject, seq, seq_low)) {
            Some(Turn::Gap { expected }) => {
                return Offered::Deferred {
                    deferral: Deferral::Gap,
                    expected_seq: Some(expected),
                };
            }
            Some(Turn::Past) if !conflict => return Offered::Ignored(Counter::Settled),
            Some(Turn::Next | Turn::Past) | None => {}
        }
        let entry = offer.entry(now);
        if let Some(ending) = self.verdict(&offer, &entry, conflict, now) {
            let refused = self.take(Phase::Final(ending), entry, &offer);
            if let Offered::Stands(ticket) = refused {
                self.said(ticket, now);
            }
            return refused;
        }
        if let Stance::Hold(deferral) = offer.stance {
            return deferred(deferral);
        }
        if self.shelf.received().len() >= self.limits.queue {
            return deferred(Deferral::Busy);
        }
        self.take(Phase::Received, entry, &offer)
    }

    /// Returns how a new order ends at once, if it does.
    fn verdict(
        &self,
        offer: &Offer,
        entry: &Entry,
        conflict: bool,
        now: &Moment,
    ) -> Option<Ending> {
        if conflict {
            return Some(Ending::plain(
                State::Rejected,
                "another order with this id and other content is in this node's journal; an id is used once",
            ));
        }
        if offer.send.ttl_left_ms == 0 || entry.timeliness(now, self.wall) == Timeliness::Late {
            return Some(Ending::plain(State::Expired, NEVER_STARTED));
        }
        match &offer.stance {
            Stance::Refuse(reason) => Some(Ending::plain(State::Rejected, reason.clone())),
            Stance::Serve | Stance::Hold(_) => None,
        }
    }

    fn take(&mut self, phase: Phase, mut entry: Entry, offer: &Offer) -> Offered {
        if self.shelf.len() >= MAX_ENTRIES {
            return deferred(Deferral::Busy);
        }
        if let Some((seq, _)) = offer.lane() {
            self.advance(&entry.subject.clone(), seq);
        }
        entry.phase = phase;
        let ticket = self.shelf.ticket();
        let fresh = entry.phase == Phase::Received;
        self.put(ticket, entry);
        if fresh {
            let text = offer.order.text().to_owned();
            self.writes.push(Write::Text(ticket, text));
            Offered::Taken(ticket)
        } else {
            Offered::Stands(ticket)
        }
    }

    /// An order the journal knows arrived again: never run again, answered with the truth.
    fn repeat(&mut self, ticket: Ticket, offer: &Offer, now: &Moment) -> Offered {
        if let Some((seq, _)) = offer.lane() {
            // Its lane may have been evicted; what is known was taken, and so was all before it.
            self.advance(&offer.order.order().subject, seq);
        }
        let Some(entry) = self.shelf.get(ticket) else {
            return Offered::Ignored(Counter::Settled);
        };
        let (waits, late) = (entry.phase == Phase::Received, offer.send.ttl_left_ms == 0);
        // What may be started again needs a deadline of this boot as well, should it come to that: the
        // station, which was told that it runs, does not send it again for that.
        let may_wait = matches!(entry.phase, Phase::Started(_)) && entry.idempotent;
        if waits && late {
            let ending = too_late(entry);
            self.apply(ticket, Fact::End(ending), now).ok();
        } else if waits || may_wait {
            let entry = Entry {
                deadline: deadline(now, offer.send.ttl_left_ms),
                ..entry.clone()
            };
            self.put(ticket, entry);
        }
        Offered::Stands(ticket)
    }

    fn unread(&mut self, unread: Unread, now: &Moment) -> Offered {
        let Some(pinned) = self.identity.pinned.filter(|_| self.welcomed) else {
            return Offered::Ignored(Counter::BeforeWelcome);
        };
        if let Some(ticket) = self.shelf.find(unread.id, unread.digest) {
            return Offered::Stands(ticket);
        }
        if self.shelf.len() >= MAX_ENTRIES {
            return deferred(Deferral::Busy);
        }
        let entry = Entry {
            id: unread.id,
            digest: unread.digest,
            subject: unread.subject,
            ledger_id: pinned.ledger_id,
            // Its header cannot be read; once confirmed it may go.
            pos: 0,
            seq: None,
            idempotent: false,
            timeout_ms: 0,
            expires_at: now.wall,
            deadline: deadline(now, 0),
            starts: 0,
            phase: Phase::Final(Ending::plain(State::Rejected, unread.reason)),
            at: now.wall,
        };
        let ticket = self.shelf.ticket();
        self.put(ticket, entry);
        self.said(ticket, now);
        Offered::Stands(ticket)
    }

    fn begin(&mut self, ticket: Ticket, now: &Moment) -> Answer {
        let Some(entry) = self.shelf.get(ticket) else {
            return Answer::Begun(Begun::Gone);
        };
        if entry.phase != Phase::Received {
            return Answer::Begun(Begun::Gone);
        }
        if !self.welcomed {
            return Answer::Begun(Begun::Wait);
        }
        let ending = if entry.pos < self.low() && entry.starts == 0 {
            Some(Ending::plain(
                State::Cancelled,
                "the station had settled it before its turn came",
            ))
        } else {
            match entry.timeliness(now, self.wall) {
                Timeliness::Late => Some(too_late(entry)),
                Timeliness::CannotTell => return Answer::Begun(Begun::Wait),
                Timeliness::InTime => None,
            }
        };
        if let Some(ending) = ending {
            return match self.apply(ticket, Fact::End(ending), now) {
                Ok(()) => Answer::Begun(Begun::Over(ticket)),
                Err(contradiction) => Answer::Contradiction(contradiction),
            };
        }
        let started = Started {
            at: now.wall,
            boot_id: Arc::clone(&now.boot_id),
            boot_ms: now.boot_ms,
            child: None,
            revoked: None,
        };
        let attempt = entry.starts.saturating_add(1);
        match self.apply(ticket, Fact::Start(started), now) {
            Ok(()) => Answer::Begun(Begun::Go {
                attempt,
                at: now.wall,
            }),
            Err(contradiction) => Answer::Contradiction(contradiction),
        }
    }

    fn finish(&mut self, ticket: Ticket, finish: Finish, now: &Moment) -> Answer {
        let ending = Ending {
            state: finish.state,
            reason: finish.reason.map(entry::brief),
            // A ledger that was taken over from will never confirm.
            confirmed: self.is_foreign(ticket),
            output_bytes: finish.outcome.as_ref().map_or(0, output_bytes),
        };
        let answer = self.stands(ticket, Fact::End(ending), now);
        if let (Answer::Stands(_), Some(outcome)) = (&answer, finish.outcome) {
            self.writes.push(Write::Outcome(ticket, Box::new(outcome)));
            self.economise();
        }
        answer
    }

    fn lost(&mut self, ticket: Ticket, reason: String, now: &Moment) -> Answer {
        let entry = self.shelf.get(ticket);
        let started = entry.and_then(|entry| match &entry.phase {
            Phase::Started(started) => {
                let again = entry.idempotent || method_is_atomic(&entry.subject);
                Some((again, started.revoked.as_ref()))
            }
            Phase::Received | Phase::Final(_) => None,
        });
        let reason = match started {
            Some((true, None)) => None,
            Some((_, Some(revoked))) => Some(format!("{reason}; it was to be stopped: {revoked}")),
            Some((false, None)) | None => Some(reason),
        };
        if let Some(reason) = reason {
            let ending = Ending::plain(State::Interrupted, reason);
            return self.stands(ticket, Fact::End(ending), now);
        }
        match self.apply(ticket, Fact::Requeue, now) {
            Ok(()) => Answer::Again,
            Err(contradiction) => Answer::Contradiction(contradiction),
        }
    }

    fn stands(&mut self, ticket: Ticket, fact: Fact, now: &Moment) -> Answer {
        match self.apply(ticket, fact, now) {
            Ok(()) => Answer::Stands(ticket),
            Err(contradiction) => Answer::Contradiction(contradiction),
        }
    }

    /// Applies a fact to an order, and writes what it changed.
    fn apply(&mut self, ticket: Ticket, fact: Fact, now: &Moment) -> Result<(), Contradiction> {
        let Some(entry) = self.shelf.get(ticket) else {
            return Err(Contradiction {
                phase: "forgotten",
                fact: "anything",
            });
        };
        let starts = entry.starts + u32::from(matches!(fact, Fact::Start(_)));
        let keeps_time = matches!(fact, Fact::Spawn(_) | Fact::Revoke(_) | Fact::Confirm);
        let phase = entry.phase.next(fact)?;
        let over = matches!(phase, Phase::Final(_));
        if let Some(mut entry) = self.shelf.remove(ticket) {
            entry.phase = phase;
            entry.starts = starts;
            if !keeps_time {
                entry.at = now.wall;
            }
            self.put(ticket, entry);
        }
        if over {
            self.writes.push(Write::DropText(ticket));
            self.said(ticket, now);
        }
        Ok(())
    }

    /// Whoever asked says it now; repeating it can wait.
    fn said(&mut self, ticket: Ticket, now: &Moment) {
        let dice = spool::mix(now.boot_ms, ticket.0);
        self.resends.insert(ticket, Resend::said(now.boot_ms, dice));
    }

    fn put(&mut self, ticket: Ticket, entry: impl Into<Box<Entry>>) {
        let entry = entry.into();
        self.writes.push(Write::Entry(ticket, entry.clone()));
        self.shelf.put(ticket, entry);
    }

    fn advance(&mut self, subject: &Subject, seq: u64) {
        if let Some(lane) = self.lanes.advance(subject, seq) {
            self.writes.push(Write::Lane(subject.clone(), lane));
        }
        if let Some(evicted) = self.lanes.evict() {
            self.writes.push(Write::ForgetLane(evicted));
        }
    }

    /// Lets the oldest outputs go until the budget holds, confirmed ones first; exit codes stay.
    fn economise(&mut self) {
        let budget = self.limits.results_budget;
        while let Some(ticket) = self.shelf.surplus(budget) {
            let Some(mut entry) = self.shelf.get(ticket).cloned() else {
                return;
            };
            if let Phase::Final(ending) = &mut entry.phase {
                let note = format!(
                    "{} bytes of output were dropped to stay within this node's results_budget of {budget} bytes",
                    ending.output_bytes
                );
                ending.output_bytes = 0;
                ending.reason = Some(match ending.reason.take() {
                    Some(reason) => format!("{reason}; {note}"),
                    None => note,
                });
            }
            self.put(ticket, entry);
            self.writes.push(Write::DropOutput(ticket));
        }
    }

    fn open(&self, subject: &Subject) -> Vec<OpenOrder> {
        let mut tickets: Vec<Ticket> = self.shelf.started().iter().copied().collect();
        tickets.extend(self.shelf.received());
        tickets.sort_unstable();
        tickets
            .into_iter()
            .filter_map(|ticket| Some((ticket, self.shelf.get(ticket)?)))
            .filter(|(_, entry)| entry.subject == *subject)
            .map(|(ticket, entry)| OpenOrder {
                ticket,
                id: entry.id,
                ordered: entry.seq.is_some(),
                timeout_ms: entry.timeout_ms,
                starts: entry.starts,
                started: match &entry.phase {
                    Phase::Started(started) => Some(started.clone()),
                    Phase::Received | Phase::Final(_) => None,
                },
            })
            .collect()
    }

    fn snapshot(&self) -> Snapshot {
        let ids = |tickets: &mut dyn Iterator<Item = &Ticket>| {
            tickets
                .filter_map(|ticket| self.shelf.get(*ticket))
                .map(|entry| entry.id)
                .take(limits::MAX_IDS)
                .collect()
        };
        Snapshot {
            counter: self.identity.starts,
            lanes: self.lanes.recent(limits::MAX_IDS),
            open: ids(&mut self.shelf.started().iter().chain(self.shelf.received())),
            unconfirmed: ids(&mut self.shelf.unconfirmed().iter()),
            dropped: self.dropped,
            held: Held {
                waiting: self.shelf.received().len(),
                started: self.shelf.started().len(),
                unconfirmed: self.shelf.unconfirmed().len(),
                output_bytes: self.shelf.output_bytes(),
                events: self.spool.count(),
            },
        }
    }

    fn is_foreign(&self, ticket: Ticket) -> bool {
        let pinned = self.identity.pinned.map(|pinned| pinned.ledger_id);
        self.shelf
            .get(ticket)
            .is_some_and(|entry| Some(entry.ledger_id) != pinned)
    }

    fn low(&self) -> u64 {
        self.identity.pinned.map_or(0, |pinned| pinned.low)
    }
}

/// Tells whether what a method does becomes durable with the end of its order, so that one without an
/// end has done nothing and may be done again.
fn method_is_atomic(subject: &Subject) -> bool {
    matches!(
        Method::from_name(&subject.method),
        Some(Method::Textlogging | Method::Schedule)
    )
}

/// The reason of an expired order.
const NEVER_STARTED: &str = "its deadline passed before it was started on this node";

/// Returns the truth about an order that waited too long.
fn too_late(entry: &Entry) -> Ending {
    if entry.starts == 0 {
        Ending::plain(State::Expired, NEVER_STARTED)
    } else {
        Ending::plain(
            State::Interrupted,
            "it was started before, its end is unknown, and its deadline passed before it could be started again",
        )
    }
}

fn deferred(deferral: Deferral) -> Offered {
    Offered::Deferred {
        deferral,
        expected_seq: None,
    }
}

fn deadline(now: &Moment, ttl_left_ms: u64) -> Deadline {
    Deadline {
        boot_id: Arc::clone(&now.boot_id),
        boot_ms: now.boot_ms.saturating_add(ttl_left_ms),
    }
}

fn output_bytes(outcome: &Outcome) -> u64 {
    [&outcome.stdout, &outcome.stderr]
        .into_iter()
        .flatten()
        .map(|output| output.kept() as u64)
        .sum()
}

#[cfg(test)]
mod tests;
