//! The keeper: the one thread that owns the journal and its file.
//!
//! ```text
//! process ─ Job{asks, reply} ─▶ ┐            ┌─▶ Journal::next (decides)
//! process ─ Job{asks, reply} ─▶ ├─ a batch ──┤
//! desk    ─ Job{asks, reply} ─▶ ┘            └─▶ Store::commit (one fsync) ─▶ every reply
//! ```
//!
//! Nothing is answered before it is durable. When the commit fails, everything in the batch is
//! answered with a storage error (rule J8) and the journal is rebuilt from the file.

mod desk;

use std::{
    collections::BTreeSet,
    path::Path,
    sync::Arc,
    thread::{self, JoinHandle},
};

use jiff::Timestamp;
use steward_protocol::{Ack, FaultEvent, InstanceId, MessageId, Sealed, Subject};
use tokio::sync::{mpsc, oneshot};

use self::desk::Desk;
use crate::{
    clock::Clock,
    counters::Counters,
    journal::{
        Ask, Cancellation, Cancelled, ChildMark, Contradiction, Fate, Finish, Identity, Journal,
        Limits, Offer, Offered, OpenOrder, Snapshot, Ticket, Unread, Welcomed, Word,
        local::{Deed, LocalAnswer, LocalAsk},
        spool::Notice,
    },
    store::{Owner, Store, StoreError},
    supervisor::pulse,
};

/// Jobs waiting for the keeper. Every process waits for its answer before it asks again, so this is
/// more than all of them can have waiting; beyond it they wait in line.
const QUEUE: usize = 256;

/// Most jobs that share one commit.
const BATCH: usize = 128;

/// Why the keeper did not answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum KeeperError {
    /// The journal could not be written or read; nothing was changed.
    #[error("use the journal: {detail}")]
    Storage {
        /// What the store said.
        detail: Arc<str>,
    },
    /// The keeper has ended.
    #[error("reach the keeper of the journal: it has ended")]
    Gone,
    /// The question contradicts what is durable.
    #[error(transparent)]
    Contradiction(Contradiction),
}

/// Asks the keeper.
#[derive(Debug, Clone)]
pub struct Keeper {
    jobs: mpsc::Sender<Job>,
}

/// Questions that belong together, and where the answers go.
#[derive(Debug)]
struct Job {
    asks: Vec<Ask>,
    reply: oneshot::Sender<Result<Vec<Told>, KeeperError>>,
}

/// An answer with what had to be read from the file for it.
#[derive(Debug)]
enum Told {
    Offer(OfferReply),
    Cancel(CancelReply),
    Begin(BeginReply),
    Ack(Ack),
    Again,
    Word(Welcomed, Identity),
    Reported,
    Local(LocalAnswer),
    Due(DueReply),
    Open(Vec<OpenOrder>),
    OpenSubjects(BTreeSet<Subject>),
    Snapshot(Snapshot),
    Fates(Vec<Fate>),
    Contradiction(Contradiction),
}

/// What becomes of an order that arrived, and what its station is told.
#[derive(Debug)]
pub struct OfferReply {
    /// What becomes of it.
    pub offered: Offered,
    /// What the station is told, unless nothing.
    pub ack: Option<Ack>,
}

/// What becomes of an order that is cancelled, and what its station is told.
#[derive(Debug)]
pub struct CancelReply {
    /// What becomes of it.
    pub cancelled: Cancelled,
    /// What the station is told, unless nothing.
    pub ack: Option<Ack>,
}

/// Whether an order may be started.
#[derive(Debug)]
pub enum BeginReply {
    /// It may; that it was is durable.
    Go {
        /// The order.
        order: Box<Sealed>,
        /// How often it has been started, this time included.
        attempt: u32,
        /// When.
        at: Timestamp,
    },
    /// It is over without having been started.
    Over(Box<Ack>),
    /// Not before the station has spoken.
    Wait,
    /// It is started, over or forgotten already.
    Gone,
}

/// What becomes of an order whose end is unknown.
#[derive(Debug)]
pub enum LostReply {
    /// It runs again.
    Again,
    /// It is over.
    Over(Box<Ack>),
}

/// What is to be said again.
#[derive(Debug, Default)]
pub struct DueReply {
    /// Answers, with the subjects of their orders.
    pub acks: Vec<(Subject, Ack)>,
    /// Events.
    pub events: Vec<Notice>,
    /// When to ask next, on the clock of this boot.
    pub next_ms: Option<u64>,
}

/// What a keeper starts with.
#[derive(Debug)]
pub struct Opening {
    /// Whose journal.
    pub owner: Owner,
    /// This start of the agent.
    pub instance: InstanceId,
    /// What the config decides.
    pub limits: Limits,
    /// The clocks.
    pub clock: Clock,
    /// Where failures are counted.
    pub counters: Arc<Counters>,
}

impl Keeper {
    /// Opens the journal in `dir` and starts its thread.
    ///
    /// # Errors
    ///
    /// Fails when the journal cannot be opened.
    pub fn open(
        dir: &Path,
        opening: Opening,
    ) -> Result<(Self, Identity, JoinHandle<()>), StoreError> {
        let store = Store::open(dir, &opening.owner)?;
        Self::start(store, opening)
    }

