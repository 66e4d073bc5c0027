//! The supervisor: one process per subject, spawned when configured or first needed, restarted or
//! given up as the error kernel says. Knows neither orders nor the journal.
//!
//! ```text
//! bus ─ Call::Frame ─▶ supervisor ─ Mail ─▶ process     (one bounded mailbox each)
//! process ─ Call::Fault ─▶ supervisor ─ judge ─▶ Verdict ─▶ event for the station
//! process ends or panics ─ JoinSet ─▶ supervisor ─ judge ─▶ restart, stop, escalate
//! ```

use std::{
    collections::{BTreeMap, HashMap},
    future::Future,
    pin::Pin,
    time::Duration,
};

use jiff::Timestamp;
use steward_protocol::{Deferral, EventId, FaultEvent, Kind, Method, NodeName, Subject};
use tokio::{
    sync::{mpsc, watch},
    task::{Id, JoinError, JoinSet},
    time::{Instant, sleep_until},
};
use uuid::Uuid;

use self::{
    context::{Born, Mail},
    kernel::{Fault, History, Policy, Verdict, Weight, judge},
    process::{ProcessError, Quit},
    view::{Lifecycle, Listed},
};
use crate::{
    bus::Arrived,
    check::{self, Route},
    clock::Clock,
    config::Config,
    counters::{Counter, Counters},
    journal::{Stance, entry::brief},
    keeper::chain,
    method,
    signals::Stop,
    voice::fixed,
};

mod cancel;
pub mod context;
pub mod courier;
pub mod desk;
pub mod heartbeat;
mod intake;
pub mod kernel;
pub mod process;
pub mod revocations;
mod run;
pub(crate) mod tidy;
pub mod transfers;
pub mod view;

/// Frames waiting for one process. It takes them in batches with one commit each; beyond this the
/// frame is dropped and counted, and the station sends it again.
const MAILBOX: usize = 64;

/// Frames and faults waiting for the supervisor, which only sorts them.
pub const CALLS: usize = 256;

/// Most processes for subjects; one more is `deferred: busy` until an idle one has ended.
pub const MAX_PROCESSES: usize = 64;

/// What running commands may need beyond the configured drain: TERM to KILL, pipes, the last commit.
const DRAIN_SLACK: Duration = Duration::from_secs(10);

/// What is left for killed commands to be written down after the second signal.
const FORCE: Duration = Duration::from_secs(3);

/// Something for the supervisor to deal with.
#[derive(Debug)]
pub enum Call {
    /// A frame arrived.
    Frame(Arrived),
    /// A process saw a fault and survived it.
    Fault {
        /// Which process.
        subject: Subject,
        /// What it saw.
        fault: Fault,
    },
    /// The subscription on the broker is lost.
    SubscriptionLost,
}

/// What a process is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Duty {
    /// It carries out the orders of one subject.
    Orders,
    /// It hears the station and refuses what no process serves.
    Desk,
    /// It says hello.
    Heartbeat,
    /// It says again what is not confirmed.
    Courier,
    /// It hears what the station wants and sends of transfers.
    Transfers,
}

impl Duty {
    /// The duties every agent has, in the order they are spawned.
    const STANDING: [Self; 4] = [Self::Desk, Self::Heartbeat, Self::Courier, Self::Transfers];

    /// Returns the subject a standing duty serves.
    fn subject(self, node: &NodeName, station: &NodeName) -> Option<Subject> {
        let (who, method) = match self {
            Self::Orders => return None,
            Self::Desk => (node, Method::Welcome),
            Self::Heartbeat => (station, Method::Hello),
            Self::Courier => (station, Method::Ack),
            Self::Transfers => (station, Method::Output),
        };
        let domain = fixed("node");
        Some(Subject::new(who.clone(), Kind::Event, method, domain))
    }
}

/// A process at work.
pub type Life = Pin<Box<dyn Future<Output = Result<Quit, ProcessError>> + Send>>;

/// Brings processes into the world.
pub type Birth = Box<dyn Fn(Duty, Born) -> Life + Send>;

/// Where faults and verdicts go, to be kept until the station has stored them.
pub type Reports = mpsc::Sender<FaultEvent>;

/// What a supervisor starts with.
pub struct Setup {
    /// The configuration.
    pub config: Config,
    /// The clocks.
    pub clock: Clock,
    /// What is counted.
    pub counters: std::sync::Arc<Counters>,
    /// Brings processes into the world.
    pub birth: Birth,
    /// Where faults go.
    pub reports: Reports,
    /// Frames and faults.
    pub calls: mpsc::Receiver<Call>,
    /// Whether the agent is ending.
    pub stop: watch::Receiver<Stop>,
    /// The list of processes, for the hello.
    pub listed: watch::Sender<Vec<Listed>>,
    /// Subjects that have orders in the journal that are not over.
    pub open: Vec<Subject>,
}

