//! The world of one schedule: what is where, and what happens next.
//!
//! ```text
//! plan ─ blows ─▶ ┐
//! station ─ Down ─▶ queue ─▶ the next happening, at its time ─▶ station, host, command
//! agents ─ Up ──▶ ┘
//! ```
//!
//! One thread, one queue, one set of dice: a seed names everything that follows.

use std::{rc::Rc, sync::Arc};

use super::{
    book::{Book, Page},
    bug::Bug,
    check::{Violation, Wrong},
    dice::Dice,
    disk::Disk,
    faults::{Kind, Tally},
    host::Host,
    ledger::Ledger,
    plan::{Blow, Loss, Plan},
    queue::Queue,
    station::Station,
    truth::Truth,
    warden::Warden,
    wire::{Down, Line, Uplink},
};

/// Something that happens.
#[derive(Debug)]
pub enum Happening {
    /// An operator has something to submit.
    Submit,
    /// The station looks at the time.
    Tick(u32),
    /// The station takes what has come together.
    Drain(u32),
    /// The station tries to read its ledger back.
    Reload(u32),
    /// The broker's word that nobody listened.
    NoResponders {
        /// For which node.
        node: usize,
        /// When it was spoken to, in milliseconds of the station's own clock.
        sent: u64,
        /// In which life of the station.
        life: u32,
    },
    /// A frame reaches a host.
    Down(usize, Box<Down>),
    /// A frame reaches the station.
    Up(Box<Uplink>),
    /// An agent looks at the time.
    Wake(usize, u32),
    /// An agent goes on with an order.
    Work(usize, u32, u64),
    /// A command's time is up.
    Deadline(usize),
    /// A command comes to its end.
    ChildEnd(usize),
    /// A warden writes down how its command ended.
    LastWord(usize),
    /// Something is done to the world: which of the plan's blows.
    Strike(usize),
    /// A machine whose steps were counted is killed wherever it is.
    Fuse(Option<usize>, u32),
    /// The station is started.
    StationUp,
    /// An agent is started.
    AgentUp(usize),
    /// A line to the broker is back.
    LineUp(Option<usize>),
    /// A bug sends something again.
    Again(u64, usize),
    /// The faults end.
    Heal,
}

/// Whose step it is, for the trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// The station.
    Station,
    /// A host's agent.
    Host(usize),
    /// A command.
    Command(usize),
    /// Whatever does the faults.
    Fate,
}

/// A machine was killed in the middle of what it did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Killed;

/// How a schedule is run.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// Messages.
    pub messages: u64,
    /// Places beyond them, for messages that operators repeat.
    pub spare: u64,
    /// A deliberate bug.
    pub bug: Option<Bug>,
    /// Whether to keep a trace.
    pub traced: bool,
}

/// What a schedule came to.
#[derive(Debug)]
pub struct Report {
    /// What went wrong, if anything did.
    pub violation: Option<Violation>,
    /// The faults it saw.
    pub tally: Tally,
    /// Deliveries accepted.
    pub deliveries: u64,
    /// Starts of commands.
    pub starts: u64,
    /// How the deliveries ended, by state.
    pub ends: [u64; 13],
    /// Milliseconds from the heal to the last final state, the commands' own time not counted.
    pub settled: u64,
    /// What happened, when it was to be kept.
    pub trace: Vec<String>,
}

/// How long it is still looked what happens once everything is final, in milliseconds: what starts late
/// does so by then. A start that nobody welcomes any more would wait for ever.
const EPILOGUE: u64 = 120_000;

/// Most things that happen in a schedule; a usual one comes to rest after a few thousand.
const RESTLESS: u64 = 1_000_000;

