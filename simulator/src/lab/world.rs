//! One world: a broker, a station and agents as real processes in a directory of their own, what was asked of
//! them, and what was done to them.
//!
//! It does not decide which faults are made, nor whether a promise was kept.

use std::{
    collections::BTreeMap,
    fmt, fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use steward_station::signals::{Stop, Urgency};
use tempfile::TempDir;

use super::{
    child::{self, Member},
    claims::{Claimed, Desk, Standing},
    figures::Figures,
    judge::{self, Asked, Case, Excuses, Files, Violation},
    layout::Layout,
    meddle::Meddler,
    traffic::{Parcel, Traffic},
    witness::{Reading, Truth},
};

/// How often a world is looked at while something is awaited.
const LOOK: Duration = Duration::from_millis(25);

/// How long a world may take until every node is online for the first time.
const FIRST: Duration = Duration::from_secs(60);

/// How long after its end by itself a process is started again, as a service manager would.
const RESTART: Duration = Duration::from_millis(200);

/// A process of a world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Who {
    Broker,
    Station,
    /// By its place in the list of nodes.
    Agent(usize),
}

impl fmt::Display for Who {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Broker => "broker",
            Self::Station => "station",
            Self::Agent(_) => "agent",
        })
    }
}

/// A process and whether it is to run.
#[derive(Debug)]
struct Part {
    member: Member,
    wanted: bool,
    /// When it is started again after it ended by itself.
    again: Option<Instant>,
}

/// One world.
#[derive(Debug)]
pub(crate) struct World {
    dir: TempDir,
    pub(crate) layout: Layout,
    parts: BTreeMap<Who, Part>,
    desk: Desk,
    traffic: Traffic,
    meddler: Meddler,
    asked: Vec<Asked>,
    dropped: BTreeMap<String, bool>,
    /// How many of `asked` were there before the present round.
    round: usize,
    pub(crate) excuses: Excuses,
    truth: Truth,
    reading: Reading,
    pub(crate) figures: Figures,
    stop: Stop,
}

impl World {
    /// Makes the directory's contents; starts nothing.
    pub(crate) fn new(dir: TempDir, layout: Layout, traffic: Traffic, stop: Stop) -> Result<Self> {
        let mut parts = BTreeMap::new();
        for who in layout.members() {
            let log = dir.path().join(format!("{}.log", layout.name(who)));
            let member = Member::new(&layout.name(who), layout.command(who), &log);
            let part = Part {
                member,
                wanted: false,
                again: None,
            };
            parts.insert(who, part);
        }
        layout.write()?;
        let desk = Desk::new(&layout.state_dir(Who::Station));
        Ok(Self {
            meddler: Meddler::new(desk.hasty(), traffic.dice_for_errands()),
            desk,
            reading: Reading::new(&layout.truth()),
            dir,
            layout,
            parts,
            traffic,
            asked: Vec::new(),
            dropped: BTreeMap::new(),
            round: 0,
            excuses: Excuses::default(),
            truth: Truth::default(),
            figures: Figures::default(),
            stop,
        })
    }

    /// Starts everything and waits until every node is online.
    pub(crate) fn begin(&mut self) -> Result<()> {
        for who in self.layout.members() {
            self.start(who)?;
        }
        let nodes = u64::try_from(self.layout.nodes.len())?;
        let online = self.until(FIRST, |world| {
            Ok(world
                .desk
                .standing()
                .is_ok_and(|standing| standing.online == nodes))
        })?;
        if !online {
            bail!(
                "see every node online within {FIRST:?}; the station's log ends with:\n{}",
                self.part(Who::Station)?.member.last_words()
            );
        }
        Ok(())
    }

    fn part(&mut self, who: Who) -> Result<&mut Part> {
        self.parts
            .get_mut(&who)
            .with_context(|| format!("find the {who} of this world"))
    }

    pub(crate) fn member(&mut self, who: Who) -> Result<&mut Member> {
        Ok(&mut self.part(who)?.member)
    }

    pub(crate) fn start(&mut self, who: Who) -> Result<()> {
        let part = self.part(who)?;
        part.wanted = true;
        part.member.start()
    }

    /// Kills it; it stays away until it is started.
    pub(crate) fn kill(&mut self, who: Who) -> Result<()> {
        let begun = match who {
            Who::Station => self.meddler.begin(),
            _ => Vec::new(),
        };
        let part = self.part(who)?;
        part.wanted = false;
        part.member.kill();
        self.meddler.end(begun, &mut self.figures);
        self.excuse(who);
        self.figures.add("faults", &format!("kill {who}"), 1);
        Ok(())
    }

