//! The supervisor: one process per subject, spawned when configured or first needed, restarted or
//! given up as the error kernel says. Knows neither orders nor the journal.
//!
//! ```text
//! bus ─ Call::Frame ─▶ supervisor ─ Mail ─▶ process     (one bounded mailbox each)
//! process ─ Call::Fault ─▶ supervisor ─ judge ─▶ Verdict ─▶ process, event for the station
//! process ends or panics ─ JoinSet ─▶ supervisor ─ judge ─▶ restart, stop, escalate
//! process ─ pulse ─▶ watchdog ─ none for too long ─▶ aborted, then judged
//! operator ─ Call::Operate ─▶ supervisor ─▶ list, stop, start
//! ```

use std::{
    collections::{BTreeMap, HashMap},
    future::Future,
    io,
    pin::Pin,
    thread,
    time::Duration,
};

use steward_protocol::{FaultEvent, Kind, Method, NodeName, ProcessView, Subject};
use tokio::{
    runtime::{Builder, Handle},
    sync::{mpsc, oneshot, watch},
    task::{Id, JoinSet},
    time::{Instant, sleep_until},
};

use self::{
    context::Born,
    faults::{End, end_of},
    kernel::{Fault, Verdict},
    operate::{Action, OperateError},
    process::{ProcessError, Quit},
    pulse::Pulse,
    slot::Slot,
    view::Listed,
};
use crate::{
    bus::Arrived, clock::Clock, config::Config, counters::Counters, signals::Stop, voice::fixed,
};

mod cancel;
pub mod context;
pub mod courier;
pub mod desk;
mod faults;
pub mod heartbeat;
mod intake;
pub mod kernel;
pub mod local;
mod methods;
pub mod operate;
mod perform;
pub mod process;
pub mod pulse;
pub mod revocations;
mod route;
mod run;
mod slot;
pub(crate) mod tidy;
pub mod transfers;
pub mod view;
mod watchdog;

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
        /// Where the verdict goes; whoever asked may have gone on without it.
        answer: oneshot::Sender<Verdict>,
    },
    /// An operator wants something of the processes.
    Operate {
        /// What.
        action: Action,
        /// Of which one.
        subject: Option<Subject>,
        /// Where the answer goes.
        answer: oneshot::Sender<Result<Vec<ProcessView>, OperateError>>,
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
    /// It carries out what this node gives itself: schedules, and what runs at every start.
    Local,
    /// It takes logs, keeps and forwards them; there only if the config has an input.
    Logs,
}

impl Duty {
    /// The duties every agent has, in the order they are spawned.
    const STANDING: [Self; 5] = [
        Self::Desk,
        Self::Heartbeat,
        Self::Courier,
        Self::Transfers,
        Self::Local,
    ];

