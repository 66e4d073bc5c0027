//! What is wrong with a body, and where in it.

use std::fmt;

use serde_path_to_error::Segment;

/// One step on the way into a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Into an object.
    Key(String),
    /// Into a list.
    Index(usize),
}

/// Why a body cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct BodyError {
    /// The way to the value that is wrong; empty for the body itself.
    pub path: Vec<Step>,
    /// What is wrong with it.
    pub problem: String,
}

impl BodyError {
    pub(super) fn whole(problem: impl Into<String>) -> Self {
        Self {
            path: Vec::new(),
            problem: problem.into(),
        }
    }

    pub(super) fn at(field: &str, problem: impl Into<String>) -> Self {
        Self {
            path: vec![Step::Key(field.to_owned())],
            problem: problem.into(),
        }
    }

    pub(super) fn then(mut self, step: Step) -> Self {
        self.path.push(step);
        self
    }

    pub(super) fn inside(mut self, field: &str) -> Self {
        self.path.insert(0, Step::Key(field.to_owned()));
        self
    }

    pub(super) fn from_serde(error: serde_path_to_error::Error<serde_json::Error>) -> Self {
        let path = error
            .path()
            .iter()
            .filter_map(|segment| match segment {
                Segment::Map { key } => Some(Step::Key(key.clone())),
                Segment::Seq { index } => Some(Step::Index(*index)),
                Segment::Enum { .. } | Segment::Unknown => None,
            })
            .collect();
        let inner = error.into_inner();
        let whole = inner.to_string();
        // Where in the line says nothing to somebody who reads a name.
        let problem = match whole.rsplit_once(" at line ") {
            Some((words, _)) => words.to_owned(),
            None => whole,
        };
        Self { path, problem }
    }

    /// Returns the way to the value as text: `data[1]`, `env["A"]`.
    pub fn field(&self) -> String {
        let mut text = String::new();
        for step in &self.path {
            match step {
                Step::Key(key) if text.is_empty() => text.push_str(key),
                Step::Key(key) => text.push_str(&format!("[{key:?}]")),
                Step::Index(index) => text.push_str(&format!("[{index}]")),
            }
        }
        if text.is_empty() {
            text.push_str("body");
        }
        text
    }
}

impl fmt::Display for BodyError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.field(), self.problem)
    }
}
