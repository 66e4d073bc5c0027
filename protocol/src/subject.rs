//! The address on the wire: `<node>.<command|event>.<method>.<domain>` (design section 4.1).
//!
//! Subjects are built and parsed here and nowhere else; `Display` and `FromStr` are exact inverses.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{
    method::Method,
    name::{Domain, MethodName, NameError, NodeName},
};

/// What kind of traffic a subject carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Something to do; the ACK carries the result.
    Command,
    /// Something that happened; the ACK says it is stored.
    Event,
}

impl Kind {
    /// Returns the token on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Command => "command",
            Self::Event => "event",
        }
    }
}

impl FromStr for Kind {
    type Err = SubjectError;

    fn from_str(text: &str) -> Result<Self, SubjectError> {
        match text {
            "command" => Ok(Self::Command),
            "event" => Ok(Self::Event),
            _ => Err(SubjectError::Kind {
                found: text.to_owned(),
            }),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.as_str())
    }
}

/// Why a text is not a subject.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubjectError {
    /// The number of tokens is wrong.
    #[error("has {found} tokens; expected {expected}: <node>.<command|event>.<method>.<domain>")]
    Tokens {
        /// Tokens found.
        found: usize,
        /// Tokens expected: 4, or 5 with the sender.
        expected: usize,
    },
    /// The second token is neither `command` nor `event`.
    #[error("has {found:?} as its second token; expected command or event")]
    Kind {
        /// The token found.
        found: String,
    },
    /// One of the names breaks the token rule.
    #[error("{part} {found:?} {source}")]
    Name {
        /// Which part of the subject: node, method, domain or sender.
        part: &'static str,
        /// The token found.
        found: String,
        /// The rule it breaks.
        source: NameError,
    },
}

fn name<T: FromStr<Err = NameError>>(part: &'static str, text: &str) -> Result<T, SubjectError> {
    text.parse().map_err(|source| SubjectError::Name {
        part,
        found: text.to_owned(),
        source,
    })
}

/// Node, kind, method and domain: who receives what.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subject {
    /// Who receives.
    pub node: NodeName,
    /// Command or event.
    pub kind: Kind,
    /// The functionality.
    pub method: MethodName,
    /// What it is for.
    pub domain: Domain,
}

impl Subject {
    /// Returns the subject of `method` on `node` for `domain`.
    pub fn new(node: NodeName, kind: Kind, method: Method, domain: Domain) -> Self {
        Self {
            node,
            kind,
            method: method.name(),
            domain,
        }
    }

    /// Returns this subject with the sender as its fifth token.
    pub fn from_sender(self, sender: NodeName) -> Uplink {
        Uplink {
            address: self,
            sender,
        }
    }
}

impl FromStr for Subject {
    type Err = SubjectError;

    fn from_str(text: &str) -> Result<Self, SubjectError> {
        let tokens: Vec<&str> = text.split('.').collect();
        let &[node, kind, method, domain] = tokens.as_slice() else {
            return Err(SubjectError::Tokens {
                found: tokens.len(),
                expected: 4,
            });
        };
        Ok(Self {
            node: name("node", node)?,
            kind: kind.parse()?,
            method: name("method", method)?,
            domain: name("domain", domain)?,
        })
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{}.{}.{}.{}",
            self.node, self.kind, self.method, self.domain
        )
    }
}

impl fmt::Debug for Subject {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl Serialize for Subject {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Subject {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse()
            .map_err(|error| de::Error::custom(format!("subject {text:?} {error}")))
    }
}

/// Traffic towards a station: a subject and, as fifth token, who speaks, so that the broker can pin it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uplink {
    /// The first four tokens.
    pub address: Subject,
    /// The fifth token.
    pub sender: NodeName,
}

impl FromStr for Uplink {
    type Err = SubjectError;

    fn from_str(text: &str) -> Result<Self, SubjectError> {
        let found = text.split('.').count();
        match text.rsplit_once('.') {
            Some((address, sender)) if found == 5 => Ok(Self {
                address: address.parse()?,
                sender: name("sender", sender)?,
            }),
            _ => Err(SubjectError::Tokens { found, expected: 5 }),
        }
    }
}

impl fmt::Display for Uplink {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.address, self.sender)
    }
}

impl fmt::Debug for Uplink {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}
