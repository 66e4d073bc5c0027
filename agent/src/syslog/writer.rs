//! The thread that has the spool: takes what inputs hand over, commits, reads for the delivery, releases.
//!
//! ```text
//! feeds ─ Handover ─▶ append ─▶ commit (a moment later) ─▶ done, filled
//! delivery ─ Ask::Read ─▶ batches      delivery ─ Ask::Do ─▶ release
//! ```
//!
//! What finds no room and may wait is parked here, in order, and its input gets no more room; what the station releases
//! lets it in. It does not know where messages come from.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io,
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    thread,
    time::Duration,
};

use steward_protocol::{Domain, Generation};
use tokio::{
    runtime::Builder,
    sync::{OwnedMutexGuard, mpsc, oneshot},
    time::{Instant, sleep_until},
};
use uuid::Uuid;

use super::{
    board::Board,
    feed::{Handover, Manner, Refused, now},
    send::Action,
    spool::{Found, Place, Settings, Spool, SpoolError, Taken, files::Files},
};
use crate::config::syslog::Commit;

/// Questions waiting; there is one that asks, and it waits for the answers it needs.
const ASKS: usize = 64;

/// Portions appended before questions are looked at again.
const TURN: usize = 16;

/// Bytes in memory after which a commit does not wait for its time.
const UNWRITTEN: u64 = 1 << 20;

/// Wait before what could not be written, or found no room, is tried again.
const AGAIN: Duration = Duration::from_millis(500);

/// Batches read ahead for one question, and their bytes: a few reads' worth, in memory until they are published.
const AHEAD: usize = 8;
const AHEAD_BYTES: usize = 512 << 10;

/// How long it is quiet before memory is given back.
const QUIET: Duration = Duration::from_secs(5);

/// Something the writer is asked.
#[derive(Debug)]
pub enum Ask {
    /// What is at a place, and what follows there at once.
    Read {
        /// Of which domain.
        domain: Domain,
        /// Where.
        place: Place,
        /// Where the answer goes.
        answer: oneshot::Sender<Result<Vec<Found>, SpoolError>>,
    },
    /// Something is to be released.
    Do(Action),
}

/// What a writer starts with.
#[derive(Debug)]
pub struct Setup {
    /// The directory of the spool.
    pub dir: PathBuf,
    /// What the spool keeps to.
    pub settings: Settings,
    /// When what was taken is made durable.
    pub commit: Commit,
    /// Where it says how it stands.
    pub board: Arc<Board>,
    /// What inputs were refused.
    pub refused: Vec<Arc<Refused>>,
    /// What inputs hand over.
    pub handed: mpsc::Receiver<Handover>,
    /// Keeps another writer out.
    pub seat: OwnedMutexGuard<()>,
}