/// The world of one schedule.
#[derive(Debug)]
pub struct World<'b> {
    pub(super) book: &'b Book,
    pub(super) terms: Terms,
    pub(super) plan: Plan,
    pub(super) dice: Dice,
    pub(super) now: u64,
    pub(super) queue: Queue<Happening>,
    pub(super) station: Station,
    pub(super) hosts: Vec<Host>,
    pub(super) truth: Truth,
    /// By the number of their command.
    pub(super) wardens: Vec<Warden>,
    /// By place, as last submitted.
    pub(super) pages: Vec<Rc<Page>>,
    /// Messages not submitted yet.
    pub(super) left: u64,
    /// A submission without an answer: its first place and how many.
    pub(super) pending: Option<(u64, u64)>,
    /// Highest place whose submitter was told that it is accepted.
    pub(super) told: u64,
    /// How many messages operators may still repeat.
    pub(super) retries: u64,
    pub(super) tally: Tally,
    pub(super) healed: bool,
    /// Since when everything is final; only what is still on its way arrives.
    pub(super) quiet_since: Option<u64>,
    pub(super) busy_at_heal: [u64; super::book::NODES],
    pub(super) settled: u64,
    /// When the last of the late frames arrives.
    pub(super) last_late: u64,
    pub(super) violation: Option<Violation>,
    lives: u32,
    ids: u64,
    trace: Vec<String>,
}

impl<'b> World<'b> {
    /// Returns the world of `seed` at its beginning.
    pub fn new(book: &'b Book, seed: u64, terms: Terms) -> Self {
        let mut dice = Dice::new(seed);
        let plan = Plan::draw(&mut dice);
        let hosts = plan.nodes + usize::from(plan.rival);
        let mut world = Self {
            book,
            terms,
            now: 0,
            queue: Queue::new(),
            station: Station::new(Ledger::new(book.ledger_id)),
            hosts: Vec::with_capacity(hosts),
            truth: Truth::default(),
            wardens: Vec::new(),
            pages: Vec::with_capacity(32),
            left: terms.messages,
            pending: None,
            told: 0,
            retries: terms.spare,
            tally: Tally::default(),
            healed: false,
            quiet_since: None,
            busy_at_heal: [0; super::book::NODES],
            settled: 0,
            last_late: 0,
            violation: None,
            lives: 0,
            ids: 0,
            trace: Vec::new(),
            plan,
            dice,
        };
        for number in 0..hosts {
            // The rival calls itself like the first node.
            let node = if number < world.plan.nodes { number } else { 0 };
            let host = world.new_host(node);
            world.hosts.push(host);
        }
        world.begin();
        world
    }

    fn new_host(&mut self, node: usize) -> Host {
        let id = self.id();
        let refuses = (self.plan.refuses && self.dice.chance(500))
            .then(|| self.dice.index(super::book::DOMAINS));
        Host::new(node, Disk::new(id), self.boot(), refuses)
    }

    fn begin(&mut self) {
        let plan = self.plan.clone();
        self.note(Who::Fate, || format!("draws {plan:?}"));
        self.queue.plan(0, Happening::StationUp);
        for host in 0..self.hosts.len() {
            let mut at = self.dice.below(200);
            if host >= self.plan.nodes {
                at = self.dice.below(self.plan.heal);
                self.count(Kind::Rival);
            }
            self.queue.plan(at, Happening::AgentUp(host));
        }
        let first = self.dice.below(self.plan.submitting.min(500));
        self.queue.plan(first, Happening::Submit);
        for (number, (at, _)) in plan.blows.iter().enumerate() {
            self.queue.plan(*at, Happening::Strike(number));
        }
        self.queue.plan(self.plan.heal, Happening::Heal);
    }

    /// Lets everything happen, and judges it.
    pub fn run(mut self) -> Report {
        let mut happenings = 0;
        while self.violation.is_none()
            && let Some((at, what)) = self.queue.take()
        {
            if self.quiet_since.is_some_and(|since| at > since + EPILOGUE) {
                break;
            }
            self.now = at;
            self.happen(what);
            happenings += 1;
            if happenings == RESTLESS {
                let what = format!("{RESTLESS} things have happened and it goes on");
                self.wrong(Wrong::NotFinal, what);
            }
        }
        self.judge();
        let rows = self.station.ledger.messages.iter();
        let mut ends = [0; 13];
        let mut deliveries = 0;
        for row in rows.flat_map(|message| &message.rows) {
            ends[row.state as usize] += 1;
            deliveries += 1;
        }
        Report {
            violation: self.violation,
            tally: self.tally,
            deliveries,
            starts: self.truth.runs.len() as u64,
            ends,
            settled: self.settled,
            trace: self.trace,
        }
    }

