//! The inbox at work: one loop that takes files, submits them and moves them to where they end.
//!
//! ```text
//!   notices ─┐                        ┌─▶ flights: accept, then .done or .rejected
//!   scans  ──┼─▶ queue ─▶ folder job ─┤
//!   retries ─┘   (one at a time, off  └─▶ .rejected
//!                 the async threads)
//! ```
//!
//! Files are claimed, and their submissions begun, in the order they came. Up to [`MAX_IN_FLIGHT`]
//! submissions are on their way at once, so that the ledger can store many with one write. It does
//! not know what a ledger is.

use std::{
    collections::{HashSet, VecDeque},
    ffi::OsString,
    io,
    panic::AssertUnwindSafe,
    time::{Duration, SystemTime},
};

use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::{
    sync::watch as health,
    task::{JoinHandle, spawn_blocking},
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    AcceptError, InboxConfig, Submission,
    folder::Folder,
    intake::{self, Format},
    keep,
    listen::{Notice, Watch},
    names::Claimed,
    scan::{self, Scan},
    settle::Patience,
    take::{self, Candidate, Flight, Taken, Trigger},
};
use crate::view::{Problem, Receipt};

/// Submissions on their way at once: enough for the ledger to share its writes, few enough that the
/// messages of a thousand files are never all in memory.
pub const MAX_IN_FLIGHT: usize = 32;

/// Claimed files that may wait for another try. Beyond it nothing new is claimed: what cannot be
/// stored now is better left in the inbox, where people can see and take it back.
pub const MAX_RETRYING: usize = 32;

/// Names taken from the notices and not yet looked at. Beyond it notices wait in their channel.
const MAX_QUEUED: usize = 1_024;

/// How long one submission may take. A submission given up on is made again under the same intake.
const ACCEPT_TIMEOUT: Duration = Duration::from_secs(30);

/// First and longest wait before a claimed file is tried again.
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_LONGEST: Duration = Duration::from_secs(30);

/// Time between two sweeps of old files.
const SWEEP_EVERY: Duration = Duration::from_secs(600);

/// What can wake the loop.
enum Wake {
    Stop,
    Noticed(Notice),
    Reported(Report),
    Landed(Landed),
    Due,
}

/// What a folder job brought back.
enum Report {
    Scanned(io::Result<Scan>),
    Taken(Vec<Taken>),
    Swept(io::Result<usize>),
    /// The job panicked; what it was given is found again by a scan.
    Lost,
}

/// What became of a submission.
enum Landed {
    Accepted(Claimed, usize),
    Rejected(Claimed, Vec<Problem>),
    Again {
        claimed: Claimed,
        attempts: u32,
        reason: String,
    },
}

struct Retry {
    due: Instant,
    claimed: Claimed,
    attempts: u32,
}

/// The loop's state.
pub(super) struct Files {
    config: InboxConfig,
    folder: Folder,
    health: health::Sender<Option<String>>,
    watch: Option<Watch>,
    watched: Option<(u64, u64)>,
    job: Option<JoinHandle<Report>>,
    claims: VecDeque<(Claimed, u32)>,
    queue: VecDeque<(OsString, Trigger)>,
    retries: Vec<Retry>,
    patience: Patience,
    stuck: HashSet<OsString>,
    next_scan: Instant,
    next_sweep: Instant,
}

impl Files {
    pub(super) fn new(config: InboxConfig, health: health::Sender<Option<String>>) -> Self {
        let now = Instant::now();
        Self {
            folder: Folder::new(config.dir.clone()),
            config,
            health,
            watch: None,
            watched: None,
            job: None,
            claims: VecDeque::new(),
            queue: VecDeque::new(),
            retries: Vec::new(),
            patience: Patience::default(),
            stuck: HashSet::new(),
            next_scan: now,
            next_sweep: now,
        }
    }

