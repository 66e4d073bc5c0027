//! Files that programs write lines to: followed through rotation, truncation and time without the agent, and noted only
//! when what was read is durable.
//!
//! ```text
//! listing ─▶ settle (which file is which) ─▶ book ─▶ follow (read, cut) ─▶ portion ─▶ feed
//!                                             ▲                                        │ durable
//!                                           notes ◀────────────────────────────────────┘
//! ```
//!
//! The system's hints only say where to look first; a listing every few seconds is what counts.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    path::{Path, PathBuf},
    sync::atomic::Ordering,
    time::Duration,
};

use steward_protocol::logs::Micros;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

pub(crate) use self::follow::MAX_OPEN;
pub(super) use self::{book::hash, lines::trimmed};
use self::{
    follow::{Flight, Follower, Turn},
    note::{Found, Notes},
    watch::Watch,
};
use super::{
    InputError, LAST, LOOK, Work,
    seen::{Noted, source},
};
use crate::{
    config::syslog::Files,
    syslog::{
        route::Tell,
        spool::writer::{Gone, Receipt},
    },
};

mod book;
mod follow;
mod handle;
mod kin;
mod lines;
mod list;
mod look;
mod note;
mod settle;
mod watch;

/// Where notes are, in the directory of logs.
const DIR: &str = "files";

/// Bytes of files that are on their way to the disk: twice what the spool holds in memory before it writes at once.
const FLIGHT: u64 = 2 << 20;

/// Portions on their way: files with little in each.
const FLIGHTS: usize = 256;

/// How often everything is listed while hints tell of most of it.
const RESCAN: Duration = Duration::from_secs(10);

/// How often it is without hints, and for files that hints do not tell of.
const RESCAN_BLIND: Duration = Duration::from_secs(1);

/// How soon it is again when a file is not where it was.
const RESCAN_SOON: Duration = Duration::from_millis(150);

/// Listings take at most this part of the time, also when names change all the time.
const SCAN_SHARE: u32 = 20;

/// How long hints are gathered: a program that writes line by line wakes nobody for each.
const BREATH: Duration = Duration::from_millis(20);

/// Pause before notes are tried again on a disk that does not take them.
const AGAIN: Duration = Duration::from_secs(1);

/// Returns up to when an input has noted what of which source. What cannot be read now is not read by the input either.
pub(super) fn noted(dir: &Path, name: &str) -> Noted {
    let notes = Notes::of(&dir.join(DIR), name);
    let book = notes.load().map(|(book, _)| book).unwrap_or_default();
    let logs = book.logs.iter();
    Noted {
        stamp: book.stamp,
        sources: logs
            .map(|(name, log)| (source(name), Micros(log.stamp)))
            .collect(),
    }
}

/// Returns how many files there are for an input now.
pub(crate) fn count(files: &Files) -> usize {
    let listing = list::Patterns::new(files).list();
    let wanted = listing.entries.iter().filter(|entry| entry.is_wanted);
    wanted.count()
}

/// Follows files until told to end.
pub(super) async fn run(work: Work, files: Files) -> Result<(), InputError> {
    let notes = Notes::of(&work.dir.join(DIR), &work.input.name);
    let noted = notes.load().map_err(|error| work.receiving(error))?;
    match noted.1 {
        Found::Damaged => tracing::error!(
            input = %work.input.name,
            "the notes how far files were read are damaged: everything is read again"
        ),
        Found::Nothing | Found::Notes => {}
    }
    let follower = Box::new(Follower::new(&work.input, &files, noted, work.seen.take()));
    let watch = Watch::new()
        .inspect_err(|error| tracing::warn!(%error, "files are not watched, only listed"))
        .ok();
    let mut shell = Shell {
        work,
        follower: Some(follower),
        notes: Some(notes),
        watch,
        flights: VecDeque::new(),
        bytes: 0,
        saved: HashMap::new(),
        scan_at: Instant::now(),
        is_noted: false,
        unnoted: None,
        scanned_at: Instant::now(),
        scan_took: Duration::ZERO,
    };
    match shell.follow().await {
        Ok(()) | Err(End::Stopped) => shell.finish().await,
        Err(End::Gone) => Err(InputError::Gone(Gone)),
    }
}

/// Why following ends.
enum End {
    Stopped,
    Gone,
}

impl From<Gone> for End {
    fn from(_: Gone) -> Self {
        Self::Gone
    }
}

/// A portion on its way to the disk.
struct Flying {
    flight: Flight,
    receipt: Receipt,
}

