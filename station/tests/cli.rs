//! The command line as a program: what it prints and how it ends, against a station made of a script.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
    process::Output,
    sync::atomic::{AtomicUsize, Ordering},
};

use serde_json::{Value, json};
use steward_station::config::SOCKET;

use crate::support::{World, code};

const ID: &str = "0190f000-0000-7000-8000-000000000001";

/// Answers every request with what `script` says to its method and path.
fn scripted(world: &World, script: impl Fn(&str) -> (u16, Value) + Send + 'static) {
    fs::create_dir_all(world.state_dir()).expect("a folder");
    let listener = UnixListener::bind(world.state_dir().join(SOCKET)).expect("a socket");
    // Ends with the test's process.
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a caller");
            let asked = request(&mut stream);
            let (status, body) = script(&asked);
            let body = body.to_string();
            let length = body.len();
            // A caller that has left wants no answer.
            write!(
                stream,
                "HTTP/1.1 {status} x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
            )
            .ok();
        }
    });
}

/// Reads a request to its end; returns its first line without the version.
fn request(stream: &mut UnixStream) -> String {
    let mut reader = BufReader::new(stream);
    let (mut first, mut length) = (String::new(), 0);
    reader.read_line(&mut first).expect("a request");
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).expect("a header");
        if line.trim().is_empty() {
            break;
        }
        if let Some(text) = line.to_lowercase().strip_prefix("content-length:") {
            length = text.trim().parse().expect("a length");
        }
    }
    reader
        .read_exact(&mut vec![0; length])
        .expect("the whole body");
    first.trim_end_matches(" HTTP/1.1\r\n").to_owned()
}

fn receipt() -> Value {
    json!({ "messages": [{ "id": ID, "name": null, "nodes": ["ship1"], "recognised": false }] })
}

fn trouble() -> (u16, Value) {
    (
        503,
        json!({ "error": "the ledger is busy", "problems": [] }),
    )
}

/// The golden message, ended well on one node with a shortened output.
fn message() -> Value {
    let golden = include_str!("golden/message.json");
    let mut message: Value = serde_json::from_str(golden).expect("the golden message is JSON");
    let mut output = steward_protocol::Output::whole(&b"0123456789".repeat(10));
    output.shrink(40);
    let mut delivery = message["deliveries"][0].clone();
    delivery["state"] = json!("succeeded");
    delivery["exit_code"] = json!(0);
    delivery["stdout"] = json!(output);
    message["deliveries"] = json!([delivery]);
    message
}

fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

fn write(world: &World, name: &str, text: &str) -> String {
    let path = world.folder.path().join(name);
    fs::write(&path, text).expect("written");
    path.display().to_string()
}

#[test]
fn a_passing_trouble_is_outlived_and_a_shortened_output_says_so() {
    let world = World::without_broker();
    let asked = AtomicUsize::new(0);
    scripted(&world, move |request| {
        // Trouble at the first look, and again when the outputs are fetched.
        match (
            request.split(' ').next(),
            asked.fetch_add(1, Ordering::SeqCst),
        ) {
            (Some("POST"), _) => (201, receipt()),
            (_, 1 | 3) => trouble(),
            _ => (200, message()),
        }
    });
    let output = world.steward(&["run", "--to", "ship1", "--", "seq", "1", "40000"]);
    let (stdout, stderr) = texts(&output);
    assert_eq!(code(output.status), 0, "{stderr}");
    assert_eq!(stdout, "0123456789".repeat(4));
    assert!(
        stderr.contains("stdout: 60 bytes of 100 left out after the first 30"),
        "{stderr}"
    );
}

#[test]
fn what_was_accepted_is_named_when_the_station_fails_until_patience_is_over() {
    let world = World::without_broker();
    scripted(&world, |request| match request.split(' ').next() {
        Some("POST") => (201, receipt()),
        _ => trouble(),
    });
    let run = ["run", "--to", "ship1", "--timeout", "1s", "--", "true"];
    let output = world.steward(&run);
    let (_, stderr) = texts(&output);
    assert_eq!(code(output.status), 6, "{stderr}");
    assert!(stderr.contains("1 message accepted"), "{stderr}");
    assert!(stderr.contains(&format!("msg watch {ID}")), "{stderr}");

    let output = world.steward(&["msg", "watch", ID, "--timeout", "1s"]);
    assert_eq!(code(output.status), 6, "{output:?}");
}

#[test]
fn of_several_files_it_is_said_how_many_were_accepted() {
    let world = World::without_broker();
    scripted(&world, |request| {
        if request.contains("bad.json") {
            let problem = json!({ "line": null, "column": null, "path": "", "reason": "is bad", "hint": null });
            return (422, json!({ "error": "no", "problems": [problem] }));
        }
        match request.split(' ').next() {
            Some("POST") => (201, receipt()),
            _ => (200, message()),
        }
    });
    let (good, bad) = (
        write(&world, "good.json", "{}"),
        write(&world, "bad.json", "{}"),
    );
    let output = world.steward(&["submit", &good, &bad, "--wait"]);
    let (_, stderr) = texts(&output);
    assert_eq!(code(output.status), 1, "{stderr}");
    assert!(stderr.contains("accepted 1 of 2 files"), "{stderr}");
}

