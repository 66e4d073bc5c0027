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
    wire::Up,
    world::{Happening, Killed, Who, World},
};

/// Wait between two tries to write down how an order ended; as in the real agent.
const RETRY: Backoff = Backoff {
    base: Duration::from_millis(500),
    cap: Duration::from_secs(30),
};

/// What is said of a command that was stopped by another start of the agent than began it.
const FOUND_AGAIN: &str = "cancelled; the agent was restarted while it ran, so its output is lost";

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
    Spawn,
    Mark(usize),
    Running(usize),
    /// A command of an earlier start still runs.
    Watching(usize),
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
        let now = self.moment(host);
        if started.boot_id != now.boot_id {
            return Stage::Lose("the node was restarted while it ran", 0);
        }
        let child = match started.child {
            Some(mark) => usize::try_from(mark.pid).ok(),
            None => self.find_leader(host, order.ticket),
        };
        let Some(child) = child.filter(|child| self.truth.is_alive(*child)) else {
            return Stage::Lose("the agent was restarted while it ran, and it is gone", 0);
        };
        let ran = now.boot_ms.saturating_sub(started.boot_ms);
        let left = order.timeout_ms.saturating_sub(ran);
        self.plan_timeout(host, order.ticket, child, left);
        Stage::Watching(child)
    }

    /// Finds the command of an order by its environment.
    fn find_leader(&self, host: usize, ticket: Ticket) -> Option<usize> {
        let agent = self.hosts[host].agent.as_ref()?;
        let pos = agent.journal.entry(ticket)?.pos;
        let mut alive = self.truth.alive_on(host).into_iter();
        alive.find(|child| self.truth.children[*child].pos == pos)
    }

    fn plan_timeout(&mut self, host: usize, ticket: Ticket, child: usize, left: u64) {
        if self.truth.children[child].ends <= self.now + left {
            // It ends before.
            return;
        }
        if let Some(agent) = &self.hosts[host].agent {
            let happening = Happening::Timeout(host, agent.life, ticket.0);
            self.queue.plan(self.now + left, happening);
        }
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
            let waits = matches!(
                stage,
                Stage::Running(_) | Stage::Watching(_) | Stage::Permit
            );
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
        if let Some(next) = self.stop(host, ticket, &stage) {
            return Ok(next);
        }
        match stage {
            Stage::Permit => Ok(self.permit(host, ticket)),
            Stage::Begin => self.begin_order(host, ticket),
            Stage::Spawn => self.spawn(host, ticket),
            Stage::Mark(child) => self.mark(host, ticket, child),
            Stage::Running(child) if !self.truth.is_alive(child) => Ok(self.ended(host, child)),
            Stage::Watching(child) if !self.truth.is_alive(child) => {
                let why = "the agent was restarted while it ran: its exit code is not known";
                Ok(Next::Go(Stage::Lose(why, 0)))
            }
            Stage::Running(_) | Stage::Watching(_) | Stage::Over(_) => Ok(Next::Wait(stage)),
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
        if matches!(work.stage, Stage::Running(_) | Stage::Watching(_)) {
            return self.carry(host, ticket);
        }
        Ok(())
    }

    /// Stops a command that is called off, unless it has just come to its own end.
    fn stop(&mut self, host: usize, ticket: Ticket, stage: &Stage) -> Option<Next> {
        let (child, known) = match *stage {
            Stage::Running(child) => (child, true),
            Stage::Watching(child) => (child, false),
            _ => return None,
        };
        let revoked = self.work(host, ticket).is_some_and(|work| work.revoked);
        if !revoked || !self.truth.end(child, End::Killed, self.now) {
            return None;
        }
        let pos = self.truth.children[child].pos;
        self.note(Who::Command(host), || {
            format!("{pos} is stopped, as it is called off")
        });
        let mut finish = self.finish_of(host, State::Cancelled, None, Some(9));
        if !known {
            finish.outcome = None;
            finish.reason = Some(FOUND_AGAIN.to_owned());
        }
        Some(Next::Go(Stage::Finish(Box::new(finish), 0)))
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
                let next = self.spawn(host, ticket)?;
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
                return Ok(Next::Go(Stage::Spawn));
            }
            Err(Trouble::Storage) => return Ok(Next::Go(Stage::Over(Turn::NoStorage))),
            Err(Trouble::Killed) => return Err(Killed),
        };
        self.note(Who::Host(host), || {
            format!("begins {}: {begun:?}", ticket.0)
        });
        Ok(Next::Go(match begun {
            Begun::Go { .. } => Stage::Spawn,
            Begun::Over(_) => Stage::Answer,
            Begun::Wait => Stage::Over(Turn::Wait),
            Begun::Gone => Stage::Over(Turn::Over),
        }))
    }

    fn spawn(&mut self, host: usize, ticket: Ticket) -> Result<Next, Killed> {
        self.step(host)?;
        let pos = self.work(host, ticket).map_or(0, |work| work.pos);
        let Some(page) = self.page(pos).cloned() else {
            return Ok(Next::Go(Stage::Over(Turn::Over)));
        };
        if page.nature == Nature::Missing {
            let finish = self.finish_of(host, State::Failed, Some(127), None);
            return Ok(Next::Go(Stage::Finish(Box::new(finish), 0)));
        }
        let (takes, exit) = draw(&mut self.dice);
        let node = self.hosts[host].node;
        let child = Child {
            run: self.truth.runs.len(),
            host,
            pos,
            exit,
            ends: self.now + takes,
        };
        let child = self.truth.start(child, node, self.now);
        self.note(Who::Command(host), || {
            format!("{pos} starts as {child}, takes {takes} ms, will exit with {exit}")
        });
        self.queue
            .plan(self.now + takes, Happening::ChildEnd(child));
        let timeout = super::book::millis(page.accepted.message.options.timeout);
        self.plan_timeout(host, ticket, child, timeout);
        if self.bug(Bug::AckBeforeFact)
            && let Some(mut ack) = self.ack(host, ticket)
        {
            ack.state = State::Succeeded;
            ack.outcome = self
                .finish_of(host, State::Succeeded, Some(0), None)
                .outcome;
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
        if self.truth.is_alive(child) {
            Ok(self
                .stop(host, ticket, &Stage::Running(child))
                .unwrap_or(Next::Go(Stage::Running(child))))
        } else {
            Ok(self.ended(host, child))
        }
    }

    /// A command is over while the agent that started it looks on.
    fn ended(&mut self, host: usize, child: usize) -> Next {
        let child = &self.truth.children[child];
        let (run, pos) = (&self.truth.runs[child.run], child.pos);
        let finish = match run.end {
            Some((_, End::Exit(code))) => {
                let page = self.page(pos);
                let good = page.is_some_and(|page| {
                    page.accepted.message.options.success_codes.contains(&code)
                });
                let state = if good {
                    State::Succeeded
                } else {
                    State::Failed
                };
                self.finish_of(host, state, Some(code), None)
            }
            _ => self.finish_of(host, State::Failed, None, Some(9)),
        };
        Next::Go(Stage::Finish(Box::new(finish), 0))
    }

    fn finish_of(
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

    pub(super) fn child_end(&mut self, child: usize) {
        let Child {
            host, pos, exit, ..
        } = self.truth.children[child];
        if !self.truth.end(child, End::Exit(exit), self.now) {
            return;
        }
        self.note(Who::Command(host), || format!("{pos} exits with {exit}"));
        self.look_after(child);
    }

    /// Whoever waits for a command sees that it is over.
    fn look_after(&mut self, child: usize) {
        let host = self.truth.children[child].host;
        let Some(agent) = &self.hosts[host].agent else {
            return;
        };
        let mut works = agent.works.iter();
        let of = |work: &&Work| matches!(work.stage, Stage::Running(it) | Stage::Watching(it) if it == child);
        if let Some(ticket) = works.find(of).map(|work| work.ticket) {
            self.guard(host, |world, host| world.carry(host, ticket));
        }
    }

    pub(super) fn time_is_up(&mut self, host: usize, life: u32, ticket: u64) {
        let Some(agent) = self.hosts[host].agent.as_ref().filter(|it| it.life == life) else {
            return;
        };
        let ticket = Ticket(ticket);
        let Some(work) = agent.works.iter().find(|work| work.ticket == ticket) else {
            return;
        };
        let (child, known) = match work.stage {
            Stage::Running(child) | Stage::Mark(child) => (child, true),
            Stage::Watching(child) => (child, false),
            _ => return,
        };
        if !self.truth.end(child, End::Killed, self.now) {
            return;
        }
        let pos = self.truth.children[child].pos;
        self.note(Who::Command(host), || {
            format!("{pos} is stopped at its timeout")
        });
        let mut finish = self.finish_of(host, State::TimedOut, None, Some(9));
        if !known {
            finish.outcome = None;
        }
        if let Some(work) = self.work(host, ticket) {
            work.stage = Stage::Finish(Box::new(finish), 0);
        }
        self.guard(host, |world, host| world.carry(host, ticket));
    }
}
