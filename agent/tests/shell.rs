//! What `shellcommand` and `hello` do, seen from the station.

use std::{fs, os::unix::fs::PermissionsExt, time::Duration};

use serde_json::json;
use steward_protocol::State;

use crate::support::{Field, Request, children_of};

#[tokio::test(flavor = "multi_thread")]
async fn a_command_runs_and_its_output_comes_back() {
    let field = Field::new();
    let (_agent, station) = field.pair("ship1").await;
    let script = "echo $STEWARD_NODE $STEWARD_MESSAGE_ID $STEWARD_ATTEMPT; echo err >&2";
    let sent = station
        .send(Request::new("ship1", &["sh", "-c", script]))
        .await;
    let ack = station.over(&sent).await;
    assert_eq!(ack.state, State::Succeeded);
    let outcome = ack.outcome.expect("it ran");
    assert_eq!((outcome.exit_code, outcome.signal), (Some(0), None));
    let stdout = outcome.stdout.expect("its output is kept");
    assert_eq!(stdout.head, format!("ship1 {} 1\n", sent.id).into_bytes());
    assert_eq!(outcome.stderr.expect("kept as well").head, b"err\n");
    let states = station.states(&sent);
    assert_eq!(states, [State::Received, State::Running, State::Succeeded]);
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_cwd_env_and_stdin_arrive_as_they_were() {
    let field = Field::new();
    let (_agent, station) = field.pair("ship1").await;
    let subject = "ship1.command.shellcommand.operatingsystem";
    let script = "pwd; echo $A; cat; printf '\\377\\000'";
    let body = json!({
        "data": ["sh", "-c", script], "cwd": "/usr", "env": {"A": "ö"}, "stdin": "in\n"
    });
    let ack = station
        .over(&station.send(Request::body(subject, body)).await)
        .await;
    let stdout = ack
        .outcome
        .and_then(|outcome| outcome.stdout)
        .expect("its output");
    assert_eq!(stdout.head, b"/usr\n\xc3\xb6\nin\n\xff\x00");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agents_secrets_are_not_handed_down() {
    let field = Field::new();
    let station = field.station().await;
    let mut command = field.agent("ship1");
    command
        .0
        .env("NATS_CREDS_NOT_A_KEY", "secret")
        .env("STEWARD_STATION", "central");
    command
        .0
        .env("NOTIFY_SOCKET", "/x")
        .env("CREDENTIALS_DIRECTORY", "/y")
        .env("HARMLESS", "1");
    let _agent = command.start();
    station.met("ship1").await;
    let ack = station
        .over(&station.send(Request::new("ship1", &["env"])).await)
        .await;
    let stdout = ack
        .outcome
        .and_then(|outcome| outcome.stdout)
        .expect("its output");
    let text = String::from_utf8(stdout.head).expect("text");
    let names: Vec<&str> = text
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, _)| name)
        .filter(|name| {
            ["NATS_", "STEWARD_", "NOTIFY", "CREDENTIALS", "HARMLESS"]
                .iter()
                .any(|prefix| name.starts_with(prefix))
        })
        .collect();
    let mut names = names;
    names.sort_unstable();
    let expected = [
        "HARMLESS",
        "STEWARD_ATTEMPT",
        "STEWARD_MESSAGE_ID",
        "STEWARD_NODE",
    ];
    assert_eq!(names, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_cannot_be_started_fails_as_a_shell_would_say() {
    let field = Field::new();
    let (_agent, station) = field.pair("ship1").await;
    let plain = field.path("plain");
    fs::write(&plain, "not a program").expect("a file");
    fs::set_permissions(&plain, fs::Permissions::from_mode(0o644)).expect("its mode");
    let plain = plain.to_string_lossy().into_owned();
    let subject = "ship1.command.shellcommand.operatingsystem";
    for (body, code, word) in [
        (json!({"data": ["no-such-program"]}), 127, "not found"),
        (json!({"data": [plain]}), 126, "cannot be executed"),
        (
            json!({"data": ["true"], "cwd": "/no/such/dir"}),
            126,
            "working directory",
        ),
        (json!({"data": ["sh", "-c", "exit 3"]}), 3, ""),
    ] {
        let ack = station
            .over(&station.send(Request::body(subject, body.clone())).await)
            .await;
        assert_eq!(ack.state, State::Failed, "{body}");
        let reason = ack.reason.unwrap_or_default();
        assert!(reason.contains(word), "{body}: {reason}");
        let outcome = ack.outcome.expect("an outcome");
        assert_eq!(outcome.exit_code, Some(code), "{body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_is_stopped_at_its_timeout_and_what_it_wrote_is_kept() {
    let field = Field::new();
    let (_agent, station) = field.pair("ship1").await;
    let request = Request::new("ship1", &["sh", "-c", "echo early; exec sleep 1000"]);
    let sent = station
        .send(request.timeout(Duration::from_millis(300)))
        .await;
    let ack = station.over(&sent).await;
    assert_eq!(ack.state, State::TimedOut);
    assert!(ack.reason.expect("a reason").contains("300ms"));
    let outcome = ack.outcome.expect("it ran");
    assert_eq!(outcome.stdout.expect("kept").head, b"early\n");
    assert_eq!(children_of(sent.id), Vec::<i32>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_node_will_never_do_is_rejected_with_the_reason() {
    let field = Field::new();
    let station = field.station().await;
    let config = "domains = [\"operatingsystem\"]\n";
    let agent = field
        .agent("ship1")
        .config(&field.path("agent.toml"), config);
    let _agent = agent.start();
    station.met("ship1").await;
    for (subject, body, words) in [
        (
            "ship1.command.teleport.operatingsystem",
            json!({}),
            "offers: shellcommand, hello",
        ),
        (
            "ship1.command.shellcommand.operatingsystem",
            json!({"data": []}),
            "data: is missing",
        ),
        (
            "ship1.command.shellcommand.operatingsystem",
            json!({"data": ["a\0b"]}),
            "data[0]",
        ),
        (
            "ship1.command.shellcommand.nginx",
            json!({"data": ["true"]}),
            "policy: domain \"nginx\"",
        ),
        (
            "ship1.event.shellcommand.operatingsystem",
            json!({"data": ["true"]}),
            "event: ",
        ),
    ] {
        let sent = station.send(Request::body(subject, body)).await;
        let ack = station.over(&sent).await;
        assert_eq!(ack.state, State::Rejected, "{subject}");
        let reason = ack.reason.expect("a refusal has a reason");
        assert!(reason.contains(words), "{subject}: {reason}");
        assert_eq!(station.states(&sent), [State::Rejected], "it never ran");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_in_a_newer_version_is_rejected_by_name() {
    let field = Field::new();
    let (_agent, station) = field.pair("ship1").await;
    let sent = station.prepare(Request::new("ship1", &["true"]));
    let bytes = sent.envelope.encode().expect("an envelope");
    let text = String::from_utf8(bytes).expect("JSON is text");
    let newer = text.replacen("\"v\":1", "\"v\":2", 1);
    station
        .publish(
            "ship1.command.shellcommand.operatingsystem",
            newer.into_bytes(),
        )
        .await;
    let ack = station.over(&sent).await;
    assert_eq!(ack.state, State::Rejected);
    assert!(ack.reason.expect("a reason").starts_with("version: "));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_says_hello_when_asked() {
    let field = Field::new();
    let station = field.station().await;
    let _agent = field.agent("ship1").arg("--label", "kind=ship").start();
    station.met("ship1").await;
    let sent = station
        .send(Request::body("ship1.command.hello.node", json!({})))
        .await;
    let ack = station.over(&sent).await;
    assert_eq!(ack.state, State::Succeeded);
    let stdout = ack
        .outcome
        .and_then(|outcome| outcome.stdout)
        .expect("a hello");
    let hello: serde_json::Value = serde_json::from_slice(&stdout.head).expect("in JSON");
    assert_eq!(hello["labels"]["kind"], "ship");
    assert_eq!(hello["open"][0], sent.id.to_string());
}
