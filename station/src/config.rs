//! The station's configuration: flag over environment over file over default.
//!
//! Pure: it is handed texts and gives back values, or everything that is wrong with the texts at
//! once. It opens nothing and does not know whether a path exists or a broker answers.

use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use steward_protocol::NodeName;

use self::{
    outlets::RelayConfig,
    sources::{Layers, SETTINGS},
    values::{broker_is_local, bytes, duration, hide_credentials},
};
use crate::logs::mirror;

pub mod outlets;
mod sources;
#[cfg(test)]
mod tests;
pub mod values;

pub use self::sources::{File, Origin, Setting};

/// The file that is read when none is given and it exists.
pub const DEFAULT_FILE: &str = "/etc/steward/station.toml";

/// The state directory of a station that is told of none.
pub const DEFAULT_STATE_DIR: &str = "/var/lib/steward";

/// The socket of the station's API, inside its state directory.
pub const SOCKET: &str = "steward.sock";

/// Longest path of a Unix socket on Linux, without the final NUL.
const MAX_SOCKET_PATH: usize = 107;

/// Everything a station is told from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The station's own node name.
    pub name: NodeName,
    /// Where ledger, socket and inbox are.
    pub state_dir: PathBuf,
    /// Address of the broker, or several separated by commas.
    pub nats: String,
    /// Credentials file for the broker.
    pub creds: Option<PathBuf>,
    /// Where the read-only API listens besides its socket; on loopback.
    pub http: Option<SocketAddr>,
    /// Whether a broker elsewhere is used although nothing is signed.
    pub unsigned: Unsigned,
    /// How the inbox is watched.
    pub inbox: InboxConfig,
    /// What is kept, and for how long.
    pub retention: RetentionConfig,
    /// Which logs of nodes are kept, and for how long.
    pub logs: RetentionConfig,
    /// Where they are sent on to.
    pub relays: Vec<RelayConfig>,
    /// How they are written into plain files, if they are.
    pub mirror: Option<mirror::Shape>,
    /// Most bytes of outputs kept.
    pub outputs_bytes: u64,
    /// Most deliveries that may be open before submissions are refused.
    pub max_open_deliveries: u64,
    /// What is logged, and how.
    pub log: LogConfig,
}

impl Config {
    /// Returns the path of the API's socket.
    pub fn socket(&self) -> PathBuf {
        self.state_dir.join(SOCKET)
    }

    /// Returns the broker's address as it may be shown: without credentials.
    pub fn nats_shown(&self) -> String {
        hide_credentials(&self.nats)
    }

    /// Returns the folder operators drop files into.
    pub fn inbox_dir(&self) -> PathBuf {
        self.state_dir.join("inbox")
    }
}

/// Which brokers may be used while orders and answers are not signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsigned {
    /// Only one on this machine.
    LoopbackOnly,
    /// Any: the operator said so.
    Anywhere,
}

/// How the inbox is watched (design section 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InboxConfig {
    /// How often the folder is scanned, whatever the notifications say.
    pub rescan: Duration,
    /// How long a file must be unchanged before a scan takes it.
    pub settle: Duration,
    /// How long JSON that ends too early may stay unchanged before it is rejected.
    pub give_up: Duration,
}

/// What is kept of finished work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetentionConfig {
    /// For how long.
    pub age: Duration,
    /// Up to how many bytes.
    pub bytes: u64,
}

/// What is logged, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// Filter in the language of `RUST_LOG`.
    pub filter: String,
    /// How a line looks.
    pub format: LogFormat,
}

/// How a line of the log looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

impl LogFormat {
    /// Returns the word used for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

/// One thing wrong with the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigProblem {
    /// Where it stands: a flag, a variable, or a file and line.
    pub place: String,
    /// What is wrong.
    pub reason: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl fmt::Display for ConfigProblem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.place, self.reason)?;
        match &self.hint {
            Some(hint) => write!(formatter, "; {hint}"),
            None => Ok(()),
        }
    }
}

/// A configuration, where each part of it came from, and what its owner should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// The configuration.
    pub config: Config,
    /// Every setting with its value and where that came from, in the order of the reference.
    pub entries: Vec<Entry>,
    /// Sentences for the log and the operator.
    pub warnings: Vec<String>,
}

/// One setting in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The setting.
    pub setting: &'static Setting,
    /// Its value, without credentials; `None` where it is not set and has no default.
    pub value: Option<String>,
    /// Where the value came from.
    pub origin: Origin,
}

/// Returns the configuration these texts amount to. `flags` are keyed like the file.
///
/// # Errors
///
/// Returns everything that is wrong, not only the first thing.
pub fn resolve(
    flags: &BTreeMap<&'static str, String>,
    environment: &BTreeMap<String, String>,
    file: Option<&File>,
) -> Result<Resolved, Vec<ConfigProblem>> {
    let (layers, problems) = Layers::stack(flags, environment, file);
    let mut reader = Reader { layers, problems };
    let mut warnings = Vec::new();
    let config = reader.config(&mut warnings);
    match (config, reader.problems.is_empty()) {
        (Some(config), true) => Ok(Resolved {
            entries: reader.layers.entries(),
            config,
            warnings,
        }),
        (Some(_) | None, _) => Err(reader.problems),
    }
}

/// Reads settings one by one and keeps what is wrong with them.
struct Reader<'a> {
    layers: Layers<'a>,
    problems: Vec<ConfigProblem>,
}

