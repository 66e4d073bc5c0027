//! The keys of `[[syslog]]`, `[[syslog_rule]]` and `[syslog_spool]`: which logs are taken, where they go, what they may
//! cost.
//!
//! ```toml
//! [[syslog]]                           # an input; as many as there are
//! domain = "nginx"                     # where its messages go, unless a rule says otherwise
//! input = "udp://127.0.0.1:5514"       # tcp://, tls://, unix:///path, unixgram:///path, file:///path
//! max_message = "8KiB"                 # more is cut, and its length kept
//! connections = 1000                   # tcp, tls, unix
//! idle_timeout = "24h"                 # tcp, tls, unix
//! receive_buffer = "32MiB"             # udp, unixgram; as far as the kernel allows
//! mode = "0666"                        # unix, unixgram: permissions of the socket
//! cert = "/etc/…/cert.pem"             # tls
//! key = "/etc/…/key.pem"               # tls
//! client_ca = "/etc/…/ca.pem"          # tls: only senders with a certificate of this authority
//! beyond_loopback = true               # needed for any address that others can reach
//! [[syslog_rule]]                      # in their order; the first that fits decides
//! app = ["cron", "systemd"]            # facility, severity, app, host, source, match; all that are given must fit
//! action = "drop"                      # keep, drop, sample (one_of), rate_limit (most, per); domain = "…"
//! [syslog_spool]
//! size = "64MiB"
//! share = "48MiB"                      # most that one domain takes
//! policy = "block"                     # drop_oldest, drop_newest, drop_by_severity
//! commit = "50ms"                      # or "always"
//! rate = "64KiB"                       # most bytes per second that are sent
//! [syslog_spool.domain.nginx]          # share and policy of one domain
//! ```

mod files;
mod rule;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use steward_protocol::{Domain, logs::MAX_BYTES, nearest::nearest};

pub use self::{
    files::{Files, Start},
    rule::{Action, RuleSpec, rules_of},
};
use super::{
    bytes, duration,
    layers::{Found, Layers, Value},
    positive, rate,
    table::Table,
    text, token,
};
use crate::syslog::spool::{Policy, Settings, Terms, writer::Commit};

/// Most inputs: each has a task and a buffer.
const MAX_INPUTS: usize = 256;

/// Most domains that logs go to: each has a directory that stays, a batch in memory that is being filled, and its turn with
/// every commit.
pub const MAX_DOMAINS: usize = 128;

/// Smallest spool: a few segments for a few domains.
const MIN_SPOOL: u64 = 1 << 20;

/// Longest commit interval: what is younger is lost with the power.
const MAX_COMMIT: Duration = Duration::from_secs(10);

/// How long a stream may be silent when the config says nothing. Closing one whose sender is only quiet costs the sender's
/// next message, for a write to a closed connection succeeds; dead peers are found by keep-alives.
const IDLE: Duration = Duration::from_secs(24 * 3600);

/// Connections of one input when the config says nothing.
const CONNECTIONS: usize = 1000;

/// Receive buffer of a datagram socket when the config says nothing: a second and more of 100,000 short messages a second, for
/// the disk may take so long to sync. It is the kernel's memory, and only while messages wait in it.
const RECEIVE_BUFFER: usize = 32 << 20;

/// Which logs are taken, where they go, what they may cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logs {
    /// Where they come in.
    pub inputs: Vec<Input>,
    /// Where they go, in order.
    pub rules: Vec<RuleSpec>,
    /// What the spool keeps to.
    pub spool: Settings,
    /// When what was taken is made durable.
    pub commit: Commit,
    /// Most bytes of batches sent per second; as many as the link takes, if there is no limit.
    pub rate: Option<u64>,
}

/// Where logs come in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    /// As it was written: the name of the source.
    pub name: String,
    /// Where its messages go.
    pub domain: Domain,
    /// Where it listens.
    pub listen: Listen,
    /// Bytes of a message that are kept.
    pub max_message: usize,
    /// Most connections at once.
    pub connections: usize,
    /// How long a connection may be silent.
    pub idle: Duration,
    /// Bytes the kernel is asked to keep for a datagram socket.
    pub receive_buffer: usize,
    /// Permissions of a socket in the file system.
    pub mode: u32,
}

/// Where an input listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// Datagrams (RFC 5426).
    Udp(SocketAddr),
    /// Streams (RFC 6587).
    Tcp(SocketAddr),
    /// Encrypted streams (RFC 5425).
    Tls(SocketAddr, TlsFiles),
    /// Streams over a socket in the file system.
    Unix(PathBuf),
    /// Datagrams over one, as `/dev/log`.
    Unixgram(PathBuf),
    /// The systemd journal: this machine's, or that in a directory.
    Journal(Option<PathBuf>),
    /// Files that programs write lines to.
    Files(Files),
}

