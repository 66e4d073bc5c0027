//! The process of one subject: takes its orders in and sees each through, ordered ones in turn.
//!
//! ```text
//! supervisor ─ Mail ─▶ process ─ one task per order at work ─▶ keeper, child, voice
//! ```
//!
//! It keeps no truth: after a restart it asks the keeper which orders are not over.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};

use super::{
    context::{Born, Context, Mail},
    intake,
    kernel::Fault,
    pulse,
    run::Carrier,
    view::Gauges,
};
pub use crate::dispatch::Quit;
use crate::{
    dispatch::{Action, Dispatch, Event, PAUSE, Turn},
    journal::{OpenOrder, Ticket},
    keeper::{KeeperError, chain},
    signals::Stop,
    syslog::LogsError,
    voice::Footing,
};

/// Most frames taken in with one commit.
const BATCH: usize = 64;

/// Questions waiting for the loop. Every order at work asks once at most, and waits for its turn.
pub(super) const QUESTIONS: usize = 8;

/// Asks the loop of a process how it is.
#[derive(Debug)]
pub(super) struct Question {
    /// The order that asks.
    pub(super) ticket: Ticket,
    /// Where the answer goes.
    pub(super) answer: oneshot::Sender<Glance>,
}

/// What the loop of a process sees of itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct Glance {
    /// Orders taken and not started.
    pub(super) queued: usize,
    /// Orders at work.
    pub(super) running: usize,
    /// Now.
    pub(super) at: Timestamp,
    /// How long ago the order that asks was taken in by this process.
    pub(super) since_received: Option<Duration>,
}

