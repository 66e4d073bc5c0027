//! Logs the whole way, with nothing played: programs that know nothing of us, an agent, a broker, a station, and a person
//! who reads.

use std::{collections::BTreeMap, fs, io::Write, net::TcpStream, path::Path, process::Command};

use serde_json::Value;
use steward_station::broker::Broker;

use crate::{
    peers,
    support::{
        World, code, eventually, nats_server,
        ports::{are_open, free_port},
    },
};

fn run(program: &str, words: &[&str]) {
    let output = Command::new(program)
        .args(words)
        .output()
        .unwrap_or_else(|error| panic!("{program} is needed for this test: {error}"));
    assert!(output.status.success(), "{program} {words:?}: {output:?}");
}

/// Inputs of an agent: one for TCP, one for UDP, one like `/dev/log`.
struct Inputs {
    port: u16,
    gram: String,
    config: String,
    text: String,
}

impl Inputs {
    fn new(folder: &Path) -> Self {
        let port = free_port();
        let gram = folder.join("gram").display().to_string();
        let rows = [
            ("tcp", format!("tcp://127.0.0.1:{port}")),
            ("udp", format!("udp://127.0.0.1:{port}")),
            ("system", format!("unixgram://{gram}")),
        ];
        let row = |(domain, input): (&str, String)| {
            format!("[[syslog]]\ndomain = \"{domain}\"\ninput = \"{input}\"\n")
        };
        let path = folder.join("agent.toml");
        let text = rows.map(row).concat();
        fs::write(&path, &text).expect("a config");
        Self {
            port,
            gram,
            config: path.display().to_string(),
            text,
        }
    }

    /// Waits until all of them are open.
    fn await_open(&self) {
        eventually("the inputs", || are_open(&self.text).then_some(()));
    }
}

/// Reads all messages of a domain as they came.
fn raw(world: &World, domain: &str) -> Vec<u8> {
    let output = world.steward(&["logs", "--domain", domain, "-o", "raw"]);
    assert!(output.status.success(), "{output:?}");
    output.stdout
}

/// Waits until there are so many lines of a domain, and returns them.
fn lines(world: &World, domain: &str, count: usize) -> Vec<Vec<u8>> {
    let mut seen = 0;
    eventually(&format!("{count} lines of {domain}"), || {
        let raw = raw(world, domain);
        let lines: Vec<_> = raw.split_inclusive(|byte| *byte == b'\n').collect();
        seen = seen.max(lines.len());
        (lines.len() >= count).then(|| lines.iter().map(|line| line.to_vec()).collect())
    })
}

const PYTHON: &str = r#"
import logging, logging.handlers, socket, sys
handler = logging.handlers.SysLogHandler(("127.0.0.1", int(sys.argv[1])), facility="local3", socktype=socket.SOCK_STREAM)
handler.ident = "py: "
logger = logging.getLogger("x")
logger.addHandler(handler)
for number in range(100):
    logger.error("numb\u00ebr %d", number)
logging.shutdown()
"#;

#[test]
fn what_programs_say_on_a_node_is_read_at_the_station_byte_for_byte() {
    let world = World::new();
    let _station = world.station();
    let inputs = Inputs::new(world.folder.path());
    let _agent = world.agent_with("ship1", &["--config", &inputs.config]);
    world.await_online(&["ship1"]);
    inputs.await_open();
    let port = inputs.port.to_string();
    let net = [
        "--server",
        "127.0.0.1",
        "--port",
        &port,
        "-t",
        "app",
        "-p",
        "daemon.warning",
    ];
    let bare = "--rfc5424=notime,notq,nohost";
    let data = ["--sd-id", "a@1", "--sd-param", "b=\"c\""];
    let counted = ["--tcp", "--octet-count", bare, "--id=42"];
    run(
        "logger",
        &[&net[..], &counted, &data, &["over tcp"]].concat(),
    );
    run(
        "logger",
        &[&net[..], &["--udp", bare, "over udp \u{1b}[31m"]].concat(),
    );
    let local = [
        "-u",
        &inputs.gram,
        "-d",
        "-t",
        "app",
        "-p",
        "auth.err",
        "locally",
    ];
    run("logger", &local);
    assert_eq!(
        lines(&world, "tcp", 1).concat(),
        b"<28>1 - - app 42 - [a@1 b=\"c\"] over tcp\n"
    );
    assert_eq!(
        lines(&world, "udp", 1).concat(),
        "<28>1 - - app - - - over udp \u{1b}[31m\n".as_bytes()
    );
    lines(&world, "system", 1);
    run("python3", &["-c", PYTHON, &port]);
    let found = lines(&world, "tcp", 101);
    let wanted = (0..100).map(|number| format!("<155>py: numb\u{eb}r {number}\n").into_bytes());
    assert_eq!(found[1..], wanted.collect::<Vec<_>>());

    let all = world.json(&["logs", "-t", "app", "-o", "json"]);
    let field = |line: &Value, name: &str| line[name].as_str().unwrap_or_default().to_owned();
    let seen: BTreeMap<_, _> = all
        .as_array()
        .expect("lines")
        .iter()
        .map(|line| {
            let said = (field(line, "message"), line["severity"].as_u64());
            (field(line, "domain"), (said, line["facility"].as_u64()))
        })
        .collect();
    let said = |text: &str, severity, facility| {
        let said = (text.to_owned(), Some(severity));
        (said, Some(facility))
    };
    let wanted = [
        ("system".to_owned(), said("locally", 3, 4)),
        ("tcp".to_owned(), said("over tcp", 4, 3)),
        ("udp".to_owned(), said("over udp \u{1b}[31m", 4, 3)),
    ];
    assert_eq!(seen, BTreeMap::from(wanted));
    assert_eq!(field(&all[0], "node"), "ship1");
    let errors = world.json(&["logs", "-p", "err", "-g", "local", "-o", "json"]);
    assert_eq!(errors.as_array().map(Vec::len), Some(1));
    let gaps = world.steward(&["logs", "--gaps"]);
    let told = String::from_utf8_lossy(&gaps.stdout).into_owned();
    assert_eq!(
        (code(gaps.status), told.matches("complete").count()),
        (0, 3),
        "{told}"
    );
    assert_eq!(code(world.steward(&["logs", "verify"]).status), 0);
}

