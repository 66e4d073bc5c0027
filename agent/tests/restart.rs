//! What a start of the agent makes of what an earlier one left behind (rule J3).

use std::fs;

use steward_protocol::State;

use crate::support::{Field, Request, eventually, kill_with_warden, lines};

#[tokio::test(flavor = "multi_thread")]
async fn a_command_whose_end_nobody_saw_is_interrupted_and_never_run_again() {
    let field = Field::new();
    let (mut agent, station) = field.pair("ship1").await;
    let ran = field.path("ran");
    let script = format!("echo ran >> {}; exec sleep 1000", ran.display());
    let sent = station
        .send(Request::new("ship1", &["sh", "-c", &script]))
        .await;
    let next = station.send(Request::new("ship1", &["true"])).await;
    eventually("the command to run", || (lines(&ran) == 1).then_some(())).await;
    station.ack(&next, &[State::Received]).await;
    let old = station.world().hellos[0].1.instance;
    agent.kill();
    kill_with_warden(sent.id).await;
    let _agent = field.agent("ship1").start();
    station.met_again("ship1", old).await;
    let ack = station.over(&sent).await;
    assert_eq!(ack.state, State::Interrupted);
    assert!(ack.reason.expect("a reason").contains("not known"));
    // What was only received goes on.
    assert_eq!(station.over(&next).await.state, State::Succeeded);
    station.resend(&sent).await;
    station.settled("ship1").await;
    assert_eq!(lines(&ran), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_outlived_its_agent_is_running_until_it_ends() {
    let field = Field::new();
    let (mut agent, station) = field.pair("ship1").await;
    let gate = field.path("gate");
    let ran = field.path("ran");
    let script = format!(
        "until [ -e {} ]; do sleep 0.05; done; echo ran >> {}",
        gate.display(),
        ran.display()
    );
    let sent = station
        .send(Request::new("ship1", &["sh", "-c", &script]))
        .await;
    let next = station.send(Request::new("ship1", &["true"])).await;
    station.ack(&sent, &[State::Running]).await;
    station.ack(&next, &[State::Received]).await;
    let old = station.world().hellos[0].1.instance;
    agent.kill();
    station.world().acks.clear();
    let _agent = field.agent("ship1").start();
    station.met_again("ship1", old).await;
    station.resend(&sent).await;
    station.ack(&sent, &[State::Running]).await;
    station.settled("ship1").await;
    // Its lane waits for it.
    assert_eq!(station.states(&next), []);
    fs::write(&gate, "").expect("the gate opens");
    let ack = station.over(&sent).await;
    assert_eq!(ack.state, State::Succeeded);
    let outcome = ack.outcome.expect("its warden wrote it down");
    assert_eq!(outcome.exit_code, Some(0));
    assert_eq!(station.over(&next).await.state, State::Succeeded);
    assert_eq!(lines(&ran), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idempotent_order_is_run_again() {
    let field = Field::new();
    let (mut agent, station) = field.pair("ship1").await;
    let ran = field.path("ran");
    let script = format!(
        "echo ran >> {}; [ $STEWARD_ATTEMPT = 2 ] || exec sleep 1000",
        ran.display()
    );
    let request = Request::new("ship1", &["sh", "-c", &script]).idempotent();
    let sent = station.send(request).await;
    eventually("the command to run", || (lines(&ran) == 1).then_some(())).await;
    agent.kill();
    kill_with_warden(sent.id).await;
    let _agent = field.agent("ship1").start();
    assert_eq!(station.over(&sent).await.state, State::Succeeded);
    assert_eq!(lines(&ran), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_counter_rises_with_every_start_and_the_journal_stays_the_same() {
    let field = Field::new();
    let (mut agent, station) = field.pair("ship1").await;
    let (journal, first) = station
        .hello("a hello", |origin, hello| {
            Some((origin.journal_id, hello.counter))
        })
        .await;
    agent.kill();
    let _agent = field.agent("ship1").start();
    let again = station
        .hello("a hello of the second start", |origin, hello| {
            (hello.counter == first + 1).then_some(origin.journal_id)
        })
        .await;
    assert_eq!(again, journal);
}
