//! The process of what this node gives itself: schedules, and what runs at every start of the agent.
//!
//! ```text
//! clock, startup/ ─▶ local ─ LocalAsk ─▶ keeper     one task per order at work, as for any order
//! ```
//!
//! It needs no station: what this node gives itself runs whether it was ever welcomed or not. It keeps
//! no truth: after a restart it asks the keeper which orders are not over.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use jiff::{Timestamp, tz::TimeZone};
use serde_json::{Value, value::to_raw_value};
use steward_protocol::{
    EventId, FaultEvent, Kind, MessageId, Order, Sealed, State, Subject,
    body::{ScheduleBody, Scheduled},
    limits,
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};
use uuid::Uuid;

use super::{
    context::{Born, Context},
    kernel::Fault,
    process::{Glance, ProcessError, QUESTIONS, Question, Quit},
    pulse,
    run::Carrier,
};
use crate::{
    bus::dice,
    check,
    dispatch::{PAUSE, Turn},
    journal::{
        Finish, Ticket,
        local::{DueRuns, LocalAnswer, LocalAsk, Source},
    },
    keeper::{KeeperError, chain},
    signals::Stop,
    startup::{self, Given},
};

/// How often the clocks are looked at: the wall clock may be set, and the clock of the boot goes on
/// while the machine sleeps.
const LOOK: Duration = Duration::from_secs(1);

/// What a start of the agent has still to run: the file, and the message.
type Rest = VecDeque<(String, Given)>;

/// One order at work.
struct AtWork {
    subject: Subject,
    /// Of a startup file: what is given again should the journal not take its start.
    again: Option<(String, Given)>,
}

struct Runner {
    context: Arc<Context>,
    born: Born,
    stop: watch::Receiver<Stop>,
    running: JoinSet<(Ticket, Turn)>,
    at_work: HashMap<Ticket, AtWork>,
    rest: Rest,
    /// When to look next.
    look_at: Instant,
    /// What pings want to know.
    questions: mpsc::Receiver<Question>,
    ask: mpsc::Sender<Question>,
    handled: u64,
    storage_raised: bool,
}

/// Runs until the agent ends.
///
/// # Errors
///
/// Fails when the keeper cannot be asked.
pub async fn run(context: Arc<Context>, born: Born) -> Result<Quit, ProcessError> {
    let handled = born.gauges.borrow().handled;
    let (ask, questions) = mpsc::channel(QUESTIONS);
    let mut runner = Runner {
        questions,
        ask,
        stop: context.stop.clone(),
        context,
        handled,
        born,
        running: JoinSet::new(),
        at_work: HashMap::new(),
        rest: Rest::new(),
        look_at: Instant::now(),
        storage_raised: false,
    };
    runner.recover().await?;
    runner.serve().await
}

impl Runner {
    /// Goes on with what an earlier start of the agent, or of this process, left.
    async fn recover(&mut self) -> Result<(), ProcessError> {
        let open = loop {
            match self.context.keeper.local(LocalAsk::Open).await {
                Ok(LocalAnswer::Open(open)) => break open,
                Err(error @ KeeperError::Storage { .. }) if !self.context.is_stopping() => {
                    self.storage(&error).await;
                    pulse::hold(sleep(PAUSE)).await;
                }
                Ok(_) => return Err(ProcessError::Cut("the keeper's answer")),
                Err(error) => return Err(ProcessError::Keeper(error)),
            }
        };
        for (subject, _, order) in open {
            let carrier = self.carrier(subject.clone(), order.ticket);
            let ticket = order.ticket;
            let at_work = AtWork {
                subject,
                again: None,
            };
            self.at_work.insert(ticket, at_work);
            self.running.spawn(async move {
                let turn = match order.started.clone() {
                    Some(started) => carrier.recover(order, started).await,
                    None => carrier.carry().await,
                };
                (ticket, turn)
            });
        }
        let first = self.context.keeper.local(LocalAsk::Startup).await;
        if matches!(first, Ok(LocalAnswer::Startup(true))) {
            self.read_startup().await;
        }
        Ok(())
    }

    /// Reads what runs at every start. A bad file is told and left out.
    async fn read_startup(&mut self) {
        let dir = self.context.config.state_dir.join(startup::DIR);
        let names = startup::names(&dir).unwrap_or_else(|error| {
            tracing::warn!(%error, dir = %dir.display(), "the startup directory cannot be read");
            Vec::new()
        });
        for name in names {
            match startup::read(&dir, &name, &self.context.config.node) {
                Ok(messages) => {
                    let messages = messages.into_iter();
                    self.rest
                        .extend(messages.map(|given| (name.clone(), given)));
                }
                Err(error) => self.tell("startup file", &chain(&error)).await,
            }
        }
    }

