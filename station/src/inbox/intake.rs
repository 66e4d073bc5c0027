//! Turns the bytes of a message file into messages, or into everything that is wrong with them.
//!
//! It knows the forms a file may have and the limits of one file. It knows no files, no folder, no
//! clock: the same bytes always give the same answer.

use std::{collections::HashMap, ffi::OsStr, path::Path as FilePath};

use steward_protocol::{Digest, Message, MessageId};

use super::{
    canonical::content_digest,
    findings::{self, Findings, quote, whole},
    locate::{self, Part},
    shapes,
    tree::{self, MAX_DEPTH, Node, SyntaxError, Value},
    values::Slot,
};
use crate::view::Problem;

/// Largest message file, in bytes.
pub const MAX_FILE: usize = 1024 * 1024;

/// Most messages in one file.
pub const MAX_MESSAGES: usize = 1000;

/// The language of a message file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// JSON: a file cut short is never another valid file.
    Json,
    /// YAML: accepted only where a half-written file cannot be seen.
    Yaml,
}

impl Format {
    /// Returns the format a file name asks for: YAML for `.yaml` and `.yml`, else JSON.
    pub fn of_name(name: &OsStr) -> Self {
        let extension = FilePath::new(name).extension().unwrap_or_default();
        if extension.eq_ignore_ascii_case("yaml") || extension.eq_ignore_ascii_case("yml") {
            Self::Yaml
        } else {
            Self::Json
        }
    }
}

/// Why bytes are not a message file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unreadable {
    /// They end too early: the rest may be on its way.
    Incomplete,
    /// They are wrong, and more of them would not help.
    Rejected(Vec<Problem>),
}

impl Unreadable {
    /// Returns what is wrong with `bytes`, for a reader who knows that nothing more will come.
    pub fn into_problems(self, bytes: &[u8]) -> Vec<Problem> {
        match self {
            Self::Incomplete => vec![cut_short(bytes)],
            Self::Rejected(problems) => problems,
        }
    }
}

/// Reads the messages in a file.
///
/// A UTF-8 byte order mark at the start is ignored.
///
/// # Errors
///
/// Fails as a whole, with every problem found, when anything in it is wrong.
pub fn read(bytes: &[u8], format: Format) -> Result<Vec<Message>, Unreadable> {
    let text = text_of(bytes)?;
    let tree = match format {
        Format::Json => tree::parse_json(text),
        Format::Yaml if text.trim().is_empty() => Err(SyntaxError::Incomplete),
        Format::Yaml => tree::parse_yaml(text),
    }
    .map_err(|error| syntax_problem(error, format))?;
    let mut findings = Findings::default();
    let messages = messages(&tree, &mut findings);
    if findings.is_empty() {
        return Ok(messages);
    }
    let json = (format == Format::Json).then_some(text);
    Err(Unreadable::Rejected(findings.into_problems(&tree, json)))
}

/// Tells the places in a file of problems that were found in its messages later, such as an id that
/// is used already. Their paths count messages; in a file that is a single object there is only one.
pub fn place(problems: Vec<Problem>, bytes: &[u8], format: Format) -> Vec<Problem> {
    let Ok(text) = text_of(bytes) else {
        return problems;
    };
    let tree = match format {
        Format::Json => tree::parse_json(text),
        Format::Yaml => tree::parse_yaml(text),
    };
    let Ok(tree) = tree else { return problems };
    let place_one = |mut problem: Problem| {
        if problem.line.is_some() || problem.path.is_empty() {
            return problem;
        }
        if matches!(tree.value, Value::Object(_))
            && let Some(path) = problem.path.strip_prefix("/0")
        {
            problem.path = path.to_owned();
        }
        let path = locate::resolve(&tree, &problem.path);
        let place = match format {
            Format::Json => locate::locate(text, &path, Part::Value),
            Format::Yaml => locate::noted(&tree, &path, Part::Value),
        };
        problem.line = place.map(|place| place.line);
        problem.column = place.map(|place| place.column);
        problem
    };
    problems.into_iter().map(place_one).collect()
}

/// Says what a file that ends too early lacks, and where it ends.
fn cut_short(bytes: &[u8]) -> Problem {
    let text = bytes.utf8_chunks().next().map_or("", |chunk| chunk.valid());
    let text = text.strip_prefix('\u{feff}').unwrap_or(text).trim_end();
    let place = locate::place_of(text, text.len());
    if text.is_empty() {
        return findings::at(Some(place), "is empty", shapes::A_MESSAGE);
    }
    findings::at(
        Some(place),
        "ends too early: brackets or quotes are not closed",
        "close them; a program writes the file under another name and renames it into the inbox when it is complete",
    )
}

fn rejected(problem: Problem) -> Unreadable {
    Unreadable::Rejected(vec![problem])
}