    /// Notes that what this node was running may be interrupted now.
    pub(crate) fn excuse(&mut self, who: Who) {
        if let Who::Agent(place) = who
            && let Some(node) = self.layout.nodes.get(place)
        {
            self.excuses.interrupted.insert(node.clone());
        }
    }

    /// Looks after the processes: one that ended by itself is started again after a pause.
    pub(crate) fn tend(&mut self) -> Result<()> {
        if self.stop.urgency() != Urgency::GoOn {
            bail!("go on: the end was asked for");
        }
        let mut ended = Vec::new();
        for (who, part) in &mut self.parts {
            if !part.wanted {
                continue;
            }
            if let Some(status) = part.member.ended() {
                super::runner::complain(&format!(
                    "the {who} ended with {status}; its log ends with:\n{}",
                    part.member.last_words()
                ));
                ended.push((*who, status));
                part.again = Some(Instant::now() + RESTART);
            }
            if part.again.is_some_and(|again| again <= Instant::now()) {
                part.again = None;
                part.member.start()?;
            }
        }
        for (who, status) in ended {
            self.excuse(who);
            self.figures
                .add("unasked", &format!("{who} ended with {status}"), 1);
        }
        self.meddler.work(&mut self.figures);
        Ok(())
    }

    /// Waits until `is_so`; returns whether it came to that before the deadline.
    pub(crate) fn until(
        &mut self,
        patience: Duration,
        mut is_so: impl FnMut(&mut Self) -> Result<bool>,
    ) -> Result<bool> {
        let deadline = Instant::now() + patience;
        loop {
            self.tend()?;
            if is_so(self)? {
                return Ok(true);
            }
            if Instant::now() > deadline {
                return Ok(false);
            }
            thread::sleep(LOOK);
        }
    }

    /// Acts at the times given, and looks after the processes between.
    pub(crate) fn play<T>(
        &mut self,
        mut plan: Vec<(Duration, T)>,
        mut act: impl FnMut(&mut Self, T) -> Result<()>,
    ) -> Result<()> {
        plan.sort_by_key(|(at, _)| *at);
        let begin = Instant::now();
        for (at, step) in plan {
            loop {
                self.tend()?;
                let left = at.saturating_sub(begin.elapsed());
                if left.is_zero() {
                    break;
                }
                thread::sleep(left.min(LOOK));
            }
            act(self, step)?;
        }
        Ok(())
    }

    /// Returns files with so many messages, to be dropped later.
    pub(crate) fn parcels(&mut self, messages: usize) -> Vec<Parcel> {
        self.traffic.parcels(messages)
    }

    /// Drops a file as an operator should: whole, by rename.
    pub(crate) fn drop_file(&mut self, parcel: Parcel) -> Result<()> {
        let inbox = self.layout.inbox();
        let hidden = inbox.join(format!(".{}", parcel.file));
        let doing = || format!("drop {} into {}", parcel.file, inbox.display());
        fs::write(&hidden, &parcel.text).with_context(doing)?;
        fs::rename(&hidden, inbox.join(&parcel.file)).with_context(doing)?;
        self.note(parcel);
        Ok(())
    }

    fn note(&mut self, parcel: Parcel) {
        let deliveries: usize = parcel.asked.iter().map(|asked| asked.nodes.len()).sum();
        self.figures.add("sent", "files", 1);
        self.figures
            .add("sent", "messages", count(parcel.asked.len()));
        self.figures.add("sent", "deliveries", count(deliveries));
        self.dropped.insert(parcel.file, !parcel.asked.is_empty());
        self.asked.extend(parcel.asked);
        self.meddler.plan(parcel.errands);
    }

    /// Waits until nothing waits in the inbox and no delivery is open.
    pub(crate) fn settle(&mut self, patience: Duration) -> Result<bool> {
        let begin = Instant::now();
        let settled = self.until(patience, |world| {
            Ok(world.meddler.is_idle()
                && world.files()?.waiting.is_empty()
                && world
                    .desk
                    .standing()
                    .is_ok_and(|standing| standing.open == 0))
        })?;
        let millis = u64::try_from(begin.elapsed().as_millis())?;
        self.figures.add("settling", "milliseconds", millis);
        Ok(settled)
    }

    pub(crate) fn standing(&self) -> Result<Standing> {
        self.desk.standing()
    }