/// How the supervisor's work ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// Everything came to its end.
    Drained,
    /// Something was still at work when the time was over.
    Forced,
    /// The error kernel gave up on the agent; says why.
    Escalated(String),
}

/// What wakes the supervisor.
enum Wake {
    Call(Call),
    Joined(Id, Result<Quit, Fault>),
    Restart,
    Stop,
    TimeOver,
}

/// One process and its past.
struct Slot {
    duty: Duty,
    mailbox: Option<mpsc::Sender<Mail>>,
    lifecycle: Lifecycle,
    since: Timestamp,
    restarts: u32,
    history: History,
    last_fault: Option<String>,
    gauges: watch::Sender<view::Gauges>,
    restart_at: Option<Instant>,
}

struct Supervisor {
    setup: Setup,
    slots: BTreeMap<Subject, Slot>,
    tasks: JoinSet<Result<Quit, ProcessError>>,
    subjects: HashMap<Id, Subject>,
    desk: Option<Subject>,
    /// Once the agent is ending: when what still runs is left behind.
    deadline: Option<Instant>,
    escalated: Option<String>,
}

/// Supervises until the agent ends.
pub async fn supervise(setup: Setup) -> Ending {
    let mut supervisor = Supervisor {
        setup,
        slots: BTreeMap::new(),
        tasks: JoinSet::new(),
        subjects: HashMap::new(),
        desk: None,
        deadline: None,
        escalated: None,
    };
    supervisor.begin();
    supervisor.serve().await
}

impl Supervisor {
    fn begin(&mut self) {
        let config = &self.setup.config;
        let (node, station) = (config.node.clone(), config.station.clone());
        let orders: Vec<Subject> = config
            .subjects
            .iter()
            .chain(&self.setup.open)
            .cloned()
            .collect();
        for duty in Duty::STANDING {
            if let Some(subject) = duty.subject(&node, &station) {
                if duty == Duty::Desk {
                    self.desk = Some(subject.clone());
                }
                self.spawn(&subject, duty);
            }
        }
        for subject in orders {
            self.spawn(&subject, Duty::Orders);
        }
        self.publish();
    }

    async fn serve(mut self) -> Ending {
        loop {
            if let Some(reason) = self.escalated.take() {
                return Ending::Escalated(reason);
            }
            if self.deadline.is_some() && !self.has_work() {
                return Ending::Drained;
            }
            match self.wake().await {
                Wake::Call(Call::Frame(frame)) => self.sort(frame),
                Wake::Call(Call::Fault { subject, fault }) => self.fault(Some(subject), fault),
                Wake::Call(Call::SubscriptionLost) => {
                    let detail = "the client ended the subscription".to_owned();
                    self.fault(None, Fault::Subscription(detail));
                }
                Wake::Joined(id, end) => self.joined(id, end),
                Wake::Restart => self.restart_due(),
                Wake::Stop => self.stop(),
                Wake::TimeOver => return Ending::Forced,
            }
        }
    }

    async fn wake(&mut self) -> Wake {
        let far = Instant::now() + Duration::from_secs(3600);
        let restart = self.slots.values().filter_map(|slot| slot.restart_at).min();
        tokio::select! {
            biased;
            // A sender that is gone means the same as a signal: there is nobody to stay for.
            _ = self.setup.stop.changed() => Wake::Stop,
            Some(joined) = self.tasks.join_next_with_id() => end_of(joined),
            () = sleep_until(self.deadline.unwrap_or(far)), if self.deadline.is_some() => Wake::TimeOver,
            () = sleep_until(restart.unwrap_or(far)), if restart.is_some() => Wake::Restart,
            call = self.setup.calls.recv() => match call {
                Some(call) => Wake::Call(call),
                None => Wake::Stop,
            },
        }
    }

    /// Tells whether a process for orders is still at work.
    fn has_work(&self) -> bool {
        self.slots
            .values()
            .any(|slot| slot.duty == Duty::Orders && slot.lifecycle == Lifecycle::Alive)
    }

    fn stop(&mut self) {
        let time = match *self.setup.stop.borrow_and_update() {
            Stop::No | Stop::Drain => self.setup.config.drain + DRAIN_SLACK,
            Stop::Now => FORCE,
        };
        let deadline = Instant::now() + time;
        self.deadline = Some(self.deadline.map_or(deadline, |known| known.min(deadline)));
        for slot in self.slots.values_mut() {
            slot.restart_at = None;
        }
    }

