//! The supervisor with processes that panic, fail and end as the test wishes.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use super::{view::Lifecycle, *};
use crate::config::{Flags, Sources, resolve};

mod inputs;
mod model;
mod operating;
mod orphan;

/// Longer than anything takes here that happens at all.
const DEADLINE: Duration = Duration::from_secs(30);

const GOOD: &str = "ship1.command.shellcommand.good";
const BAD: &str = "ship1.command.shellcommand.bad";

/// What a process does with each frame.
#[derive(Clone, Copy)]
enum Temper {
    Panics,
    Fails,
}

struct Bench {
    calls: mpsc::Sender<Call>,
    stop: watch::Sender<Stop>,
    reports: mpsc::Receiver<FaultEvent>,
    listed: watch::Receiver<Vec<Listed>>,
    served: Arc<AtomicU32>,
    desk: Arc<AtomicU32>,
    supervision: tokio::task::JoinHandle<Ending>,
}

fn config(file: &str) -> Config {
    let flags = Flags {
        node: Some("ship1".to_owned()),
        nats: Some("127.0.0.1".to_owned()),
        state_dir: Some("/nowhere".to_owned()),
        ..Flags::default()
    };
    let file = Some(("test".into(), file.to_owned()));
    resolve(&Sources {
        flags,
        file,
        ..Sources::default()
    })
    .expect("a configuration")
}

/// Starts a supervisor whose process for [`BAD`] has this temper, and the desk, if `desk_panics`, too.
fn bench(temper: Temper, desk_panics: bool) -> Bench {
    let (calls, inbox) = mpsc::channel(CALLS);
    let (reports, reported) = mpsc::channel(64);
    let (stop, stopping) = watch::channel(Stop::No);
    let listed = watch::Sender::new(Vec::new());
    let (served, desk) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let counts = (Arc::clone(&served), Arc::clone(&desk));
    let stops = stopping.clone();
    let birth: Birth = Box::new(move |duty, mut born: Born| {
        let (served, desk) = counts.clone();
        let mut stop = stops.clone();
        Box::pin(async move {
            loop {
                let mail = tokio::select! {
                    mail = born.mailbox.recv() => mail,
                    _ = stop.wait_for(|stop| *stop != Stop::No) => None,
                };
                let Some(_mail) = mail else {
                    return Ok(Quit::Stopping);
                };
                match (duty, born.subject.to_string() == BAD, temper) {
                    (Duty::Desk, ..) if desk_panics => panic!("the desk broke"),
                    (Duty::Desk, ..) => drop(desk.fetch_add(1, Ordering::SeqCst)),
                    (_, true, Temper::Panics) => panic!("as told"),
                    (_, true, Temper::Fails) => return Err(ProcessError::Cut("a reason")),
                    (_, false, _) => drop(served.fetch_add(1, Ordering::SeqCst)),
                }
            }
        })
    });
    let setup = Setup {
        config: config(
            "[restart]\nintensity = 2\nwindow = \"1h\"\nbase = \"10ms\"\ncap = \"10ms\"\n",
        ),
        clock: Clock::open().expect("the clocks are there"),
        counters: Arc::new(Counters::default()),
        birth,
        reports,
        calls: inbox,
        stop: stopping,
        runtime: Handle::current(),
        listed: listed.clone(),
        open: Vec::new(),
    };
    Bench {
        calls,
        stop,
        reports: reported,
        listed: listed.subscribe(),
        served,
        desk,
        supervision: tokio::spawn(supervise(setup)),
    }
}

impl Bench {
    async fn frame(&self, subject: &str) {
        let arrived = Arrived {
            subject: subject.to_owned(),
            payload: Vec::new(),
        };
        self.calls
            .send(Call::Frame(arrived))
            .await
            .expect("the supervisor is there");
    }

    async fn verdict(&mut self) -> (String, String) {
        let event = self.reports.recv().await.expect("a report");
        (event.kind, event.verdict)
    }

