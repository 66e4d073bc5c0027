//! The agent: runs orders under supervision and answers with what happened.
//!
//! [`run`] puts the parts together and takes them apart again; it decides nothing else.

use std::{future::Future, io, sync::Arc, time::Duration};

use jiff::Timestamp;
use steward_protocol::{FaultEvent, InstanceId, JournalId, retry::Backoff};
use tokio::{
    runtime::Handle,
    sync::{Semaphore, mpsc, oneshot, watch},
    task::JoinHandle,
    time::{sleep, timeout},
};
use uuid::Uuid;

use crate::{
    bus::{Address, Bus, BusError, Inlet, Link},
    child::Nursery,
    clock::Clock,
    config::{Config, Reach},
    counters::Counters,
    journal::Limits,
    keeper::{Keeper, KeeperError, Opening, chain},
    method::hello::{Allowances, Introduction, Presence},
    signals::{Signals, Stop},
    status::serve::Door,
    store::{Owner, StoreError},
    supervisor::{
        Birth, CALLS, Call, Duty, Ending, Life, Setup,
        context::{Born, Context},
        courier, desk, heartbeat, local, process,
        revocations::Revocations,
        tidy, transfers,
    },
    syslog::board::Board,
    transfer::Transfers,
    voice::{Footing, Voice},
};

#[cfg(not(panic = "unwind"))]
compile_error!(
    "a panic is caught where its process ends and becomes a fault: build with panic = \"unwind\""
);

pub mod bus;
pub mod check;
pub mod child;
pub mod clock;
pub mod config;
pub mod counters;
pub mod dispatch;
pub mod journal;
pub mod keeper;
pub mod method;
mod owner;
pub mod signals;
pub mod startup;
pub mod status;
pub mod store;
pub mod supervisor;
pub mod syslog;
pub mod transfer;
pub mod voice;
pub mod work;

/// How long the first connection may take before the agent says that it is ready without it.
const FIRST_LINK: Duration = Duration::from_secs(2);

/// How long the last words may take to leave, and the journal to be closed.
const FAREWELL: Duration = Duration::from_secs(2);

/// Faults waiting to be written down. They come a few at a time; beyond it they are counted.
const REPORTS: usize = 64;

/// Wait between two tries to write a fault down.
const REPORT_RETRY: Backoff = Backoff {
    base: Duration::from_secs(1),
    cap: Duration::from_secs(60),
};

/// Why the agent cannot run, or ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The kernel refused something every agent needs.
    #[error("{doing}")]
    System {
        /// What was tried.
        doing: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The journal cannot be used.
    #[error(transparent)]
    Store(StoreError),
    /// The keeper of the journal could not be asked.
    #[error(transparent)]
    Keeper(KeeperError),
    /// The broker cannot be used.
    #[error(transparent)]
    Bus(BusError),
    /// The broker was reached and is too old.
    #[error("use this broker: {sentence}")]
    Broker {
        /// Why not.
        sentence: String,
    },
    /// The error kernel gave up.
    #[error("go on after a fault: {reason}")]
    Escalated {
        /// The fault.
        reason: String,
    },
    /// Something was still at work when the time was over.
    #[error("end everything in time: something was still at work; its orders are in the journal")]
    Forced,
}

fn system(doing: &'static str) -> impl FnOnce(io::Error) -> RunError {
    move |source| RunError::System { doing, source }
}

/// Runs the agent until a signal ends it. `ready` is called once, with the line that says so.
///
/// # Errors
///
/// Fails when the journal or the broker cannot be used, when the error kernel gives up, and when
/// it had to be ended by force.
pub async fn run(config: Config, ready: impl FnOnce(&str)) -> Result<(), RunError> {
    let signals = Signals::catch().map_err(system("catch signals"))?;
    let clock = Clock::open().map_err(system("read the kernel's boot id"))?;
    child::adopt_orphans().map_err(system("become the reaper of commands' orphans"))?;
    let counters = Arc::new(Counters::default());
    let instance = InstanceId(Uuid::new_v4());
    let (keeper, identity, keeper_thread) = Keeper::open(
        &config.state_dir,
        opening(&config, instance, &clock, &counters),
    )
    .map_err(RunError::Store)?;
    let address = Address {
        urls: config.nats.clone(),
        creds: config.creds.clone(),
        node: config.node.clone(),
    };
    // After the journal, whose lock keeps another agent out of this directory.
    let nursery =
        Nursery::open(&config.state_dir).map_err(system("open the directory of the commands"))?;
    let (bus, inlet) = Bus::open(&address, Arc::clone(&counters))
        .await
        .map_err(RunError::Bus)?;
    announce_policy(&config);
    tracing::info!(%instance, journal = %identity.journal_id, starts = identity.starts, "the journal is open");

    let (stop, stopping) = watch::channel(Stop::No);
    let (again, reload) = watch::channel(0);
    let signal_task = tokio::spawn(signals.tell(stop.clone(), again));
    let parts = Parts {
        keeper: keeper.clone(),
        bus: bus.clone(),
        clock,
        counters,
        instance,
        journal_id: identity.journal_id,
        stop: stopping,
        reload,
        nursery,
    };
    let (context, supervision) = assemble(&config, parts, inlet).await?;
    let status_task = open_door(&config, &context);
    let result = live(&config, &bus, supervision, ready).await;
    farewell(&context, &bus).await;
    signal_task.abort();
    shut_door(status_task).await;
    drop((context, keeper));
    close(keeper_thread).await;
    result
}