impl Listen {
    /// Tells whether a crash can take what was sent to it: what the kernel kept for it, and what was in memory only. What can
    /// be read again loses nothing.
    pub fn is_socket(&self) -> bool {
        match self {
            Self::Udp(_) | Self::Unixgram(_) | Self::Tcp(_) | Self::Tls(..) | Self::Unix(_) => true,
            Self::Journal(_) | Self::Files(_) => false,
        }
    }

    /// Tells whether it has connections.
    pub fn is_stream(&self) -> bool {
        match self {
            Self::Tcp(_) | Self::Tls(..) | Self::Unix(_) => true,
            Self::Udp(_) | Self::Unixgram(_) | Self::Journal(_) | Self::Files(_) => false,
        }
    }
}

/// What a listener needs to encrypt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate and those that vouch for it.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Who vouches for senders; anybody may send, if there is none.
    pub client_ca: Option<PathBuf>,
}

/// Reads everything about logs; nothing, if there is no input.
pub(super) fn read(layers: &mut Layers<'_>) -> Option<Logs> {
    let inputs = tables(layers, "syslog", MAX_INPUTS, input);
    let rules = rule::rules(layers);
    let (spool, commit, rate) = spool(layers);
    if inputs.is_empty() {
        return None;
    }
    check_names(layers, &inputs);
    check_domains(layers, &inputs, &rules);
    let longest = inputs.iter().map(|input| input.max_message).max();
    let spool = Settings {
        longest: longest.unwrap_or(spool.longest),
        ..spool
    };
    Some(Logs {
        inputs,
        rules,
        spool,
        commit,
        rate,
    })
}

/// Reads a list of tables, each by `one`, which gives nothing where something is wrong.
fn tables<T>(
    layers: &mut Layers<'_>,
    name: &str,
    most: usize,
    one: impl Fn(Table<'_, '_>, usize) -> Option<T>,
) -> Vec<T> {
    let values = match layers.take_deep(name) {
        None => return Vec::new(),
        Some(toml::Value::Array(values)) => values,
        Some(_) => {
            let problem = format!("is not a list of tables; write [[{name}]]");
            layers.problem_in_file(name, problem);
            return Vec::new();
        }
    };
    if values.len() > most {
        let problem = format!("has {} entries; at most {most} are taken", values.len());
        layers.problem_in_file(name, problem);
    }
    let mut read = Vec::new();
    for (index, value) in values.into_iter().take(most).enumerate() {
        let place = format!("{name}[{}]", index + 1);
        match value {
            toml::Value::Table(rows) => read.extend(one(Table::new(layers, place, rows), index)),
            _ => layers.problem_in_file(&place, format!("is no table; write [[{name}]]")),
        }
    }
    read
}

fn input(mut table: Table<'_, '_>, _index: usize) -> Option<Input> {
    let domain = table.needed("domain", "\"nginx\"", token);
    let name = table.needed("input", "\"udp://127.0.0.1:5514\"", text);
    let max_message = table.or("max_message", message_size, 8 << 10);
    let connections = table.or("connections", positive, CONNECTIONS);
    let idle = table.or("idle_timeout", duration, IDLE);
    let receive_buffer = table.or("receive_buffer", size, RECEIVE_BUFFER);
    let mode = table.or("mode", mode, 0o666);
    let open = table.or("beyond_loopback", answer, false);
    let beside = Beside {
        tls: tls(&mut table, name.as_deref()),
        files: files::files(&mut table, name.as_deref()),
    };
    let listen = name.as_deref().and_then(|name| match listen(name, beside) {
        Ok(listen) => {
            if let Some(problem) = exposed(&listen).filter(|_| !open) {
                table.problem("input", problem);
            }
            Some(listen)
        }
        Err(problem) => {
            table.problem("input", problem);
            None
        }
    });
    let made = domain
        .zip(name.zip(listen))
        .map(|(domain, (name, listen))| Input {
            name,
            domain,
            listen,
            max_message,
            connections,
            idle,
            receive_buffer,
            mode,
        });
    table.finish(made)
}

/// Reads the files of a listener that encrypts; others have none.
fn tls(table: &mut Table<'_, '_>, name: Option<&str>) -> Option<TlsFiles> {
    let cert = table.optional("cert", text).map(PathBuf::from);
    let key = table.optional("key", text).map(PathBuf::from);
    let client_ca = table.optional("client_ca", text).map(PathBuf::from);
    if !name.is_some_and(|name| name.starts_with("tls://")) {
        let given = [("cert", &cert), ("key", &key), ("client_ca", &client_ca)];
        for (key, _) in given.into_iter().filter(|(_, path)| path.is_some()) {
            table.problem(key, "is for tls:// inputs only".to_owned());
        }
        return None;
    }
    if cert.is_none() || key.is_none() {
        let problem = "needs cert and key, both paths of PEM files";
        table.problem("input", problem.to_owned());
    }
    Some(TlsFiles {
        cert: cert?,
        key: key?,
        client_ca,
    })
}

