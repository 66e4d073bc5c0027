//! Where the demo is shown: a table redrawn in place, plain lines, or events for programs.

use std::{collections::BTreeMap, path::Path};

use anyhow::Result;
use serde_json::json;

use super::{board::board, scene::Scene};
use crate::{
    cli::render::{Screen, emit, is_dumb, stdout_width, table::settle, text},
    view::{EventView, InboxFileView, InboxPlace, Presence},
};

/// Where the demo is shown.
pub(super) enum Stage {
    /// On a terminal that can redraw.
    Live {
        /// The terminal.
        screen: Screen,
        /// Lines that stand there now.
        drawn: Vec<String>,
    },
    /// Anywhere else: a line when something changes.
    Lines(Seen),
    /// For programs: one JSON object per event.
    Events(Seen),
}

/// What has been told already.
#[derive(Debug, Default)]
pub(super) struct Seen {
    presence: BTreeMap<String, Presence>,
    refused: Vec<String>,
}

impl Stage {
    /// Returns the stage for a person at `screen`.
    pub(super) fn for_people(screen: Screen) -> Self {
        if screen.is_terminal() && !is_dumb() {
            return Self::Live {
                screen,
                drawn: Vec::new(),
            };
        }
        Self::Lines(Seen::default())
    }

    /// Returns the stage for programs.
    pub(super) fn for_programs() -> Self {
        Self::Events(Seen::default())
    }

    /// Says something beside the show; programs are not told.
    pub(super) fn say(&self, line: &str) -> Result<()> {
        match self {
            Self::Live { .. } | Self::Lines(_) => emit(&format!("{line}\n")),
            Self::Events(_) => Ok(()),
        }
    }

    /// Says where everything is: to people in words, to programs as their first line.
    pub(super) fn introduce(&self, words: &str, inbox: &Path, state_dir: &Path) -> Result<()> {
        match self {
            Self::Live { .. } | Self::Lines(_) => self.say(words),
            Self::Events(_) => line(&json!({ "inbox": inbox, "state_dir": state_dir })),
        }
    }

    /// Shows how things stand.
    pub(super) fn show(&mut self, scene: &Scene) -> Result<()> {
        match self {
            Self::Live { screen, drawn } => redraw(screen, drawn, scene),
            Self::Lines(seen) => {
                let mut lines: Vec<String> = seen
                    .presences(scene)
                    .into_iter()
                    .map(|(node, presence)| format!("{node} is {}\n", presence.as_str()))
                    .collect();
                lines.extend(scene.events.iter().map(event_line));
                lines.extend(seen.refusals(scene).into_iter().map(refusal_line));
                emit(&lines.concat())
            }
            Self::Events(seen) => {
                for event in &scene.events {
                    line(&json!(event))?;
                }
                for file in seen.refusals(scene) {
                    line(&json!({ "rejected": file }))?;
                }
                Ok(())
            }
        }
    }
}

fn line(value: &serde_json::Value) -> Result<()> {
    emit(&format!("{}\n", text::escape_json(&value.to_string())))
}

/// Draws over what stands there, and only if something has changed.
fn redraw(screen: &Screen, drawn: &mut Vec<String>, scene: &Scene) -> Result<()> {
    let lines: Vec<String> = board(scene, stdout_width())
        .iter()
        .map(|line| settle(line, screen.paint()))
        .collect();
    if lines == *drawn {
        return Ok(());
    }
    let up = match drawn.len() {
        0 => String::new(),
        count => format!("\x1b[{count}A\r\x1b[J"),
    };
    emit(&format!("{up}{}\n", lines.join("\n")))?;
    *drawn = lines;
    Ok(())
}

fn event_line(event: &EventView) -> String {
    let name = event
        .name
        .as_deref()
        .map_or_else(|| event.id.to_string(), text::escape);
    let reason = event.reason.as_deref().map(text::escape);
    let reason = reason.map_or(String::new(), |reason| format!(" ({reason})"));
    format!(
        "{name}: {} {}, says {}{reason}\n",
        event.node,
        event.state,
        text::escape(&event.observed_by)
    )
}

fn refusal_line(file: &InboxFileView) -> String {
    let problems: Vec<String> = file
        .problems
        .iter()
        .map(|problem| crate::cli::inbox::problem(problem).trim_end().to_owned())
        .collect();
    let why = match problems.is_empty() {
        true => file.reason.as_deref().map(text::escape).unwrap_or_default(),
        false => problems.join(" | "),
    };
    format!("rejected {}: {why}\n", text::escape(&file.name))
}

impl Seen {
    fn presences(&mut self, scene: &Scene) -> Vec<(String, Presence)> {
        let mut changed = Vec::new();
        for node in &scene.nodes {
            let name = node.name.to_string();
            if self.presence.insert(name.clone(), node.state) != Some(node.state) {
                changed.push((name, node.state));
            }
        }
        changed
    }

    fn refusals<'a>(&mut self, scene: &'a Scene) -> Vec<&'a InboxFileView> {
        let mut new = Vec::new();
        for file in &scene.files {
            if file.place == InboxPlace::Rejected && !self.refused.contains(&file.name) {
                self.refused.push(file.name.clone());
                new.push(file);
            }
        }
        new
    }
}
