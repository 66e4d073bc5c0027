//! What is asked of the journal, what it answers, and what it wants made durable.
//!
//! Plain values; the decisions are the parent's.

use std::collections::BTreeSet;

use jiff::Timestamp;
use steward_protocol::{
    Ack, Cancel, Deferral, Digest, Domain, Frame, JournalId, LedgerId, MessageId, Outcome, Sealed,
    Send, State, Subject,
};

use super::{
    entry::{ChildMark, Contradiction, Entry, Phase, Started, Ticket},
    lanes::Lane,
    local::{Deed, LocalAnswer, LocalAsk, LocalOrder},
    reign::{Welcomed, Word},
    schedule::Schedule,
    spool::{Kept, Notice},
};
use crate::{clock::Moment, counters::Counter};

/// Who this journal is and which ledger it belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// Drawn when it was created.
    pub journal_id: JournalId,
    /// How often it has been opened.
    pub starts: u64,
    /// The ledger it belongs to, once it has been welcomed.
    pub pinned: Option<Pinned>,
}

/// The ledger a journal belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pinned {
    /// Which.
    pub ledger_id: LedgerId,
    /// The latest reign seen.
    pub epoch: u64,
    /// Everything with a smaller place is settled.
    pub low: u64,
}

/// Everything durable, as a store returns it.
#[derive(Debug)]
pub struct Image {
    /// Who it is.
    pub identity: Identity,
    /// The orders.
    pub entries: Vec<(Ticket, Entry)>,
    /// The lanes.
    pub lanes: Vec<(Subject, Lane)>,
    /// The events not handed over.
    pub events: Vec<Kept>,
    /// Events that had to go since the journal was created.
    pub dropped: u64,
    /// Orders this node gave itself.
    pub locals: Vec<(Ticket, LocalOrder)>,
    /// The schedules.
    pub schedules: Vec<(Domain, Schedule)>,
}

/// What the config decides.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Most orders taken but not started.
    pub queue: usize,
    /// Most bytes of output kept.
    pub results_budget: u64,
    /// A ledger that may take over from the one pinned.
    pub accept_ledger: Option<LedgerId>,
}

/// What is to become of an order the journal does not know yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stance {
    /// It is welcome.
    Serve,
    /// It is refused for good; says why.
    Refuse(String),
    /// Not now.
    Hold(Deferral),
}

/// An order as it arrived.
#[derive(Debug, Clone)]
pub struct Offer {
    /// This transmission.
    pub send: Send,
    /// The order.
    pub order: Sealed,
    /// What is to become of it if it is new.
    pub stance: Stance,
}

impl Offer {
    /// Returns the order's place in its lane and the lane's smallest unsettled one, if it is ordered.
    pub(super) fn lane(&self) -> Option<(u64, u64)> {
        let seq = self.send.seq.filter(|_| self.order.order().ordered)?;
        Some((seq, self.send.seq_low.unwrap_or(1)))
    }

    /// Returns what the journal keeps of the order when it is new.
    pub(super) fn entry(&self, now: &Moment) -> Entry {
        let order = self.order.order();
        Entry {
            id: order.id,
            digest: self.order.digest(),
            subject: order.subject.clone(),
            ledger_id: self.send.ledger_id,
            pos: self.send.pos,
            seq: self.lane().map(|(seq, _)| seq),
            // A transfer goes on where it was; it does nothing twice.
            idempotent: order.idempotent || crate::transfer::carries(&order.subject.method),
            timeout_ms: order.timeout_ms,
            expires_at: order.expires_at,
            deadline: super::deadline(now, self.send.ttl_left_ms),
            starts: 0,
            phase: Phase::Received,
            at: now.wall,
        }
    }
}

/// The cancellation of an order as it arrived, under the header the order itself would have.
pub type Cancellation = Frame<Send, Cancel>;

/// An order that cannot be read, but named.
#[derive(Debug, Clone)]
pub struct Unread {
    /// Its id.
    pub id: MessageId,
    /// The digest of its bytes.
    pub digest: Digest,
    /// Where it arrived.
    pub subject: Subject,
    /// Why it is refused.
    pub reason: String,
}

/// The end of an order, as its process saw it.
#[derive(Debug, Clone)]
pub struct Finish {
    /// A final state.
    pub state: State,
    /// Why, in words.
    pub reason: Option<String>,
    /// What came of it, if it ran.
    pub outcome: Option<Outcome>,
}

/// A question.
#[derive(Debug)]
pub enum Ask {
    /// An order arrived.
    Offer(Box<Offer>),
    /// An order arrived that can only be named.
    Unread(Unread),
    /// An order is cancelled.
    Cancel(Box<Cancellation>),
    /// An order is cancelled and the journal could not be written: what can be done all the same?
    Halt(Box<Cancellation>),
    /// It is this order's turn: may it be started?
    Begin(Ticket),
    /// The child exists.
    Spawned(Ticket, ChildMark),
    /// How an order stands that is at work here.
    Standing(Ticket),
    /// An order is over.
    Finish(Ticket, Box<Finish>),
    /// An order was started and its end cannot be known; says why.
    Lost(Ticket, String),
    /// The station spoke.
    Word(Word),
    /// Something happened that the station is to know.
    Report(Box<Notice>),
    /// A method of the agent itself is done with its order.
    Perform(Ticket, Box<Deed>),
    /// Something about orders this node gives itself.
    Local(Box<LocalAsk>),
    /// What is to be said again?
    Due {
        /// Whether the station has just come back, so that everything is due.
        all: bool,
        /// A random number.
        dice: u64,
    },
    /// Which orders of this subject are not over?
    Open(Subject),
    /// Which subjects have orders that are not over?
    OpenSubjects,
    /// What does a hello say about the journal?
    Snapshot,
    /// How far are the orders with these ids?
    Fates(Vec<MessageId>),
}

