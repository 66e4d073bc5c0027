//! Reads single values: texts, tokens, lists, and the fields of an object.
//!
//! Every reader returns `None` after noting what is wrong, so that a file is read to its end and all
//! of its problems are told at once. It does not know which fields make a message.

use std::{collections::HashMap, str::FromStr};

use steward_protocol::{Kind, NameError, NodeName};

use super::{
    fields::{self, Shape},
    findings::{Findings, quote},
    locate::Path,
    tree::{Entry, Node, Value},
};
use steward_protocol::nearest::nearest;

/// Longest name of a message, in characters.
pub const MAX_NAME: usize = 200;

/// Longest argument, in bytes: Linux refuses longer ones (`MAX_ARG_STRLEN`, with its final NUL).
pub const MAX_ARGUMENT: usize = 128 * 1024 - 1;

/// Longest directory, in bytes: Linux refuses longer ones (`PATH_MAX`, with its final NUL).
pub const MAX_DIRECTORY: usize = 4095;

/// Longest key or value of a label, in characters.
pub const MAX_LABEL: usize = 63;

/// A value and the way to it.
#[derive(Clone)]
pub(super) struct Slot<'t> {
    pub(super) node: &'t Node,
    pub(super) path: Path,
}

impl<'t> Slot<'t> {
    fn child(&self, step: usize, node: &'t Node) -> Self {
        let mut path = self.path.clone();
        path.push(step);
        Self { node, path }
    }

    pub(super) fn wrong_type(&self, expected: &str, findings: &mut Findings) {
        let hint = match &self.node.value {
            Value::Null => "leave the field out".to_owned(),
            Value::Integer(number) if expected.contains("string") => {
                format!("write it in quotes: \"{number}\"")
            }
            Value::Float(number) if expected.contains("string") => {
                format!("write it in quotes: \"{number}\"")
            }
            Value::Bool(flag) if expected.contains("string") => {
                format!("write it in quotes: \"{flag}\"")
            }
            Value::Text(text) if expected.contains("list of strings") => {
                let words: Vec<&str> = text.split_whitespace().take(8).collect();
                match words.as_slice() {
                    [word] => format!("write [{}]", quote(word)),
                    _ => "write each word as a string of its own, or run a shell: [\"bash\", \"-c\", \"…\"]".to_owned(),
                }
            }
            Value::Text(text) if matches!(text.as_str(), "true" | "false") => {
                format!("write it without quotes: {text}")
            }
            _ => example(expected).to_owned(),
        };
        findings.value(
            &self.path,
            format!("is {}; expected {expected}", self.node.value.kind()),
            hint,
        );
    }

