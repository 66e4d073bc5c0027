//! Orders this node gives itself, under the rules of any order, and the schedules they come from.
//!
//! Their tickets are told from those of the station's orders by one bit, so that whoever carries an
//! order out need not know whose it is. What came of one becomes a report in the spool with the same
//! commit that takes it from here.

use std::{collections::BTreeMap, fmt, str::FromStr};

use jiff::{Timestamp, tz::TimeZone};
use steward_protocol::{
    Ack, Domain, EventId, LedgerId, MessageId, Outcome, Output, ReportEvent, Sealed, State,
    Subject, TextEvent,
    body::{ScheduleAction, ScheduleBody},
};
use uuid::Uuid;

use super::{
    Answer, Begun, Contradiction, Fate, Finish, Journal, OpenOrder, Ticket, Write,
    entry::{Ending, Entry, Fact, Phase, Started, brief},
    method_is_atomic,
    schedule::{Instant, LastRun, Progress, Schedule},
    spool::{Notice, SHORT_OUTPUT},
};
use crate::clock::Moment;

/// Most schedules of one node.
pub const MAX_SCHEDULES: usize = 64;

/// Set in the tickets of local orders. Tickets count orders; they never come near it.
const LOCAL: u64 = 1 << 62;

impl Ticket {
    /// Tells whether it is that of an order this node gave itself.
    pub fn is_local(self) -> bool {
        self.0 & LOCAL != 0
    }
}

/// What gave a local order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// The schedule of this name.
    Schedule(Domain),
    /// The file of this name in the startup directory.
    Startup(String),
}

impl fmt::Display for Source {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Schedule(name) => write!(formatter, "schedule:{name}"),
            Self::Startup(file) => write!(formatter, "startup:{file}"),
        }
    }
}

/// A text that names no source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is neither schedule:NAME nor startup:FILE")]
pub struct NoSource;

impl FromStr for Source {
    type Err = NoSource;

    fn from_str(text: &str) -> Result<Self, NoSource> {
        match text.split_once(':') {
            Some(("schedule", name)) => name.parse().map(Self::Schedule).map_err(|_| NoSource),
            Some(("startup", file)) => Ok(Self::Startup(file.to_owned())),
            _ => Err(NoSource),
        }
    }
}

/// A local order that is not over.
#[derive(Debug, Clone)]
pub struct LocalOrder {
    /// What is kept of any order.
    pub entry: Entry,
    /// What gave it.
    pub source: Source,
    /// The order itself.
    pub order: Sealed,
}

/// A question about local orders.
#[derive(Debug)]
pub enum LocalAsk {
    /// Which schedules are due?
    Due(TimeZone, u64),
    /// An order is given.
    Take {
        /// The order.
        order: Box<Sealed>,
        /// What gave it.
        source: Source,
        /// The node's time zone.
        zone: TimeZone,
        /// A random number.
        dice: u64,
    },
    /// Which are not over?
    Open,
    /// Is it for this process to run what is to run at every start?
    Startup,
}

/// An answer about local orders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LocalAnswer {
    /// To [`LocalAsk::Due`].
    Due(DueRuns),
    /// To [`LocalAsk::Take`]; nothing when the schedule is gone, or its last run is not over.
    Taken(Option<Ticket>),
    /// To [`LocalAsk::Open`].
    Open(Vec<(Subject, Source, OpenOrder)>),
    /// To [`LocalAsk::Startup`].
    Startup(bool),
}

/// The schedules that are due.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DueRuns {
    /// Their names, and what they run.
    pub due: Vec<(Domain, ScheduleBody)>,
    /// When to ask next, on the clock of this boot; never, if there are none.
    pub next_ms: Option<u64>,
}

/// What a method of the agent itself does to the journal, with the end of its order in one commit.
#[derive(Debug, Clone)]
pub struct Deed {
    /// What.
    pub effect: Effect,
    /// When the order was started.
    pub started_at: Timestamp,
    /// Exit codes the order calls success.
    pub success_codes: Vec<i32>,
}

