//! The states of a delivery (design section 4.3).

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// What is known of one message on its way to one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Stored durably in the station's ledger.
    Accepted,
    /// Handed to the broker at least once.
    Sent,
    /// Stored durably in the agent's journal.
    Received,
    /// The journal says it was started.
    Running,
    /// Final: the node's ACK for exactly this order says it ended as asked.
    Succeeded,
    /// Final: ran, and ended with another exit code or by a signal, or could not be started.
    Failed,
    /// Final: stopped by the agent at its command timeout.
    TimedOut,
    /// Final: never ran and never will, or was stopped on request.
    Cancelled,
    /// Final: the agent refused for good and journaled the refusal first.
    Rejected,
    /// Final: the deadline passed and it provably never started.
    Expired,
    /// Final: it was started and its end cannot be known any more.
    Interrupted,
    /// Not final: the node asks to be tried again later, and says why.
    Deferred,
    /// Not final: the deadline passed without proof either way.
    Unknown,
}

impl State {
    /// Every state, in the order of the design's table.
    pub const ALL: [Self; 13] = [
        Self::Accepted,
        Self::Sent,
        Self::Received,
        Self::Running,
        Self::Succeeded,
        Self::Failed,
        Self::TimedOut,
        Self::Cancelled,
        Self::Rejected,
        Self::Expired,
        Self::Interrupted,
        Self::Deferred,
        Self::Unknown,
    ];

    /// Tells whether nothing can change it any more.
    pub fn is_final(self) -> bool {
        match self {
            Self::Succeeded
            | Self::Failed
            | Self::TimedOut
            | Self::Cancelled
            | Self::Rejected
            | Self::Expired
            | Self::Interrupted => true,
            Self::Accepted
            | Self::Sent
            | Self::Received
            | Self::Running
            | Self::Deferred
            | Self::Unknown => false,
        }
    }

    /// Returns the word used on the wire, in the ledger and on every screen.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Sent => "sent",
            Self::Received => "received",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
            Self::Cancelled => "cancelled",
            Self::Rejected => "rejected",
            Self::Expired => "expired",
            Self::Interrupted => "interrupted",
            Self::Deferred => "deferred",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.as_str())
    }
}

/// A word that is not a state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is not a state; known are {}", State::ALL.map(State::as_str).join(", "))]
pub struct UnknownState {
    /// The word found.
    pub found: String,
}

impl FromStr for State {
    type Err = UnknownState;

    fn from_str(text: &str) -> Result<Self, UnknownState> {
        Self::ALL
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or_else(|| UnknownState {
                found: text.to_owned(),
            })
    }
}
