//! One order's life in the journal: a phase, the facts that can happen to it, one total match.

use std::{fmt, sync::Arc};

use jiff::Timestamp;
use steward_protocol::{Ack, Cancel, Digest, LedgerId, MessageId, State, Subject};

use crate::clock::Moment;

/// An order's number in this journal, in the order of arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// Until when an order may be started, on the clock that does not jump.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deadline {
    /// The boot in which `boot_ms` means something.
    pub boot_id: Arc<str>,
    /// Milliseconds since that boot.
    pub boot_ms: u64,
}

/// Names an operating-system process across reuse of its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChildMark {
    /// Its number.
    pub pid: i32,
    /// When it started, in the kernel's ticks since boot.
    pub start_time: u64,
}

/// When and where an order was started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Started {
    /// By the wall clock.
    pub at: Timestamp,
    /// In which boot.
    pub boot_id: Arc<str>,
    /// By the clock of that boot.
    pub boot_ms: u64,
    /// The child, once it exists.
    pub child: Option<ChildMark>,
    /// Who wants it stopped, if anybody does.
    pub revoked: Option<Revoked>,
}

/// Who cancelled an order, and when, as the station says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revoked {
    /// Who.
    pub by: String,
    /// When.
    pub at: Timestamp,
}

impl Revoked {
    /// Returns what a cancellation says of itself.
    pub fn by(cancel: &Cancel) -> Self {
        Self {
            by: brief(cancel.by.clone()),
            at: cancel.at,
        }
    }
}

impl fmt::Display for Revoked {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "cancelled by {} at {:.0}", self.by, self.at)
    }
}

/// How an order ended, without what it wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// A final state.
    pub state: State,
    /// Why, in words.
    pub reason: Option<String>,
    /// Whether the station has said that it stored this.
    pub confirmed: bool,
    /// Bytes of output kept for it.
    pub output_bytes: u64,
}

impl Ending {
    /// Returns an ending without output.
    pub fn plain(state: State, reason: impl Into<String>) -> Self {
        Self {
            state,
            reason: Some(brief(reason.into())),
            confirmed: false,
            output_bytes: 0,
        }
    }
}

/// Most bytes of a reason. It may quote what was asked, and an answer must fit into a frame whatever that was.
pub const MAX_REASON: usize = 1024;

/// Returns `text`, cut to [`MAX_REASON`] bytes.
pub fn brief(mut text: String) -> String {
    if text.len() > MAX_REASON {
        let mark = " …";
        let end = (0..=MAX_REASON - mark.len())
            .rev()
            .find(|at| text.is_char_boundary(*at));
        text.truncate(end.unwrap_or(0));
        text.push_str(mark);
    }
    text
}

/// How far an order has come on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// Durable, not started.
    Received,
    /// Started; the end is not written.
    Started(Started),
    /// Over.
    Final(Ending),
}

/// What can happen to an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// It is about to be started.
    Start(Started),
    /// Its child exists.
    Spawn(ChildMark),
    /// Somebody wants it stopped.
    Revoke(Revoked),
    /// Its end is known, or known to be unknowable.
    End(Ending),
    /// Its end is unknown and it says that it may run again.
    Requeue,
    /// The station has stored its end.
    Confirm,
}

/// A fact that cannot happen in a phase.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("record {fact} of an order that is {phase}")]
pub struct Contradiction {
    /// The phase the order is in.
    pub phase: &'static str,
    /// What was said to happen.
    pub fact: &'static str,
}

