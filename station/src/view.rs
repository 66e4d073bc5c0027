//! What the outside sees: plain structs behind the API, the command line and every later page.
//!
//! Fields are only ever added; scripts rely on them (README, "JSON for scripts").

pub mod logs;

use std::{collections::BTreeMap, path::PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use steward_protocol::{
    Budget, Digest, Facts, InstanceId, JournalId, LedgerId, MessageId, NodeName, Output,
    ProcessView, State, Subject, transfer::Extent,
};

/// One message and everything known of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MessageView {
    /// The message's id.
    pub id: MessageId,
    /// What the operator called it.
    pub name: Option<String>,
    /// Where it came from: `inbox:<file>`, `api:<name>`.
    pub source: String,
    /// Who submitted it: `uid:<n>`.
    pub submitted_by: String,
    /// When it was stored.
    pub accepted_at: Timestamp,
    /// After this no node may start it.
    pub expires_at: Timestamp,
    /// The message it repeats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_of: Option<MessageId>,
    /// The messages that repeat it, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub retried_by: Vec<MessageId>,
    /// How long its command may run on a node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// Number of the last ledger event of this message; rises with every change.
    pub version: u64,
    /// One entry per node.
    pub deliveries: Vec<DeliveryView>,
}

/// One message's way to one node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeliveryView {
    /// The node.
    pub node: NodeName,
    /// The subject it travels on.
    pub subject: Subject,
    /// What is known.
    pub state: State,
    /// Since when.
    pub since: Timestamp,
    /// On whose word.
    pub observed_by: String,
    /// How often it was sent.
    pub attempts: u32,
    /// The exit code, if it ended with one.
    pub exit_code: Option<i32>,
    /// The signal that ended it, if one did.
    pub signal: Option<i32>,
    /// Captured standard output.
    pub stdout: Option<Output>,
    /// Captured standard error.
    pub stderr: Option<Output>,
    /// Why it is in this state, or what it waits for.
    pub reason: Option<String>,
    /// When the node started it, by the node's clock.
    pub started_at: Option<Timestamp>,
    /// When it ended, by the node's clock.
    pub finished_at: Option<Timestamp>,
    /// Digest of the order sent to this node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// The request to cancel it, if there was one. It is settled only when the state is final.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancel: Option<CancelView>,
    /// The messages that must be settled on this node before this one is sent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub held_by: Vec<MessageId>,
    /// Every change of state.
    #[serde(default)]
    pub transitions: Vec<TransitionView>,
    /// What happened to it without changing its state.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<NoteView>,
}

/// How an output that was shown in full ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputEnd {
    /// Why not all of it came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
    /// The exit code, if it ended with one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The signal that ended it, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// All it wrote to standard output, kept or not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdout: Option<Extent>,
    /// All it wrote to standard error, kept or not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stderr: Option<Extent>,
}

/// A request to cancel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CancelView {
    /// When it was asked for, by the station's clock.
    pub at: Timestamp,
    /// Who asked.
    pub by: String,
}

/// Something that happened to a delivery without changing its state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoteView {
    /// When, by the station's clock.
    pub at: Timestamp,
    /// On whose word.
    pub by: String,
    /// What: `cancel requested`, `held until …`, `released: …`.
    pub text: String,
}

/// One change of state, with the party that observed it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TransitionView {
    /// The state entered.
    pub state: State,
    /// When, by the station's clock.
    pub at: Timestamp,
    /// Who observed it: the station's or the node's name.
    pub observed_by: String,
    /// Why, where the state alone does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// One message in a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MessageLine {
    /// The message's id.
    pub id: MessageId,
    /// What the operator called it.
    pub name: Option<String>,
    /// When it was stored.
    pub accepted_at: Timestamp,
    /// Where it came from.
    pub source: String,
    /// Who submitted it.
    pub submitted_by: String,
    /// Kind, method and domain: the subject without its node.
    pub what: String,
    /// Deliveries by state; states with none are left out.
    pub counts: BTreeMap<State, u64>,
}

/// What is believed of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Presence {
    /// Heard within 2.5 heartbeats.
    Online,
    /// Not heard for 2.5 heartbeats.
    Late,
    /// Not heard for 3.5 heartbeats, or it said it was leaving.
    Offline,
    /// Never heard, or not since the station started.
    Unknown,
}

impl Presence {
    /// Returns the word used on every screen.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Late => "late",
            Self::Offline => "offline",
            Self::Unknown => "unknown",
        }
    }
}

