//! The station's loop: the one owner of courier and ledger.
//!
//! It turns everything that happens into a `Wake`, asks the courier what to do, makes the records
//! durable in one commit for all that has come together, and only then acts. It decides nothing
//! itself. If the ledger cannot be written, nothing is done: the courier is loaded again from what
//! is durable, as after a restart, and everyone who waited is told.

mod act;
mod change;
mod hear;
mod offenders;
mod submit;
mod uplink;

pub use change::{Change, Insight};

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp};
use steward_protocol::{MessageId, NodeName};
use tokio::sync::{Mutex, mpsc, oneshot, watch};

use crate::{
    bus::{self, Bus, Heard, Hearing},
    courier::{self, Action, Courier, FaultRecord, Record},
    inbox::{AcceptError, Submission},
    logs::Logs,
    roster::Moment,
    signals::Stop,
    station::offenders::Offenders,
    store::{Fact, Store, StoreError},
    transfer::Transfers,
    view::{CancelAsk, CancelReceipt, NodeView, OffenderView, Receipt, RetryAsk},
};

/// Requests waiting for the loop; whoever sends one waits for room and for the answer.
const REQUESTS: usize = 256;

/// Wake-ups taken together into one commit: enough to make fsync cheap, few enough to answer soon.
const BATCH: usize = 256;

/// How often time is looked at.
const TICK: Duration = Duration::from_millis(200);

/// How long a submitter waits for the loop before it is told to come back.
const PATIENCE: Duration = Duration::from_secs(20);

/// Pause after the ledger could not be read back, before it is tried again.
const RELOAD_PAUSE: Duration = Duration::from_secs(1);

/// How often settled messages are looked through for those to forget, while there may be more of them
/// and when there were none.
const PRUNE_AGAIN: Duration = Duration::from_secs(1);
const PRUNE_EVERY: Duration = Duration::from_secs(600);

/// However large the ledger is, what was accepted this lately is kept: somebody may be waiting for it.
const KEEP_AT_LEAST: SignedDuration = SignedDuration::from_hours(1);

/// Settled messages forgotten in one transaction, so that the loop is never held up for long.
const PRUNE_CHUNK: u32 = 500;

/// What the loop needs besides its parts.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The station's node name.
    pub name: NodeName,
    /// Deliveries that may be open at once.
    pub max_open: usize,
    /// How long settled messages are kept.
    pub keep_for: Duration,
    /// Up to how many bytes of ledger.
    pub keep_bytes: u64,
    /// Where frames of transfers go.
    pub transfers: Transfers,
    /// Who is to know which agents were welcomed.
    pub logs: Logs,
    /// Where the station keeps its state.
    pub state_dir: PathBuf,
}

/// Whether the station's parts work, for readiness.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Health {
    /// Why the ledger cannot be written, if it cannot.
    pub ledger: Option<String>,
}

/// What the outside may ask of the loop.
enum Request {
    Submit {
        submission: Box<Submission>,
        answer: oneshot::Sender<Result<Receipt, AcceptError>>,
    },
    Cancel {
        change: Change<CancelAsk>,
        answer: change::Answer<CancelReceipt>,
    },
    Retry {
        change: Change<RetryAsk>,
        answer: change::Answer<Receipt>,
    },
    Insight {
        id: MessageId,
        node: NodeName,
        answer: oneshot::Sender<Insight>,
    },
    Nodes {
        answer: oneshot::Sender<Vec<NodeView>>,
    },
    Waiting {
        id: MessageId,
        nodes: Vec<NodeName>,
        answer: oneshot::Sender<BTreeMap<NodeName, String>>,
    },
    Counters {
        answer: oneshot::Sender<BTreeMap<String, u64>>,
    },
    Offenders {
        answer: oneshot::Sender<Vec<OffenderView>>,
    },
    Errands {
        facts: Vec<Fact>,
        answer: oneshot::Sender<Result<(), String>>,
    },
    Fault {
        fault: Box<FaultRecord>,
        answer: oneshot::Sender<()>,
    },
}

/// What can wake the loop.
enum Wake {
    Requests(Vec<Request>),
    Heard(Vec<Heard>),
    Tick,
    Prune,
    Stop,
    Cut(Cut),
}

/// The loop is gone: the station is ending.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("ask the station: it is ending, or its ledger cannot be read")]
pub struct Gone;

