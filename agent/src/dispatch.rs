//! Which order of one subject comes next: the decisions of a process, without the process.
//!
//! Pure: an event and a time go in, orders to be begun or recovered come out. It knows no task, no
//! clock, no journal and no bus. Ordered orders run one at a time in the order of their tickets, the
//! others side by side; what an earlier run left started comes before everything else in its lane.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::journal::{OpenOrder, Started, Ticket};

/// Wait before an order is tried again whose turn came to nothing: the journal could not be
/// written, or the station has to speak first.
pub const PAUSE: Duration = Duration::from_secs(2);

/// How an order's turn ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// It is over.
    Over,
    /// It has not been started; it waits on.
    Wait,
    /// Its end is unknown, and it says that it may run again.
    Again,
    /// It has not been started, because the journal cannot be written.
    NoStorage,
    /// The agent ends before it: the next start sees to it.
    Left,
}

/// Why a process ended by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quit {
    /// It had nothing to do for long enough.
    Idle,
    /// The agent is ending.
    Stopping,
}

/// What happens to a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// These orders were not over when the process began; the first event of its life.
    Open(Vec<OpenOrder>),
    /// Frames arrived, whatever became of them.
    Arrived,
    /// An order is new and durable.
    Taken {
        /// Its number.
        ticket: Ticket,
        /// Whether it runs in its lane.
        ordered: bool,
    },
    /// An order that was known came again; its deadline may have been refreshed.
    Repeated,
    /// An order's turn is over.
    TurnOver {
        /// Its number.
        ticket: Ticket,
        /// How.
        turn: Turn,
    },
    /// The station has welcomed this start of the agent, or has done so again.
    Welcomed,
    /// The agent is ending: nothing is begun any more.
    Stopping,
    /// Nothing but that time has passed.
    Time,
}

/// What a process is to do. Each one is answered by one [`Event::TurnOver`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// It is this order's turn.
    Begin(Ticket),
    /// An earlier run left this order started: see what became of it.
    Recover(Box<OpenOrder>, Box<Started>),
}

/// How an order stands to the others of its subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lane {
    Ordered,
    Beside,
}

impl Lane {
    fn of(ordered: bool) -> Self {
        if ordered { Self::Ordered } else { Self::Beside }
    }
}

/// The orders of one subject that are not over.
#[derive(Debug)]
pub struct Dispatch {
    idle_after: Duration,
    ordered: BTreeSet<Ticket>,
    beside: BTreeSet<Ticket>,
    at_work: BTreeMap<Ticket, Lane>,
    welcomed: bool,
    stopping: bool,
    /// Nothing is begun before this.
    pause: Option<Duration>,
    handled: u64,
    idle_since: Duration,
}

impl Dispatch {
    /// Returns the dispatch of a process that begins at `now` and ends when idle for `idle_after`.
    pub fn new(idle_after: Duration, now: Duration) -> Self {
        Self {
            idle_after,
            ordered: BTreeSet::new(),
            beside: BTreeSet::new(),
            at_work: BTreeMap::new(),
            welcomed: false,
            stopping: false,
            pause: None,
            handled: 0,
            idle_since: now,
        }
    }

    /// Takes note of an event and returns what is to be done now.
    pub fn next(&mut self, event: Event, now: Duration) -> Vec<Action> {
        if self.pause.is_some_and(|until| until <= now) {
            self.pause = None;
        }
        let mut actions = Vec::new();
        match event {
            Event::Open(orders) => actions = self.resume(orders),
            Event::Arrived => self.idle_since = now,
            Event::Taken { ticket, ordered } => {
                self.idle_since = now;
                self.wait(ticket, Lane::of(ordered));
            }
            Event::Repeated => self.pause = None,
            Event::TurnOver { ticket, turn } => self.turn_over(ticket, turn, now),
            Event::Welcomed => {
                self.welcomed = true;
                self.pause = None;
            }
            Event::Stopping => self.stopping = true,
            Event::Time => {}
        }
        self.begin_due(&mut actions);
        actions
    }

    /// Returns when to tell it the time at the latest, whatever happens until then.
    pub fn wake_at(&self) -> Option<Duration> {
        let idle = || self.is_idle().then(|| self.idle_since + self.idle_after);
        self.pause.or_else(idle)
    }

    /// Tells whether the process may end, and why. Frames nobody has looked at are not known here.
    pub fn quit(&self, now: Duration) -> Option<Quit> {
        if self.stopping {
            // What waits stays in the journal.
            return self.at_work.is_empty().then_some(Quit::Stopping);
        }
        let idle = self.is_idle() && now >= self.idle_since + self.idle_after;
        idle.then_some(Quit::Idle)
    }

    /// Returns how many orders are at work.
    pub fn running(&self) -> usize {
        self.at_work.len()
    }

    /// Returns how many orders wait.
    pub fn queued(&self) -> usize {
        self.ordered.len() + self.beside.len()
    }

    /// Returns how many orders have come to their end.
    pub fn handled(&self) -> u64 {
        self.handled
    }

    /// Tells whether no order is at work or waits.
    pub fn is_idle(&self) -> bool {
        self.at_work.is_empty() && self.queued() == 0
    }

    /// What was started goes first, all of it: it may be running already.
    fn resume(&mut self, orders: Vec<OpenOrder>) -> Vec<Action> {
        let mut actions = Vec::new();
        for mut order in orders {
            let lane = Lane::of(order.ordered);
            match order.started.take() {
                Some(started) => {
                    self.at_work.insert(order.ticket, lane);
                    actions.push(Action::Recover(Box::new(order), Box::new(started)));
                }
                None => self.wait(order.ticket, lane),
            }
        }
        actions
    }

    fn wait(&mut self, ticket: Ticket, lane: Lane) {
        match lane {
            Lane::Ordered => self.ordered.insert(ticket),
            Lane::Beside => self.beside.insert(ticket),
        };
    }

    fn turn_over(&mut self, ticket: Ticket, turn: Turn, now: Duration) {
        let Some(lane) = self.at_work.remove(&ticket) else {
            return;
        };
        self.idle_since = now;
        match turn {
            Turn::Over => self.handled += 1,
            Turn::Again => self.wait(ticket, lane),
            Turn::Left => {}
            Turn::Wait | Turn::NoStorage => {
                self.wait(ticket, lane);
                self.pause = Some(now + PAUSE);
            }
        }
    }

    /// Begins what may be begun: the next ordered order if none is at work, and every other one.
    fn begin_due(&mut self, actions: &mut Vec<Action>) {
        if !self.welcomed || self.stopping || self.pause.is_some() {
            return;
        }
        let lane_busy = self.at_work.values().any(|lane| *lane == Lane::Ordered);
        if !lane_busy && let Some(ticket) = self.ordered.pop_first() {
            self.at_work.insert(ticket, Lane::Ordered);
            actions.push(Action::Begin(ticket));
        }
        while let Some(ticket) = self.beside.pop_first() {
            self.at_work.insert(ticket, Lane::Beside);
            actions.push(Action::Begin(ticket));
        }
    }
}

#[cfg(test)]
mod tests;
