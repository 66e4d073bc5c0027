//! A delivery that is not final: what is known of it, and when it wants attention.
//!
//! Pure. Windows and turns are the link's business.

use std::{collections::BTreeSet, time::Duration};

use jiff::Timestamp;
use steward_protocol::{
    Ack, Deferral, Digest, Domain, Kind, MessageId, MethodName, NodeName, State, Subject,
};

use crate::{
    courier::record::{Accepted, Addressee},
    roster::Moment,
};

/// Kind, method and domain: a subject without its node. Ordered messages of one lane run one at a time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LaneName {
    /// Command or event.
    pub kind: Kind,
    /// The functionality.
    pub method: MethodName,
    /// What it is for.
    pub domain: Domain,
}

impl LaneName {
    /// Returns the subject of this lane on `node`.
    pub fn on(&self, node: &NodeName) -> Subject {
        Subject {
            node: node.clone(),
            kind: self.kind,
            method: self.method.clone(),
            domain: self.domain.clone(),
        }
    }
}

impl std::fmt::Display for LaneName {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}.{}.{}", self.kind, self.method, self.domain)
    }
}

/// Who asked for a cancellation, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CancelRequest {
    /// When, by the station's clock.
    pub at: Timestamp,
    /// Who, as the station knows it.
    pub by: String,
}

/// A delivery that is not final.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Open {
    /// The message.
    pub id: MessageId,
    /// Its place in the ledger.
    pub pos: u64,
    /// Its lane.
    pub lane: LaneName,
    /// Whether its place in the lane matters.
    pub ordered: bool,
    /// Digest of the order for this node.
    pub digest: Digest,
    /// Exit codes the order calls success.
    pub success_codes: Vec<i32>,
    /// How long it may run.
    pub timeout: Duration,
    /// After this it must not be started.
    pub expires_at: Timestamp,
    /// How it stands.
    pub state: State,
    /// How often the order was sent; its cancellation is not counted.
    pub attempts: u32,
    /// Its place in the lane, once it was sent.
    pub seq: Option<u64>,
    /// The request to call it off, if there is one: from then on only that travels.
    pub cancel: Option<CancelRequest>,
    /// Places of earlier messages that must be settled on this node before this one is sent.
    pub held_by: BTreeSet<u64>,
    pub(crate) schedule: Schedule,
}

/// When a delivery wants attention. Lives in memory only: a restart looks at everything at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Schedule {
    /// When it is to be sent next; none while the node has it.
    pub(super) due: Option<Duration>,
    /// When it, or its cancellation, was last sent.
    pub(super) sent: Option<Duration>,
    /// Sendings since the node was last heard about it.
    pub(super) tries: u32,
    /// How often in a row the node has put it off.
    pub(super) put_offs: u32,
    /// Why the node put it off.
    pub(super) deferral: Option<Deferral>,
    /// When silence about it becomes `expired` or `unknown`; none once it has.
    pub(super) review: Option<Timestamp>,
}

impl Open {
    /// Returns the delivery of a message just accepted, held by whatever the message says.
    pub fn accepted(accepted: &Accepted, target: &Addressee) -> Self {
        let message = &accepted.message;
        let holds = accepted.holds.iter();
        Self {
            id: accepted.id,
            pos: accepted.pos,
            lane: LaneName {
                kind: message.kind,
                method: message.method.clone(),
                domain: message.domain.clone(),
            },
            ordered: message.options.ordered,
            digest: target.digest,
            success_codes: message.options.success_codes.clone(),
            timeout: message.options.timeout,
            expires_at: accepted.expires_at,
            state: State::Accepted,
            attempts: 0,
            seq: None,
            cancel: None,
            held_by: holds
                .filter(|(node, _)| *node == target.node)
                .map(|(_, pos)| *pos)
                .collect(),
            schedule: Schedule::immediate(Some(accepted.expires_at)),
        }
    }

    /// Returns this delivery as a restart finds it: its state since `since`, everything due at once.
    #[must_use]
    pub fn after_restart(mut self, since: Timestamp) -> Self {
        // The deadline of what is already unknown has had its effect.
        let review = (self.state != State::Unknown)
            .then(|| review_after_word(self.state, self.expires_at, self.timeout, since));
        self.schedule = Schedule::immediate(review);
        self
    }

    /// Whether the node asked to be tried later, and that is not yet.
    pub(super) fn is_put_off(&self, now: Moment) -> bool {
        self.schedule.deferral.is_some() && self.schedule.due.is_some_and(|due| due > now.mono)
    }

    /// Whether the node put it off for a reason of its own; a gap is none, that is for us to fill.
    pub(super) fn asked_to_wait(&self) -> bool {
        let deferral = self.schedule.deferral;
        deferral.is_some_and(|deferral| deferral != Deferral::Gap)
    }

    /// Its turn in its lane: what has a number goes by it, the rest follows by age.
    pub(super) fn turn(&self) -> (u64, u64) {
        (self.seq.unwrap_or(u64::MAX), self.pos)
    }
}

impl Schedule {
    /// Returns the schedule of something to be sent at the first opportunity.
    pub(crate) fn immediate(review: Option<Timestamp>) -> Self {
        Self {
            due: Some(Duration::ZERO),
            sent: None,
            tries: 0,
            put_offs: 0,
            deferral: None,
            review,
        }
    }

    /// Makes it due now, as if it had never been tried.
    pub(super) fn wake(&mut self, now: Moment) {
        self.due = Some(now.mono);
        self.tries = 0;
        self.put_offs = 0;
    }
}

/// How long after its deadline a running command may still be silent.
pub(crate) fn review_after_word(
    state: State,
    expires_at: Timestamp,
    timeout: Duration,
    now: Timestamp,
) -> Timestamp {
    /// Stopping a command, writing it down and telling us takes a while beyond its timeout.
    const SLACK: Duration = Duration::from_secs(60);
    let ended = now
        .saturating_add(timeout + SLACK)
        .unwrap_or(Timestamp::MAX);
    match state {
        State::Running => expires_at.max(ended),
        State::Received if now >= expires_at => ended,
        _ => expires_at,
    }
}

/// What an ACK means for the schedule.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Word {
    pub(super) state: State,
    pub(super) deferral: Option<Deferral>,
    pub(super) expected_seq: Option<u64>,
}

impl Word {
    /// Returns what `ack` means for the schedule.
    pub(crate) fn of(ack: &Ack) -> Self {
        Self {
            state: ack.state,
            deferral: ack.deferral,
            expected_seq: ack.expected_seq,
        }
    }
}
