//! Logs from real programs, through a real agent and a real broker, to a station that stores them.

use std::{
    fs,
    io::Write,
    net::{TcpListener, TcpStream, UdpSocket},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Command,
};

use rustix::process::Signal;
use steward_protocol::logs::Reason;

use crate::support::{
    Agent, Field, Station, as_it_grows, eventually,
    logs::{Stored, spooled},
    ports::{are_open, free_port},
};

mod clients;
mod faults;
mod files;
mod journal;
mod kills;
mod limits;
mod notes;

fn input(domain: &str, input: &str) -> String {
    format!("[[syslog]]\ndomain = \"{domain}\"\ninput = \"{input}\"\n")
}

fn start(field: &Field, config: &str) -> Agent {
    let path = field.path("agent.toml");
    field.agent("ship1").config(&path, config).start()
}

/// Starts an agent, whose sockets are open, and a station that has welcomed it.
async fn pair(field: &Field, config: &str) -> (Agent, Station) {
    let station = field.station().await;
    let agent = start(field, config);
    station.met("ship1").await;
    open(config).await;
    (agent, station)
}

/// Waits until somebody listens on every socket of a config.
async fn open(config: &str) {
    let awaited = format!("somebody who listens for\n{config}");
    eventually(&awaited, || are_open(config).then_some(())).await;
}

/// Waits until the station has so many messages of a domain, and returns them.
async fn texts(station: &Station, domain: &str, count: usize) -> Vec<String> {
    let awaited = format!("{count} messages of {domain}");
    let found = as_it_grows(&awaited, || {
        let world = station.world();
        let seen = world.logs.count(domain);
        (seen, (seen >= count).then(|| world.logs.texts(domain)))
    });
    found.await
}

/// Checks that what is stored has every position once, in order, in every generation.
fn check_order(station: &Station) {
    let world = station.world();
    let mut last = std::collections::BTreeMap::new();
    for record in &world.logs.records {
        let stream = (record.domain.clone(), record.generation);
        let before = last.insert(stream, record.position);
        let continues = before.map_or(record.position == 0, |before| record.position > before);
        assert!(continues, "{record:?} behind {before:?}");
    }
}

