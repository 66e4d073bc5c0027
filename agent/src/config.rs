//! The agent's configuration: one pure function from flags, environment and file to values.
//!
//! Flag before environment before file before default. Opens nothing, and reports every problem at
//! once, each with the place it comes from.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::Duration,
};

use steward_protocol::{Domain, LedgerId, Method, NodeName, Subject, limits, nearest::nearest};

mod broker;
mod layers;
mod restart;
pub mod syslog;
mod table;

use self::layers::{Found, Layers, Value};
pub use self::{
    broker::Reach,
    restart::{GiveUp, Restart, Tolerance},
    syslog::Logs,
};
use crate::{check::Policy, child::cgroup::Insist, method::Methods};

/// Where the file is looked for when none is given.
pub const DEFAULT_FILE: &str = "/etc/steward/agent.toml";

/// How long a process's loop may stand still when the config says nothing.
const WEDGED_AFTER: Duration = Duration::from_secs(30);

/// The shortest time a loop may be called standing still after: a busy machine is no fault.
const LEAST_WEDGED_AFTER: Duration = Duration::from_secs(1);

/// What was given on the command line; everything is optional there.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Flags {
    /// Name of this node [env: STEWARD_NODE]
    #[arg(long, value_name = "NAME")]
    pub node: Option<String>,
    /// Broker URL, or several separated by commas [env: NATS_URL]
    #[arg(long, value_name = "URL")]
    pub nats: Option<String>,
    /// Directory for the journal [env: STEWARD_STATE_DIR]
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<String>,
    /// Name of the station this node obeys [env: STEWARD_STATION] [default: central]
    #[arg(long, value_name = "NAME")]
    pub station: Option<String>,
    /// Label of this node; may be given several times [env: STEWARD_LABELS]
    #[arg(long = "label", value_name = "KEY=VALUE")]
    pub labels: Vec<String>,
    /// Credentials file for the broker [env: NATS_CREDS]
    #[arg(long, value_name = "FILE")]
    pub creds: Option<String>,
    /// Time between two hellos, like 10s [env: STEWARD_HEARTBEAT] [default: 10s]
    #[arg(long, value_name = "TIME")]
    pub heartbeat: Option<String>,
    /// Use a broker that is not on this machine although nothing is signed yet
    #[arg(long)]
    pub allow_unsigned: bool,
    /// Let this ledger take over from the one this node belongs to
    #[arg(long, value_name = "LEDGER_ID")]
    pub accept_ledger: Option<String>,
}

/// Everything that can be read, before anything is made of it.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The command line.
    pub flags: Flags,
    /// The environment.
    pub env: BTreeMap<String, String>,
    /// The file's path and text, if there is one.
    pub file: Option<(PathBuf, String)>,
}

/// The agent's configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// This node.
    pub node: NodeName,
    /// The broker's URLs, separated by commas.
    pub nats: String,
    /// Whether the broker is on this machine.
    pub reach: Reach,
    /// Credentials for the broker.
    pub creds: Option<PathBuf>,
    /// Where the journal is.
    pub state_dir: PathBuf,
    /// The station this node obeys.
    pub station: NodeName,
    /// Labels of this node.
    pub labels: BTreeMap<String, String>,
    /// Time between two hellos.
    pub heartbeat: Duration,
    /// Subjects whose processes are spawned at the start.
    pub subjects: Vec<Subject>,
    /// The domains allowed; any, if none are listed.
    pub domains: Option<BTreeSet<Domain>>,
    /// The methods offered; all there are, if none are listed.
    pub methods: Methods,
    /// Most commands that run at once.
    pub commands_at_once: usize,
    /// Most orders taken but not started.
    pub queue: usize,
    /// Most bytes of output kept until confirmed.
    pub results_budget: u64,
    /// The program, and its first arguments, that runs a text.
    pub shell: Vec<String>,
    /// What becomes of a command whose limits this node cannot hold.
    pub limits: Insist,
    /// Most bytes of one command's output kept whole.
    pub output_cap: u64,
    /// Restarts of a process.
    pub restart: Restart,
    /// The same, where a method has its own.
    pub restart_of: BTreeMap<Method, Restart>,
    /// After this long without progress of its loop a process is replaced.
    pub wedged_after: Duration,
    /// After this long without work a process ends.
    pub idle_after: Duration,
    /// How long running commands may go on when the agent ends.
    pub drain: Duration,
    /// Most bytes of outputs and files sent per second; as many as the link takes, if there is no limit.
    pub transfer_rate: Option<u64>,
    /// A ledger that may take over.
    pub accept_ledger: Option<LedgerId>,
    /// Logs that are taken and forwarded; none, if no input is configured.
    pub logs: Option<Logs>,
    /// The file, which can be read again.
    pub file: Option<PathBuf>,
}

