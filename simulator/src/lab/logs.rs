//! Kills agent, station and broker with signal 9 at random moments while programs log, and compares what the station has
//! stored with what was written.
//!
//! This file kills. Who logs, and keeps the truth about it, stands in `source`; what is promised stands in `check`.

mod check;
mod pace;
mod source;
mod store;

use std::{
    collections::BTreeMap,
    fmt, fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use steward_station::signals::Urgency;
use tempfile::TempDir;

use self::{
    check::{Kill, Life},
    pace::Pace,
    source::{Places, Source, Written},
    store::Stored,
};
use super::{
    child::{Member, end_left_behind},
    dice::Dice,
    figures::Figures,
    layout::Layout,
    runner::{self, Ground, Report},
    world::Who,
};

/// How long everybody logs undisturbed between two kills, at most.
const QUIET: Duration = Duration::from_millis(900);

/// How long a killed process stays away, at most.
const AWAY: Duration = Duration::from_millis(400);

/// How soon an agent is killed that has not begun to listen yet, at most.
const HASTE: Duration = Duration::from_millis(200);

/// How long a process may take until it can be used.
const START: Duration = Duration::from_secs(60);

/// How often something is looked at that is awaited.
const LOOK: Duration = Duration::from_millis(5);

/// How often the store is, which takes longer.
const READ: Duration = Duration::from_millis(250);

/// Violations of one world that are told; what is wrong once is mostly wrong often.
const TOLD: usize = 20;

/// The sizes of the suite.
#[derive(Debug, Clone, Args)]
pub(crate) struct LogsArgs {
    /// Kills of one world
    #[arg(long, default_value_t = 20)]
    cycles: usize,
    /// Who is killed [default: each of these, in a world of its own]
    #[arg(long, value_name = "WHO")]
    kill: Option<Victim>,
    /// Worlds of each kind
    #[arg(long, default_value_t = 1)]
    worlds: usize,
}

/// Who is killed in a world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Victim {
    /// The agent.
    Agent,
    /// The station.
    Station,
    /// The broker.
    Broker,
    /// Any of them.
    All,
}

impl fmt::Display for Victim {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Agent => "agent",
            Self::Station => "station",
            Self::Broker => "broker",
            Self::All => "all",
        })
    }
}

impl Victim {
    fn draw(self, dice: &mut Dice) -> Who {
        match self {
            Self::Agent => Who::Agent(0),
            Self::Station => Who::Station,
            Self::Broker => Who::Broker,
            Self::All => *dice.pick(&[Who::Agent(0), Who::Station, Who::Broker]),
        }
    }
}

pub(crate) fn run(ground: &Ground, args: &LogsArgs) -> Result<Report> {
    let all = [Victim::Agent, Victim::Station, Victim::Broker, Victim::All];
    let victims = args.kill.map_or(all.to_vec(), |victim| vec![victim]);
    let count = victims.len() * args.worlds;
    runner::side_by_side(ground, ("logs", count), &|number| {
        let victim = victims[number % victims.len()];
        let mut report = Report::default();
        let mut dice = ground.dice.fork(number as u64);
        let ran = one(ground, (victim, args.cycles), &mut dice, &mut report);
        if let Err(error) = ran
            && ground.stop.urgency() == Urgency::GoOn
        {
            runner::complain(&format!("logs: the world of {victim} failed to {error:#}"));
            report.failures += 1;
        }
        report
    })
}

