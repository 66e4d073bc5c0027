//! How the agent ends.

use std::time::Duration;

use rustix::process::Signal;
use steward_protocol::State;

use crate::support::{Field, Request, children_of, lines};

#[tokio::test(flavor = "multi_thread")]
async fn term_drains_and_tells_the_truth_about_what_was_cut_short() {
    let field = Field::new();
    let station = field.station().await;
    let config = field.path("agent.toml");
    let mut agent = field
        .agent("ship1")
        .config(&config, "drain = \"200ms\"\n")
        .start();
    station.met("ship1").await;
    let sent = station
        .send(Request::new("ship1", &["sleep", "1000"]))
        .await;
    let queued = station.send(Request::new("ship1", &["true"])).await;
    station.ack(&sent, &[State::Running]).await;
    station.ack(&queued, &[State::Received]).await;
    agent.signal(Signal::TERM);
    assert_eq!(agent.wait().code(), Some(0));
    let ack = station.over(&sent).await;
    assert_eq!(ack.state, State::Failed);
    assert!(ack.reason.expect("a reason").contains("agent was stopping"));
    assert_eq!(ack.outcome.expect("it ran").signal, Some(15));
    station
        .hello("the last hello", |_, hello| hello.leaving.then_some(()))
        .await;
    assert_eq!(children_of(sent.id), Vec::<i32>::new());
    assert_eq!(agent.said_more(), Vec::<String>::new());
    // Closed, the journal is one file again.
    let journal = field.path("ship1").join("journal.db");
    assert!(journal.exists() && !journal.with_extension("db-wal").exists());
    // What was queued stayed in the journal, and goes on with the next start.
    let _agent = field.agent("ship1").start();
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
async fn the_second_signal_forces() {
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
    let before = std::time::Instant::now();
    agent.signal(Signal::TERM);
    agent.wait();
    assert!(before.elapsed() < Duration::from_secs(10));
    let ack = station.over(&sent).await;
    assert_eq!(ack.outcome.expect("it ran").signal, Some(9));
    assert_eq!(children_of(sent.id), Vec::<i32>::new());
}