fn run(program: &str, words: &[&str]) {
    let output = Command::new(program)
        .args(words)
        .output()
        .unwrap_or_else(|error| panic!("{program} is needed for this test: {error}"));
    assert!(
        output.status.success(),
        "{program} {words:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn numbered(from: usize, to: usize) -> String {
    let line = |number| format!("<13>Nov 21 10:00:00 ship1 app[7]: line {number:06}\n");
    (from..to).map(line).collect()
}

fn numbers(texts: &[String]) -> Vec<usize> {
    let number = |text: &String| text.rsplit(' ').next()?.parse().ok();
    texts.iter().filter_map(number).collect()
}

#[tokio::test]
async fn what_logger_sends_arrives_however_it_sends_it() {
    let field = Field::new();
    let port = free_port();
    let (stream, gram) = (field.path("stream"), field.path("gram"));
    let config = [
        input("udp", &format!("udp://127.0.0.1:{port}")),
        input("tcp", &format!("tcp://127.0.0.1:{port}")),
        input("stream", &format!("unix://{}", stream.display())),
        input("gram", &format!("unixgram://{}", gram.display())),
    ]
    .concat();
    let (_agent, station) = pair(&field, &config).await;
    eventually("a socket that is open to everybody", || {
        let mode = fs::metadata(&gram).ok()?.permissions().mode();
        (mode & 0o777 == 0o666).then_some(())
    })
    .await;
    let port = port.to_string();
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
    let (stream, gram) = (stream.display().to_string(), gram.display().to_string());
    for (how, text) in [
        (&["--udp", "--rfc5424"][..], "udp new"),
        (&["--udp", "--rfc3164"], "udp old"),
        (&["--tcp", "--rfc5424"], "tcp new"),
        (&["--tcp", "--rfc3164"], "tcp old"),
        (&["--tcp", "--rfc5424", "--octet-count"], "tcp counted"),
        (
            &[
                "--tcp",
                "--rfc5424",
                "--sd-id",
                "a@1",
                "--sd-param",
                "b=\"c\"",
            ],
            "tcp data",
        ),
    ] {
        run("logger", &[&net, how, &[text]].concat());
    }
    run("logger", &["--socket", &gram, "-d", "-t", "app", "gram"]);
    run(
        "logger",
        &["--socket", &stream, "-T", "-t", "app", "stream"],
    );
    let ends = |texts: Vec<String>, ends: &[&str]| {
        assert_eq!(texts.len(), ends.len(), "{texts:?}");
        for end in ends {
            assert!(
                texts.iter().any(|text| text.ends_with(end)),
                "{end}: {texts:?}"
            );
        }
    };
    ends(texts(&station, "udp", 2).await, &["udp new", "udp old"]);
    let wanted = ["tcp new", "tcp old", "tcp counted", "tcp data"];
    ends(texts(&station, "tcp", 4).await, &wanted);
    ends(texts(&station, "gram", 1).await, &["gram"]);
    ends(texts(&station, "stream", 1).await, &["stream"]);
    let world = station.world();
    let mut net = world
        .logs
        .records
        .iter()
        .filter(|one| one.source.contains("127.0.0.1"));
    assert!(net.all(|record| record.severity == 4));
    assert!(
        world
            .logs
            .texts("tcp")
            .iter()
            .any(|text| text.contains("[a@1 b=\"c\"]"))
    );
}

const PYTHON: &str = r#"
import logging, logging.handlers, socket, sys
where, kind, text = sys.argv[1:]
address = ("127.0.0.1", int(where)) if where.isdigit() else where
kind = {"stream": socket.SOCK_STREAM, "datagram": socket.SOCK_DGRAM}[kind]
handler = logging.handlers.SysLogHandler(address, facility="local3", socktype=kind)
handler.ident = "py: "
logger = logging.getLogger("x")
logger.addHandler(handler)
for number in range(50):
    logger.error("%s %d", text, number)
logging.shutdown()
"#;

#[tokio::test]
async fn what_python_sends_arrives_whole_over_udp_tcp_and_unix_sockets() {
    let field = Field::new();
    let port = free_port();
    let (stream, gram) = (field.path("stream"), field.path("gram"));
    let config = [
        input("udp", &format!("udp://127.0.0.1:{port}")),
        input("tcp", &format!("tcp://127.0.0.1:{port}")),
        input("stream", &format!("unix://{}", stream.display())),
        input("gram", &format!("unixgram://{}", gram.display())),
    ]
    .concat();
    let (_agent, station) = pair(&field, &config).await;
    let port = port.to_string();
    let (stream, gram) = (stream.display().to_string(), gram.display().to_string());
    for (domain, address, kind) in [
        ("udp", &port, "datagram"),
        ("tcp", &port, "stream"),
        ("gram", &gram, "datagram"),
        ("stream", &stream, "stream"),
    ] {
        run("python3", &["-c", PYTHON, address, kind, domain]);
        let texts = texts(&station, domain, 50).await;
        let wanted: Vec<String> = (0..50)
            .map(|number| format!("<155>py: {domain} {number}"))
            .collect();
        let seen: Vec<&str> = texts
            .iter()
            .map(|text| text.trim_end_matches('\0'))
            .collect();
        assert_eq!(seen, wanted, "{domain}");
    }
    check_order(&station);
}

#[tokio::test]
async fn a_full_spool_holds_a_stream_back_and_counts_datagrams() {
    let mut field = Field::new();
    let port = free_port();
    let config = format!(
        "{}{}[syslog_spool]\nsize = \"2MiB\"\nshare = \"1MiB\"\n",
        input("tcp", &format!("tcp://127.0.0.1:{port}")),
        input("udp", &format!("udp://127.0.0.1:{port}")),
    );
    let (_agent, station) = pair(&field, &config).await;
    station.world().logs.keeps = false;
    // It does not compress.
    let mut state = 1_u64;
    let mut noise = || {
        let mut text = String::from("<13>");
        while text.len() < 1000 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            text += &format!("{:x}", state >> 16);
        }
        text + "\n"
    };
    // More than the kernel keeps for both ends of a connection.
    let all: Vec<String> = (0..20_000).map(|_| noise()).collect();
    let text = all.concat();
    let sending = std::thread::spawn(move || {
        let mut sender = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
        sender
            .write_all(text.as_bytes())
            .expect("it is taken in the end");
    });
    let sender = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let datagrams = 3000_u64;
    for _ in 0..datagrams {
        sender
            .send_to(noise().as_bytes(), ("127.0.0.1", port))
            .expect("it leaves");
    }
    station
        .hello("a spool that is full", |_, hello| {
            (hello.counters.get("log_dropped")? > &0).then_some(())
        })
        .await;
    assert!(!sending.is_finished(), "the stream was not held back");
    station.world().logs.keeps = true;
    // A station that was silent is asked ever more rarely; another connection begins anew.
    field.cut();
    field.heal();
    let stored = texts(&station, "tcp", all.len()).await;
    let wanted: Vec<&str> = all.iter().map(|line| line.trim_end()).collect();
    assert_eq!(stored, wanted);
    sending.join().expect("all was taken");
    eventually("every datagram, or a gap that counts it", || {
        let world = station.world();
        let lost: u64 = world
            .logs
            .gaps("udp")
            .iter()
            .filter_map(|gap| gap.count)
            .sum();
        (world.logs.count("udp") as u64 + lost == datagrams && lost > 0).then_some(())
    })
    .await;
    assert_eq!(station.world().logs.gaps("tcp").len(), 0);
    check_order(&station);
}

