//! Threads that look through batches ahead of the one who reads, so that neither waits for the other.
//!
//! What they find is taken in the order in which it was asked for. How much is asked for ahead decides who asks; the crew
//! knows neither lines nor times.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    thread::{self, JoinHandle},
};

use super::{
    super::{LogsError, disk::Disk, index::Entry},
    query::Query,
    sift::{Share, Sieve, Sifted, Source},
};

/// Threads of one reader, at most.
const HANDS: usize = 4;

/// Batches to be looked through, one after the other.
struct Task<D: Disk> {
    source: Arc<Source<D>>,
    entries: Vec<Entry>,
    room: usize,
    answer: Sender<Vec<Sifted>>,
}

/// The threads of one reader, which begin when they are first needed.
pub(super) struct Crew<D: Disk> {
    disk: D,
    /// For what is done without them.
    own: Sieve,
    /// What they take from; as many tasks as their readers have asked for, who keep to their room.
    tasks: Option<Sender<Task<D>>>,
    hands: Vec<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
}

impl<D: Disk> Crew<D> {
    pub(super) fn new(disk: D, query: Query) -> Result<Self, LogsError> {
        Ok(Self {
            disk,
            own: Sieve::new(query)?,
            tasks: None,
            hands: Vec::new(),
            stop: Arc::default(),
        })
    }

    pub(super) fn disk(&self) -> &D {
        &self.disk
    }

    pub(super) fn query(&self) -> &Query {
        &self.own.query
    }

    /// Looks through a batch at once.
    pub(super) fn sift(&mut self, source: &Source<D>, entry: &Entry, share: Share) -> Sifted {
        self.own.sift(&self.disk, source, entry, share)
    }

    /// Returns how many threads there are; none if there is but one processor, or the system gives none.
    pub(super) fn hands(&mut self) -> Result<usize, LogsError> {
        if self.tasks.is_none() {
            let (tasks, taken) = channel();
            let taken = Arc::new(Mutex::new(taken));
            let cores = thread::available_parallelism().map_or(1, usize::from);
            for _ in 0..if cores > 1 { cores.min(HANDS) } else { 0 } {
                let (disk, taken, stop) = (
                    self.disk.clone(),
                    Arc::clone(&taken),
                    Arc::clone(&self.stop),
                );
                let mut sieve = Sieve::new(self.own.query.clone())?;
                let work = move || work(&disk, &mut sieve, &taken, &stop);
                let begun = thread::Builder::new().name("logs-read".to_owned());
                self.hands.extend(begun.spawn(work));
            }
            self.tasks = Some(tasks);
        }
        Ok(self.hands.len())
    }

    /// Lets the threads look through batches of a file. Nothing comes if a thread has ended before its time.
    pub(super) fn ask(
        &self,
        source: &Arc<Source<D>>,
        entries: Vec<Entry>,
        room: usize,
    ) -> Receiver<Vec<Sifted>> {
        let (answer, answered) = channel();
        let task = Task {
            source: Arc::clone(source),
            entries,
            room,
            answer,
        };
        // Where nobody takes it, its answer is dropped with it, which is noticed.
        self.tasks.as_ref().and_then(|tasks| tasks.send(task).ok());
        answered
    }
}

impl<D: Disk> Drop for Crew<D> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.tasks = None;
        for hand in self.hands.drain(..) {
            // Whoever waited for what it did was told.
            hand.join().ok();
        }
    }
}

fn work<D: Disk>(disk: &D, sieve: &mut Sieve, tasks: &Mutex<Receiver<Task<D>>>, stop: &AtomicBool) {
    let next = || {
        let tasks = tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.recv().ok()
    };
    while let Some(task) = next() {
        let mut sifted = Vec::with_capacity(task.entries.len());
        for entry in &task.entries {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            let share = Share {
                skip: 0,
                room: task.room,
            };
            sifted.push(sieve.sift(disk, &task.source, entry, share));
        }
        // Nobody need be reading any more.
        task.answer.send(sifted).ok();
    }
}
