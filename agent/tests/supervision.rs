//! The agent's own life: its processes, its broker, its directory.

use serde_json::json;
use steward_protocol::{ProcessState, State};

use crate::support::{Field, Request};

#[tokio::test(flavor = "multi_thread")]
async fn configured_subjects_have_a_process_and_others_get_one_on_demand() {
    let field = Field::new();
    let station = field.station().await;
    let text = "subjects = [\"command.shellcommand.operatingsystem\"]\n";
    let _agent = field
        .agent("ship1")
        .config(&field.path("agent.toml"), text)
        .start();
    station.met("ship1").await;
    let listed = |wanted: &'static str| {
        station.hello(wanted, move |_, hello| {
            hello
                .processes
                .iter()
                .find(|process| process.subject.to_string() == wanted)
                .cloned()
        })
    };
    let process = listed("ship1.command.shellcommand.operatingsystem").await;
    assert_eq!((process.state, process.restarts), (ProcessState::Idle, 0));
    let request = Request::body(
        "ship1.command.shellcommand.nginx",
        json!({"data": ["true"]}),
    );
    assert_eq!(
        station.over(&station.send(request).await).await.state,
        State::Succeeded
    );
    listed("ship1.command.shellcommand.nginx").await;
    listed("central.event.hello.node").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_process_ends_and_comes_back_when_needed() {
    let field = Field::new();
    let station = field.station().await;
    let config = field.path("agent.toml");
    let _agent = field
        .agent("ship1")
        .config(&config, "idle_after = \"200ms\"\n")
        .start();
    station.met("ship1").await;
    for _ in 0..2 {
        let sent = station.send(Request::new("ship1", &["true"])).await;
        assert_eq!(station.over(&sent).await.state, State::Succeeded);
        station.world().hellos.clear();
        station
            .hello("the process gone", |_, hello| {
                let mut subjects = hello.processes.iter().map(|process| &process.subject);
                subjects
                    .all(|subject| subject.method.as_str() != "shellcommand")
                    .then_some(())
            })
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agent_starts_before_its_broker_and_finds_it_later() {
    let mut field = Field::new();
    field.cut();
    let agent = field.agent("ship1").start();
    assert!(
        agent.ready.contains("waiting for the broker"),
        "{}",
        agent.ready
    );
    field.heal();
    let station = field.station().await;
    station.met("ship1").await;
    let sent = station.send(Request::new("ship1", &["true"])).await;
    assert_eq!(station.over(&sent).await.state, State::Succeeded);
    assert_eq!(agent.said_more(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_agents_cannot_share_a_directory() {
    let field = Field::new();
    let _agent = field.agent("ship1").start();
    let (code, stdout, stderr) = field.agent("ship1").run();
    assert_eq!((code, stdout.as_str()), (Some(1), ""));
    assert!(
        stderr.contains("another agent uses this state directory"),
        "{stderr}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_is_not_used_for_another_node() {
    let field = Field::new();
    drop(field.agent("ship1").start());
    let mut other = field.agent("ship2");
    other.0.arg("--state-dir").arg(field.path("ship1"));
    let (code, _, stderr) = other.run();
    assert_eq!(code, Some(2), "a flag given twice is misuse: {stderr}");
    let mut other = field.agent("ship1");
    other.0 = std::process::Command::new(env!("CARGO_BIN_EXE_steward-agent"));
    other
        .0
        .args(["run", "--node", "ship2", "--nats", field.broker.url()]);
    other.0.arg("--state-dir").arg(field.path("ship1"));
    let (code, _, stderr) = other.run();
    assert_eq!(code, Some(1));
    assert!(stderr.contains("belongs to node ship1"), "{stderr}");
}

#[test]
fn misuse_is_told_all_at_once() {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_steward-agent"));
    command.args([
        "run",
        "--node",
        "bad name",
        "--nats",
        "nats://broker.example:4222",
    ]);
    for name in ["STEWARD_STATE_DIR", "STEWARD_ALLOW_UNSIGNED"] {
        command.env_remove(name);
    }
    let output = command.output().expect("the agent starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    for words in [
        "--node: \"bad name\"",
        "--allow-unsigned",
        "state_dir: is missing",
    ] {
        assert!(stderr.contains(words), "{words} not in {stderr}");
    }
}
