//! Where settings come from: the table of all settings, and the four layers laid over each other.
//!
//! Knows keys and texts; what a text means is decided by the caller.

use std::{collections::BTreeMap, fmt, path::PathBuf};

use toml::de::{DeTable, DeValue};

use super::{ConfigProblem, DEFAULT_STATE_DIR, values::hide_credentials};
use steward_protocol::nearest::nearest;

/// One setting: its names in every layer.
#[derive(Debug, PartialEq, Eq)]
pub struct Setting {
    /// Its key in the file; a dot separates the section.
    pub key: &'static str,
    /// Its flag, if it has one.
    pub flag: Option<&'static str>,
    /// Its environment variable.
    pub environment: &'static str,
    /// What it is when nobody says anything.
    pub default: Option<&'static str>,
    /// What it means.
    pub about: &'static str,
}

/// Every setting, in the order of the reference.
pub(super) const SETTINGS: &[Setting] = &[
    Setting {
        key: "name",
        flag: Some("--name"),
        environment: "STEWARD_NAME",
        default: Some("central"),
        about: "the station's own node name",
    },
    Setting {
        key: "state_dir",
        flag: Some("--state-dir"),
        environment: "STEWARD_STATE_DIR",
        default: Some(DEFAULT_STATE_DIR),
        about: "where ledger, socket and inbox are",
    },
    Setting {
        key: "nats",
        flag: Some("--nats"),
        environment: "NATS_URL",
        default: Some("nats://127.0.0.1:4222"),
        about: "address of the broker, or several separated by commas",
    },
    Setting {
        key: "creds",
        flag: Some("--creds"),
        environment: "NATS_CREDS",
        default: None,
        about: "credentials file for the broker",
    },
    Setting {
        key: "http",
        flag: Some("--http"),
        environment: "STEWARD_HTTP",
        default: None,
        about: "loopback address and port of the read-only API",
    },
    Setting {
        key: "allow_unsigned",
        flag: Some("--allow-unsigned"),
        environment: "STEWARD_ALLOW_UNSIGNED",
        default: Some("false"),
        about: "use a broker on another machine although nothing is signed",
    },
    Setting {
        key: "inbox.rescan",
        flag: None,
        environment: "STEWARD_INBOX_RESCAN",
        default: Some("10s"),
        about: "how often the inbox is scanned, whatever the notifications say",
    },
    Setting {
        key: "inbox.settle",
        flag: None,
        environment: "STEWARD_INBOX_SETTLE",
        default: Some("5s"),
        about: "how long a file must be unchanged before a scan takes it",
    },
    Setting {
        key: "inbox.give_up",
        flag: None,
        environment: "STEWARD_INBOX_GIVE_UP",
        default: Some("60s"),
        about: "how long a half-written file may stay unchanged before it is rejected",
    },
    Setting {
        key: "retention.age",
        flag: None,
        environment: "STEWARD_RETENTION_AGE",
        default: Some("90d"),
        about: "how long finished messages and their files are kept",
    },
    Setting {
        key: "retention.bytes",
        flag: None,
        environment: "STEWARD_RETENTION_BYTES",
        default: Some("10GiB"),
        about: "how much of them is kept",
    },
    Setting {
        key: "logs.age",
        flag: None,
        environment: "STEWARD_LOGS_AGE",
        default: Some("90d"),
        about: "how long logs of nodes are kept, from when they were stored",
    },
    Setting {
        key: "logs.bytes",
        flag: None,
        environment: "STEWARD_LOGS_BYTES",
        default: Some("50GiB"),
        about: "how much of them is kept, compressed as they are",
    },
    Setting {
        key: "logs.mirror.dir",
        flag: None,
        environment: "STEWARD_LOGS_MIRROR_DIR",
        default: None,
        about: "where logs of nodes are written into plain files as well",
    },
    Setting {
        key: "logs.mirror.format",
        flag: None,
        environment: "STEWARD_LOGS_MIRROR_FORMAT",
        default: Some("short-iso"),
        about: "how a line of these files looks: short-iso, cat or raw",
    },
    Setting {
        key: "logs.mirror.size",
        flag: None,
        environment: "STEWARD_LOGS_MIRROR_SIZE",
        default: Some("100MiB"),
        about: "how large such a file becomes before it is rotated",
    },
    Setting {
        key: "logs.mirror.keep",
        flag: None,
        environment: "STEWARD_LOGS_MIRROR_KEEP",
        default: Some("5"),
        about: "how many rotated files of each are kept",
    },
    Setting {
        key: "outputs.bytes",
        flag: None,
        environment: "STEWARD_OUTPUTS_BYTES",
        default: Some("10GiB"),
        about: "how much of the outputs that came in full is kept, in all and of one",
    },
    Setting {
        key: "max_open_deliveries",
        flag: None,
        environment: "STEWARD_MAX_OPEN_DELIVERIES",
        default: Some("1000000"),
        about: "how many deliveries may be open before submissions are refused",
    },
    Setting {
        key: "log.filter",
        flag: None,
        environment: "RUST_LOG",
        default: Some("info"),
        about: "what is logged",
    },
    Setting {
        key: "log.format",
        flag: Some("--log-format"),
        environment: "STEWARD_LOG_FORMAT",
        default: Some("text"),
        about: "how a line of the log looks: text or json",
    },
];

