//! Logs of nodes at the station: stored as they come, in order and once, and read by people.
//!
//! ```text
//! bus ─ batch ─▶ desk ─ checked ─▶ writer (one thread) ─▶ segments ─▶ readers
//!                                     └─ kept ─▶ bus           └─▶ relays, mirror
//!                                        (after fsync)
//! ```
//!
//! Below `logs/<node>/<domain>/` are segments: the batches themselves, each with a head in front, and
//! an index beside. All that matters is in these files; what is in memory follows from them.
//! The ledger knows nothing of logs, and the loop only of what is wrong with them.

pub mod census;
pub mod desk;
pub mod disk;
pub mod follow;
pub mod index;
pub mod line;
pub mod mirror;
pub mod name;
pub mod outlet;
pub mod past;
pub mod read;
pub mod relay;
pub mod removed;
pub mod retain;
pub mod store;
pub mod take;
#[cfg(test)]
mod tests;
pub mod words;
mod writer;

use std::{
    collections::{BTreeMap, HashMap},
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use steward_protocol::{InstanceId, NodeName, logs::BatchError};
use tokio::sync::{Semaphore, watch};

use self::{disk::Files, name::Line, store::Done};
use crate::station::chain;

pub use self::desk::{Desk, Ground, open};

/// The directory of logs, in the state directory.
pub const DIR: &str = "logs";

/// Readers at work at once; more wait their turn. Each has its threads and its memory.
const READERS: usize = 4;

/// What cannot be done with stored logs.
#[derive(Debug, thiserror::Error)]
pub enum LogsError {
    /// The disk says no.
    #[error("{doing} {path}")]
    Disk {
        /// What was tried.
        doing: &'static str,
        /// With which file, below the directory of logs.
        path: String,
        /// Why not.
        source: io::Error,
    },
    /// A file is not what was written.
    #[error("understand {path}: it is damaged")]
    Damaged {
        /// Which file.
        path: String,
    },
    /// A batch is not what was written.
    #[error("read the batch at byte {at} of {path}")]
    Batch {
        /// Where its head begins.
        at: u64,
        /// In which file.
        path: String,
        /// What is wrong.
        source: BatchError,
    },
    /// There is no memory to unpack.
    #[error("prepare to unpack batches")]
    Unpacker(#[source] steward_protocol::logs::PackError),
}

/// What was counted since the start.
#[derive(Debug, Default)]
struct Counters {
    batches: AtomicU64,
    records: AtomicU64,
    bytes: AtomicU64,
    twice: AtomicU64,
    again: AtomicU64,
    not_welcomed: AtomicU64,
    refused: AtomicU64,
    /// By relays and the mirror.
    passed_on: AtomicU64,
    missed: AtomicU64,
}

/// What all who have to do with logs know.
#[derive(Debug)]
struct Shared {
    files: Files,
    /// The present start of every node's agent, and below which number all is settled.
    welcomed: Mutex<HashMap<NodeName, (InstanceId, u64)>>,
    /// The number of the newest segment, and what of it is durable, of every line that has grown since
    /// the start. A few hundred bytes for each domain of each node.
    tips: Mutex<BTreeMap<Line, (u64, u64)>>,
    /// Changes with every commit.
    changes: watch::Sender<u64>,
    /// Whether what a crash left behind was looked at, so that all that is durable is known to be.
    looked_through: watch::Sender<bool>,
    trouble: Mutex<Option<String>>,
    counters: Counters,
    readers: Arc<Semaphore>,
}

/// The way to the logs.
#[derive(Debug, Clone)]
pub struct Logs {
    shared: Arc<Shared>,
}

impl Logs {
    /// Returns the way to the logs of the station that keeps its state in `state_dir`.
    pub fn new(state_dir: &Path) -> Self {
        let (changes, _) = watch::channel(0);
        let shared = Shared {
            files: Files::new(state_dir.join(DIR)),
            welcomed: Mutex::default(),
            tips: Mutex::default(),
            changes,
            looked_through: watch::channel(false).0,
            trouble: Mutex::default(),
            counters: Counters::default(),
            readers: Arc::new(Semaphore::new(READERS)),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Returns the directory of logs.
    pub fn root(&self) -> PathBuf {
        self.shared.files.root().to_owned()
    }

    /// Notes which start of an agent was welcomed. Only from then on its batches are taken.
    pub fn welcome(&self, node: &NodeName, instance: InstanceId, low: u64) {
        lock(&self.shared.welcomed).insert(node.clone(), (instance, low));
    }

    /// Returns why nothing can be stored, if that is so.
    pub fn trouble(&self) -> Option<String> {
        lock(&self.shared.trouble).clone()
    }

    /// Returns what was counted since the start.
    pub fn counted(&self) -> [(&'static str, u64); 9] {
        let counters = &self.shared.counters;
        [
            ("log_batches", &counters.batches),
            ("log_records", &counters.records),
            ("log_bytes", &counters.bytes),
            ("log_batches_twice", &counters.twice),
            ("log_batches_again", &counters.again),
            ("log_batches_not_welcomed", &counters.not_welcomed),
            ("log_batches_refused", &counters.refused),
            ("log_records_passed_on", &counters.passed_on),
            ("log_records_not_passed_on", &counters.missed),
        ]
        .map(|(name, count)| (name, count.load(Ordering::Relaxed)))
    }

    /// Returns a number that changes with every commit of logs.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changes.subscribe()
    }

    /// Waits until what a crash left behind was looked at.
    pub async fn is_looked_through(&self) {
        // The sender lives as long as this.
        let mut looked = self.shared.looked_through.subscribe();
        looked.wait_for(|looked| *looked).await.ok();
    }

    fn looked_through(&self) {
        self.shared.looked_through.send_replace(true);
    }

    /// Counts what a relay or the mirror has passed on, and what was removed before it could.
    fn count_passed(&self, messages: u64, missed: u64) {
        let counters = &self.shared.counters;
        counters.passed_on.fetch_add(messages, Ordering::Relaxed);
        counters.missed.fetch_add(missed, Ordering::Relaxed);
    }

    /// Returns the right to read, as soon as there is room.
    pub async fn turn(&self) -> Option<tokio::sync::OwnedSemaphorePermit> {
        Arc::clone(&self.shared.readers).acquire_owned().await.ok()
    }

    /// Returns the disk the logs are on.
    pub fn files(&self) -> &Files {
        &self.shared.files
    }

    /// Returns the lines that have grown since the start, and how far they are.
    pub fn tips(&self) -> BTreeMap<Line, (u64, u64)> {
        lock(&self.shared.tips).clone()
    }

    fn instance(&self, node: &NodeName) -> Option<(InstanceId, u64)> {
        lock(&self.shared.welcomed).get(node).copied()
    }

    fn count_stranger(&self) {
        self.shared
            .counters
            .not_welcomed
            .fetch_add(1, Ordering::Relaxed);
    }

    /// Notes what came of a commit. Returns what to tell of, the first time it goes wrong.
    fn note(&self, done: &Done) -> Option<String> {
        let counters = &self.shared.counters;
        counters.batches.fetch_add(done.stored, Ordering::Relaxed);
        counters.records.fetch_add(done.records, Ordering::Relaxed);
        counters.bytes.fetch_add(done.bytes, Ordering::Relaxed);
        counters.twice.fetch_add(done.twice, Ordering::Relaxed);
        counters.again.fetch_add(done.again, Ordering::Relaxed);
        let refused = done.refused.len() as u64;
        counters.refused.fetch_add(refused, Ordering::Relaxed);
        let mut trouble = lock(&self.shared.trouble);
        let told = match done.failed.first() {
            Some((_, error)) => {
                let text = format!("failed to {}", chain(error));
                trouble.replace(text.clone()).is_none().then_some(text)
            }
            None => {
                if !done.tips.is_empty() && trouble.take().is_some() {
                    tracing::info!("logs can be stored again");
                }
                None
            }
        };
        drop(trouble);
        if !done.tips.is_empty() {
            let tips = done
                .tips
                .iter()
                .map(|(line, number, bytes)| (line.clone(), (*number, *bytes)));
            lock(&self.shared.tips).extend(tips);
            self.shared.changes.send_modify(|count| *count += 1);
        }
        told
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
