//! Collects what is wrong with a message file, so that one reading tells all of it.
//!
//! It knows paths into the parsed text and turns them into places only at the end. It does not
//! know what is right or wrong.

use super::{
    locate::{self, Part, Path},
    tree::{Node, Place},
};
use crate::view::Problem;

/// Most problems reported of one file. Who has to fix more than this drops the file again anyway.
pub const MAX_PROBLEMS: usize = 50;

/// Longest piece of a file quoted in a problem, in characters.
const MAX_QUOTE: usize = 60;

struct Finding {
    path: Path,
    part: Part,
    reason: String,
    hint: String,
}

/// What was found wrong so far.
#[derive(Default)]
pub(super) struct Findings {
    kept: Vec<Finding>,
    more: usize,
}

impl Findings {
    /// Notes something wrong with the value at `path`.
    pub(super) fn value(
        &mut self,
        path: &Path,
        reason: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.add(path, Part::Value, reason.into(), hint.into());
    }

    /// Notes something wrong with the key at `path`.
    pub(super) fn key(&mut self, path: &Path, reason: impl Into<String>, hint: impl Into<String>) {
        self.add(path, Part::Key, reason.into(), hint.into());
    }

    fn add(&mut self, path: &Path, part: Part, reason: String, hint: String) {
        if self.kept.len() == MAX_PROBLEMS {
            self.more += 1;
            return;
        }
        self.kept.push(Finding {
            path: path.clone(),
            part,
            reason,
            hint,
        });
    }

    /// Returns how much was found so far.
    pub(super) fn count(&self) -> usize {
        self.kept.len() + self.more
    }

    /// Returns whether nothing was found.
    pub(super) fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// Returns the problems in the order of the file; `json` is its text if that is JSON.
    pub(super) fn into_problems(self, tree: &Node, json: Option<&str>) -> Vec<Problem> {
        let mut problems: Vec<Problem> = self
            .kept
            .into_iter()
            .map(|finding| {
                let place = match json {
                    Some(text) => locate::locate(text, &finding.path, finding.part),
                    None => locate::noted(tree, &finding.path, finding.part),
                };
                Problem {
                    line: place.map(|place| place.line),
                    column: place.map(|place| place.column),
                    path: locate::pointer(tree, &finding.path),
                    reason: finding.reason,
                    hint: Some(finding.hint),
                }
            })
            .collect();
        problems.sort_by_key(|problem| (problem.line, problem.column));
        if self.more > 0 {
            let shown = problems.len();
            problems.push(whole(
                format!("{} more problems are not shown", self.more),
                format!("correct these {shown} first"),
            ));
        }
        problems
    }
}

/// Returns a problem with a file as a whole.
pub(crate) fn whole(reason: impl Into<String>, hint: impl Into<String>) -> Problem {
    Problem {
        line: None,
        column: None,
        path: String::new(),
        reason: reason.into(),
        hint: Some(hint.into()),
    }
}

/// Returns a problem at a place of the text.
pub(super) fn at(
    place: Option<Place>,
    reason: impl Into<String>,
    hint: impl Into<String>,
) -> Problem {
    Problem {
        line: place.map(|place| place.line),
        column: place.map(|place| place.column),
        ..whole(reason, hint)
    }
}

/// Returns `text` in quotes, shortened, with everything unprintable escaped.
pub(super) fn quote(text: &str) -> String {
    let mut characters = text.chars();
    let shown: String = characters.by_ref().take(MAX_QUOTE).collect();
    let rest = if characters.next().is_some() {
        "…"
    } else {
        ""
    };
    format!("\"{}{rest}\"", super::report::printable(&shown))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_hold_nothing_that_a_terminal_would_obey() {
        assert_eq!(quote("a\u{1b}[2J\u{202e}"), "\"a\\u{1b}[2J\\u{202e}\"");
        assert_eq!(quote(&"x".repeat(100)).chars().count(), MAX_QUOTE + 3);
    }
}