/// Why there is no writer.
#[derive(Debug, thiserror::Error)]
pub enum WriterError {
    /// The directory cannot be made.
    #[error("make the directory {} of the spool of logs", .dir.display())]
    Dir {
        /// Which.
        dir: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The spool cannot be opened.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// The system gives no thread.
    #[error("start the thread of the spool of logs")]
    Thread(#[source] io::Error),
}

/// The way to a writer.
#[derive(Debug)]
pub struct Desk {
    /// Questions to it.
    pub asks: mpsc::Sender<Ask>,
    /// Told when it has ended in order; dropped without a word when it has not.
    pub ended: oneshot::Receiver<()>,
    /// Where delivery begins, for each domain that has something from before.
    pub starts: Vec<(Domain, Place)>,
}

/// Opens the spool and starts the thread. It ends, with everything committed, when nobody can hand anything over and
/// nobody can ask any more.
///
/// # Errors
///
/// Fails when the spool cannot be opened, or the system gives no thread.
pub fn start(setup: Setup) -> Result<Desk, WriterError> {
    let disk = Files::open(&setup.dir).map_err(|source| WriterError::Dir {
        dir: setup.dir.clone(),
        source,
    })?;
    let draw = Box::new(|| Generation(Uuid::now_v7()));
    let spool = Spool::open(disk, setup.settings.clone(), draw)?;
    let starts = spool
        .starts()
        .map(|(domain, place)| (domain.clone(), place))
        .collect();
    let (asks, asked) = mpsc::channel(ASKS);
    let (end, ended) = oneshot::channel();
    let runtime = Builder::new_current_thread()
        .enable_time()
        .build()
        .map_err(WriterError::Thread)?;
    let mut writer = Writer {
        spool,
        setup,
        asked,
        commit_at: None,
        touched: BTreeSet::new(),
        parked: BTreeMap::new(),
        pending: Vec::new(),
        is_quiet: true,
    };
    writer.stand();
    thread::Builder::new()
        .name("logs".to_owned())
        .spawn(move || {
            runtime.block_on(writer.serve());
            drop(writer);
            // Whoever waited for it may be gone.
            end.send(()).ok();
        })
        .map_err(WriterError::Thread)?;
    Ok(Desk {
        asks,
        ended,
        starts,
    })
}

/// Who is to be told when domains are durable.
type Pending = (oneshot::Sender<()>, Vec<Arc<Domain>>);

struct Writer {
    spool: Spool<Files>,
    setup: Setup,
    asked: mpsc::Receiver<Ask>,
    commit_at: Option<Instant>,
    /// Domains with something new since the last commit.
    touched: BTreeSet<Arc<Domain>>,
    /// What waits for room, by the domain that has none.
    parked: BTreeMap<Arc<Domain>, VecDeque<Handover>>,
    pending: Vec<Pending>,
    /// Whether memory has been given back since the last commit.
    is_quiet: bool,
}

/// What wakes the writer.
enum Wake {
    Commit,
    Ask(Option<Ask>),
    Handed(usize),
    Quiet,
}

impl Writer {
    async fn serve(&mut self) {
        let mut taken = Vec::with_capacity(TURN);
        let (mut may_ask, mut may_hand) = (true, true);
        while may_ask || may_hand {
            let at = self.commit_at;
            let wake = tokio::select! {
                biased;
                () = sleep_until(at.unwrap_or_else(Instant::now)), if at.is_some() => Wake::Commit,
                ask = self.asked.recv(), if may_ask => Wake::Ask(ask),
                count = self.setup.handed.recv_many(&mut taken, TURN), if may_hand => Wake::Handed(count),
                () = sleep_until(Instant::now() + QUIET), if at.is_none() && !self.is_quiet => Wake::Quiet,
            };
            match wake {
                Wake::Commit => self.commit(),
                Wake::Ask(None) => may_ask = false,
                Wake::Ask(Some(ask)) => self.answer(ask),
                Wake::Handed(0) => may_hand = false,
                Wake::Handed(_) => {
                    for handover in taken.drain(..) {
                        self.place(handover);
                    }
                    self.plan();
                }
                Wake::Quiet => {
                    self.is_quiet = true;
                    self.spool.shrink();
                }
            }
        }
        self.end();
    }

    /// Sets the time of the next commit, or commits at once.
    fn plan(&mut self) {
        let is_urgent = self.setup.commit == Commit::Always && self.spool.has_work();
        if is_urgent || self.spool.unwritten() > UNWRITTEN {
            return self.commit();
        }
        if self.commit_at.is_none() && (self.spool.has_work() || !self.pending.is_empty()) {
            let wait = match self.setup.commit {
                Commit::Within(time) => time,
                Commit::Always => Duration::ZERO,
            };
            self.commit_at = Some(Instant::now() + wait);
        } else if self.commit_at.is_none() && !self.parked.is_empty() {
            self.commit_at = Some(Instant::now() + AGAIN);
        }
    }

    /// Appends a handover, or parks it behind those that wait for the same domain.
    fn place(&mut self, handover: Handover) {
        let first = handover.parts.first().map(|(domain, _)| domain);
        let is_behind = first.is_some_and(|domain| self.parked.contains_key(domain));
        if handover.manner == Manner::Wait && is_behind {
            return self.park(handover);
        }
        if let Some(rest) = self.append(handover) {
            self.park(rest);
        }
    }

    fn park(&mut self, handover: Handover) {
        if let Some((domain, _)) = handover.parts.first() {
            let queue = self.parked.entry(Arc::clone(domain));
            queue.or_default().push_back(handover);
        }
    }

    /// Appends the parts of a handover in their order; returns what is left where one finds no room and may wait.
    fn append(&mut self, mut handover: Handover) -> Option<Handover> {
        let mut domains = Vec::new();
        let mut appended = 0;
        for (domain, portion) in &handover.parts {
            if self.spool.append(domain, portion) == Taken::No {
                if handover.manner == Manner::Wait {
                    break;
                }
                let gaps = portion.gaps.iter().filter_map(|gap| gap.count);
                let lost = portion.messages.len() as u64 + gaps.sum::<u64>();
                self.spool.missed(domain, lost, portion.received);
            }
            appended += 1;
            if !self.touched.contains(domain) {
                self.touched.insert(Arc::clone(domain));
            }
            if handover.done.is_some() {
                domains.push(Arc::clone(domain));
            }
        }
        if appended < handover.parts.len() {
            handover.parts.drain(..appended);
            return Some(handover);
        }
        if let Some(done) = handover.done {
            self.pending.push((done, domains));
        }
        None
    }

    /// Lets in what waits, as far as there is room.
    fn unpark(&mut self) {
        let domains: Vec<Arc<Domain>> = self.parked.keys().cloned().collect();
        for domain in domains {
            while let Some(handover) = self.parked.get_mut(&domain).and_then(VecDeque::pop_front) {
                let Some(rest) = self.append(handover) else {
                    continue;
                };
                let first = rest.parts.first().map(|(domain, _)| Arc::clone(domain));
                if first.as_ref() == Some(&domain) {
                    if let Some(queue) = self.parked.get_mut(&domain) {
                        queue.push_front(rest);
                    }
                    break;
                }
                self.park(rest);
            }
        }
        self.parked.retain(|_, queue| !queue.is_empty());
    }

    fn commit(&mut self) {
        self.commit_at = None;
        self.is_quiet = false;
        for refused in &self.setup.refused {
            let count = refused.count.swap(0, Ordering::Relaxed);
            if count > 0 {
                self.spool.missed(&refused.domain, count, now());
                self.touched.insert(Arc::clone(&refused.domain));
            }
        }
        self.spool.commit();
        let spool = &self.spool;
        let durable = self
            .touched
            .extract_if(.., |domain| spool.is_durable(domain));
        let filled: Vec<(Domain, Place)> = durable
            .filter_map(|domain| Some((Domain::clone(&domain), spool.start(&domain)?)))
            .collect();
        self.setup.board.fill(filled);
        let is_durable =
            |(_, domains): &mut Pending| domains.iter().all(|domain| spool.is_durable(domain));
        for (done, _) in self.pending.extract_if(.., is_durable) {
            // Whoever waited for it may be gone.
            done.send(()).ok();
        }
        if !self.parked.is_empty() {
            self.unpark();
        }
        if self.spool.has_work() || !self.parked.is_empty() {
            self.commit_at = Some(Instant::now() + AGAIN);
        }
        self.stand();
    }

    fn stand(&self) {
        let size = self.setup.settings.total;
        self.setup.board.stand(self.spool.standings(), size);
    }

    fn answer(&mut self, ask: Ask) {
        match ask {
            Ask::Read {
                domain,
                place,
                answer,
            } => {
                // Whoever asked may be gone.
                answer.send(self.read(&domain, place)).ok();
            }
            Ask::Do(action) => {
                match action {
                    Action::Release(domain, place) => {
                        self.spool
                            .release(&domain, place.generation, place.position);
                    }
                    Action::Finish(domain, place) => {
                        self.spool.finish(&domain, place.generation, place.position);
                    }
                }
                if !self.parked.is_empty() {
                    self.unpark();
                    self.plan();
                }
                self.stand();
            }
        }
    }

    fn read(&mut self, domain: &Domain, mut place: Place) -> Result<Vec<Found>, SpoolError> {
        let (mut found, mut bytes) = (Vec::new(), 0);
        loop {
            let one = match self.spool.read(domain, place) {
                Ok(one) => one,
                // What was read before it is good.
                Err(_) if !found.is_empty() => return Ok(found),
                Err(error) => return Err(error),
            };
            let Found::Batch(batch) = &one else {
                found.push(one);
                return Ok(found);
            };
            place.position = batch.next;
            bytes += batch.payload.len();
            found.push(one);
            if found.len() >= AHEAD || bytes >= AHEAD_BYTES {
                return Ok(found);
            }
        }
    }

    /// Commits what is there; what found no room is counted.
    fn end(&mut self) {
        self.unpark();
        for handover in std::mem::take(&mut self.parked).into_values().flatten() {
            for (domain, portion) in handover.parts {
                let lost = portion.messages.len() as u64;
                self.spool.missed(&domain, lost, portion.received);
            }
        }
        self.commit();
        if self.spool.has_work() {
            tracing::error!("logs that were taken could not be written before the end");
        }
    }
}
