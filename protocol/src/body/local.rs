//! The bodies of the methods an agent carries out by itself.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{or_default, unit::Span};
use crate::{
    name::{Domain, MethodName},
    subject::Subject,
};

/// What is to be done with the processes of an agent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProcessAction {
    /// Say which there are.
    #[default]
    List,
    /// Stop one; its orders wait.
    Stop,
    /// Start one again.
    Start,
}

/// Lists, stops and starts the processes of an agent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessesBody {
    /// What to do; list when absent.
    #[serde(default, deserialize_with = "or_default")]
    pub action: ProcessAction,
    /// The process meant; needed to stop and to start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<Subject>,
}

impl ProcessesBody {
    /// The names of its fields.
    pub const FIELDS: &[&str] = &["action", "process"];
}

/// What is to be done with a schedule.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScheduleAction {
    /// Make it, or replace the one of this name.
    #[default]
    Set,
    /// Say which there are.
    List,
    /// Remove it.
    Remove,
}

/// What becomes of runs whose time passed while the agent did not run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Missed {
    /// They are skipped; the next one comes at its time.
    #[default]
    Skip,
    /// One run makes up for all of them, at once.
    Once,
}

/// A message that the node runs by itself, again and again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScheduleBody {
    /// What to do; set when absent.
    #[serde(default, deserialize_with = "or_default")]
    pub action: ScheduleAction,
    /// Its name on the node; needed to set and to remove.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Domain>,
    /// Time from one run to the next. Either this or `cron`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<Span>,
    /// When it runs, as five fields of a crontab, in the node's time zone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cron: Option<String>,
    /// Each run comes up to this much later, at random.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jitter: Option<Span>,
    /// What becomes of missed runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missed: Option<Missed>,
    /// What runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<Scheduled>,
}

impl ScheduleBody {
    /// The names of its fields.
    pub const FIELDS: &[&str] = &[
        "action", "schedule", "every", "cron", "jitter", "missed", "run",
    ];
}

/// What a schedule runs: a message without an address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scheduled {
    /// The functionality.
    pub method: MethodName,
    /// What it is for.
    pub domain: Domain,
    /// How long it may run; 5 minutes when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Span>,
    /// The fields of the method's body.
    #[serde(flatten)]
    pub body: Map<String, Value>,
}

/// Text for the log that the station keeps per node and domain.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TextBody {
    /// The lines; a line end is added where one is missing.
    #[serde(default, deserialize_with = "or_default")]
    pub data: Vec<String>,
}

impl TextBody {
    /// The names of its fields.
    pub const FIELDS: &[&str] = &["data"];
}