    fn happen(&mut self, what: Happening) {
        match what {
            Happening::Submit => self.submit(),
            Happening::Tick(life) => self.tick(life),
            Happening::Drain(life) => self.drain(life),
            Happening::Reload(life) => self.reload(life),
            Happening::NoResponders { node, sent, life } => self.nobody(node, sent, life),
            Happening::Down(host, frame) => self.hear_down(host, *frame),
            Happening::Up(uplink) => self.hear_up(*uplink),
            Happening::Wake(host, life) => self.wake(host, life),
            Happening::Work(host, life, ticket) => self.go_on(host, life, ticket),
            Happening::Deadline(child) => self.deadline(child),
            Happening::ChildEnd(child) => self.child_end(child),
            Happening::LastWord(child) => self.write_end(child),
            Happening::Strike(number) => self.strike(self.plan.blows[number].1),
            Happening::Fuse(whom, life) => self.burn(whom, life),
            Happening::StationUp => self.station_up(),
            Happening::AgentUp(host) => self.agent_up(host),
            Happening::LineUp(whom) => self.line_up(whom),
            Happening::Again(pos, node) => self.resend_after_final(pos, node),
            Happening::Heal => self.heal(),
        }
    }

    /// Tells whether everything is final.
    pub(super) fn quiet(&self) -> bool {
        self.quiet_since.is_some()
    }

    /// Tells whether faults still happen.
    pub(super) fn faulty(&self) -> bool {
        !self.healed
    }

    pub(super) fn bug(&self, bug: Bug) -> bool {
        self.terms.bug == Some(bug)
    }

    pub(super) fn count(&mut self, kind: Kind) {
        self.tally.count(kind);
    }

    /// Returns a number never given before.
    pub(super) fn life(&mut self) -> u32 {
        self.lives += 1;
        self.lives
    }

    /// Returns what an identifier is made of.
    pub(super) fn id(&mut self) -> u64 {
        self.ids += 1;
        self.ids
    }

    /// Returns the name of another boot.
    pub(super) fn boot(&mut self) -> Arc<str> {
        let id = self.id();
        format!("boot-{id}").into()
    }

    /// Returns what is known of the message at `pos`.
    pub(super) fn page(&self, pos: u64) -> Option<&Rc<Page>> {
        self.pages.get(usize::try_from(pos).ok()?.checked_sub(1)?)
    }

    /// Notes what went wrong; the first is what counts.
    pub(super) fn wrong(&mut self, wrong: Wrong, what: String) {
        let text = what.clone();
        self.note(Who::Fate, || {
            format!("VIOLATION {}: {text}", wrong.as_str())
        });
        self.violation.get_or_insert(Violation {
            wrong,
            at: self.now,
            what,
        });
    }

    /// Adds a line to the trace, if one is kept.
    pub(super) fn note(&mut self, who: Who, what: impl FnOnce() -> String) {
        if !self.terms.traced {
            return;
        }
        let who = match who {
            Who::Station => "station".to_owned(),
            Who::Host(host) => self.host_name(host),
            Who::Command(host) => format!("{} $", self.host_name(host)),
            Who::Fate => "fate".to_owned(),
        };
        let (seconds, millis) = (self.now / 1000, self.now % 1000);
        self.trace
            .push(format!("{seconds:>4}.{millis:03} {who:<8} {}", what()));
    }

    fn host_name(&self, host: usize) -> String {
        let rival = if host >= self.plan.nodes { "'" } else { "" };
        format!(
            "ship{}{rival}",
            self.hosts.get(host).map_or(0, |host| host.node) + 1
        )
    }

