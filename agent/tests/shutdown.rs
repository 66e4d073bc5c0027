//! How the agent ends.

use std::{fs, time::Duration};

use rustix::process::Signal;
use steward_protocol::State;

use crate::support::{Field, Request, children_of, eventually, lines, wardens_of};

#[tokio::test(flavor = "multi_thread")]
async fn term_drains_and_leaves_what_still_runs_to_the_next_start() {
    let field = Field::new();
    let station = field.station().await;
    let config = field.path("agent.toml");
    let mut agent = field
        .agent("ship1")
        .config(&config, "drain = \"200ms\"\n")
        .start();
    station.met("ship1").await;
    let gate = field.path("gate");
    let script = format!(
        "echo before; until [ -e {} ]; do sleep 0.05; done; echo after; exit 7",
        gate.display()
    );
    let sent = station
        .send(Request::new("ship1", &["sh", "-c", &script]))
        .await;
    let queued = station.send(Request::new("ship1", &["true"])).await;
    station.ack(&sent, &[State::Running]).await;
    station.ack(&queued, &[State::Received]).await;
    agent.signal(Signal::TERM);
    assert_eq!(agent.wait().code(), Some(0));
    station
        .hello("the last hello", |_, hello| hello.leaving.then_some(()))
        .await;
    assert!(!children_of(sent.id).is_empty(), "it goes on");
    assert_eq!(agent.said_more(), Vec::<String>::new());
    // Closed, the journal is one file again.
    let journal = field.path("ship1").join("journal.db");
    assert!(journal.exists() && !journal.with_extension("db-wal").exists());
    // It ends while there is no agent at all.
    fs::write(&gate, "").expect("the gate opens");
    eventually("the end of the command", || {
        wardens_of(&sent.id.to_string()).is_empty().then_some(())
    })
    .await;
    assert_eq!(station.states(&sent).last(), Some(&State::Running));
    // What was queued stayed in the journal, and goes on with the next start.
    let _agent = field.agent("ship1").start();
    let ack = station.over(&sent).await;
    assert_eq!(ack.state, State::Failed);
    let outcome = ack.outcome.expect("it ran");
    assert_eq!(outcome.exit_code, Some(7));
    assert_eq!(outcome.stdout.expect("kept").head, b"before\nafter\n");
    assert_eq!(station.over(&queued).await.state, State::Succeeded);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_ends_within_the_drain_is_not_touched() {
    let field = Field::new();
    let (mut agent, station) = field.pair("ship1").await;
    let ran = field.path("ran");
    let script = format!("sleep 0.5; echo ran >> {}", ran.display());
    let sent = station
        .send(Request::new("ship1", &["sh", "-c", &script]))
        .await;
    station.ack(&sent, &[State::Running]).await;
    agent.signal(Signal::INT);
    assert_eq!(agent.wait().code(), Some(0));
    assert_eq!(station.over(&sent).await.state, State::Succeeded);
    assert_eq!(lines(&ran), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_signal_ends_the_agent_at_once_and_no_command() {
    let field = Field::new();
    let station = field.station().await;
    let config = field.path("agent.toml");
    let mut agent = field
        .agent("ship1")
        .config(&config, "drain = \"1h\"\n")
        .start();
    station.met("ship1").await;
    let sent = station
        .send(Request::new("ship1", &["sleep", "1000"]))
        .await;
    station.ack(&sent, &[State::Running]).await;
    agent.signal(Signal::TERM);
    // What comes before the signal does is taken and waits.
    let ack = loop {
        let late = station.send(Request::new("ship1", &["true"])).await;
        let told = [State::Received, State::Deferred];
        let ack = station.ack(&late, &told).await;
        if ack.state == State::Deferred {
            break ack;
        }
    };
    assert_eq!(
        ack.deferral.map(|deferral| deferral.as_str()),
        Some("stopping")
    );
    let old = station.world().hellos[0].1.instance;
    let before = std::time::Instant::now();
    agent.signal(Signal::TERM);
    assert_eq!(agent.wait().code(), Some(0));
    assert!(before.elapsed() < Duration::from_secs(60));
    assert!(!children_of(sent.id).is_empty(), "the command goes on");
    // The next start finds it, and can still end it.
    let _agent = field.agent("ship1").start();
    station.met_again("ship1", old).await;
    station.cancel(&sent).await;
    let ack = station.over(&sent).await;
    assert_eq!(ack.state, State::Cancelled);
    assert_eq!(ack.outcome.expect("it ran").signal, Some(15));
    assert_eq!(children_of(sent.id), Vec::<i32>::new());
}
