//! What an operator is refused, and what a process that still has work does when it is stopped.

use super::*;
use crate::supervisor::operate::Action;

const DESK: &str = "ship1.event.welcome.node";
const OPERATOR: &str = "ship1.command.processes.node";

fn subject(text: &str) -> Subject {
    text.parse().expect("a subject")
}

impl Bench {
    async fn operate(
        &self,
        action: Action,
        on: Option<&str>,
    ) -> Result<Vec<ProcessView>, OperateError> {
        let (answer, answered) = oneshot::channel();
        let call = Call::Operate {
            action,
            subject: on.map(subject),
            answer,
        };
        self.calls.send(call).await.expect("it is there");
        answered.await.expect("an answer")
    }
}

#[tokio::test]
async fn what_cannot_be_done_is_refused_with_its_reason() {
    let bench = bench(Temper::Panics, false);
    bench.frame(OPERATOR).await;
    for (action, on, expected) in [
        (Action::Stop, None, OperateError::NoSubject(Action::Stop)),
        (Action::Start, None, OperateError::NoSubject(Action::Start)),
        (
            Action::Stop,
            Some(GOOD),
            OperateError::Unknown(subject(GOOD)),
        ),
        (
            Action::List,
            Some(GOOD),
            OperateError::Unknown(subject(GOOD)),
        ),
        (Action::Stop, Some(DESK), OperateError::Vital(subject(DESK))),
        (
            Action::Start,
            Some(DESK),
            OperateError::Running(subject(DESK)),
        ),
        (
            Action::Stop,
            Some(OPERATOR),
            OperateError::Operator(subject(OPERATOR)),
        ),
        (
            Action::Start,
            Some("ship1.command.teleport.x"),
            OperateError::NotOffered(subject("ship1.command.teleport.x")),
        ),
        (
            Action::Start,
            Some("ship2.command.shellcommand.x"),
            OperateError::NotOffered(subject("ship2.command.shellcommand.x")),
        ),
    ] {
        let refused = bench.operate(action, on).await;
        assert_eq!(refused.expect_err("refused"), expected, "{action:?} {on:?}");
    }
    for number in 1..MAX_PROCESSES {
        let on = format!("ship1.command.shellcommand.d{number}");
        let started = bench.operate(Action::Start, Some(&on)).await;
        assert_eq!(started.expect("there is room").len(), 1);
    }
    let full = bench.operate(Action::Start, Some(GOOD)).await;
    assert_eq!(full, Err(OperateError::Full(subject(GOOD))));
    bench.stop.send_replace(Stop::Drain);
}

/// A process that brings something to its end before it leaves: as long as the gate is shut.
fn busy(gate: watch::Receiver<bool>) -> Birth {
    Box::new(move |duty, mut born: Born| {
        let mut gate = gate.clone();
        Box::pin(async move {
            while born.mailbox.recv().await.is_some() {}
            if duty == Duty::Orders {
                pulse::hold(gate.wait_for(|open| *open)).await.ok();
            }
            Ok(Quit::Stopping)
        })
    })
}

#[tokio::test(start_paused = true)]
async fn a_stopped_process_brings_its_work_to_its_end_and_starts_only_after_it() {
    let mut bench = bench(Temper::Panics, false);
    let (open, gate) = watch::channel(false);
    let (calls, inbox) = mpsc::channel(CALLS);
    let (reports, _reported) = mpsc::channel(64);
    let (stop, stopping) = watch::channel(Stop::No);
    let setup = Setup {
        config: config(""),
        clock: Clock::open().expect("the clocks are there"),
        counters: Arc::new(Counters::default()),
        birth: busy(gate),
        reports,
        calls: inbox,
        stop: stopping,
        runtime: Handle::current(),
        listed: watch::Sender::new(Vec::new()),
        open: vec![subject(GOOD)],
    };
    bench.calls = calls;
    bench.stop = stop;
    bench.supervision = tokio::spawn(supervise(setup));
    bench
        .operate(Action::Stop, Some(GOOD))
        .await
        .expect("stopped");
    // However long it takes: nobody ends it.
    tokio::time::sleep(Duration::from_secs(3600)).await;
    let early = bench.operate(Action::Start, Some(GOOD)).await;
    assert_eq!(early, Err(OperateError::Leaving(subject(GOOD))));
    open.send_replace(true);
    tokio::time::sleep(Duration::from_secs(1)).await;
    bench
        .operate(Action::Start, Some(GOOD))
        .await
        .expect("started");
    // An agent that ends starts nothing.
    open.send_replace(false);
    bench.stop.send_replace(Stop::Drain);
    tokio::time::sleep(Duration::from_secs(1)).await;
    bench
        .operate(Action::Stop, Some(GOOD))
        .await
        .expect("stopped");
    let ending = bench.operate(Action::Start, Some(GOOD)).await;
    assert_eq!(ending, Err(OperateError::Ending(subject(GOOD))));
}