    /// Reads a string that may hold anything.
    pub(super) fn any_text(&self, findings: &mut Findings) -> Option<&'t str> {
        match &self.node.value {
            Value::Text(text) => Some(text),
            _ => {
                self.wrong_type("a string", findings);
                None
            }
        }
    }

    /// Reads a string without NUL, at most `limit` bytes long.
    fn text(&self, limit: usize, findings: &mut Findings) -> Option<&'t str> {
        let text = self.any_text(findings)?;
        if let Some(position) = text.chars().position(|character| character == '\0') {
            let reason = format!("has a NUL character at position {}", position + 1);
            let hint = "no program can be given one; leave it out";
            findings.value(&self.path, reason, hint);
            return None;
        }
        if text.len() > limit {
            let reason = format!("is {} bytes long; at most {limit} are allowed", text.len());
            let hint = "shorten it, or hand long text over as \"stdin\"";
            findings.value(&self.path, reason, hint);
            return None;
        }
        Some(text)
    }

    /// Reads a short line for people: no control characters, not empty.
    pub(super) fn line(&self, limit: usize, findings: &mut Findings) -> Option<String> {
        let text = self.any_text(findings)?;
        let length = text.chars().count();
        let (reason, hint) = match text.chars().position(char::is_control) {
            Some(position) => (
                format!("has a control character at position {}", position + 1),
                "write it on one line, in printable characters",
            ),
            None if length == 0 => ("is empty".to_owned(), "leave the field out, or fill it"),
            None if length > limit => (
                format!("is {length} characters long; at most {limit} are allowed"),
                "shorten it",
            ),
            None => return Some(text.to_owned()),
        };
        findings.value(&self.path, reason, hint);
        None
    }

    /// Reads a token of a subject.
    pub(super) fn token<T: FromStr<Err = NameError>>(&self, findings: &mut Findings) -> Option<T> {
        let text = self.any_text(findings)?;
        self.parsed_token(text, findings)
    }

    pub(super) fn parsed_token<T: FromStr<Err = NameError>>(
        &self,
        text: &str,
        findings: &mut Findings,
    ) -> Option<T> {
        text.parse()
            .map_err(|error: NameError| {
                let reason = format!("{} {error}", quote(text));
                findings.value(&self.path, reason, token_hint(text));
            })
            .ok()
    }

    /// Reads a list of node names, each once.
    pub(super) fn nodes(&self, findings: &mut Findings) -> Option<Vec<NodeName>> {
        let items = self.list("a list of node names", findings)?;
        if items.is_empty() {
            findings.value(&self.path, "names no node", NO_TARGET);
            return None;
        }
        let mut nodes = Vec::with_capacity(items.len());
        let mut seen = HashMap::new();
        for (index, item) in items.iter().enumerate() {
            let Some(node) = item.token::<NodeName>(findings) else {
                continue;
            };
            if let Some(first) = seen.insert(node.clone(), index) {
                let reason = format!("names node {node} again; it is item {} already", first + 1);
                let hint = "name each node once";
                findings.value(&item.path, reason, hint);
            }
            nodes.push(node);
        }
        (nodes.len() == items.len()).then_some(nodes)
    }

    fn list(&self, expected: &str, findings: &mut Findings) -> Option<Vec<Slot<'t>>> {
        match &self.node.value {
            Value::List(items) => Some(
                items
                    .iter()
                    .enumerate()
                    .map(|(index, item)| self.child(index, item))
                    .collect(),
            ),
            _ => {
                self.wrong_type(expected, findings);
                None
            }
        }
    }

    /// Reads a program and its arguments.
    pub(super) fn command(&self, findings: &mut Findings) -> Option<Vec<String>> {
        let items = self.list("a list of strings", findings)?;
        let words: Vec<String> = items
            .iter()
            .filter_map(|item| item.text(MAX_ARGUMENT, findings))
            .map(str::to_owned)
            .collect();
        (words.len() == items.len()).then_some(words)
    }

    /// Reads a directory.
    pub(super) fn directory(&self, findings: &mut Findings) -> Option<String> {
        let text = self.text(MAX_DIRECTORY, findings)?;
        if text.is_empty() {
            let hint = "leave the field out to run in the agent's own directory";
            findings.value(&self.path, "is empty", hint);
            return None;
        }
        Some(text.to_owned())
    }

    /// Reads an object of strings; `check` says what is wrong with a key, if anything.
    fn strings(
        &self,
        check: fn(&str) -> Option<String>,
        findings: &mut Findings,
    ) -> Option<Vec<(String, Slot<'t>)>> {
        let Value::Object(entries) = &self.node.value else {
            self.wrong_type("an object whose values are strings", findings);
            return None;
        };
        repeated_keys(&self.path, entries, findings);
        Some(
            entries
                .iter()
                .enumerate()
                .filter_map(|(index, entry)| {
                    let slot = self.child(index, &entry.node);
                    if let Some(reason) = check(&entry.key) {
                        findings.key(&slot.path, reason, "rename it, or leave it out");
                        return None;
                    }
                    Some((entry.key.clone(), slot))
                })
                .collect(),
        )
    }

    /// Reads environment variables.
    pub(super) fn environment(&self, findings: &mut Findings) -> Option<Vec<(String, String)>> {
        let check = |key: &str| {
            let wrong = key.is_empty() || key.contains(['=', '\0']) || key.len() > MAX_ARGUMENT;
            wrong.then(|| {
                let quoted = quote(key);
                format!("{quoted} cannot name a variable: no '=', no NUL, and not empty")
            })
        };
        let entries = self.strings(check, findings)?;
        Some(
            entries
                .into_iter()
                .filter_map(|(key, slot)| {
                    let value = slot.text(MAX_ARGUMENT, findings)?;
                    Some((key, value.to_owned()))
                })
                .collect(),
        )
    }

    /// Reads labels; at least one.
    pub(super) fn labels(&self, findings: &mut Findings) -> Option<Vec<(String, String)>> {
        let check = |key: &str| {
            let length = key.chars().count();
            let wrong = length == 0 || length > MAX_LABEL || key.chars().any(char::is_control);
            wrong.then(|| {
                let quoted = quote(key);
                format!("{quoted} cannot name a label: 1 to {MAX_LABEL} printable characters")
            })
        };
        let entries = self.strings(check, findings)?;
        if matches!(&self.node.value, Value::Object(written) if written.is_empty()) {
            let hint = "for every known node write \"to\": \"*\" instead";
            findings.value(&self.path, "names no label", hint);
        }
        Some(
            entries
                .into_iter()
                .filter_map(|(key, slot)| {
                    let value = slot.any_text(findings)?;
                    if value.is_empty() {
                        return Some((key, String::new()));
                    }
                    Some((key, slot.line(MAX_LABEL, findings)?))
                })
                .collect(),
        )
    }

    /// Reads `true` or `false`.
    pub(super) fn flag(&self, findings: &mut Findings) -> Option<bool> {
        match &self.node.value {
            Value::Bool(flag) => Some(*flag),
            _ => {
                self.wrong_type("true or false", findings);
                None
            }
        }
    }

    /// Reads a whole number from 0.
    pub(super) fn count(&self, findings: &mut Findings) -> Option<u64> {
        match &self.node.value {
            Value::Integer(number) if *number >= 0 => Some(number.unsigned_abs()),
            _ => {
                self.wrong_type("a whole number from 0", findings);
                None
            }
        }
    }

    /// Reads exit codes: at least one, each once, each from 0 to 255.
    pub(super) fn codes(&self, findings: &mut Findings) -> Option<Vec<i32>> {
        let items = self.list("a list of exit codes", findings)?;
        if items.is_empty() {
            let hint = "leave the field out if only 0 is success";
            findings.value(&self.path, "holds no exit code", hint);
            return None;
        }
        let mut codes = Vec::with_capacity(items.len());
        for item in &items {
            match &item.node.value {
                Value::Integer(code @ 0..=255) => {
                    let code = i32::try_from(*code).expect("at most 255");
                    if codes.contains(&code) {
                        let hint = "write each code once";
                        let reason = format!("repeats exit code {code}");
                        findings.value(&item.path, reason, hint);
                    }
                    codes.push(code);
                }
                Value::Integer(code) => {
                    let reason = format!("is {code}; exit codes go from 0 to 255");
                    let hint = "write the code as the shell shows it in $?";
                    findings.value(&item.path, reason, hint);
                }
                _ => item.wrong_type("an exit code from 0 to 255", findings),
            }
        }
        (codes.len() == items.len()).then_some(codes)
    }
}

