//! The thread that owns the spool, and the handles to it: it compresses, writes and syncs, so that nobody else waits
//! for a disk.
//!
//! ```text
//! inputs ─ Feed ─▶ ┐                     ┌▶ done (after fdatasync)
//! delivery ─ Store ─▶ orders ─▶ thread ─▶ ┼▶ batches that were read
//!                                        └▶ standings (watch)
//! ```

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use steward_protocol::{Domain, Generation};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch},
    time::timeout,
};

pub use self::receipt::{Claim, Done, Receipt};
use super::{
    Found, Place, Portion, Spool, SpoolError, Standing, Taken, claims::Claims, disk::Disk,
};

mod receipt;

/// What a feed may have on its way to the thread, in KiB: two portions of what a socket gives at once.
/// The channel itself has no bound, since whoever puts a portion into it holds as much of this.
const QUEUE: u32 = 256;

/// Bytes in memory only after which a commit does not wait for its time: they are written at once.
const UNWRITTEN: u64 = 1 << 20;

/// How long a failing disk is left alone.
const STUCK: Duration = Duration::from_secs(1);

/// How long nothing may come before memory of a burst is given back.
const QUIET: Duration = Duration::from_secs(2);

/// Batches read with one question, and their bytes: in memory until they are published.
const AHEAD: usize = 8;
const AHEAD_BYTES: usize = 512 << 10;

/// When what was taken is made durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Commit {
    /// So long after it was taken, at the latest.
    Every(Duration),
    /// As soon as nothing else waits to be taken.
    Always,
}

/// The thread is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("reach the spool of logs: its thread has ended")]
pub struct Gone;

#[derive(Debug)]
struct Gate {
    room: Arc<Semaphore>,
    missed: AtomicU64,
}

#[derive(Debug)]
struct Waiting {
    domain: Domain,
    portion: Portion,
    done: Option<Done>,
    /// Room on the way here, which is given back when the portion is taken.
    _room: OwnedSemaphorePermit,
}

enum Order {
    Gate(Domain, Arc<Gate>),
    Take(Box<Waiting>),
    Read(Domain, Place, oneshot::Sender<Result<Found, SpoolError>>),
    ReadOn(
        Domain,
        Place,
        oneshot::Sender<Result<Vec<Found>, SpoolError>>,
    ),
    Start(Domain, oneshot::Sender<Option<Place>>),
    Release(Domain, Generation, u64),
    Finish(Domain, Generation, u64),
    Noted,
    Stop,
}

/// Hands portions of one domain over. Clones share their room.
#[derive(Debug, Clone)]
pub struct Feed {
    domain: Domain,
    gate: Arc<Gate>,
    orders: Sender<Order>,
}

impl Feed {
    /// Returns what to hand a portion over with that can be read again, and what to keep until it was noted.
    pub fn receipt(&self) -> (Done, Receipt) {
        receipt::pair(self.orders.clone())
    }

    /// Hands a portion over, and waits for room: while the domain is full and its policy is to block, for as long as
    /// that lasts.
    ///
    /// # Errors
    ///
    /// Fails when the thread is gone.
    pub async fn put(&self, portion: Portion, done: Option<Done>) -> Result<(), Gone> {
        let room = Arc::clone(&self.gate.room);
        let room = room.acquire_many_owned(cost(&portion)).await;
        self.hand_over(portion, done, room.map_err(|_| Gone)?)
            .map_err(|_| Gone)
    }

    /// Hands a portion over if there is room at once. If not, its messages are counted as lost and it comes back.
    ///
    /// # Errors
    ///
    /// Gives the portion back when there is no room, or the thread is gone.
    pub fn offer(&self, portion: Portion, done: Option<Done>) -> Result<(), Portion> {
        let room = Arc::clone(&self.gate.room);
        let Ok(room) = room.try_acquire_many_owned(cost(&portion)) else {
            self.miss(portion.losses());
            return Err(portion);
        };
        self.hand_over(portion, done, room)
    }

    /// Hands a portion over as [`Self::offer`] does, but waits for room for a moment.
    ///
    /// # Errors
    ///
    /// Gives the portion back when there was no room, or the thread is gone.
    pub async fn offer_within(&self, portion: Portion, patience: Duration) -> Result<(), Portion> {
        let room = Arc::clone(&self.gate.room);
        let room = timeout(patience, room.acquire_many_owned(cost(&portion))).await;
        let Ok(Ok(room)) = room else {
            self.miss(portion.losses());
            return Err(portion);
        };
        self.hand_over(portion, None, room)
    }

