//! The demo's table: messages down, nodes across, and the files that were refused.
//!
//! Pure: a scene in, lines out, none wider than the terminal.

use std::collections::BTreeMap;

use steward_protocol::State;

use super::scene::Scene;
use crate::{
    cli::{
        outcome::tally,
        render::{
            table::{Cell, fit, grid, width_of},
            text::{escape, plural},
        },
    },
    view::{InboxPlace, MessageView, Problem},
};

/// Most messages shown; the newest are.
const MESSAGES: usize = 12;

/// Most refused files shown.
const REFUSED: usize = 4;

/// Returns the lines of the table, with marks where colours go.
pub(super) fn board(scene: &Scene, width: usize) -> Vec<String> {
    let across = table(scene, Layout::NodesAcross);
    let widest = across.lines().map(width_of).max().unwrap_or(0);
    let table = if widest <= width {
        across
    } else {
        table(scene, Layout::Counted)
    };
    table
        .lines()
        .map(str::to_owned)
        .chain(refused(scene))
        .map(|line| fit(&line, width))
        .collect()
}

#[derive(Clone, Copy)]
enum Layout {
    /// A column per node.
    NodesAcross,
    /// How many nodes are in which state.
    Counted,
}

fn table(scene: &Scene, layout: Layout) -> String {
    let first = scene.messages.len().saturating_sub(MESSAGES);
    let messages = &scene.messages[first..];
    let nodes = scene.nodes.iter().map(|node| node.name.as_str());
    let head = |first: &str, states: Vec<String>| {
        let mut row = vec![first.to_owned()];
        row.extend(states);
        row
    };
    match layout {
        Layout::NodesAcross => {
            let titles: Vec<&str> = std::iter::once("MESSAGE").chain(nodes.clone()).collect();
            let presence = scene
                .nodes
                .iter()
                .map(|node| Cell::presence(node.state).marked())
                .collect();
            let mut rows = vec![head("", presence)];
            rows.extend(messages.iter().map(|message| {
                let states = nodes.clone().map(|node| state(message, node)).collect();
                head(&name(message), states)
            }));
            grid(titles.into_iter(), rows.into_iter().map(Vec::into_iter))
        }
        Layout::Counted => {
            let mut present: BTreeMap<&str, u64> = BTreeMap::new();
            for node in &scene.nodes {
                *present.entry(node.state.as_str()).or_default() += 1;
            }
            let present: Vec<String> = present
                .iter()
                .map(|(word, count)| format!("{count} {word}"))
                .collect();
            let mut rows = vec![head("", vec![present.join(", ")])];
            rows.extend(
                messages
                    .iter()
                    .map(|message| head(&name(message), vec![counted(message)])),
            );
            grid(
                ["MESSAGE", "NODES"].into_iter(),
                rows.into_iter().map(Vec::into_iter),
            )
        }
    }
}

fn name(message: &MessageView) -> String {
    match &message.name {
        Some(name) => escape(name),
        None => message.id.to_string(),
    }
}

fn state(message: &MessageView, node: &str) -> String {
    message
        .deliveries
        .iter()
        .find(|delivery| delivery.node.as_str() == node)
        .map_or_else(
            || "-".to_owned(),
            |delivery| Cell::state(delivery.state).marked(),
        )
}

fn counted(message: &MessageView) -> String {
    let mut counts: BTreeMap<State, u64> = BTreeMap::new();
    for delivery in &message.deliveries {
        *counts.entry(delivery.state).or_default() += 1;
    }
    tally(&counts)
}

fn refused(scene: &Scene) -> Vec<String> {
    let files = scene
        .files
        .iter()
        .filter(|file| file.place == InboxPlace::Rejected);
    let mut lines: Vec<String> = files
        .take(REFUSED)
        .map(|file| {
            let reason = match file.problems.as_slice() {
                [] => file.reason.as_deref().map(escape).unwrap_or_default(),
                problems => telling(problems),
            };
            let word = Cell::place(file.place).marked();
            format!("{word} {}: {}", escape(&file.name), reason)
        })
        .collect();
    if !lines.is_empty() {
        lines.insert(0, String::new());
    }
    lines
}

/// Returns the problem that tells most: one about a place in the file, not about what is missing.
fn telling(problems: &[Problem]) -> String {
    let first = problems
        .iter()
        .find(|problem| problem.hint.is_some() && !problem.path.is_empty())
        .or(problems.first());
    let told = first.map(crate::cli::inbox::problem).unwrap_or_default();
    match problems.len() {
        0 | 1 => told.trim_end().to_owned(),
        count => format!(
            "{} ({} in all)",
            told.trim_end(),
            plural(count as u64, "problem")
        ),
    }
}

#[cfg(test)]
mod tests;