/// What is done.
#[derive(Debug, Clone)]
pub enum Effect {
    /// Text for the station's log is kept until the station has it.
    Text(TextEvent),
    /// A schedule is set, listed or removed.
    Schedule {
        /// What is asked.
        body: Box<ScheduleBody>,
        /// The node's time zone.
        zone: TimeZone,
        /// A random number.
        dice: u64,
    },
}

/// The local orders that are not over, and the schedules.
#[derive(Debug, Default)]
pub struct Locals {
    orders: BTreeMap<Ticket, LocalOrder>,
    schedules: BTreeMap<Domain, Schedule>,
    last: u64,
    started_up: bool,
}

impl Locals {
    /// Replaces what is believed by what is durable. What was taken and not begun is in no file.
    pub(super) fn reload(
        &mut self,
        orders: Vec<(Ticket, LocalOrder)>,
        schedules: Vec<(Domain, Schedule)>,
    ) {
        self.orders
            .retain(|_, local| local.entry.phase == Phase::Received);
        for (ticket, local) in orders {
            self.last = self.last.max(ticket.0 & !LOCAL);
            self.orders.insert(ticket, local);
        }
        self.schedules = schedules.into_iter().collect();
    }

    pub(super) fn get(&self, ticket: Ticket) -> Option<&LocalOrder> {
        self.orders.get(&ticket)
    }

    fn is_busy(&self, source: &Source) -> bool {
        self.orders.values().any(|local| local.source == *source)
    }
}

impl Journal {
    /// Returns how far the orders with this id are. What this node gave itself is over with its report.
    pub(super) fn fate(&self, id: MessageId) -> Fate {
        let is_local = |local: &LocalOrder| local.entry.id == id;
        match self.locals.orders.values().any(is_local) {
            true => Fate::Open,
            false => self.shelf.fate(id),
        }
    }

    /// Returns a local order that is not over.
    pub fn local_order(&self, ticket: Ticket) -> Option<&Sealed> {
        self.locals.get(ticket).map(|local| &local.order)
    }

    pub(super) fn local(&mut self, ask: LocalAsk, now: &Moment) -> LocalAnswer {
        match ask {
            LocalAsk::Due(zone, dice) => {
                let zone = &zone;
                LocalAnswer::Due(self.due_runs(Instant { now, zone, dice }))
            }
            LocalAsk::Take {
                order,
                source,
                zone,
                dice,
            } => {
                let zone = &zone;
                let instant = Instant { now, zone, dice };
                LocalAnswer::Taken(self.take_local(*order, source, instant))
            }
            LocalAsk::Open => LocalAnswer::Open(self.open_local()),
            LocalAsk::Startup => {
                LocalAnswer::Startup(!std::mem::replace(&mut self.locals.started_up, true))
            }
        }
    }

    fn due_runs(&mut self, instant: Instant<'_>) -> DueRuns {
        let mut found = DueRuns::default();
        let names: Vec<Domain> = self.locals.schedules.keys().cloned().collect();
        for name in names {
            let busy = self.locals.is_busy(&Source::Schedule(name.clone()));
            let Some(schedule) = self.locals.schedules.get_mut(&name) else {
                continue;
            };
            let mut changed = schedule.look(instant);
            if schedule.is_due(instant.now) {
                if busy {
                    schedule.skip(instant);
                    changed = true;
                } else {
                    found.due.push((name.clone(), schedule.body.clone()));
                }
            }
            let next = schedule.due_ms(instant.now);
            found.next_ms = Some(found.next_ms.map_or(next, |known| known.min(next)));
            if changed {
                let schedule = Box::new(schedule.clone());
                self.writes.push(Write::Schedule(name, schedule));
            }
        }
        found
    }

