//! What a node says unasked, and what the station answers: hello, welcome, confirm, fault, text, report.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{
    ack::Ack,
    id::{EventId, MessageId},
    name::{Domain, MethodName},
    subject::Subject,
};

/// The heartbeat of a node, and its introduction after every reconnection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// How often this journal has been opened; a higher one supersedes at once.
    pub counter: u64,
    /// The kernel's boot id.
    pub boot_id: String,
    /// The agent's program version.
    pub version: String,
    /// The agent's wall clock when it spoke; skew is measured from it.
    pub at: Timestamp,
    /// When this start of the agent began.
    pub started_at: Timestamp,
    /// Milliseconds until the next hello at the latest.
    pub interval_ms: u64,
    /// Round trip of the previous hello and its welcome, in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub round_trip_us: Option<u64>,
    /// Labels from the node's config.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Last sequence number taken, per subject.
    #[serde(default)]
    pub lanes: BTreeMap<String, u64>,
    /// Orders in the journal that are not final.
    #[serde(default)]
    pub open: Vec<MessageId>,
    /// Orders whose final answer the station has not confirmed.
    #[serde(default)]
    pub unconfirmed: Vec<MessageId>,
    /// The processes of this agent.
    #[serde(default)]
    pub processes: Vec<ProcessView>,
    /// What was counted since the start, by name: garbage frames, dropped events and so on.
    #[serde(default)]
    pub counters: BTreeMap<String, u64>,
    /// Whether the agent is about to end.
    #[serde(default)]
    pub leaving: bool,
    /// What the node is; an agent of before this field says nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub facts: Option<Facts>,
    /// What the agent has used of what it may use, by name: results, spool, queue, commands.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub budgets: BTreeMap<String, Budget>,
}

/// What a node is, as far as its kernel and its config say; what they do not say is absent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Facts {
    /// Name and version of the system, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub os: Option<String>,
    /// Release of the kernel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel: Option<String>,
    /// The processor's kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arch: Option<String>,
    /// Processors the agent may use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpus: Option<u32>,
    /// Memory in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Memory that programs could still have, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_available_bytes: Option<u64>,
    /// Size of the file system with the agent's state, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_bytes: Option<u64>,
    /// What of it the agent could still write, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_free_bytes: Option<u64>,
    /// Seconds since the node was started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uptime_s: Option<u64>,
    /// The methods its config lets it be asked for; absent when that leaves out none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub methods: Option<Vec<MethodName>>,
}

/// How much of something limited is used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Budget {
    /// What is used.
    pub used: u64,
    /// What may be used.
    pub limit: u64,
}

/// One supervised process, as its agent describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessView {
    /// The subject it serves.
    pub subject: Subject,
    /// What it is doing.
    pub state: ProcessState,
    /// Since when, by the agent's clock.
    pub since: Timestamp,
    /// How often the error kernel has restarted it.
    pub restarts: u32,
    /// Orders taken but not started.
    #[serde(default)]
    pub queued: u32,
    /// Orders answered since the process was first spawned.
    #[serde(default)]
    pub handled: u64,
    /// Its last fault, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_fault: Option<String>,
}

/// What a process is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProcessState {
    /// Ready, nothing to do.
    Idle,
    /// At work.
    Running,
    /// Waiting for its restart after a fault.
    Restarting,
    /// Given up by the error kernel.
    Stopped,
    /// A state that a later version introduced.
    #[serde(other)]
    Other,
}

impl ProcessState {
    /// Returns the word used on the wire and on screens.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Running => "running",
            Self::Restarting => "restarting",
            Self::Stopped => "stopped",
            Self::Other => "other",
        }
    }
}

/// The station's answer to a hello; no command runs before it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The station's wall clock.
    pub at: Timestamp,
    /// The hello's `at`, so that the agent can measure the round trip.
    pub hello_at: Timestamp,
}

/// The station's word that these answers and events are stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirm {
    /// Orders whose final state is recorded.
    #[serde(default)]
    pub orders: Vec<MessageId>,
    /// Events that are stored.
    #[serde(default)]
    pub events: Vec<EventId>,
}

/// A fault a node saw in itself and the verdict on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultEvent {
    /// Names the event, so that it is stored once.
    pub id: EventId,
    /// When, by the agent's clock.
    pub at: Timestamp,
    /// What kind of fault: a short word.
    pub kind: String,
    /// The process it happened in, if one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Subject>,
    /// What happened, in words.
    pub detail: String,
    /// What was decided, in words.
    pub verdict: String,
}

/// Text for the log that the station keeps for the node and the domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TextEvent {
    /// Names the event, so that it is stored once.
    pub id: EventId,
    /// When, by the agent's clock.
    pub at: Timestamp,
    /// Which of the node's logs.
    pub domain: Domain,
    /// The order it comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<MessageId>,
    /// The text before it that the station has not confirmed: it is not stored before that one is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<EventId>,
    /// The lines; a line end is added where one is missing.
    pub data: Vec<String>,
}

/// What came of an order that a node gave itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReportEvent {
    /// Names the event, so that it is stored once.
    pub id: EventId,
    /// When it ended, by the agent's clock.
    pub at: Timestamp,
    /// What gave the order: `schedule:<name>` or `startup:<file>`.
    pub source: String,
    /// The order, byte for byte as it was carried out.
    pub order: Box<RawValue>,
    /// Its final state.
    pub ack: Ack,
}
