//! A host and its agent's shell: the line to the broker, hellos, welcomes, the intake of orders,
//! and what is said again.
//!
//! It asks the real journal and drives the real dispatch in the order the real agent does.
//! Carrying an order out is `work`'s business.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use jiff::Timestamp;
use steward_agent::{
    clock::Moment,
    dispatch::{Dispatch, Event},
    journal::{Answer, Ask, Journal, Limits, OpenOrder, Ticket, Write},
};
use steward_protocol::{Ack, InstanceId, LedgerId, Origin, version};
use uuid::Uuid;

use super::{
    book::{DOMAINS, domain_of, wall},
    bug::Bug,
    check::Wrong,
    disk::Disk,
    faults::Kind,
    plan::Loss,
    station::signed,
    wire::{Down, Line, Up, Uplink},
    work::Work,
    world::{Happening, Killed, Who, World},
};

/// How often the agent looks at what is to be said again.
pub(super) const LOOK: u64 = 1_000;

/// After so long without work the process of a subject ends.
const IDLE_AFTER: Duration = Duration::from_secs(4);

/// Never.
pub(super) const NEVER: u64 = u64::MAX;

/// One machine at sea.
#[derive(Debug)]
pub struct Host {
    /// Which node it is.
    pub node: usize,
    /// What is durable.
    pub disk: Disk,
    /// One start of the agent.
    pub agent: Option<Agent>,
    /// Which boot this is, and when it was.
    pub boot: (Arc<str>, u64),
    /// What its wall clock is ahead, in milliseconds.
    pub wall: i64,
    /// How it stands to the broker.
    pub line: Line,
    /// Until when no write of the journal works.
    pub full_until: u64,
    /// Steps until the agent is killed, for how long, and what goes with it.
    pub fuse: Option<(u32, u64, Loss)>,
    /// The domain its policy refuses, until its next start.
    pub refuses: Option<usize>,
    /// Never started again.
    pub retired: bool,
}

/// One start of an agent: everything that a crash forgets.
#[derive(Debug)]
pub struct Agent {
    /// Which.
    pub life: u32,
    pub(super) journal: Journal,
    pub(super) instance: InstanceId,
    pub(super) started_at: Timestamp,
    /// Whether the journal must be read back before it may decide again.
    pub(super) stale: bool,
    pub(super) footing: Footing,
    /// What the courier has served.
    pub(super) served: Option<Footing>,
    pub(super) dispatches: [Option<Dispatch>; DOMAINS],
    pub(super) works: Vec<Work>,
    /// Commands that may still be started at once.
    pub(super) permits: usize,
    /// Orders whose turn it is, waiting for one.
    pub(super) waiting: VecDeque<Ticket>,
    /// Orders that came before the welcome, and until when they wait for it.
    pub(super) early: Vec<(u64, Down)>,
    /// On which connection hello was said last, and when.
    pub(super) greeted: Option<(u64, u64)>,
    pub(super) unanswered: u32,
    /// When the courier looks next.
    pub(super) look_at: u64,
    /// For when the next look at the time is planned.
    pub(super) wake_at: u64,
}

/// Whom this start obeys, as far as it knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Footing {
    /// The ledger that welcomed this start, and its reign.
    pub(super) welcomed: Option<(LedgerId, u64)>,
    /// On which connection.
    pub(super) generation: u64,
}

/// Why the journal did not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    /// It could not be written.
    Storage,
    /// The agent was killed.
    Killed,
}

impl From<Killed> for Trouble {
    fn from(Killed: Killed) -> Self {
        Self::Killed
    }
}

impl Host {
    /// Returns a host that is switched on and whose agent has not been started.
    pub fn new(node: usize, disk: Disk, boot: Arc<str>, refuses: Option<usize>) -> Self {
        Self {
            node,
            disk,
            agent: None,
            boot: (boot, 0),
            wall: 0,
            line: Line {
                connected: true,
                generation: 1,
                deaf_until: 0,
                mute_until: 0,
            },
            full_until: 0,
            fuse: None,
            refuses,
            retired: false,
        }
    }
}