    /// Gives a frame to the process it is for.
    fn sort(&mut self, frame: Arrived) {
        match check::route(&frame.subject, &self.setup.config.node) {
            Route::Order(subject) => self.order(subject, frame.payload),
            Route::Cancel(subject) => self.to_desk(Mail::Cancel {
                subject,
                payload: frame.payload,
            }),
            Route::Welcome => self.to_desk(Mail::Welcome(frame.payload)),
            Route::Confirm => self.to_desk(Mail::Confirm(frame.payload)),
            Route::Want(domain) => self.to_transfers(Mail::Want {
                domain,
                payload: frame.payload,
            }),
            Route::Content => self.to_transfers(Mail::Content {
                payload: frame.payload,
            }),
            Route::Unwanted(subject) => self.to_desk(Mail::Order {
                subject,
                payload: frame.payload,
                // The desk's own check refuses it.
                stance: Stance::Serve,
            }),
            Route::Garbage(detail) => {
                self.setup.counters.note(Counter::GarbageSubject, &detail);
            }
        }
    }

    fn order(&mut self, subject: Subject, payload: Vec<u8>) {
        let desk = |stance| Mail::Order {
            subject: subject.clone(),
            payload: payload.clone(),
            stance,
        };
        match self.slots.get(&subject).map(|slot| slot.lifecycle) {
            Some(Lifecycle::Alive) => {}
            Some(Lifecycle::Restarting) => {
                let detail = format!("a frame on {subject}");
                return self.setup.counters.note(Counter::Restarting, &detail);
            }
            Some(Lifecycle::Stopped) => {
                return self.to_desk(desk(Stance::Hold(Deferral::Stopped)));
            }
            // The desk refuses what is not offered here.
            None if !self.serves(&subject) => return self.to_desk(desk(Stance::Serve)),
            None if self.deadline.is_some() => {
                return self.to_desk(desk(Stance::Hold(Deferral::Stopping)));
            }
            None if self.order_slots() >= MAX_PROCESSES => {
                return self.to_desk(desk(Stance::Hold(Deferral::Busy)));
            }
            None => {
                self.spawn(&subject, Duty::Orders);
                self.publish();
            }
        }
        let mail = desk(Stance::Serve);
        self.post(&subject, mail);
    }

    fn serves(&self, subject: &Subject) -> bool {
        let domains = self.setup.config.domains.as_ref();
        method::is_offered(&subject.method)
            && domains.is_none_or(|allowed| allowed.contains(&subject.domain))
    }

    fn order_slots(&self) -> usize {
        let orders = |slot: &&Slot| slot.duty == Duty::Orders;
        self.slots.values().filter(orders).count()
    }

    fn to_desk(&self, mail: Mail) {
        if let Some(desk) = &self.desk {
            self.post(desk, mail);
        }
    }

    fn to_transfers(&self, mail: Mail) {
        let config = &self.setup.config;
        if let Some(subject) = Duty::Transfers.subject(&config.node, &config.station) {
            self.post(&subject, mail);
        }
    }

    fn post(&self, subject: &Subject, mail: Mail) {
        let mailbox = self
            .slots
            .get(subject)
            .and_then(|slot| slot.mailbox.as_ref());
        let sent = mailbox.map(|mailbox| mailbox.try_send(mail));
        if !matches!(sent, Some(Ok(()))) {
            let detail = format!("a frame for {subject}");
            self.setup.counters.note(Counter::MailboxFull, &detail);
        }
    }

    /// Spawns the process of a subject, unless it is there already.
    fn spawn(&mut self, subject: &Subject, duty: Duty) {
        let slot = self.slots.entry(subject.clone()).or_insert_with(|| Slot {
            duty,
            mailbox: None,
            lifecycle: Lifecycle::Restarting,
            since: Timestamp::now(),
            restarts: 0,
            history: History::default(),
            last_fault: None,
            gauges: watch::Sender::new(process::at_rest()),
            restart_at: None,
        });
        if slot.lifecycle == Lifecycle::Alive {
            return;
        }
        let (mailbox, inbox) = mpsc::channel(MAILBOX);
        slot.mailbox = Some(mailbox);
        slot.lifecycle = Lifecycle::Alive;
        slot.since = Timestamp::now();
        slot.restart_at = None;
        let born = Born {
            subject: subject.clone(),
            mailbox: inbox,
            gauges: slot.gauges.clone(),
        };
        let task = self.tasks.spawn((self.setup.birth)(duty, born));
        self.subjects.insert(task.id(), subject.clone());
        tracing::debug!(%subject, "a process was spawned");
    }

    fn joined(&mut self, id: Id, end: Result<Quit, Fault>) {
        let Some(subject) = self.subjects.remove(&id) else {
            return;
        };
        match end {
            Ok(quit) => {
                tracing::debug!(%subject, ?quit, "a process ended");
                self.slots.remove(&subject);
                self.publish();
            }
            Err(fault) => self.fault(Some(subject), fault),
        }
    }

