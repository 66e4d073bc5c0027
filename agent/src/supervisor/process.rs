//! The process of one subject: takes its orders in and sees each through, ordered ones in turn.
//!
//! ```text
//! supervisor ─ Mail ─▶ process ─ one task per order at work ─▶ keeper, child, voice
//! ```
//!
//! It keeps no truth: after a restart it asks the keeper which orders are not over.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};

use super::{
    context::{Born, Context, Mail},
    intake,
    kernel::Fault,
    run::{Carrier, Turn},
    view::Gauges,
};
use crate::{
    journal::{OpenOrder, Ticket},
    keeper::{KeeperError, chain},
    signals::Stop,
    voice::Footing,
};

/// Most frames taken in with one commit.
const BATCH: usize = 64;

/// Wait before an order is tried again whose turn came to nothing: the journal could not be
/// written, or the station has to speak first.
const PAUSE: Duration = Duration::from_secs(2);

/// Why a process ended by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quit {
    /// It had nothing to do for long enough.
    Idle,
    /// The agent is ending.
    Stopping,
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
}

/// What wakes a process.
#[derive(Debug)]
enum Wake {
    /// Frames arrived.
    Mail(Vec<Mail>),
    /// The supervisor let go of the mailbox.
    Closed,
    /// An order's turn is over.
    Turn {
        ticket: Ticket,
        ordered: bool,
        turn: Turn,
    },
    /// The station welcomed this start, or the agent is ending.
    News,
    /// It is time to look again.
    Time,
}

/// The process of one subject.
#[derive(Debug)]
struct Process {
    context: Arc<Context>,
    born: Born,
    footing: watch::Receiver<Footing>,
    stop: watch::Receiver<Stop>,
    ordered: BTreeSet<Ticket>,
    unordered: BTreeSet<Ticket>,
    /// Whether an ordered order is at work.
    lane_busy: bool,
    running: JoinSet<(Ticket, bool, Turn)>,
    /// Nothing is started before this.
    pause: Option<Instant>,
    handled: u64,
    storage_raised: bool,
    idle_since: Instant,
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
                sleep(PAUSE).await;
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
    let open = open_orders(&context, &born).await?;
    let mut process = Process {
        footing: context.footing.subscribe(),
        stop: context.stop.clone(),
        context,
        born,
        ordered: BTreeSet::new(),
        unordered: BTreeSet::new(),
        lane_busy: false,
        running: JoinSet::new(),
        pause: None,
        handled: 0,
        storage_raised: false,
        idle_since: Instant::now(),
    };
    process.handled = process.born.gauges.borrow().handled;
    for order in open {
        process.resume(order);
    }
    process.serve().await
}

impl Process {
    async fn serve(mut self) -> Result<Quit, ProcessError> {
        loop {
            self.start_due();
            self.show();
            if let Some(quit) = self.quit() {
                return Ok(quit);
            }
            match self.wake().await? {
                Wake::Mail(mail) => self.take(mail).await,
                Wake::Closed => return Ok(Quit::Stopping),
                Wake::Turn {
                    ticket,
                    ordered,
                    turn,
                } => self.turn_over(ticket, ordered, turn),
                Wake::News | Wake::Time => self.pause = None,
            }
        }
    }

    async fn wake(&mut self) -> Result<Wake, ProcessError> {
        let mut mail = Vec::new();
        let idle = self.idle_since + self.context.config.idle_after;
        let time = self.pause.unwrap_or(idle);
        let timed = self.pause.is_some() || self.is_idle();
        tokio::select! {
            biased;
            Some(joined) = self.running.join_next() => match joined {
                Ok((ticket, ordered, turn)) => Ok(Wake::Turn { ticket, ordered, turn }),
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
            taken = self.born.mailbox.recv_many(&mut mail, BATCH) => Ok(match taken {
                0 => Wake::Closed,
                _ => Wake::Mail(mail),
            }),
            () = sleep_until(time), if timed => Ok(Wake::Time),
        }
    }

    /// Takes up an order that was not over when this process began.
    fn resume(&mut self, order: OpenOrder) {
        let (ticket, ordered) = (order.ticket, order.ordered);
        let Some(started) = order.started.clone() else {
            self.enqueue(ticket, ordered);
            return;
        };
        self.lane_busy |= ordered;
        let carrier = self.carrier(ticket);
        self.running.spawn(async move {
            let turn = carrier.recover(order, started).await;
            (ticket, ordered, turn)
        });
    }

    fn enqueue(&mut self, ticket: Ticket, ordered: bool) {
        let queue = if ordered {
            &mut self.ordered
        } else {
            &mut self.unordered
        };
        queue.insert(ticket);
    }

    async fn take(&mut self, mail: Vec<Mail>) {
        self.idle_since = Instant::now();
        intake::await_welcome(&self.context).await;
        let intake = intake::take(&self.context, mail).await;
        for taken in intake.taken {
            self.enqueue(taken.ticket, taken.ordered);
        }
        if intake.repeated {
            self.pause = None;
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

    /// Starts what may be started: the next ordered order if none is at work, every other one.
    fn start_due(&mut self) {
        let welcomed = self.footing.borrow().welcomed.is_some();
        let ready = welcomed && self.pause.is_none();
        if !ready || *self.stop.borrow() != Stop::No {
            return;
        }
        if !self.lane_busy
            && let Some(ticket) = self.ordered.pop_first()
        {
            self.lane_busy = true;
            self.start(ticket, true);
        }
        while let Some(ticket) = self.unordered.pop_first() {
            self.start(ticket, false);
        }
    }

    fn start(&mut self, ticket: Ticket, ordered: bool) {
        let carrier = self.carrier(ticket);
        self.running
            .spawn(async move { (ticket, ordered, carrier.carry().await) });
    }

    fn carrier(&self, ticket: Ticket) -> Carrier {
        Carrier {
            context: Arc::clone(&self.context),
            subject: self.born.subject.clone(),
            ticket,
        }
    }

    fn turn_over(&mut self, ticket: Ticket, ordered: bool, turn: Turn) {
        self.idle_since = Instant::now();
        if ordered {
            self.lane_busy = false;
        }
        match turn {
            Turn::Over => self.handled += 1,
            Turn::Again => self.enqueue(ticket, ordered),
            Turn::Wait | Turn::NoStorage => {
                self.enqueue(ticket, ordered);
                self.pause = Some(Instant::now() + PAUSE);
            }
        }
    }

    fn is_idle(&self) -> bool {
        self.running.is_empty() && self.ordered.is_empty() && self.unordered.is_empty()
    }

    fn quit(&self) -> Option<Quit> {
        if *self.stop.borrow() != Stop::No {
            // What is queued stays in the journal.
            return self.running.is_empty().then_some(Quit::Stopping);
        }
        let idle_for = self.idle_since.elapsed();
        let idle = self.is_idle() && self.born.mailbox.is_empty();
        (idle && idle_for >= self.context.config.idle_after).then_some(Quit::Idle)
    }

    /// Says what it is doing.
    fn show(&self) {
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let running = count(self.running.len());
        self.born.gauges.send_modify(|gauges| {
            if (gauges.running > 0) != (running > 0) {
                gauges.since = Timestamp::now();
            }
            gauges.running = running;
            gauges.queued = count(self.ordered.len() + self.unordered.len());
            gauges.handled = self.handled;
        });
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