    /// Counts messages that were lost on their way here.
    pub fn miss(&self, count: u64) {
        self.gate.missed.fetch_add(count, Ordering::Relaxed);
    }

    fn hand_over(
        &self,
        portion: Portion,
        done: Option<Done>,
        room: OwnedSemaphorePermit,
    ) -> Result<(), Portion> {
        let waiting = Waiting {
            domain: self.domain.clone(),
            portion,
            done,
            _room: room,
        };
        let order = Order::Take(Box::new(waiting));
        self.orders.send(order).map_err(|refused| match refused.0 {
            Order::Take(waiting) => waiting.portion,
            _ => Portion::new(Arc::from(""), steward_protocol::logs::Micros::default()),
        })
    }
}

/// In units of room; a portion larger than all of it takes all of it.
fn cost(portion: &Portion) -> u32 {
    u32::try_from(portion.cost() / 1024 + 1)
        .unwrap_or(QUEUE)
        .min(QUEUE)
}

/// The handle to the thread.
#[derive(Debug, Clone)]
pub struct Store {
    orders: Sender<Order>,
    standings: watch::Receiver<Vec<Standing>>,
}

impl Store {
    /// Gives the spool to a thread of its own.
    ///
    /// # Errors
    ///
    /// Fails when there can be no thread.
    pub fn start<D>(spool: Spool<D>, commit: Commit) -> io::Result<(Self, JoinHandle<()>)>
    where
        D: Disk + Send + 'static,
        D::File: Send,
    {
        let (orders, inbox) = channel();
        let (tell, standings) = watch::channel(spool.standings());
        let desk = Desk {
            spool,
            commit,
            gates: Vec::new(),
            backlog: BTreeMap::new(),
            done: Vec::new(),
            claims: Claims::default(),
            tell,
            since: None,
            stuck_until: None,
        };
        let thread = thread::Builder::new()
            .name("spool".to_owned())
            .spawn(move || desk.run(&inbox))?;
        Ok((Self { orders, standings }, thread))
    }

    /// Returns a feed of a domain, with room of its own.
    ///
    /// # Errors
    ///
    /// Fails when the thread is gone.
    pub fn feed(&self, domain: &Domain) -> Result<Feed, Gone> {
        let gate = Arc::new(Gate {
            room: Arc::new(Semaphore::new(QUEUE as usize)),
            missed: AtomicU64::new(0),
        });
        self.order(Order::Gate(domain.clone(), Arc::clone(&gate)))?;
        Ok(Feed {
            domain: domain.clone(),
            gate,
            orders: self.orders.clone(),
        })
    }

    /// Returns how it stands with every domain, now and after every commit.
    pub fn standings(&self) -> watch::Receiver<Vec<Standing>> {
        self.standings.clone()
    }

    /// Returns what is at a place.
    ///
    /// # Errors
    ///
    /// Fails when the thread is gone; the inner error is that of [`Spool::read`].
    pub async fn read(
        &self,
        domain: &Domain,
        place: Place,
    ) -> Result<Result<Found, SpoolError>, Gone> {
        let (reply, answer) = oneshot::channel();
        self.order(Order::Read(domain.clone(), place, reply))?;
        answer.await.map_err(|_| Gone)
    }

    /// Returns what is at a place and behind it: a few batches, with one question.
    ///
    /// # Errors
    ///
    /// Fails when the thread is gone; the inner error is that of [`Spool::read`].
    pub async fn read_on(
        &self,
        domain: &Domain,
        place: Place,
    ) -> Result<Result<Vec<Found>, SpoolError>, Gone> {
        let (reply, answer) = oneshot::channel();
        self.order(Order::ReadOn(domain.clone(), place, reply))?;
        answer.await.map_err(|_| Gone)
    }

    /// Returns where the delivery of a domain begins.
    ///
    /// # Errors
    ///
    /// Fails when the thread is gone.
    pub async fn place(&self, domain: &Domain) -> Result<Option<Place>, Gone> {
        let (reply, answer) = oneshot::channel();
        self.order(Order::Start(domain.clone(), reply))?;
        answer.await.map_err(|_| Gone)
    }