/// What stands in an input's table for its kind only.
struct Beside {
    tls: Option<TlsFiles>,
    files: Option<Files>,
}

/// Reads where an input listens.
fn listen(name: &str, beside: Beside) -> Result<Listen, String> {
    const KINDS: &str = "udp://127.0.0.1:5514, tcp://, tls://, unix:///run/log.sock, unixgram:///dev/log, file:///var/log/*.log or journal:";
    if let Some(rest) = name.strip_prefix("journal:") {
        return journal(name, rest).map(Listen::Journal);
    }
    let Some((scheme, rest)) = name.split_once("://") else {
        return Err(format!("{name:?} is no input; write {KINDS}"));
    };
    let path = || match rest.starts_with('/') {
        true if rest.len() > 1 && !rest.ends_with('/') => Ok(PathBuf::from(rest)),
        _ => Err(format!(
            "{name:?} names no socket with its whole path; write {scheme}:///run/log.sock"
        )),
    };
    match scheme {
        "udp" => Ok(Listen::Udp(address(name, rest)?)),
        "tcp" => Ok(Listen::Tcp(address(name, rest)?)),
        // Without files there is a problem already.
        "tls" => Ok(match beside.tls {
            Some(files) => Listen::Tls(address(name, rest)?, files),
            None => Listen::Tcp(address(name, rest)?),
        }),
        "unix" => Ok(Listen::Unix(path()?)),
        "unixgram" => Ok(Listen::Unixgram(path()?)),
        "file" => files::listen(name, rest, beside.files),
        other => {
            let kinds = ["udp", "tcp", "tls", "unix", "unixgram", "journal", "file"];
            let meant = nearest(other, kinds);
            let meant =
                meant.map_or_else(String::new, |meant| format!("did you mean {meant}://? "));
            Err(format!(
                "{other:?} is no kind of input; {meant}Write {KINDS}"
            ))
        }
    }
}

/// Reads which journal is meant: this machine's, or that in a directory.
fn journal(name: &str, rest: &str) -> Result<Option<PathBuf>, String> {
    match rest.strip_prefix("//") {
        None if rest.is_empty() => Ok(None),
        Some(path) if path.starts_with('/') && path.len() > 1 => Ok(Some(PathBuf::from(path))),
        Some(_) | None => Err(format!(
            "{name:?} is no journal; write journal: for this machine's, or journal:///var/log/journal for one in a directory"
        )),
    }
}

fn address(name: &str, rest: &str) -> Result<SocketAddr, String> {
    let problem = || {
        format!(
            "{name:?} names no address and port; write an address like 127.0.0.1:5514 or [::1]:5514"
        )
    };
    let local = rest
        .strip_prefix("localhost:")
        .and_then(|port| port.parse().ok())
        .map(|port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port));
    match local.map_or_else(|| rest.parse().ok(), Some) {
        Some(address) if SocketAddr::port(&address) == 0 => Err(problem()),
        Some(address) => Ok(address),
        None => Err(problem()),
    }
}

/// Says what is wrong with an address that others can reach.
fn exposed(listen: &Listen) -> Option<String> {
    let address = match listen {
        Listen::Udp(address) | Listen::Tcp(address) | Listen::Tls(address, _) => address,
        Listen::Unix(_) | Listen::Unixgram(_) | Listen::Journal(_) | Listen::Files(_) => {
            return None;
        }
    };
    (!address.ip().is_loopback()).then(|| {
        format!(
            "others can reach {address}, and whoever can may write logs; listen on 127.0.0.1, or accept that with beyond_loopback = true"
        )
    })
}

fn check_names(layers: &mut Layers<'_>, inputs: &[Input]) {
    for (index, input) in inputs.iter().enumerate() {
        if inputs[..index]
            .iter()
            .any(|other| other.listen == input.listen)
        {
            let problem = format!("{:?} is there twice", input.name);
            layers.problem_in_file("syslog", problem);
        }
    }
}

/// Returns the domains that inputs and rules name.
pub fn domains_named(inputs: &[Input], rules: &[RuleSpec]) -> BTreeSet<Domain> {
    let of_inputs = inputs.iter().map(|input| &input.domain);
    of_inputs.chain(rule::domains(rules)).cloned().collect()
}

fn check_domains(layers: &mut Layers<'_>, inputs: &[Input], rules: &[RuleSpec]) {
    let count = domains_named(inputs, rules).len();
    if count > MAX_DOMAINS {
        let problem =
            format!("names {count} domains, with the rules; at most {MAX_DOMAINS} are taken");
        layers.problem_in_file("syslog", problem);
    }
}

