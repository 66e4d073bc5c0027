//! Logs of nodes that are two, or too loud, and of people who read them over the network: real agents, a real station,
//! a real broker.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::net::UnixStream,
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use tokio::runtime::Runtime;

use crate::{
    logs::{COUNT, Ship, Spool, logs, numbered, text},
    support::{Running, World, agent_program, code, eventually},
};

fn free_port() -> u16 {
    let probe = TcpListener::bind("127.0.0.1:0").and_then(|probe| probe.local_addr());
    probe.expect("a port").port()
}

/// Starts an agent that is called ship1 and takes logs on a port, with its state in `dir`.
fn agent(world: &World, dir: &str, port: u16) -> Running {
    let config = world.folder.path().join(format!("{dir}.toml"));
    let input = format!("[[syslog]]\ndomain = \"app\"\ninput = \"tcp://127.0.0.1:{port}\"\n");
    fs::write(&config, input).expect("written");
    let mut command = Command::new(agent_program());
    command
        .args(["run", "--node", "ship1", "--nats", &world.url])
        .args(["--heartbeat", "200ms", "--config"])
        .arg(&config)
        .arg("--state-dir")
        .arg(world.folder.path().join(dir))
        .env("RUST_LOG", "error");
    Running::start(command).0
}

fn line(who: &str, number: usize) -> String {
    format!("<14>Nov 21 08:00:00 host app[7]: {who} {number}\n")
}

/// Sends numbered lines as somebody.
fn send(port: u16, who: &str, numbers: std::ops::Range<usize>) {
    let mut stream = eventually("an input that listens", || {
        TcpStream::connect(("127.0.0.1", port)).ok()
    });
    let text: String = numbers.map(|number| line(who, number)).collect();
    stream.write_all(text.as_bytes()).expect("it is taken");
}

/// Returns the numbers of the lines somebody has stored, in their order.
fn stored(world: &World, who: &str) -> Vec<usize> {
    let (_, text) = logs(world, &["-o", "raw"]);
    let number = |line: &str| {
        let rest = line.split_once(&format!(": {who} "))?.1;
        rest.parse().ok()
    };
    text.lines().filter_map(number).collect()
}

fn await_stored(world: &World, who: &str, count: usize) {
    eventually(&format!("{count} lines of {who}"), || {
        (stored(world, who).len() >= count).then_some(())
    });
    assert_eq!(stored(world, who), (0..count).collect::<Vec<_>>(), "{who}");
}

fn conflict(world: &World) -> Option<String> {
    let node = world.json(&["node", "show", "ship1", "-o", "json"]);
    node["conflict"].as_str().map(str::to_owned)
}

#[test]
fn logs_of_two_agents_of_one_name_are_kept_apart_and_none_is_lost() {
    let world = World::new();
    let _station = world.station();
    let (one, other) = (free_port(), free_port());
    let first = agent(&world, "first", one);
    world.await_online(&["ship1"]);
    send(one, "first", 0..500);
    await_stored(&world, "first", 500);
    let second = agent(&world, "second", other);
    eventually("the conflict", || conflict(&world));
    send(other, "second", 0..500);
    send(one, "first", 500..1000);
    await_stored(&world, "first", 1000);
    // Who is not welcomed keeps what it has.
    assert_eq!(stored(&world, "second"), Vec::<usize>::new());
    assert!(first.terminate().success());
    await_stored(&world, "second", 500);
    // Now the first is the second.
    let first = agent(&world, "first", one);
    eventually("the conflict", || conflict(&world));
    send(one, "first", 1000..1500);
    send(other, "second", 500..1000);
    await_stored(&world, "second", 1000);
    assert_eq!(stored(&world, "first").len(), 1000);
    second.kill();
    await_stored(&world, "first", 1500);
    // Nothing came twice, and each is a stream of its own: for the station the spool of the one is lost when the
    // other speaks, and it says so, for it cannot know better.
    let (code, said) = logs(&world, &["--gaps"]);
    assert_eq!(code, 1, "{said}");
    assert_eq!(said.matches("spool lost").count(), 2, "{said}");
    assert_eq!(logs(&world, &["verify"]).0, 0);
    eventually("faults that say so", || {
        let faults = world.json(&["events", "-o", "json", "--kind", "logs_lost"]);
        (faults.as_array()?.len() == 2).then_some(())
    });
    drop(first);
}

/// Returns how many bytes of a node's logs are stored.
fn weight(world: &World, line: &str) -> u64 {
    let dir = world.state_dir().join("logs").join(line);
    let files = fs::read_dir(dir).into_iter().flatten().flatten();
    files
        .filter_map(|file| Some(file.metadata().ok()?.len()))
        .sum()
}

/// Where dice begin.
const DICE: u64 = 88_172_645_463_325_252;

