//! Takes from the programs what they need: room on the disk, file descriptors, the right time.
//!
//! Each scarcity is healed, and then everything is settled and checked.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use clap::Args;

use super::{
    child::tool,
    dice::Dice,
    judge::Violation,
    layout::Layout,
    runner::{self, Ground, Made, Report, Worlds},
    traffic::Parcel,
    world::{Who, World},
};

/// Agents of a world.
const AGENTS: usize = 2;

/// How long files are dropped in one round.
const DROPPING: Duration = Duration::from_secs(4);

/// When something becomes scarce, and when it is there again.
const SCARCE: Duration = Duration::from_millis(800);
const AGAIN: Duration = Duration::from_millis(3500);

/// Size of a disk that is to be filled: room for what a round needs, and filled in a moment.
const DISK: &str = "size=16m,nr_inodes=4000,mode=700";

/// The file that fills a disk.
const BALLAST: &str = "ballast";

/// Descriptors left to a program that already has more than that.
const DESCRIPTORS: usize = 24;

/// The sizes of the suite.
#[derive(Debug, Clone, Args)]
pub(crate) struct ScarceArgs {
    /// What becomes scarce; all of them in turn when not given
    #[arg(long, value_name = "NAME")]
    only: Option<Scarcity>,
    /// Rounds of each
    #[arg(long, default_value_t = 1)]
    times: usize,
    /// Messages of a round
    #[arg(long, default_value_t = 40)]
    messages: usize,
}

/// What becomes scarce.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Scarcity {
    /// The disk of the station is full
    StationDisk,
    /// The disk of an agent is full
    AgentDisk,
    /// The disk of an agent is full, and the agent is killed meanwhile
    AgentDiskKill,
    /// The station has no descriptors left
    StationFiles,
    /// An agent has no descriptors left
    AgentFiles,
    /// An agent's clock is a day behind
    DayBehind,
    /// An agent's clock is a day ahead
    DayAhead,
    /// An agent has no clock: it is 1970 there
    NoClock,
}

impl Scarcity {
    const ALL: [Self; 8] = [
        Self::StationDisk,
        Self::AgentDisk,
        Self::AgentDiskKill,
        Self::StationFiles,
        Self::AgentFiles,
        Self::DayBehind,
        Self::DayAhead,
        Self::NoClock,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Self::StationDisk => "disk of the station full",
            Self::AgentDisk => "disk of an agent full",
            Self::AgentDiskKill => "disk of an agent full and the agent killed",
            Self::StationFiles => "station out of descriptors",
            Self::AgentFiles => "agent out of descriptors",
            Self::DayBehind => "agent a day behind",
            Self::DayAhead => "agent a day ahead",
            Self::NoClock => "agent in 1970",
        }
    }

    /// Who suffers.
    fn who(self) -> Who {
        match self {
            Self::StationDisk | Self::StationFiles => Who::Station,
            _ => Who::Agent(0),
        }
    }

    fn has_disk(self) -> bool {
        matches!(
            self,
            Self::StationDisk | Self::AgentDisk | Self::AgentDiskKill
        )
    }

    /// What the clock is told.
    fn clock(self) -> Option<&'static str> {
        match self {
            Self::DayBehind => Some("-1d"),
            Self::DayAhead => Some("+1d"),
            Self::NoClock => Some("@1970-01-01 00:00:10"),
            _ => None,
        }
    }
}

/// A small disk in memory; unmounted when this is dropped.
#[derive(Debug)]
struct Disk {
    place: PathBuf,
}

impl Disk {
    fn mount(place: &Path) -> Result<Self> {
        fs::create_dir_all(place).with_context(|| format!("create {}", place.display()))?;
        let text = place.display().to_string();
        tool(
            &["mount", "-t", "tmpfs", "-o", DISK, "tmpfs", &text],
            "mount",
        )
        .context("make a small disk: it needs root")?;
        Ok(Self {
            place: place.to_owned(),
        })
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // A lazy one cannot fail because somebody still looks into it.
        tool(
            &["umount", "-l", &self.place.display().to_string()],
            "mount",
        )
        .ok();
    }
}

/// One step of a round.
enum Step {
    Drop(Parcel),
    Take,
    Kill,
    Start,
    Give,
}

pub(crate) fn run(ground: &Ground, args: &ScarceArgs) -> Result<Report> {
    let all: Vec<Scarcity> = args.only.map_or(Scarcity::ALL.to_vec(), |only| vec![only]);
    if all.iter().any(|scarcity| scarcity.clock().is_some()) {
        library()?;
    }
    tool(&["prlimit", "--version"], "util-linux")?;
    runner::run(
        ground,
        &Worlds {
            suite: "scarce",
            count: all.len(),
            make: &|dir, dice, number| make(ground, all[number], dir.path(), dice),
            play: &|world, turn| {
                let scarcity = all[turn.number];
                let mut found = Vec::new();
                for _ in 0..args.times {
                    let plan = plan(world, turn.dice, scarcity, args.messages);
                    found.extend(round(world, plan, scarcity, ground.patience)?);
                }
                Ok(found)
            },
        },
    )
}

fn make(ground: &Ground, scarcity: Scarcity, dir: &Path, dice: &mut Dice) -> Result<Made> {
    let mut layout = Layout::new(dir, ground.programs.clone(), AGENTS, dice)?;
    let who = scarcity.who();
    let mut around: Box<dyn std::any::Any> = Box::new(());
    if scarcity.has_disk() {
        // Beside the world's directory, which is removed while the disk is still there.
        let place = dir.with_extension("disk");
        around = Box::new(Mounted::new(&place)?);
        layout.state_dirs.insert(who, place);
    }
    Ok(Made {
        mix: ground.mix(&layout),
        layout,
        around,
    })
}

