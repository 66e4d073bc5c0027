//! What the demo asks of its nodes and what is meant to come of it.
//!
//! Pure: knows the example files and judges what was seen.

use serde_json::{Value, json};
use steward_protocol::State;

use super::scene::Scene;
use crate::view::{InboxPlace, MessageView};

/// The node the second example fails on.
const FAILING: &str = "ship2";

/// The number of nodes the examples are written for.
const WRITTEN_FOR: u16 = 3;

/// The example files as they stand in `example-inmessage`.
const FILES: [(&str, &str, Expected); 3] = [
    (
        "demo-succeeds-everywhere.json",
        include_str!("../../../../example-inmessage/demo-succeeds-everywhere.json"),
        Expected::SuccessEverywhere,
    ),
    (
        "demo-fails-on-one-node.json",
        include_str!("../../../../example-inmessage/demo-fails-on-one-node.json"),
        Expected::FailureOnOne,
    ),
    (
        "demo-invalid.json",
        include_str!("../../../../example-inmessage/demo-invalid.json"),
        Expected::Rejection,
    ),
];

/// What is meant to come of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expected {
    /// Every node succeeds.
    SuccessEverywhere,
    /// One node fails, every other succeeds.
    FailureOnOne,
    /// The station refuses it.
    Rejection,
}

/// One file to drop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Example {
    /// Its name.
    pub(super) file: &'static str,
    /// What is in it.
    pub(super) text: String,
    /// What is meant to come of it.
    pub(super) expected: Expected,
}

/// The nodes and the files of one demo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    nodes: Vec<String>,
    examples: Vec<Example>,
}

/// What is to be thought of what was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Something has not come out yet: what.
    Waiting(Vec<String>),
    /// Everything came out as it was meant to.
    AsExpected,
    /// Everything came out, but not as it was meant to: what differs.
    Otherwise(Vec<String>),
}

impl Plan {
    /// Returns the plan for `count` nodes: the same examples, addressed to all of them.
    pub(super) fn new(count: u16) -> Self {
        let nodes: Vec<String> = (1..=count).map(|n| format!("ship{n}")).collect();
        let examples = FILES
            .into_iter()
            .map(|(file, text, expected)| Example {
                file,
                text: match (count, expected) {
                    (WRITTEN_FOR, _) | (_, Expected::Rejection) => text.to_owned(),
                    (_, Expected::SuccessEverywhere | Expected::FailureOnOne) => {
                        readdressed(text, &nodes)
                    }
                },
                expected,
            })
            .collect();
        Self { nodes, examples }
    }

    pub(super) fn nodes(&self) -> &[String] {
        &self.nodes
    }

    pub(super) fn examples(&self) -> &[Example] {
        &self.examples
    }

    /// Judges what was seen.
    pub(super) fn judge(&self, scene: &Scene) -> Verdict {
        let mut missing = Vec::new();
        let mut surprises = Vec::new();
        for example in &self.examples {
            match example.expected {
                Expected::Rejection => match place(scene, example.file) {
                    Some(InboxPlace::Rejected) => {}
                    Some(InboxPlace::Done) => {
                        surprises.push(format!("{} was accepted", example.file));
                    }
                    _ => missing.push(format!("the rejection of {}", example.file)),
                },
                Expected::SuccessEverywhere | Expected::FailureOnOne => {
                    if place(scene, example.file) == Some(InboxPlace::Rejected) {
                        surprises.push(format!("{} was rejected", example.file));
                        continue;
                    }
                    self.judge_states(scene, example, &mut missing, &mut surprises);
                }
            }
        }
        if !missing.is_empty() {
            return Verdict::Waiting(missing);
        }
        match surprises.is_empty() {
            true => Verdict::AsExpected,
            false => Verdict::Otherwise(surprises),
        }
    }

    fn judge_states(
        &self,
        scene: &Scene,
        example: &Example,
        missing: &mut Vec<String>,
        surprises: &mut Vec<String>,
    ) {
        for node in &self.nodes {
            let states: Vec<State> = messages_of(scene, example.file)
                .flat_map(|message| &message.deliveries)
                .filter(|delivery| delivery.node.as_str() == node)
                .map(|delivery| delivery.state)
                .collect();
            if states.is_empty() || !states.iter().all(|state| state.is_final()) {
                missing.push(format!("{} on {node}", example.file));
                continue;
            }
            let fails = example.expected == Expected::FailureOnOne && node == FAILING;
            let wanted = if fails {
                State::Failed
            } else {
                State::Succeeded
            };
            for state in states.iter().filter(|state| **state != wanted) {
                surprises.push(format!(
                    "{} is {state} on {node}, not {wanted}",
                    example.file
                ));
            }
        }
    }
}

fn messages_of<'a>(scene: &'a Scene, file: &str) -> impl Iterator<Item = &'a MessageView> {
    let source = format!("inbox:{file}");
    scene
        .messages
        .iter()
        .filter(move |message| message.source == source)
}

fn place(scene: &Scene, file: &str) -> Option<InboxPlace> {
    scene
        .files
        .iter()
        .find(|seen| seen.name == file || seen.name.ends_with(&format!("--{file}")))
        .map(|seen| seen.place)
}

/// Returns the message file with `nodes` as the receivers of every message.
fn readdressed(text: &str, nodes: &[String]) -> String {
    let mut file: Value =
        serde_json::from_str(text).expect("the embedded examples are JSON, see the test");
    match &mut file {
        Value::Array(messages) => messages
            .iter_mut()
            .for_each(|message| message["to"] = json!(nodes)),
        message => message["to"] = json!(nodes),
    }
    file.to_string()
}

#[cfg(test)]
mod tests;
