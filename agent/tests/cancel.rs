//! Cancellations: of what waits, runs, is over, was never seen, or outlived its agent.

use std::path::Path;

use rustix::process::Signal;
use steward_protocol::{Ack, Deferral, Digest, State};

use crate::support::{
    Agent, Field, Request, Station, children_of, eventually, kill_with_warden, lines, station::Sent,
};

/// A command that runs until it is ended.
fn endless(node: &str) -> Request {
    Request::new(node, &["sh", "-c", "echo partial; exec sleep 1000"])
}

/// A command that leaves a line behind every time it runs.
fn traced(node: &str, path: &Path) -> Request {
    let script = format!("echo ran >> {}", path.display());
    Request::new(node, &["sh", "-c", &script])
}

/// A command that does not obey TERM and has a descendant that got away; both say that they are there.
fn stubborn(node: &str, there: &Path) -> Request {
    let script = format!(
        "trap '' TERM; setsid sh -c 'trap \"\" TERM; echo there >> {0}; while :; do sleep 1; done' &
         echo there >> {0}; while :; do sleep 1; done",
        there.display()
    );
    Request::new(node, &["sh", "-c", &script])
}

async fn running(station: &Station, request: Request) -> Sent {
    let sent = station.send(request).await;
    station.ack(&sent, &[State::Running]).await;
    sent
}

fn assert_cancelled(ack: &Ack) {
    assert_eq!(ack.state, State::Cancelled, "{ack:?}");
    let reason = ack.reason.as_deref().unwrap_or_default();
    assert!(reason.starts_with("cancelled by ann at 20"), "{reason}");
}

