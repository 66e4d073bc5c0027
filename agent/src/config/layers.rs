//! The layers a value may come from, and the problems found on the way. Knows keys, not meanings.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use steward_protocol::nearest::nearest;

use super::{Problem, Sources};

/// Reading a value either works or leaves a sentence.
pub(super) type Found<T> = Result<T, String>;

/// A value before it has a meaning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Text(String),
    List(Vec<String>),
    Pairs(Vec<(String, String)>),
}

/// One key and its other spellings.
struct Key {
    name: &'static str,
    flag: &'static str,
    env: &'static str,
}

/// Every key that can come from somewhere else than the file.
const KEYS: &[Key] = &[
    key("node", "--node", "STEWARD_NODE"),
    key("nats", "--nats", "NATS_URL"),
    key("creds", "--creds", "NATS_CREDS"),
    key("state_dir", "--state-dir", "STEWARD_STATE_DIR"),
    key("station", "--station", "STEWARD_STATION"),
    key("labels", "--label", "STEWARD_LABELS"),
    key("heartbeat", "--heartbeat", "STEWARD_HEARTBEAT"),
    key("subjects", "", "STEWARD_SUBJECTS"),
    key("domains", "", "STEWARD_DOMAINS"),
    key("methods", "", "STEWARD_METHODS"),
    key("commands_at_once", "", "STEWARD_COMMANDS_AT_ONCE"),
    key("queue", "", "STEWARD_QUEUE"),
    key("results_budget", "", "STEWARD_RESULTS_BUDGET"),
    key("shell", "", "STEWARD_SHELL"),
    key("limits", "", "STEWARD_LIMITS"),
    key("output_cap", "", "STEWARD_OUTPUT_CAP"),
    key("wedged_after", "", "STEWARD_WEDGED_AFTER"),
    key("idle_after", "", "STEWARD_IDLE_AFTER"),
    key("drain", "", "STEWARD_DRAIN"),
    key("transfer_rate", "", "STEWARD_TRANSFER_RATE"),
    key(
        "allow_unsigned",
        "--allow-unsigned",
        "STEWARD_ALLOW_UNSIGNED",
    ),
    key("accept_ledger", "--accept-ledger", "STEWARD_ACCEPT_LEDGER"),
];

/// Keys of the file that hold tables of tables.
pub(super) const DEEP: [&str; 3] = ["syslog", "syslog_rule", "syslog_spool"];

const fn key(name: &'static str, flag: &'static str, env: &'static str) -> Key {
    Key { name, flag, env }
}

/// The layers, the keys used, and the problems.
pub(super) struct Layers<'a> {
    flags: BTreeMap<&'static str, Value>,
    env: &'a BTreeMap<String, String>,
    file: BTreeMap<String, Value>,
    /// What [`DEEP`] keys hold; whoever reads them looks into them.
    deep: BTreeMap<String, toml::Value>,
    path: String,
    used: BTreeSet<String>,
    problems: Vec<Problem>,
}

impl<'a> Layers<'a> {
    pub(super) fn new(sources: &'a Sources) -> Self {
        let mut layers = Self {
            flags: flags(sources),
            env: &sources.env,
            file: BTreeMap::new(),
            deep: BTreeMap::new(),
            path: String::new(),
            used: BTreeSet::new(),
            problems: Vec::new(),
        };
        if let Some((path, text)) = &sources.file {
            layers.read_file(path, text);
        }
        layers
    }

    fn read_file(&mut self, path: &Path, text: &str) {
        self.path = path.display().to_string();
        match text.parse::<toml::Table>() {
            Ok(table) => self.flatten("", table),
            Err(error) => {
                let place = self.path.clone();
                let line = error
                    .span()
                    .and_then(|span| text.get(..span.start))
                    .map_or(1, |before| before.matches('\n').count() + 1);
                self.problems.push(Problem {
                    place,
                    problem: format!("line {line}: {}", error.message()),
                });
            }
        }
    }

    /// Makes one flat map of the file; only `restart` nests, and `labels` stays a table.
    fn flatten(&mut self, prefix: &str, table: toml::Table) {
        for (name, value) in table {
            let key = format!("{prefix}{name}");
            match value {
                toml::Value::Table(inner) if key.starts_with("restart") => {
                    self.flatten(&format!("{key}."), inner);
                }
                value if DEEP.contains(&key.as_str()) => {
                    self.deep.insert(key, value);
                }
                value => match flat(value) {
                    Ok(value) => {
                        self.file.insert(key, value);
                    }
                    Err(problem) => {
                        self.used.insert(key.clone());
                        self.problem(&key, problem);
                    }
                },
            }
        }
    }

    /// Returns where a key's value comes from, and the value.
    fn find(&self, name: &str) -> Option<(String, Value)> {
        let key = KEYS.iter().find(|key| key.name == name);
        let flag = key.and_then(|key| Some((key.flag.to_owned(), self.flags.get(name)?.clone())));
        let env = key.and_then(|key| {
            let text = self.env.get(key.env).filter(|text| !text.is_empty())?;
            Some((key.env.to_owned(), Value::Text(text.clone())))
        });
        let file = || Some((self.in_file(name), self.file.get(name)?.clone()));
        flag.or(env).or_else(file)
    }