/// One node and what is believed of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeView {
    /// The node.
    pub name: NodeName,
    /// What is believed.
    pub state: Presence,
    /// Since when.
    pub since: Timestamp,
    /// Why, in words.
    pub reason: Option<String>,
    /// When it was last heard, by the station's clock.
    pub last_seen: Option<Timestamp>,
    /// The start of the agent last heard.
    pub instance: Option<InstanceId>,
    /// Its journal.
    pub journal_id: Option<JournalId>,
    /// Its program version.
    pub version: Option<String>,
    /// Its kernel's boot id.
    pub boot_id: Option<String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its clock minus the station's, in milliseconds.
    pub skew_ms: Option<i64>,
    /// Last measured round trip, in microseconds.
    pub round_trip_us: Option<u64>,
    /// A conflict that is being held back, if one is.
    pub conflict: Option<String>,
    /// Deliveries to it that are not final.
    pub open: u64,
    /// Its processes.
    pub processes: Vec<ProcessView>,
    /// What it says that it is; absent before its first hello, and for an older agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub facts: Option<Facts>,
    /// What its agent has used of what it may use, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub budgets: BTreeMap<String, Budget>,
    /// Frames under its name that were not believed since the station started, by kind.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub garbage: BTreeMap<String, u64>,
    /// How many of its faults are kept.
    #[serde(default)]
    pub fault_count: u64,
    /// Its latest faults, newest first; only where one node is shown.
    #[serde(default)]
    pub faults: Vec<FaultView>,
}

/// A sender of frames that were not believed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OffenderView {
    /// Who the frames say they are from; absent when they name nobody.
    pub sender: Option<NodeName>,
    /// How many there were since the station started.
    pub frames: u64,
    /// How many of each kind.
    pub kinds: BTreeMap<String, u64>,
    /// When the first one came.
    pub since: Timestamp,
    /// When the latest one came.
    pub last: Timestamp,
}

/// One fault, of a node or of the station.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FaultView {
    /// Its number, rising.
    pub n: u64,
    /// When it was stored.
    pub at: Timestamp,
    /// The node it concerns, if one.
    pub node: Option<NodeName>,
    /// What kind: a short word.
    pub kind: String,
    /// The process it happened in, if one.
    pub subject: Option<String>,
    /// What happened.
    pub detail: String,
    /// What was decided.
    pub verdict: String,
}

/// One ledger event, for followers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EventView {
    /// Its number, rising.
    pub n: u64,
    /// When, by the station's clock.
    pub at: Timestamp,
    /// The message.
    pub id: MessageId,
    /// What the operator called it.
    pub name: Option<String>,
    /// The node.
    pub node: NodeName,
    /// The state entered.
    pub state: State,
    /// Who observed it.
    pub observed_by: String,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// One entry of the log of faults and of what happened to messages.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LogEntry {
    /// Names it: `fault-` or `event-` and its number.
    pub key: String,
    /// When it was stored, by the station's clock.
    pub at: Timestamp,
    /// The node it concerns; absent when it concerns the station, or all nodes of a message.
    pub node: Option<NodeName>,
    /// The kind of fault, the state entered, or what else happened.
    pub kind: String,
    /// The process a fault happened in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// The message it happened to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<MessageId>,
    /// What the operator called that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What happened, or why.
    pub detail: Option<String>,
    /// What was decided about a fault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<String>,
    /// Who observed it or asked for it; absent for faults.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

/// A part of the log, oldest first, and where it goes on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LogPage {
    /// The entries.
    pub entries: Vec<LogEntry>,
    /// Number of the last fault looked at.
    pub after_fault: u64,
    /// Number of the last event looked at.
    pub after_event: u64,
}

/// The station itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StatusView {
    /// The station's node name.
    pub name: NodeName,
    /// Its program version.
    pub version: String,
    /// Its ledger.
    pub ledger_id: LedgerId,
    /// Its reign.
    pub epoch: u64,
    /// When this reign began.
    pub started_at: Timestamp,
    /// Process id of the station.
    pub pid: u32,
    /// Whether it can do its work, and if not, why not.
    pub ready: bool,
    /// What is in the way of being ready.
    pub problems: Vec<String>,
    /// The broker.
    pub broker: BrokerView,
    /// Nodes by what is believed of them.
    pub nodes: BTreeMap<Presence, u64>,
    /// Deliveries that are not final, by state.
    pub open: BTreeMap<State, u64>,
    /// Where to drop files.
    pub inbox: PathBuf,
    /// What was counted since the start, by name.
    pub counters: BTreeMap<String, u64>,
    /// The latest faults, newest first.
    pub faults: Vec<FaultView>,
    /// Who sent what was not believed, worst first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub offenders: Vec<OffenderView>,
}

