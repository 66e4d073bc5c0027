//! What an agent says about one order.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    id::{Digest, MessageId},
    output::Output,
    state::State,
};

/// "This is how things stand with order `id`." Matched by id and digest, never by subject (rule J5).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {
    /// The order's id.
    pub id: MessageId,
    /// Digest of the order's bytes as the agent received them.
    pub digest: Digest,
    /// How it stands.
    pub state: State,
    /// The agent's wall clock when the fact was written to its journal.
    pub at: Timestamp,
    /// Why, in words, where the state alone does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Why the order was not taken now; present exactly when `state` is `deferred`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deferral: Option<Deferral>,
    /// The sequence number the agent waits for, when it saw a gap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_seq: Option<u64>,
    /// What came of running it; present when it ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
}

impl Ack {
    /// Returns the answer to an order that is not taken now.
    pub fn deferred((id, digest): (MessageId, Digest), why: Deferral, at: Timestamp) -> Self {
        Self {
            id,
            digest,
            state: State::Deferred,
            at,
            reason: None,
            deferral: Some(why),
            expected_seq: None,
            outcome: None,
        }
    }
}

/// Why an order was not taken now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Deferral {
    /// The node's queue is full.
    Busy,
    /// The journal cannot be written (rule J8).
    Storage,
    /// The order was sent to an earlier start of this agent.
    StaleInstance,
    /// The order comes from an earlier reign of the station.
    StaleEpoch,
    /// The order comes from a ledger this agent does not belong to.
    ForeignLedger,
    /// An earlier sequence number is missing.
    Gap,
    /// The agent is ending.
    Stopping,
    /// The process for this subject has been given up by the error kernel.
    Stopped,
    /// A reason that a later version introduced.
    #[serde(other)]
    Other,
}

impl Deferral {
    /// Returns the word used on the wire and on screens.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::Storage => "storage",
            Self::StaleInstance => "stale instance",
            Self::StaleEpoch => "stale epoch",
            Self::ForeignLedger => "foreign ledger",
            Self::Gap => "gap",
            Self::Stopping => "stopping",
            Self::Stopped => "process stopped",
            Self::Other => "another reason",
        }
    }
}

/// The result of running an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// The exit code, unless a signal ended it or the end is unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The signal that ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// When it was started, by the agent's clock.
    pub started_at: Timestamp,
    /// When it ended, by the agent's clock.
    pub finished_at: Timestamp,
    /// What it wrote to standard output; absent when it could not be kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdout: Option<Output>,
    /// What it wrote to standard error; absent when it could not be kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stderr: Option<Output>,
}

/// An ACK that contradicts itself or its order.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AckError {
    /// Only the station can be in this state.
    #[error("an agent cannot report the state {0}")]
    NotAnAgents(State),
    /// A success without an exit code that the order calls success.
    #[error(
        "reports succeeded with exit code {exit_code:?}, but the order calls {success_codes:?} success"
    )]
    FalseSuccess {
        /// The exit code reported.
        exit_code: Option<i32>,
        /// The codes the order calls success.
        success_codes: Vec<i32>,
    },
    /// A deferral without its kind, or a kind without a deferral.
    #[error("names a deferral in the state {0}, or none in the state deferred")]
    Deferral(State),
}

impl Ack {
    /// Checks that the ACK does not contradict itself or the order's idea of success.
    ///
    /// # Errors
    ///
    /// Says which claim has no support; such an ACK proves nothing and is not merged.
    pub fn check(&self, success_codes: &[i32]) -> Result<(), AckError> {
        if (self.state == State::Deferred) != self.deferral.is_some() {
            return Err(AckError::Deferral(self.state));
        }
        match self.state {
            State::Accepted | State::Sent | State::Unknown => {
                Err(AckError::NotAnAgents(self.state))
            }
            State::Succeeded => {
                let exit_code = self.outcome.as_ref().and_then(|outcome| outcome.exit_code);
                match exit_code {
                    Some(code) if success_codes.contains(&code) => Ok(()),
                    Some(_) | None => Err(AckError::FalseSuccess {
                        exit_code,
                        success_codes: success_codes.to_vec(),
                    }),
                }
            }
            State::Received
            | State::Running
            | State::Failed
            | State::TimedOut
            | State::Cancelled
            | State::Rejected
            | State::Expired
            | State::Interrupted
            | State::Deferred => Ok(()),
        }
    }

    /// Cuts the outputs until the ACK's JSON is at most `limit` bytes, keeping lengths and digests.
    pub fn fit(&mut self, limit: usize) {
        let Some(outcome) = &mut self.outcome else {
            return;
        };
        let streams =
            || serde_json::to_vec(&(&outcome.stdout, &outcome.stderr)).map_or(0, |json| json.len());
        if streams() <= limit {
            return;
        }
        // Base64 and the escapes cost at most 4/3; what surrounds the bytes of a stream is below 256 bytes.
        let share = (limit / 2).saturating_sub(256) * 3 / 4;
        for output in [&mut outcome.stdout, &mut outcome.stderr]
            .into_iter()
            .flatten()
        {
            output.shrink(share);
        }
    }
}