/// The loop ended although nobody asked it to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("go on without {0}")]
pub struct Cut(&'static str);

/// The way to ask the loop.
#[derive(Debug, Clone)]
pub struct StationHandle {
    requests: mpsc::Sender<Request>,
    changes: watch::Receiver<u64>,
    health: watch::Receiver<Health>,
    state_dir: PathBuf,
    /// Held while a file to be sent is read, so that such messages keep their order.
    pinning: Arc<Mutex<()>>,
}

impl StationHandle {
    /// Calls a message off. Returns only when that is durable; the nodes may not have heard of it yet.
    ///
    /// # Errors
    ///
    /// `Rejected` when it cannot be meant, `Unavailable` when it may be tried again.
    pub async fn cancel(&self, change: Change<CancelAsk>) -> Result<CancelReceipt, AcceptError> {
        self.change(|answer| Request::Cancel { change, answer })
            .await
    }

    /// Repeats a message as a new one. Returns only when that is durable.
    ///
    /// # Errors
    ///
    /// `Rejected` when there is nothing to repeat, `Unavailable` when it may be tried again.
    pub async fn retry(&self, change: Change<RetryAsk>) -> Result<Receipt, AcceptError> {
        self.change(|answer| Request::Retry { change, answer })
            .await
    }

    /// Returns what is known of one delivery beyond the ledger.
    ///
    /// # Errors
    ///
    /// Fails when the station is ending.
    pub async fn insight(&self, id: MessageId, node: NodeName) -> Result<Insight, Gone> {
        self.ask(|answer| Request::Insight { id, node, answer })
            .await
    }

    async fn change<T>(
        &self,
        request: impl FnOnce(change::Answer<T>) -> Request,
    ) -> Result<T, AcceptError> {
        let (answer, waiting) = oneshot::channel();
        let request = request(answer);
        let asked = async {
            self.requests.send(request).await.map_err(|_| Gone)?;
            waiting.await.map_err(|_| Gone)
        };
        match tokio::time::timeout(PATIENCE, asked).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(gone)) => Err(AcceptError::Unavailable(gone.to_string())),
            Err(_) => Err(AcceptError::Unavailable(format!(
                "the station did not answer within {} s; look whether it was done before asking again",
                PATIENCE.as_secs()
            ))),
        }
    }

    /// Returns every node and what is believed of it.
    ///
    /// # Errors
    ///
    /// Fails when the station is ending.
    pub async fn nodes(&self) -> Result<Vec<NodeView>, Gone> {
        self.ask(|answer| Request::Nodes { answer }).await
    }

    /// Returns, for each of `nodes`, why the message `id`, not sent there yet, is waiting.
    ///
    /// # Errors
    ///
    /// Fails when the station is ending.
    pub async fn waiting(
        &self,
        id: MessageId,
        nodes: Vec<NodeName>,
    ) -> Result<BTreeMap<NodeName, String>, Gone> {
        self.ask(|answer| Request::Waiting { id, nodes, answer })
            .await
    }

    /// Returns what was counted since the start.
    ///
    /// # Errors
    ///
    /// Fails when the station is ending.
    pub async fn counters(&self) -> Result<BTreeMap<String, u64>, Gone> {
        self.ask(|answer| Request::Counters { answer }).await
    }

    /// Returns who sent what was not believed, worst first.
    ///
    /// # Errors
    ///
    /// Fails when the station is ending.
    pub async fn offenders(&self) -> Result<Vec<OffenderView>, Gone> {
        self.ask(|answer| Request::Offenders { answer }).await
    }

    /// Records what became of what was to be written; says why, when that could not be made durable.
    ///
    /// # Errors
    ///
    /// Fails when the station is ending.
    pub async fn errands(&self, facts: Vec<Fact>) -> Result<Result<(), String>, Gone> {
        self.ask(|answer| Request::Errands { facts, answer }).await
    }

    /// Records a fault of a part that is not the loop.
    ///
    /// # Errors
    ///
    /// Fails when the station is ending.
    pub async fn fault(&self, fault: FaultRecord) -> Result<(), Gone> {
        let fault = Box::new(fault);
        self.ask(|answer| Request::Fault { fault, answer }).await
    }

    /// Returns a number that changes with every commit.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.clone()
    }

    /// Returns whether the station's parts work.
    pub fn health(&self) -> Health {
        self.health.borrow().clone()
    }

    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Result<T, Gone> {
        let (answer, waiting) = oneshot::channel();
        let asked = async {
            self.requests
                .send(request(answer))
                .await
                .map_err(|_| Gone)?;
            waiting.await.map_err(|_| Gone)
        };
        tokio::time::timeout(PATIENCE, asked)
            .await
            .map_err(|_| Gone)?
    }
}

