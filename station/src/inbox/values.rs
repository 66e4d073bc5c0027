//! Reads single values: texts, tokens, durations, lists, and the fields of an object.
//!
//! Every reader returns `None` after noting what is wrong, so that a file is read to its end and all
//! of its problems are told at once. It does not know which fields make a message.

use std::{collections::HashMap, str::FromStr, time::Duration};

use steward_protocol::{Kind, NameError, NodeName};

use super::{
    fields::{self, Shape},
    findings::{Findings, closest, quote},
    locate::Path,
    tree::{Entry, Node, Value},
};

/// Longest name of a message, in characters.
pub const MAX_NAME: usize = 200;

/// Longest argument, in bytes: Linux refuses longer ones (`MAX_ARG_STRLEN`, with its final NUL).
pub const MAX_ARGUMENT: usize = 128 * 1024 - 1;

/// Longest directory, in bytes: Linux refuses longer ones (`PATH_MAX`, with its final NUL).
pub const MAX_DIRECTORY: usize = 4095;

/// Longest key or value of a label, in characters.
pub const MAX_LABEL: usize = 63;

/// Longest text of a duration, in bytes.
const MAX_DURATION_TEXT: usize = 60;

/// Most digits of one number in a duration: enough for 90 days in nanoseconds, and far from overflow.
const MAX_DURATION_DIGITS: usize = 17;

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

    fn wrong_type(&self, expected: &str, findings: &mut Findings) {
        let hint = match &self.node.value {
            Value::Null => Some("leave the field out".to_owned()),
            Value::Integer(number) if expected.contains("string") => {
                Some(format!("write it in quotes: \"{number}\""))
            }
            Value::Float(number) if expected.contains("string") => {
                Some(format!("write it in quotes: \"{number}\""))
            }
            Value::Bool(flag) if expected.contains("string") => {
                Some(format!("write it in quotes: \"{flag}\""))
            }
            Value::Text(text) if expected.contains("list of strings") => {
                let words: Vec<&str> = text.split_whitespace().take(8).collect();
                Some(match words.as_slice() {
                    [word] => format!("write [{}]", quote(word)),
                    _ => "write each word as a string of its own, or run a shell: [\"bash\", \"-c\", \"…\"]".to_owned(),
                })
            }
            Value::Text(text) if matches!(text.as_str(), "true" | "false") => {
                Some(format!("write it without quotes: {text}"))
            }
            _ => None,
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
            findings.value(&self.path, reason, Some(hint.to_owned()));
            return None;
        }
        if text.len() > limit {
            let reason = format!("is {} bytes long; at most {limit} are allowed", text.len());
            findings.value(&self.path, reason, None);
            return None;
        }
        Some(text)
    }

    /// Reads a short line for people: no control characters, not empty.
    pub(super) fn line(&self, limit: usize, findings: &mut Findings) -> Option<String> {
        let text = self.any_text(findings)?;
        let length = text.chars().count();
        let reason = match text.chars().position(char::is_control) {
            Some(position) => format!("has a control character at position {}", position + 1),
            None if length == 0 => "is empty".to_owned(),
            None if length > limit => {
                format!("is {length} characters long; at most {limit} are allowed")
            }
            None => return Some(text.to_owned()),
        };
        findings.value(&self.path, reason, None);
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
            findings.value(&self.path, "names no node", Some(NO_TARGET.to_owned()));
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
                findings.value(&item.path, reason, Some(hint.to_owned()));
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
            findings.value(&self.path, "is empty", Some(hint.to_owned()));
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
                        findings.key(&slot.path, reason, None);
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
            findings.value(&self.path, "names no label", Some(hint.to_owned()));
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
            findings.value(&self.path, "holds no exit code", Some(hint.to_owned()));
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
                        findings.value(&item.path, reason, Some(hint.to_owned()));
                    }
                    codes.push(code);
                }
                Value::Integer(code) => {
                    let reason = format!("is {code}; exit codes go from 0 to 255");
                    findings.value(&item.path, reason, None);
                }
                _ => item.wrong_type("an exit code from 0 to 255", findings),
            }
        }
        (codes.len() == items.len()).then_some(codes)
    }

    /// Reads a duration such as `30s`, more than nothing and at most `longest`.
    pub(super) fn duration(&self, longest: Duration, findings: &mut Findings) -> Option<Duration> {
        let Value::Text(text) = &self.node.value else {
            let hint = match &self.node.value {
                Value::Integer(number @ 1..) => format!("write \"{number}s\""),
                _ => DURATION_HINT.to_owned(),
            };
            let reason = format!("is {}; expected a duration", self.node.value.kind());
            findings.value(&self.path, reason, Some(hint));
            return None;
        };
        let duration = self.parsed_duration(text, findings)?;
        self.bounded(duration, longest, findings)
    }

    /// Reads seconds as a number, or a duration as text.
    pub(super) fn old_duration(
        &self,
        longest: Duration,
        findings: &mut Findings,
    ) -> Option<Duration> {
        let seconds = match &self.node.value {
            Value::Integer(seconds) => *seconds as f64,
            Value::Float(seconds) => *seconds,
            Value::Text(text) => match text.trim().parse::<u32>() {
                Ok(seconds) => f64::from(seconds),
                Err(_) => return self.duration(longest, findings),
            },
            _ => {
                self.wrong_type("a number of seconds", findings);
                return None;
            }
        };
        match Duration::try_from_secs_f64(seconds) {
            Ok(duration) => {
                let whole =
                    Duration::from_millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX));
                self.bounded(whole, longest, findings)
            }
            Err(_) => {
                let reason = "is not a possible number of seconds";
                findings.value(&self.path, reason, Some("write 1 or more".to_owned()));
                None
            }
        }
    }

    fn parsed_duration(&self, text: &str, findings: &mut Findings) -> Option<Duration> {
        // The parser overflows on numbers nobody means, so they never reach it.
        let possible = text.len() <= MAX_DURATION_TEXT
            && text
                .split(|character: char| !character.is_ascii_digit())
                .all(|digits| digits.len() <= MAX_DURATION_DIGITS);
        let parsed = match possible {
            true => humantime::parse_duration(text).map_err(|error| error.to_string()),
            false => Err("is too long".to_owned()),
        };
        parsed
            .map_err(|error| {
                let reason = format!("{} is not a duration: {error}", quote(text));
                findings.value(&self.path, reason, Some(DURATION_HINT.to_owned()));
            })
            .ok()
    }

    fn bounded(
        &self,
        duration: Duration,
        longest: Duration,
        findings: &mut Findings,
    ) -> Option<Duration> {
        let reason = if duration.is_zero() {
            "is no time at all".to_owned()
        } else if duration > longest {
            let longest = humantime::format_duration(longest);
            format!(
                "is {}; at most {longest} is allowed",
                humantime::format_duration(duration)
            )
        } else if !duration.subsec_nanos().is_multiple_of(1_000_000) {
            "is finer than a millisecond".to_owned()
        } else {
            return Some(duration);
        };
        findings.value(&self.path, reason, Some(DURATION_HINT.to_owned()));
        None
    }
}