fn spool(layers: &mut Layers<'_>) -> (Settings, Commit, Option<u64>) {
    let defaults = Settings::default();
    let commit = Commit::Every(Duration::from_millis(50));
    let rows = match layers.take_deep("syslog_spool") {
        None => return (defaults, commit, None),
        Some(toml::Value::Table(rows)) => rows,
        Some(_) => {
            let problem = "is no table; write [syslog_spool]".to_owned();
            layers.problem_in_file("syslog_spool", problem);
            return (defaults, commit, None);
        }
    };
    let mut table = Table::new(layers, "syslog_spool".to_owned(), rows);
    let total = table.or("size", spool_size, defaults.total);
    let others = terms(
        &mut table,
        total,
        Terms {
            share: total / 4 * 3,
            ..defaults.others
        },
    );
    let commit = table.or("commit", committed, commit);
    let rate = table.optional("rate", rate);
    let inner = table.inner("domain");
    table.finish(Some(()));
    let settings = Settings {
        total,
        domains: domains(layers, inner, total, others),
        others,
        ..defaults
    };
    (settings, commit, rate)
}

fn terms(table: &mut Table<'_, '_>, total: u64, default: Terms) -> Terms {
    let share = table.optional("share", spool_size);
    if share.is_some_and(|share| share > total) {
        table.problem(
            "share",
            format!("is more than the whole spool of {total} bytes"),
        );
    }
    Terms {
        share: share.unwrap_or(default.share),
        policy: table.or("policy", policy, default.policy),
    }
}

fn domains(
    layers: &mut Layers<'_>,
    inner: Option<toml::Value>,
    total: u64,
    others: Terms,
) -> BTreeMap<Domain, Terms> {
    let place = "syslog_spool.domain";
    let mut read = BTreeMap::new();
    let rows = match inner {
        None => return read,
        Some(toml::Value::Table(rows)) => rows,
        Some(_) => {
            let problem = "is no table; write [syslog_spool.domain.NAME]".to_owned();
            layers.problem_in_file(place, problem);
            return read;
        }
    };
    for (name, value) in rows {
        let place = format!("{place}.{name}");
        match (name.parse::<Domain>(), value) {
            (Ok(domain), toml::Value::Table(rows)) => {
                let mut table = Table::new(layers, place, rows);
                let terms = terms(&mut table, total, others);
                table.finish(Some(()));
                read.insert(domain, terms);
            }
            (Err(error), _) => layers.problem_in_file(&place, error.to_string()),
            (Ok(_), _) => layers.problem_in_file(&place, "is no table".to_owned()),
        }
    }
    read
}

fn policy(value: &Value) -> Found<Policy> {
    match text(value)?.as_str() {
        "block" => Ok(Policy::Block),
        "drop_oldest" => Ok(Policy::DropOldest),
        "drop_newest" => Ok(Policy::DropNewest),
        "drop_by_severity" => Ok(Policy::DropBySeverity),
        other => Err(format!(
            "{other:?} is no policy; write \"block\", \"drop_oldest\", \"drop_newest\" or \"drop_by_severity\""
        )),
    }
}

fn committed(value: &Value) -> Found<Commit> {
    if text(value)? == "always" {
        return Ok(Commit::Always);
    }
    match duration(value).map_err(|error| format!("{error}; or write \"always\""))? {
        time if time > MAX_COMMIT => {
            Err("is longer than 10s: all that is younger would be lost with the power".to_owned())
        }
        time => Ok(Commit::Every(time)),
    }
}

fn spool_size(value: &Value) -> Found<u64> {
    match bytes(value)? {
        bytes if bytes < MIN_SPOOL => Err("is too small; write at least \"1MiB\"".to_owned()),
        bytes => Ok(bytes),
    }
}

fn message_size(value: &Value) -> Found<usize> {
    match size(value)? {
        bytes if (480..=MAX_BYTES).contains(&bytes) => Ok(bytes),
        _ => Err(format!(
            "is not between 480 bytes, which every receiver takes, and {}KiB",
            MAX_BYTES >> 10
        )),
    }
}

fn size(value: &Value) -> Found<usize> {
    usize::try_from(bytes(value)?).map_err(|_| "is too large".to_owned())
}

fn mode(value: &Value) -> Found<u32> {
    let text = text(value)?;
    match u32::from_str_radix(&text, 8) {
        Ok(mode) if mode <= 0o777 => Ok(mode),
        Ok(_) | Err(_) => Err(format!("{text:?} are no permissions like \"0660\"")),
    }
}

fn answer(value: &Value) -> Found<bool> {
    match text(value)?.as_str() {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err("is neither true nor false".to_owned()),
    }
}

#[cfg(test)]
mod tests;