    fn take_local(
        &mut self,
        order: Sealed,
        source: Source,
        instant: Instant<'_>,
    ) -> Option<Ticket> {
        if self.locals.is_busy(&source) {
            return None;
        }
        let now = instant.now;
        let id = order.order().id;
        if let Source::Schedule(name) = &source {
            let schedule = self.locals.schedules.get_mut(name)?;
            schedule.plan(instant);
            schedule.runs += 1;
            schedule.last = Some(LastRun {
                id,
                at: now.wall,
                state: None,
                exit_code: None,
            });
        }
        self.locals.last += 1;
        let ticket = Ticket(LOCAL | self.locals.last);
        let entry = Entry {
            id,
            digest: order.digest(),
            subject: order.order().subject.clone(),
            ledger_id: LedgerId(Uuid::nil()),
            pos: 0,
            seq: None,
            idempotent: false,
            timeout_ms: order.order().timeout_ms,
            expires_at: order.order().expires_at,
            deadline: super::deadline(now, 0),
            starts: 0,
            phase: Phase::Received,
            at: now.wall,
        };
        let local = LocalOrder {
            entry,
            source,
            order,
        };
        self.locals.orders.insert(ticket, local);
        Some(ticket)
    }

    fn open_local(&self) -> Vec<(Subject, Source, OpenOrder)> {
        let open = |(ticket, local): (&Ticket, &LocalOrder)| {
            let entry = &local.entry;
            let order = OpenOrder {
                ticket: *ticket,
                id: entry.id,
                ordered: false,
                timeout_ms: entry.timeout_ms,
                starts: entry.starts,
                started: match &entry.phase {
                    Phase::Started(started) => Some(started.clone()),
                    Phase::Received | Phase::Final(_) => None,
                },
            };
            (entry.subject.clone(), local.source.clone(), order)
        };
        self.locals.orders.iter().map(open).collect()
    }

    pub(super) fn begin_local(&mut self, ticket: Ticket, now: &Moment) -> Answer {
        let received = |local: &LocalOrder| local.entry.phase == Phase::Received;
        let Some(starts) = self
            .locals
            .get(ticket)
            .filter(|local| received(local))
            .map(|local| local.entry.starts)
        else {
            return Answer::Begun(Begun::Gone);
        };
        let started = Started {
            at: now.wall,
            boot_id: std::sync::Arc::clone(&now.boot_id),
            boot_ms: now.boot_ms,
            child: None,
            revoked: None,
        };
        if let Err(contradiction) = self.apply_local(ticket, Fact::Start(started), now) {
            return Answer::Contradiction(contradiction);
        }
        self.write_schedule_of(ticket);
        Answer::Begun(Begun::Go {
            attempt: starts.saturating_add(1),
            at: now.wall,
        })
    }

    /// Applies a fact that is not the end.
    fn apply_local(
        &mut self,
        ticket: Ticket,
        fact: Fact,
        now: &Moment,
    ) -> Result<Ack, Contradiction> {
        let Some(local) = self.locals.orders.get_mut(&ticket) else {
            return Err(unknown());
        };
        let starts = u32::from(matches!(fact, Fact::Start(_)));
        local.entry.phase = local.entry.phase.next(fact)?;
        local.entry.starts += starts;
        local.entry.at = now.wall;
        let ack = local.entry.ack();
        self.writes
            .push(Write::Local(ticket, Box::new(local.clone())));
        Ok(ack)
    }

    pub(super) fn fact_local(&mut self, ticket: Ticket, fact: Fact, now: &Moment) -> Answer {
        match self.apply_local(ticket, fact, now) {
            Ok(ack) => Answer::Ack(Box::new(ack)),
            Err(contradiction) => Answer::Contradiction(contradiction),
        }
    }