    /// Has a fault judged, carries out the verdict and reports both.
    fn fault(&mut self, subject: Option<Subject>, fault: Fault) {
        let now = self.setup.clock.now();
        let policy = self.policy(subject.as_ref());
        let slot = subject.as_ref().and_then(|subject| self.slots.get(subject));
        let none = History::default();
        let history = slot.map_or(&none, |slot| &slot.history);
        let verdict = judge(&fault, history, &policy, now.boot_ms);
        let shown = subject.as_ref().map(Subject::to_string).unwrap_or_default();
        tracing::error!(
            subject = shown,
            kind = fault.kind(),
            detail = fault.detail(),
            verdict = %verdict,
            "a fault was judged"
        );
        let event = FaultEvent {
            id: EventId(Uuid::now_v7()),
            at: now.wall,
            kind: fault.kind().to_owned(),
            subject: subject.clone(),
            detail: brief(fault.detail().to_owned()),
            verdict: verdict.to_string(),
        };
        if self.setup.reports.try_send(event).is_err() {
            self.setup.counters.count(Counter::EventsDropped);
        }
        if verdict == Verdict::Escalate {
            self.escalated = Some(format!("{}: {}", fault.kind(), fault.detail()));
        }
        if let Some(slot) = subject.and_then(|subject| self.slots.get_mut(&subject)) {
            slot.suffer(fault.detail(), verdict, &policy, now.boot_ms);
        }
        if self.deadline.is_some() {
            // A process that fails while the agent ends is not needed again.
            for slot in self.slots.values_mut() {
                slot.restart_at = None;
            }
        }
        self.publish();
    }

    fn policy(&self, subject: Option<&Subject>) -> Policy {
        let duty = subject.and_then(|subject| Some(self.slots.get(subject)?.duty));
        let method = subject.and_then(|subject| Method::from_name(&subject.method));
        let config = &self.setup.config;
        let own = method.and_then(|method| config.restart_of.get(&method));
        Policy {
            restart: *own.unwrap_or(&config.restart),
            weight: match duty {
                Some(Duty::Orders | Duty::Transfers) => Weight::Ordinary,
                Some(Duty::Desk | Duty::Heartbeat | Duty::Courier) | None => Weight::Vital,
            },
        }
    }

    fn restart_due(&mut self) {
        let now = Instant::now();
        let due: Vec<(Subject, Duty)> = self
            .slots
            .iter()
            .filter(|(_, slot)| slot.restart_at.is_some_and(|at| at <= now))
            .map(|(subject, slot)| (subject.clone(), slot.duty))
            .collect();
        for (subject, duty) in due {
            if let Some(slot) = self.slots.get_mut(&subject) {
                slot.restarts = slot.restarts.saturating_add(1);
            }
            self.spawn(&subject, duty);
        }
        self.publish();
    }

    /// Shows the list of processes.
    fn publish(&self) {
        let list = self
            .slots
            .iter()
            .map(|(subject, slot)| Listed {
                subject: subject.clone(),
                lifecycle: slot.lifecycle,
                since: slot.since,
                restarts: slot.restarts,
                last_fault: slot.last_fault.clone(),
                gauges: slot.gauges.subscribe(),
            })
            .collect();
        self.setup.listed.send_replace(list);
    }
}

impl Slot {
    /// Takes a verdict on a fault of its process.
    fn suffer(&mut self, detail: &str, verdict: Verdict, policy: &Policy, now_ms: u64) {
        self.last_fault = Some(brief(detail.to_owned()));
        match verdict {
            Verdict::Continue | Verdict::Escalate => {}
            Verdict::RestartAfter(wait) => {
                self.history.note(now_ms, policy.restart.window);
                self.restart_at = Some(Instant::now() + wait);
                self.rest(Lifecycle::Restarting);
            }
            Verdict::Stop => self.rest(Lifecycle::Stopped),
        }
    }

    fn rest(&mut self, lifecycle: Lifecycle) {
        self.mailbox = None;
        self.lifecycle = lifecycle;
        self.since = Timestamp::now();
    }
}

fn end_of(joined: Result<(Id, Result<Quit, ProcessError>), JoinError>) -> Wake {
    match joined {
        Ok((id, Ok(quit))) => Wake::Joined(id, Ok(quit)),
        Ok((id, Err(error))) => Wake::Joined(id, Err(Fault::Failed(chain(&error)))),
        Err(error) => {
            let id = error.id();
            let fault = match error.try_into_panic() {
                Ok(panic) => Fault::Panicked(words_of(panic.as_ref())),
                Err(error) => Fault::Failed(error.to_string()),
            };
            Wake::Joined(id, Err(fault))
        }
    }
}

/// Returns what a panic said, if it said anything.
fn words_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("a panic without words").to_owned()
}

#[cfg(test)]
mod tests;