    /// Makes a fault of what cannot be run.
    async fn tell(&self, kind: &str, detail: &str) {
        tracing::warn!(kind, detail, "something this node gives itself is not run");
        let fault = FaultEvent {
            id: EventId(Uuid::now_v7()),
            at: Timestamp::now(),
            kind: kind.to_owned(),
            subject: Some(self.born.subject.clone()),
            detail: crate::journal::entry::brief(detail.to_owned()),
            verdict: "left out; the others run".to_owned(),
        };
        if let Err(error) = self.context.keeper.report(fault).await {
            self.storage(&error).await;
        }
    }

    async fn storage(&self, error: &KeeperError) {
        if !self.storage_raised {
            let fault = Fault::Storage(chain(error));
            self.context.raise(&self.born.subject, fault).await;
        }
    }

    async fn serve(mut self) -> Result<Quit, ProcessError> {
        loop {
            self.show();
            let ending = self.context.is_stopping();
            if ending && self.running.is_empty() {
                return Ok(Quit::Stopping);
            }
            if !ending && Instant::now() >= self.look_at {
                self.look().await?;
                continue;
            }
            tokio::select! {
                biased;
                Some(joined) = self.running.join_next() => match joined {
                    Ok((ticket, turn)) => self.over(ticket, turn),
                    // A panic in a method is a panic of this process.
                    Err(error) => match error.try_into_panic() {
                        Ok(panic) => std::panic::resume_unwind(panic),
                        Err(_) => return Err(ProcessError::Cut("one of its tasks")),
                    },
                },
                changed = self.stop.changed() => if changed.is_err() {
                    return Err(ProcessError::Cut("the word when to stop"));
                },
                mail = self.born.mailbox.recv() => if mail.is_none() && self.running.is_empty() {
                    return Ok(Quit::Stopping);
                },
                Some(question) = self.questions.recv() => {
                    // Whoever asked may be gone.
                    question.answer.send(self.glance()).ok();
                }
                () = pulse::rest() => {}
                () = sleep_until(self.look_at), if !ending => {}
            }
        }
    }

    fn over(&mut self, ticket: Ticket, turn: Turn) {
        let Some(at_work) = self.at_work.remove(&ticket) else {
            return;
        };
        match turn {
            Turn::Over => self.handled += 1,
            // The agent ends; its next start sees to it.
            Turn::Left | Turn::Wait => {}
            Turn::Again => return self.carry(ticket, at_work, None),
            Turn::NoStorage => {
                // A schedule comes again by itself.
                if let Some(again) = at_work.again {
                    self.rest.push_front(again);
                }
                self.look_at = Instant::now() + PAUSE;
                return;
            }
        }
        if !self.rest.is_empty() {
            self.look_at = Instant::now();
        }
    }

    /// Begins what is due, and decides when to look again.
    async fn look(&mut self) -> Result<(), ProcessError> {
        self.look_at = Instant::now() + LOOK;
        let ask = LocalAsk::Due(TimeZone::system(), dice());
        match self.context.keeper.local(ask).await {
            Ok(LocalAnswer::Due(runs)) => self.begin_due(runs).await,
            Ok(_) => return Err(ProcessError::Cut("the keeper's answer")),
            Err(KeeperError::Gone) => return Err(ProcessError::Keeper(KeeperError::Gone)),
            Err(error) => {
                self.storage(&error).await;
                self.storage_raised = true;
                return Ok(());
            }
        }
        self.storage_raised = false;
        self.begin_startup().await;
        Ok(())
    }

    async fn begin_due(&mut self, runs: DueRuns) {
        if let Some(next_ms) = runs.next_ms {
            let wait = next_ms.saturating_sub(self.context.clock.now().boot_ms);
            let next = Instant::now() + Duration::from_millis(wait);
            self.look_at = self.look_at.min(next);
        }
        for (name, body) in runs.due {
            match given_by(body) {
                Some(given) => {
                    self.give(Source::Schedule(name), given, None).await;
                }
                None => {
                    self.tell("schedule", &format!("schedule {name} runs nothing"))
                        .await
                }
            }
            // What comes after this run is known only now.
            self.look_at = Instant::now() + Duration::from_millis(1);
        }
    }

