//! A set of subjects, written with the broker's wildcards.
//!
//! `*` stands for exactly one token, `>` (last only) for one or more (NATS subject-based messaging).

use std::{fmt, str::FromStr};

use crate::name::{NameError, NodeName, check_token};

/// Most tokens in a filter: a subject has four, traffic towards a station five.
pub const MAX_TOKENS: usize = 5;

/// Why a text is not a filter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// No token, or more than [`MAX_TOKENS`].
    #[error("has {found} tokens; expected 1 to {MAX_TOKENS}")]
    Tokens {
        /// Tokens found.
        found: usize,
    },
    /// `>` stands somewhere else than last.
    #[error("has '>' at token {position}; it may only stand last")]
    Rest {
        /// Place of the token, from 1.
        position: usize,
    },
    /// A token breaks the name rule.
    #[error("token {position} {source}")]
    Name {
        /// Place of the token, from 1.
        position: usize,
        /// The rule it breaks.
        source: NameError,
    },
}

#[derive(Clone, PartialEq, Eq)]
enum Part {
    Exactly(String),
    AnyOne,
    Rest,
}

/// A set of subjects.
#[derive(Clone, PartialEq, Eq)]
pub struct SubjectFilter(Vec<Part>);

impl SubjectFilter {
    /// Returns the filter for everything addressed to `node`: `<node>.>`.
    pub fn addressed_to(node: &NodeName) -> Self {
        Self(vec![Part::Exactly(node.to_string()), Part::Rest])
    }

    /// Tells whether `subject` (any dotted text) is in the set.
    pub fn matches(&self, subject: &str) -> bool {
        let mut tokens = subject.split('.');
        for part in &self.0 {
            let token = tokens.next();
            match (part, token) {
                (_, None | Some("")) => return false,
                (Part::Rest, Some(_)) => return tokens.all(|rest| !rest.is_empty()),
                (Part::AnyOne, Some(_)) => {}
                (Part::Exactly(name), Some(token)) if name == token => {}
                (Part::Exactly(_), Some(_)) => return false,
            }
        }
        tokens.next().is_none()
    }
}

impl FromStr for SubjectFilter {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, FilterError> {
        let tokens: Vec<&str> = text.split('.').collect();
        if tokens.len() > MAX_TOKENS {
            return Err(FilterError::Tokens {
                found: tokens.len(),
            });
        }
        let part = |(index, token): (usize, &&str)| match *token {
            "*" => Ok(Part::AnyOne),
            ">" if index + 1 == tokens.len() => Ok(Part::Rest),
            ">" => Err(FilterError::Rest {
                position: index + 1,
            }),
            name => match check_token(name) {
                Ok(()) => Ok(Part::Exactly(name.to_owned())),
                Err(source) => Err(FilterError::Name {
                    position: index + 1,
                    source,
                }),
            },
        };
        tokens
            .iter()
            .enumerate()
            .map(part)
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

impl fmt::Display for SubjectFilter {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, part) in self.0.iter().enumerate() {
            if index > 0 {
                formatter.write_str(".")?;
            }
            formatter.write_str(match part {
                Part::Exactly(name) => name,
                Part::AnyOne => "*",
                Part::Rest => ">",
            })?;
        }
        Ok(())
    }
}

impl fmt::Debug for SubjectFilter {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}