/// A configuration file, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Where it was found.
    pub path: PathBuf,
    /// What is in it.
    pub text: String,
}

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The command line.
    Flag(&'static str),
    /// The environment.
    Environment(&'static str),
    /// The file, at this line.
    File {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// Nobody set it.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => formatter.write_str(flag),
            Self::Environment(variable) => write!(formatter, "${variable}"),
            Self::File { path, line } => write!(formatter, "{}:{line}", path.display()),
            Self::Default => formatter.write_str("default"),
        }
    }
}

/// All layers, laid over each other.
pub(super) struct Layers<'a> {
    flags: &'a BTreeMap<&'static str, String>,
    environment: &'a BTreeMap<String, String>,
    file: BTreeMap<String, FileValue>,
    path: PathBuf,
    /// Tables of which there may be several.
    pub(super) relays: Vec<Several>,
}

/// The array of tables that relays are.
pub(super) const RELAYS: &str = "logs.relay";

/// One of several tables.
#[derive(Debug, Default)]
pub(super) struct Several {
    /// Where it begins, for an error message.
    pub(super) place: String,
    /// Its keys, each with its place and the texts it was given.
    pub(super) values: BTreeMap<String, (String, Vec<String>)>,
}

struct FileValue {
    text: String,
    line: usize,
}

impl<'a> Layers<'a> {
    /// Lays the layers over each other; returns with them what is wrong with the file itself.
    pub(super) fn stack(
        flags: &'a BTreeMap<&'static str, String>,
        environment: &'a BTreeMap<String, String>,
        file: Option<&File>,
    ) -> (Self, Vec<ConfigProblem>) {
        let mut problems = Vec::new();
        let mut relays = Vec::new();
        let values = file.map_or_else(BTreeMap::new, |file| read(file, &mut relays, &mut problems));
        let layers = Self {
            flags,
            environment,
            file: values,
            relays,
            path: file.map(|file| file.path.clone()).unwrap_or_default(),
        };
        (layers, problems)
    }

    /// Returns the value in force.
    pub(super) fn value(&self, key: &str) -> Option<&str> {
        self.lookup(setting(key)?).0
    }

    fn lookup(&self, setting: &'static Setting) -> (Option<&str>, Origin) {
        if let (Some(value), Some(flag)) = (self.flags.get(setting.key), setting.flag) {
            return (Some(value), Origin::Flag(flag));
        }
        // An empty variable is how shells and unit files say "not set".
        let variable = self.environment.get(setting.environment);
        if let Some(value) = variable.filter(|value| !value.is_empty()) {
            return (Some(value), Origin::Environment(setting.environment));
        }
        match self.file.get(setting.key) {
            Some(FileValue { text, line }) => (
                Some(text),
                Origin::File {
                    path: self.path.clone(),
                    line: *line,
                },
            ),
            None => (setting.default, Origin::Default),
        }
    }

    /// Returns where the value in force stands, for an error message.
    pub(super) fn place(&self, key: &'static str) -> String {
        match setting(key).map(|setting| self.lookup(setting).1) {
            None | Some(Origin::Default) => format!("{key} (its default)"),
            Some(Origin::File { path, line }) => format!("{}:{line}: {key}", path.display()),
            Some(origin @ (Origin::Flag(_) | Origin::Environment(_))) => origin.to_string(),
        }
    }

    /// Returns every setting with its value and origin.
    pub(super) fn entries(&self) -> Vec<super::Entry> {
        SETTINGS
            .iter()
            .map(|setting| {
                let (value, origin) = self.lookup(setting);
                super::Entry {
                    setting,
                    value: value.map(|value| match setting.key {
                        "nats" => hide_credentials(value),
                        _ => value.to_owned(),
                    }),
                    origin,
                }
            })
            .collect()
    }
}

fn setting(key: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.key == key)
}