async fn no_process_of(sent: &Sent) {
    eventually("no process of the command", || {
        children_of(sent.id).is_empty().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_cancelled_behind_a_running_one_never_runs() {
    let field = Field::new();
    let (_agent, station) = field.pair("ship1").await;
    let ran = field.path("ran");
    let first = running(&station, endless("ship1")).await;
    let second = station.send(traced("ship1", &ran)).await;
    station.ack(&second, &[State::Received]).await;
    station.cancel(&second).await;
    let ack = station.over(&second).await;
    assert_cancelled(&ack);
    assert_eq!(ack.outcome, None, "it never ran");
    // Twice is the same.
    station.world().acks.clear();
    station.cancel(&second).await;
    assert_eq!(station.over(&second).await, ack);
    station.cancel(&first).await;
    assert_cancelled(&station.over(&first).await);
    let third = station.send(Request::new("ship1", &["true"])).await;
    assert_eq!(station.over(&third).await.state, State::Succeeded);
    assert_eq!(lines(&ran), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_command_is_stopped_and_its_output_told() {
    let field = Field::new();
    let (_agent, station) = field.pair("ship1").await;
    let sent = running(&station, endless("ship1")).await;
    let next = station.send(Request::new("ship1", &["true"])).await;
    for _ in 0..3 {
        station.cancel(&sent).await;
    }
    let ack = station.over(&sent).await;
    assert_cancelled(&ack);
    let outcome = ack.outcome.clone().expect("it ran");
    assert_eq!((outcome.exit_code, outcome.signal), (None, Some(15)));
    assert_eq!(outcome.stdout.expect("kept").head, b"partial\n");
    assert_eq!(station.over(&next).await.state, State::Succeeded);
    // It says so again, to the letter, whoever asks.
    station.world().acks.clear();
    station.cancel(&sent).await;
    assert_eq!(station.over(&sent).await, ack);
    station.world().acks.clear();
    station.resend(&sent).await;
    assert_eq!(station.over(&sent).await, ack);
    no_process_of(&sent).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_does_not_obey_is_killed_and_nothing_of_it_is_left() {
    let field = Field::new();
    let (_agent, station) = field.pair("ship1").await;
    let there = field.path("there");
    let sent = station.send(stubborn("ship1", &there)).await;
    eventually("the command and its descendant", || {
        (lines(&there) == 2).then_some(())
    })
    .await;
    station.cancel(&sent).await;
    let ack = station.over(&sent).await;
    assert_cancelled(&ack);
    assert_eq!(ack.outcome.expect("it ran").signal, Some(9));
    assert_eq!(children_of(sent.id), Vec::<i32>::new(), "when it is said");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancellation_after_the_end_repeats_the_end() {
    let field = Field::new();
    let (_agent, station) = field.pair("ship1").await;
    let request = Request::new("ship1", &["sh", "-c", "echo out; exit 3"]);
    let sent = station.send(request).await;
    let ack = station.over(&sent).await;
    assert_eq!(ack.state, State::Failed);
    station.world().acks.clear();
    station.cancel(&sent).await;
    assert_eq!(station.over(&sent).await, ack);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_comes_after_its_cancellation_never_runs() {
    let field = Field::new();
    let (mut agent, station) = field.pair("ship1").await;
    let ran = field.path("ran");
    let ordered = station.prepare(traced("ship1", &ran));
    let beside = station.prepare(traced("ship1", &ran).unordered());
    for sent in [&ordered, &beside] {
        station.cancel(sent).await;
        assert_cancelled(&station.over(sent).await);
    }
    // Its place in the lane is filled.
    let next = station.send(Request::new("ship1", &["true"])).await;
    assert_eq!(station.over(&next).await.state, State::Succeeded);
    let old = station.world().hellos[0].1.instance;
    agent.kill();
    station.world().acks.clear();
    let _agent = field.agent("ship1").start();
    station.met_again("ship1", old).await;
    for sent in [&ordered, &beside] {
        station.resend(sent).await;
        assert_cancelled(&station.over(sent).await);
    }
    station.settled("ship1").await;
    assert_eq!(lines(&ran), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancellation_at_a_gap_names_the_sequence_number_expected() {
    let field = Field::new();
    let (_agent, station) = field.pair("ship1").await;
    let first = station.prepare(Request::new("ship1", &["true"]));
    let second = station.prepare(Request::new("ship1", &["true"]));
    station.cancel(&second).await;
    let ack = station.ack(&second, &[State::Deferred]).await;
    assert_eq!(
        (ack.deferral, ack.expected_seq),
        (Some(Deferral::Gap), Some(1))
    );
    station.resend(&first).await;
    assert_eq!(station.over(&first).await.state, State::Succeeded);
    station.cancel(&second).await;
    assert_cancelled(&station.over(&second).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancellation_of_something_else_changes_nothing() {
    let field = Field::new();
    let (_agent, station) = field.pair("ship1").await;
    let gate = field.path("gate");
    let wait = format!("until [ -e {} ]; do sleep 0.05; done", gate.display());
    let sent = running(&station, Request::new("ship1", &["sh", "-c", &wait])).await;
    let waiting = station.send(Request::new("ship1", &["true"])).await;
    station.ack(&waiting, &[State::Received]).await;
    let counted = async |name: &'static str| {
        let awaited = format!("a cancellation counted as {name}");
        let look = |hello: &steward_protocol::Hello| hello.counters.get(name).copied();
        station.hello(&awaited, |_, hello| look(hello)).await
    };
    for order in [&sent, &waiting] {
        let other = Digest::of(b"another order");
        station
            .cancel_as(order, |frame| frame.body.digest = other)
            .await;
    }
    counted("other_content").await;
    station
        .cancel_as(&sent, |frame| {
            frame.body.subject = "ship1.command.shellcommand.elsewhere"
                .parse()
                .expect("a subject");
        })
        .await;
    counted("redirected").await;
    let garbage = b"{\"send\":{}}".to_vec();
    let subject = "ship1.command.cancel.operatingsystem";
    station.publish(subject, garbage).await;
    counted("garbage_frame").await;
    station.cancel_as(&sent, |frame| frame.send.epoch = 0).await;
    let ack = station.ack(&sent, &[State::Deferred]).await;
    assert_eq!(ack.deferral, Some(Deferral::StaleEpoch));
    std::fs::write(&gate, "").expect("the gate opens");
    for order in [&sent, &waiting] {
        assert_eq!(station.over(order).await.state, State::Succeeded);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancellation_is_heard_when_every_place_is_taken_and_the_queue_is_full() {
    let field = Field::new();
    let station = field.station().await;
    let config = field.path("agent.toml");
    let _agent = field.agent("ship1").config(&config, "queue = 2\n").start();
    station.met("ship1").await;
    let mut at_work = Vec::new();
    for _ in 0..4 {
        at_work.push(running(&station, endless("ship1").unordered()).await);
    }
    let ran = field.path("ran");
    let mut waiting = Vec::new();
    for _ in 0..2 {
        let sent = station.send(traced("ship1", &ran).unordered()).await;
        station.ack(&sent, &[State::Received]).await;
        waiting.push(sent);
    }
    let refused = station.send(traced("ship1", &ran).unordered()).await;
    let ack = station.ack(&refused, &[State::Deferred]).await;
    assert_eq!(ack.deferral, Some(Deferral::Busy));
    // What was refused, what waits for a place, what has one.
    station.cancel(&refused).await;
    assert_cancelled(&station.over(&refused).await);
    for sent in &waiting {
        station.cancel(sent).await;
        assert_cancelled(&station.over(sent).await);
    }
    for sent in &at_work {
        station.cancel(sent).await;
        assert_cancelled(&station.over(sent).await);
    }
    station.settled("ship1").await;
    assert_eq!(lines(&ran), 0);
}

/// Cancels a stubborn command, ends the agent while it is being stopped, and starts it again.
async fn killed_while_stopping(field: &Field) -> (Agent, Station, Sent) {
    let (mut agent, station) = field.pair("ship1").await;
    let there = field.path("there");
    let request = stubborn("ship1", &there).idempotent();
    let sent = station.send(request).await;
    eventually("the command and its descendant", || {
        (lines(&there) == 2).then_some(())
    })
    .await;
    station.cancel(&sent).await;
    // Answered, so it is durable; the command has five seconds to obey.
    eventually("an answer to the cancellation", || {
        let states = station.states(&sent);
        (states
            .iter()
            .filter(|state| **state == State::Running)
            .count()
            == 2)
            .then_some(())
    })
    .await;
    let old = station.world().hellos[0].1.instance;
    agent.kill();
    assert!(!children_of(sent.id).is_empty(), "it outlives its agent");
    station.world().acks.clear();
    let agent = field.agent("ship1").start();
    station.met_again("ship1", old).await;
    (agent, station, sent)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_was_being_stopped_is_stopped_by_the_next_start() {
    let field = Field::new();
    let (_agent, station, sent) = killed_while_stopping(&field).await;
    // Nobody says it again: that it is cancelled is in the journal.
    let ack = station.over(&sent).await;
    assert_cancelled(&ack);
    assert_eq!(ack.outcome.expect("its warden saw it").signal, Some(9));
    no_process_of(&sent).await;
    station.world().acks.clear();
    station.cancel(&sent).await;
    assert_cancelled(&station.over(&sent).await);
    let there = field.path("there");
    assert_eq!(lines(&there), 2, "it was not run again, though it might be");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_found_again_is_stopped_when_it_is_cancelled() {
    let field = Field::new();
    let (mut agent, station) = field.pair("ship1").await;
    let there = field.path("there");
    let sent = station.send(stubborn("ship1", &there)).await;
    eventually("the command and its descendant", || {
        (lines(&there) == 2).then_some(())
    })
    .await;
    station.ack(&sent, &[State::Running]).await;
    let old = station.world().hellos[0].1.instance;
    agent.kill();
    let _agent = field.agent("ship1").start();
    station.met_again("ship1", old).await;
    station.cancel(&sent).await;
    let ack = station.over(&sent).await;
    assert_cancelled(&ack);
    assert_eq!(ack.outcome.expect("its warden saw it").signal, Some(9));
    assert_eq!(children_of(sent.id), Vec::<i32>::new(), "when it is said");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_cancelled_and_ended_unseen_is_interrupted_and_never_run_again() {
    let field = Field::new();
    let (mut agent, station) = field.pair("ship1").await;
    let there = field.path("there");
    let request = stubborn("ship1", &there).idempotent();
    let sent = station.send(request).await;
    eventually("the command and its descendant", || {
        (lines(&there) == 2).then_some(())
    })
    .await;
    station.ack(&sent, &[State::Running]).await;
    station.world().acks.clear();
    station.cancel(&sent).await;
    station.ack(&sent, &[State::Running]).await;
    agent.kill();
    kill_with_warden(sent.id).await;
    let _agent = field.agent("ship1").start();
    let ack = station.over(&sent).await;
    assert_eq!(ack.state, State::Interrupted);
    assert!(ack.reason.expect("a reason").contains("cancelled by ann"));
    station.settled("ship1").await;
    assert_eq!(lines(&there), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancellation_that_cannot_be_written_stops_what_runs_and_defers_the_rest() {
    let field = Field::new();
    let (_agent, station) = field.pair("ship1").await;
    let ran = field.path("ran");
    let first = running(&station, endless("ship1")).await;
    let second = station.send(traced("ship1", &ran)).await;
    station.ack(&second, &[State::Received]).await;
    // Somebody else writes to the file and does not come to an end.
    let held = rusqlite::Connection::open(field.path("ship1").join("journal.db"))
        .expect("the journal opens");
    held.execute_batch("BEGIN IMMEDIATE").expect("it is free");
    station.cancel(&second).await;
    let ack = station.ack(&second, &[State::Deferred]).await;
    assert_eq!(ack.deferral, Some(Deferral::Storage));
    station.cancel(&first).await;
    no_process_of(&first).await;
    drop(held);
    assert_cancelled(&station.over(&first).await);
    // In the meantime it may have had its turn, which is the truth then.
    station.cancel(&second).await;
    let ack = station.over(&second).await;
    match ack.state {
        State::Succeeded => assert_eq!(lines(&ran), 1),
        State::Cancelled if ack.outcome.is_none() => assert_eq!(lines(&ran), 0),
        // Both at once.
        State::Cancelled => {}
        other => panic!("it is {other}: {ack:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_ending_hears_a_cancellation() {
    let field = Field::new();
    let (mut agent, station) = field.pair("ship1").await;
    let sent = running(&station, endless("ship1")).await;
    agent.signal(Signal::TERM);
    station.cancel(&sent).await;
    assert_cancelled(&station.over(&sent).await);
    assert!(agent.wait().success());
}