    /// Returns the subject a standing duty serves.
    fn subject(self, node: &NodeName, station: &NodeName) -> Option<Subject> {
        let (who, method) = match self {
            Self::Orders => return None,
            Self::Desk => (node, Method::Welcome),
            Self::Heartbeat => (station, Method::Hello),
            Self::Courier => (station, Method::Ack),
            Self::Transfers => (station, Method::Output),
            Self::Local => (node, Method::Schedule),
            Self::Logs => (station, Method::Syslogforwarding),
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
    /// Where processes live; the supervisor need not live there itself.
    pub runtime: Handle,
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
    Joined(Id, End),
    Time,
    Stop,
    TimeOver,
}

struct Supervisor {
    setup: Setup,
    slots: BTreeMap<Subject, Slot>,
    tasks: JoinSet<Result<Quit, ProcessError>>,
    subjects: HashMap<Id, Subject>,
    desk: Option<Subject>,
    /// Where the time of the histories begins.
    epoch: Instant,
    /// When the pulses are felt next.
    feel_at: Instant,
    /// Once the agent is ending: when what still runs is left behind.
    deadline: Option<Instant>,
    escalated: Option<String>,
    /// Whoever could say that the agent ends, or ask for anything, may be gone: that is heard once.
    gone: Gone,
}

/// Who is gone.
#[derive(Debug, Clone, Copy, Default)]
struct Gone {
    stop: bool,
    calls: bool,
}

/// Supervises on a thread of its own, so that a process that blocks its thread does not block the
/// supervisor. Dropping what is returned ends it.
///
/// # Errors
///
/// Fails when the system gives no thread.
pub fn supervise_apart(setup: Setup) -> io::Result<oneshot::Receiver<Ending>> {
    let runtime = Builder::new_current_thread().enable_time().build()?;
    let (mut ending, ended) = oneshot::channel();
    thread::Builder::new()
        .name("supervisor".to_owned())
        .spawn(move || {
            let end = runtime.block_on(async {
                tokio::select! {
                    end = supervise(setup) => Some(end),
                    () = ending.closed() => None,
                }
            });
            if let Some(end) = end {
                // Nobody need be waiting for it.
                ending.send(end).ok();
            }
        })?;
    Ok(ended)
}

/// Supervises until the agent ends.
pub async fn supervise(setup: Setup) -> Ending {
    let epoch = Instant::now();
    let mut supervisor = Supervisor {
        feel_at: epoch + Pulse::interval(setup.config.wedged_after),
        setup,
        slots: BTreeMap::new(),
        tasks: JoinSet::new(),
        subjects: HashMap::new(),
        desk: None,
        epoch,
        deadline: None,
        escalated: None,
        gone: Gone::default(),
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
        if self.setup.config.logs.is_some()
            && let Some(subject) = Duty::Logs.subject(&node, &station)
        {
            self.spawn(&subject, Duty::Logs);
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
                Wake::Call(call) => self.call(call),
                Wake::Joined(id, end) => self.joined(id, end),
                Wake::Time => self.time(),
                Wake::Stop => self.stop(),
                Wake::TimeOver => return Ending::Forced,
            }
        }
    }

    async fn wake(&mut self) -> Wake {
        let time = self.next_time();
        let deadline = self.deadline;
        tokio::select! {
            biased;
            // A sender that is gone means the same as a signal: there is nobody to stay for.
            changed = self.setup.stop.changed(), if !self.gone.stop => {
                self.gone.stop = changed.is_err();
                Wake::Stop
            }
            Some(joined) = self.tasks.join_next_with_id() => {
                let (id, end) = end_of(joined);
                Wake::Joined(id, end)
            }
            () = sleep_until(deadline.unwrap_or(time)), if deadline.is_some() => Wake::TimeOver,
            () = sleep_until(time) => Wake::Time,
            call = self.setup.calls.recv(), if !self.gone.calls => match call {
                Some(call) => Wake::Call(call),
                None => {
                    self.gone.calls = true;
                    Wake::Stop
                }
            },
        }
    }

    fn call(&mut self, call: Call) {
        match call {
            Call::Frame(frame) => self.sort(frame),
            Call::Fault {
                subject,
                fault,
                answer,
            } => {
                let verdict = self.fault(Some(subject), fault);
                // Whoever asked has waited long enough and gone on, or is gone.
                answer.send(verdict).ok();
            }
            Call::Operate {
                action,
                subject,
                answer,
            } => {
                answer.send(self.operate(action, subject)).ok();
            }
            Call::SubscriptionLost => {
                let detail = "the client ended the subscription".to_owned();
                self.fault(None, Fault::Subscription(detail));
            }
        }
    }

    /// Tells whether a process for orders is still at work.
    fn has_work(&self) -> bool {
        self.slots.values().any(|slot| match slot.duty {
            // Logs that were taken are committed first.
            Duty::Orders | Duty::Logs => slot.task.is_some(),
            // What it has not begun waits for the next start.
            Duty::Local => slot.task.is_some() && slot.gauges.borrow().running > 0,
            Duty::Desk | Duty::Heartbeat | Duty::Courier | Duty::Transfers => false,
        })
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

    /// Shows the list of processes.
    fn publish(&self) {
        let listed = self.slots.iter();
        let list = listed.map(|(subject, slot)| slot.listed(subject)).collect();
        self.setup.listed.send_replace(list);
    }
}

#[cfg(test)]
mod tests;