struct Shell {
    work: Work,
    /// Elsewhere while it reads.
    follower: Option<Box<Follower>>,
    notes: Option<Notes>,
    watch: Option<Watch>,
    flights: VecDeque<Flying>,
    /// Bytes of them.
    bytes: u64,
    /// What was noted of each log, in short.
    saved: HashMap<PathBuf, u64>,
    scan_at: Instant,
    is_noted: bool,
    /// How many portions are to be noted until all is that the spool had beyond the notes.
    unnoted: Option<usize>,
    /// When everything was listed last, and how long that took.
    scanned_at: Instant,
    scan_took: Duration,
}

impl Shell {
    async fn follow(&mut self) -> Result<(), End> {
        self.scan().await?;
        let mut looks = tokio::time::interval(LOOK / 2);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            self.read().await?;
            self.rest().await?;
            let scan_at = self.scan_at;
            let stop = self.work.stop.clone();
            let hinted = async {
                match &self.watch {
                    Some(watch) => watch.wait().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => return Err(End::Stopped),
                first = front(&mut self.flights) => self.landed(first?).await?,
                // Files that are written to all the time do not hold it up.
                () = sleep_until(scan_at) => self.scan().await?,
                _ = looks.tick() => {
                    self.work.feed.tell(Tell::Due)?;
                    if let Some(follower) = &mut self.follower {
                        follower.tick();
                        self.work.feed.tally().trouble(follower.trouble());
                    }
                }
                () = hinted => self.hinted().await?,
            }
        }
    }

    /// Reads and hands over for as long as there is something, and not too much is on its way.
    async fn read(&mut self) -> Result<(), End> {
        let is_idle = |shell: &Self| shell.follower.as_ref().is_some_and(|one| one.is_idle());
        while self.bytes < FLIGHT && self.flights.len() < FLIGHTS && !is_idle(self) {
            let Some(turn) = self.ask(|follower| follower.turn()).await? else {
                break;
            };
            self.hand_over(turn).await?;
        }
        if let Some(follower) = &self.follower
            && follower.is_doubtful
        {
            self.scan_at = self.scan_at.min(Instant::now() + RESCAN_SOON);
        }
        Ok(())
    }

    /// Notes what is left once everything there is was read and is durable.
    async fn rest(&mut self) -> Result<(), End> {
        if self.work.noted.is_cancelled() || !self.flights.is_empty() {
            return Ok(());
        }
        let Some(follower) = self.follower.as_mut().filter(|one| one.is_idle()) else {
            return Ok(());
        };
        let names = follower.give_up();
        let has_all = follower.has_all();
        if follower.may_come() {
            self.scan_at = self.scan_at.min(Instant::now() + RESCAN_SOON);
        }
        if !names.is_empty() {
            self.save(names).await?;
        }
        if has_all {
            self.work.noted.cancel();
        }
        Ok(())
    }