/// The loop's state.
pub struct Station {
    settings: Settings,
    store: Store,
    courier: Courier,
    bus: Bus,
    heard: Hearing,
    requests: mpsc::Receiver<Request>,
    changes: watch::Sender<u64>,
    health: watch::Sender<Health>,
    counters: BTreeMap<&'static str, u64>,
    offenders: Offenders,
    stop: Stop,
    born: Instant,
}

impl Station {
    /// Loads the courier from the ledger and returns the loop with a handle to it.
    ///
    /// # Errors
    ///
    /// Fails when the ledger cannot be read.
    pub fn new(
        settings: Settings,
        store: Store,
        bus: Bus,
        heard: Hearing,
    ) -> Result<(Self, StationHandle), StoreError> {
        let born = Instant::now();
        let state_dir = settings.state_dir.clone();
        let courier = Courier::load(settings.name.clone(), store.load()?, moment(born));
        let (request_sender, requests) = mpsc::channel(REQUESTS);
        let (changes, changes_receiver) = watch::channel(0);
        let (health, health_receiver) = watch::channel(Health::default());
        let station = Self {
            settings,
            store,
            courier,
            bus,
            heard,
            requests,
            changes,
            health,
            counters: BTreeMap::new(),
            offenders: Offenders::default(),
            stop: Stop::new(),
            born,
        };
        let handle = StationHandle {
            requests: request_sender,
            changes: changes_receiver,
            health: health_receiver,
            state_dir,
            pinning: Arc::default(),
        };
        Ok((station, handle))
    }

    /// Runs until told to stop.
    ///
    /// # Errors
    ///
    /// Fails when a part it listens to is gone.
    pub async fn run(mut self, stop: Stop) -> Result<(), Cut> {
        self.stop = stop.clone();
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut prune_at = tokio::time::Instant::now();
        loop {
            let mut requests = Vec::new();
            let mut heard = Vec::new();
            let wake = tokio::select! {
                () = stop.draining() => Wake::Stop,
                taken = self.requests.recv_many(&mut requests, BATCH) => match taken {
                    0 => Wake::Cut(Cut("anybody who could ask it")),
                    _ => Wake::Requests(requests),
                },
                more = self.heard.take(&mut heard, BATCH) => match more {
                    false => Wake::Cut(Cut("the connection to the broker")),
                    true => Wake::Heard(heard),
                },
                _ = ticks.tick() => Wake::Tick,
                () = tokio::time::sleep_until(prune_at) => Wake::Prune,
            };
            match wake {
                Wake::Requests(requests) => self.on_requests(requests).await,
                Wake::Heard(heard) => self.on_heard(heard).await,
                Wake::Tick => {
                    let mut actions = self.courier.on(courier::Event::Tick, moment(self.born));
                    self.note_transfers();
                    self.tell_of_offenders(&mut actions);
                    self.carry_out(actions).await;
                }
                Wake::Prune => prune_at = tokio::time::Instant::now() + self.prune(),
                Wake::Stop => {
                    self.end().await;
                    return Ok(());
                }
                Wake::Cut(cut) => return Err(cut),
            }
        }
    }

    async fn on_requests(&mut self, requests: Vec<Request>) {
        let mut submissions = Vec::new();
        let mut cancels = Vec::new();
        let mut retries = Vec::new();
        let mut faults = Vec::new();
        for request in requests {
            // Whoever asked may have gone away; then nobody misses the answer.
            match request {
                Request::Submit { submission, answer } => submissions.push((*submission, answer)),
                Request::Cancel { change, answer } => cancels.push((change, answer)),
                Request::Retry { change, answer } => retries.push((change, answer)),
                Request::Insight { id, node, answer } => {
                    drop(answer.send(self.insight(id, &node)));
                }
                Request::Nodes { answer } => drop(answer.send(self.nodes())),
                Request::Waiting { id, nodes, answer } => {
                    let why = |node: NodeName| (node.clone(), self.courier.waiting_for(&node, id));
                    drop(answer.send(nodes.into_iter().map(why).collect()));
                }
                Request::Counters { answer } => drop(answer.send(self.counted())),
                Request::Offenders { answer } => drop(answer.send(self.offenders.view())),
                Request::Fault { fault, answer } => {
                    faults.push(Action::Record(Record::Fault(*fault)));
                    answer.send(()).ok();
                }
                Request::Errands { facts, answer } => {
                    let (at, station) = (wall(), &self.settings.name);
                    let noted = tokio::task::block_in_place(|| {
                        self.store.note_errands(&facts, at, station)
                    });
                    drop(answer.send(noted.map_err(|error| chain(&error))));
                }
            }
        }
        self.carry_out(faults).await;
        self.accept(submissions).await;
        for (change, answer) in cancels {
            self.cancel(change, answer).await;
        }
        for (change, answer) in retries {
            self.retry(change, answer).await;
        }
    }