fn one(
    ground: &Ground,
    (victim, cycles): (Victim, usize),
    dice: &mut Dice,
    report: &mut Report,
) -> Result<()> {
    let mut town = Town::new(ground, dice)?;
    let lived = town.live((victim, cycles), dice);
    town.end();
    let left = end_left_behind(town.dir.path(), &ground.programs.all());
    report.figures = town.figures.clone();
    let violations = lived.as_ref().map_or(Vec::new(), Clone::clone);
    for violation in violations.iter().take(TOLD) {
        let line = format!("logs, {victim} killed, seed {}: {violation}", ground.seed);
        runner::say(&line);
    }
    if let Some(more) = violations.len().checked_sub(TOLD + 1) {
        runner::say(&format!("logs, {victim} killed: and {} more", more + 1));
    }
    report.violations = violations.len();
    if !violations.is_empty() || (lived.is_err() && ground.stop.urgency() == Urgency::GoOn) {
        report.kept.push(town.dir.keep());
    }
    lived?;
    if !left.is_empty() {
        bail!("end everything: {left:?} was left behind");
    }
    Ok(())
}

/// A world in which programs log: one node, whose agent has every kind of input.
struct Town<'g> {
    ground: &'g Ground,
    dir: TempDir,
    layout: Layout,
    places: Places,
    members: BTreeMap<Who, Member>,
    kills: Vec<Kill>,
    pace: Arc<Pace>,
    begun: Instant,
    figures: Figures,
}

impl<'g> Town<'g> {
    fn new(ground: &'g Ground, dice: &mut Dice) -> Result<Self> {
        let dir = ground.new_dir()?;
        let layout = Layout::new(dir.path(), ground.programs.clone(), 1, dice)?;
        layout.write()?;
        let places = Places::new(dir.path(), dice)?;
        let config = layout.config(Who::Agent(0));
        let text = format!("heartbeat = \"500ms\"\n{}", places.config());
        fs::write(&config, text).with_context(|| format!("write {}", config.display()))?;
        let member = |who| {
            let log = dir.path().join(format!("{}.log", layout.name(who)));
            (
                who,
                Member::new(&layout.name(who), layout.command(who), &log),
            )
        };
        Ok(Self {
            ground,
            members: layout.members().into_iter().map(member).collect(),
            places,
            layout,
            dir,
            kills: Vec::new(),
            pace: Arc::new(Pace::new()),
            begun: Instant::now(),
            figures: Figures::default(),
        })
    }

    fn member(&mut self, who: Who) -> Result<&mut Member> {
        let member = self.members.get_mut(&who);
        member.with_context(|| format!("find the {who} of this world"))
    }

    /// Lets programs log and kills meanwhile; then judges.
    fn live(&mut self, (victim, cycles): (Victim, usize), dice: &mut Dice) -> Result<Vec<String>> {
        for who in self.layout.members() {
            self.member(who)?.start()?;
        }
        self.await_inputs()?;
        let sources = self.places.sources();
        let (begun, over) = (self.begun, AtomicBool::new(false));
        let (pace, dir) = (Arc::clone(&self.pace), self.dir.path().to_owned());
        let written = thread::scope(|scope| {
            scope.spawn(|| pace.watch(&dir, &over));
            let start = |(number, source): (usize, &Source)| {
                let (source, over) = (source.clone(), &over);
                let dice = dice.fork(1000 + number as u64);
                scope.spawn(move || source.log(begun, dice, over))
            };
            let writing: Vec<_> = sources.iter().enumerate().map(start).collect();
            let killed = self.kill_all((victim, cycles), &mut dice.clone());
            over.store(true, Ordering::Relaxed);
            let written: Vec<Written> = writing
                .into_iter()
                .filter_map(|writing| writing.join().ok())
                .collect();
            killed.map(|()| written)
        })?;
        if written.len() != sources.len() {
            bail!("let every program log: one has panicked");
        }
        self.judge(&written)
    }

    fn kill_all(&mut self, (victim, cycles): (Victim, usize), dice: &mut Dice) -> Result<()> {
        for _ in 0..cycles {
            self.rest(dice.time(QUIET))?;
            let who = victim.draw(dice);
            self.kill(who, dice)?;
            self.figures.add("rounds", "run", 1);
        }
        self.rest(QUIET)
    }