    /// Removes what the station has of a generation, everything below a place; what its source may still give again, once
    /// that has noted it.
    ///
    /// # Errors
    ///
    /// Fails when the thread is gone.
    pub fn release(&self, domain: Domain, below: Place) -> Result<(), Gone> {
        self.order(Order::Release(domain, below.generation, below.position))
    }

    /// Removes a generation of which the station has all, up to its end.
    ///
    /// # Errors
    ///
    /// Fails when the thread is gone.
    pub fn finish(&self, domain: Domain, end: Place) -> Result<(), Gone> {
        self.order(Order::Finish(domain, end.generation, end.position))
    }

    /// Makes durable what was handed over before, and ends the thread.
    ///
    /// # Errors
    ///
    /// Fails when the thread is gone already.
    pub fn stop(&self) -> Result<(), Gone> {
        self.order(Order::Stop)
    }

    fn order(&self, order: Order) -> Result<(), Gone> {
        self.orders.send(order).map_err(|_| Gone)
    }
}

/// Whether there is more to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Go,
    End,
}

struct Desk<D: Disk> {
    spool: Spool<D>,
    commit: Commit,
    gates: Vec<(Domain, Arc<Gate>)>,
    /// Portions for which there was no room in their domain, in their order; what they hold of the way bounds them.
    backlog: BTreeMap<Domain, VecDeque<Waiting>>,
    done: Vec<(Domain, Done)>,
    claims: Claims,
    tell: watch::Sender<Vec<Standing>>,
    /// Since when something has been waiting for a commit.
    since: Option<Instant>,
    stuck_until: Option<Instant>,
}

impl<D: Disk> Desk<D> {
    fn run(mut self, inbox: &Receiver<Order>) {
        loop {
            let next = match inbox.recv_timeout(self.patience()) {
                Ok(order) => self.obey(order),
                Err(RecvTimeoutError::Timeout) => {
                    if self.since.is_none() {
                        self.rest();
                    }
                    Next::Go
                }
                Err(RecvTimeoutError::Disconnected) => Next::End,
            };
            if next == Next::End {
                self.end();
                return;
            }
            if self.claims.wake_at().is_some_and(|at| at <= Instant::now()) {
                self.release();
            }
            if self.is_due() {
                self.make_durable();
            }
        }
    }

    fn patience(&self) -> Duration {
        let now = Instant::now();
        let due = self.due().unwrap_or(now + QUIET);
        let due = self.stuck_until.map_or(due, |until| due.max(until));
        let due = self.claims.wake_at().map_or(due, |at| due.min(at));
        due.saturating_duration_since(now)
    }

    fn due(&self) -> Option<Instant> {
        let since = self.since?;
        Some(match self.commit {
            Commit::Every(interval) => since + interval,
            Commit::Always => since,
        })
    }

    fn is_due(&self) -> bool {
        let now = Instant::now();
        if self.stuck_until.is_some_and(|until| until > now) {
            return false;
        }
        self.due().is_some_and(|due| due <= now) || self.spool.unwritten() >= UNWRITTEN
    }

    fn obey(&mut self, order: Order) -> Next {
        match order {
            Order::Gate(domain, gate) => self.gates.push((domain, gate)),
            Order::Take(waiting) => {
                let queue = self.backlog.entry(waiting.domain.clone()).or_default();
                queue.push_back(*waiting);
                self.take_backlog();
            }
            Order::Read(domain, place, reply) => {
                // Whoever asked may have gone meanwhile.
                reply.send(self.spool.read(&domain, place)).ok();
            }
            Order::ReadOn(domain, place, reply) => {
                reply.send(self.read_on(&domain, place)).ok();
            }
            Order::Start(domain, reply) => {
                reply.send(self.spool.start(&domain)).ok();
            }
            Order::Release(domain, generation, next) => {
                if self.spool.is_live(&domain, generation) {
                    self.claims.want(domain, generation, next, Instant::now());
                    self.release();
                } else {
                    self.spool.release(&domain, generation, next);
                    self.take_backlog();
                }
            }
            Order::Finish(domain, generation, next) => {
                self.spool.finish(&domain, generation, next);
                self.take_backlog();
            }
            Order::Noted => self.release(),
            Order::Stop => return Next::End,
        }
        Next::Go
    }