/// A disk and its directory.
#[derive(Debug)]
struct Mounted {
    disk: Option<Disk>,
    place: PathBuf,
}

impl Mounted {
    fn new(place: &Path) -> Result<Self> {
        Ok(Self {
            disk: Some(Disk::mount(place)?),
            place: place.to_owned(),
        })
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        drop(self.disk.take());
        fs::remove_dir(&self.place).ok();
    }
}

fn plan(
    world: &mut World,
    dice: &mut Dice,
    scarcity: Scarcity,
    messages: usize,
) -> Vec<(Duration, Step)> {
    let mut plan = Vec::new();
    for parcel in world.parcels(messages) {
        plan.push((dice.time(DROPPING), Step::Drop(parcel)));
    }
    plan.push((SCARCE, Step::Take));
    plan.push((AGAIN, Step::Give));
    if scarcity == Scarcity::AgentDiskKill {
        let at = SCARCE + dice.time(Duration::from_secs(1));
        plan.push((at, Step::Kill));
        plan.push((at + dice.time(Duration::from_millis(300)), Step::Start));
    }
    plan
}

fn round(
    world: &mut World,
    plan: Vec<(Duration, Step)>,
    scarcity: Scarcity,
    patience: Duration,
) -> Result<Vec<Violation>> {
    let who = scarcity.who();
    let mut later = Vec::new();
    world.play(plan, |world, step| match step {
        Step::Drop(parcel) => {
            if world.drop_file(parcel.clone()).is_err() {
                // Where there is no room, nothing was dropped.
                later.push(parcel);
            }
            Ok(())
        }
        Step::Take => take(world, scarcity),
        Step::Kill => world.kill(who),
        Step::Start => world.start(who),
        Step::Give => give(world, scarcity),
    })?;
    for parcel in later {
        world.drop_file(parcel)?;
    }
    world.figures.add("rounds", "run", 1);
    world.settle(patience)?;
    world.judge_round()
}

fn take(world: &mut World, scarcity: Scarcity) -> Result<()> {
    let who = scarcity.who();
    world.figures.add("faults", scarcity.as_str(), 1);
    if let Some(node) = world.layout.nodes.first().cloned() {
        // What cannot be started for want of descriptors is `failed` and says so.
        world.excuses.short.insert(node);
    }
    if scarcity.has_disk() {
        return fill(&world.layout.state_dir(who).join(BALLAST));
    }
    if let Some(clock) = scarcity.clock() {
        // Its commands inherit what shifts its clock.
        let node = world.layout.name(who);
        world.excuses.skewed.insert(node);
        // Not by the program `faketime`, which stays in between and would be killed in the agent's place.
        let mut shifted = vec![
            "env".to_owned(),
            format!("LD_PRELOAD={}", library()?.display()),
            format!("FAKETIME={clock}"),
            "FAKETIME_DONT_FAKE_MONOTONIC=1".to_owned(),
        ];
        shifted.extend(world.layout.command(who));
        return again_as(world, who, shifted);
    }
    limit(world, who, &DESCRIPTORS.to_string())
}

fn give(world: &mut World, scarcity: Scarcity) -> Result<()> {
    let who = scarcity.who();
    if scarcity.has_disk() {
        let ballast = world.layout.state_dir(who).join(BALLAST);
        return fs::remove_file(&ballast).with_context(|| format!("remove {}", ballast.display()));
    }
    if scarcity.clock().is_some() {
        let command = world.layout.command(who);
        return again_as(world, who, command);
    }
    limit(world, who, "4096")
}

/// Stops a part as its service manager would, and starts it otherwise.
fn again_as(world: &mut World, who: Who, command: Vec<String>) -> Result<()> {
    // A stopped agent ends its commands after a while and says how.
    world.excuse(who);
    let member = world.member(who)?;
    member.stop();
    member.becomes(command);
    world.start(who)
}

fn limit(world: &mut World, who: Who, descriptors: &str) -> Result<()> {
    let Some(pid) = world.member(who)?.pid() else {
        // It has just ended by itself, and comes back with the usual limit.
        return Ok(());
    };
    let (pid, limit) = (
        format!("--pid={pid}"),
        format!("--nofile={descriptors}:4096"),
    );
    tool(&["prlimit", &pid, &limit], "util-linux").map(drop)
}

/// Finds the library that shifts clocks.
fn library() -> Result<PathBuf> {
    let libs = Path::new("/usr/lib");
    let dirs = fs::read_dir(libs).with_context(|| format!("read {}", libs.display()))?;
    let dirs = dirs
        .flatten()
        .map(|entry| entry.path())
        .chain([libs.to_owned()]);
    let mut found = dirs.map(|dir| dir.join("faketime/libfaketime.so.1"));
    found.find(|path| path.is_file()).context(
        "find libfaketime.so.1 below /usr/lib: it is not installed; on Debian: apt-get install faketime",
    )
}

/// Writes until there is no room for another byte.
fn fill(path: &Path) -> Result<()> {
    let filling = || format!("fill the disk with {}", path.display());
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .with_context(filling)?;
    for block in [1 << 16, 1 << 12, 1] {
        let zeros = vec![0; block];
        loop {
            match file.write_all(&zeros) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::StorageFull => break,
                Err(error) => return Err(error).with_context(filling),
            }
            if file.metadata().with_context(filling)?.len() > 1 << 30 {
                bail!("fill the disk at {}: it is no small one", path.display());
            }
        }
    }
    Ok(())
}