#[test]
fn what_cannot_be_meant_is_told_before_anything_is_sent() {
    let world = World::without_broker();
    for (arguments, named) in [
        (&["run", "--to", "ship1,ship1", "--", "true"][..], "--to"),
        (&["run", "--to", "ship1", "--", ""], "CMD"),
        (
            &[
                "run",
                "--to",
                "ship1",
                "--command-timeout",
                "25h",
                "--",
                "x",
            ],
            "--command-timeout",
        ),
        (&["run", "--to", "ship1", "--name", "", "--", "x"], "--name"),
        (&["msg", "show", ""], "ID"),
        (&["msg", "watch", ""], "ID"),
        (&["msg", "output", "", "ship1"], "ID"),
        (&["msg", "cancel", ""], "ID"),
        (&["msg", "cancel", "0190", "--to", "a.b"], "--to"),
        (&["msg", "retry", "0190", "--state", "banana"], "--state"),
        (&["msg", "retry", "0190", "--timeout", "1s"], "--wait"),
        (&["msg", "why", "0190"], "NODE"),
        (&["demo", "-o", "json"], "jsonl"),
    ] {
        let output = world.steward(arguments);
        let (_, stderr) = texts(&output);
        assert_eq!(code(output.status), 2, "{arguments:?}: {stderr}");
        assert!(stderr.contains(named), "{arguments:?}: {stderr}");
        assert!(!stderr.contains("column"), "{arguments:?}: {stderr}");
    }
}

#[test]
fn check_prints_one_message_per_line_and_names_what_has_no_effect() {
    let world = World::without_broker();
    let old = r#"{"toNode": "a", "method": "cliCommand", "methodArgs": ["x"], "retries": 3, "ACKTimeout": 5}"#;
    let file = write(&world, "old.json", &format!("[{old}, {old}]"));
    let output = world.steward(&["check", &file, "-o", "jsonl"]);
    let (stdout, stderr) = texts(&output);
    assert_eq!(code(output.status), 0, "{stderr}");
    let lines: Vec<Value> = stdout
        .lines()
        .map(|line| serde_json::from_str(line).expect("a line is a message"))
        .collect();
    assert_eq!(lines.len(), 2, "{stdout}");
    assert_eq!(
        lines[0]["subject"],
        "a.command.shellcommand.operatingsystem"
    );
    assert!(
        stderr.contains("retries and ACKTimeout are accepted and not used"),
        "{stderr}"
    );
    let output = world.steward(&["check", &file, "-o", "json"]);
    let all: Value = serde_json::from_slice(&output.stdout).expect("one document");
    assert_eq!(all.as_array().map(Vec::len), Some(2));
}

/// Asks the station at `socket` and returns the status and the body.
fn ask(socket: &Path, request: &str) -> (u16, String) {
    let mut stream = UnixStream::connect(socket).expect("the station listens");
    write!(
        stream,
        "{request} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
    )
    .expect("asked");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    let status = head.split(' ').nth(1).and_then(|text| text.parse().ok());
    (status.expect("a status"), body.to_owned())
}

#[test]
fn every_refusal_of_the_api_is_json() {
    let world = World::new();
    let _station = world.station();
    let socket = world.state_dir().join(SOCKET);
    for (request, expected) in [
        ("GET /api/v1/messages?limit=many", 400),
        ("GET /api/v1/messages?banana=1", 400),
        ("GET /api/v1/messages/%ff", 400),
        ("GET /api/v1/messages/0190?after=x", 400),
        ("GET /api/v1/messages/0190f000/nodes/%fe", 400),
        ("POST /api/v1/messages?format=xml", 400),
        ("POST /api/v1/messages/ffff/cancel", 404),
        ("POST /api/v1/messages/ffff/retry", 404),
        ("GET /api/v1/messages/ffff/why/ship1", 404),
        ("GET /api/v1/messages/ffff/cancel", 405),
        ("POST /api/v1/messages/ffff/why/ship1", 405),
        ("GET /api/v1/nothing", 404),
        ("DELETE /api/v1/messages", 405),
        ("POST /api/v1/status", 405),
        ("POST /api/v1/messages", 422),
    ] {
        let (status, body) = ask(&socket, request);
        assert_eq!(status, expected, "{request}: {body}");
        let view: Value = serde_json::from_str(&body)
            .unwrap_or_else(|error| panic!("{request}: {error}: {body:?}"));
        let said = view["error"].as_str().unwrap_or_default();
        assert!(!said.is_empty(), "{request}: {body}");
    }
}
