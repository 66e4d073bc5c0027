//! Running many schedules, on all cores, and one of them with a trace.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use super::{
    book::Book,
    bug::Bug,
    faults::Tally,
    world::{Terms, World},
};

pub use super::{
    check::{Violation, Wrong},
    faults::Kind,
    world::Report,
};

/// Schedules a worker takes at a time.
const CHUNK: u64 = 64;

/// Places beyond the messages themselves: an operator may repeat a few.
const SPARE: u64 = 4;

/// Which schedules, and how.
#[derive(Debug, Clone, Copy)]
pub struct Job {
    /// The first seed.
    pub seed: u64,
    /// How many.
    pub schedules: u64,
    /// Messages each.
    pub messages: u64,
    /// Workers.
    pub workers: usize,
    /// A deliberate bug.
    pub bug: Option<Bug>,
    /// What to do when one goes wrong.
    pub then: Then,
}

/// What to do when a schedule goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// Begin no other.
    Stop,
    /// Run the others all the same.
    GoOn,
}

/// What many schedules came to.
#[derive(Debug, Default)]
pub struct Sum {
    /// Schedules run.
    pub schedules: u64,
    /// Schedules without any fault.
    pub calm: u64,
    /// Deliveries accepted.
    pub deliveries: u64,
    /// Commands started.
    pub starts: u64,
    /// Final states, in the order of [`steward_protocol::State::ALL`].
    pub ends: [u64; 13],
    /// The faults.
    pub tally: Tally,
    /// Longest time from the heal to the last final state, in milliseconds.
    pub settled: u64,
    /// A number that differs when any schedule went another way.
    pub fingerprint: u64,
    /// The seeds that went wrong, the lowest first, and how.
    pub violations: Vec<(u64, Violation)>,
    /// How long it took.
    pub elapsed: Duration,
}

impl Sum {
    fn add(&mut self, seed: u64, report: Report) {
        self.schedules += 1;
        self.calm += u64::from(report.tally.total() == 0);
        self.deliveries += report.deliveries;
        self.starts += report.starts;
        for (sum, more) in self.ends.iter_mut().zip(report.ends) {
            *sum += more;
        }
        self.tally.add(&report.tally);
        self.settled = self.settled.max(report.settled);
        self.fingerprint = self.fingerprint.wrapping_add(fingerprint(seed, &report));
        if let Some(violation) = report.violation {
            self.violations.push((seed, violation));
        }
    }

    fn merge(&mut self, other: Self) {
        self.schedules += other.schedules;
        self.calm += other.calm;
        self.deliveries += other.deliveries;
        self.starts += other.starts;
        for (sum, more) in self.ends.iter_mut().zip(other.ends) {
            *sum += more;
        }
        self.tally.add(&other.tally);
        self.settled = self.settled.max(other.settled);
        self.fingerprint = self.fingerprint.wrapping_add(other.fingerprint);
        self.violations.extend(other.violations);
    }
}

/// Mixes what a schedule came to into one number.
fn fingerprint(seed: u64, report: &Report) -> u64 {
    let mix = |sum: u64, more: u64| {
        (sum ^ more)
            .wrapping_mul(0x9E37_79B9_7F4A_7C15)
            .rotate_left(29)
    };
    let parts = [report.starts, report.settled, report.deliveries];
    let counts = Kind::ALL.map(|kind| report.tally.of(kind));
    let all = parts.into_iter().chain(report.ends).chain(counts);
    all.fold(seed, mix)
}

/// Runs schedules until all are done or one goes wrong. Calls `progress` now and then.
pub fn run(job: Job, progress: impl Fn(u64) + Sync) -> Sum {
    let begun = Instant::now();
    let next = AtomicU64::new(0);
    let done = AtomicU64::new(0);
    let stop = AtomicBool::new(false);
    let total = Mutex::new(Sum::default());
    thread::scope(|scope| {
        for _ in 0..job.workers.max(1) {
            scope.spawn(|| {
                let book = Book::write(size(job.messages + SPARE));
                let mut sum = Sum::default();
                while !stop.load(Ordering::Relaxed) {
                    let from = next.fetch_add(CHUNK, Ordering::Relaxed);
                    if from >= job.schedules {
                        break;
                    }
                    let to = (from + CHUNK).min(job.schedules);
                    for index in from..to {
                        let seed = job.seed.wrapping_add(index);
                        let report = World::new(&book, seed, terms(&job, false)).run();
                        let wrong = report.violation.is_some();
                        sum.add(seed, report);
                        if wrong && job.then == Then::Stop {
                            stop.store(true, Ordering::Relaxed);
                            break;
                        }
                    }
                    progress(done.fetch_add(to - from, Ordering::Relaxed) + (to - from));
                }
                total
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .merge(sum);
            });
        }
    });
    let mut sum = total.into_inner().unwrap_or_else(PoisonError::into_inner);
    sum.violations.sort_by_key(|(seed, _)| *seed);
    sum.elapsed = begun.elapsed();
    sum
}

/// Runs one schedule with a trace.
pub fn replay(seed: u64, messages: u64, bug: Option<Bug>) -> Report {
    let book = Book::write(size(messages + SPARE));
    let job = Job {
        seed,
        schedules: 1,
        messages,
        workers: 1,
        bug,
        then: Then::Stop,
    };
    World::new(&book, seed, terms(&job, true)).run()
}

fn terms(job: &Job, traced: bool) -> Terms {
    Terms {
        messages: job.messages,
        spare: SPARE,
        bug: job.bug,
        traced,
    }
}

fn size(messages: u64) -> usize {
    usize::try_from(messages).unwrap_or(usize::MAX)
}
