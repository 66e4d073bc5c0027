//! `steward-agent status`: asks a running agent over its socket.

use std::{
    fs,
    io::Read,
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::Path,
    process::Command,
};

use rustix::process::Signal;
use serde_json::Value;
use steward_protocol::State;

use crate::support::{Field, Request, eventually};

/// Runs the verb and returns its exit code, standard output and standard error.
fn status(dir: &Path, format: &str) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_steward-agent"));
    command
        .args(["status", "-o", format, "--state-dir"])
        .arg(dir);
    command.env_remove("STEWARD_STATE_DIR");
    let output = command.output().expect("the verb runs");
    (
        output.status.code(),
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

fn json(dir: &Path) -> (Option<i32>, Value) {
    let (code, stdout, stderr) = status(dir, "json");
    let value = serde_json::from_str(&stdout);
    (
        code,
        value.unwrap_or_else(|error| panic!("{error} in {stdout:?}, {stderr}")),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_agent_tells_how_it_is_and_a_gone_one_does_not() {
    let field = Field::new();
    let dir = field.path("ship1");
    let (mut agent, station) = field.pair("ship1").await;
    let running = station
        .send(Request::new("ship1", &["sleep", "1000"]))
        .await;
    let queued = station.send(Request::new("ship1", &["true"])).await;
    station.ack(&running, &[State::Running]).await;
    station.ack(&queued, &[State::Received]).await;
    let told = eventually("a status with the command and the queue", || {
        let (code, told) = json(&dir);
        let seen = (
            &told["commands"]["running"],
            &told["journal"]["queue"]["used"],
        );
        (code == Some(0) && seen.0 == 1 && seen.1 == 1).then_some(told)
    })
    .await;
    assert_eq!(told["node"], "ship1");
    assert_eq!(told["station"]["name"], "central");
    assert_eq!(told["station"]["welcomed"], true);
    assert_eq!(told["broker"]["connected"], true);
    assert_eq!(told["journal"]["queue"]["most"], 100);
    assert_eq!(told["journal"]["results"]["most"], 64 << 20);
    let subjects: Vec<&str> = told["processes"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|process| process["subject"].as_str())
        .collect();
    assert!(
        subjects.contains(&"ship1.command.shellcommand.operatingsystem"),
        "{subjects:?}"
    );
    let (code, table, _) = status(&dir, "table");
    assert_eq!(code, Some(0));
    for words in [
        "running, connected and welcomed",
        "1 of 100",
        "LAST FAULT",
        "running",
    ] {
        assert!(table.contains(words), "{words} not in {table}");
    }
    let mode = fs::metadata(dir.join("agent.sock"))
        .expect("a socket")
        .permissions();
    assert_eq!(mode.mode() & 0o777, 0o600);

    agent.signal(Signal::TERM);
    agent.signal(Signal::TERM);
    agent.wait();
    assert!(
        !dir.join("agent.sock").exists(),
        "the socket goes with the agent"
    );
    let (code, stdout, stderr) = status(&dir, "table");
    assert_eq!((code, stdout.as_str()), (Some(6), ""));
    assert!(stderr.contains("find a running agent"), "{stderr}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_alone_says_so_and_a_socket_left_behind_is_replaced() {
    let mut field = Field::new();
    let dir = field.path("ship1");
    let mut agent = field.agent("ship1").start();
    let (code, told) = json(&dir);
    assert_eq!(code, Some(3), "no station has welcomed it: {told}");
    assert_eq!(told["station"]["welcomed"], false);
    agent.kill();
    assert!(dir.join("agent.sock").exists(), "a killed agent leaves it");
    assert_eq!(status(&dir, "json").0, Some(6));

    field.cut();
    let _agent = field.agent("ship1").start();
    let (code, told) = json(&dir);
    assert_eq!(code, Some(3), "the broker is away: {told}");
    assert_eq!(told["broker"]["connected"], false);
    field.heal();
    let _station = field.station().await;
    eventually("the agent welcomed", || {
        (json(&dir).0 == Some(0)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_connects_gets_one_document_and_cannot_keep_others_waiting() {
    let field = Field::new();
    let (_agent, _station) = field.pair("ship1").await;
    let path = field.path("ship1").join("agent.sock");
    // They never read a byte.
    let idle: Vec<UnixStream> = (0..3)
        .map(|_| UnixStream::connect(&path).expect("somebody answers"))
        .collect();
    let mut text = String::new();
    let mut stream = UnixStream::connect(&path).expect("somebody answers");
    stream
        .read_to_string(&mut text)
        .expect("one document, then the end");
    let told: Value = serde_json::from_str(&text).expect("one document");
    assert_eq!(told["node"], "ship1");
    drop(idle);
}

#[test]
fn status_without_a_directory_is_misuse() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_steward-agent"));
    command.arg("status").env_remove("STEWARD_STATE_DIR");
    let output = command.output().expect("the verb runs");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("state_dir: is missing"), "{stderr}");
}