fn text_of(bytes: &[u8]) -> Result<&str, Unreadable> {
    if bytes.len() > MAX_FILE {
        let reason = format!("is {} bytes; at most {MAX_FILE} are allowed", bytes.len());
        let hint = "split it into several files";
        return Err(rejected(whole(reason, hint)));
    }
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        let hint = "save it as UTF-8";
        return Err(rejected(whole("is UTF-16 text", hint)));
    }
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        // A character cut in half at the very end: the rest may be on its way.
        Err(error) if error.error_len().is_none() => return Err(Unreadable::Incomplete),
        Err(error) => {
            let valid = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
            let valid = valid.strip_prefix('\u{feff}').unwrap_or(&valid);
            let place = locate::place_of(valid, valid.len());
            let byte = bytes[error.valid_up_to()];
            let reason = format!("has byte 0x{byte:02x} here, which is not UTF-8 text");
            let hint = "save it as UTF-8";
            return Err(rejected(findings::at(Some(place), reason, hint)));
        }
    };
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if let Some(offset) = text.find('\0') {
        let place = locate::place_of(text, offset);
        let hint = "write it again: the file was cut short, or is not text";
        return Err(rejected(findings::at(
            Some(place),
            "has a NUL byte here",
            hint,
        )));
    }
    Ok(text)
}

fn syntax_problem(error: SyntaxError, format: Format) -> Unreadable {
    let language = match format {
        Format::Json => "JSON",
        Format::Yaml => "YAML",
    };
    match error {
        SyntaxError::Incomplete => Unreadable::Incomplete,
        SyntaxError::Depth(place) => {
            let reason = format!("is nested {MAX_DEPTH} levels deep or more");
            let hint = "no message needs more than three";
            rejected(findings::at(place, reason, hint))
        }
        SyntaxError::Wrong { place, reason } => {
            let hint = match format {
                Format::Json => json_hint(&reason),
                Format::Yaml => {
                    "compare indentation, brackets and quotes with the lines around; a text with a colon or # in it needs quotes"
                }
            };
            rejected(findings::at(
                place,
                format!("is not {language}: {reason}"),
                hint,
            ))
        }
    }
}

/// What helps against the complaints of the JSON parser, by their first words.
const JSON_HINTS: [(&str, &str); 11] = [
    (
        "trailing characters",
        "write several messages as one list: [ {…}, {…} ]",
    ),
    (
        "trailing comma",
        "remove the comma before the closing bracket",
    ),
    (
        "control character",
        "write a new line in a string as \\n, a tab as \\t",
    ),
    (
        "key must be a string",
        "write the field's name in double quotes: \"data\"",
    ),
    (
        "expected value",
        "write text in double quotes; a message begins with {, a list of messages with [",
    ),
    ("expected ident", "write true, false or null"),
    (
        "expected `:`",
        "write a colon between a field's name and its value",
    ),
    (
        "expected `,`",
        "put a comma between two entries, and close what was opened",
    ),
    (
        "number out of range",
        "write a smaller number; no field takes one like this",
    ),
    (
        "invalid escape",
        "write a backslash in a string as two: \\\\",
    ),
    (
        "invalid number",
        "write numbers as 3 or 1.5, and anything else in double quotes",
    ),
];

fn json_hint(reason: &str) -> &'static str {
    if reason.contains("surrogate") || reason.contains("hex escape") {
        return "write the character itself, or both \\u halves of it";
    }
    JSON_HINTS
        .iter()
        .find(|(complaint, _)| reason.starts_with(complaint))
        .map_or("compare it with the lines around", |(_, hint)| hint)
}

/// Returns the fields in a file that are accepted and not used, each once; none if it cannot be read.
pub fn unused(bytes: &[u8], format: Format) -> Vec<&'static str> {
    let Ok(text) = text_of(bytes) else {
        return Vec::new();
    };
    let tree = match format {
        Format::Json => tree::parse_json(text),
        Format::Yaml => tree::parse_yaml(text),
    };
    tree.map_or_else(|_| Vec::new(), |tree| shapes::unused(&tree))
}

fn messages(tree: &Node, findings: &mut Findings) -> Vec<Message> {
    let root = Slot {
        node: tree,
        path: Vec::new(),
    };
    let slots = match &tree.value {
        Value::Object(_) => vec![root],
        Value::List(items) if items.is_empty() => {
            let hint = "write at least one message, or remove the file";
            findings.value(&root.path, "holds no message", hint);
            return Vec::new();
        }
        Value::List(items) if items.len() > MAX_MESSAGES => {
            let reason = format!(
                "holds {} messages; at most {MAX_MESSAGES} are allowed",
                items.len()
            );
            let hint = "split it into several files";
            findings.value(&vec![MAX_MESSAGES], reason, hint);
            return Vec::new();
        }
        Value::List(items) => items
            .iter()
            .enumerate()
            .map(|(index, node)| Slot {
                node,
                path: vec![index],
            })
            .collect(),
        value => {
            let reason = format!(
                "is {}; expected a message (an object) or a list of messages",
                value.kind()
            );
            findings.value(&root.path, reason, shapes::A_MESSAGE);
            return Vec::new();
        }
    };
    let mut ids = HashMap::new();
    slots
        .iter()
        .filter_map(|slot| {
            let message = shapes::message(slot, findings)?;
            check_id(slot, &message, &mut ids, findings);
            Some(message)
        })
        .collect()
}

/// Refuses one id with two contents. The same id with the same content is left to the ledger, which
/// recognises it wherever it was seen first.
fn check_id(
    slot: &Slot<'_>,
    message: &Message,
    ids: &mut HashMap<MessageId, Digest>,
    findings: &mut Findings,
) {
    let Some(id) = message.id else { return };
    let digest = content_digest(message);
    if *ids.entry(id).or_insert(digest) != digest {
        let reason = format!(
            "has id {}, which another message of this file has",
            quote(&id.to_string())
        );
        let hint = "give each message its own id, or none";
        findings.value(&slot.path, reason, hint);
    }
}