impl Phase {
    /// Returns the phase after `fact`.
    ///
    /// # Errors
    ///
    /// Names phase and fact when the one cannot follow the other.
    pub fn next(&self, fact: Fact) -> Result<Self, Contradiction> {
        match (self, fact) {
            (Self::Received, Fact::Start(started)) => Ok(Self::Started(started)),
            (Self::Received | Self::Started(_), Fact::End(ending)) => Ok(Self::Final(ending)),
            (Self::Started(started), Fact::Spawn(child)) => Ok(Self::Started(Started {
                child: Some(child),
                ..started.clone()
            })),
            (Self::Started(started), Fact::Revoke(revoked)) => Ok(Self::Started(Started {
                revoked: Some(revoked),
                ..started.clone()
            })),
            (Self::Started(_), Fact::Requeue) => Ok(Self::Received),
            (Self::Final(ending), Fact::Confirm) => Ok(Self::Final(Ending {
                confirmed: true,
                ..ending.clone()
            })),
            (
                Self::Received,
                fact @ (Fact::Spawn(_) | Fact::Revoke(_) | Fact::Requeue | Fact::Confirm),
            )
            | (Self::Started(_), fact @ (Fact::Start(_) | Fact::Confirm))
            | (
                Self::Final(_),
                fact @ (Fact::Start(_)
                | Fact::Spawn(_)
                | Fact::Revoke(_)
                | Fact::End(_)
                | Fact::Requeue),
            ) => Err(Contradiction {
                phase: self.word(),
                fact: fact.word(),
            }),
        }
    }

    fn word(&self) -> &'static str {
        match self {
            Self::Received => "received",
            Self::Started(_) => "started",
            Self::Final(_) => "final",
        }
    }

    /// Returns the state the station is told.
    pub fn state(&self) -> State {
        match self {
            Self::Received => State::Received,
            Self::Started(_) => State::Running,
            Self::Final(ending) => ending.state,
        }
    }
}

impl Fact {
    fn word(&self) -> &'static str {
        match self {
            Self::Start(_) => "the start",
            Self::Spawn(_) => "the child",
            Self::Revoke(_) => "the cancellation",
            Self::End(_) => "the end",
            Self::Requeue => "another start",
            Self::Confirm => "the confirmation",
        }
    }
}

/// Whether an order may still be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timeliness {
    /// It may.
    InTime,
    /// Its deadline has passed.
    Late,
    /// The node was rebooted and its wall clock is not trusted: the station must say.
    CannotTell,
}

/// Whether the wall clock has been compared with the station's and found good enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WallClock {
    /// Within [`steward_protocol::limits::TRUSTED_SKEW`].
    Trusted,
    /// Not compared yet, or too far off.
    Doubtful,
}

/// What the journal keeps of one order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The order's id.
    pub id: MessageId,
    /// The digest of its bytes.
    pub digest: Digest,
    /// The subject it arrived on.
    pub subject: Subject,
    /// The ledger it comes from.
    pub ledger_id: LedgerId,
    /// Its place in that ledger.
    pub pos: u64,
    /// Its place in its lane, if it is ordered.
    pub seq: Option<u64>,
    /// Whether it may be started again when its end is unknown.
    pub idempotent: bool,
    /// How long it may run.
    pub timeout_ms: u64,
    /// After this it must not be started.
    pub expires_at: Timestamp,
    /// The same on the clock that does not jump.
    pub deadline: Deadline,
    /// How often it has been started.
    pub starts: u32,
    /// How far it has come.
    pub phase: Phase,
    /// When it came there.
    pub at: Timestamp,
}

impl Entry {
    /// Tells whether it may be started at `now`.
    pub fn timeliness(&self, now: &Moment, wall: WallClock) -> Timeliness {
        let same_boot = self.deadline.boot_id == now.boot_id;
        let late_by_wall = wall == WallClock::Trusted && now.wall > self.expires_at;
        if late_by_wall || (same_boot && now.boot_ms >= self.deadline.boot_ms) {
            Timeliness::Late
        } else if same_boot || wall == WallClock::Trusted {
            Timeliness::InTime
        } else {
            Timeliness::CannotTell
        }
    }

    /// Returns what the station is told about it; the outcome is added by whoever keeps it.
    pub fn ack(&self) -> Ack {
        let reason = match &self.phase {
            Phase::Received | Phase::Started(_) => None,
            Phase::Final(ending) => ending.reason.clone(),
        };
        Ack {
            id: self.id,
            digest: self.digest,
            state: self.phase.state(),
            at: self.at,
            reason,
            deferral: None,
            expected_seq: None,
            outcome: None,
        }
    }
}
