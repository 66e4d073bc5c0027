//! rsyslog and syslog-ng, unchanged, fed with the vectors: where those two agree on a field, so do we.
//!
//! Both run on loopback with everything they write in a temporary directory. They are taken from where `.ci/peers`
//! unpacks them (`target/peers`, or what `STEWARD_PEERS` names), else from the system. Where one is missing, this says
//! so and compares nothing; it fails where `STEWARD_PEERS` promises both.

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use jiff::{Timestamp, tz::TimeZone};
use steward_protocol::syslog::{Clock, Form, Message};
use tempfile::TempDir;

use super::vectors::{self, Vector};

/// How long anything awaited here may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Vectors where the two agree and we differ all the same, with the field and the reason.
const EXCEPTIONS: &[(&str, &str, &str)] = &[
    ("3164 host in brackets", "host", HALF_AN_ADDRESS),
    ("3164 host in brackets", "app", HALF_AN_ADDRESS),
    ("3164 host in brackets", "text", HALF_AN_ADDRESS),
    (
        "3164 cisco ios two sequences",
        "time",
        "Cisco IOS writes both numbers, if told to; the time behind them is one",
    ),
];

/// A reason.
const HALF_AN_ADDRESS: &str =
    "both end the tag at the colon within the address, and half of it is in no field at all";