    fn start(
        store: Store,
        opening: Opening,
    ) -> Result<(Self, Identity, JoinHandle<()>), StoreError> {
        let journal = Journal::new(opening.instance, opening.limits, store.image()?);
        let identity = journal.identity();
        let desk = Desk {
            store,
            journal,
            clock: opening.clock,
            counters: opening.counters,
            failing: false,
            stale: false,
        };
        let (jobs, inbox) = mpsc::channel(QUEUE);
        let thread = thread::Builder::new()
            .name("keeper".to_owned())
            .spawn(move || desk.serve(inbox))
            .map_err(|source| StoreError::Io {
                doing: "start the thread of",
                path: crate::store::FILE.into(),
                source,
            })?;
        Ok((Self { jobs }, identity, thread))
    }

    /// Offers orders, all of them with one commit.
    ///
    /// # Errors
    ///
    /// Fails when nothing could be made durable; none of the orders was taken.
    pub async fn offer(&self, offers: Vec<Offer>) -> Result<Vec<OfferReply>, KeeperError> {
        let asks = offers
            .into_iter()
            .map(|offer| Ask::Offer(Box::new(offer)))
            .collect();
        let told = self.ask(asks).await?;
        told.into_iter().map(offer_reply).collect()
    }

    /// Refuses an order that cannot be read.
    ///
    /// # Errors
    ///
    /// Fails when the refusal could not be made durable.
    pub async fn refuse(&self, unread: Unread) -> Result<OfferReply, KeeperError> {
        self.one(Ask::Unread(unread)).await.and_then(offer_reply)
    }

    /// Cancels orders, all of them with one commit.
    ///
    /// # Errors
    ///
    /// Fails when nothing could be made durable; [`Keeper::halt`] says what can be done all the same.
    pub async fn cancel(
        &self,
        cancellations: Vec<Cancellation>,
    ) -> Result<Vec<CancelReply>, KeeperError> {
        self.cancels(cancellations, Ask::Cancel).await
    }

    /// Cancels what can be cancelled without writing: a command may be what filled the disk.
    ///
    /// # Errors
    ///
    /// Fails when the journal cannot even be read.
    pub async fn halt(
        &self,
        cancellations: Vec<Cancellation>,
    ) -> Result<Vec<CancelReply>, KeeperError> {
        self.cancels(cancellations, Ask::Halt).await
    }

    async fn cancels(
        &self,
        cancellations: Vec<Cancellation>,
        ask: fn(Box<Cancellation>) -> Ask,
    ) -> Result<Vec<CancelReply>, KeeperError> {
        let boxed = cancellations.into_iter().map(Box::new);
        let told = self.ask(boxed.map(ask).collect()).await?;
        told.into_iter()
            .map(|told| match told {
                Told::Cancel(reply) => Ok(reply),
                other => Err(unexpected(&other)),
            })
            .collect()
    }

    /// Asks whether an order may be started, and records that it is.
    ///
    /// # Errors
    ///
    /// Fails when that could not be made durable: do not start it.
    pub async fn begin(&self, ticket: Ticket) -> Result<BeginReply, KeeperError> {
        match self.one(Ask::Begin(ticket)).await? {
            Told::Begin(reply) => Ok(reply),
            // Its text was damaged, so that it was refused instead.
            Told::Ack(ack) => Ok(BeginReply::Over(Box::new(ack))),
            other => Err(unexpected(&other)),
        }
    }

    /// Records the child of an order.
    ///
    /// # Errors
    ///
    /// Fails when that could not be made durable.
    pub async fn spawned(&self, ticket: Ticket, child: ChildMark) -> Result<Ack, KeeperError> {
        self.ack(Ask::Spawned(ticket, child)).await
    }

    /// Returns what the station is told of an order that is at work and has no child.
    ///
    /// # Errors
    ///
    /// Fails when the journal cannot be used.
    pub async fn standing(&self, ticket: Ticket) -> Result<Ack, KeeperError> {
        self.ack(Ask::Standing(ticket)).await
    }

    /// Records the end of an order and returns what the station is told.
    ///
    /// # Errors
    ///
    /// Fails when that could not be made durable: do not tell.
    pub async fn finish(&self, ticket: Ticket, finish: Finish) -> Result<Ack, KeeperError> {
        self.ack(Ask::Finish(ticket, Box::new(finish))).await
    }

    /// Records that the end of an order cannot be known.
    ///
    /// # Errors
    ///
    /// Fails when that could not be made durable.
    pub async fn lost(&self, ticket: Ticket, reason: &str) -> Result<LostReply, KeeperError> {
        match self.one(Ask::Lost(ticket, reason.to_owned())).await? {
            Told::Again => Ok(LostReply::Again),
            Told::Ack(ack) => Ok(LostReply::Over(Box::new(ack))),
            other => Err(unexpected(&other)),
        }
    }