/// What to write when no target is named.
pub(super) const NO_TARGET: &str = "name who is meant: \"to\": \"ship1\", \"to\": [\"ship1\", \"ship2\"], \"to\": \"*\", or \"labels\": {…}";

fn token_hint(text: &str) -> String {
    let trimmed = text.trim();
    if text == "*" {
        "for every known node write \"to\": \"*\" and nothing else in it".to_owned()
    } else if text.contains(',') {
        "write several nodes as a list: [\"ship1\", \"ship2\"]".to_owned()
    } else if trimmed != text && steward_protocol::name::check_token(trimmed).is_ok() {
        format!("write \"{trimmed}\", without blanks")
    } else {
        "write letters, digits, - and _, beginning with a letter or digit, such as ship1".to_owned()
    }
}

/// Returns how a value of the expected type is written.
fn example(expected: &str) -> &'static str {
    match expected {
        "a list of node names" => "write [\"ship1\", \"ship2\"]",
        "a list of strings" => "write the program and its arguments: [\"uname\", \"-a\"]",
        "a list of exit codes" => "write [0, 3]",
        "an object whose values are strings" => "write {\"NAME\": \"value\"}",
        "an object" => "write it with its fields in braces: {\"name\": …}",
        "true or false" => "write true or false, without quotes",
        "a string" => "write one text in double quotes",
        _ => "write a plain number such as 3, without quotes",
    }
}

fn kind_hint(text: &str) -> String {
    match nearest(text, ["command", "event"]) {
        Some(kind) => format!("did you mean \"{kind}\"?"),
        None => "write \"command\", or leave the field out".to_owned(),
    }
}

