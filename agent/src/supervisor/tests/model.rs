//! The real supervisor against a simple model, on a clock that only moves when everybody waits.
//!
//! Whatever goes wrong in whichever process: the healthy ones answer every message, a stopped one's
//! messages are deferred, restarts stay within the intensity, and what is vital ends the agent.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use proptest::prelude::*;
use tokio::time::sleep;

use super::*;
use crate::supervisor::{context::verdict, operate::Action};

const SUBJECTS: [&str; 3] = [
    "ship1.command.shellcommand.a",
    "ship1.command.shellcommand.b",
    "ship1.command.hello.c",
];
const DESK: &str = "ship1.event.welcome.node";
const CONFIG: &str = r#"
wedged_after = "30s"
[restart]
intensity = 2
window = "60s"
base = "100ms"
cap = "400ms"
[restart.storage]
intensity = 1
window = "60s"
give_up = "stop"
[restart.hello]
intensity = 1
[restart.hello.storage]
give_up = "restart"
"#;
const WINDOW: Duration = Duration::from_secs(60);

/// Longer than the longest wait before a restart.
const SETTLED: Duration = Duration::from_millis(500);

/// Longer than it takes to find a process that stands still, and to restart it.
const FOUND: Duration = Duration::from_secs(40);

#[derive(Debug, Clone, Copy)]
enum Step {
    /// A frame that does this to whoever takes it.
    Order(usize, &'static str),
    /// The same, to the desk.
    Desk(&'static str),
    Operate(usize, Action),
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let which = 0..SUBJECTS.len();
    let word = prop::sample::select(vec!["panic", "fail", "wedge", "storage", "work"]);
    let action = prop::sample::select(vec![Action::Stop, Action::Start, Action::List]);
    prop_oneof![
        8 => (which.clone(), word).prop_map(|(which, word)| Step::Order(which, word)),
        1 => prop::sample::select(vec!["panic", "wedge"]).prop_map(Step::Desk),
        3 => (which, action).prop_map(|(which, action)| Step::Operate(which, action)),
        2 => (1_u64..50).prop_map(Step::Pass),
    ]
}

/// What the processes answered: the number of a frame, and whether it was deferred.
type Answers = Arc<Mutex<BTreeMap<u64, &'static str>>>;

/// A process that does as its frames say.
async fn live(
    duty: Duty,
    mut born: Born,
    answers: Answers,
    calls: mpsc::Sender<Call>,
) -> Result<Quit, ProcessError> {
    loop {
        let mail = tokio::select! {
            mail = born.mailbox.recv() => mail,
            () = pulse::rest() => continue,
        };
        let (payload, stance) = match mail {
            None => return Ok(Quit::Stopping),
            Some(context::Mail::Order {
                payload, stance, ..
            }) => (payload, Some(stance)),
            Some(context::Mail::Welcome(payload)) => (payload, None),
            Some(_) => continue,
        };
        let text = String::from_utf8(payload).expect("the frames here are text");
        let (word, number) = text.split_once(' ').expect("a word and a number");
        let answer = match (duty, stance) {
            (Duty::Desk, Some(crate::journal::Stance::Hold(deferral))) => deferral.as_str(),
            (Duty::Desk, Some(_)) => "refused",
            _ => match word {
                "panic" => panic!("as told"),
                "fail" => return Err(ProcessError::Cut("a reason")),
                "wedge" => std::future::pending().await,
                "storage" => {
                    let fault = Fault::Storage("full".to_owned());
                    let counters = Counters::default();
                    verdict(&calls, &counters, born.subject.clone(), fault).await;
                    "raised"
                }
                _ => "done",
            },
        };
        let number = number.parse().expect("a number");
        let mut answers = answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.insert(number, answer);
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Modelled {
    Absent,
    Alive,
    Stopped,
}

/// What is expected of one process.
#[derive(Debug)]
struct Model {
    state: Modelled,
    intensity: usize,
    storage_restarts: bool,
    restarts: Vec<Instant>,
    storage: Vec<Instant>,
}

impl Model {
    fn recent(times: &[Instant], now: Instant) -> usize {
        let recent = times.iter().filter(|at| now - **at < WINDOW);
        recent.count()
    }

    /// Returns how the verdict on a crash begins.
    fn crash(&mut self, now: Instant, last: &'static str) -> &'static str {
        if Self::recent(&self.restarts, now) < self.intensity {
            self.restarts.push(now);
            return "restart after";
        }
        self.state = Modelled::Stopped;
        last
    }

    fn storage(&mut self, now: Instant) -> &'static str {
        if Self::recent(&self.storage, now) < 1 {
            self.storage.push(now);
            return "continue";
        }
        self.storage = vec![now];
        if self.storage_restarts {
            return self.crash(now, "stop");
        }
        self.state = Modelled::Stopped;
        "stop"
    }
}

struct World {
    calls: mpsc::Sender<Call>,
    answers: Answers,
    reports: mpsc::UnboundedReceiver<(Instant, FaultEvent)>,
    supervision: tokio::task::JoinHandle<Ending>,
    models: Vec<Model>,
    desk: Model,
    last: u64,
    _stop: watch::Sender<Stop>,
}

fn world() -> World {
    let (calls, inbox) = mpsc::channel(CALLS);
    let (reports, mut reported) = mpsc::channel(64);
    let (stop, stopping) = watch::channel(Stop::No);
    let (stamped, stamps) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(event) = reported.recv().await {
            stamped.send((Instant::now(), event)).ok();
        }
    });
    let answers = Answers::default();
    let (given, raising) = (Arc::clone(&answers), calls.clone());
    let birth: Birth =
        Box::new(move |duty, born| Box::pin(live(duty, born, Arc::clone(&given), raising.clone())));
    let setup = Setup {
        config: config(CONFIG),
        clock: Clock::open().expect("the clocks are there"),
        counters: Arc::new(Counters::default()),
        birth,
        reports,
        calls: inbox,
        stop: stopping,
        runtime: Handle::current(),
        listed: watch::Sender::new(Vec::new()),
        open: Vec::new(),
    };
    let model = |intensity, storage_restarts, state| Model {
        state,
        intensity,
        storage_restarts,
        restarts: Vec::new(),
        storage: Vec::new(),
    };
    World {
        calls,
        answers,
        reports: stamps,
        supervision: tokio::spawn(supervise(setup)),
        models: vec![
            model(2, false, Modelled::Absent),
            model(2, false, Modelled::Absent),
            model(1, true, Modelled::Absent),
        ],
        desk: model(2, false, Modelled::Alive),
        last: 0,
        _stop: stop,
    }
}

impl World {
    async fn frame(&mut self, subject: &str, word: &str) -> u64 {
        self.last += 1;
        let frame = Call::Frame(Arrived {
            subject: subject.to_owned(),
            payload: format!("{word} {}", self.last).into_bytes(),
        });
        self.calls
            .send(frame)
            .await
            .expect("the supervisor is there");
        self.last
    }

    fn answer(&self, number: u64) -> Option<&'static str> {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.get(&number).copied()
    }

    /// Takes one step and returns whether the agent goes on.
    async fn take(&mut self, step: Step) -> bool {
        match step {
            Step::Order(which, word) => self.order(which, word).await,
            Step::Desk(word) => return self.desk(word).await,
            Step::Operate(which, action) => self.operate(which, action).await,
            Step::Pass(seconds) => sleep(Duration::from_secs(seconds)).await,
        }
        self.nothing_more();
        true
    }

    async fn order(&mut self, which: usize, word: &'static str) {
        let number = self.frame(SUBJECTS[which], word).await;
        sleep(if word == "wedge" { FOUND } else { SETTLED }).await;
        if self.models[which].state == Modelled::Stopped {
            assert_eq!(self.answer(number), Some("process stopped"), "{word}");
            return;
        }
        self.models[which].state = Modelled::Alive;
        let (kind, answer) = match word {
            "panic" => ("panic", None),
            "fail" => ("failed", None),
            "wedge" => ("wedged", None),
            "storage" => ("storage", Some("raised")),
            _ => return assert_eq!(self.answer(number), Some("done")),
        };
        assert_eq!(self.answer(number), answer, "{word}");
        let (at, event) = self.reports.try_recv().expect("the fault is reported");
        let model = &mut self.models[which];
        let expected = match word {
            "storage" => model.storage(at),
            _ => model.crash(at, "stop"),
        };
        assert_eq!(event.kind, kind);
        assert!(event.verdict.starts_with(expected), "{event:?}: {expected}");
    }

    async fn desk(&mut self, word: &'static str) -> bool {
        self.frame(DESK, word).await;
        sleep(if word == "wedge" { FOUND } else { SETTLED }).await;
        let (at, event) = self.reports.try_recv().expect("the fault is reported");
        let expected = self.desk.crash(at, "end the agent");
        assert!(event.verdict.starts_with(expected), "{event:?}: {expected}");
        let ended = self.desk.state == Modelled::Stopped;
        assert_eq!(self.supervision.is_finished(), ended);
        !ended
    }

    async fn operate(&mut self, which: usize, action: Action) {
        let subject: Subject = SUBJECTS[which].parse().expect("a subject");
        let (answer, answered) = oneshot::channel();
        let call = Call::Operate {
            action,
            subject: Some(subject.clone()),
            answer,
        };
        self.calls
            .send(call)
            .await
            .expect("the supervisor is there");
        let found = answered.await.expect("an answer").map(|views| views.len());
        sleep(SETTLED).await;
        let model = &mut self.models[which];
        let expected = match (action, model.state) {
            (Action::List, Modelled::Absent) | (Action::Stop, Modelled::Absent) => {
                Err(OperateError::Unknown(subject))
            }
            (Action::Start, Modelled::Alive) => Err(OperateError::Running(subject)),
            (Action::Stop, Modelled::Stopped) => Err(OperateError::Stopped(subject)),
            (Action::List, _) => Ok(1),
            (Action::Stop, Modelled::Alive) => {
                model.state = Modelled::Stopped;
                Ok(1)
            }
            (Action::Start, Modelled::Absent) => {
                model.state = Modelled::Alive;
                Ok(1)
            }
            (Action::Start, Modelled::Stopped) => {
                model.state = Modelled::Alive;
                model.restarts.clear();
                model.storage.clear();
                Ok(1)
            }
        };
        assert_eq!(found, expected);
    }

    fn nothing_more(&mut self) {
        let more = self.reports.try_recv();
        assert!(more.is_err(), "nothing else went wrong: {more:?}");
    }

    /// Asks everybody, and expects the answer of each.
    async fn probe(&mut self) {
        let mut asked = Vec::new();
        for subject in SUBJECTS {
            asked.push(self.frame(subject, "work").await);
        }
        sleep(Duration::from_millis(1)).await;
        for (number, model) in asked.into_iter().zip(&mut self.models) {
            let expected = match model.state {
                Modelled::Stopped => "process stopped",
                Modelled::Absent | Modelled::Alive => "done",
            };
            if model.state == Modelled::Absent {
                model.state = Modelled::Alive;
            }
            let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
            assert_eq!(answers.get(&number), Some(&expected), "{model:?}");
        }
    }
}

async fn walk(steps: Vec<Step>) {
    let mut world = world();
    for step in steps {
        if !world.take(step).await {
            let ending = world.supervision.await.expect("no panic");
            assert!(matches!(ending, Ending::Escalated(_)), "{ending:?}");
            return;
        }
        world.probe().await;
        assert!(!world.supervision.is_finished());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]
    #[test]
    fn whatever_fails_the_healthy_answer_and_the_stopped_defer(
        steps in prop::collection::vec(step(), 1..40),
    ) {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime")
            .block_on(walk(steps));
    }
}