impl Config {
    /// Returns what this node lets itself be asked for.
    pub fn policy(&self) -> Policy<'_> {
        Policy {
            methods: &self.methods,
            domains: self.domains.as_ref(),
        }
    }
}

/// One thing that is wrong, and where it was found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {problem}")]
pub struct Problem {
    /// Flag, variable, or file and key.
    pub place: String,
    /// What is wrong, and what to write instead.
    pub problem: String,
}

/// Everything that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("use the configuration:{}", .problems.iter().map(|problem| format!("\n  {problem}")).collect::<String>())]
pub struct ConfigError {
    /// One entry per problem.
    pub problems: Vec<Problem>,
}

/// Makes a configuration of everything that was given.
///
/// # Errors
///
/// Returns every problem at once.
pub fn resolve(sources: &Sources) -> Result<Config, ConfigError> {
    let mut layers = Layers::new(sources);
    let config = read(&mut layers).map(|config| Config {
        file: sources.file.as_ref().map(|(path, _)| path.clone()),
        ..config
    });
    let problems = layers.finish();
    match config {
        Some(config) if problems.is_empty() => Ok(config),
        Some(_) | None => Err(ConfigError { problems }),
    }
}

/// Returns the state directory alone, which is all that is needed to ask a running agent.
///
/// # Errors
///
/// Returns every problem on the way to it; what else may be wrong is not looked at.
pub fn state_dir(sources: &Sources) -> Result<PathBuf, ConfigError> {
    let mut layers = Layers::new(sources);
    let found = layers.needed("state_dir", "--state-dir DIR", text);
    match found {
        Some(dir) => Ok(PathBuf::from(dir)),
        None => Err(ConfigError {
            problems: layers.into_problems(),
        }),
    }
}

/// Reads every key; one that is missing or wrong has left its problem behind.
fn read(layers: &mut Layers<'_>) -> Option<Config> {
    let node: Option<NodeName> = layers.needed("node", "--node NAME", token);
    let nats = layers.needed("nats", "--nats URL", text);
    let state_dir = layers.needed("state_dir", "--state-dir DIR", text);
    let reach = nats.as_deref().and_then(|urls| broker::reach(layers, urls));
    let creds = layers.optional("creds", text).map(PathBuf::from);
    let station = layers.or("station", token, "central".parse().ok());
    let labels = layers.or("labels", labels, Some(BTreeMap::new()));
    let heartbeat = layers.or("heartbeat", duration, Some(limits::HEARTBEAT));
    let entries = layers.or("subjects", list, Some(Vec::new()));
    let domains = layers.optional("domains", tokens);
    let methods = layers.or("methods", methods, Some(Methods::default()));
    let commands_at_once = layers.or("commands_at_once", positive, Some(4));
    let queue = layers.or("queue", positive, Some(100));
    let results_budget = layers.or("results_budget", bytes, Some(64 << 20));
    let shell = layers.or(
        "shell",
        program,
        Some(vec!["/bin/sh".to_owned(), "-c".to_owned()]),
    );
    let insist = layers.or("limits", insistence, Some(Insist::Require));
    let output_cap = layers.or("output_cap", bytes, Some(16 << 20));
    let (restart, restart_of) = restart::all(layers);
    let wedged_after = layers.or("wedged_after", patience, Some(WEDGED_AFTER));
    let idle_after = layers.or("idle_after", duration, Some(Duration::from_secs(600)));
    let drain = layers.or("drain", duration, Some(Duration::from_secs(10)));
    let transfer_rate = layers.optional("transfer_rate", rate);
    let accept_ledger = layers.optional("accept_ledger", |value| {
        text(value)?
            .parse()
            .map_err(|_| "is not a ledger id; `steward status` shows it".to_owned())
    });
    let logs = syslog::read(layers);
    if node.is_some() && node == station {
        let problem = "is the station's own name; a node needs one of its own";
        layers.problem("node", problem.to_owned());
    }
    let subjects = match (&node, entries, &methods) {
        (Some(node), Some(entries), Some(methods)) => subjects(layers, (node, methods), &entries),
        (_, _, _) => None,
    };
    Some(Config {
        node: node?,
        nats: nats?,
        reach: reach?,
        creds,
        state_dir: PathBuf::from(state_dir?),
        station: station?,
        labels: labels?,
        heartbeat: heartbeat?,
        subjects: subjects?,
        domains,
        methods: methods?,
        commands_at_once: commands_at_once?,
        queue: queue?,
        results_budget: results_budget?,
        shell: shell?,
        limits: insist?,
        output_cap: output_cap?,
        restart,
        restart_of,
        wedged_after: wedged_after?,
        idle_after: idle_after?,
        drain: drain?,
        transfer_rate,
        accept_ledger,
        logs,
        file: None,
    })
}

