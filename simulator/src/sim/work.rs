//! Carrying one order out, from its turn to the answer, in the order the rules demand (J1, J4).
//!
//! ```text
//! permit ─ begin (durable) ─ spawn ─ child (durable) ─ ACK running ─ … ─ finish (durable) ─ ACK
//! ```
//!
//! Between any two of these the agent may be killed, and other things may happen.

use std::time::Duration;

use steward_agent::{
    dispatch::{Action, Event, Turn},
    journal::{Answer, Ask, Begun, ChildMark, Finish, OpenOrder, Started, Ticket},
};
use steward_protocol::{Outcome, State, retry::Backoff};

use super::{
    book::Nature,
    bug::Bug,
    host::Trouble,
    truth::{Child, End, draw},
    warden::{Stopped, Written},
    wire::Up,
    world::{Happening, Killed, Who, World},
};

/// Wait between two tries to write down how an order ended; as in the real agent.
const RETRY: Backoff = Backoff {
    base: Duration::from_millis(500),
    cap: Duration::from_secs(30),
};

/// One order at work.
#[derive(Debug)]
pub struct Work {
    /// Its number.
    pub ticket: Ticket,
    /// Its lane.
    pub domain: usize,
    /// Its place in the ledger.
    pos: u64,
    /// Whether it holds a permit.
    permit: bool,
    /// Whether somebody wants it stopped.
    revoked: bool,
    stage: Stage,
}

/// How far the work has come: what is to be done next.
#[derive(Debug)]
enum Stage {
    Permit,
    Begin,
    /// Which start of the order it is.
    Spawn(u32),
    Mark(usize),
    /// Its warden has not written down yet how it ended.
    Running(usize),
    Finish(Box<Finish>, u32),
    Lose(&'static str, u32),
    Answer,
    Over(Turn),
}

/// What follows from a stage.
enum Next {
    /// The next stage can begin.
    Go(Stage),
    /// Something else goes on with it.
    Wait(Stage),
    /// It is tried again after so many milliseconds.
    Later(Stage, u64),
}

impl World<'_> {
    /// Does what a dispatch says.
    pub(super) fn set_to_work(
        &mut self,
        host: usize,
        domain: usize,
        action: Action,
    ) -> Result<(), Killed> {
        let (ticket, stage, revoked) = match action {
            Action::Begin(ticket) => (ticket, Stage::Permit, false),
            Action::Recover(order, started) => {
                let stage = self.recover(host, &order, &started);
                (order.ticket, stage, started.revoked.is_some())
            }
        };
        let Some(agent) = &mut self.hosts[host].agent else {
            return Ok(());
        };
        let pos = agent.journal.entry(ticket).map_or(0, |entry| entry.pos);
        agent.works.push(Work {
            ticket,
            domain,
            pos,
            permit: false,
            revoked,
            stage,
        });
        self.carry(host, ticket)
    }

    /// Sees to an order that an earlier start left started (rule J3).
    fn recover(&mut self, host: usize, order: &OpenOrder, started: &Started) -> Stage {
        let found = self.find_warden(host, order, started);
        if let Some(child) = found.filter(|_| !self.bug(Bug::IgnoreWardens)) {
            return Stage::Running(child);
        }
        if started.boot_id != self.hosts[host].boot.0 {
            return Stage::Lose("the node was restarted while it ran, and it is gone", 0);
        }
        let journal = self.hosts[host].agent.as_ref().map(|agent| &agent.journal);
        let entry = journal.and_then(|journal| journal.entry(order.ticket));
        if let Some(pos) = entry.map(|entry| entry.pos) {
            self.clear_leftovers(host, pos);
        }
        Stage::Lose("the agent was restarted while it ran, and it is gone", 0)
    }

    fn work(&mut self, host: usize, ticket: Ticket) -> Option<&mut Work> {
        let agent = self.hosts[host].agent.as_mut()?;
        agent.works.iter_mut().find(|work| work.ticket == ticket)
    }