    fn strike(&mut self, blow: Blow) {
        if self.healed {
            return;
        }
        if !matches!(blow, Blow::CrashAgent { .. } | Blow::CrashStation { .. }) {
            self.note(Who::Fate, || format!("{blow:?}"));
        }
        match blow {
            Blow::CrashStation { steps, away } => {
                self.station.fuse = Some((steps, away));
                let life = self.station.reign.as_ref().map_or(0, |reign| reign.life);
                self.queue.plan(self.now + 400, Happening::Fuse(None, life));
            }
            Blow::CrashAgent {
                host,
                steps,
                away,
                with,
            } => {
                self.hosts[host].fuse = Some((steps, away, with));
                let life = self.hosts[host]
                    .agent
                    .as_ref()
                    .map_or(0, |agent| agent.life);
                self.queue
                    .plan(self.now + 400, Happening::Fuse(Some(host), life));
            }
            Blow::Cut {
                host,
                down,
                up,
                lasts,
            } => {
                let line = &mut self.hosts[host].line;
                if down {
                    line.deaf_until = self.now + lasts;
                }
                if up {
                    line.mute_until = self.now + lasts;
                }
            }
            Blow::HostAway { host, lasts } => self.lose_line(Some(host), lasts),
            Blow::StationAway { lasts } => self.lose_line(None, lasts),
            Blow::BrokerAway { lasts } => {
                self.lose_line(None, lasts);
                for host in 0..self.hosts.len() {
                    self.lose_line(Some(host), lasts);
                }
            }
            Blow::HostClock { host, by } => {
                self.hosts[host].wall += by;
                self.count(Kind::ClockJump);
            }
            Blow::StationClock { by } => {
                self.station.wall += by;
                self.count(Kind::ClockJump);
            }
            Blow::HostDisk { host, lasts } => self.hosts[host].full_until = self.now + lasts,
            Blow::StationDisk { lasts } => self.station.full_until = self.now + lasts,
            Blow::Cancel => self.cancel_something(),
            Blow::Retry { force } => self.retry_something(force),
        }
    }

    /// Kills what was to be killed after some steps it never came to do.
    fn burn(&mut self, whom: Option<usize>, life: u32) {
        match whom {
            None => {
                let same = self
                    .station
                    .reign
                    .as_ref()
                    .is_some_and(|reign| reign.life == life);
                if same && self.station.fuse.is_some() {
                    self.station_crash();
                }
            }
            Some(host) => {
                let agent = self.hosts[host].agent.as_ref();
                let same = agent.is_some_and(|agent| agent.life == life);
                if same && self.hosts[host].fuse.is_some() {
                    self.agent_crash(host);
                }
            }
        }
    }

    fn lose_line(&mut self, whom: Option<usize>, lasts: u64) {
        match whom {
            None => {
                self.count(Kind::StationAway);
                self.station_line(false);
            }
            Some(host) => {
                self.count(Kind::HostAway);
                self.hosts[host].line.connected = false;
            }
        }
        self.queue.plan(self.now + lasts, Happening::LineUp(whom));
    }

    fn line_up(&mut self, whom: Option<usize>) {
        match whom {
            None => self.station_line(true),
            Some(host) => {
                let line = &mut self.hosts[host].line;
                if !line.connected {
                    line.connected = true;
                    line.generation += 1;
                    self.arm(host);
                }
            }
        }
    }

    /// The faults end: everybody who is away comes back.
    pub(super) fn heal(&mut self) {
        if self.healed {
            return;
        }
        self.healed = true;
        self.plan.heal = self.now;
        self.note(Who::Fate, || "the faults end".to_owned());
        self.station.fuse = None;
        self.station.full_until = 0;
        for node in 0..self.plan.nodes {
            self.busy_at_heal[node] = self.truth.busy(node, self.now);
        }
        for host in 0..self.hosts.len() {
            self.hosts[host].fuse = None;
            self.hosts[host].full_until = 0;
            let line = &mut self.hosts[host].line;
            *line = Line {
                deaf_until: 0,
                mute_until: 0,
                ..*line
            };
            if host >= self.plan.nodes {
                // Two machines of one name is a fault as well.
                self.hosts[host].retired = true;
                self.kill_host(host, Loss::Boot);
                continue;
            }
            if self.plan.reconnect {
                self.hosts[host].line.connected = false;
            }
            self.line_up(Some(host));
            self.agent_up(host);
        }
        if self.plan.reconnect {
            self.station_line(false);
        }
        self.station_line(true);
        self.station_up();
    }
}