const DURATION_HINT: &str = "write a number and a unit: \"500ms\", \"30s\", \"5m\", \"24h\"";

/// What to write when no target is named.
pub(super) const NO_TARGET: &str = "name who is meant: \"to\": \"ship1\", \"to\": [\"ship1\", \"ship2\"], \"to\": \"*\", or \"labels\": {…}";

fn token_hint(text: &str) -> Option<String> {
    if text == "*" {
        return Some("for every known node write \"to\": \"*\" and nothing else in it".to_owned());
    }
    if text.contains(',') {
        return Some("write several nodes as a list: [\"ship1\", \"ship2\"]".to_owned());
    }
    let trimmed = text.trim();
    (trimmed != text && steward_protocol::name::check_token(trimmed).is_ok())
        .then(|| format!("write \"{trimmed}\", without blanks"))
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
            findings.value(&slot.path, reason, None);
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
            let hint =
                closest(text, ["command", "event"]).map(|kind| format!("did you mean \"{kind}\"?"));
            findings.value(&slot.path, reason, hint);
            None
        }
    }
}

/// The entries of an object that were found to be known fields of a shape.
pub(super) struct Fields<'t> {
    pub(super) path: Path,
    slots: HashMap<&'static str, Slot<'t>>,
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
        for (index, entry) in entries.iter().enumerate() {
            let slot = slot.child(index, &entry.node);
            match shape.field(&entry.key) {
                Some(field) => {
                    slots.entry(field.name).or_insert(slot);
                }
                None => unknown_field(&slot.path, &entry.key, shape, findings),
            }
        }
        Some(Self {
            path: slot.path.clone(),
            slots,
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
        if slot.is_none() {
            let reason = format!("has no \"{name}\"");
            findings.value(&self.path, reason, Some(hint.to_owned()));
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
            findings.key(&path, reason, Some(hint.to_owned()));
        }
    }
}

fn unknown_field(path: &Path, key: &str, shape: &'static Shape, findings: &mut Findings) {
    let known = || shape.fields.iter().map(|field| field.name);
    let hint = if let Some(meant) = closest(key, known()) {
        format!("did you mean \"{meant}\"?")
    } else if let Some(other) = fields::SHAPES
        .iter()
        .find(|other| other.field(key).is_some())
    {
        format!(
            "it belongs to the form called \"{}\"; one message is written in one form",
            other.title
        )
    } else {
        let list: Vec<&str> = known().filter(|name| !name.starts_with('$')).collect();
        format!("the fields are {}", list.join(", "))
    };
    findings.key(
        path,
        format!("there is no field {}", quote(key)),
        Some(hint),
    );
}