    pub(super) fn go_on(&mut self, host: usize, life: u32, ticket: u64) {
        let same = self.hosts[host]
            .agent
            .as_ref()
            .is_some_and(|it| it.life == life);
        if same {
            self.guard(host, |world, host| world.carry(host, Ticket(ticket)));
        }
    }

    /// Goes on with an order as far as it gets.
    fn carry(&mut self, host: usize, ticket: Ticket) -> Result<(), Killed> {
        loop {
            let Some(work) = self.work(host, ticket) else {
                return Ok(());
            };
            // If the agent is killed in it, nobody asks for the stage any more.
            let stage = std::mem::replace(&mut work.stage, Stage::Begin);
            if let Stage::Over(turn) = stage {
                return self.over(host, ticket, turn);
            }
            let next = self.advance(host, ticket, stage)?;
            let (stage, later) = match next {
                Next::Go(stage) => {
                    let dawdles = !self.quiet() && self.dice.chance(self.plan.dawdle);
                    (stage, dawdles.then(|| self.dice.between(1, 60)))
                }
                Next::Wait(stage) => (stage, None),
                Next::Later(stage, wait) => (stage, Some(wait)),
            };
            let waits = matches!(stage, Stage::Running(_) | Stage::Permit);
            let Some(work) = self.work(host, ticket) else {
                return Ok(());
            };
            work.stage = stage;
            if let Some(wait) = later {
                let Some(agent) = &self.hosts[host].agent else {
                    return Ok(());
                };
                let happening = Happening::Work(host, agent.life, ticket.0);
                self.queue.plan(self.now + wait, happening);
                return Ok(());
            }
            if waits {
                return Ok(());
            }
        }
    }

    fn advance(&mut self, host: usize, ticket: Ticket, stage: Stage) -> Result<Next, Killed> {
        match stage {
            Stage::Permit => Ok(self.permit(host, ticket)),
            Stage::Begin => self.begin_order(host, ticket),
            Stage::Spawn(attempt) => self.spawn(host, ticket, attempt),
            Stage::Mark(child) => self.mark(host, ticket, child),
            Stage::Running(child) => Ok(self.watch(host, ticket, child)),
            Stage::Over(_) => Ok(Next::Wait(stage)),
            Stage::Finish(finish, tries) => self.finish(host, ticket, finish, tries),
            Stage::Lose(why, tries) => self.lose(host, ticket, why, tries),
            Stage::Answer => {
                self.say_ack(host, ticket)?;
                Ok(Next::Go(Stage::Over(Turn::Over)))
            }
        }
    }

    /// Somebody wants an order stopped that is at work.
    pub(super) fn revoke(&mut self, host: usize, ticket: Ticket) -> Result<(), Killed> {
        let Some(work) = self.work(host, ticket) else {
            return Ok(());
        };
        work.revoked = true;
        if matches!(work.stage, Stage::Running(_)) {
            return self.carry(host, ticket);
        }
        Ok(())
    }

    /// Waits for a command's warden to say how it ended; tells it to stop what is called off.
    fn watch(&mut self, host: usize, ticket: Ticket, child: usize) -> Next {
        let revoked = self.work(host, ticket).is_some_and(|work| work.revoked);
        if revoked {
            self.tell_to_stop(child);
        }
        if let Some(written) = self.written(child) {
            let pos = self.truth.children[child].pos;
            let finish = self.finish_of(host, pos, written, revoked);
            return Next::Go(Stage::Finish(Box::new(finish), 0));
        }
        if self.is_watched(child) {
            return Next::Wait(Stage::Running(child));
        }
        Next::Go(Stage::Lose("its warden is gone", 0))
    }