/// How far an order is, for whoever keeps something because of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// The journal does not know it, or not any more.
    Forgotten,
    /// Its end is confirmed by the station.
    Confirmed,
    /// Its end is in the journal.
    Over,
    /// It is not over.
    Open,
}

/// What becomes of an order that arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Offered {
    /// It is new, and durable once the writes are.
    Taken(Ticket),
    /// The journal knows it, or has refused it just now: its state is the answer.
    Stands(Ticket),
    /// Not now.
    Deferred {
        /// Why.
        deferral: Deferral,
        /// The sequence number waited for, at a gap.
        expected_seq: Option<u64>,
    },
    /// It is counted and not answered.
    Ignored(Counter),
}

/// What becomes of an order that is cancelled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cancelled {
    /// It is over, by this or before: its state is the answer.
    Over(Ticket),
    /// It is started: its process must stop it. Its state is the answer meanwhile.
    Stop(Ticket),
    /// Not now.
    Deferred {
        /// Why.
        deferral: Deferral,
        /// The sequence number waited for, at a gap.
        expected_seq: Option<u64>,
    },
    /// It is counted and not answered.
    Ignored(Counter),
}

/// Whether an order may be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Begun {
    /// It may, once the writes are durable.
    Go {
        /// How often it has been started, this time included.
        attempt: u32,
        /// When.
        at: Timestamp,
    },
    /// It is over without having been started: its state is the answer.
    Over(Ticket),
    /// Not before the station has spoken.
    Wait,
    /// It is started, over or forgotten already.
    Gone,
}

/// An order that is not over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenOrder {
    /// Its number.
    pub ticket: Ticket,
    /// Its id.
    pub id: MessageId,
    /// Whether it runs in its lane.
    pub ordered: bool,
    /// How long it may run.
    pub timeout_ms: u64,
    /// How often it has been started.
    pub starts: u32,
    /// When it was started, if it was.
    pub started: Option<Started>,
}

/// What is to be said again.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Due {
    /// Answers.
    pub answers: Vec<Ticket>,
    /// Events.
    pub events: Vec<u64>,
    /// When to ask next, on the clock of this boot; never, if nothing waits.
    pub next_ms: Option<u64>,
}

/// What a hello says about the journal.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Snapshot {
    /// How often the journal has been opened.
    pub counter: u64,
    /// Last sequence number taken, per subject.
    pub lanes: Vec<(Subject, u64)>,
    /// Orders that are not over.
    pub open: Vec<MessageId>,
    /// Orders that are over without the station having confirmed it.
    pub unconfirmed: Vec<MessageId>,
    /// Events that had to go since the journal was created.
    pub dropped: u64,
    /// How much is kept.
    pub held: Held,
}

/// How much a journal keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Held {
    /// Orders that wait for their turn.
    pub waiting: usize,
    /// Orders that are started and not over.
    pub started: usize,
    /// Orders that are over without the station having confirmed it.
    pub unconfirmed: usize,
    /// Bytes of output.
    pub output_bytes: u64,
    /// Events that the station has not stored.
    pub events: usize,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// To [`Ask::Offer`] and [`Ask::Unread`].
    Offered(Offered),
    /// To [`Ask::Cancel`] and [`Ask::Halt`].
    Cancelled(Cancelled),
    /// To [`Ask::Begin`].
    Begun(Begun),
    /// To [`Ask::Finish`], [`Ask::Spawned`]: done; the state is the answer to the station.
    Stands(Ticket),
    /// To [`Ask::Lost`]: it runs again.
    Again,
    /// To [`Ask::Word`].
    Word(Welcomed),
    /// To [`Ask::Report`]: kept.
    Reported,
    /// To what is asked about a local order: how it stands.
    Ack(Box<Ack>),
    /// To [`Ask::Local`].
    Local(LocalAnswer),
    /// To [`Ask::Due`].
    Due(Due),
    /// To [`Ask::Open`].
    Open(Vec<OpenOrder>),
    /// To [`Ask::OpenSubjects`].
    OpenSubjects(BTreeSet<Subject>),
    /// To [`Ask::Snapshot`].
    Snapshot(Snapshot),
    /// To [`Ask::Fates`], in the order of the ids.
    Fates(Vec<Fate>),
    /// The question contradicts what the journal knows.
    Contradiction(Contradiction),
}

/// Something to make durable.
#[derive(Debug, Clone)]
pub enum Write {
    /// Who the journal is, and whose.
    Identity(Identity),
    /// All that is known of an order, except its text and its outcome.
    Entry(Ticket, Box<Entry>),
    /// An order's own bytes.
    Text(Ticket, String),
    /// An order's bytes are not needed any more.
    DropText(Ticket),
    /// What came of an order.
    Outcome(Ticket, Box<Outcome>),
    /// An order's output goes; exit code and times stay.
    DropOutput(Ticket),
    /// An order is forgotten.
    Forget(Ticket),
    /// A lane.
    Lane(Subject, Lane),
    /// A lane is forgotten.
    ForgetLane(Subject),
    /// An event.
    Event(u64, Box<Notice>),
    /// An event is forgotten.
    ForgetEvent(u64),
    /// How many events had to go so far.
    Dropped(u64),
    /// All that is known of an order this node gave itself.
    Local(Ticket, Box<LocalOrder>),
    /// Such an order is over.
    ForgetLocal(Ticket),
    /// A schedule.
    Schedule(Domain, Box<Schedule>),
    /// A schedule is removed.
    ForgetSchedule(Domain),
}
