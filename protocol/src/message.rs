//! What an operator asks for. How message files spell it is the station's inbox's business.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    body::Body,
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
    pub body: Body,
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
    /// Whether its output is brought to the station while it runs.
    pub stream: bool,
    /// Where its result goes at the station, besides the ledger.
    pub reply: Option<Reply>,
}

/// Where results go at the station, below `results/`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reply {
    /// What is done with a result.
    pub to: ReplyTo,
    /// The directory below `results/`; the node's own comes below it. The domain when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<String>,
    /// The file in it; the message's id when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_name: Option<String>,
}

/// What is done with a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplyTo {
    /// It replaces the file.
    File,
    /// It is added to the end of the file.
    Append,
    /// Nothing; the ledger has it.
    None,
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
            stream: false,
            reply: None,
        }
    }
}