/// Numbered lines.
fn numbered(from: usize, to: usize) -> Vec<u8> {
    let line = |number| format!("<13>Nov 21 10:00:00 ship1 app[7]: line {number:06}\n");
    (from..to).map(line).collect::<String>().into_bytes()
}

#[test]
fn with_station_broker_and_agent_killed_in_turn_what_was_accepted_is_read_once_and_in_order() {
    const ROUND: usize = 2000;
    const ROUNDS: usize = 6;
    let mut world = World::new();
    let mut station = world.station();
    let inputs = Inputs::new(world.folder.path());
    let more = ["--config", inputs.config.as_str()];
    let mut agent = world.agent_with("ship1", &more);
    world.await_online(&["ship1"]);
    let connect = || {
        inputs.await_open();
        TcpStream::connect(("127.0.0.1", inputs.port)).expect("a connection")
    };
    // What comes over one connection has an order; over two, it has none.
    let mut sender = connect();
    for round in 0..ROUNDS {
        let (from, to) = (round * ROUND, (round + 1) * ROUND);
        let half = from + ROUND / 2;
        sender
            .write_all(&numbered(from, half))
            .expect("it is taken");
        match round % 3 {
            0 => {
                station.kill();
                station = world.station();
            }
            1 => {
                let mut broker = world.broker.take().expect("a broker");
                broker.kill();
                let place = world.folder.path().join("broker");
                let again = Broker::start_on(nats_server(), &place, broker.port());
                world.broker = Some(again.unwrap_or_else(|error| panic!("{error}")));
            }
            _ => {}
        }
        sender.write_all(&numbered(half, to)).expect("it is taken");
        if round % 3 == 2 {
            // What is at the station was accepted; of what stands in the kernel's buffer nothing is promised.
            lines(&world, "tcp", to);
            agent.kill();
            agent = world.agent_with("ship1", &more);
            sender = connect();
        }
    }
    let found = lines(&world, "tcp", ROUNDS * ROUND);
    // In the order of each connection; what two of them said is in the order in which it was read.
    let number = |line: &Vec<u8>| -> usize {
        let text = String::from_utf8_lossy(line);
        let number = text.trim_end().rsplit(' ').next();
        number
            .and_then(|number| number.parse().ok())
            .expect("one of ours")
    };
    let mut rounds = vec![Vec::new(); ROUNDS];
    for number in found.iter().map(number) {
        rounds[number / ROUND].push(number);
    }
    for (round, numbers) in rounds.iter().enumerate() {
        let from = round * ROUND;
        let bad = numbers
            .iter()
            .zip(from..)
            .find(|(one, wanted)| *one != wanted);
        assert_eq!((numbers.len(), bad), (ROUND, None), "round {round}");
    }
    drop((agent, station));
}

#[test]
fn a_journal_on_a_node_is_read_at_the_station() {
    let world = World::new();
    let _station = world.station();
    let folder = world.folder.path();
    let Some(mut command) = peers::command("systemd-journal-remote") else {
        return;
    };
    let export = folder.join("export");
    let entry = |number: i64| {
        let at = 1_795_248_000_000_000 + number;
        format!(
            "__REALTIME_TIMESTAMP={at}\n__MONOTONIC_TIMESTAMP={at}\n_BOOT_ID=5c9d2f3a6a8e4c7d8d1f2b3c4d5e6f70\n\
             PRIORITY=3\n_TRANSPORT=journal\n_COMM=web\n_PID=9\n_HOSTNAME=mast\nMESSAGE=entry {number}\n\n"
        )
    };
    fs::write(&export, (0..50).map(entry).collect::<String>()).expect("written");
    let journal = folder.join("journal");
    fs::create_dir(&journal).expect("a directory");
    command
        .arg("-o")
        .arg(journal.join("x.journal"))
        .arg(&export);
    assert!(command.status().expect("it starts").success());
    let config = folder.join("agent.toml");
    let text = format!(
        "[[syslog]]\ndomain = \"system\"\ninput = \"journal://{}\"\n",
        journal.display()
    );
    fs::write(&config, text).expect("a config");
    let config = config.display().to_string();
    let _agent = world.agent_with("ship1", &["--config", &config]);
    let found = lines(&world, "system", 50);
    let wanted = |number: i64| {
        format!("<11>1 2026-11-21T08:00:00.{number:06}Z mast web 9 - - entry {number}\n")
            .into_bytes()
    };
    assert_eq!(found, (0..50).map(wanted).collect::<Vec<_>>());
    let cat = world.steward(&["logs", "-p", "err", "-t", "web", "-n", "1", "-o", "cat"]);
    assert_eq!(String::from_utf8_lossy(&cat.stdout), "entry 49\n");
}
