//! What a running agent says of itself on its own machine: `steward-agent status`.
//!
//! ```text
//! steward-agent status ─ connects to <state_dir>/agent.sock ─▶ agent
//!                      ◀─ one JSON document, then the end ───
//! ```
//!
//! Here is the document. Whoever asks sends nothing, and nothing can be changed this way.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use steward_protocol::{InstanceId, JournalId, LedgerId, MethodName, NodeName, ProcessView};

use self::ask::AskError;
use crate::syslog::board::LogsView;

pub mod ask;
pub mod serve;
pub mod show;

/// The socket's name in the state directory.
const SOCKET: &str = "agent.sock";

/// Returns where the agent that uses this directory is asked.
pub fn socket(state_dir: &Path) -> PathBuf {
    state_dir.join(SOCKET)
}

/// What an agent says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusView {
    /// The node.
    pub node: NodeName,
    /// This start of the agent.
    pub instance: InstanceId,
    /// Its process id.
    pub pid: u32,
    /// Its program version.
    pub version: String,
    /// When it was started.
    pub since: Timestamp,
    /// When it said this.
    pub at: Timestamp,
    /// Whether it is about to end.
    pub stopping: bool,
    /// The broker.
    pub broker: BrokerView,
    /// The station.
    pub station: StationView,
    /// The journal; absent when it did not answer in time.
    pub journal: Option<JournalView>,
    /// Commands.
    pub commands: CommandsView,
    /// The methods offered.
    #[serde(default)]
    pub methods: Vec<MethodName>,
    /// What was counted since the start, by name.
    pub counters: BTreeMap<String, u64>,
    /// The logs, if there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logs: Option<LogsView>,
    /// The processes.
    pub processes: Vec<ProcessView>,
}

/// The link to the broker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrokerView {
    /// Its address, without credentials.
    pub url: String,
    /// Whether it is connected.
    pub connected: bool,
    /// Since when that is so.
    pub since: Timestamp,
    /// Why it is not used although it is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

/// What is known of the station.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StationView {
    /// Its name.
    pub name: NodeName,
    /// Whether it has welcomed this start on this connection; no command runs before its first welcome.
    pub welcomed: bool,
    /// The ledger that welcomed this start, if one has.
    pub ledger_id: Option<LedgerId>,
    /// Its reign.
    pub epoch: Option<u64>,
    /// When the last hello was said.
    pub last_hello: Option<Timestamp>,
    /// Microseconds between the last hello and its welcome.
    pub round_trip_us: Option<u64>,
}

/// What the journal keeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalView {
    /// Its id.
    pub journal_id: JournalId,
    /// How often it has been opened.
    pub starts: u64,
    /// Orders started and not over.
    pub started: Usage,
    /// Orders that wait for their turn.
    pub queue: Usage,
    /// Orders that are over without the station having confirmed it.
    pub unconfirmed: usize,
    /// Events the station has not stored.
    pub events: Usage,
    /// Bytes of output kept.
    pub results: Usage,
}

/// How much of a budget is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// So much.
    pub used: u64,
    /// Of so much.
    pub most: u64,
}

/// Commands that run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandsView {
    /// How many run.
    pub running: usize,
    /// How many may run at once.
    pub at_once: usize,
}

/// How an agent stands, for scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It runs, and its station has welcomed it.
    Welcomed,
    /// It runs without its broker or its station.
    Alone,
}

impl StatusView {
    /// Returns how the agent stands.
    pub fn standing(&self) -> Standing {
        if self.broker.connected && self.station.welcomed {
            Standing::Welcomed
        } else {
            Standing::Alone
        }
    }
}

/// How a status is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    Table,
    /// One JSON document.
    Json,
}

/// Asks the agent that uses this directory, and returns what is to be printed and the exit code.
///
/// # Errors
///
/// Says whether there is none, or what came in between.
pub fn answer(state_dir: &Path, format: Format) -> Result<(String, u8), AskError> {
    let status = ask::ask(state_dir)?;
    let code = match status.standing() {
        Standing::Welcomed => 0,
        Standing::Alone => 3,
    };
    let text = match format {
        Format::Table => show::page(&status),
        Format::Json => serde_json::to_string_pretty(&status).map_err(AskError::Answer)? + "\n",
    };
    Ok((text, code))
}