impl World<'_> {
    pub(super) fn moment(&self, host: usize) -> Moment {
        let host = &self.hosts[host];
        Moment {
            wall: wall(signed(self.now) + host.wall),
            // A machine has been up for a while before its agent runs.
            boot_ms: self.now - host.boot.1 + 1_000,
            boot_id: Arc::clone(&host.boot.0),
        }
    }

    pub(super) fn agent_up(&mut self, host: usize) {
        if self.hosts[host].agent.is_some() || self.hosts[host].retired {
            return;
        }
        let (life, id) = (self.life(), self.id());
        let moment = self.moment(host);
        let limits = Limits {
            queue: self.plan.queue,
            results_budget: 1 << 20,
            accept_ledger: None,
        };
        self.hosts[host].disk.open();
        if self.bug(Bug::DedupeInMemory) {
            self.hosts[host].disk.lose_orders();
        }
        if self.bug(Bug::RerunAfterRestart) {
            self.hosts[host].disk.forget_starts();
        }
        let instance = InstanceId(Uuid::from_u64_pair(0x1457, id));
        let journal = Journal::new(instance, limits, self.hosts[host].disk.image());
        let starts = journal.identity().starts;
        self.note(Who::Host(host), || {
            format!("starts, for the {starts}. time")
        });
        self.hosts[host].agent = Some(Agent {
            life,
            journal,
            instance,
            started_at: moment.wall,
            stale: false,
            footing: Footing::default(),
            served: None,
            dispatches: [None, None, None],
            works: Vec::new(),
            permits: self.plan.permits,
            waiting: VecDeque::new(),
            early: Vec::new(),
            greeted: None,
            unanswered: 0,
            look_at: NEVER,
            wake_at: NEVER,
        });
        self.guard(host, Self::take_up);
    }

    /// Takes up what an earlier start left open.
    pub(super) fn take_up(&mut self, host: usize) -> Result<(), Killed> {
        let Ok(Answer::OpenSubjects(subjects)) = self.ask(host, Ask::OpenSubjects) else {
            return Ok(());
        };
        for subject in subjects {
            self.process(host, domain_of(&subject.domain))?;
        }
        Ok(())
    }

    /// Does something of an agent's, in which it may be killed.
    pub(super) fn guard(
        &mut self,
        host: usize,
        doing: impl FnOnce(&mut Self, usize) -> Result<(), Killed>,
    ) {
        if self.hosts[host].agent.is_none() {
            return;
        }
        if doing(self, host).is_err() {
            self.agent_crash(host);
        }
        self.arm(host);
    }

    pub(super) fn agent_crash(&mut self, host: usize) {
        let Some((_, away, with)) = self.hosts[host].fuse.take() else {
            return;
        };
        if self.hosts[host].agent.is_none() {
            return;
        }
        self.count(Kind::AgentCrash);
        self.kill_host(host, with);
        if self.hosts[host].refuses.is_some() {
            // Its policy is another one at the next start.
            self.hosts[host].refuses = None;
        }
        self.queue.plan(self.now + away, Happening::AgentUp(host));
    }

    pub(super) fn kill_host(&mut self, host: usize, with: Loss) {
        self.note(Who::Host(host), || format!("IS KILLED, with it {with:?}"));
        self.hosts[host].agent = None;
        self.take_along(host, with);
        if matches!(with, Loss::Boot | Loss::Journal) {
            self.count(Kind::Reboot);
            self.hosts[host].boot = (self.boot(), self.now);
        }
        if with == Loss::Journal {
            self.count(Kind::JournalLost);
            let id = self.id();
            self.hosts[host].disk = Disk::new(id);
        }
    }

    /// One step: here the agent may be killed.
    pub(super) fn step(&mut self, host: usize) -> Result<(), Killed> {
        match &mut self.hosts[host].fuse {
            None => Ok(()),
            Some((0, ..)) => Err(Killed),
            Some((steps, ..)) => {
                *steps -= 1;
                Ok(())
            }
        }
    }

    /// Asks the journal, and makes durable what the answer rests on.
    pub(super) fn ask(&mut self, host: usize, ask: Ask) -> Result<Answer, Trouble> {
        let now = self.moment(host);
        let machine = &mut self.hosts[host];
        let Some(agent) = &mut machine.agent else {
            return Err(Trouble::Killed);
        };
        if std::mem::take(&mut agent.stale) {
            agent.journal.reload(machine.disk.image());
        }
        let (answer, writes) = agent.journal.next(ask, &now);
        if writes.is_empty() {
            return Ok(answer);
        }
        if agent.look_at == NEVER {
            agent.look_at = self.now + LOOK;
        }
        self.step(host)?;
        let full = self.now < self.hosts[host].full_until;
        if full || (self.faulty() && self.dice.chance(self.plan.write_error.1)) {
            self.count(Kind::JournalError);
            self.note(Who::Host(host), || "CANNOT WRITE its journal".to_owned());
            if let Some(agent) = &mut self.hosts[host].agent {
                agent.stale = true;
            }
            return Err(Trouble::Storage);
        }
        if self.bug(Bug::TwoWrites) && writes.len() > 1 {
            let mut first = writes;
            let second = first.split_off(1);
            self.hosts[host].disk.commit(first);
            self.step(host)?;
            if self.faulty() && self.dice.chance(self.plan.write_error.1) {
                if let Some(agent) = &mut self.hosts[host].agent {
                    agent.stale = true;
                }
                return Err(Trouble::Storage);
            }
            self.hosts[host].disk.commit(second);
        } else {
            self.hosts[host].disk.commit(writes);
        }
        self.step(host)?;
        Ok(answer)
    }

    /// Returns what the station is told about an order.
    pub(super) fn ack(&mut self, host: usize, ticket: Ticket) -> Option<Ack> {
        let host = &mut self.hosts[host];
        let agent = host.agent.as_mut()?;
        if std::mem::take(&mut agent.stale) {
            // Never an answer from what is not durable (rule J4).
            agent.journal.reload(host.disk.image());
        }
        let mut ack = agent.journal.entry(ticket)?.ack();
        if ack.state.is_final() {
            ack.outcome = host.disk.outcome(ticket);
        }
        Some(ack)
    }

    pub(super) fn say_ack(&mut self, host: usize, ticket: Ticket) -> Result<(), Killed> {
        let Some(ack) = self.ack(host, ticket) else {
            return Ok(());
        };
        let state = ack.state;
        self.say(host, Up::Ack(Box::new(ack)))?;
        if state.is_final() && self.bug(Bug::ForgetTooEarly) {
            let machine = &mut self.hosts[host];
            machine.disk.commit(vec![Write::Forget(ticket)]);
            if let Some(agent) = &mut machine.agent {
                agent.stale = true;
            }
        }
        Ok(())
    }

    /// Says something to the station.
    pub(super) fn say(&mut self, host: usize, up: Up) -> Result<(), Killed> {
        self.step(host)?;
        self.note_up(host, &up);
        if let Up::Ack(ack) = &up
            && ack.state.is_final()
            && !self.hosts[host].disk.says(ack.id, ack.digest, ack.state)
        {
            let what = format!(
                "ship{} says {} before it is written",
                self.hosts[host].node + 1,
                ack.state
            );
            self.wrong(Wrong::Unwritten, what);
        }
        let machine = &self.hosts[host];
        let Some(agent) = &machine.agent else {
            return Err(Killed);
        };
        let origin = Origin {
            v: version::CURRENT,
            instance: agent.instance,
            journal_id: agent.journal.identity().journal_id,
            ledger_id: agent.footing.welcomed.map(|(ledger_id, _)| ledger_id),
        };
        let node = machine.node;
        self.speak(host, Uplink { node, origin, up });
        Ok(())
    }

    pub(super) fn dispatch(&mut self, host: usize, domain: usize) -> Option<&mut Dispatch> {
        self.hosts[host].agent.as_mut()?.dispatches[domain].as_mut()
    }

    /// Makes sure that a process serves `domain`.
    pub(super) fn process(&mut self, host: usize, domain: usize) -> Result<(), Killed> {
        if self.dispatch(host, domain).is_some() {
            return Ok(());
        }
        let now = Duration::from_millis(self.now);
        let subject = self.book.subjects[self.hosts[host].node][domain].clone();
        let open: Vec<OpenOrder> = match self.ask(host, Ask::Open(subject)) {
            Ok(Answer::Open(open)) => open,
            Ok(_) | Err(Trouble::Storage) => Vec::new(),
            Err(Trouble::Killed) => return Err(Killed),
        };
        let Some(agent) = &mut self.hosts[host].agent else {
            return Ok(());
        };
        agent.dispatches[domain] = Some(Dispatch::new(IDLE_AFTER, now));
        let welcomed = agent.footing.welcomed.is_some();
        self.tell(host, domain, Event::Open(open))?;
        if welcomed {
            self.tell(host, domain, Event::Welcomed)?;
        }
        Ok(())
    }

    /// Tells the dispatch of `domain` what happened, and does what it says.
    pub(super) fn tell(&mut self, host: usize, domain: usize, event: Event) -> Result<(), Killed> {
        if self.dispatch(host, domain).is_none() {
            self.process(host, domain)?;
        }
        let now = Duration::from_millis(self.now);
        let actions = match self.dispatch(host, domain) {
            Some(dispatch) => dispatch.next(event, now),
            None => return Ok(()),
        };
        for action in actions {
            self.set_to_work(host, domain, action)?;
        }
        Ok(())
    }
}