/// What both are asked for: the name of ours, and what each of them calls it.
const FIELDS: &[(&str, &str, &str)] = &[
    ("pri", r#"name="pri" format="jsonf""#, "$PRI"),
    (
        "time",
        r#"name="timereported" format="jsonf" dateFormat="rfc3339""#,
        "$S_ISODATE",
    ),
    ("host", r#"name="hostname" format="jsonf""#, "$HOST"),
    ("app", r#"name="app-name" format="jsonf""#, "$PROGRAM"),
    ("procid", r#"name="procid" format="jsonf""#, "$PID"),
    ("msgid", r#"name="msgid" format="jsonf""#, "$MSGID"),
    ("data", r#"name="structured-data" format="jsonf""#, "$SDATA"),
    ("text", r#"name="msg" format="jsonf""#, "$MSG"),
];

type Fields = BTreeMap<String, String>;

/// A program that is ended with its test.
struct Peer {
    child: Child,
    port: u16,
    output: PathBuf,
}

impl Drop for Peer {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Where the packages are unpacked; the empty path is the system.
fn root() -> PathBuf {
    let unpacked = match std::env::var_os("STEWARD_PEERS") {
        Some(root) => PathBuf::from(root),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/peers"),
    };
    let unpacked = unpacked.canonicalize().unwrap_or(unpacked);
    if unpacked.join("usr/sbin").is_dir() {
        unpacked
    } else {
        PathBuf::from("/")
    }
}

/// Returns the directory in `parent` whose name begins so, and what it is below.
fn find(parent: &Path, start: &str) -> Option<PathBuf> {
    let mut entries = fs::read_dir(parent).ok()?.flatten();
    entries
        .find(|entry| entry.file_name().to_string_lossy().starts_with(start))
        .map(|entry| entry.path())
}

fn libraries(root: &Path) -> PathBuf {
    let machine = format!("{}-linux-gnu", std::env::consts::ARCH);
    root.join("usr/lib").join(machine)
}

fn command(root: &Path, program: &str) -> Option<Command> {
    let program = root.join("usr/sbin").join(program);
    if !program.is_file() {
        return None;
    }
    let mut command = Command::new(program);
    command.env("TZ", "UTC").stdin(Stdio::null());
    command.stdout(Stdio::null()).stderr(Stdio::null());
    if root != Path::new("/") {
        let old = libraries(root)
            .strip_prefix(root.join("usr"))
            .map(|path| root.join(path));
        let paths = [
            libraries(root),
            root.join("usr/lib/syslog-ng"),
            old.unwrap_or_default(),
        ];
        command.env("LD_LIBRARY_PATH", std::env::join_paths(paths).unwrap());
    }
    Some(command)
}

fn rsyslog(root: &Path, dir: &Path) -> Option<Peer> {
    let mut command = command(root, "rsyslogd")?;
    let place = dir.display();
    let properties: Vec<_> = FIELDS
        .iter()
        .map(|(ours, theirs, _)| format!(r#"property(outname="{ours}" {theirs})"#))
        .collect();
    let properties = properties.join(r#" constant(value=",") "#);
    let config = format!(
        r#"
global(workDirectory="{place}" parser.escapeControlCharactersOnReceive="off" maxMessageSize="64k")
module(load="imptcp")
input(type="imptcp" port="0" listenPortFileName="{place}/rs.port" address="127.0.0.1" ruleset="all")
template(name="t" type="list") {{ constant(value="{{") {properties} constant(value="}}\n") }}
ruleset(name="all") {{ action(type="omfile" file="{place}/rs.out" template="t") }}
"#
    );
    fs::write(dir.join("rs.conf"), config).unwrap();
    command.arg("-n").arg("-i").arg(dir.join("rs.pid"));
    command.arg("-f").arg(dir.join("rs.conf"));
    command.arg("-M").arg(libraries(root).join("rsyslog"));
    let child = command.spawn().unwrap();
    let mut peer = Peer {
        child,
        port: 0,
        output: dir.join("rs.out"),
    };
    let port = || {
        fs::read_to_string(dir.join("rs.port"))
            .ok()?
            .trim()
            .parse()
            .ok()
    };
    peer.port = until("rsyslog's port", port);
    Some(peer)
}

fn syslog_ng(root: &Path, dir: &Path) -> Option<Peer> {
    let mut command = command(root, "syslog-ng")?;
    let modules = find(&root.join("usr/lib/syslog-ng"), "3.")
        .or_else(|| find(&root.join("usr/lib/syslog-ng"), "4."))?;
    let version = modules.file_name()?.to_string_lossy().into_owned();
    let port = free_port();
    let place = dir.display();
    let pairs: Vec<_> = FIELDS
        .iter()
        .map(|(ours, _, theirs)| format!("{ours}={theirs}"))
        .collect();
    let pairs = pairs.join(" ");
    let config = format!(
        r#"@version: {version}
options {{ keep-hostname(yes); use-dns(no); dns-cache(no); stats-freq(0); frac-digits(6);
    time-zone("UTC"); recv-time-zone("UTC"); log-msg-size(65536); }};
source s {{ syslog(ip(127.0.0.1) port({port}) transport(tcp)); }};
destination f {{ file("{place}/ng.out" template("$(format-json --scope none {pairs})\n")); }};
log {{ source(s); destination(f); }};
"#
    );
    fs::write(dir.join("ng.conf"), config).unwrap();
    command
        .args(["-F", "--no-caps"])
        .arg("--module-path")
        .arg(modules);
    command.arg("-f").arg(dir.join("ng.conf"));
    command.arg("-R").arg(dir.join("ng.persist"));
    command.arg("-p").arg(dir.join("ng.pid"));
    command.arg("-c").arg(dir.join("ng.ctl"));
    let child = command.spawn().unwrap();
    Some(Peer {
        child,
        port,
        output: dir.join("ng.out"),
    })
}

/// Returns a port that was free a moment ago; this one cannot say which it took.
fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap().port()
}

#[track_caller]
fn until<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(Instant::now() < deadline, "in vain awaited: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Sends all vectors, counted, and returns what came out of them.
fn fed(peer: &Peer, vectors: &[Vector]) -> Vec<Fields> {
    let connect = || TcpStream::connect((Ipv4Addr::LOCALHOST, peer.port)).ok();
    let mut stream = until("a connection", connect);
    for vector in vectors {
        let raw = vector.raw();
        let frame = [format!("{} ", raw.len()).as_bytes(), &raw].concat();
        stream.write_all(&frame).unwrap();
    }
    drop(stream);
    let lines = || {
        let output = fs::read(&peer.output).ok()?;
        let output = String::from_utf8_lossy(&output).into_owned();
        (output.lines().count() >= vectors.len()).then_some(output)
    };
    let output = until("a line for every vector", lines);
    let fields = output.lines().map(serde_json::from_str);
    fields.collect::<Result<_, _>>().expect("JSON")
}

/// Takes out what stands for "nothing": nil values, the receiver's own idea of host, priority and time.
fn without_stand_ins(mut fields: Fields, raw: &[u8], began: Timestamp) -> Fields {
    fields.retain(|name, value| match name.as_str() {
        "host" => !matches!(value.as_str(), "-" | "" | "localhost" | "127.0.0.1"),
        "pri" => raw.starts_with(b"<"),
        "time" => {
            let at = value.parse::<Timestamp>();
            at.map_or(true, |at| at < began)
        }
        "text" => true,
        _ => !matches!(value.as_str(), "-" | ""),
    });
    // What is no time (29 February of any year) stays as it is and agrees with nothing.
    if let Some(time) = fields.get_mut("time")
        && let Ok(at) = time.parse::<Timestamp>()
    {
        *time = at.to_string();
    }
    if let Some(text) = fields.get_mut("text") {
        // rsyslog counts the space behind the tag to the text.
        let one_less = text.strip_prefix(' ').filter(|_| is_3164(raw));
        *text = one_less
            .unwrap_or(text)
            .trim_end_matches(['\n', '\r', '\0'])
            .to_owned();
    }
    fields
}

fn is_3164(raw: &[u8]) -> bool {
    Message::parse(raw).form() != Form::Rfc5424
}

fn ours(raw: &[u8], clock: &Clock<'_>) -> Fields {
    let message = Message::parse(raw);
    let pri = message.facility().zip(message.severity());
    let pri = pri.map(|(facility, severity)| facility.number() * 8 + severity.number());
    let time = message.stamp().and_then(|stamp| clock.resolve(&stamp));
    let data = Some(message.raw_data()).filter(|data| !data.is_empty());
    let fields = [
        ("pri", pri.map(|pri| pri.to_string())),
        ("time", time.map(|sent| sent.at.to_string())),
        ("host", message.host().map(vectors::shown)),
        ("app", message.app().map(vectors::shown)),
        ("procid", message.procid().map(vectors::shown)),
        ("msgid", message.msgid().map(vectors::shown)),
        ("data", data.map(vectors::shown)),
        ("text", Some(vectors::shown(message.text()))),
    ];
    let fields = fields.into_iter();
    fields
        .filter_map(|(name, value)| Some((name.to_owned(), value?)))
        .collect()
}

#[test]
fn where_rsyslog_and_syslog_ng_agree_so_do_we() {
    let dir = TempDir::new().unwrap();
    let root = root();
    let (Some(rsyslog), Some(syslog_ng)) =
        (rsyslog(&root, dir.path()), syslog_ng(&root, dir.path()))
    else {
        assert!(
            std::env::var_os("STEWARD_PEERS").is_none(),
            "rsyslog or syslog-ng is missing in {}",
            root.display()
        );
        let words = "SKIPPED: rsyslog or syslog-ng is missing; `.ci/peers` unpacks them\n";
        std::io::stderr().write_all(words.as_bytes()).unwrap();
        return;
    };
    let vectors: Vec<_> = vectors::all()
        .into_iter()
        .filter(|vector| !vector.raw().is_empty())
        .collect();
    let began = Timestamp::now();
    let (one, other) = (fed(&rsyslog, &vectors), fed(&syslog_ng, &vectors));
    let zone = TimeZone::UTC;
    let clock = Clock::new(began, &zone);
    let (mut agreed, mut told) = (0, String::new());
    for ((vector, one), other) in vectors.iter().zip(one).zip(other) {
        let raw = vector.raw();
        let one = without_stand_ins(one, &raw, began);
        let other = without_stand_ins(other, &raw, began);
        let ours = ours(&raw, &clock);
        // The text is what the others leave: where they differ, it is the same by accident.
        let alike = ["host", "app", "procid"]
            .iter()
            .all(|field| one.get(*field) == other.get(*field));
        for (field, ..) in FIELDS {
            if one.get(*field) != other.get(*field) || *field == "text" && !alike {
                continue;
            }
            agreed += 1;
            let known = EXCEPTIONS
                .iter()
                .any(|(name, of, _)| *name == vector.name && of == field);
            if (ours.get(*field) == one.get(*field)) == known {
                let (theirs, ours) = (one.get(*field), ours.get(*field));
                told += &format!(
                    "{}: {field} is {theirs:?} to them, {ours:?} to us, known: {known}\n",
                    vector.name
                );
            }
        }
    }
    assert!(told.is_empty(), "{told}");
    assert!(agreed > 5 * vectors.len(), "they agree on {agreed} fields");
}