    fn permit(&mut self, host: usize, ticket: Ticket) -> Next {
        let Some(agent) = &mut self.hosts[host].agent else {
            return Next::Wait(Stage::Permit);
        };
        if agent.permits == 0 {
            if !agent.waiting.contains(&ticket) {
                agent.waiting.push_back(ticket);
            }
            return Next::Wait(Stage::Permit);
        }
        agent.permits -= 1;
        if let Some(work) = self.work(host, ticket) {
            work.permit = true;
        }
        Next::Go(Stage::Begin)
    }

    fn begin_order(&mut self, host: usize, ticket: Ticket) -> Result<Next, Killed> {
        if self.bug(Bug::JournalAfterSpawn) {
            let received = self.ack(host, ticket).map(|ack| ack.state) == Some(State::Received);
            if received {
                let next = self.spawn(host, ticket, 1)?;
                self.step(host)?;
                let begun = self.ask(host, Ask::Begin(ticket));
                if begun == Err(Trouble::Killed) {
                    return Err(Killed);
                }
                return Ok(next);
            }
        }
        // The real one reads the order's text before it asks, and refuses what is damaged.
        let begun = match self.ask(host, Ask::Begin(ticket)) {
            Ok(Answer::Begun(begun)) => begun,
            Ok(_) => return Ok(Next::Go(Stage::Over(Turn::Over))),
            Err(Trouble::Storage) if self.bug(Bug::SpawnWithoutStorage) => {
                return Ok(Next::Go(Stage::Spawn(1)));
            }
            Err(Trouble::Storage) => return Ok(Next::Go(Stage::Over(Turn::NoStorage))),
            Err(Trouble::Killed) => return Err(Killed),
        };
        self.note(Who::Host(host), || {
            format!("begins {}: {begun:?}", ticket.0)
        });
        Ok(Next::Go(match begun {
            Begun::Go { attempt, .. } => Stage::Spawn(attempt),
            Begun::Over(_) => Stage::Answer,
            Begun::Wait => Stage::Over(Turn::Wait),
            Begun::Gone => Stage::Over(Turn::Over),
        }))
    }

    fn spawn(&mut self, host: usize, ticket: Ticket, attempt: u32) -> Result<Next, Killed> {
        self.step(host)?;
        let pos = self.work(host, ticket).map_or(0, |work| work.pos);
        let Some(page) = self.page(pos).cloned() else {
            return Ok(Next::Go(Stage::Over(Turn::Over)));
        };
        if page.nature == Nature::Missing {
            let finish = self.ended(host, State::Failed, Some(127), None);
            return Ok(Next::Go(Stage::Finish(Box::new(finish), 0)));
        }
        let (takes, exit) = draw(&mut self.dice);
        let child = Child {
            run: self.truth.runs.len(),
            host,
            pos,
            exit,
            ends: self.now + takes,
        };
        let timeout = super::book::millis(page.accepted.message.options.timeout);
        let child = self.start_warden(child, attempt, timeout);
        self.note(Who::Command(host), || {
            format!("{pos} starts as {child}, takes {takes} ms, will exit with {exit}")
        });
        if self.bug(Bug::AckBeforeFact)
            && let Some(mut ack) = self.ack(host, ticket)
        {
            ack.state = State::Succeeded;
            ack.outcome = self.ended(host, State::Succeeded, Some(0), None).outcome;
            self.say(host, Up::Ack(Box::new(ack)))?;
        }
        Ok(Next::Go(Stage::Mark(child)))
    }

    fn mark(&mut self, host: usize, ticket: Ticket, child: usize) -> Result<Next, Killed> {
        let mark = ChildMark {
            pid: i32::try_from(child).unwrap_or(i32::MAX),
            start_time: self.truth.runs[self.truth.children[child].run].started,
        };
        match self.ask(host, Ask::Spawned(ticket, mark)) {
            Ok(_) => self.say_ack(host, ticket)?,
            Err(Trouble::Storage) => {}
            Err(Trouble::Killed) => return Err(Killed),
        }
        Ok(self.watch(host, ticket, child))
    }