/// The station's connection to its broker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrokerView {
    /// The address given, without credentials.
    pub url: String,
    /// Whether it is connected.
    pub connected: bool,
    /// Since when it has been so.
    pub since: Timestamp,
    /// The server's version, when connected.
    pub version: Option<String>,
    /// The last error, when not connected.
    pub reason: Option<String>,
}

/// Where a file in the inbox stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InboxPlace {
    /// Lying in the inbox.
    Waiting,
    /// Claimed.
    Processing,
    /// Refused.
    Rejected,
    /// Accepted.
    Done,
    /// Left alone on purpose: a dotfile, an editor's backup, a partial upload.
    Ignored,
}

/// One file of the inbox.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InboxFileView {
    /// Its name, escaped where it is not printable.
    pub name: String,
    /// Where it stands.
    pub place: InboxPlace,
    /// When it was last changed or moved there.
    pub since: Timestamp,
    /// Its size.
    pub bytes: u64,
    /// Why it stands there.
    pub reason: Option<String>,
    /// What was wrong with it.
    #[serde(default)]
    pub problems: Vec<Problem>,
    /// The messages it became.
    #[serde(default)]
    pub messages: Vec<MessageId>,
}

/// One thing wrong with a message file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Line, from 1, where it can be told.
    pub line: Option<u64>,
    /// Column in characters, from 1, where it can be told.
    pub column: Option<u64>,
    /// JSON pointer (RFC 6901) to the value; empty for the whole file.
    pub path: String,
    /// What is wrong.
    pub reason: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// What became of a submission that was accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// One entry per message, in the order of the file.
    pub messages: Vec<ReceiptLine>,
}

/// One accepted message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiptLine {
    /// Its id.
    pub id: MessageId,
    /// What the operator called it.
    pub name: Option<String>,
    /// The nodes it goes to.
    pub nodes: Vec<NodeName>,
    /// Whether this very message was known already and is not run again.
    pub recognised: bool,
    /// The message it repeats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_of: Option<MessageId>,
    /// Where it waits until what it repeats is settled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub held: Vec<NodeName>,
}

/// Which deliveries of a message to cancel. Without nodes, all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CancelAsk {
    /// On which nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<Vec<NodeName>>,
}

/// Which deliveries of a message to repeat.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetryAsk {
    /// On which nodes; without them, on all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<Vec<NodeName>>,
    /// In which states; without them, in those that ended without success.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub states: Option<Vec<State>>,
    /// Whether not to wait until the old order is settled.
    #[serde(default)]
    pub force: bool,
}

/// The states repeated when nobody says which: those that ended without success, and `unknown`.
pub const RETRIED: [State; 6] = [
    State::Failed,
    State::TimedOut,
    State::Rejected,
    State::Expired,
    State::Interrupted,
    State::Unknown,
];

/// What became of a request to cancel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CancelReceipt {
    /// The message.
    pub id: MessageId,
    /// One entry per node.
    pub nodes: Vec<CancelLine>,
}

/// What became of a request to cancel on one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CancelLine {
    /// The node.
    pub node: NodeName,
    /// How the delivery stands now.
    pub state: State,
    /// What was done.
    pub outcome: CancelOutcome,
}

/// What was done about one delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CancelOutcome {
    /// It was never sent and now never will be.
    Cancelled,
    /// The node is being asked; the delivery stays as it is until the node has spoken.
    Requested,
    /// It was being asked already, and is again.
    Repeated,
    /// It was final already; nothing was done.
    Final,
}

/// Why a delivery stands as it does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WhyView {
    /// The message.
    pub id: MessageId,
    /// What the operator called it.
    pub name: Option<String>,
    /// The node.
    pub node: NodeName,
    /// How it stands.
    pub state: State,
    /// Since when.
    pub since: Timestamp,
    /// The explanation; the last sentence says what happens next, or what can be done.
    pub sentences: Vec<Sentence>,
}

/// One sentence of an explanation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sentence {
    /// The sentence.
    pub text: String,
    /// When what it says was learned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
    /// On whose word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

/// The body of every error answer of the API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorView {
    /// What happened, where, and what to do.
    pub error: String,
    /// What is wrong with the submission, thing by thing.
    #[serde(default)]
    pub problems: Vec<Problem>,
}