fn subjects(
    layers: &mut Layers<'_>,
    (node, methods): (&NodeName, &Methods),
    entries: &[String],
) -> Option<Vec<Subject>> {
    let mut subjects = Vec::new();
    for entry in entries {
        match subject(node, methods, entry) {
            Ok(subject) => subjects.push(subject),
            Err(problem) => layers.problem("subjects", problem),
        }
    }
    Some(subjects)
}

fn subject(node: &NodeName, methods: &Methods, entry: &str) -> Result<Subject, String> {
    let subject: Subject = format!("{node}.{entry}").parse().map_err(|error| {
        format!("{entry:?} is not <command>.<method>.<domain>: with the node in front it {error}")
    })?;
    if subject.kind == steward_protocol::Kind::Command && methods.has(&subject.method) {
        Ok(subject)
    } else {
        Err(format!(
            "{entry:?} is nothing this agent offers; it offers commands: {methods}"
        ))
    }
}

fn text(value: &Value) -> Found<String> {
    match value {
        Value::Text(text) if !text.is_empty() => Ok(text.clone()),
        Value::Text(_) => Err("is empty".to_owned()),
        Value::List(_) | Value::Pairs(_) => Err("is not a text".to_owned()),
    }
}

fn token<T: std::str::FromStr<Err = steward_protocol::NameError>>(value: &Value) -> Found<T> {
    let text = text(value)?;
    text.parse().map_err(|error| format!("{text:?} {error}"))
}

fn tokens(value: &Value) -> Found<BTreeSet<Domain>> {
    list(value)?
        .iter()
        .map(|text| text.parse().map_err(|error| format!("{text:?} {error}")))
        .collect()
}

fn methods(value: &Value) -> Found<Methods> {
    let named: Vec<Method> = list(value)?
        .iter()
        .map(|text| method(text))
        .collect::<Found<_>>()?;
    if named.is_empty() {
        return Err(
            "is empty; name what this node offers, or leave it out to offer all".to_owned(),
        );
    }
    Ok(Methods::only(named))
}

fn method(text: &str) -> Found<Method> {
    let all = Methods::default();
    let found = Method::ALL
        .into_iter()
        .find(|method| method.as_str() == text);
    match found {
        Some(method) if all.offers(method) => Ok(method),
        Some(_) => Err(format!(
            "{text:?} is no method that is asked of a node: what the two ends need of each other is always on; leave it out"
        )),
        None => {
            let meant = nearest(text, all.offered().map(Method::as_str));
            let hint = meant.map_or_else(
                || format!("there are {all}"),
                |meant| format!("did you mean {meant:?}?"),
            );
            Err(format!("{text:?} is no method; {hint}"))
        }
    }
}

fn list(value: &Value) -> Found<Vec<String>> {
    match value {
        Value::List(texts) => Ok(texts.clone()),
        Value::Text(text) => Ok(text
            .split(',')
            .map(|part| part.trim().to_owned())
            .filter(|part| !part.is_empty())
            .collect()),
        Value::Pairs(_) => Err("is a table; write a list of texts".to_owned()),
    }
}