impl Reader<'_> {
    /// Reads every setting before giving up on any, so that all problems are told at once.
    fn config(&mut self, warnings: &mut Vec<String>) -> Option<Config> {
        let name = self.required("name", |text| {
            text.parse::<NodeName>()
                .map_err(|error| format!("{text:?} {error}"))
        });
        let state_dir = self.required("state_dir", |text| Ok(PathBuf::from(text)));
        let nats = self.required("nats", |text| {
            broker_is_local(text).map(|_| text.to_owned())
        });
        let creds = self.optional("creds", |text| Ok(PathBuf::from(text)));
        let http = self.optional("http", values::loopback);
        let unsigned = self.required("allow_unsigned", |text| {
            Ok(if values::boolean(text)? {
                Unsigned::Anywhere
            } else {
                Unsigned::LoopbackOnly
            })
        });
        let rescan = self.required("inbox.rescan", duration);
        let settle = self.required("inbox.settle", duration);
        let give_up = self.required("inbox.give_up", duration);
        let age = self.required("retention.age", duration);
        let size = self.required("retention.bytes", bytes);
        let logs_age = self.required("logs.age", duration);
        let logs_bytes = self.required("logs.bytes", bytes);
        let mirror = self.mirror();
        let relays = outlets::relays(&self.layers.relays, &mut self.problems);
        let outputs_bytes = self.required("outputs.bytes", bytes);
        let max_open_deliveries = self.required("max_open_deliveries", values::count);
        let filter = self.required("log.filter", values::log_filter);
        let format = self.required("log.format", values::log_format);
        if let Some(state_dir) = &state_dir {
            self.check_socket(state_dir);
        }
        if let (Some(settle), Some(give_up)) = (settle, give_up) {
            self.check_inbox(settle, give_up);
        }
        if let (Some(nats), Some(unsigned)) = (&nats, unsigned) {
            warnings.extend(self.check_broker(nats, unsigned));
        }
        Some(Config {
            name: name?,
            state_dir: state_dir?,
            nats: nats?,
            creds: creds?,
            http: http?,
            unsigned: unsigned?,
            inbox: InboxConfig {
                rescan: rescan?,
                settle: settle?,
                give_up: give_up?,
            },
            retention: RetentionConfig {
                age: age?,
                bytes: size?,
            },
            logs: RetentionConfig {
                age: logs_age?,
                bytes: logs_bytes?,
            },
            relays,
            mirror: mirror?,
            outputs_bytes: outputs_bytes?,
            max_open_deliveries: max_open_deliveries?,
            log: LogConfig {
                filter: filter?,
                format: format?,
            },
        })
    }

    /// Returns how logs are mirrored, `Some(None)` if they are not.
    fn mirror(&mut self) -> Option<Option<mirror::Shape>> {
        let dir = self.optional("logs.mirror.dir", outlets::directory);
        let format = self.required("logs.mirror.format", outlets::format);
        let size = self.required("logs.mirror.size", outlets::size);
        let keep = self.required("logs.mirror.keep", outlets::keep);
        let rotation = mirror::file::Rotation {
            bytes: size?,
            keep: keep?,
        };
        let format = format?;
        Some(dir?.map(|dir| mirror::Shape {
            dir,
            format,
            rotation,
        }))
    }

    /// Returns the value, or `None` after noting a problem.
    fn required<T>(
        &mut self,
        key: &'static str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        self.optional(key, parse).flatten()
    }

    /// Returns `Some(None)` where nothing is set, and `None` after noting a problem.
    fn optional<T>(
        &mut self,
        key: &'static str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<Option<T>> {
        let Some(value) = self.layers.value(key) else {
            return Some(None);
        };
        match parse(value) {
            Ok(parsed) => Some(Some(parsed)),
            Err(reason) => {
                self.problem(key, reason, None);
                None
            }
        }
    }

    fn problem(&mut self, key: &'static str, reason: String, hint: Option<String>) {
        self.problems.push(ConfigProblem {
            place: self.layers.place(key),
            reason,
            hint,
        });
    }

    fn check_socket(&mut self, state_dir: &Path) {
        let length = state_dir.join(SOCKET).as_os_str().len();
        if length > MAX_SOCKET_PATH {
            self.problem(
                "state_dir",
                format!("its socket's path would be {length} bytes long; the system allows {MAX_SOCKET_PATH}"),
                Some("choose a shorter path, or a symbolic link to it".to_owned()),
            );
        }
    }

    fn check_inbox(&mut self, settle: Duration, give_up: Duration) {
        if give_up < settle {
            self.problem(
                "inbox.give_up",
                "is shorter than inbox.settle, so a half-written file would be rejected before it is read".to_owned(),
                Some("make it at least as long".to_owned()),
            );
        }
    }

    /// Refuses a broker elsewhere, or returns the warning that says what using one means.
    fn check_broker(&mut self, nats: &str, unsigned: Unsigned) -> Option<String> {
        if broker_is_local(nats).unwrap_or(false) {
            return None;
        }
        let broker = hide_credentials(nats);
        let meaning = "messages are not signed yet, so whoever can publish on that broker can give orders to every node and answer in their name";
        match unsigned {
            Unsigned::Anywhere => Some(format!(
                "the broker {broker} is not on this machine and --allow-unsigned is given: {meaning}"
            )),
            Unsigned::LoopbackOnly => {
                self.problem(
                    "nats",
                    format!("the broker {broker} is not on this machine, and {meaning}"),
                    Some("to accept that, add --allow-unsigned here and on every agent".to_owned()),
                );
                None
            }
        }
    }
}

/// Returns every setting there is, for the reference and for `config show`.
pub fn settings() -> &'static [Setting] {
    SETTINGS
}
