//! Whatever comes twice, late, out of order, from somebody else or not at all in one piece.

use std::{fs, time::Duration};

use serde_json::json;
use steward_protocol::{Deferral, InstanceId, LedgerId, State};
use uuid::Uuid;

use crate::support::{Field, Request, eventually, lines};

/// A command that leaves a line behind every time it runs.
fn traced(field: &Field, name: &str) -> (std::path::PathBuf, String) {
    let path = field.path(name);
    let script = format!("echo ran >> {}; echo done", path.display());
    (path, script)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_duplicate_is_answered_from_the_journal_and_never_runs_again() {
    let field = Field::new();
    let (_agent, station) = field.pair("ship1").await;
    station.world().confirms = false;
    let (ran, script) = traced(&field, "ran");
    let sent = station
        .send(Request::new("ship1", &["sh", "-c", &script]))
        .await;
    for _ in 0..3 {
        station.resend(&sent).await;
    }
    let first = station.over(&sent).await;
    let heard = station.states(&sent).len();
    station.resend(&sent).await;
    eventually("an answer to the duplicate", || {
        (station.states(&sent).len() > heard).then_some(())
    })
    .await;
    let again = station.over(&sent).await;
    assert_eq!(first, again, "the same fact, its output included");
    assert_eq!(lines(&ran), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_id_with_other_content_is_rejected_and_the_first_undisturbed() {
    let field = Field::new();
    let (_agent, station) = field.pair("ship1").await;
    let (ran, script) = traced(&field, "ran");
    let first = Request::new("ship1", &["sh", "-c", &script]);
    let mut other = Request::new("ship1", &["sh", "-c", &format!("{script}; true")]);
    other.order.id = first.order.id;
    let first = station.send(first).await;
    let other = station.send(other).await;
    assert_eq!(station.over(&other).await.state, State::Rejected);
    assert_eq!(station.over(&first).await.state, State::Succeeded);
    station.resend(&first).await;
    station.settled("ship1").await;
    assert_eq!(lines(&ran), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_runs_before_the_welcome() {
    let field = Field::new();
    let station = field.station().await;
    station.world().welcomes = false;
    let _agent = field.agent("ship1").start();
    station.hello("a hello", |_, _| Some(())).await;
    let (ran, script) = traced(&field, "ran");
    let sent = station
        .send(Request::new("ship1", &["sh", "-c", &script]))
        .await;
    let counted = station.hello("the order counted", |_, hello| {
        hello.counters.get("before_welcome").copied()
    });
    assert_eq!(counted.await, 1);
    assert_eq!((lines(&ran), station.states(&sent).len()), (0, 0));
    station.world().welcomes = true;
    station.met("ship1").await;
    station.resend(&sent).await;
    assert_eq!(station.over(&sent).await.state, State::Succeeded);
    assert_eq!(lines(&ran), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_ledger_is_refused_until_it_is_accepted() {
    let field = Field::new();
    let (mut agent, station) = field.pair("ship1").await;
    let own = station.world().ledger_id;
    let other = LedgerId(Uuid::new_v4());
    station.world().ledger_id = other;
    let (ran, script) = traced(&field, "ran");
    let sent = station
        .send(Request::new("ship1", &["sh", "-c", &script]))
        .await;
    let ack = station.ack(&sent, &[State::Deferred]).await;
    assert_eq!(ack.deferral, Some(Deferral::ForeignLedger));
    station
        .hello(
            "the foreign welcome counted, the pin unmoved",
            |origin, hello| {
                let counted = hello.counters.contains_key("foreign_ledger");
                (counted && origin.ledger_id == Some(own)).then_some(())
            },
        )
        .await;
    agent.kill();
    let accepted = field
        .agent("ship1")
        .arg("--accept-ledger", &other.to_string());
    let _agent = accepted.start();
    station.met("ship1").await;
    station.resend(&sent).await;
    assert_eq!(station.over(&sent).await.state, State::Succeeded);
    assert_eq!(lines(&ran), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_instance_and_a_stale_epoch_are_deferred() {
    let field = Field::new();
    let (_agent, station) = field.pair("ship1").await;
    let sent = station.prepare(Request::new("ship1", &["true"]));
    let mut stale = sent.envelope.clone();
    stale.send.instance = InstanceId(Uuid::new_v4());
    station.send_as_is(&stale).await;
    let ack = station.ack(&sent, &[State::Deferred]).await;
    assert_eq!(ack.deferral, Some(Deferral::StaleInstance));
    let mut later = sent.envelope.clone();
    later.send.epoch = 5;
    station.send_as_is(&later).await;
    assert_eq!(station.over(&sent).await.state, State::Succeeded);
    let second = station.send(Request::new("ship1", &["true"])).await;
    let ack = station.ack(&second, &[State::Deferred]).await;
    assert_eq!(ack.deferral, Some(Deferral::StaleEpoch));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_names_the_sequence_number_expected() {
    let field = Field::new();
    let (_agent, station) = field.pair("ship1").await;
    let first = station.prepare(Request::new("ship1", &["true"]));
    let second = station.send(Request::new("ship1", &["true"])).await;
    let ack = station.ack(&second, &[State::Deferred]).await;
    assert_eq!(
        (ack.deferral, ack.expected_seq),
        (Some(Deferral::Gap), Some(1))
    );
    station.resend(&first).await;
    station.resend(&second).await;
    assert_eq!(station.over(&first).await.state, State::Succeeded);
    assert_eq!(station.over(&second).await.state, State::Succeeded);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tombstone_for_an_unknown_order_is_expired_and_stays_so() {
    let field = Field::new();
    let (_agent, station) = field.pair("ship1").await;
    let (ran, script) = traced(&field, "ran");
    let sent = station.prepare(Request::new("ship1", &["sh", "-c", &script]));
    let mut tombstone = sent.envelope.clone();
    tombstone.send.ttl_left_ms = 0;
    station.send_as_is(&tombstone).await;
    assert_eq!(station.over(&sent).await.state, State::Expired);
    station.resend(&sent).await;
    // The tombstone held its place in the lane.
    let next = station.send(Request::new("ship1", &["true"])).await;
    assert_eq!(station.over(&next).await.state, State::Succeeded);
    assert_eq!(lines(&ran), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_whose_deadline_passes_in_the_queue_is_expired() {
    let field = Field::new();
    let (_agent, station) = field.pair("ship1").await;
    let gate = field.path("gate");
    let wait = format!("until [ -e {} ]; do sleep 0.05; done", gate.display());
    let blocker = station
        .send(Request::new("ship1", &["sh", "-c", &wait]))
        .await;
    let (ran, script) = traced(&field, "ran");
    let mut late = station.prepare(Request::new("ship1", &["sh", "-c", &script]));
    late.envelope.send.ttl_left_ms = 300;
    station.resend(&late).await;
    assert_eq!(station.over(&late).await.state, State::Expired);
    fs::write(&gate, "").expect("the gate opens");
    assert_eq!(station.over(&blocker).await.state, State::Succeeded);
    station.settled("ship1").await;
    assert_eq!(lines(&ran), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_is_counted_and_never_answered() {
    let field = Field::new();
    let (_agent, station) = field.pair("ship1").await;
    let subject = "ship1.command.shellcommand.operatingsystem";
    for bytes in [
        &b""[..],
        b"{",
        b"null",
        b"[[[[",
        b"\xff\xfe",
        b"{\"send\":1}",
    ] {
        station.publish(subject, bytes.to_vec()).await;
        station
            .publish("ship1.event.welcome.node", bytes.to_vec())
            .await;
        station
            .publish("ship1.event.confirm.x", bytes.to_vec())
            .await;
    }
    for subject in [
        "ship1.x",
        "ship1.command.a.b.c",
        "ship1.order.a.b",
        "ship1.command.a$.b",
    ] {
        station.publish(subject, b"x".to_vec()).await;
    }
    station.publish(subject, vec![b' '; 600 * 1024]).await;
    let mut redirected = station.prepare(Request::new("ship2", &["true"]));
    redirected.envelope.send.pos = 1;
    let bytes = redirected.envelope.encode().expect("an envelope");
    station.publish(subject, bytes).await;
    station.settled("ship1").await;
    let counters = station
        .hello("the garbage counted", |_, hello| {
            let all = hello.counters.contains_key("redirected");
            all.then(|| hello.counters.clone())
        })
        .await;
    assert_eq!(counters.get("garbage_frame"), Some(&19));
    assert_eq!(counters.get("garbage_subject"), Some(&4));
    assert_eq!(counters.get("redirected"), Some(&1));
    assert_eq!(station.states(&redirected), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_won_while_the_broker_was_away_arrives_later() {
    let mut field = Field::new();
    let (_agent, station) = field.pair("ship1").await;
    let (ran, script) = traced(&field, "ran");
    let gate = field.path("gate");
    let script = format!(
        "until [ -e {} ]; do sleep 0.05; done; {script}",
        gate.display()
    );
    let sent = station
        .send(Request::new("ship1", &["sh", "-c", &script]))
        .await;
    station.ack(&sent, &[State::Running]).await;
    field.cut();
    fs::write(&gate, "").expect("the gate opens");
    eventually("the command to have run", || {
        (lines(&ran) == 1).then_some(())
    })
    .await;
    field.heal();
    let ack = station.over(&sent).await;
    assert_eq!(ack.state, State::Succeeded);
    let stdout = ack
        .outcome
        .and_then(|outcome| outcome.stdout)
        .expect("its output");
    assert_eq!(stdout.head, b"done\n");
    assert_eq!(lines(&ran), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unconfirmed_answer_is_said_again_and_a_confirmed_one_is_forgotten_below_low() {
    let field = Field::new();
    let (mut agent, station) = field.pair("ship1").await;
    station.world().confirms = false;
    let sent = station.send(Request::new("ship1", &["echo", "kept"])).await;
    station.over(&sent).await;
    let old = station.world().hellos[0].1.instance;
    agent.kill();
    station.world().acks.clear();
    let _agent = field.agent("ship1").start();
    station.met_again("ship1", old).await;
    let ack = station.over(&sent).await;
    assert_eq!(
        ack.outcome
            .and_then(|outcome| outcome.stdout)
            .expect("kept")
            .head,
        b"kept\n"
    );
    {
        let mut world = station.world();
        world.confirms = true;
        world.low = 1000;
    }
    let mut late = sent.clone();
    late.envelope.send.low = 1000;
    station
        .hello("nothing unconfirmed", |origin, hello| {
            (origin.instance != old && hello.unconfirmed.is_empty()).then_some(())
        })
        .await;
    // Forgotten, and so old that it is not taken for new.
    let heard = station.states(&sent).len();
    station.resend(&late).await;
    station
        .hello("the late duplicate counted as settled", |_, hello| {
            hello.counters.get("settled").copied()
        })
        .await;
    assert_eq!(station.states(&sent).len(), heard);
}

#[tokio::test(flavor = "multi_thread")]
async fn unordered_orders_run_side_by_side_and_ordered_ones_in_turn() {
    let field = Field::new();
    let (_agent, station) = field.pair("ship1").await;
    let dir = field.path("meet");
    fs::create_dir(&dir).expect("a directory");
    // Each waits until the other is there; in turn they would never end.
    let meet = |me: &str, other: &str| {
        let dir = dir.display();
        format!("touch {dir}/{me}; until [ -e {dir}/{other} ]; do sleep 0.05; done")
    };
    let mut sent = Vec::new();
    for (me, other) in [("a", "b"), ("b", "a")] {
        let request = Request::new("ship1", &["sh", "-c", &meet(me, other)]);
        let limited = request.unordered().timeout(Duration::from_secs(20));
        sent.push(station.send(limited).await);
    }
    for sent in &sent {
        assert_eq!(station.over(sent).await.state, State::Succeeded);
    }
    let log = field.path("log");
    let mut sent = Vec::new();
    for index in 0..5 {
        let script = format!(
            "echo start {index} >> {0}; sleep 0.05; echo end {index} >> {0}; exit {index}",
            log.display()
        );
        sent.push(
            station
                .send(Request::new("ship1", &["sh", "-c", &script]))
                .await,
        );
    }
    for sent in &sent {
        station.over(sent).await;
    }
    let expected: String = (0..5)
        .map(|index| format!("start {index}\nend {index}\n"))
        .collect();
    assert_eq!(fs::read_to_string(&log).expect("the log"), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_defers_and_takes_again_later() {
    let field = Field::new();
    let station = field.station().await;
    let config = field.path("agent.toml");
    let _agent = field.agent("ship1").config(&config, "queue = 2\n").start();
    station.met("ship1").await;
    let gate = field.path("gate");
    let wait = format!("until [ -e {} ]; do sleep 0.05; done", gate.display());
    let blocker = station
        .send(Request::new("ship1", &["sh", "-c", &wait]))
        .await;
    station.ack(&blocker, &[State::Running]).await;
    let mut sent = Vec::new();
    for _ in 0..3 {
        sent.push(station.send(Request::new("ship1", &["true"])).await);
    }
    let ack = station.ack(&sent[2], &[State::Deferred]).await;
    assert_eq!(ack.deferral, Some(Deferral::Busy));
    // A refusal needs no place in the queue.
    let refused = Request::body("ship1.command.nothing.x", json!({}));
    assert_eq!(
        station.over(&station.send(refused).await).await.state,
        State::Rejected
    );
    fs::write(&gate, "").expect("the gate opens");
    station.over(&sent[1]).await;
    station.resend(&sent[2]).await;
    assert_eq!(station.over(&sent[2]).await.state, State::Succeeded);
}
