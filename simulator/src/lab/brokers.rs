//! Stops, kills and replaces the broker under load, with every supported version of it.

use std::{
    env, fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use clap::Args;
use rustix::process::Signal;
use steward_station::broker::{self, RELEASES};

use super::{
    child::tool,
    dice::Dice,
    judge::Violation,
    layout::Layout,
    runner::{self, Ground, Made, Report, Worlds},
    traffic::Parcel,
    world::{Who, World},
};

/// The version Debian 12 has; it is fetched from there.
const DEBIAN: &str = "2.9.10";

/// Agents of a world.
const AGENTS: usize = 2;

/// How long files are dropped in one round.
const DROPPING: Duration = Duration::from_secs(5);

/// How long the broker is stopped, or away, at most.
const AWAY: Duration = Duration::from_millis(1200);

/// The sizes of the suite.
#[derive(Debug, Clone, Args)]
pub(crate) struct BrokersArgs {
    /// How often the broker of each version is stopped, killed and replaced
    #[arg(long, default_value_t = 1)]
    times: usize,
    /// Messages meanwhile
    #[arg(long, default_value_t = 50)]
    messages: usize,
    /// Only this version; may be given several times
    #[arg(long = "only", value_name = "VERSION")]
    only: Vec<String>,
}

/// A broker of some version.
#[derive(Debug, Clone)]
struct Version {
    number: String,
    program: PathBuf,
}

/// One step of a round.
enum Step {
    Drop(Parcel),
    Stop,
    Continue,
    Kill,
    /// Starts the broker of this version.
    Start(usize),
}

pub(crate) fn run(ground: &Ground, args: &BrokersArgs) -> Result<Report> {
    let versions = versions(ground)?;
    let wanted = |number: &String| args.only.is_empty() || args.only.contains(number);
    let tested: Vec<usize> = (0..versions.len())
        .filter(|place| wanted(&versions[*place].number))
        .collect();
    runner::run(
        ground,
        &Worlds {
            suite: "brokers",
            count: tested.len(),
            make: &|dir, dice, number| {
                let mut programs = ground.programs.clone();
                programs
                    .broker
                    .clone_from(&versions[tested[number]].program);
                let layout = Layout::new(dir.path(), programs, AGENTS, dice)?;
                Ok(Made {
                    mix: ground.mix(&layout),
                    layout,
                    around: Box::new(()),
                })
            },
            play: &|world, turn| {
                let own = tested[turn.number];
                let mut found = Vec::new();
                for _ in 0..args.times {
                    let plan = plan(world, turn.dice, args.messages, (own, versions.len()));
                    found.extend(round(world, plan, &versions, ground.patience)?);
                }
                Ok(found)
            },
        },
    )
}

/// Finds every version, fetching what is missing.
fn versions(ground: &Ground) -> Result<Vec<Version>> {
    let mut versions = vec![Version {
        number: DEBIAN.to_owned(),
        program: debian(&ground.dir)?,
    }];
    for release in RELEASES.iter().rev() {
        versions.push(Version {
            number: release.version.to_owned(),
            program: broker::fetched(release)?,
        });
    }
    Ok(versions)
}

/// Unpacks Debian's package without installing it: what is in PATH is everybody's.
fn debian(dir: &Path) -> Result<PathBuf> {
    let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let cache = cache
        .or_else(home)
        .context("find a place for a download: set HOME")?;
    let place = cache.join("steward").join(format!("nats-server-{DEBIAN}"));
    let program = place.join("nats-server");
    if program.is_file() {
        return Ok(program);
    }
    let scratch = tempfile::tempdir_in(dir).context("make a directory")?;
    let at = scratch.path().display().to_string();
    let fetch = format!(
        "cd '{at}' && apt-get download -q nats-server={DEBIAN}* && dpkg-deb -x nats-server_*.deb ."
    );
    tool(&["sh", "-c", &fetch], "apt dpkg").with_context(|| {
        format!(
            "fetch nats-server {DEBIAN} from Debian 12; elsewhere put it at {}",
            program.display()
        )
    })?;
    fs::create_dir_all(&place).with_context(|| format!("create {}", place.display()))?;
    // The cache may be on another file system, where a rename is none.
    let partial = place.join(format!(".nats-server-{}", std::process::id()));
    fs::copy(scratch.path().join("usr/sbin/nats-server"), &partial)
        .and_then(|_| fs::rename(&partial, &program))
        .with_context(|| format!("put nats-server {DEBIAN} at {}", program.display()))?;
    Ok(program)
}

/// Stops, kills and replaces the broker, in any order, one after the other.
fn plan(
    world: &mut World,
    dice: &mut Dice,
    messages: usize,
    (own, count): (usize, usize),
) -> Vec<(Duration, Step)> {
    let mut plan = Vec::new();
    for parcel in world.parcels(messages) {
        plan.push((dice.time(DROPPING), Step::Drop(parcel)));
    }
    let other = (own + dice.within(1, count - 1)) % count;
    let mut left: Vec<(Step, Step)> = vec![
        (Step::Stop, Step::Continue),
        (Step::Kill, Step::Start(own)),
        (Step::Kill, Step::Start(other)),
        (Step::Kill, Step::Start(own)),
    ];
    let slot = DROPPING / 4;
    for number in 0..4 {
        // The last one brings the version under test back.
        let choices = if left.len() > 1 { left.len() - 1 } else { 1 };
        let (down, up) = left.remove(dice.below(choices));
        let at = slot * number + dice.time(slot / 4);
        plan.push((at, down));
        plan.push((at + dice.time(AWAY).min(slot / 2), up));
    }
    plan
}

fn round(
    world: &mut World,
    plan: Vec<(Duration, Step)>,
    versions: &[Version],
    patience: Duration,
) -> Result<Vec<Violation>> {
    world.play(plan, |world, step| match step {
        Step::Drop(parcel) => world.drop_file(parcel),
        Step::Stop => {
            world.figures.add("faults", "stop broker", 1);
            world.member(Who::Broker)?.signal(Signal::STOP);
            Ok(())
        }
        Step::Continue => {
            world.member(Who::Broker)?.signal(Signal::CONT);
            Ok(())
        }
        Step::Kill => world.kill(Who::Broker),
        Step::Start(version) => {
            let version = versions.get(version).context("find a version")?;
            world.layout.programs.broker.clone_from(&version.program);
            let command = world.layout.command(Who::Broker);
            let member = world.member(Who::Broker)?;
            let replaced = member.command() != command;
            member.becomes(command);
            if replaced {
                let name = format!("broker replaced by {}", version.number);
                world.figures.add("faults", &name, 1);
            }
            world.start(Who::Broker)
        }
    })?;
    world.figures.add("rounds", "run", 1);
    world.settle(patience)?;
    world.judge_round()
}