    fn counted(&self) -> BTreeMap<String, u64> {
        let own = self.counters.iter().chain(self.courier.counters());
        let own = own.map(|(name, count)| ((*name).to_owned(), *count));
        let logs = self.settings.logs.counted().into_iter();
        let logs = logs.filter(|(_, count)| *count > 0);
        own.chain(logs.map(|(name, count)| (name.to_owned(), count)))
            .collect()
    }

    /// Makes every record durable, then does the rest, in order.
    async fn carry_out(&mut self, actions: Vec<Action>) {
        if self.commit(&actions).await.is_ok() {
            self.act(actions);
        }
    }

    /// Commits the records among `actions`. On failure the courier is loaded afresh and nothing must be done.
    async fn commit(&mut self, actions: &[Action]) -> Result<(), String> {
        let record = |action: &Action| match action {
            Action::Record(record) => Some(record.clone()),
            _ => None,
        };
        let records: Vec<Record> = actions.iter().filter_map(record).collect();
        if records.is_empty() {
            return Ok(());
        }
        match tokio::task::block_in_place(|| self.store.commit(&records)) {
            Ok(()) => {
                self.changes.send_modify(|n| *n += 1);
                self.health
                    .send_if_modified(|health| health.ledger.take().is_some());
                Ok(())
            }
            Err(error) => {
                let text = chain(&error);
                tracing::error!(
                    error = text,
                    "the ledger cannot be written; nothing is sent until it can"
                );
                self.health
                    .send_modify(|health| health.ledger = Some(text.clone()));
                self.reload().await;
                Err(text)
            }
        }
    }

    /// Throws away what is not durable, and waits until the ledger can be read and written again.
    async fn reload(&mut self) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(RELOAD_PAUSE) => {}
                // What is in memory is not durable; the next start finds what is.
                () = self.stop.draining() => return,
            }
            let loaded = tokio::task::block_in_place(|| {
                self.store.probe()?;
                self.store.load()
            });
            let now = moment(self.born);
            match loaded {
                Ok(loaded) => {
                    tracing::info!("the ledger can be written again");
                    self.health.send_modify(|health| health.ledger = None);
                    self.courier = Courier::load(self.settings.name.clone(), loaded, now);
                    if self.bus.view().connected {
                        // The nodes introduce themselves again with their next heartbeat.
                        self.courier.on(courier::Event::Connected, now);
                    }
                    return;
                }
                Err(error) => {
                    tracing::debug!(error = chain(&error), "the ledger cannot be used yet");
                }
            }
        }
    }

    /// Forgets a few settled messages. Returns when to look again.
    fn prune(&mut self) -> Duration {
        let now = Timestamp::now();
        let before = |age: SignedDuration| now.saturating_sub(age).unwrap_or(Timestamp::MIN);
        let keep_for =
            SignedDuration::try_from(self.settings.keep_for).unwrap_or(SignedDuration::MAX);
        let forgotten = tokio::task::block_in_place(|| {
            let mut forgotten = self.store.prune(before(keep_for), PRUNE_CHUNK)?;
            if forgotten == 0 && self.store.bytes()? > self.settings.keep_bytes {
                forgotten = self.store.prune(before(KEEP_AT_LEAST), PRUNE_CHUNK)?;
            }
            Ok::<_, StoreError>(forgotten)
        });
        match forgotten {
            Ok(0) => PRUNE_EVERY,
            Ok(messages) => {
                tracing::info!(
                    messages,
                    "settled messages were forgotten, as the retention says"
                );
                PRUNE_AGAIN
            }
            Err(error) => {
                tracing::error!(error = chain(&error), "the ledger cannot be cleaned");
                PRUNE_EVERY
            }
        }
    }

    /// Takes what is already here, writes it down, and says no more.
    async fn end(mut self) {
        let heard = self.heard.rest();
        self.on_heard(heard).await;
        self.bus.close(Duration::from_secs(1)).await;
        tracing::info!("the ledger is closed");
    }
}

/// Reads the clocks.
fn moment(born: Instant) -> Moment {
    Moment {
        mono: born.elapsed(),
        wall: wall(),
        dice: bus::dice(),
    }
}

/// The wall clock in whole milliseconds, as everything is kept.
fn wall() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_millisecond(now.as_millisecond()).unwrap_or(now)
}

/// Returns an error and its causes as one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// A submission and who waits for the answer.
type Waiting = (Submission, oneshot::Sender<Result<Receipt, AcceptError>>);

/// Accepted messages are shared between the courier's state and the record of them.
type AcceptedMessage = Arc<courier::Accepted>;