    fn kill(&mut self, who: Who, dice: &mut Dice) -> Result<()> {
        let is_agent = matches!(who, Who::Agent(_));
        let life = match is_agent {
            true => Life::Killed(self.places.unread()),
            false => Life::Unharmed,
        };
        let slow = self.pace.slowest();
        let at = self.begun.elapsed();
        self.member(who)?.kill();
        self.figures.add("faults", &format!("kill {who}"), 1);
        self.kills.push(Kill {
            at,
            slow,
            life,
            back: Duration::MAX,
        });
        self.rest(dice.time(AWAY))?;
        self.member(who)?.start()?;
        if is_agent && dice.chance(250) {
            // Before it has begun to listen, or just after.
            self.rest(dice.time(HASTE))?;
            self.member(who)?.kill();
            self.figures
                .add("faults", &format!("kill {who} at its start"), 1);
            self.kills.push(Kill {
                at: self.begun.elapsed(),
                slow,
                life: Life::Killed(BTreeMap::new()),
                back: Duration::MAX,
            });
            self.member(who)?.start()?;
        }
        self.await_inputs()?;
        let now = self.begun.elapsed();
        for kill in &mut self.kills {
            kill.back = kill.back.min(now.max(kill.at));
        }
        Ok(())
    }

    fn rest(&mut self, time: Duration) -> Result<()> {
        let end = Instant::now() + time;
        loop {
            self.tend()?;
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            thread::sleep(left.min(LOOK));
        }
    }

    /// Nobody here ends by itself.
    fn tend(&mut self) -> Result<()> {
        if self.ground.stop.urgency() != Urgency::GoOn {
            bail!("go on: the end was asked for");
        }
        for (who, member) in &mut self.members {
            if let Some(status) = member.ended() {
                bail!(
                    "keep the {who}: it ended with {status}; its log ends with:\n{}",
                    member.last_words()
                );
            }
        }
        Ok(())
    }

    fn await_inputs(&mut self) -> Result<()> {
        let deadline = Instant::now() + START;
        let noted = self.layout.state_dir(Who::Agent(0)).join("logs/files");
        // What is rotated before the first listing was noted is not read.
        let is_listed = || fs::read_dir(&noted).is_ok_and(|mut notes| notes.next().is_some());
        while !(self.places.are_open() && is_listed()) {
            self.tend()?;
            if Instant::now() > deadline {
                let words = self.member(Who::Agent(0))?.last_words();
                bail!("see every input within {START:?}; the agent's log ends with:\n{words}");
            }
            thread::sleep(LOOK);
        }
        Ok(())
    }

    /// Waits until the station has the last message of every program, or patience ends, and judges what it has.
    fn judge(&mut self, written: &[Written]) -> Result<Vec<String>> {
        let desk = store::Desk {
            steward: self.ground.programs.steward.clone(),
            state_dir: self.layout.state_dir(Who::Station),
        };
        let begin = Instant::now();
        while begin.elapsed() < self.ground.patience {
            self.tend()?;
            let is_there = |one: &Written| {
                let last = desk.last(one.domain, one.name);
                last.is_some_and(|last| last + 1 == one.next())
            };
            if written.iter().all(is_there) {
                break;
            }
            thread::sleep(READ);
        }
        let millis = u64::try_from(begin.elapsed().as_millis())?;
        self.figures.add("settling", "milliseconds", millis);
        let mut violations = Vec::new();
        let mut has_gaps = false;
        for one in written {
            let stored = desk.lines(one.domain)?;
            has_gaps |= stored.iter().any(|one| matches!(one, Stored::Gap(..)));
            violations.extend(check::check(one, &stored, &self.kills, &mut self.figures));
        }
        violations.extend(desk.consents(has_gaps)?);
        Ok(violations)
    }

    fn end(&mut self) {
        // Nobody is to complain that another is gone.
        for who in self.layout.members().into_iter().rev() {
            if let Some(member) = self.members.get_mut(&who) {
                member.stop();
            }
        }
    }
}