/// Why a process failed.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// The keeper could not be asked.
    #[error("ask the keeper for the open orders")]
    Keeper(#[source] KeeperError),
    /// What wakes the process is gone.
    #[error("go on without {0}")]
    Cut(&'static str),
    /// Logs cannot be kept.
    #[error(transparent)]
    Logs(Box<LogsError>),
}

/// What wakes a process.
#[derive(Debug)]
enum Wake {
    /// Frames arrived.
    Mail(Vec<Mail>),
    /// The supervisor let go of the mailbox.
    Closed,
    /// An order's turn is over.
    Turn(Ticket, Turn),
    /// The station welcomed this start, or the agent is ending.
    News,
    /// An order asks how the loop is.
    Question(Question),
    /// It is time to look again.
    Time,
}

/// The process of one subject: acts on what its [`Dispatch`] decides.
#[derive(Debug)]
struct Process {
    context: Arc<Context>,
    born: Born,
    footing: watch::Receiver<Footing>,
    stop: watch::Receiver<Stop>,
    dispatch: Dispatch,
    /// Where the dispatch's time begins.
    epoch: Instant,
    running: JoinSet<(Ticket, Turn)>,
    /// When orders were taken in that are not over.
    received: BTreeMap<Ticket, Instant>,
    questions: mpsc::Receiver<Question>,
    /// Handed to whoever carries an order out.
    ask: mpsc::Sender<Question>,
    /// What was handled before this process began.
    handled_before: u64,
    storage_raised: bool,
    /// Whether the supervisor has let go of the mailbox: what is at work comes to its end.
    closed: bool,
}

/// Asks for the orders that are not over, until the journal can be read: a disk that is full for a
/// while is no reason to give the process up.
async fn open_orders(context: &Context, born: &Born) -> Result<Vec<OpenOrder>, ProcessError> {
    let mut raised = false;
    loop {
        match context.keeper.open_orders(born.subject.clone()).await {
            Ok(open) => return Ok(open),
            Err(KeeperError::Storage { detail }) if !context.is_stopping() => {
                if !std::mem::replace(&mut raised, true) {
                    let fault = Fault::Storage(detail.to_string());
                    context.raise(&born.subject, fault).await;
                }
                pulse::hold(sleep(PAUSE)).await;
            }
            Err(error) => return Err(ProcessError::Keeper(error)),
        }
    }
}

/// Runs the process until it has nothing to do, or the agent ends.
///
/// # Errors
///
/// Fails when the keeper cannot be asked.
pub async fn run(context: Arc<Context>, born: Born) -> Result<Quit, ProcessError> {
    let mut process = Process::new(context, born);
    let open = open_orders(&process.context, &process.born).await?;
    process.tell(Event::Open(open));
    process.news();
    process.serve().await
}

impl Process {
    fn new(context: Arc<Context>, born: Born) -> Self {
        let handled_before = born.gauges.borrow().handled;
        let (ask, questions) = mpsc::channel(QUESTIONS);
        Self {
            received: BTreeMap::new(),
            questions,
            ask,
            footing: context.footing.subscribe(),
            stop: context.stop.clone(),
            dispatch: Dispatch::new(context.config.idle_after, Duration::ZERO),
            context,
            handled_before,
            born,
            epoch: Instant::now(),
            running: JoinSet::new(),
            storage_raised: false,
            closed: false,
        }
    }

    async fn serve(mut self) -> Result<Quit, ProcessError> {
        loop {
            self.show();
            if let Some(quit) = self.quit() {
                return Ok(quit);
            }
            match self.wake().await? {
                Wake::Mail(mail) => self.take(mail).await,
                Wake::Closed => {
                    self.closed = true;
                    self.tell(Event::Stopping);
                }
                Wake::Turn(ticket, turn) => {
                    if turn == Turn::Over {
                        self.received.remove(&ticket);
                    }
                    self.tell(Event::TurnOver { ticket, turn });
                }
                Wake::News => self.news(),
                Wake::Question(question) => self.reply(question),
                Wake::Time => self.tell(Event::Time),
            }
        }
    }

    async fn wake(&mut self) -> Result<Wake, ProcessError> {
        let mut mail = Vec::new();
        let time = self.dispatch.wake_at().map(|time| self.epoch + time);
        tokio::select! {
            biased;
            Some(joined) = self.running.join_next() => match joined {
                Ok((ticket, turn)) => Ok(Wake::Turn(ticket, turn)),
                // A panic in a method is a panic of this process.
                Err(error) => match error.try_into_panic() {
                    Ok(panic) => std::panic::resume_unwind(panic),
                    Err(_) => Err(ProcessError::Cut("one of its tasks")),
                },
            },
            changed = self.stop.changed() => match changed {
                Ok(()) => Ok(Wake::News),
                Err(_) => Err(ProcessError::Cut("the word when to stop")),
            },
            changed = self.footing.changed() => match changed {
                Ok(()) => Ok(Wake::News),
                Err(_) => Err(ProcessError::Cut("the desk's word")),
            },
            taken = self.born.mailbox.recv_many(&mut mail, BATCH), if !self.closed => {
                Ok(match taken {
                    0 => Wake::Closed,
                    _ => Wake::Mail(mail),
                })
            }
            // The process holds the other end itself, so it is never closed.
            Some(question) = self.questions.recv() => Ok(Wake::Question(question)),
            () = pulse::rest() => Ok(Wake::Time),
            () = sleep_until(time.unwrap_or(self.epoch)), if time.is_some() => Ok(Wake::Time),
        }
    }

    fn now(&self) -> Duration {
        self.epoch.elapsed()
    }

    /// Tells the dispatch what happened, and does what it says.
    fn tell(&mut self, event: Event) {
        for action in self.dispatch.next(event, self.now()) {
            self.act(action);
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Begin(ticket) => {
                let carrier = self.carrier(ticket);
                self.running
                    .spawn(async move { (ticket, carrier.carry().await) });
            }
            Action::Recover(order, started) => {
                let (ticket, carrier) = (order.ticket, self.carrier(order.ticket));
                self.running
                    .spawn(async move { (ticket, carrier.recover(*order, *started).await) });
            }
        }
    }

    fn carrier(&self, ticket: Ticket) -> Carrier {
        Carrier {
            context: Arc::clone(&self.context),
            subject: self.born.subject.clone(),
            ticket,
            attention: self.context.revocations.attend(ticket),
            process: self.ask.clone(),
        }
    }

    fn reply(&self, question: Question) {
        let received = self.received.get(&question.ticket);
        let glance = Glance {
            queued: self.dispatch.queued(),
            running: self.dispatch.running(),
            at: Timestamp::now(),
            since_received: received.map(Instant::elapsed),
        };
        // Whoever asked may have been cut off.
        question.answer.send(glance).ok();
    }

    /// Passes on what the station and the signals say.
    fn news(&mut self) {
        if *self.stop.borrow() != Stop::No {
            self.tell(Event::Stopping);
        }
        if self.footing.borrow().welcomed.is_some() {
            self.tell(Event::Welcomed);
        }
    }

    async fn take(&mut self, mail: Vec<Mail>) {
        let now = Instant::now();
        self.tell(Event::Arrived);
        pulse::hold(intake::await_welcome(&self.context)).await;
        let intake = intake::take(&self.context, mail).await;
        for taken in intake.taken {
            let (ticket, ordered) = (taken.ticket, taken.ordered);
            self.received.insert(ticket, now);
            self.tell(Event::Taken { ticket, ordered });
        }
        if intake.repeated {
            self.tell(Event::Repeated);
        }
        match intake.failed {
            Some(error) if !self.storage_raised => {
                self.storage_raised = true;
                let fault = Fault::Storage(chain(&error));
                self.context.raise(&self.born.subject, fault).await;
            }
            Some(_) => {}
            None => self.storage_raised = false,
        }
    }

    fn quit(&self) -> Option<Quit> {
        let quit = self.dispatch.quit(self.now());
        quit.filter(|quit| *quit == Quit::Stopping || self.born.mailbox.is_empty())
    }

    /// Says what it is doing.
    fn show(&self) {
        let (running, queued) = (self.dispatch.running(), self.dispatch.queued());
        let handled = self.handled_before + self.dispatch.handled();
        self.born
            .gauges
            .send_modify(|gauges| gauges.show(running, queued, handled));
    }
}

/// Returns the gauges of a process that has done nothing yet.
pub fn at_rest() -> Gauges {
    Gauges {
        running: 0,
        queued: 0,
        handled: 0,
        since: Timestamp::now(),
    }
}

#[cfg(test)]
mod tests;