/// Reads the second token of a subject as the older shapes spell it: `Command`, `eventACK`.
pub(super) fn old_kind(slot: &Slot<'_>, findings: &mut Findings) -> Option<Kind> {
    let text = slot.any_text(findings)?;
    let lower = text.to_ascii_lowercase();
    // The older system said in the same word whether it wanted an answer; here everything is answered.
    let kind = lower
        .strip_suffix("nack")
        .or_else(|| lower.strip_suffix("ack"))
        .unwrap_or(&lower);
    match kind.parse() {
        Ok(kind) => Some(kind),
        Err(_) => {
            let reason = format!("is {}; expected \"command\" or \"event\"", quote(text));
            findings.value(&slot.path, reason, kind_hint(text));
            None
        }
    }
}

/// Reads `command` or `event`.
pub(super) fn kind(slot: &Slot<'_>, findings: &mut Findings) -> Option<Kind> {
    let text = slot.any_text(findings)?;
    match text.parse() {
        Ok(kind) => Some(kind),
        Err(_) => {
            let reason = format!("is {}; expected \"command\" or \"event\"", quote(text));
            findings.value(&slot.path, reason, kind_hint(text));
            None
        }
    }
}

/// The entries of an object that were found to be known fields of a shape.
pub(super) struct Fields<'t> {
    pub(super) path: Path,
    slots: HashMap<&'static str, Slot<'t>>,
    /// Fields that an unknown key was probably meant to be: one slip is one problem.
    misspelt: Vec<&'static str>,
}

impl<'t> Fields<'t> {
    /// Reads an object against the table of `shape`.
    pub(super) fn read(
        slot: &Slot<'t>,
        shape: &'static Shape,
        findings: &mut Findings,
    ) -> Option<Self> {
        let Value::Object(entries) = &slot.node.value else {
            slot.wrong_type("an object", findings);
            return None;
        };
        repeated_keys(&slot.path, entries, findings);
        let mut slots = HashMap::new();
        let mut misspelt = Vec::new();
        for (index, entry) in entries.iter().enumerate() {
            let slot = slot.child(index, &entry.node);
            match shape.field(&entry.key) {
                Some(field) => {
                    slots.entry(field.name).or_insert(slot);
                }
                None => misspelt.extend(unknown_field(&slot.path, &entry.key, shape, findings)),
            }
        }
        Some(Self {
            path: slot.path.clone(),
            slots,
            misspelt,
        })
    }

    /// Returns the field called `name`, if it is there.
    pub(super) fn get(&self, name: &str) -> Option<&Slot<'t>> {
        self.slots.get(name)
    }

    /// Returns the field called `name` and notes that it is missing if it is.
    pub(super) fn need(
        &self,
        name: &str,
        hint: &str,
        findings: &mut Findings,
    ) -> Option<&Slot<'t>> {
        let slot = self.get(name);
        if slot.is_none() && !self.misspelt.contains(&name) {
            let reason = format!("has no \"{name}\"");
            findings.value(&self.path, reason, hint);
        }
        slot
    }
}

fn repeated_keys(path: &Path, entries: &[Entry], findings: &mut Findings) {
    let mut seen = HashMap::with_capacity(entries.len());
    for (index, entry) in entries.iter().enumerate() {
        if seen.insert(entry.key.as_str(), index).is_some() {
            let mut path = path.clone();
            path.push(index);
            let reason = format!("writes {} a second time", quote(&entry.key));
            let hint = "keep one of them; readers differ about which one counts";
            findings.key(&path, reason, hint);
        }
    }
}

/// Notes an unknown field. Returns the one it was probably meant to be.
fn unknown_field(
    path: &Path,
    key: &str,
    shape: &'static Shape,
    findings: &mut Findings,
) -> Option<&'static str> {
    let known = || shape.fields().map(|field| field.name);
    let meant = nearest(key, known());
    let hint = if let Some(meant) = meant {
        format!("did you mean \"{meant}\"?")
    } else if let Some(other) = fields::shapes().find(|other| other.field(key).is_some()) {
        format!(
            "it belongs to the form called \"{}\"; one message is written in one form",
            other.title
        )
    } else {
        let list: Vec<&str> = known().filter(|name| !name.starts_with('$')).collect();
        format!("the fields are {}", list.join(", "))
    };
    findings.key(path, format!("there is no field {}", quote(key)), hint);
    meant
}