    /// Creates the folders, finds what an earlier start left claimed, and begins to listen.
    pub(super) fn open(&mut self) -> io::Result<()> {
        self.folder.create()?;
        let (claims, strangers) = scan::claimed(&self.folder)?;
        if strangers > 0 {
            tracing::warn!(
                files = strangers,
                "files in .processing that the station did not put there are left alone"
            );
        }
        self.claims = claims.into_iter().map(|claimed| (claimed, 0)).collect();
        self.listen();
        Ok(())
    }

    /// Listens to the folder unless it does already. Without listening the scans still find all.
    fn listen(&mut self) {
        let identity = self.folder.identity();
        if self.watch.is_some() && self.watched == identity {
            return;
        }
        match Watch::begin(self.folder.root()) {
            Ok(watch) => {
                self.watch = Some(watch);
                self.watched = identity;
            }
            Err(error) => {
                self.watch = None;
                tracing::warn!(%error, "cannot listen to the inbox; files are found by scanning only");
            }
        }
    }

    /// Runs until told to stop, then waits for what is on its way.
    pub(super) async fn run<A, F>(mut self, accept: A, stop: CancellationToken)
    where
        A: Fn(Submission) -> F,
        F: Future<Output = Result<Receipt, AcceptError>> + Send + 'static,
    {
        let mut flights = FuturesUnordered::new();
        loop {
            self.begin_job(flights.len());
            let wake = self.wait(&stop, &mut flights).await;
            if matches!(wake, Wake::Stop) {
                break;
            }
            for (flight, submission) in self.judge(wake) {
                let accepted = AssertUnwindSafe(accept(submission)).catch_unwind();
                flights.push(fly(self.folder.clone(), flight, accepted).boxed());
            }
        }
        if let Some(job) = self.job.take()
            && let Ok(report) = job.await
        {
            // What was claimed but not begun is found by the next start.
            drop(self.judge(Wake::Reported(report)));
        }
        while let Some(landed) = flights.next().await {
            drop(self.judge(Wake::Landed(landed)));
        }
    }

    async fn wait(
        &mut self,
        stop: &CancellationToken,
        flights: &mut FuturesUnordered<BoxFuture<'static, Landed>>,
    ) -> Wake {
        let due = self.due(flights.len());
        let listening = self.queue.len() < MAX_QUEUED;
        let (watch, job) = (&mut self.watch, &mut self.job);
        tokio::select! {
            biased;
            () = stop.cancelled() => Wake::Stop,
            report = async { job.as_mut()?.await.ok() }, if job.is_some() => {
                self.job = None;
                Wake::Reported(report.unwrap_or(Report::Lost))
            }
            Some(landed) = flights.next() => Wake::Landed(landed),
            Some(notice) = async { Some(watch.as_mut()?.next().await) }, if listening => Wake::Noticed(notice),
            () = sleep_until(due) => Wake::Due,
        }
    }

    /// Returns when the next folder job can begin, if nothing else happens before.
    fn due(&self, in_flight: usize) -> Instant {
        // A job that cannot begin must not be due, or the loop would spin: the end of the running
        // job, or of a submission, wakes it.
        if self.job.is_some() {
            return Instant::now() + SWEEP_EVERY;
        }
        let scan = self.queue.is_empty().then_some(self.next_scan);
        let retry = self
            .retries
            .iter()
            .filter(|_| in_flight < MAX_IN_FLIGHT)
            .map(|retry| retry.due);
        retry.chain(scan).fold(self.next_sweep, Instant::min)
    }

