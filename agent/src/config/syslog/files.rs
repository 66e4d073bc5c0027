//! The keys of `[[syslog]]` that only `file://` inputs have: which files, from where on, what belongs together.
//!
//! ```toml
//! [[syslog]]
//! domain = "nginx"
//! input = "file:///var/log/nginx/*.log"
//! files = ["/srv/*/log/**/*.log"]      # more patterns
//! exclude = ["/var/log/nginx/debug*"]
//! from = "end"                         # what is there at the first start is not read
//! multiline = '^\d{4}-'                # a message begins with such a line
//! multiline_timeout = "2s"
//! ```

use std::{path::Path, time::Duration};

use glob::Pattern;
use regex::bytes::Regex;

use super::Listen;
use crate::config::{
    duration,
    layers::{Found, Value},
    list,
    table::Table,
    text,
};

/// How long a message of several lines waits for its next line.
const PAUSE: Duration = Duration::from_secs(2);

/// Most patterns of an input: each is held against every name of a directory.
const MAX_PATTERNS: usize = 256;

/// Which files are read, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// Which: whole paths with `*`, `?`, `[…]` and `**`.
    pub patterns: Vec<String>,
    /// Which of them are not.
    pub exclude: Vec<String>,
    /// Where reading begins in files that are there at the first start.
    pub from: Start,
    /// What the first line of a message looks like, if messages have several lines.
    pub multiline: Option<String>,
    /// How long a message of several lines waits for its next line.
    pub pause: Duration,
}

/// Where reading begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Start {
    /// With the first byte.
    #[default]
    Beginning,
    /// Behind the last byte that was there at the first start.
    End,
}

/// Reads the keys; other inputs have none of them.
pub(super) fn files(table: &mut Table<'_, '_>, name: Option<&str>) -> Option<Files> {
    let more = table.optional("files", patterns);
    let exclude = table.optional("exclude", patterns);
    let from = table.optional("from", from);
    let multiline = table.optional("multiline", regex);
    let pause = table.optional("multiline_timeout", duration);
    if !name.is_some_and(|name| name.starts_with("file://")) {
        let given = [
            ("files", more.is_some()),
            ("exclude", exclude.is_some()),
            ("from", from.is_some()),
            ("multiline", multiline.is_some()),
            ("multiline_timeout", pause.is_some()),
        ];
        for (key, _) in given.into_iter().filter(|(_, is_given)| *is_given) {
            table.problem(key, "is for file:// inputs only".to_owned());
        }
        return None;
    }
    if pause.is_some() && multiline.is_none() {
        let problem = "is of no use without multiline".to_owned();
        table.problem("multiline_timeout", problem);
    }
    Some(Files {
        patterns: more.unwrap_or_default(),
        exclude: exclude.unwrap_or_default(),
        from: from.unwrap_or_default(),
        multiline,
        pause: pause.unwrap_or(PAUSE),
    })
}

/// Reads the place of an input that reads files.
pub(super) fn listen(name: &str, rest: &str, files: Option<Files>) -> Result<Listen, String> {
    let own = check(rest).map_err(|problem| format!("{name:?} {problem}"))?;
    let mut files = files.unwrap_or(Files {
        patterns: Vec::new(),
        exclude: Vec::new(),
        from: Start::default(),
        multiline: None,
        pause: PAUSE,
    });
    files.patterns.insert(0, own);
    Ok(Listen::Files(files))
}

/// Checks that a text is the pattern of a whole path.
fn check(text: &str) -> Result<String, String> {
    if !text.starts_with('/') || Path::new(text).file_name().is_none() || text.ends_with('/') {
        return Err("names no files with their whole path; write file:///var/log/*.log".to_owned());
    }
    match Pattern::new(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(format!("is no pattern: {error}")),
    }
}

fn patterns(value: &Value) -> Found<Vec<String>> {
    let texts = list(value)?;
    if texts.len() >= MAX_PATTERNS {
        return Err(format!("has more than {MAX_PATTERNS} patterns"));
    }
    let one = |text: String| {
        let path = text.strip_prefix("file://").unwrap_or(&text);
        check(path).map_err(|problem| format!("{text:?} {problem}"))
    };
    texts.into_iter().map(one).collect()
}

fn from(value: &Value) -> Found<Start> {
    match text(value)?.as_str() {
        "beginning" => Ok(Start::Beginning),
        "end" => Ok(Start::End),
        other => Err(format!(
            "{other:?} is no place; write \"beginning\" or \"end\""
        )),
    }
}

fn regex(value: &Value) -> Found<String> {
    let text = text(value)?;
    match Regex::new(&text) {
        Ok(_) => Ok(text),
        Err(error) => Err(format!("is no regular expression: {error}")),
    }
}