fn opening(
    config: &Config,
    instance: InstanceId,
    clock: &Clock,
    counters: &Arc<Counters>,
) -> Opening {
    Opening {
        owner: Owner {
            node: config.node.clone(),
            fresh: JournalId(Uuid::new_v4()),
        },
        instance,
        limits: Limits {
            queue: config.queue,
            results_budget: config.results_budget,
            accept_ledger: config.accept_ledger,
        },
        clock: clock.clone(),
        counters: Arc::clone(counters),
    }
}

/// Lets `steward-agent status` in. Without that the agent runs all the same.
fn open_door(config: &Config, context: &Arc<Context>) -> Option<JoinHandle<()>> {
    match Door::open(&config.state_dir) {
        Ok(door) => Some(tokio::spawn(door.serve(Arc::clone(context)))),
        Err(error) => {
            let path = status::socket(&config.state_dir);
            tracing::warn!(%error, path = %path.display(), "nobody can ask this agent for its status");
            None
        }
    }
}

async fn shut_door(task: Option<JoinHandle<()>>) {
    if let Some(task) = task {
        task.abort();
        // It holds on to the journal until it is gone.
        task.await.ok();
    }
}

fn announce_policy(config: &Config) {
    tracing::warn!(
        station = %config.station,
        "there is no policy file: this agent runs shellcommand for its station"
    );
    if config.reach == Reach::Unsigned {
        tracing::warn!(
            broker = bus::without_secrets(&config.nats),
            "the broker is not on this machine and commands are not signed yet: whoever can publish there can run commands here"
        );
    }
}

/// The supervisor at work: how it ends; dropped, it ends it.
type Supervision = oneshot::Receiver<Ending>;

/// The parts everything else is made of.
struct Parts {
    keeper: Keeper,
    bus: Bus,
    clock: Clock,
    counters: Arc<Counters>,
    instance: InstanceId,
    journal_id: JournalId,
    stop: watch::Receiver<Stop>,
    reload: watch::Receiver<u64>,
    nursery: Nursery,
}

/// Puts the supervisor and what it needs together, and starts it.
async fn assemble(
    config: &Config,
    parts: Parts,
    inlet: Inlet,
) -> Result<(Arc<Context>, Supervision), RunError> {
    let open = parts
        .keeper
        .open_subjects()
        .await
        .map_err(RunError::Keeper)?;
    let (calls, inbox) = mpsc::channel(CALLS);
    let (reports, reported) = mpsc::channel(REPORTS);
    let listed = watch::Sender::new(Vec::new());
    let context = Arc::new(context(config, &parts, &listed, calls.clone()));
    let births = Arc::clone(&context);
    let birth: Birth = Box::new(move |duty, born| bear(Arc::clone(&births), duty, born));
    let setup = Setup {
        config: config.clone(),
        clock: parts.clock,
        counters: parts.counters,
        birth,
        reports,
        calls: inbox,
        stop: parts.stop,
        runtime: Handle::current(),
        listed,
        open: open.into_iter().collect(),
    };
    tokio::spawn(report(parts.keeper, reported));
    tokio::spawn(tidy::run(Arc::clone(&context)));
    tokio::spawn(pump(inlet, calls));
    let supervision =
        supervisor::supervise_apart(setup).map_err(system("start the thread of the supervisor"))?;
    Ok((context, supervision))
}

fn context(
    config: &Config,
    parts: &Parts,
    listed: &watch::Sender<Vec<supervisor::view::Listed>>,
    calls: mpsc::Sender<Call>,
) -> Context {
    let footing = watch::Sender::new(Footing::default());
    let round_trip = watch::Sender::new(None);
    let permits = Arc::new(Semaphore::new(config.commands_at_once));
    let board = Arc::new(Board::default());
    Context {
        config: config.clone(),
        keeper: parts.keeper.clone(),
        voice: Voice {
            bus: parts.bus.clone(),
            node: config.node.clone(),
            station: config.station.clone(),
            instance: parts.instance,
            journal_id: parts.journal_id,
            footing: footing.subscribe(),
            counters: Arc::clone(&parts.counters),
        },
        clock: parts.clock.clone(),
        counters: Arc::clone(&parts.counters),
        stop: parts.stop.clone(),
        introduction: Introduction {
            keeper: parts.keeper.clone(),
            counters: Arc::clone(&parts.counters),
            clock: parts.clock.clone(),
            processes: listed.subscribe(),
            labels: config.labels.clone(),
            allowances: Allowances {
                methods: config.methods.clone(),
                state_dir: config.state_dir.clone(),
                results_bytes: config.results_budget,
                queue: config.queue,
                commands: config.commands_at_once,
                permits: Arc::clone(&permits),
            },
            interval: config.heartbeat,
            started_at: Timestamp::now(),
            round_trip: round_trip.subscribe(),
            board: Arc::clone(&board),
        },
        board,
        reload: parts.reload.clone(),
        footing,
        last_hello: watch::Sender::new(None),
        round_trip,
        revocations: Revocations::default(),
        transfers: Transfers::new(config.transfer_rate),
        nursery: parts.nursery.clone(),
        permits,
        supervisor: calls,
    }
}