    async fn hand_over(&mut self, turn: Turn) -> Result<(), End> {
        let (done, receipt) = self.work.feed.receipt();
        let (feed, stop) = (self.work.feed.clone(), self.work.stop.clone());
        let mut put = std::pin::pin!(feed.put(turn.portion, Some(done)));
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return Err(End::Stopped),
                put = &mut put => break put?,
                first = front(&mut self.flights) => self.landed(first?).await?,
            }
        }
        self.bytes += turn.flight.bytes;
        self.flights.push_back(Flying {
            flight: turn.flight,
            receipt,
        });
        if self.unnoted.is_none() && self.follower.as_ref().is_some_and(|one| one.has_all()) {
            self.unnoted = Some(self.flights.len());
        }
        Ok(())
    }

    /// Notes what is durable: the first portion, and those behind it of which it is true as well. From then on the spool need
    /// not have them; where it is not to be noted yet, delivery waits.
    async fn landed(&mut self, first: Flying) -> Result<(), End> {
        let mut landed = vec![first];
        while let Some(next) = self.flights.front_mut()
            && next.receipt.durable.try_recv().is_ok()
        {
            landed.extend(self.flights.pop_front());
        }
        self.bytes = self.flights.iter().map(|next| next.flight.bytes).sum();
        let flights = landed.iter().map(|landed| &landed.flight);
        let names: BTreeSet<PathBuf> = flights.clone().map(|flight| flight.log.clone()).collect();
        if let Some(follower) = &mut self.follower {
            for flight in flights {
                follower.landed(flight);
            }
        }
        self.save(names).await?;
        let count = landed.len();
        for landed in landed {
            landed.receipt.claim.let_go();
        }
        if let Some(left) = &mut self.unnoted {
            *left = left.saturating_sub(count);
            if *left == 0 {
                self.work.noted.cancel();
            }
        }
        Ok(())
    }

    async fn hinted(&mut self) -> Result<(), End> {
        sleep(BREATH).await;
        let Some(hints) = self.watch.as_ref().map(Watch::take) else {
            return Ok(());
        };
        if hints.renamed {
            // However often names change, most of the time is left for reading.
            let at = self.scanned_at + self.scan_took * SCAN_SHARE;
            self.scan_at = self.scan_at.min(at);
        }
        self.ask(move |follower| follower.touch(hints.written.iter()))
            .await
    }

    /// Lists everything, and notes what has changed.
    async fn scan(&mut self) -> Result<(), End> {
        let began = Instant::now();
        let (listing, settled) = self.ask(|follower| follower.scan()).await?;
        self.scanned_at = Instant::now();
        self.scan_took = began.elapsed();
        let is_watched = match &mut self.watch {
            Some(watch) => watch.set(&listing.dirs),
            None => false,
        };
        let rescan = match settled.is_seeking {
            true => RESCAN_SOON,
            false if is_watched && !listing.has_links => RESCAN,
            false => RESCAN_BLIND,
        };
        self.scan_at = Instant::now() + rescan;
        let Some(follower) = &self.follower else {
            return Ok(());
        };
        let tally = self.work.feed.tally();
        tally.trouble(follower.trouble());
        tally
            .files
            .store(follower.book.len() as u64, Ordering::Relaxed);
        tally
            .behind
            .store(follower.book.behind(), Ordering::Relaxed);
        let logs = &follower.book.logs;
        let gone = self.saved.keys().filter(|name| !logs.contains_key(*name));
        let mut changed: BTreeSet<PathBuf> = gone.cloned().collect();
        for (name, log) in logs {
            if self.saved.get(name) != short(log).as_ref() {
                changed.insert(name.clone());
            }
        }
        // That there was a first start is noted also when there were no files.
        if changed.is_empty() && self.is_noted {
            return Ok(());
        }
        self.is_noted = true;
        self.save(changed).await
    }

    /// Notes these logs; reads nothing more until that is done.
    async fn save(&mut self, changed: BTreeSet<PathBuf>) -> Result<(), End> {
        let stop = self.work.stop.clone();
        let mut is_stuck = false;
        loop {
            let Some(mut notes) = self.notes.take() else {
                return Err(End::Gone);
            };
            let names = changed.clone();
            let (notes, result) = self
                .ask(move |follower| {
                    let result = notes.save(&follower.book, names.into_iter());
                    (notes, result)
                })
                .await?;
            self.notes = Some(notes);
            match result {
                Ok(()) => break,
                Err(error) => {
                    let problem = format!("note how far files were read: {error}");
                    if !is_stuck {
                        tracing::error!(input = %self.work.input.name, problem);
                    }
                    self.work.feed.tally().trouble(Some(problem));
                    is_stuck = true;
                }
            }
            tokio::select! {
                () = stop.cancelled() => return Err(End::Stopped),
                () = sleep(AGAIN) => {}
            }
        }
        if is_stuck {
            self.work.feed.tally().trouble(None);
        }
        if let Some(follower) = &self.follower {
            for name in changed {
                match follower.book.logs.get(&name).and_then(short) {
                    Some(hash) => drop(self.saved.insert(name, hash)),
                    None => drop(self.saved.remove(&name)),
                }
            }
            let behind = follower.book.behind();
            self.work
                .feed
                .tally()
                .behind
                .store(behind, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Has the follower do something that may wait for a disk.
    async fn ask<T: Send + 'static>(
        &mut self,
        what: impl FnOnce(&mut Follower) -> T + Send + 'static,
    ) -> Result<T, End> {
        let Some(mut follower) = self.follower.take() else {
            return Err(End::Gone);
        };
        let asked = tokio::task::spawn_blocking(move || {
            let answer = what(&mut follower);
            (follower, answer)
        });
        match asked.await {
            Ok((follower, answer)) => {
                self.follower = Some(follower);
                Ok(answer)
            }
            Err(error) => match error.try_into_panic() {
                // A panic is the supervisor's business.
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(End::Gone),
            },
        }
    }

    /// Notes what becomes durable shortly; the rest is read again, and not taken twice.
    async fn finish(&mut self) -> Result<(), InputError> {
        let deadline = Instant::now() + LAST;
        while !self.flights.is_empty() {
            let Ok(Ok(first)) = timeout_at(deadline, front(&mut self.flights)).await else {
                break;
            };
            if self.landed(first).await.is_err() {
                break;
            }
        }
        Ok(())
    }
}

/// Waits until the oldest portion is durable. Safe to drop and call again.
async fn front(flights: &mut VecDeque<Flying>) -> Result<Flying, Gone> {
    let Some(first) = flights.front_mut() else {
        return std::future::pending().await;
    };
    let told = (&mut first.receipt.durable).await;
    match flights.pop_front() {
        Some(first) if told.is_ok() => Ok(first),
        Some(_) | None => Err(Gone),
    }
}

fn short(log: &book::Log) -> Option<u64> {
    // What cannot be written is noted again and again.
    serde_json::to_vec(log).ok().map(|json| hash(&[&json]))
}