    /// Returns what the end that a warden wrote makes of its order.
    fn finish_of(&self, host: usize, pos: u64, written: Written, revoked: bool) -> Finish {
        let killed = |state| self.ended(host, state, None, Some(9));
        match (written.end, written.stopped) {
            (End::Exit(code), _) => {
                let good = self.page(pos).is_some_and(|page| {
                    page.accepted.message.options.success_codes.contains(&code)
                });
                let state = if good {
                    State::Succeeded
                } else {
                    State::Failed
                };
                self.ended(host, state, Some(code), None)
            }
            (End::Killed, Some(Stopped::TimedOut)) => killed(State::TimedOut),
            (End::Killed, Some(Stopped::Told)) if revoked => killed(State::Cancelled),
            (End::Killed, _) => killed(State::Failed),
        }
    }

    fn ended(
        &self,
        host: usize,
        state: State,
        exit_code: Option<i32>,
        signal: Option<i32>,
    ) -> Finish {
        let at = self.moment(host).wall;
        Finish {
            state,
            reason: None,
            outcome: Some(Outcome {
                exit_code,
                signal,
                started_at: at,
                finished_at: at,
                stdout: None,
                stderr: None,
            }),
        }
    }

    fn finish(
        &mut self,
        host: usize,
        ticket: Ticket,
        finish: Box<Finish>,
        tries: u32,
    ) -> Result<Next, Killed> {
        match self.ask(host, Ask::Finish(ticket, finish.clone())) {
            Ok(Answer::Stands(_)) => Ok(Next::Go(Stage::Answer)),
            Ok(_) => Ok(Next::Go(Stage::Over(Turn::Over))),
            Err(Trouble::Storage) => {
                let wait = RETRY.bound(tries) / 2 + RETRY.full_jitter(tries, self.dice.roll()) / 2;
                let stage = Stage::Finish(finish, tries + 1);
                Ok(Next::Later(stage, super::book::millis(wait)))
            }
            Err(Trouble::Killed) => Err(Killed),
        }
    }

    fn lose(
        &mut self,
        host: usize,
        ticket: Ticket,
        why: &'static str,
        tries: u32,
    ) -> Result<Next, Killed> {
        match self.ask(host, Ask::Lost(ticket, why.to_owned())) {
            Ok(Answer::Again) => Ok(Next::Go(Stage::Over(Turn::Again))),
            Ok(Answer::Stands(_)) => Ok(Next::Go(Stage::Answer)),
            Ok(_) => Ok(Next::Go(Stage::Over(Turn::Over))),
            Err(Trouble::Storage) => {
                let wait = super::book::millis(RETRY.bound(tries));
                Ok(Next::Later(Stage::Lose(why, tries + 1), wait))
            }
            Err(Trouble::Killed) => Err(Killed),
        }
    }

    /// An order's turn is over.
    fn over(&mut self, host: usize, ticket: Ticket, turn: Turn) -> Result<(), Killed> {
        let Some(agent) = &mut self.hosts[host].agent else {
            return Ok(());
        };
        let Some(at) = agent.works.iter().position(|work| work.ticket == ticket) else {
            return Ok(());
        };
        let work = agent.works.remove(at);
        agent.permits += usize::from(work.permit);
        let waiting = match agent.permits {
            0 => None,
            _ => agent.waiting.pop_front(),
        };
        self.tell(host, work.domain, Event::TurnOver { ticket, turn })?;
        match waiting {
            Some(waiting) => self.carry(host, waiting),
            None => Ok(()),
        }
    }

    /// Whoever waits for a command sees that it is over.
    pub(super) fn look_after(&mut self, child: usize) {
        let host = self.truth.children[child].host;
        let Some(agent) = &self.hosts[host].agent else {
            return;
        };
        let mut works = agent.works.iter();
        let of = |work: &&Work| matches!(work.stage, Stage::Running(it) if it == child);
        if let Some(ticket) = works.find(of).map(|work| work.ticket) {
            self.guard(host, |world, host| world.carry(host, ticket));
        }
    }
}
