//! The bodies of the methods that touch files and addresses on a node.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{
    or_default,
    unit::{Bytes, Span},
};
use crate::id::Digest;

/// Permission bits of a file, written in octal like `"0644"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mode(pub u32);

impl Serialize for Mode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:04o}", self.0))
    }
}

impl<'de> Deserialize<'de> for Mode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let octal = (3..=4).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
        match u32::from_str_radix(&text, 8) {
            Ok(mode) if octal => Ok(Self(mode)),
            _ => Err(de::Error::custom(format!(
                "{text:?} is not a mode; write it in octal like \"0644\""
            ))),
        }
    }
}

/// What must stand at the path for a file to be replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IfMatch {
    /// Nothing.
    Absent,
    /// A file with exactly this content.
    Content(Digest),
}

impl fmt::Display for IfMatch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => formatter.write_str("absent"),
            Self::Content(digest) => digest.fmt(formatter),
        }
    }
}

impl Serialize for IfMatch {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for IfMatch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text == "absent" {
            return Ok(Self::Absent);
        }
        Digest::from_str(&text).map(Self::Content).map_err(|_| {
            de::Error::custom(
                "is neither \"absent\" nor a BLAKE3 digest of 64 hexadecimal digits, as b3sum prints it",
            )
        })
    }
}

/// Content for a path on a node. Exactly one of `content` and `base64` holds it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriteBody {
    /// Where it goes; absolute.
    pub path: String,
    /// The content as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// The content in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base64: Option<String>,
    /// Its permissions; those of the file that is there, or 0644.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// Its owner as `user`, `user:group` or `:group`, by names or numbers; those of the file that is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// What must be there now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_match: Option<IfMatch>,
    /// Whether missing directories above it are made.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "is_false"
    )]
    pub parents: bool,
}

impl WriteBody {
    /// The names of its fields.
    pub const FIELDS: &[&str] = &[
        "path", "content", "base64", "mode", "owner", "if_match", "parents",
    ];
}

/// A file of a node that the station is to have.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchBody {
    /// Where it is on the node; absolute.
    pub path: String,
}

impl FetchBody {
    /// The names of its fields.
    pub const FIELDS: &[&str] = &["path"];
}

/// A file of the station that a node is to have.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SendBody {
    /// Its name below the station's `files/` directory.
    pub source: String,
    /// Where it goes on the node; absolute.
    pub path: String,
    /// As in [`WriteBody::mode`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// As in [`WriteBody::owner`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// As in [`WriteBody::if_match`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_match: Option<IfMatch>,
    /// As in [`WriteBody::parents`].
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "is_false"
    )]
    pub parents: bool,
    /// Its length; the station writes it down when it accepts the message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Digest of its content; the station writes it down when it accepts the message, and refuses a
    /// message that names another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blake3: Option<Digest>,
}

impl SendBody {
    /// The names of its fields.
    pub const FIELDS: &[&str] = &[
        "source", "path", "mode", "owner", "if_match", "parents", "bytes", "blake3",
    ];
}

/// Where following a file begins.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum TailFrom {
    /// With what is written from now on.
    #[default]
    End,
    /// With the first line of the file that is there.
    Start,
    /// Where an earlier `tailfile` ended, as its result says.
    Position(String),
}

impl Serialize for TailFrom {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(match self {
            Self::End => "end",
            Self::Start => "start",
            Self::Position(position) => position,
        })
    }
}

impl<'de> Deserialize<'de> for TailFrom {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Ok(match text.as_str() {
            "end" => Self::End,
            "start" => Self::Start,
            _ => Self::Position(text),
        })
    }
}

/// A file on a node whose lines are wanted as they come.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TailBody {
    /// The file; absolute.
    pub path: String,
    /// Where it begins; at the end of what is there when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<TailFrom>,
    /// How many of the last lines come first; only from the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lines: Option<u32>,
    /// How long it is followed; until it is cancelled, or its timeout, when absent.
    #[serde(default, rename = "for", skip_serializing_if = "Option::is_none")]
    pub span: Option<Span>,
}

impl TailBody {
    /// The names of its fields.
    pub const FIELDS: &[&str] = &["path", "from", "lines", "for"];
}

/// An address that a node is to fetch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpBody {
    /// The address, beginning with `http://` or `https://`.
    pub url: String,
    /// Headers of the request.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub headers: BTreeMap<String, String>,
    /// Most bytes of the answer's body that are kept; 1 MiB when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<Bytes>,
}

impl HttpBody {
    /// The names of its fields.
    pub const FIELDS: &[&str] = &["url", "headers", "max_bytes"];
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands a reference to what decides about skipping"
)]
fn is_false(flag: &bool) -> bool {
    !flag
}