/// Returns so many words that hardly compress.
fn noise(dice: &mut u64, words: usize) -> String {
    let word = |_| {
        *dice ^= *dice << 13;
        *dice ^= *dice >> 7;
        *dice ^= *dice << 17;
        format!("{dice:016x}")
    };
    (0..words).map(word).collect()
}

/// Writes lines that hardly compress, until told to end.
fn flood(port: u16, over: &AtomicBool) {
    let mut stream = eventually("an input that listens", || {
        TcpStream::connect(("127.0.0.1", port)).ok()
    });
    let mut dice = DICE;
    while !over.load(Ordering::Relaxed) {
        let line = |_| {
            format!(
                "<14>Nov 21 08:00:00 host app[7]: {}\n",
                noise(&mut dice, 12)
            )
        };
        let text: String = (0..100).map(line).collect();
        stream.write_all(text.as_bytes()).expect("it is taken");
    }
}

#[test]
fn logs_that_come_as_a_flood_hold_up_no_command() {
    // Of its own deadline; nothing is said about how fast it is.
    const PATIENCE: &str = "20s";
    let world = World::new();
    let _station = world.station();
    let port = free_port();
    let _ship1 = agent(&world, "first", port);
    let _ship2 = world.agent("ship2");
    world.await_online(&["ship1", "ship2"]);
    let over = Arc::new(AtomicBool::new(false));
    let (until, forging, url) = (Arc::clone(&over), Arc::clone(&over), world.url.clone());
    let flooding = thread::spawn(move || flood(port, &until));
    // Somebody else says batches under the name of the same node, far more than a node has words.
    let forger = thread::spawn(move || {
        Runtime::new().expect("a runtime").block_on(async move {
            let client = async_nats::connect(&url).await.expect("connects");
            let mut spool = Spool::new("forged");
            let mut dice = DICE;
            let batches: Vec<Vec<u8>> = (0..20)
                .map(|number| spool.batch(number, &[(0, 6, &noise(&mut dice, 500))]))
                .collect();
            while !forging.load(Ordering::Relaxed) {
                for batch in &batches {
                    let subject = "central.event.syslogforwarding.forged.ship1";
                    let payload = batch.clone().into();
                    client.publish(subject, payload).await.expect("published");
                }
                client.flush().await.expect("flushed");
                // Some thousands a second: several times what a node may say in words.
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
    });
    for line in ["ship1/app", "ship1/forged"] {
        eventually(&format!("the flood of {line}"), || {
            (weight(&world, line) > 0).then_some(())
        });
    }
    let before = weight(&world, "ship1/app");
    for number in 0..10 {
        let to = ["ship1", "ship2", "ship1,ship2"][number % 3];
        let words = ["run", "--to", to, "--timeout", PATIENCE, "--", "true"];
        let output = world.steward(&words);
        assert_eq!(code(output.status), 0, "{number}: {output:?}");
    }
    eventually("more of the flood", || {
        (weight(&world, "ship1/app") > before).then_some(())
    });
    over.store(true, Ordering::Relaxed);
    flooding.join().expect("it flooded to the end");
    forger.join().expect("it forged to the end");
}

/// A way to the station: over its socket, or over the network.
enum Way<'a> {
    Socket(&'a Path),
    Port(u16),
}

impl Way<'_> {
    /// Asks, and returns the status and what follows the head.
    fn ask(&self, path: &str) -> (String, BufReader<Box<dyn Read>>) {
        // An answer to 1.0 is its bytes, in one piece and not in chunks.
        let request = |host: &str| format!("GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n");
        let stream: Box<dyn Read> = match self {
            Self::Socket(path) => {
                let mut stream = UnixStream::connect(path).expect("connects");
                let request = request("localhost");
                stream.write_all(request.as_bytes()).expect("written");
                Box::new(stream)
            }
            Self::Port(port) => {
                let mut stream = TcpStream::connect(("127.0.0.1", *port)).expect("connects");
                let request = request(&format!("127.0.0.1:{port}"));
                stream.write_all(request.as_bytes()).expect("written");
                Box::new(stream)
            }
        };
        let mut stream = BufReader::new(stream);
        let (mut status, mut row) = (String::new(), String::new());
        stream.read_line(&mut status).expect("a status");
        while row != "\r\n" {
            row.clear();
            assert!(stream.read_line(&mut row).expect("a head") > 0, "{status}");
        }
        (status, stream)
    }

    fn whole(&self, path: &str) -> (String, Vec<u8>) {
        let (status, mut rest) = self.ask(path);
        let mut body = Vec::new();
        rest.read_to_end(&mut body).expect("a body");
        (status, body)
    }
}

fn next_lines(stream: &mut impl BufRead, count: u64) -> String {
    let mut text = String::new();
    for _ in 0..count {
        assert!(stream.read_line(&mut text).expect("a line") > 0, "{text}");
    }
    text
}

#[test]
fn logs_are_the_same_over_the_network_as_over_the_socket() {
    let world = World::new();
    let port = free_port();
    let mut command = world.serve_command(&["--http", &format!("127.0.0.1:{port}")]);
    let log = world.folder.path().join("log");
    command.stderr(fs::File::create(&log).expect("a file"));
    let (station, _) = Running::start(command);
    let runtime = Runtime::new().expect("a runtime");
    let mut spool = Spool::new("nginx");
    let mut ship = runtime.block_on(async {
        let mut ship = Ship::new(&world, "ship1").await;
        ship.come_aboard().await;
        let odd = spool.batch(
            0,
            &[(0, 3, "<11>1 - h web 1 - - it \x1b[31mfailed \u{202e}\x07")],
        );
        ship.store("nginx", &odd, 1).await;
        for first in 0..3 {
            let payload = numbered(&mut spool, 1 + first * COUNT);
            ship.store("nginx", &payload, 1 + (first + 1) * COUNT).await;
        }
        ship
    });
    let socket = world.state_dir().join("steward.sock");
    let (near, far) = (Way::Socket(&socket), Way::Port(port));
    for query in [
        "",
        "?raw=true",
        "?lines=5",
        "?reverse=true",
        "?priority=err&node=ship1&domain=nginx",
        "?grep=number+1.+was",
        "?node=ship9",
        "/examine?depth=everything",
        // What cannot be asked is refused in the same words.
        "?grep=(",
        "?priority=loud",
        "?follow=true&reverse=true",
    ] {
        let path = format!("/api/v1/logs{query}");
        let (here, there) = (near.whole(&path), far.whole(&path));
        let text = String::from_utf8_lossy(&there.1);
        assert_eq!(here, there, "{query}: {text}");
        let is_fine = !["grep=(", "loud", "follow"]
            .iter()
            .any(|bad| query.contains(bad));
        assert_eq!(here.0.contains(" 200 "), is_fine, "{query}: {}", here.0);
        assert_eq!(text.is_empty(), query.contains("ship9"), "{query}: {text}");
    }
    // What the command line prints is what comes over the network.
    let (_, printed) = logs(&world, &["-g", "number", "-o", "jsonl"]);
    let (_, body) = far.whole("/api/v1/logs?grep=number&raw=true");
    assert_eq!(printed, String::from_utf8_lossy(&body));
    // Readers who leave in the middle keep nobody waiting: there are more of them than may read at once.
    let follow = "/api/v1/logs?follow=true&lines=1&raw=true";
    for _ in 0..10 {
        let (_, mut stream) = far.ask(follow);
        next_lines(&mut stream, 1);
    }
    let (mut here, mut there) = (near.ask(follow).1, far.ask(follow).1);
    assert_eq!(next_lines(&mut here, 1), next_lines(&mut there, 1));
    runtime.block_on(async {
        let payload = numbered(&mut spool, 1 + 3 * COUNT);
        ship.store("nginx", &payload, 1 + 4 * COUNT).await;
    });
    let came = next_lines(&mut there, COUNT);
    assert!(came.contains(text(1 + 3 * COUNT).trim()), "{came}");
    assert_eq!(next_lines(&mut here, COUNT), came);
    // Who follows is told by the end of the answer that the station ends, and does not keep it.
    assert!(station.terminate().success());
    let said = fs::read_to_string(log).expect("text");
    assert!(!said.contains("without waiting"), "{said}");
    for stream in [&mut here, &mut there] {
        let mut rest = Vec::new();
        // The connection is cut, in whatever way.
        stream.read_to_end(&mut rest).ok();
        assert!(rest.is_empty(), "{}", String::from_utf8_lossy(&rest));
    }
}

#[test]
fn logs_are_given_over_the_network_to_nobody_who_came_by_another_name() {
    let world = World::new();
    let port = free_port();
    let _station = world.station_with(&["--http", &format!("127.0.0.1:{port}")]);
    for (words, host, expected) in [
        ("GET /api/v1/logs", format!("127.0.0.1:{port}"), " 200 "),
        ("GET /api/v1/logs", "evil.example".to_owned(), " 421 "),
        (
            "GET /api/v1/logs/examine?depth=gaps",
            "evil.example".to_owned(),
            " 421 ",
        ),
        ("DELETE /api/v1/logs", format!("127.0.0.1:{port}"), " 405 "),
    ] {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("connects");
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .expect("a time");
        let request = format!("{words} HTTP/1.0\r\nHost: {host}\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("written");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        assert!(
            answer.lines().next().expect("a status").contains(expected),
            "{words} {host}: {answer}"
        );
    }
}