    pub(super) fn lost_local(&mut self, ticket: Ticket, reason: String, now: &Moment) -> Answer {
        let again = self
            .locals
            .get(ticket)
            .is_some_and(|local| method_is_atomic(&local.entry.subject));
        if again {
            return match self.apply_local(ticket, Fact::Requeue, now) {
                Ok(_) => Answer::Again,
                Err(contradiction) => Answer::Contradiction(contradiction),
            };
        }
        let finish = Finish {
            state: State::Interrupted,
            reason: Some(reason),
            outcome: None,
        };
        self.finish_local(ticket, finish, now)
    }

    /// Ends a local order: its report takes its place, with one commit.
    pub(super) fn finish_local(&mut self, ticket: Ticket, finish: Finish, now: &Moment) -> Answer {
        let Some(local) = self.locals.orders.get(&ticket) else {
            return Answer::Contradiction(unknown());
        };
        let mut entry = local.entry.clone();
        let ending = Ending {
            state: finish.state,
            reason: finish.reason.map(brief),
            confirmed: false,
            output_bytes: 0,
        };
        entry.phase = match entry.phase.next(Fact::End(ending)) {
            Ok(phase) => phase,
            Err(contradiction) => return Answer::Contradiction(contradiction),
        };
        entry.at = now.wall;
        let mut outcome = finish.outcome;
        if let Some(outcome) = outcome.as_mut().filter(|_| self.spool.is_short()) {
            let streams = [&mut outcome.stdout, &mut outcome.stderr];
            for output in streams.into_iter().flatten() {
                output.shrink(SHORT_OUTPUT);
            }
        }
        let exit_code = outcome.as_ref().and_then(|outcome| outcome.exit_code);
        let ack = Ack {
            outcome,
            ..entry.ack()
        };
        let Some(local) = self.locals.orders.remove(&ticket) else {
            return Answer::Contradiction(unknown());
        };
        self.writes.push(Write::ForgetLocal(ticket));
        self.note_run(&local, ack.state, exit_code);
        match report_of(&local, &ack) {
            Ok(report) => self.keep(Notice::Report(Box::new(report))),
            // It was read from this very text.
            Err(error) => tracing::error!(%error, "an order cannot be reported"),
        }
        Answer::Ack(Box::new(ack))
    }

    fn note_run(&mut self, local: &LocalOrder, state: State, exit_code: Option<i32>) {
        let Source::Schedule(name) = &local.source else {
            return;
        };
        let Some(schedule) = self.locals.schedules.get_mut(name) else {
            return;
        };
        if let Some(last) = schedule
            .last
            .as_mut()
            .filter(|last| last.id == local.entry.id)
        {
            last.state = Some(state);
            last.exit_code = exit_code;
        }
        let schedule = Box::new(schedule.clone());
        self.writes.push(Write::Schedule(name.clone(), schedule));
    }

    fn write_schedule_of(&mut self, ticket: Ticket) {
        let source = self.locals.get(ticket).map(|local| local.source.clone());
        if let Some(Source::Schedule(name)) = source
            && let Some(schedule) = self.locals.schedules.get(&name)
        {
            let schedule = Box::new(schedule.clone());
            self.writes.push(Write::Schedule(name, schedule));
        }
    }

    /// Does what a method of the agent itself does, and ends its order.
    pub(super) fn perform(&mut self, ticket: Ticket, deed: Deed, now: &Moment) -> Answer {
        let started = self
            .entry(ticket)
            .is_some_and(|entry| matches!(entry.phase, Phase::Started(_)));
        if !started {
            return Answer::Contradiction(Contradiction {
                phase: "not started",
                fact: "a deed",
            });
        }
        let done = match deed.effect {
            Effect::Text(text) => {
                let lines = text.data.len();
                self.keep(Notice::Text(text));
                Ok(format!("{lines} lines for the station's log\n"))
            }
            Effect::Schedule { body, zone, dice } => {
                let zone = &zone;
                self.change_schedule(*body, Instant { now, zone, dice })
            }
        };
        let (code, stdout, reason) = match done {
            Ok(text) => (0, text, None),
            Err(reason) => (1, String::new(), Some(reason)),
        };
        let finish = Finish {
            state: match deed.success_codes.contains(&code) {
                true => State::Succeeded,
                false => State::Failed,
            },
            reason,
            outcome: Some(Outcome {
                exit_code: Some(code),
                signal: None,
                started_at: deed.started_at,
                finished_at: now.wall,
                stdout: Some(Output::whole(stdout.as_bytes())),
                stderr: Some(Output::whole(b"")),
            }),
        };
        match ticket.is_local() {
            true => self.finish_local(ticket, finish, now),
            false => self.finish(ticket, finish, now),
        }
    }