    /// Takes what a key of [`DEEP`] holds.
    pub(super) fn take_deep(&mut self, name: &str) -> Option<toml::Value> {
        self.deep.remove(name)
    }

    /// Notes a problem at a place in the file.
    pub(super) fn problem_in_file(&mut self, place: &str, problem: String) {
        let place = self.in_file(place);
        self.problems.push(Problem { place, problem });
    }

    fn in_file(&self, name: &str) -> String {
        format!("{}: {name}", self.path)
    }

    /// Reads a key; one that is absent or wrong gives nothing.
    pub(super) fn optional<T>(
        &mut self,
        name: &str,
        read: impl Fn(&Value) -> Found<T>,
    ) -> Option<T> {
        self.used.insert(name.to_owned());
        let (place, value) = self.find(name)?;
        match read(&value) {
            Ok(value) => Some(value),
            Err(problem) => {
                self.problems.push(Problem { place, problem });
                None
            }
        }
    }

    /// Reads a key with a default; one that is wrong gives nothing.
    pub(super) fn or<T>(
        &mut self,
        name: &str,
        read: impl Fn(&Value) -> Found<T>,
        default: Option<T>,
    ) -> Option<T> {
        match self.find(name) {
            Some(_) => self.optional(name, read),
            None => {
                self.used.insert(name.to_owned());
                default
            }
        }
    }

    /// Reads a key that must be there.
    pub(super) fn needed<T>(
        &mut self,
        name: &str,
        hint: &str,
        read: impl Fn(&Value) -> Found<T>,
    ) -> Option<T> {
        if self.find(name).is_none() {
            let env = KEYS
                .iter()
                .find(|key| key.name == name)
                .map_or("", |key| key.env);
            self.problems.push(Problem {
                place: name.to_owned(),
                problem: format!(
                    "is missing; give {hint}, set {env}, or write {name} = \"…\" in the config file"
                ),
            });
        }
        self.optional(name, read)
    }

    pub(super) fn has_table(&self, prefix: &str) -> bool {
        let prefix = format!("{prefix}.");
        self.file.keys().any(|key| key.starts_with(&prefix))
    }

    /// Notes a problem with a key, wherever its value came from.
    pub(super) fn problem(&mut self, name: &str, problem: String) {
        let place = self
            .find(name)
            .map_or_else(|| self.in_file(name), |(place, _)| place);
        self.problems.push(Problem { place, problem });
    }

    /// Returns every problem, unknown keys of the file included.
    pub(super) fn finish(mut self) -> Vec<Problem> {
        let names: Vec<&str> = KEYS
            .iter()
            .map(|key| key.name)
            .chain(["restart"])
            .chain(DEEP)
            .filter(|name| *name != "allow_unsigned")
            .collect();
        let known = names.join(", ");
        for key in self.file.keys().filter(|key| !self.used.contains(*key)) {
            let problem = if key.starts_with("restart.") {
                format!("is not a key; {}", super::restart::known())
            } else {
                let meant = nearest(key, names.iter().copied());
                let meant =
                    meant.map_or_else(String::new, |meant| format!("did you mean {meant}? "));
                format!("is not a key; {meant}known are {known}")
            };
            let place = self.in_file(key);
            self.problems.push(Problem { place, problem });
        }
        self.problems
    }

    /// Returns the problems found with the keys that were asked for.
    pub(super) fn into_problems(self) -> Vec<Problem> {
        self.problems
    }
}

fn flags(sources: &Sources) -> BTreeMap<&'static str, Value> {
    let flags = &sources.flags;
    let mut given = BTreeMap::new();
    for (name, value) in [
        ("node", &flags.node),
        ("nats", &flags.nats),
        ("creds", &flags.creds),
        ("state_dir", &flags.state_dir),
        ("station", &flags.station),
        ("heartbeat", &flags.heartbeat),
        ("accept_ledger", &flags.accept_ledger),
    ] {
        if let Some(value) = value {
            given.insert(name, Value::Text(value.clone()));
        }
    }
    if !flags.labels.is_empty() {
        given.insert("labels", Value::List(flags.labels.clone()));
    }
    if flags.allow_unsigned {
        given.insert("allow_unsigned", Value::Text("true".to_owned()));
    }
    given
}

pub(super) fn flat(value: toml::Value) -> Found<Value> {
    match value {
        toml::Value::Array(values) => values
            .into_iter()
            .map(scalar)
            .collect::<Found<_>>()
            .map(Value::List),
        toml::Value::Table(table) => table
            .into_iter()
            .map(|(name, value)| Ok((name, scalar(value)?)))
            .collect::<Found<_>>()
            .map(Value::Pairs),
        value => scalar(value).map(Value::Text),
    }
}

fn scalar(value: toml::Value) -> Found<String> {
    match value {
        toml::Value::String(text) => Ok(text),
        toml::Value::Integer(number) => Ok(number.to_string()),
        toml::Value::Boolean(answer) => Ok(answer.to_string()),
        toml::Value::Float(_) => Err("is a fraction, which no key takes".to_owned()),
        toml::Value::Datetime(_) => Err("is a date, which no key takes".to_owned()),
        toml::Value::Array(_) | toml::Value::Table(_) => {
            Err("nests deeper than any key does".to_owned())
        }
    }
}