#[tokio::test]
async fn odd_senders_cost_only_themselves() {
    let field = Field::new();
    let port = free_port();
    let config = input("app", &format!("tcp://127.0.0.1:{port}")) + "connections = 600\n";
    let (agent, station) = pair(&field, &config).await;
    let connect = || TcpStream::connect(("127.0.0.1", port)).expect("a connection");
    let idle: Vec<TcpStream> = (0..500).map(|_| connect()).collect();
    let mut endless = connect();
    for _ in 0..64 {
        endless.write_all(&[b'x'; 64 << 10]).expect("it is taken");
    }
    let mut slow = connect();
    slow.set_nodelay(true).expect("no delay");
    for byte in b"17 <13>byte by byte<14>in a line\n" {
        slow.write_all(&[*byte]).expect("it is taken");
    }
    let mut long = connect();
    long.write_all(format!("<13>{}\n", "y".repeat(1 << 20)).as_bytes())
        .expect("it is taken");
    let mut stored = texts(&station, "app", 3).await;
    stored.sort_by_key(String::len);
    assert_eq!(stored[0], "14>in a line");
    assert_eq!(stored[1], "<13>byte by byte<");
    assert!(stored[2].len() == 8 << 10 && stored[2].starts_with("<13>yyy"));
    drop((endless, long, slow));
    let stored = texts(&station, "app", 4).await;
    assert!(stored[3].len() == 8 << 10 && stored[3].starts_with("xxx"));
    let lengths: Vec<u64> = station
        .world()
        .logs
        .records
        .iter()
        .map(|one| one.length)
        .collect();
    assert!(
        lengths.contains(&(4 << 20)) && lengths.contains(&((1 << 20) + 4)),
        "{lengths:?}"
    );
    let more: Vec<TcpStream> = (0..150).map(|_| connect()).collect();
    station
        .hello("connections that are turned away", |_, hello| {
            (hello.counters.get("log_turned_away")? >= &40).then_some(())
        })
        .await;
    let status = fs::read_to_string(format!("/proc/{}/status", agent.pid().as_raw_nonzero()));
    let status = status.expect("the agent runs");
    let row = status
        .lines()
        .find(|row| row.starts_with("VmRSS:"))
        .expect("its memory");
    let kilobytes: u64 = row
        .split_whitespace()
        .nth(1)
        .and_then(|kb| kb.parse().ok())
        .expect("a number");
    assert!(kilobytes < 64 << 10, "{row}");
    drop((idle, more));
}

#[tokio::test]
async fn rules_sort_and_are_read_again_when_the_agent_is_told() {
    let field = Field::new();
    let gram = field.path("gram");
    let inputs = input("main", &format!("unixgram://{}", gram.display()));
    let rule = |text: &str, then: &str| format!("[[syslog_rule]]\nmatch = \"{text}\"\n{then}\n");
    let before = format!(
        "{inputs}{}{}",
        rule("noise", "action = \"drop\""),
        rule("web", "domain = \"web\"")
    );
    let (agent, station) = pair(&field, &before).await;
    let sender = std::os::unix::net::UnixDatagram::unbound().expect("a socket");
    let send = |text: &str| sender.send_to(text.as_bytes(), &gram).expect("it is taken");
    send("<13>noise 1");
    send("<13>web 1");
    send("<13>other 1");
    assert_eq!(texts(&station, "web", 1).await, ["<13>web 1"]);
    assert_eq!(texts(&station, "main", 1).await, ["<13>other 1"]);
    let after = format!("{inputs}{}", rule("other", "domain = \"web\""));
    fs::write(field.path("agent.toml"), after).expect("a config");
    agent.signal(Signal::HUP);
    let mut tries = 0;
    eventually("other rules", || {
        tries += 1;
        send(&format!("<13>other again {tries}"));
        (station.world().logs.texts("web").len() > 1).then_some(())
    })
    .await;
    send("<13>noise 2");
    eventually("what is no noise any more", || {
        let texts = station.world().logs.texts("main");
        texts.contains(&"<13>noise 2".to_owned()).then_some(())
    })
    .await;
    fs::write(field.path("agent.toml"), "[[syslog_rule]]\nmatch = \"(\"\n").expect("a config");
    agent.signal(Signal::HUP);
    send("<13>other, still");
    eventually("rules that stay", || {
        let texts = station.world().logs.texts("web");
        texts.contains(&"<13>other, still".to_owned()).then_some(())
    })
    .await;
}