    fn change_schedule(
        &mut self,
        body: ScheduleBody,
        instant: Instant<'_>,
    ) -> Result<String, String> {
        let name = match (body.action, &body.schedule) {
            (ScheduleAction::List, _) => return Ok(self.list_schedules()),
            (_, None) => return Err("it has no name".to_owned()),
            (ScheduleAction::Set | ScheduleAction::Remove, Some(name)) => name.clone(),
        };
        if body.action == ScheduleAction::Remove {
            return match self.locals.schedules.remove(&name) {
                Some(_) => {
                    self.writes.push(Write::ForgetSchedule(name.clone()));
                    Ok(format!("schedule {name} is removed\n"))
                }
                None => Err(format!("there is no schedule {name}")),
            };
        }
        let known = self.locals.schedules.get(&name);
        if known.is_some_and(|known| known.body == body) {
            return Ok(format!("schedule {name} stays as it is\n"));
        }
        if known.is_none() && self.locals.schedules.len() >= MAX_SCHEDULES {
            return Err(format!(
                "this node has {MAX_SCHEDULES} schedules, and that is the most; remove one first"
            ));
        }
        let schedule = Schedule::set(body, instant).ok_or("it says no time")?;
        let text = format!(
            "schedule {name} is set; it runs next at {:.0}\n",
            schedule.due
        );
        let write = Write::Schedule(name.clone(), Box::new(schedule.clone()));
        self.writes.push(write);
        self.locals.schedules.insert(name, schedule);
        Ok(text)
    }

    fn list_schedules(&self) -> String {
        let last = |last: &LastRun| {
            let state = last.state.unwrap_or(State::Running);
            serde_json::json!({ "id": last.id, "at": last.at, "state": state,
                "exit_code": last.exit_code })
        };
        let one = |(name, schedule): (&Domain, &Schedule)| {
            let body = &schedule.body;
            serde_json::json!({ "schedule": name, "every": body.every, "cron": body.cron,
                "jitter": body.jitter, "missed": body.missed.unwrap_or_default(), "run": body.run,
                "set_at": schedule.set_at, "next_run": schedule.due, "runs": schedule.runs,
                "skipped": schedule.skipped, "last_run": schedule.last.as_ref().map(last) })
        };
        let list: Vec<serde_json::Value> = self.locals.schedules.iter().map(one).collect();
        format!("{}\n", serde_json::Value::Array(list))
    }
}

fn unknown() -> Contradiction {
    Contradiction {
        phase: "forgotten",
        fact: "anything",
    }
}

fn report_of(local: &LocalOrder, ack: &Ack) -> Result<ReportEvent, serde_json::Error> {
    Ok(ReportEvent {
        id: EventId(ack.id.0),
        at: ack.at,
        source: local.source.to_string(),
        order: serde_json::value::RawValue::from_string(local.order.text().to_owned())?,
        ack: ack.clone(),
    })
}

impl From<&Schedule> for Progress {
    fn from(schedule: &Schedule) -> Self {
        Self {
            set_at: schedule.set_at,
            nominal: schedule.nominal,
            due: schedule.due,
            runs: schedule.runs,
            skipped: schedule.skipped,
            last: schedule.last.clone(),
        }
    }
}