/// A program and its arguments: a list, or a text with spaces between them.
fn program(value: &Value) -> Found<Vec<String>> {
    let words = match value {
        Value::Text(text) => text.split_whitespace().map(str::to_owned).collect(),
        other => list(other)?,
    };
    match words.first() {
        Some(program) if program.starts_with('/') => Ok(words),
        Some(_) | None => {
            Err("is not a program with its whole path, like \"/bin/sh -c\"".to_owned())
        }
    }
}

fn insistence(value: &Value) -> Found<Insist> {
    match text(value)?.as_str() {
        "require" => Ok(Insist::Require),
        "best_effort" => Ok(Insist::BestEffort),
        other => Err(format!(
            "{other:?} is neither \"require\" nor \"best_effort\""
        )),
    }
}

fn duration(value: &Value) -> Found<Duration> {
    let text = text(value)?;
    match humantime::parse_duration(&text) {
        Ok(time) if time.is_zero() => Err("is zero; write a time like \"30s\"".to_owned()),
        Ok(time) => Ok(time),
        Err(error) => Err(format!("{text:?} is not a time like \"30s\": {error}")),
    }
}

fn patience(value: &Value) -> Found<Duration> {
    match duration(value)? {
        time if time < LEAST_WEDGED_AFTER => {
            let least = humantime::format_duration(LEAST_WEDGED_AFTER);
            Err(format!("is too short; write at least \"{least}\""))
        }
        time => Ok(time),
    }
}

fn number(value: &Value) -> Found<u64> {
    let text = text(value)?;
    text.parse()
        .map_err(|_| format!("{text:?} is not a whole number"))
}

fn positive(value: &Value) -> Found<usize> {
    match number(value)? {
        0 => Err("is 0; write at least 1".to_owned()),
        number => usize::try_from(number).map_err(|_| "is too large".to_owned()),
    }
}

/// The suffixes a size may have.
const UNITS: [(&str, u64); 4] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("B", 1),
];

fn bytes(value: &Value) -> Found<u64> {
    let text = text(value)?;
    let (digits, unit) = UNITS
        .iter()
        .find_map(|(suffix, unit)| Some((text.strip_suffix(suffix)?.trim(), *unit)))
        .unwrap_or((&text, 1));
    digits
        .parse::<u64>()
        .ok()
        .and_then(|count| count.checked_mul(unit))
        .ok_or_else(|| format!("{text:?} is not a size like \"64MiB\" or a number of bytes"))
}

fn rate(value: &Value) -> Found<u64> {
    match bytes(value)? {
        0 => Err("is 0; leave it out for no limit".to_owned()),
        rate => Ok(rate),
    }
}

fn labels(value: &Value) -> Found<BTreeMap<String, String>> {
    let pairs: Vec<(String, String)> = match value {
        Value::Pairs(pairs) => pairs.clone(),
        Value::Text(_) | Value::List(_) => list(value)?
            .into_iter()
            .map(|pair| match pair.split_once('=') {
                Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
                None => Err(format!("{pair:?} is not KEY=VALUE")),
            })
            .collect::<Found<_>>()?,
    };
    if pairs.len() > limits::MAX_LABELS {
        let (found, most) = (pairs.len(), limits::MAX_LABELS);
        return Err(format!("has {found} labels; a node has at most {most}"));
    }
    match pairs.iter().find(|(key, value)| !is_label(key, value)) {
        Some((key, value)) => Err(format!(
            "{key:?} = {value:?} is not a label: a key has 1 to 63 letters, digits, '_', '-' or '.', a value at most 63 bytes without control characters"
        )),
        None => Ok(pairs.into_iter().collect()),
    }
}

fn is_label(key: &str, value: &str) -> bool {
    let plain =
        |character: char| character.is_ascii_alphanumeric() || matches!(character, '_' | '-' | '.');
    (1..=63).contains(&key.len())
        && key.chars().all(plain)
        && value.len() <= 63
        && !value.chars().any(char::is_control)
}

#[cfg(test)]
mod tests;
