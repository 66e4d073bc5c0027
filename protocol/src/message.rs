//! What an operator asks for. How message files spell it is the station's inbox's business.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    id::MessageId,
    limits,
    name::{Domain, MethodName, NodeName},
    subject::Kind,
};

/// One request of an operator, for one or many nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The id the operator chose, if any; otherwise the station draws one.
    pub id: Option<MessageId>,
    /// What the operator calls it.
    pub name: Option<String>,
    /// Who is meant.
    pub target: Target,
    /// Command or event.
    pub kind: Kind,
    /// The functionality.
    pub method: MethodName,
    /// What it is for.
    pub domain: Domain,
    /// How it is to be carried and judged.
    pub options: Options,
    /// What the method gets.
    pub body: ShellBody,
}

/// Who is meant: named nodes, or the known nodes that carry all of the labels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// Exactly these nodes, known or not.
    Nodes(Vec<NodeName>),
    /// Every node known when the message is accepted that carries all these labels; none means every known node.
    Labels(BTreeMap<String, String>),
}

/// How an order is carried and judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// How long the command may run.
    pub timeout: Duration,
    /// How long the message may wait for its node to start it.
    pub expires: Duration,
    /// Whether it runs one at a time, in order, with the others of its subject.
    pub ordered: bool,
    /// Whether it may be started again when its end is unknown.
    pub idempotent: bool,
    /// Exit codes that count as success.
    pub success_codes: Vec<i32>,
}

impl Options {
    /// Returns the options of a message that states none (design section 8).
    pub fn standard() -> Self {
        Self {
            timeout: limits::DEFAULT_TIMEOUT,
            expires: limits::DEFAULT_EXPIRY,
            ordered: true,
            idempotent: false,
            success_codes: vec![0],
        }
    }
}

/// The body of `shellcommand`: a program and what surrounds it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShellBody {
    /// The program and its arguments; no shell looks at them.
    #[serde(default)]
    pub data: Vec<String>,
    /// The directory to run in; the agent's own when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// Variables added to the environment.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Text for standard input; `/dev/null` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdin: Option<String>,
}
