//! What the station has stored, read as a person reads it: with `steward logs`.
//!
//! It does not know what was written.

use std::{
    path::PathBuf,
    process::{Command, Output},
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::source;

/// Lines read to find the last of a program.
const LAST: &str = "600";

/// The way to the store.
#[derive(Debug)]
pub(super) struct Desk {
    pub(super) steward: PathBuf,
    pub(super) state_dir: PathBuf,
}

/// One stored record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stored {
    /// A message that was written, by its program and number.
    Message(String, u64),
    /// Something is missing here; the reason, and how much if that is known.
    Gap(String, Option<u64>),
    /// A message that nobody has written.
    Strange(String),
}

impl Stored {
    /// Returns how many messages there was no room for, if it says that.
    pub(super) fn count_of_refused(&self) -> Option<u64> {
        match self {
            Self::Gap(reason, count) if reason == "spool_full" || reason == "kernel_drop" => *count,
            Self::Gap(..) | Self::Message(..) | Self::Strange(_) => None,
        }
    }
}

impl Desk {
    fn ask(&self, arguments: &[&str]) -> Result<Output> {
        Command::new(&self.steward)
            .arg("logs")
            .args(arguments)
            .env("STEWARD_STATE_DIR", &self.state_dir)
            .env("NO_COLOR", "1")
            .output()
            .with_context(|| format!("run {} logs {arguments:?}", self.steward.display()))
    }

    /// Returns the last number of a program that is stored.
    pub(super) fn last(&self, domain: &str, name: &str) -> Option<u64> {
        let arguments = ["--domain", domain, "-t", name, "-n", LAST, "-o", "jsonl"];
        let output = self.ask(&arguments).ok()?;
        let lines = String::from_utf8_lossy(&output.stdout).into_owned();
        let number = |line: &str| match stored(line)? {
            Stored::Message(of, number) if of == name => Some(number),
            Stored::Message(..) | Stored::Gap(..) | Stored::Strange(_) => None,
        };
        lines.lines().filter_map(number).max()
    }

    /// Returns all of a domain, in the order of the store.
    pub(super) fn lines(&self, domain: &str) -> Result<Vec<Stored>> {
        let output = self.ask(&["--domain", domain, "-o", "jsonl"])?;
        if !output.status.success() {
            bail!(
                "read the logs of {domain}: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        let lines = String::from_utf8_lossy(&output.stdout).into_owned();
        let line = |line: &str| stored(line).with_context(|| format!("understand {line:?}"));
        lines.lines().map(line).collect()
    }

    /// Compares what `--gaps` and `verify` say with whether there are gaps.
    pub(super) fn consents(&self, has_gaps: bool) -> Result<Vec<String>> {
        let mut violations = Vec::new();
        for (arguments, expected) in [(&["--gaps"][..], i32::from(has_gaps)), (&["verify"], 0)] {
            let output = self.ask(arguments)?;
            if output.status.code() != Some(expected) {
                violations.push(format!(
                    "`steward logs {}` ends with {}, not with {expected}: {}{}",
                    arguments.join(" "),
                    output.status,
                    String::from_utf8_lossy(&output.stdout),
                    String::from_utf8_lossy(&output.stderr),
                ));
            }
        }
        Ok(violations)
    }
}

/// Reads one line of `-o jsonl`.
fn stored(line: &str) -> Option<Stored> {
    let line: Value = serde_json::from_str(line).ok()?;
    if let Some(gap) = line.get("gap") {
        let count = gap.get("count").and_then(Value::as_u64);
        return Some(Stored::Gap(gap.get("reason")?.as_str()?.to_owned(), count));
    }
    let text = line.get("message")?.as_str()?;
    let name = text.split(' ').next()?;
    let raw = format!("<13>Nov 21 10:00:00 host {name}[7]: {text}");
    Some(match source::number(&raw) {
        Some((name, number)) => Stored::Message(name.to_owned(), number),
        None => Stored::Strange(text.to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_message_a_gap_or_strange() {
        let text = source::text("lines", 5);
        let text = text.split("]: ").nth(1).expect("a text");
        let line = |rest: &str| stored(&format!("{{\"node\": \"n1\", {rest}}}"));
        let message = line(&format!("\"message\": \"{text}\""));
        assert_eq!(message, Some(Stored::Message("lines".to_owned(), 5)));
        let gap = line("\"gap\": {\"count\": null, \"reason\": \"unclean_start\"}");
        assert_eq!(gap, Some(Stored::Gap("unclean_start".to_owned(), None)));
        assert!(matches!(
            line("\"message\": \"lines 0\""),
            Some(Stored::Strange(_))
        ));
        assert_eq!(stored("no JSON"), None);
    }
}
