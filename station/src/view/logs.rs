//! What the outside sees of stored logs: lines, gaps, extents, damage. One JSON object a line.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use steward_protocol::{Domain, Generation, NodeName, logs::Gap};

/// Bytes that are text, mostly.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Raw {
    /// They are UTF-8.
    Text(String),
    /// They are not.
    Bytes {
        /// What they are.
        base64: String,
    },
}

impl Raw {
    /// Returns the view of bytes.
    pub fn of(bytes: &[u8]) -> Self {
        match str::from_utf8(bytes) {
            Ok(text) => Self::Text(text.to_owned()),
            Err(_) => Self::Bytes {
                base64: STANDARD.encode(bytes),
            },
        }
    }

    /// Returns the bytes; none where they are no base64.
    pub fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Text(text) => text.as_bytes().to_vec(),
            Self::Bytes { base64 } => STANDARD.decode(base64).unwrap_or_default(),
        }
    }
}

/// One stored record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// When the node received it, by the node's clock.
    pub received: Timestamp,
    /// The node.
    pub node: NodeName,
    /// What it is of.
    pub domain: Domain,
    /// Its severity.
    pub severity: u8,
    /// Its facility, if it names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub facility: Option<u8>,
    /// The host, as the sender calls it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<Raw>,
    /// The program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app: Option<Raw>,
    /// The process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub procid: Option<Raw>,
    /// The kind of message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub msgid: Option<Raw>,
    /// Structured data, as written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Raw>,
    /// The sender's time, where one can be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent: Option<Timestamp>,
    /// The text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<Raw>,
    /// All of it, as it came, where that is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw: Option<Raw>,
    /// Its length as it came, if it was cut.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub original: Option<u64>,
    /// Where the node got it from.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub source: String,
    /// Its numbering.
    pub generation: Generation,
    /// Its number.
    pub position: u64,
    /// What is missing, if it is no message but a gap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gap: Option<Gap>,
}

/// Something that was found when logs were examined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFinding {
    /// Something is missing.
    Gap(LogGap),
    /// What was removed because it was old or too much.
    Removed(LogRemoved),
    /// A file is not what was written.
    Damage(LogDamage),
    /// What there is of one line. Comes last.
    Extent(LogExtent),
}

/// Something that is missing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogGap {
    /// The node.
    pub node: NodeName,
    /// Of what.
    pub domain: Domain,
    /// In which numbering.
    pub generation: Generation,
    /// Its own position, or that of the first one that is missing.
    pub position: u64,
    /// When it was seen, by the node's clock.
    pub at: Timestamp,
    /// On whose word: `node`, or `station` where that found it itself.
    pub by: String,
    /// What.
    pub gap: Gap,
}

/// What retention has removed of a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogRemoved {
    /// The node.
    pub node: NodeName,
    /// Of what.
    pub domain: Domain,
    /// How many records.
    pub records: u64,
    /// How many bytes.
    pub bytes: u64,
    /// When the latest of them was received.
    pub until: Timestamp,
}

/// A file that is not what was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogDamage {
    /// The node.
    pub node: NodeName,
    /// Of what.
    pub domain: Domain,
    /// The file, below the directory of logs.
    pub file: String,
    /// Where in it.
    pub at: u64,
    /// What is wrong.
    pub what: String,
}

/// What there is of one line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogExtent {
    /// The node.
    pub node: NodeName,
    /// Of what.
    pub domain: Domain,
    /// Records, gaps not counted.
    pub records: u64,
    /// When the earliest was received.
    pub from: Option<Timestamp>,
    /// When the latest was received.
    pub to: Option<Timestamp>,
    /// Batches.
    pub batches: u64,
    /// Files of batches.
    pub segments: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Bytes of records before they were compressed.
    pub raw_bytes: u64,
    /// Numberings.
    pub generations: u64,
    /// Gaps that were found.
    pub gaps: u64,
    /// Messages known to be missing.
    pub missing: u64,
    /// Whether nobody knows how many more are missing.
    pub missing_unknown: bool,
}