    /// Begins the next of what runs at every start, one after the other.
    async fn begin_startup(&mut self) {
        if self.at_work.values().any(|order| order.again.is_some()) {
            return;
        }
        if let Some((file, given)) = self.rest.pop_front() {
            let again = Some((file.clone(), given.clone()));
            if !self.give(Source::Startup(file), given, again.clone()).await
                && let Some(again) = again
            {
                // A run of an earlier start is not over, or the journal does not take it.
                self.rest.push_front(again);
            }
        }
    }

    /// Gives an order; tells whether it was taken.
    async fn give(&mut self, source: Source, given: Given, again: Option<(String, Given)>) -> bool {
        let order = match self.order(given) {
            Ok(order) => order,
            Err(problem) => {
                self.tell("local order", &format!("{source}: {problem}"))
                    .await;
                return true;
            }
        };
        let subject = order.order().subject.clone();
        let refusal = check::policy(order.order(), self.context.config.policy()).err();
        let ask = LocalAsk::Take {
            order: Box::new(order),
            source,
            zone: TimeZone::system(),
            dice: dice(),
        };
        let ticket = match self.context.keeper.local(ask).await {
            Ok(LocalAnswer::Taken(Some(ticket))) => ticket,
            Ok(_) => return false,
            Err(error) => {
                self.storage(&error).await;
                return false;
            }
        };
        self.carry(ticket, AtWork { subject, again }, refusal);
        true
    }

    /// Has an order carried out, or its refusal written down.
    fn carry(&mut self, ticket: Ticket, at_work: AtWork, refusal: Option<String>) {
        let carrier = self.carrier(at_work.subject.clone(), ticket);
        self.at_work.insert(ticket, at_work);
        self.running.spawn(async move {
            let turn = match refusal {
                None => carrier.carry().await,
                Some(reason) => {
                    carrier.record(refused(reason)).await;
                    Turn::Over
                }
            };
            (ticket, turn)
        });
    }

    /// Writes down an order of this node to itself.
    fn order(&self, given: Given) -> Result<Sealed, String> {
        let config = &self.context.config;
        let now = Timestamp::now();
        let (node, station) = (config.node.clone(), config.station.clone());
        let body = to_raw_value(&Value::Object(given.body)).map_err(|error| error.to_string())?;
        let subject = Subject {
            node: node.clone(),
            kind: given.kind,
            method: given.method,
            domain: given.domain,
        };
        // Nothing waits for its turn here so long that this mattered.
        let expiry = jiff::SignedDuration::try_from(limits::DEFAULT_EXPIRY).unwrap_or_default();
        let order = Order {
            id: MessageId(Uuid::now_v7()),
            from: station,
            submitted_by: format!("node:{node}"),
            to: node,
            subject,
            issued_at: now,
            expires_at: now.checked_add(expiry).unwrap_or(now),
            retry_of: None,
            timeout_ms: u64::try_from(given.timeout.as_millis()).unwrap_or(u64::MAX),
            ordered: false,
            idempotent: false,
            success_codes: given.success_codes,
            stream: false,
            body,
        };
        Sealed::seal(order).map_err(|error| format!("the order {error}"))
    }

    fn carrier(&self, subject: Subject, ticket: Ticket) -> Carrier {
        Carrier {
            context: Arc::clone(&self.context),
            subject,
            ticket,
            attention: self.context.revocations.attend(ticket),
            process: self.ask.clone(),
        }
    }

    fn glance(&self) -> Glance {
        Glance {
            queued: self.rest.len(),
            running: self.running.len(),
            at: Timestamp::now(),
            since_received: None,
        }
    }

    /// Says what it is doing.
    fn show(&self) {
        let (running, queued) = (self.running.len(), self.rest.len());
        self.born
            .gauges
            .send_modify(|gauges| gauges.show(running, queued, self.handled));
    }
}

fn refused(reason: String) -> Finish {
    Finish {
        state: State::Rejected,
        reason: Some(reason),
        outcome: None,
    }
}

/// What a schedule runs.
fn given_by(body: ScheduleBody) -> Option<Given> {
    let Scheduled {
        method,
        domain,
        timeout,
        body,
    } = body.run?;
    Some(Given {
        kind: Kind::Command,
        method,
        domain,
        body,
        timeout: timeout.map_or(limits::DEFAULT_TIMEOUT, |timeout| timeout.0),
        success_codes: vec![0],
    })
}
