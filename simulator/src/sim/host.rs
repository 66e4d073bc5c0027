//! A host and its agent's shell: the line to the broker, hellos, welcomes, the intake of orders,
//! and what is said again.
//!
//! It asks the real journal and drives the real dispatch in the order the real agent does.
//! Carrying an order out is `work`'s business.

use std::{collections::BTreeMap, collections::VecDeque, rc::Rc, sync::Arc, time::Duration};

use jiff::Timestamp;
use steward_agent::{
    clock::Moment,
    dispatch::{Dispatch, Event},
    journal::{
        Answer, Ask, Cancellation, Cancelled, Journal, Limits, Offer, Offered, OpenOrder, Stance,
        Ticket, Welcomed, What, Word,
    },
};
use steward_protocol::{
    Ack, Cancel, Confirm, Deferral, Digest, Hello, InstanceId, LedgerId, MessageId, Origin, Reign,
    Send, State, Welcome, retry::Backoff, version,
};
use uuid::Uuid;

use super::{
    book::{DOMAINS, Page, domain_of, wall},
    bug::Bug,
    check::Wrong,
    disk::Disk,
    faults::Kind,
    plan::Loss,
    station::signed,
    truth::End,
    wire::{Down, Line, Up, Uplink},
    work::Work,
    world::{Happening, Killed, Who, World},
};

/// Until the station has answered, hello is said again after these; as in the real agent.
const UNANSWERED: Backoff = Backoff {
    base: Duration::from_secs(1),
    cap: Duration::from_secs(3600),
};

/// How often the agent looks at what is to be said again.
const LOOK: u64 = 1_000;

/// Wait after the journal could not be used.
const STORAGE_PAUSE: u64 = 5_000;

/// How long orders wait for the welcome they came right behind.
const WELCOME_PATIENCE: u64 = 2_000;

/// After so long without work the process of a subject ends.
const IDLE_AFTER: Duration = Duration::from_secs(4);

/// Rounds of answers said at once; every one is bounded by the journal.
const ROUNDS: u32 = 100;

/// Never.
const NEVER: u64 = u64::MAX;

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
    instance: InstanceId,
    started_at: Timestamp,
    /// Whether the journal must be read back before it may decide again.
    stale: bool,
    footing: Footing,
    /// What the courier has served.
    served: Option<Footing>,
    pub(super) dispatches: [Option<Dispatch>; DOMAINS],
    pub(super) works: Vec<Work>,
    /// Commands that may still be started at once.
    pub(super) permits: usize,
    /// Orders whose turn it is, waiting for one.
    pub(super) waiting: VecDeque<Ticket>,
    /// Orders that came before the welcome, and until when they wait for it.
    early: Vec<(u64, Down)>,
    /// On which connection hello was said last, and when.
    greeted: Option<(u64, u64)>,
    unanswered: u32,
    /// When the courier looks next.
    look_at: u64,
    /// For when the next look at the time is planned.
    wake_at: u64,
}