    /// Begins the next folder job if none is running and there is something to do.
    fn begin_job(&mut self, in_flight: usize) {
        if self.job.is_some() {
            return;
        }
        let now = Instant::now();
        let folder = self.folder.clone();
        if now >= self.next_scan && self.queue.is_empty() {
            self.next_scan = now + self.config.timing.rescan;
            let (patience, stuck) = (std::mem::take(&mut self.patience), self.stuck.clone());
            let timing = self.config.timing;
            self.job = Some(spawn_blocking(move || {
                Report::Scanned(scan::scan(&folder, patience, &stuck, timing))
            }));
            return;
        }
        let candidates = self.candidates(MAX_IN_FLIGHT.saturating_sub(in_flight), now);
        if !candidates.is_empty() {
            self.job = Some(spawn_blocking(move || {
                Report::Taken(take::take(&folder, candidates))
            }));
        } else if now >= self.next_sweep {
            self.next_sweep = now + SWEEP_EVERY;
            let retention = self.config.retention;
            self.job = Some(spawn_blocking(move || {
                Report::Swept(keep::sweep(folder.root(), retention, SystemTime::now()))
            }));
        }
    }

    /// Returns what to take next: claims first, since they are older, then what lies in the inbox.
    fn candidates(&mut self, room: usize, now: Instant) -> Vec<Candidate> {
        let mut candidates = Vec::new();
        let (due, later) = self.retries.drain(..).partition(|retry| retry.due <= now);
        let due: Vec<Retry> = due;
        self.retries = later;
        self.claims
            .extend(due.into_iter().map(|retry| (retry.claimed, retry.attempts)));
        while candidates.len() < room
            && let Some((claimed, attempts)) = self.claims.pop_front()
        {
            candidates.push(Candidate::Claimed { claimed, attempts });
        }
        let fresh_allowed = self.retries.len() + self.claims.len() < MAX_RETRYING;
        while candidates.len() < room
            && fresh_allowed
            && let Some((name, trigger)) = self.queue.pop_front()
        {
            candidates.push(Candidate::Fresh { name, trigger });
        }
        candidates
    }

    /// Takes in what happened; returns the submissions that are to begin.
    fn judge(&mut self, wake: Wake) -> Vec<(Flight, Submission)> {
        match wake {
            Wake::Stop | Wake::Due => {}
            Wake::Noticed(Notice::Written(name)) => self.queue.push_back((name, Trigger::Written)),
            Wake::Noticed(Notice::Renamed(name)) => self.queue.push_back((name, Trigger::Renamed)),
            Wake::Noticed(Notice::Lost) | Wake::Reported(Report::Lost) => {
                self.next_scan = Instant::now();
            }
            Wake::Reported(Report::Scanned(result)) => self.scanned(result),
            Wake::Reported(Report::Taken(taken)) => {
                return taken
                    .into_iter()
                    .filter_map(|one| self.taken(one))
                    .collect();
            }
            Wake::Reported(Report::Swept(Ok(0))) => {}
            Wake::Reported(Report::Swept(Ok(files))) => {
                tracing::info!(files, "removed old files from .done and .rejected");
            }
            Wake::Reported(Report::Swept(Err(error))) => {
                tracing::warn!(%error, "cannot remove old files from .done and .rejected");
            }
            Wake::Landed(landed) => self.landed(landed),
        }
        Vec::new()
    }

    fn scanned(&mut self, result: io::Result<Scan>) {
        match result {
            Ok(scan) => {
                self.listen();
                self.patience = scan.patience;
                self.stuck = scan.stuck;
                self.queue.extend(scan.due);
                if let Some(next) = scan.next {
                    self.next_scan = self.next_scan.min(Instant::now() + next);
                }
                if self.stuck.is_empty() {
                    self.say(None);
                }
            }
            Err(error) => {
                let path = self.folder.root().display().to_string();
                self.say(Some(format!("cannot scan the inbox {path}: {error}")));
            }
        }
    }

