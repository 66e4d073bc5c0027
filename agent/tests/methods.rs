//! Every built-in method as an order, seen from the station.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    thread,
};

use serde_json::{Value, json};
use steward_protocol::{Ack, State};

use crate::support::{Field, Request, Station, children_of, eventually};

/// Returns what an order wrote to its standard output and its standard error.
fn said(ack: &Ack) -> (String, String) {
    let outcome = ack.outcome.as_ref().expect("it ran");
    let text = |output: &Option<steward_protocol::Output>| {
        let output = output.as_ref().expect("its output is kept");
        String::from_utf8(output.head.clone()).expect("text")
    };
    (text(&outcome.stdout), text(&outcome.stderr))
}

async fn ask(station: &Station, subject: &str, body: Value) -> Ack {
    let sent = station.send(Request::body(subject, body)).await;
    station.over(&sent).await
}

fn json_of(ack: &Ack) -> Value {
    let (stdout, stderr) = said(ack);
    serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout} {stderr}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_method_writes_and_appends_to_a_file() {
    let field = Field::new();
    let (_agent, station) = field.pair("ship1").await;
    let path = field.path("motd");
    let body = json!({ "path": path, "content": "one\n", "mode": "0600" });
    let ack = ask(&station, "ship1.command.filewrite.operatingsystem", body).await;
    assert_eq!(ack.state, State::Succeeded, "{:?}", said(&ack));
    let written = json_of(&ack);
    let body = json!({ "path": path, "content": "two\n", "if_match": written["blake3"] });
    let subject = "ship1.command.fileappend.operatingsystem";
    let ack = ask(&station, subject, body.clone()).await;
    assert_eq!(ack.state, State::Succeeded, "{:?}", said(&ack));
    assert_eq!(
        fs::read_to_string(&path).expect("it is there"),
        "one\ntwo\n"
    );
    // It is not the file it was any more.
    let ack = ask(&station, subject, body).await;
    assert_eq!(ack.state, State::Failed);
    assert!(
        said(&ack).1.starts_with("fileappend: failed to write "),
        "{:?}",
        said(&ack)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_followed_file_ends_when_it_is_cancelled_with_the_place_reached() {
    let field = Field::new();
    let (_agent, station) = field.pair("ship1").await;
    let path = field.path("app.log");
    fs::write(&path, "a\nb\n").expect("written");
    let body = json!({ "path": path, "from": "start" });
    let sent = station
        .send(Request::body("ship1.command.tailfile.nginx", body))
        .await;
    station.ack(&sent, &[State::Running]).await;
    let catches = || {
        children_of(sent.id)
            .into_iter()
            .find(|pid| catches_term(*pid))
    };
    eventually("tailfile to catch TERM", catches).await;
    station.cancel(&sent).await;
    let ack = station.over(&sent).await;
    assert_eq!(ack.state, State::Cancelled);
    let (stdout, stderr) = said(&ack);
    assert_eq!(stdout, "a\nb\n");
    assert!(stderr.contains("\"offset\":4"), "{stderr}");
    assert_eq!(children_of(sent.id), Vec::<i32>::new());
}

/// Tells whether a tailfile is ready to be told to end.
fn catches_term(pid: i32) -> bool {
    const TERM: u64 = 1 << (15 - 1);
    let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let mut caught = status
        .lines()
        .filter_map(|line| line.strip_prefix("SigCgt:"));
    let caught = caught
        .next()
        .map_or(0, |mask| u64::from_str_radix(mask.trim(), 16).unwrap_or(0));
    words.ends_with(b"tailfile\0") && caught & TERM != 0
}

#[tokio::test(flavor = "multi_thread")]
async fn a_method_fetches_an_address() {
    let field = Field::new();
    let (_agent, station) = field.pair("ship1").await;
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!(
        "http://{}/status",
        listener.local_addr().expect("its number")
    );
    thread::spawn(move || {
        let (stream, _) = listener.accept().expect("somebody asks");
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        while reader.read_line(&mut line).is_ok() && !line.ends_with("\r\n\r\n") {}
        let answer = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nup\n";
        reader
            .get_mut()
            .write_all(answer.as_bytes())
            .expect("it is read");
    });
    let ack = ask(
        &station,
        "ship1.command.httpget.nginx",
        json!({ "url": url }),
    )
    .await;
    assert_eq!(ack.state, State::Succeeded, "{:?}", said(&ack));
    let answer = json_of(&ack);
    assert_eq!(
        (answer["status"].as_u64(), answer["text"].as_str()),
        (Some(200), Some("up\n"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ping_is_answered_by_its_process_while_every_place_for_a_command_is_taken() {
    let field = Field::new();
    let station = field.station().await;
    let _agent = field
        .agent("ship1")
        .config(&field.path("agent.toml"), "commands_at_once = 1\n")
        .start();
    station.met("ship1").await;
    let long = station
        .send(Request::new("ship1", &["sleep", "1000"]))
        .await;
    station.ack(&long, &[State::Running]).await;
    let ack = ask(&station, "ship1.command.ping.operatingsystem", json!({})).await;
    assert_eq!(ack.state, State::Succeeded, "{:?}", said(&ack));
    let pong = json_of(&ack);
    assert_eq!(pong["node"], "ship1");
    assert_eq!(pong["subject"], "ship1.command.ping.operatingsystem");
    assert_eq!((&pong["queued"], &pong["running"]), (&json!(0), &json!(1)));
    assert!(
        pong["since_received_us"]
            .as_u64()
            .is_some_and(|micros| micros > 0)
    );
    station.cancel(&long).await;
    station.over(&long).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_are_listed_stopped_and_started() {
    let field = Field::new();
    let (_agent, station) = field.pair("ship1").await;
    ask(
        &station,
        "ship1.command.shellcommand.nginx",
        json!({ "data": ["true"] }),
    )
    .await;
    let subject = "ship1.command.processes.node";
    let shell = "ship1.command.shellcommand.nginx";
    let listed = json_of(&ask(&station, subject, json!({})).await);
    let found = |listed: &Value| {
        let processes = listed["processes"].as_array().expect("a list").clone();
        let mut states = processes.iter().filter(|one| one["subject"] == shell);
        states.next().map(|one| one["state"].clone())
    };
    assert_eq!(found(&listed), Some(json!("idle")));
    let stop = json!({ "action": "stop", "process": shell });
    let stopped = json_of(&ask(&station, subject, stop.clone()).await);
    assert_eq!(found(&stopped), Some(json!("stopped")));
    let again = ask(&station, subject, stop).await;
    assert_eq!(again.state, State::Failed);
    assert!(
        said(&again).1.contains("it is stopped already"),
        "{:?}",
        said(&again)
    );
    let start = json!({ "action": "start", "process": shell });
    eventually_started(&station, subject, &start).await;
    let ack = ask(&station, shell, json!({ "data": ["true"] })).await;
    assert_eq!(ack.state, State::Succeeded);
}

/// What was stopped may take a moment to leave.
async fn eventually_started(station: &Station, subject: &str, start: &Value) {
    for _ in 0..50 {
        let ack = ask(station, subject, start.clone()).await;
        if ack.state == State::Succeeded {
            return;
        }
        assert!(
            said(&ack).1.contains("still brings orders"),
            "{:?}",
            said(&ack)
        );
    }
    panic!("it never left");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hello_says_what_the_node_is_and_what_is_used() {
    let field = Field::new();
    let (_agent, station) = field.pair("ship1").await;
    let hello = json_of(&ask(&station, "ship1.command.hello.node", json!({})).await);
    for fact in [
        "kernel",
        "arch",
        "cpus",
        "memory_bytes",
        "disk_free_bytes",
        "uptime_s",
    ] {
        assert!(!hello["facts"][fact].is_null(), "{fact}: {hello}");
    }
    assert_eq!(
        hello["budgets"]["commands"],
        json!({ "used": 0, "limit": 4 })
    );
    assert_eq!(hello["budgets"]["results_bytes"]["limit"], 64 << 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_offers_the_methods_of_its_config_only_and_says_so() {
    let field = Field::new();
    let station = field.station().await;
    let file = field.path("ran");
    let startup = field.path("ship1/startup");
    fs::create_dir_all(&startup).expect("a directory");
    let touch = json!({ "subject": "ship1.command.shellcommand.os", "data": ["touch", file] });
    fs::write(startup.join("10-touch.json"), touch.to_string()).expect("written");
    let agent = field
        .agent("ship1")
        .config(&field.path("agent.toml"), "methods = [\"ping\"]\n");
    let _agent = agent.start();
    station.met("ship1").await;
    for (subject, body) in [
        ("ship1.command.shellcommand.os", json!({ "data": ["true"] })),
        ("ship1.event.textlogging.os", json!({ "data": ["x"] })),
        (
            "ship1.command.filesend.os",
            json!({ "source": "a", "path": "/a" }),
        ),
    ] {
        let ack = ask(&station, subject, body).await;
        assert_eq!(ack.state, State::Rejected, "{subject}");
        let reason = ack.reason.expect("a refusal has a reason");
        assert!(reason.ends_with("offers: hello, ping"), "{reason}");
    }
    let ack = ask(&station, "ship1.command.ping.os", json!({})).await;
    assert_eq!(ack.state, State::Succeeded);
    let hello = json_of(&ask(&station, "ship1.command.hello.node", json!({})).await);
    assert_eq!(hello["facts"]["methods"], json!(["hello", "ping"]));
    // What the node gives itself is under the same policy.
    let refused = eventually("the report of the refused run", || {
        let world = station.world();
        let report = world.reports.first()?;
        Some((report.ack.state, report.ack.reason.clone()))
    })
    .await;
    assert_eq!(refused.0, State::Rejected, "{refused:?}");
    assert!(!file.exists());
}