    async fn until(&mut self, subject: &str, lifecycle: Lifecycle) -> Listed {
        let subject: Subject = subject.parse().expect("a subject");
        let fits = |listed: &Listed| listed.subject == subject && listed.lifecycle == lifecycle;
        let list = self.listed.wait_for(|list| list.iter().any(fits)).await;
        let list = list.expect("the supervisor is there");
        list.iter()
            .find(|listed| fits(listed))
            .cloned()
            .expect("it was there")
    }

    async fn served(&self, awaited: u32) {
        while self.served.load(Ordering::SeqCst) < awaited {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn a_crashing_process_is_restarted_then_given_up_and_the_others_go_on() {
    for (temper, kind) in [(Temper::Panics, "panic"), (Temper::Fails, "failed")] {
        let mut bench = bench(temper, false);
        bench.frame(GOOD).await;
        for _ in 0..2 {
            bench.frame(BAD).await;
            let restart = (kind.to_owned(), "restart after 10 ms".to_owned());
            assert_eq!(bench.verdict().await, restart);
            bench.until(BAD, Lifecycle::Restarting).await;
            bench.until(BAD, Lifecycle::Alive).await;
        }
        bench.frame(BAD).await;
        let given_up = "stop this process, the others go on".to_owned();
        assert_eq!(bench.verdict().await, (kind.to_owned(), given_up));
        let listed = bench.until(BAD, Lifecycle::Stopped).await;
        assert_eq!(listed.restarts, 2);
        assert!(listed.last_fault.is_some());
        bench.frame(GOOD).await;
        bench.served(2).await;
        // Whoever asks the stopped one is answered by the desk.
        bench.frame(BAD).await;
        while bench.desk.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn giving_up_on_the_desk_ends_the_agent() {
    let mut bench = bench(Temper::Panics, true);
    for _ in 0..3 {
        bench
            .until("ship1.event.welcome.node", Lifecycle::Alive)
            .await;
        bench.frame("ship1.event.welcome.node").await;
        bench.verdict().await;
    }
    let ending = bench
        .supervision
        .await
        .expect("the supervisor itself does not panic");
    assert!(matches!(ending, Ending::Escalated(reason) if reason.contains("the desk broke")));
}

#[tokio::test]
async fn a_lost_subscription_ends_the_agent() {
    let bench = bench(Temper::Panics, false);
    bench
        .calls
        .send(Call::SubscriptionLost)
        .await
        .expect("it is there");
    let ending = bench.supervision.await.expect("no panic");
    assert!(matches!(ending, Ending::Escalated(_)));
}

#[tokio::test]
async fn what_a_process_survived_is_reported_and_changes_nothing() {
    let mut bench = bench(Temper::Panics, false);
    bench.frame(GOOD).await;
    bench.until(GOOD, Lifecycle::Alive).await;
    let fault = Fault::Storage("full".to_owned());
    let subject = GOOD.parse().expect("a subject");
    let (answer, verdict) = oneshot::channel();
    let call = Call::Fault {
        subject,
        fault,
        answer,
    };
    bench.calls.send(call).await.expect("it is there");
    assert_eq!(verdict.await, Ok(Verdict::Continue));
    assert_eq!(
        bench.verdict().await,
        ("storage".to_owned(), "continue".to_owned())
    );
    bench.until(GOOD, Lifecycle::Alive).await;
}

#[tokio::test]
async fn there_are_at_most_so_many_processes_and_unknown_methods_get_none() {
    let bench = bench(Temper::Panics, false);
    bench.frame("ship1.command.teleport.x").await;
    for number in 0..=MAX_PROCESSES {
        bench
            .frame(&format!("ship1.command.shellcommand.d{number}"))
            .await;
    }
    while bench.desk.load(Ordering::SeqCst) < 2 {
        tokio::task::yield_now().await;
    }
    bench.served(MAX_PROCESSES as u32).await;
    let orders = bench
        .listed
        .borrow()
        .iter()
        .filter(|listed| listed.subject.kind == Kind::Command)
        .count();
    assert_eq!(orders, MAX_PROCESSES);
}

#[tokio::test]
async fn the_agent_ends_when_its_processes_have() {
    let bench = bench(Temper::Panics, false);
    bench.frame(GOOD).await;
    bench.served(1).await;
    bench.stop.send_replace(Stop::Drain);
    assert_eq!(bench.supervision.await.expect("no panic"), Ending::Drained);
}

#[tokio::test(start_paused = true)]
async fn without_a_verdict_in_time_a_process_goes_on_and_that_is_counted() {
    let (calls, mut silent) = mpsc::channel(1);
    let counters = Counters::default();
    let ask = || {
        let fault = Fault::Storage("full".to_owned());
        context::verdict(&calls, &counters, GOOD.parse().expect("a subject"), fault)
    };
    // The first is never answered, the second not even taken.
    for late in 1..=2 {
        assert_eq!(ask().await, Verdict::Continue);
        assert_eq!(counters.get(crate::counters::Counter::VerdictsLate), late);
    }
    silent.recv().await.expect("it was asked");
    let answering = tokio::spawn(async move {
        while let Some(Call::Fault { answer, .. }) = silent.recv().await {
            answer.send(Verdict::Stop).ok();
        }
    });
    assert_eq!(ask().await, Verdict::Stop);
    assert_eq!(counters.get(crate::counters::Counter::VerdictsLate), 2);
    drop(calls);
    answering.await.expect("no panic");
}

/// A process that blocks its thread at the word, until it is let go; every life is counted.
fn blocking(held: Arc<AtomicU32>, lives: Arc<AtomicU32>, served: Arc<AtomicU32>) -> Birth {
    Box::new(move |_, mut born: Born| {
        let (held, lives, served) = (Arc::clone(&held), Arc::clone(&lives), Arc::clone(&served));
        Box::pin(async move {
            let first =
                born.subject.to_string() == BAD && lives.fetch_add(1, Ordering::SeqCst) == 0;
            loop {
                let mail = tokio::select! {
                    mail = born.mailbox.recv() => mail,
                    () = pulse::rest() => continue,
                };
                if mail.is_none() {
                    return Ok(Quit::Stopping);
                }
                while first && held.load(Ordering::SeqCst) == 1 {
                    std::thread::sleep(Duration::from_millis(5));
                }
                served.fetch_add(1, Ordering::SeqCst);
            }
        })
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_process_that_blocks_its_thread_is_left_behind_and_another_takes_its_place() {
    let (calls, inbox) = mpsc::channel(CALLS);
    let (reports, mut reported) = mpsc::channel(64);
    let (_stop, stopping) = watch::channel(Stop::No);
    let count = |number| Arc::new(AtomicU32::new(number));
    let (held, lives, served) = (count(1), count(0), count(0));
    let setup = Setup {
        config: config("wedged_after = \"1s\"\n"),
        clock: Clock::open().expect("the clocks are there"),
        counters: Arc::new(Counters::default()),
        birth: blocking(Arc::clone(&held), lives, Arc::clone(&served)),
        reports,
        calls: inbox,
        stop: stopping,
        runtime: Handle::current(),
        listed: watch::Sender::new(Vec::new()),
        open: Vec::new(),
    };
    let counters = Arc::clone(&setup.counters);
    let _supervision = supervise_apart(setup).expect("a thread");
    let send = async |subject: &str| {
        let (subject, payload) = (subject.to_owned(), Vec::new());
        let frame = Call::Frame(Arrived { subject, payload });
        calls.send(frame).await.expect("the supervisor is there");
    };
    send(BAD).await;
    let event = tokio::time::timeout(DEADLINE, reported.recv()).await;
    let event = event.expect("a report of the wedge in time");
    let event = event.expect("the supervisor is there");
    assert_eq!(event.kind, "wedged");
    assert!(event.detail.contains("blocks its thread"), "{event:?}");
    assert!(event.verdict.starts_with("restart after"), "{event:?}");
    assert_eq!(counters.get(crate::counters::Counter::LeftBehind), 1);
    send(GOOD).await;
    let begun = Instant::now();
    while served.load(Ordering::SeqCst) < 2 {
        assert!(begun.elapsed() < DEADLINE, "the next one takes no frames");
        send(BAD).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    held.store(0, Ordering::SeqCst);
}