    /// Releases what the station has and no source gives again.
    fn release(&mut self) {
        for (domain, generation, until) in self.claims.take(Instant::now()) {
            self.spool.release(&domain, generation, until);
            self.take_backlog();
        }
    }

    fn read_on(&mut self, domain: &Domain, mut place: Place) -> Result<Vec<Found>, SpoolError> {
        let (mut found, mut bytes) = (Vec::new(), 0);
        while found.len() < AHEAD && bytes < AHEAD_BYTES {
            match self.spool.read(domain, place) {
                Ok(Found::Batch(batch)) => {
                    place.position = batch.next;
                    bytes += batch.payload.len();
                    found.push(Found::Batch(batch));
                }
                Ok(other) => {
                    found.push(other);
                    break;
                }
                // What was read before it is good.
                Err(_) if !found.is_empty() => break,
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    /// Makes durable what there is, and the number of what there was no room for until the end.
    fn end(&mut self) {
        self.give_up();
        self.note_missed();
        self.spool.close();
        self.answer();
        self.tell(self.spool.standings());
    }

    /// Counts what has found no room until the end. What somebody waits for can be read again.
    fn give_up(&mut self) {
        let backlog = std::mem::take(&mut self.backlog);
        let of_sockets = |waiting: &Waiting| waiting.done.is_none();
        for waiting in backlog.into_values().flatten().filter(of_sockets) {
            let (lost, at) = (waiting.portion.losses(), waiting.portion.received);
            self.spool.missed(&waiting.domain, lost, at);
        }
    }

    /// Takes what waits, as far as there is room.
    fn take_backlog(&mut self) {
        for queue in self.backlog.values_mut() {
            while let Some(waiting) = queue.front() {
                let from = self.spool.sealed(&waiting.domain);
                if self.spool.append(&waiting.domain, &waiting.portion) == Taken::No {
                    break;
                }
                let noted = waiting.done.as_ref().and_then(Done::noted);
                if let Some(noted) = noted.filter(|_| !waiting.portion.is_empty()) {
                    self.claims.hold(&waiting.domain, from, noted);
                }
                self.since.get_or_insert_with(Instant::now);
                if let Some(Waiting {
                    domain,
                    done: Some(done),
                    ..
                }) = queue.pop_front()
                {
                    self.done.push((domain, done));
                }
            }
        }
    }

    /// Nothing comes: memory is given back, and what would wait for a commit does not.
    fn rest(&mut self) {
        let is_missed = |(_, gate): &(Domain, Arc<Gate>)| gate.missed.load(Ordering::Relaxed) > 0;
        if self.gates.iter().any(is_missed) {
            self.make_durable();
        }
        self.spool.shrink();
        // What was released since the last commit shows as well.
        self.tell(self.spool.standings());
    }

    fn tell(&self, standings: Vec<Standing>) {
        self.tell.send_if_modified(|told| {
            let is_new = *told != standings;
            *told = standings;
            is_new
        });
    }

    /// Takes over the numbers of what was lost on its way here.
    fn note_missed(&mut self) {
        let now = Timestamp::now().into();
        self.gates.retain(|(domain, gate)| {
            let missed = gate.missed.swap(0, Ordering::Relaxed);
            self.spool.missed(domain, missed, now);
            Arc::strong_count(gate) > 1
        });
    }

    /// Tells those whose portions are durable.
    fn answer(&mut self) {
        let (durable, waiting) = std::mem::take(&mut self.done)
            .into_iter()
            .partition::<Vec<_>, _>(|(domain, _)| self.spool.is_durable(domain));
        self.done = waiting;
        for (_, done) in durable {
            done.tell();
        }
    }

    fn make_durable(&mut self) {
        self.note_missed();
        self.spool.commit();
        self.answer();
        let standings = self.spool.standings();
        let is_stuck = standings.iter().any(|standing| standing.stuck.is_some());
        self.stuck_until = is_stuck.then(|| Instant::now() + STUCK);
        self.tell(standings);
        self.since = None;
        self.take_backlog();
        if self.spool.has_work() {
            self.since.get_or_insert_with(Instant::now);
        }
    }
}
