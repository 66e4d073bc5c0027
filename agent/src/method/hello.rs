//! What a hello says: gathered from the journal, the supervisor's list and the counters.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use jiff::Timestamp;
use steward_protocol::{Budget, Hello, limits};
use tokio::sync::{Semaphore, watch};

use crate::{
    clock::Clock,
    counters::{Counter, Counters},
    journal::{Snapshot, spool},
    keeper::{Keeper, KeeperError},
    method::Methods,
    supervisor::view::Listed,
    syslog::board::Board,
};

mod facts;

/// Gathers hellos.
#[derive(Debug, Clone)]
pub struct Introduction {
    /// What the journal says.
    pub keeper: Keeper,
    /// What was counted.
    pub counters: Arc<Counters>,
    /// The clocks.
    pub clock: Clock,
    /// The processes.
    pub processes: watch::Receiver<Vec<Listed>>,
    /// Labels from the config.
    pub labels: BTreeMap<String, String>,
    /// What there is to use.
    pub allowances: Allowances,
    /// Time between two hellos.
    pub interval: Duration,
    /// When this start of the agent began.
    pub started_at: Timestamp,
    /// Round trip of the last hello and its welcome, once measured.
    pub round_trip: watch::Receiver<Option<Duration>>,
    /// What is known of the logs.
    pub board: Arc<Board>,
}

/// What the agent may do and use, and where it keeps what it writes.
#[derive(Debug, Clone)]
pub struct Allowances {
    /// The methods it offers.
    pub methods: Methods,
    /// The directory with its state.
    pub state_dir: PathBuf,
    /// Most bytes of output kept until confirmed.
    pub results_bytes: u64,
    /// Most orders taken but not started.
    pub queue: usize,
    /// Most commands that run at once.
    pub commands: usize,
    /// As many as may run still.
    pub permits: Arc<Semaphore>,
}

/// Whether the agent is about to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// It stays.
    Staying,
    /// It is about to end.
    Leaving,
}

impl Introduction {
    /// Returns a hello of this moment.
    ///
    /// # Errors
    ///
    /// Fails when the journal cannot be asked.
    pub async fn hello(&self, presence: Presence) -> Result<Hello, KeeperError> {
        let journal = self.keeper.snapshot().await?;
        let processes = self
            .processes
            .borrow()
            .iter()
            .take(limits::MAX_IDS)
            .map(Listed::view)
            .collect();
        let round_trip = *self.round_trip.borrow();
        let budgets = self.budgets(&journal);
        Ok(Hello {
            counter: journal.counter,
            boot_id: self.clock.boot_id().to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            at: Timestamp::now(),
            started_at: self.started_at,
            interval_ms: millis(self.interval),
            round_trip_us: round_trip
                .map(|time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX)),
            labels: self.labels.clone(),
            lanes: journal
                .lanes
                .into_iter()
                .map(|(subject, seq)| (subject.to_string(), seq))
                .collect(),
            open: journal.open,
            unconfirmed: journal.unconfirmed,
            processes,
            counters: self.counted(journal.dropped),
            leaving: presence == Presence::Leaving,
            facts: Some(facts::gather(
                &self.allowances.state_dir,
                &self.allowances.methods,
            )),
            budgets,
        })
    }

    /// What was counted, with the events that had to go: those are counted across restarts, so that the
    /// count arrives.
    fn counted(&self, dropped: u64) -> BTreeMap<String, u64> {
        let mut counted = self.counters.all();
        if dropped > 0 {
            let name = Counter::EventsDropped.as_str().to_owned();
            *counted.entry(name).or_default() += dropped;
        }
        self.board.count(&mut counted);
        counted
    }
}

impl Introduction {
    fn budgets(&self, journal: &Snapshot) -> BTreeMap<String, Budget> {
        let allowances = &self.allowances;
        let free = allowances.permits.available_permits();
        let rows = [
            (
                "results_bytes",
                journal.held.output_bytes,
                allowances.results_bytes,
            ),
            (
                "events",
                journal.held.events as u64,
                spool::MAX_EVENTS as u64,
            ),
            (
                "queue",
                journal.held.waiting as u64,
                allowances.queue as u64,
            ),
            (
                "commands",
                allowances.commands.saturating_sub(free) as u64,
                allowances.commands as u64,
            ),
        ];
        let logs = self.board.budget();
        rows.into_iter()
            .map(|(name, used, limit)| (name.to_owned(), Budget { used, limit }))
            .chain(logs.map(|budget| ("log_spool_bytes".to_owned(), budget)))
            .collect()
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