fn bear(context: Arc<Context>, duty: Duty, born: Born) -> Life {
    match duty {
        Duty::Orders => Box::pin(process::run(context, born)),
        Duty::Desk => Box::pin(desk::run(context, born)),
        Duty::Heartbeat => Box::pin(heartbeat::run(context, born)),
        Duty::Courier => Box::pin(courier::run(context, born)),
        Duty::Transfers => Box::pin(transfers::run(context, born)),
        Duty::Local => Box::pin(local::run(context, born)),
        Duty::Logs => Box::pin(syslog::run(context, born)),
    }
}

/// Carries frames from the broker to the supervisor.
async fn pump(mut inlet: Inlet, calls: mpsc::Sender<Call>) {
    while let Some(arrived) = inlet.next().await {
        if calls.send(Call::Frame(arrived)).await.is_err() {
            return;
        }
    }
    // The supervisor is gone only when the agent is.
    calls.send(Call::SubscriptionLost).await.ok();
}

/// Writes faults down, one after the other, as soon as the journal lets it.
async fn report(keeper: Keeper, mut reported: mpsc::Receiver<FaultEvent>) {
    while let Some(event) = reported.recv().await {
        let mut attempt = 0;
        loop {
            match keeper.report(event.clone()).await {
                Ok(()) | Err(KeeperError::Gone | KeeperError::Contradiction(_)) => break,
                Err(KeeperError::Storage { .. }) => {
                    sleep(REPORT_RETRY.bound(attempt)).await;
                    attempt = attempt.saturating_add(1);
                }
            }
        }
    }
}

/// Says when it is ready, then waits for the supervisor's end.
async fn live(
    config: &Config,
    bus: &Bus,
    mut supervision: Supervision,
    ready: impl FnOnce(&str),
) -> Result<(), RunError> {
    let urls = bus::without_secrets(&config.nats);
    let mut first = Box::pin(first_link(bus));
    let connected = match timeout(FIRST_LINK, &mut first).await {
        Ok(Link::Refused(sentence)) => return Err(RunError::Broker { sentence }),
        Ok(Link::Up { .. } | Link::Down) => true,
        Err(_) => false,
    };
    if connected {
        ready(&format!("{}: ready, connected to {urls}", config.node));
    } else {
        ready(&format!(
            "{}: ready, waiting for the broker at {urls}",
            config.node
        ));
    }
    let ending = tokio::select! {
        ending = &mut supervision => ending,
        refused = refused_first(first), if !connected => {
            return Err(RunError::Broker { sentence: refused });
        }
    };
    match ending {
        Ok(Ending::Drained) => Ok(()),
        Ok(Ending::Forced) => Err(RunError::Forced),
        Ok(Ending::Escalated(reason)) => Err(RunError::Escalated { reason }),
        Err(_) => Err(RunError::Escalated {
            reason: "the supervisor itself panicked".to_owned(),
        }),
    }
}

/// Returns what became of the first connection, whenever that is.
async fn first_link(bus: &Bus) -> Link {
    let mut link = bus.link();
    match link.wait_for(|link| *link != Link::Down).await {
        Ok(link) => link.clone(),
        Err(_) => Link::Down,
    }
}

/// Returns when the very first connection, late as it is, was to a broker that is not used.
async fn refused_first(first: impl Future<Output = Link>) -> String {
    match first.await {
        Link::Refused(sentence) => sentence,
        Link::Up { .. } | Link::Down => std::future::pending().await,
    }
}

/// Says the last hello and lets it leave.
async fn farewell(context: &Context, bus: &Bus) {
    let beat = heartbeat::beat(context, Presence::Leaving);
    // A journal whose disk hangs must not keep the agent from ending.
    match timeout(FAREWELL, beat).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(error = chain(&error), "the last hello was not said"),
        Err(_) => tracing::warn!("the last hello was not said in time"),
    }
    bus.flush(FAREWELL).await;
}

/// Waits for the keeper to close the journal, if it can at once.
async fn close(thread: std::thread::JoinHandle<()>) {
    let ended = async {
        while !thread.is_finished() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    if timeout(FAREWELL, ended).await.is_err() {
        // Everything answered is durable; the file is closed by the end of the program.
        tracing::debug!("the journal was left open");
    }
}