const SECURE: &str = r#"
import socket, ssl, sys
port, ca, cert, key = sys.argv[1:]
context = ssl.create_default_context(cafile=ca)
if cert:
    context.load_cert_chain(cert, key)
with socket.create_connection(("127.0.0.1", int(port))) as plain:
    with context.wrap_socket(plain, server_hostname="localhost") as secure:
        for number in range(2000):
            text = b"<13>1 - - - - - - secure %d" % number
            secure.sendall(b"%d %s" % (len(text), text))
        secure.unwrap()
"#;

fn certificate(dir: &Path) -> (String, String) {
    let (cert, key) = (dir.join("cert.pem"), dir.join("key.pem"));
    let (cert, key) = (cert.display().to_string(), key.display().to_string());
    run(
        "openssl",
        &[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=DNS:localhost",
            "-keyout",
            &key,
            "-out",
            &cert,
        ],
    );
    (cert, key)
}

#[tokio::test]
async fn encrypted_streams_arrive_and_unknown_senders_do_not() {
    let field = Field::new();
    let (cert, key) = certificate(field.dir.path());
    let (open, closed) = (free_port(), free_port());
    let files = format!("cert = \"{cert}\"\nkey = \"{key}\"\n");
    let config = format!(
        "{}{files}{}{files}client_ca = \"{cert}\"\n",
        input("open", &format!("tls://127.0.0.1:{open}")),
        input("closed", &format!("tls://127.0.0.1:{closed}")),
    );
    let (_agent, station) = pair(&field, &config).await;
    run("python3", &["-c", SECURE, &open.to_string(), &cert, "", ""]);
    let stored = texts(&station, "open", 2000).await;
    assert_eq!(numbers(&stored), (0..2000).collect::<Vec<_>>());
    let refused = Command::new("python3")
        .args(["-c", SECURE, &closed.to_string(), &cert, "", ""])
        .output()
        .expect("python3 is there");
    assert!(!refused.status.success());
    assert_eq!(station.world().logs.texts("closed").len(), 0);
}

#[tokio::test]
async fn an_input_that_cannot_listen_is_told_and_works_once_it_can() {
    let field = Field::new();
    let port = free_port();
    let taken = TcpListener::bind(("127.0.0.1", port)).expect("a port");
    let config = input("app", &format!("tcp://127.0.0.1:{port}"));
    let (_agent, station) = pair(&field, &config).await;
    eventually("a fault", || {
        let world = station.world();
        let mut faults = world.faults.iter();
        faults
            .any(|fault| fault.kind == "not_startable" && fault.detail.contains("listen on tcp"))
            .then_some(())
    })
    .await;
    drop(taken);
    eventually("an input that works", || {
        let mut sender = TcpStream::connect(("127.0.0.1", port)).ok()?;
        sender.write_all(b"<13>at last\n").ok()
    })
    .await;
    assert_eq!(texts(&station, "app", 1).await, ["<13>at last"]);
}

#[tokio::test]
async fn a_config_is_checked_without_opening_anything() {
    let field = Field::new();
    let path = field.path("agent.toml");
    let check = |text: &str| {
        fs::write(&path, text).expect("a config");
        let output = Command::new(env!("CARGO_BIN_EXE_steward-agent"))
            .args(["check", "--node", "ship1", "--nats", "127.0.0.1:1"])
            .args(["--state-dir", "/nonexistent", "--config"])
            .arg(&path)
            .output()
            .expect("the agent starts");
        let text = [output.stdout, output.stderr].concat();
        (
            output.status.code(),
            String::from_utf8_lossy(&text).into_owned(),
        )
    };
    let (code, said) = check(&input("app", "udp://127.0.0.1:5514"));
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("datagrams on udp://127.0.0.1:5514 go to domain app"),
        "{said}"
    );
    let (code, said) = check(&input("app", "udp://0.0.0.0:5514"));
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("beyond_loopback"), "{said}");
}