/// Reads the file into dotted keys; what is no setting, or no plain value, is a problem.
fn read(
    file: &File,
    relays: &mut Vec<Several>,
    problems: &mut Vec<ConfigProblem>,
) -> BTreeMap<String, FileValue> {
    let mut values = BTreeMap::new();
    let place = |offset: usize| (file.path.display().to_string(), line_at(&file.text, offset));
    let table = match DeTable::parse(&file.text) {
        Ok(table) => table.into_inner(),
        Err(error) => {
            let (path, line) = place(error.span().map_or(0, |span| span.start));
            problems.push(ConfigProblem {
                place: format!("{path}:{line}"),
                reason: format!("is not TOML: {}", error.message()),
                hint: None,
            });
            return values;
        }
    };
    let mut waiting: Vec<(String, DeTable<'_>)> = vec![(String::new(), table)];
    while let Some((section, table)) = waiting.pop() {
        for (name, value) in table {
            let (path, line) = place(name.span().start);
            let key = match section.as_str() {
                "" => name.get_ref().to_string(),
                section => format!("{section}.{}", name.get_ref()),
            };
            let known = setting(&key).is_some();
            match value.into_inner() {
                DeValue::Table(inner) if is_section(&key) => waiting.push((key, inner)),
                DeValue::Array(tables) if key == RELAYS => {
                    let tables = tables.into_iter().map(toml::Spanned::into_inner);
                    let several = tables.map(|table| several(file, line, table));
                    for one in several {
                        match one {
                            Ok(one) => relays.push(one),
                            Err(problem) => problems.push(problem),
                        }
                    }
                }
                DeValue::String(text) if known => {
                    let text = text.into_owned();
                    values.insert(key, FileValue { text, line });
                }
                DeValue::Integer(number) if known => {
                    let text = number.to_string();
                    values.insert(key, FileValue { text, line });
                }
                DeValue::Boolean(truth) if known => {
                    let text = truth.to_string();
                    values.insert(key, FileValue { text, line });
                }
                other => problems.push(unusable(&format!("{path}:{line}"), &key, &other)),
            }
        }
    }
    problems.sort_by(|one, other| one.place.cmp(&other.place));
    values
}

/// Reads one of several tables: texts, and lists of texts.
fn several(file: &File, line: usize, table: DeValue<'_>) -> Result<Several, ConfigProblem> {
    let place = |line: usize| format!("{}:{line}", file.path.display());
    let wrong = |place: String, reason: String| ConfigProblem {
        place,
        reason,
        hint: None,
    };
    let DeValue::Table(table) = table else {
        let reason = format!("{RELAYS} is not a list of tables; write [[{RELAYS}]]");
        return Err(wrong(place(line), reason));
    };
    let first = table.iter().map(|(name, _)| name.span().start).min();
    let mut several = Several {
        place: place(first.map_or(line, |first| line_at(&file.text, first))),
        values: BTreeMap::new(),
    };
    for (name, value) in table {
        let place = place(line_at(&file.text, name.span().start));
        let key = name.into_inner().into_owned();
        let texts = match value.into_inner() {
            DeValue::String(text) => Some(vec![text.into_owned()]),
            DeValue::Array(list) => list
                .into_iter()
                .map(|one| match one.into_inner() {
                    DeValue::String(text) => Some(text.into_owned()),
                    _ => None,
                })
                .collect(),
            _ => None,
        };
        let Some(texts) = texts else {
            let reason = format!("{RELAYS}: {key} is neither a text nor a list of texts");
            return Err(wrong(place, reason));
        };
        several.values.insert(key, (place, texts));
    }
    Ok(several)
}

fn is_section(key: &str) -> bool {
    SETTINGS.iter().any(|setting| {
        let within = setting.key.strip_prefix(key);
        within.is_some_and(|rest| rest.starts_with('.'))
    })
}

fn unusable(place: &str, key: &str, value: &DeValue<'_>) -> ConfigProblem {
    let place = place.to_owned();
    if setting(key).is_some() || is_section(key) {
        let expected = if is_section(key) {
            "a section"
        } else {
            "a text, a number or a truth value"
        };
        return ConfigProblem {
            place,
            reason: format!("{key} is of type {}; expected {expected}", value.type_str()),
            hint: None,
        };
    }
    let keys = SETTINGS.iter().map(|setting| setting.key).chain([RELAYS]);
    ConfigProblem {
        place,
        reason: format!("{key:?} is not a setting"),
        hint: Some(match nearest(key, keys) {
            Some(close) => format!("did you mean {close}?"),
            None => "`steward config show` lists all settings".to_owned(),
        }),
    }
}

fn line_at(text: &str, offset: usize) -> usize {
    let before = text.get(..offset).unwrap_or(text);
    before.matches('\n').count() + 1
}