/// Whom this start obeys, as far as it knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Footing {
    welcomed: Option<(LedgerId, u64)>,
    generation: u64,
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
    fn take_up(&mut self, host: usize) -> Result<(), Killed> {
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
        if with != Loss::Nothing {
            for child in self.truth.alive_on(host) {
                self.truth.end(child, End::Killed, self.now);
                self.count(Kind::ChildKilled);
            }
        }
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
            machine
                .disk
                .commit(vec![steward_agent::journal::Write::Forget(ticket)]);
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
            let what = format!("ship{} says {} before it is written", self.hosts[host].node + 1, ack.state);
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

    pub(super) fn hear_down(&mut self, host: usize, frame: Down) {
        if self.hosts[host].agent.is_none() || !self.hosts[host].line.connected {
            self.count(Kind::Nobody);
            return;
        }
        self.guard(host, |world, host| world.take(host, frame));
    }

    fn take(&mut self, host: usize, frame: Down) -> Result<(), Killed> {
        match frame {
            Down::Order {
                send,
                page,
                renamed,
            } => {
                let Some(agent) = &mut self.hosts[host].agent else {
                    return Ok(());
                };
                if agent.footing.welcomed.is_none() {
                    let until = self.now + WELCOME_PATIENCE;
                    let order = Down::Order {
                        send,
                        page,
                        renamed,
                    };
                    agent.early.push((until, order));
                    return Ok(());
                }
                self.take_order(host, send, &page, renamed)
            }
            Down::Cancel(send, cancel) => self.take_cancel(host, send, cancel),
            Down::Welcome(reign, welcome) => self.take_welcome(host, reign, &welcome),
            Down::Confirm(reign, confirm) => self.take_confirm(host, reign, confirm),
        }
    }

    fn take_order(
        &mut self,
        host: usize,
        send: Send,
        page: &Rc<Page>,
        renamed: bool,
    ) -> Result<(), Killed> {
        let Some(order) = page.order(self.hosts[host].node) else {
            return Ok(());
        };
        let mut order = order.clone();
        if renamed {
            let mut changed = order.order().clone();
            changed.id = MessageId(Uuid::from_u64_pair(u64::from(send.attempt), send.pos));
            if let Ok(sealed) = steward_protocol::Sealed::seal(changed) {
                order = sealed;
            }
        }
        let stance = if self.hosts[host].refuses == Some(page.domain) {
            Stance::Refuse("policy: this domain is not one of this node's".to_owned())
        } else {
            Stance::Serve
        };
        let ordered = order.order().ordered && send.seq.is_some();
        let (pos, name) = (send.pos, (order.order().id, order.digest()));
        let refused = stance != Stance::Serve;
        self.tell(host, page.domain, Event::Arrived)?;
        let offer = Offer {
            send,
            order,
            stance,
        };
        if refused && self.bug(Bug::RefusalNotJournaled) {
            return self.refuse_unwritten(host, offer);
        }
        let offered = match self.ask(host, Ask::Offer(Box::new(offer))) {
            Ok(Answer::Offered(offered)) => offered,
            Ok(_) | Err(Trouble::Storage) => {
                return self.defer(host, name, Deferral::Storage, None);
            }
            Err(Trouble::Killed) => return Err(Killed),
        };
        self.note(Who::Host(host), || format!("takes {pos}: {offered:?}"));
        match offered {
            Offered::Taken(ticket) => {
                self.tell(host, page.domain, Event::Taken { ticket, ordered })?;
                self.say_ack(host, ticket)
            }
            Offered::Stands(ticket) => {
                self.tell(host, page.domain, Event::Repeated)?;
                self.say_ack(host, ticket)
            }
            Offered::Deferred {
                deferral,
                expected_seq,
            } => self.defer(host, name, deferral, expected_seq),
            Offered::Ignored(_) => Ok(()),
        }
    }

    /// Says that an order is refused, and writes nothing down.
    fn refuse_unwritten(&mut self, host: usize, offer: Offer) -> Result<(), Killed> {
        let now = self.moment(host);
        let Some(agent) = &mut self.hosts[host].agent else {
            return Ok(());
        };
        let (answer, _) = agent.journal.next(Ask::Offer(Box::new(offer)), &now);
        if let Answer::Offered(Offered::Stands(ticket)) = answer {
            let ack = self.ack(host, ticket);
            if let Some(agent) = &mut self.hosts[host].agent {
                agent.stale = true;
            }
            if let Some(ack) = ack {
                return self.say(host, Up::Ack(Box::new(ack)));
            }
        }
        Ok(())
    }

    /// Takes a cancellation in; what runs is stopped even when nothing can be written.
    fn take_cancel(&mut self, host: usize, send: Send, cancel: Cancel) -> Result<(), Killed> {
        let (pos, name) = (send.pos, (cancel.id, cancel.digest));
        let cancellation = Box::new(Cancellation { send, body: cancel });
        let mut answer = self.ask(host, Ask::Cancel(cancellation.clone()));
        if answer == Err(Trouble::Storage) {
            answer = self.ask(host, Ask::Halt(cancellation));
        }
        let cancelled = match answer {
            Ok(Answer::Cancelled(cancelled)) => cancelled,
            Ok(_) | Err(Trouble::Storage) => {
                return self.defer(host, name, Deferral::Storage, None);
            }
            Err(Trouble::Killed) => return Err(Killed),
        };
        self.note(Who::Host(host), || {
            format!("calls {pos} off: {cancelled:?}")
        });
        match cancelled {
            Cancelled::Over(ticket) => self.say_ack(host, ticket),
            Cancelled::Stop(ticket) => {
                self.say_ack(host, ticket)?;
                self.revoke(host, ticket)
            }
            Cancelled::Deferred {
                deferral,
                expected_seq,
            } => self.defer(host, name, deferral, expected_seq),
            Cancelled::Ignored(_) => Ok(()),
        }
    }

    fn defer(
        &mut self,
        host: usize,
        (id, digest): (MessageId, Digest),
        deferral: Deferral,
        expected_seq: Option<u64>,
    ) -> Result<(), Killed> {
        let ack = Ack {
            id,
            digest,
            state: State::Deferred,
            at: self.moment(host).wall,
            reason: None,
            deferral: Some(deferral),
            expected_seq,
            outcome: None,
        };
        self.say(host, Up::Ack(Box::new(ack)))
    }

    fn take_welcome(&mut self, host: usize, reign: Reign, welcome: &Welcome) -> Result<(), Killed> {
        let here = self.moment(host).wall;
        let skew = here.duration_since(welcome.at).unsigned_abs();
        let word = Word {
            reign,
            what: What::Welcome { skew: Some(skew) },
        };
        let welcomed = match self.ask(host, Ask::Word(word)) {
            Ok(Answer::Word(welcomed)) => welcomed,
            Ok(_) | Err(Trouble::Storage) => return Ok(()),
            Err(Trouble::Killed) => return Err(Killed),
        };
        self.note(Who::Host(host), || format!("hears a welcome: {welcomed:?}"));
        if matches!(
            welcomed,
            Welcomed::Foreign(_) | Welcomed::Stale | Welcomed::OtherInstance
        ) {
            return Ok(());
        }
        let generation = self.hosts[host].line.generation;
        let Some(agent) = &mut self.hosts[host].agent else {
            return Ok(());
        };
        let pinned = agent.journal.identity().pinned;
        let footing = Footing {
            welcomed: pinned.map(|pinned| (pinned.ledger_id, pinned.epoch)),
            generation,
        };
        if agent.footing == footing {
            return Ok(());
        }
        agent.footing = footing;
        let early = std::mem::take(&mut agent.early);
        for domain in 0..DOMAINS {
            if self.dispatch(host, domain).is_some() {
                self.tell(host, domain, Event::Welcomed)?;
            }
        }
        for (_, frame) in early {
            self.take(host, frame)?;
        }
        self.round(host)
    }

    fn take_confirm(&mut self, host: usize, reign: Reign, confirm: Confirm) -> Result<(), Killed> {
        let what = What::Confirm {
            orders: confirm.orders,
            events: confirm.events,
        };
        match self.ask(host, Ask::Word(Word { reign, what })) {
            Err(Trouble::Killed) => Err(Killed),
            _ => Ok(()),
        }
    }

    pub(super) fn dispatch(&mut self, host: usize, domain: usize) -> Option<&mut Dispatch> {
        self.hosts[host].agent.as_mut()?.dispatches[domain].as_mut()
    }

    /// Makes sure that a process serves `domain`.
    fn process(&mut self, host: usize, domain: usize) -> Result<(), Killed> {
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

    pub(super) fn wake(&mut self, host: usize, life: u32) {
        let Some(agent) = self.hosts[host].agent.as_mut().filter(|it| it.life == life) else {
            return;
        };
        agent.wake_at = NEVER;
        self.guard(host, Self::look_around);
    }

    /// Does whatever is due.
    fn look_around(&mut self, host: usize) -> Result<(), Killed> {
        if self.hello_due(host).is_some_and(|at| at <= self.now) {
            self.say_hello(host)?;
        }
        self.give_up_waiting(host)?;
        let Some(agent) = &self.hosts[host].agent else {
            return Ok(());
        };
        if agent.look_at <= self.now {
            self.round(host)?;
        }
        let now = Duration::from_millis(self.now);
        for domain in 0..DOMAINS {
            let Some(dispatch) = self.dispatch(host, domain) else {
                continue;
            };
            if dispatch.quit(now).is_some() {
                if let Some(agent) = &mut self.hosts[host].agent {
                    agent.dispatches[domain] = None;
                }
            } else if dispatch.wake_at().is_some_and(|at| at <= now) {
                self.tell(host, domain, Event::Time)?;
            }
        }
        Ok(())
    }

    /// Offers orders whose welcome has not come in time; they are counted and not answered.
    fn give_up_waiting(&mut self, host: usize) -> Result<(), Killed> {
        let now = self.now;
        let Some(agent) = &mut self.hosts[host].agent else {
            return Ok(());
        };
        while agent.early.first().is_some_and(|(until, _)| *until <= now) {
            agent.early.remove(0);
        }
        Ok(())
    }

    /// Says again what the station has not confirmed.
    fn round(&mut self, host: usize) -> Result<(), Killed> {
        for _ in 0..ROUNDS {
            let generation = self.hosts[host].line.generation;
            let connected = self.hosts[host].line.connected;
            let dice = self.dice.roll();
            let Some(agent) = &mut self.hosts[host].agent else {
                return Ok(());
            };
            let footing = agent.footing;
            if !connected || footing.welcomed.is_none() || footing.generation != generation {
                agent.look_at = NEVER;
                return Ok(());
            }
            let all = agent.served.replace(footing) != Some(footing);
            let due = match self.ask(host, Ask::Due { all, dice }) {
                Ok(Answer::Due(due)) => due,
                Ok(_) | Err(Trouble::Storage) => {
                    if let Some(agent) = &mut self.hosts[host].agent {
                        agent.look_at = self.now + STORAGE_PAUSE;
                    }
                    return Ok(());
                }
                Err(Trouble::Killed) => return Err(Killed),
            };
            let now_ms = self.moment(host).boot_ms;
            let more = due.next_ms.is_some_and(|next| next <= now_ms) && !due.answers.is_empty();
            let pending = due.next_ms.is_some();
            for ticket in due.answers {
                self.say_ack(host, ticket)?;
            }
            for rank in due.events {
                if let Some(event) = self.hosts[host].disk.event(rank) {
                    self.say(host, Up::Fault(Box::new(event)))?;
                }
            }
            if let Some(agent) = &mut self.hosts[host].agent {
                agent.look_at = if pending { self.now + LOOK } else { NEVER };
            }
            if !more {
                break;
            }
        }
        Ok(())
    }

    fn hello_due(&self, host: usize) -> Option<u64> {
        let machine = &self.hosts[host];
        let agent = machine.agent.as_ref()?;
        if !machine.line.connected || self.quiet {
            return None;
        }
        let generation = machine.line.generation;
        let Some((_, last)) = agent.greeted.filter(|(on, _)| *on == generation) else {
            return Some(0);
        };
        Some(last + self.pause(agent, generation))
    }

    fn pause(&self, agent: &Agent, generation: u64) -> u64 {
        let answered = agent.footing.welcomed.is_some() && agent.footing.generation == generation;
        if answered {
            self.plan.heartbeat
        } else {
            let wait = UNANSWERED.bound(agent.unanswered);
            super::book::millis(wait).min(self.plan.heartbeat)
        }
    }

    fn say_hello(&mut self, host: usize) -> Result<(), Killed> {
        let Ok(Answer::Snapshot(snapshot)) = self.ask(host, Ask::Snapshot) else {
            return Ok(());
        };
        let moment = self.moment(host);
        let heartbeat = self.plan.heartbeat;
        let generation = self.hosts[host].line.generation;
        let Some(agent) = &mut self.hosts[host].agent else {
            return Ok(());
        };
        let answered = agent.footing.welcomed.is_some() && agent.footing.generation == generation;
        let fresh = answered || agent.greeted.is_none_or(|(on, _)| on != generation);
        agent.unanswered = if fresh { 0 } else { agent.unanswered + 1 };
        agent.greeted = Some((generation, self.now));
        let lanes = snapshot.lanes.into_iter();
        let hello = Hello {
            counter: snapshot.counter,
            boot_id: moment.boot_id.to_string(),
            version: String::new(),
            at: moment.wall,
            started_at: agent.started_at,
            interval_ms: heartbeat,
            round_trip_us: None,
            labels: BTreeMap::new(),
            lanes: lanes
                .map(|(subject, seq)| (subject.to_string(), seq))
                .collect(),
            open: snapshot.open,
            unconfirmed: snapshot.unconfirmed,
            processes: Vec::new(),
            counters: BTreeMap::new(),
            leaving: false,
        };
        self.say(host, Up::Hello(Box::new(hello)))
    }

    /// Plans the next look at the time.
    pub(super) fn arm(&mut self, host: usize) {
        let hello = self.hello_due(host).unwrap_or(NEVER);
        let Some(agent) = &self.hosts[host].agent else {
            return;
        };
        let early = agent.early.first().map_or(NEVER, |(until, _)| *until);
        let wakes = agent.dispatches.iter().flatten();
        let wakes = wakes.filter_map(|dispatch| dispatch.wake_at().map(super::book::millis));
        let look = if self.quiet { NEVER } else { agent.look_at };
        let at = wakes.fold(hello.min(early).min(look), u64::min);
        if at == NEVER {
            return;
        }
        let (at, life) = (at.max(self.now), agent.life);
        if at < agent.wake_at {
            if let Some(agent) = &mut self.hosts[host].agent {
                agent.wake_at = at;
            }
            self.queue.plan(at, Happening::Wake(host, life));
        }
    }

    fn note_up(&mut self, host: usize, up: &Up) {
        if !self.terms.traced {
            return;
        }
        let text = match up {
            Up::Hello(hello) => format!(
                "says hello, open {}, unconfirmed {}",
                hello.open.len(),
                hello.unconfirmed.len()
            ),
            Up::Ack(ack) => {
                let pages = self.pages.iter();
                let mut pages = pages.filter(|page| page.accepted.id == ack.id);
                let pos = pages.next().map_or(0, |page| page.accepted.pos);
                let why = ack.deferral.map_or("", Deferral::as_str);
                format!("answers that {pos} is {} {why}", ack.state)
            }
            Up::Fault(fault) => format!("reports {}", fault.kind),
        };
        self.note(Who::Host(host), || text);
    }
}