    /// Records what the station said, and returns what became of it and whose the journal is now.
    ///
    /// # Errors
    ///
    /// Fails when that could not be made durable: nothing was heard.
    pub async fn word(&self, word: Word) -> Result<(Welcomed, Identity), KeeperError> {
        match self.one(Ask::Word(word)).await? {
            Told::Word(welcomed, identity) => Ok((welcomed, identity)),
            other => Err(unexpected(&other)),
        }
    }

    /// Keeps an event until the station has stored it.
    ///
    /// # Errors
    ///
    /// Fails when it could not be made durable.
    pub async fn report(&self, event: FaultEvent) -> Result<(), KeeperError> {
        match self
            .one(Ask::Report(Box::new(Notice::Fault(event))))
            .await?
        {
            Told::Reported => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Does what a method of the agent itself does, ends its order, and returns what the station is told.
    ///
    /// # Errors
    ///
    /// Fails when that could not be made durable: nothing was done.
    pub async fn perform(&self, ticket: Ticket, deed: Deed) -> Result<Ack, KeeperError> {
        self.ack(Ask::Perform(ticket, Box::new(deed))).await
    }

    /// Asks about orders this node gives itself.
    ///
    /// # Errors
    ///
    /// Fails when what follows from it could not be made durable.
    pub async fn local(&self, ask: LocalAsk) -> Result<LocalAnswer, KeeperError> {
        match self.one(Ask::Local(Box::new(ask))).await? {
            Told::Local(answer) => Ok(answer),
            other => Err(unexpected(&other)),
        }
    }

    /// Returns what is to be said again now; everything, when the station has just come `back`.
    ///
    /// # Errors
    ///
    /// Fails when the journal cannot be read, or what expired could not be made durable.
    pub async fn due(&self, back: Back, dice: u64) -> Result<DueReply, KeeperError> {
        let all = back == Back::JustNow;
        match self.one(Ask::Due { all, dice }).await? {
            Told::Due(due) => Ok(due),
            other => Err(unexpected(&other)),
        }
    }

    /// Returns the orders of `subject` that are not over, in the order of their arrival.
    ///
    /// # Errors
    ///
    /// Fails when the keeper has ended or the journal is unusable.
    pub async fn open_orders(&self, subject: Subject) -> Result<Vec<OpenOrder>, KeeperError> {
        match self.one(Ask::Open(subject)).await? {
            Told::Open(orders) => Ok(orders),
            other => Err(unexpected(&other)),
        }
    }

    /// Returns the subjects that have orders that are not over.
    ///
    /// # Errors
    ///
    /// Fails when the keeper has ended or the journal is unusable.
    pub async fn open_subjects(&self) -> Result<BTreeSet<Subject>, KeeperError> {
        match self.one(Ask::OpenSubjects).await? {
            Told::OpenSubjects(subjects) => Ok(subjects),
            other => Err(unexpected(&other)),
        }
    }

    /// Returns what a hello says about the journal.
    ///
    /// # Errors
    ///
    /// Fails when the keeper has ended or the journal is unusable.
    pub async fn snapshot(&self) -> Result<Snapshot, KeeperError> {
        match self.one(Ask::Snapshot).await? {
            Told::Snapshot(snapshot) => Ok(snapshot),
            other => Err(unexpected(&other)),
        }
    }

    /// Returns how far the orders with these ids are, in their order.
    ///
    /// # Errors
    ///
    /// Fails when the keeper has ended or the journal is unusable.
    pub async fn fates(&self, ids: Vec<MessageId>) -> Result<Vec<Fate>, KeeperError> {
        match self.one(Ask::Fates(ids)).await? {
            Told::Fates(fates) => Ok(fates),
            other => Err(unexpected(&other)),
        }
    }

    async fn ack(&self, ask: Ask) -> Result<Ack, KeeperError> {
        match self.one(ask).await? {
            Told::Ack(ack) => Ok(ack),
            other => Err(unexpected(&other)),
        }
    }

    async fn one(&self, ask: Ask) -> Result<Told, KeeperError> {
        let told = self.ask(vec![ask]).await?;
        told.into_iter().next().ok_or(KeeperError::Gone)
    }

    async fn ask(&self, asks: Vec<Ask>) -> Result<Vec<Told>, KeeperError> {
        let (reply, answer) = oneshot::channel();
        let job = Job { asks, reply };
        // A disk that hangs is no fault of whoever waits for it.
        let answer = pulse::hold(async {
            self.jobs.send(job).await.ok()?;
            answer.await.ok()
        });
        answer.await.ok_or(KeeperError::Gone)?
    }
}

/// Whether the station has just come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Back {
    /// Everything unconfirmed is said again.
    JustNow,
    /// Only what is due.
    Before,
}

fn offer_reply(told: Told) -> Result<OfferReply, KeeperError> {
    match told {
        Told::Offer(reply) => Ok(reply),
        other => Err(unexpected(&other)),
    }
}

fn unexpected(told: &Told) -> KeeperError {
    match told {
        Told::Contradiction(contradiction) => KeeperError::Contradiction(contradiction.clone()),
        other => KeeperError::Storage {
            detail: format!("the keeper answered something else: {other:?}").into(),
        },
    }
}

/// Returns an error and its causes in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests;