    fn taken(&mut self, taken: Taken) -> Option<(Flight, Submission)> {
        match taken {
            Taken::Work(flight, submission) => return Some((flight, submission)),
            Taken::Rejected { claimed, problems } => log_rejected(&claimed, &problems),
            Taken::Incomplete { name, look } => {
                let now = std::time::Instant::now();
                self.patience.incomplete(&name, look, now);
                let give_up = Instant::now() + self.config.timing.give_up;
                self.next_scan = self.next_scan.min(give_up);
            }
            Taken::Left { name } => self.patience.forget(&name),
            Taken::Stuck { name, error } => {
                let file = super::names::escaped(&name);
                self.say(Some(format!(
                    "cannot move {file} out of the inbox: {error}"
                )));
                self.stuck.insert(name);
            }
            Taken::Unfinished {
                claimed,
                attempts,
                error,
            } => self.again(claimed, attempts, &error.to_string()),
        }
        None
    }

    fn landed(&mut self, landed: Landed) {
        match landed {
            Landed::Accepted(claimed, messages) => {
                tracing::info!(file = claimed.name, intake = %claimed.intake, messages, "accepted a file");
            }
            Landed::Rejected(claimed, problems) => log_rejected(&claimed, &problems),
            Landed::Again {
                claimed,
                attempts,
                reason,
            } => self.again(claimed, attempts, &reason),
        }
    }

    fn again(&mut self, claimed: Claimed, attempts: u32, reason: &str) {
        let wait = RETRY_FIRST
            .saturating_mul(1 << attempts.min(16))
            .min(RETRY_LONGEST);
        tracing::warn!(file = claimed.name, intake = %claimed.intake, reason, wait_ms = wait.as_millis(), "cannot finish a claimed file; trying again");
        self.retries.push(Retry {
            due: Instant::now() + wait,
            claimed,
            attempts: attempts.saturating_add(1),
        });
    }

    /// Says what is in the way, once for every change.
    fn say(&self, trouble: Option<String>) {
        self.health.send_if_modified(|known| {
            if *known == trouble {
                return false;
            }
            if let Some(trouble) = &trouble {
                tracing::error!(trouble, "the inbox is in trouble");
            }
            *known = trouble;
            true
        });
    }
}

fn log_rejected(claimed: &Claimed, problems: &[Problem]) {
    let reason = problems.first().map(|problem| problem.reason.as_str());
    tracing::warn!(
        file = claimed.name,
        problems = problems.len(),
        reason,
        "rejected a file"
    );
}

/// Carries one submission to its end.
async fn fly<E>(
    folder: Folder,
    flight: Flight,
    accepted: impl Future<Output = Result<Result<Receipt, AcceptError>, E>>,
) -> Landed {
    let Flight {
        claimed,
        attempts,
        bytes,
    } = flight;
    let again = |reason: String| Landed::Again {
        claimed: claimed.clone(),
        attempts,
        reason,
    };
    let outcome = match timeout(ACCEPT_TIMEOUT, accepted).await {
        Err(_) => return again(format!("no answer in {} s", ACCEPT_TIMEOUT.as_secs())),
        Ok(Err(_)) => return again("storing it panicked".to_owned()),
        Ok(Ok(Err(AcceptError::Unavailable(reason)))) => return again(reason),
        Ok(Ok(Ok(receipt))) => Ok(receipt),
        Ok(Ok(Err(AcceptError::Rejected(problems)))) => {
            let format = Format::of_name(claimed.name.as_ref());
            Err(intake::place(problems, &bytes, format))
        }
    };
    let file = claimed.clone();
    let moved = spawn_blocking(move || match outcome {
        Ok(receipt) => {
            folder.finish_done(&file, &receipt, jiff::Timestamp::now())?;
            Ok(Landed::Accepted(file, receipt.messages.len()))
        }
        Err(problems) => {
            folder.finish_rejected(&file, Some(&bytes), &problems)?;
            Ok(Landed::Rejected(file, problems))
        }
    });
    match moved.await {
        Ok(Ok(landed)) => landed,
        Ok::<io::Result<Landed>, _>(Err(error)) => again(format!("cannot move it: {error}")),
        Err(_) => again("moving it panicked".to_owned()),
    }
}
