//! The line that says how far a message has come: n of m, what failed, what is waited for.
//!
//! The text is pure; [`Progress`] puts it on standard error, redrawn on a terminal, as new lines
//! elsewhere.

use std::{
    collections::{HashMap, hash_map::Entry},
    time::{Duration, Instant},
};

use steward_protocol::State;

use super::render::{live_width, notice, say, text::cut};

/// Most names of one kind in the line.
const MAX_NAMES: usize = 8;

/// Width of a plain line: long enough for names, short enough for a log.
const PLAIN_WIDTH: usize = 160;

/// Shortest time between two plain lines, so that a thousand nodes do not write a thousand lines.
const PLAIN_PAUSE: Duration = Duration::from_millis(500);

/// Returns the line for deliveries, each with its node and state, in at most `width` characters.
///
/// Names are left out, longest lists first, before anything is cut.
pub(crate) fn line(deliveries: &[(&str, State)], width: usize) -> String {
    (0..=MAX_NAMES)
        .rev()
        .map(|names| line_with(deliveries, names))
        .find(|line| line.chars().count() <= width)
        .unwrap_or_else(|| cut(&line_with(deliveries, 0), width))
}

fn line_with(deliveries: &[(&str, State)], names: usize) -> String {
    let ended = deliveries
        .iter()
        .filter(|(_, state)| state.is_final())
        .count();
    let mut line = format!("{ended} of {} done", deliveries.len());
    let failed = |state: State| state.is_final() && state != State::Succeeded;
    let (count, nodes) = gathered(deliveries, failed, State::Failed);
    if count > 0 {
        line += &format!(", {count} not succeeded{}", some(&nodes, names));
    }
    let (count, nodes) = gathered(deliveries, |state| !state.is_final(), State::Accepted);
    if count > 0 {
        line += &format!(", waiting for {count}{}", some(&nodes, names));
    }
    line
}

/// Returns how many deliveries are `meant`, and their nodes, each once however many it has.
fn gathered(
    deliveries: &[(&str, State)],
    meant: impl Fn(State) -> bool,
    usual: State,
) -> (usize, Vec<String>) {
    let mut count = 0;
    let mut order = Vec::new();
    let mut states: HashMap<&str, Option<State>> = HashMap::new();
    for (node, state) in deliveries.iter().filter(|(_, state)| meant(*state)) {
        count += 1;
        match states.entry(node) {
            Entry::Vacant(entry) => {
                order.push(*node);
                entry.insert(Some(*state));
            }
            // Its deliveries differ, so no one state is the node's.
            Entry::Occupied(mut entry) if *entry.get() != Some(*state) => {
                entry.insert(None);
            }
            Entry::Occupied(_) => {}
        }
    }
    let names = order.into_iter().map(|node| match states[node] {
        Some(state) => described(node, state, usual),
        None => node.to_owned(),
    });
    (count, names.collect())
}

/// A name with its state, unless it is the state one expects there.
fn described(node: &str, state: State, usual: State) -> String {
    if state == usual {
        return node.to_owned();
    }
    format!("{node} ({state})")
}

fn some(names: &[String], limit: usize) -> String {
    if limit == 0 {
        return String::new();
    }
    let shown = names[..names.len().min(limit)].join(", ");
    match names.len().saturating_sub(limit) {
        0 => format!(": {shown}"),
        more => format!(": {shown} and {more} more"),
    }
}

/// Puts the line on standard error.
#[derive(Debug)]
pub(crate) struct Progress {
    shown: String,
    last: Option<Instant>,
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

impl Progress {
    /// Returns one that has shown nothing yet.
    pub(crate) fn new() -> Self {
        Self {
            shown: String::new(),
            last: None,
        }
    }

    /// Shows how things stand, if that has changed.
    pub(crate) fn show(&mut self, deliveries: &[(&str, State)]) {
        let live = live_width();
        let line = line(
            deliveries,
            live.map_or(PLAIN_WIDTH, |width| width.max(2) - 1),
        );
        if line == self.shown {
            return;
        }
        if live.is_some() {
            say(&format!("\r\x1b[2K{line}"));
        } else {
            let ended = deliveries.iter().all(|(_, state)| state.is_final());
            let early = self.last.is_some_and(|last| last.elapsed() < PLAIN_PAUSE);
            if early && !ended {
                return;
            }
            notice(&line);
        }
        self.shown = line;
        self.last = Some(Instant::now());
    }

    /// Removes a live line, so that what follows starts on an empty one.
    pub(crate) fn clear(&mut self) {
        if live_width().is_some() && !self.shown.is_empty() {
            say("\r\x1b[2K");
        }
        self.shown.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(deliveries: &[(&str, State)], width: usize, expected: &str) {
        let line = line(deliveries, width);
        assert_eq!(line, expected);
        assert!(line.chars().count() <= width);
    }

    #[test]
    fn progress_names_what_failed_and_what_is_waited_for() {
        use State::*;
        check(&[("a", Succeeded)], 80, "1 of 1 done");
        check(
            &[("ship1", Succeeded), ("ship2", Failed), ("ship3", Accepted)],
            80,
            "2 of 3 done, 1 not succeeded: ship2, waiting for 1: ship3",
        );
        check(
            &[("ship1", TimedOut), ("ship2", Running), ("ship3", Sent)],
            120,
            "1 of 3 done, 1 not succeeded: ship1 (timed_out), waiting for 2: ship2 (running), ship3 (sent)",
        );
        check(&[], 80, "0 of 0 done");
        // Several messages for the same nodes.
        check(
            &[
                ("n1", Running),
                ("n2", Sent),
                ("n1", Running),
                ("n2", Accepted),
                ("n1", Failed),
                ("n1", Failed),
            ],
            120,
            "2 of 6 done, 2 not succeeded: n1, waiting for 4: n1 (running), n2",
        );
    }

    #[test]
    fn progress_stays_within_its_width_whatever_the_fleet() {
        let nodes: Vec<String> = (0..5000).map(|n| format!("ship{n}")).collect();
        let deliveries: Vec<(&str, State)> = nodes
            .iter()
            .map(|node| (node.as_str(), State::Running))
            .collect();
        check(
            &deliveries,
            80,
            "0 of 5000 done, waiting for 5000: ship0 (running), ship1 (running) and 4998 more",
        );
        check(&deliveries, 34, "0 of 5000 done, waiting for 5000");
        check(&deliveries, 10, "0 of 5000…");
        check(&deliveries, 0, "");
    }
}
