//! The body of `shellcommand`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    or_default,
    unit::{Bytes, Quota, Span},
};

/// A program and what surrounds it. Exactly one of `data` and `shell` says what runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShellBody {
    /// The program and its arguments; no shell looks at them.
    #[serde(default, deserialize_with = "or_default")]
    pub data: Vec<String>,
    /// A text run by the shell the node's config names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shell: Option<String>,
    /// The directory to run in; the agent's own when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// Variables added to the environment.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub env: BTreeMap<String, String>,
    /// Text for standard input; `/dev/null` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdin: Option<String>,
    /// The user to run as, by name or number; the agent's own when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The group to run as, by name or number; the user's own when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// How long it may take to obey TERM before it is killed; 5 s when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace: Option<Span>,
    /// Its niceness, from -20 to 19; the agent's own when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nice: Option<i8>,
    /// What it and its descendants may use together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
}

impl ShellBody {
    /// The names of its fields.
    pub const FIELDS: &[&str] = &[
        "data", "shell", "cwd", "env", "stdin", "user", "group", "grace", "nice", "limits",
    ];
}

/// Limits of a command and its descendants together, held by the kernel's control groups.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Memory in bytes; what needs more is killed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Bytes>,
    /// Share of a processor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Quota>,
    /// Processes and threads at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tasks: Option<u32>,
}

impl Limits {
    /// The names of its fields.
    pub const FIELDS: &[&str] = &["memory", "cpu", "tasks"];
}
