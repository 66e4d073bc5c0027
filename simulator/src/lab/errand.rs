//! What is to be asked about a message on its way: to call it off, or to repeat it.
//!
//! It asks nobody; it knows the words of the station's API for it.

use std::time::Duration;

use serde_json::{Value, json};

use super::judge::Asked;

/// What is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    /// That it be called off.
    Cancel,
    /// That it be repeated where it ended without success, or may have.
    RetryEnded,
    /// That it be repeated where it is not settled yet.
    RetryOpen,
}

/// States that mean something may still become of it.
const OPEN: [&str; 5] = ["accepted", "sent", "received", "running", "deferred"];

/// States of what ended without success, or may have.
const ENDED: [&str; 7] = [
    "failed",
    "timed_out",
    "rejected",
    "expired",
    "interrupted",
    "unknown",
    "cancelled",
];

impl Wish {
    /// Returns the last part of the path.
    pub(crate) fn path(self) -> &'static str {
        match self {
            Self::Cancel => "cancel",
            Self::RetryEnded | Self::RetryOpen => "retry",
        }
    }

    /// Returns the body.
    pub(crate) fn ask(self, nodes: &[String]) -> Value {
        match self {
            Self::Cancel => json!({ "nodes": nodes }),
            Self::RetryEnded => json!({ "nodes": nodes, "states": ENDED }),
            Self::RetryOpen => json!({ "nodes": nodes, "states": OPEN }),
        }
    }

    /// Returns whether asking again may help after this refusal.
    pub(crate) fn may_come(self, refusal: &str) -> bool {
        let there = refusal.split("there is only: ").nth(1).unwrap_or_default();
        let there = there.split('"').next().unwrap_or_default();
        self == Self::RetryEnded && OPEN.iter().any(|state| there.contains(state))
    }
}

/// One thing to be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Errand {
    /// The message's name, or its id if that is known already.
    pub(crate) message: Named,
    pub(crate) nodes: Vec<String>,
    /// How long after the message was dropped.
    pub(crate) after: Duration,
    pub(crate) wish: Wish,
}

/// What names a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Named {
    Name(String),
    Id(String),
}

impl Errand {
    pub(crate) fn new(asked: &Asked, nodes: Vec<String>, after: Duration, wish: Wish) -> Self {
        Self {
            message: Named::Name(asked.name.clone()),
            nodes,
            after,
            wish,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retry_is_asked_again_only_while_something_may_still_become_of_the_message() {
        for (there, expected) in [
            ("sent, succeeded", true),
            ("running", true),
            ("succeeded", false),
            ("", false),
        ] {
            let refusal = format!("{{\"error\": \"nothing in sent; there is only: {there}\", 1}}");
            assert_eq!(Wish::RetryEnded.may_come(&refusal), expected, "{there}");
            assert!(!Wish::RetryOpen.may_come(&refusal));
        }
    }
}