    /// Returns where every file is. Looks in the order in which files travel, so that none is missed.
    fn files(&self) -> Result<Files> {
        let inbox = self.layout.inbox();
        let mut files = Files::default();
        for place in [inbox.clone(), inbox.join(".processing")] {
            let names = names(&place)?.into_iter();
            let names = names.filter(|name| !name.starts_with('.'));
            files.waiting.extend(names.map(|name| bare(&name)));
        }
        for day in names(&inbox.join(".done"))? {
            let names = names(&inbox.join(".done").join(day))?.into_iter();
            let names = names.filter(|name| !name.ends_with(".status.json"));
            files.done.extend(names.map(|name| bare(&name)));
        }
        let rejected = names(&inbox.join(".rejected"))?.into_iter();
        let is_file =
            |name: &String| !name.ends_with(".error.txt") && !name.ends_with(".error.json");
        files
            .rejected
            .extend(rejected.filter(is_file).map(|name| bare(&name)));
        Ok(files)
    }

    /// Judges the round: what was dropped since the last call.
    pub(crate) fn judge_round(&mut self) -> Result<Vec<Violation>> {
        let asked = &self.asked[self.round..];
        let claimed = self.claims_of(asked)?;
        self.reading.read_on(&mut self.truth)?;
        let files = self.files()?;
        let violations = judge::judge(Case {
            asked,
            dropped: &self.dropped,
            files: &files,
            claimed: &claimed,
            truth: &self.truth,
            excuses: &self.excuses,
            wishes: self.meddler.wishes(),
            everything: false,
        });
        self.meddler.saw(&claimed);
        self.round = self.asked.len();
        Ok(violations)
    }

    fn claims_of(&self, asked: &[Asked]) -> Result<Vec<Claimed>> {
        // A message that was accepted twice takes two places in the list.
        let newest = self.desk.newest(asked.len() * 2 + 10)?;
        let names: Vec<&str> = asked.iter().map(|asked| asked.name.as_str()).collect();
        let ours = newest
            .iter()
            .filter(|(_, name)| names.contains(&name.as_str()));
        ours.map(|(id, _)| self.desk.message(id)).collect()
    }

    /// Ends the agents, so that nothing can happen any more, and judges everything.
    pub(crate) fn judge_all(&mut self) -> Result<Vec<Violation>> {
        for who in self.layout.members().into_iter().rev() {
            if let Who::Agent(_) = who {
                self.end(who)?;
            }
        }
        let newest = self.desk.newest(0)?;
        let claimed: Result<Vec<Claimed>> =
            newest.iter().map(|(id, _)| self.desk.message(id)).collect();
        let claimed = claimed?;
        self.reading.read_on(&mut self.truth)?;
        let files = self.files()?;
        let violations = judge::judge(Case {
            asked: &self.asked,
            dropped: &self.dropped,
            files: &files,
            claimed: &claimed,
            truth: &self.truth,
            excuses: &self.excuses,
            wishes: self.meddler.wishes(),
            everything: true,
        });
        self.meddler.count(&claimed, &mut self.figures);
        for delivery in claimed.iter().flat_map(|claimed| &claimed.deliveries) {
            self.figures.add("states", &delivery.state, 1);
        }
        self.figures.add("witnessed", "starts", self.truth.starts());
        for (name, counted) in self.desk.standing()?.counters {
            self.figures.add("station counted", &name, counted);
        }
        Ok(violations)
    }

    fn end(&mut self, who: Who) -> Result<()> {
        let part = self.part(who)?;
        part.wanted = false;
        if !part.member.stop() {
            self.figures
                .add("unasked", &format!("{who} did not end when asked"), 1);
        }
        Ok(())
    }

    /// Ends everybody in order.
    pub(crate) fn end_all(&mut self) -> Result<()> {
        for who in self.layout.members().into_iter().rev() {
            self.end(who)?;
        }
        for line in child::end_left_behind(self.dir.path(), &self.layout.programs.all()) {
            self.figures
                .add("unasked", &format!("left behind: {line}"), 1);
        }
        Ok(())
    }

    /// Removes the directory, or keeps it if it is evidence and returns where it is.
    pub(crate) fn remove(self, keep: Keep) -> Result<Option<PathBuf>> {
        match keep {
            Keep::Evidence => Ok(Some(self.dir.keep())),
            Keep::Nothing => {
                self.dir.close().context("remove a world's directory")?;
                Ok(None)
            }
        }
    }
}

/// Whether a world's directory is still needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    Evidence,
    Nothing,
}

fn count(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

/// Returns the name a file was dropped under: claimed files carry a UUID in front.
fn bare(name: &str) -> String {
    name.split_once("--")
        .map_or(name, |(_, bare)| bare)
        .to_owned()
}

fn names(dir: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("read {}", dir.display())),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.with_context(|| format!("read {}", dir.display()))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    Ok(names)
}
