//! Real processes under the real supervisor, with a method whose task panics.

use std::sync::atomic::{AtomicBool, Ordering};

use steward_protocol::{FaultEvent, InstanceId, JournalId, ProcessState, Subject};
use tokio::sync::{mpsc, watch};
use uuid::Uuid;

use super::*;
use crate::{
    Parts, bear,
    bus::{Address, Bus},
    child::Nursery,
    clock::Clock,
    config::{Flags, Sources, resolve},
    counters::Counters,
    keeper::Keeper,
    supervisor::{Birth, CALLS, Duty, Ending, Setup, operate::Action, supervise, view::Listed},
};

const VICTIM: &str = "ship1.command.shellcommand.victim";
const OTHER: &str = "ship1.command.shellcommand.other";

/// A supervisor of real processes, without a broker.
struct Bench {
    context: Arc<Context>,
    stop: watch::Sender<Stop>,
    reports: mpsc::Receiver<FaultEvent>,
    listed: watch::Receiver<Vec<Listed>>,
    supervision: tokio::task::JoinHandle<Ending>,
    _dir: tempfile::TempDir,
}

async fn parts(dir: &std::path::Path, stop: watch::Receiver<Stop>) -> (crate::Config, Parts) {
    let flags = Flags {
        node: Some("ship1".to_owned()),
        // Nobody listens there.
        nats: Some("nats://127.0.0.1:1".to_owned()),
        state_dir: Some(dir.display().to_string()),
        ..Flags::default()
    };
    let text = format!("subjects = [{:?}, {:?}]\n", &VICTIM[6..], &OTHER[6..]);
    let file = Some(("test".into(), text));
    let sources = Sources {
        flags,
        file,
        ..Sources::default()
    };
    let config = resolve(&sources).expect("a configuration");
    let clock = Clock::open().expect("the clocks are there");
    let counters = Arc::new(Counters::default());
    let instance = InstanceId(Uuid::from_u128(1));
    let opening = crate::opening(&config, instance, &clock, &counters);
    let (keeper, identity, _) = Keeper::open(dir, opening).expect("a journal");
    let address = Address {
        urls: config.nats.clone(),
        creds: None,
        node: config.node.clone(),
    };
    let (bus, _) = Bus::open(&address, Arc::clone(&counters))
        .await
        .expect("it waits for its broker");
    let journal_id: JournalId = identity.journal_id;
    let parts = Parts {
        keeper,
        bus,
        clock,
        counters,
        instance,
        journal_id,
        stop,
        reload: watch::channel(0).1,
        nursery: Nursery::open(dir).expect("a nursery"),
    };
    (config, parts)
}

/// Starts a supervisor. The task of a method in the first life of [`VICTIM`] panics.
async fn bench() -> Bench {
    let dir = tempfile::tempdir().expect("a directory");
    let (stop, stopping) = watch::channel(Stop::No);
    let (config, parts) = parts(dir.path(), stopping.clone()).await;
    let (calls, inbox) = mpsc::channel(CALLS);
    let (reports, reported) = mpsc::channel(64);
    let listed = watch::Sender::new(Vec::new());
    let context = Arc::new(crate::context(&config, &parts, &listed, calls));
    let (births, fresh) = (Arc::clone(&context), AtomicBool::new(true));
    let birth: Birth = Box::new(move |duty, born| {
        let victim = duty == Duty::Orders && born.subject.to_string() == VICTIM;
        if victim && fresh.swap(false, Ordering::SeqCst) {
            let mut process = Process::new(Arc::clone(&births), born);
            process.running.spawn(async { panic!("in a method") });
            return Box::pin(process.serve());
        }
        bear(Arc::clone(&births), duty, born)
    });
    let setup = Setup {
        config,
        clock: parts.clock,
        counters: parts.counters,
        birth,
        reports,
        calls: inbox,
        stop: stopping,
        runtime: tokio::runtime::Handle::current(),
        listed: listed.clone(),
        open: Vec::new(),
    };
    Bench {
        context,
        stop,
        reports: reported,
        listed: listed.subscribe(),
        supervision: tokio::spawn(supervise(setup)),
        _dir: dir,
    }
}

fn subject(text: &str) -> Subject {
    text.parse().expect("a subject")
}

#[tokio::test]
async fn a_panic_in_a_methods_task_is_a_fault_of_its_process_and_of_no_other() {
    let mut bench = bench().await;
    let event = bench.reports.recv().await.expect("a report");
    assert_eq!(event.kind, "panic");
    assert_eq!(event.detail, "in a method");
    assert_eq!(event.subject, Some(subject(VICTIM)));
    let restarted = |list: &Vec<Listed>| {
        let mut views = list.iter().map(Listed::view);
        views.any(|view| {
            view.subject == subject(VICTIM)
                && view.restarts == 1
                && view.state == ProcessState::Idle
        })
    };
    let list = bench.listed.wait_for(restarted).await;
    let others: u32 = list
        .expect("the supervisor is there")
        .iter()
        .filter(|listed| listed.subject != subject(VICTIM))
        .map(|listed| listed.restarts)
        .sum();
    assert_eq!(others, 0, "the others did not notice");
    bench.stop.send_replace(Stop::Drain);
    assert_eq!(bench.supervision.await.expect("no panic"), Ending::Drained);
}

#[tokio::test]
async fn an_idle_process_stops_when_told_and_starts_again() {
    let bench = bench().await;
    let other = || Some(subject(OTHER));
    let all = bench.context.processes(Action::List, None).await;
    assert_eq!(all.expect("a list").len(), 7);
    for (action, state) in [
        (Action::Stop, ProcessState::Stopped),
        (Action::List, ProcessState::Stopped),
    ] {
        let views = bench.context.processes(action, other()).await;
        assert_eq!(views.expect("done")[0].state, state);
    }
    // Its task takes a moment to leave.
    let started = loop {
        match bench.context.processes(Action::Start, other()).await {
            Ok(views) => break views,
            Err(error) => assert!(error.to_string().contains("still brings"), "{error}"),
        }
    };
    assert_eq!(started[0].state, ProcessState::Idle);
}
