//! Spoils the links between station, broker and agents: every part of a world is a host of its own.

mod space;

use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;

pub(super) use self::space::{Spaces, Trouble};
use super::{
    child::{again_in, tool},
    dice::Dice,
    judge::Violation,
    layout::Layout,
    runner::{self, Ground, Made, Report, Turn, Worlds},
    traffic::Parcel,
    world::{Who, World},
};

/// Where the tools come from.
const PACKAGES: &str = "iproute2 nftables util-linux";

/// What to do where there are no namespaces.
const HOW: &str = "it needs root, or a kernel that lets ordinary users make namespaces (`unshare -Urn true`); \
    and on Debian: apt-get install iproute2 nftables";

/// Agents of a world.
const AGENTS: usize = 3;

/// Schedules of one world.
const SCHEDULES_OF_A_WORLD: usize = 10;

/// How long files are dropped.
const DROPPING: Duration = Duration::from_millis(4000);

/// How long most troubles last, at most.
const TROUBLE: Duration = Duration::from_millis(5000);

/// How long a few last: until both ends have given the connection up.
const LONG_TROUBLE: Duration = Duration::from_secs(45);

/// The sizes of the suite.
#[derive(Debug, Clone, Args)]
pub(crate) struct NetArgs {
    /// Named troubles on every link in turn, or all of them
    #[arg(long, value_name = "NAME", conflicts_with = "schedules")]
    scenario: Option<Scenario>,
    /// Random schedules instead
    #[arg(long)]
    schedules: Option<usize>,
    /// Messages of a scenario or schedule
    #[arg(long, default_value_t = 100)]
    messages: usize,
}

/// A named scenario.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Scenario {
    /// Every one of them
    All,
    /// The link is down
    Cut,
    /// Nothing reaches a part
    Deaf,
    /// Nothing a part says is heard
    Mute,
    /// 64 kbit/s
    Slow,
    /// A tenth to a half of all packets is lost
    Loss,
    /// Every packet is answered with a reset
    Reset,
}

impl Scenario {
    fn troubles(self) -> Vec<Trouble> {
        match self {
            Self::All => Trouble::ALL.to_vec(),
            Self::Cut => vec![Trouble::Cut],
            Self::Deaf => vec![Trouble::Deaf],
            Self::Mute => vec![Trouble::Mute],
            Self::Slow => vec![Trouble::Slow],
            Self::Loss => vec![Trouble::Loss],
            Self::Reset => vec![Trouble::Reset],
        }
    }
}

/// One step of a schedule.
enum Step {
    Drop(Parcel),
    Spoil(Who, Trouble),
    Heal(Who, Trouble),
}

/// Makes sure that namespaces can be made. Where only an ordinary user's are allowed, runs everything again in
/// one of those, and returns the exit code of that.
pub(crate) fn enter() -> Result<Option<i32>> {
    for program in ["ip", "tc", "nft"] {
        tool(&[program, "-V"], PACKAGES)?;
    }
    if tool(&["unshare", "-n", "true"], PACKAGES).is_ok() {
        return Ok(None);
    }
    if let Err(error) = tool(&["unshare", "-Urn", "true"], PACKAGES) {
        bail!("make network namespaces: {HOW} ({error:#})");
    }
    again_in(&["unshare", "-Urn"]).map(Some)
}

pub(crate) fn run(ground: &Ground, args: &NetArgs) -> Result<Report> {
    let make = |dir: &tempfile::TempDir, dice: &mut Dice, _: usize| {
        let programs = ground.programs.clone();
        let mut layout = Layout::new(dir.path(), programs, AGENTS, dice)?;
        let spaces = Spaces::make(&mut layout)?;
        Ok(Made {
            mix: ground.mix(&layout),
            layout,
            around: Box::new(spaces),
        })
    };
    if let Some(schedules) = args.schedules {
        let each = SCHEDULES_OF_A_WORLD
            .min(schedules.div_ceil(ground.jobs))
            .max(1);
        return runner::run(
            ground,
            &Worlds {
                suite: "net",
                count: schedules.div_ceil(each),
                make: &make,
                play: &|world, turn| {
                    let mut found = Vec::new();
                    for _ in 0..each.min(schedules - turn.number * each) {
                        let plan = random(turn.dice);
                        found.extend(schedule(world, turn, plan, args.messages, ground.patience)?);
                    }
                    Ok(found)
                },
            },
        );
    }
    let troubles = args.scenario.unwrap_or(Scenario::All).troubles();
    runner::run(
        ground,
        &Worlds {
            suite: "net",
            count: troubles.len(),
            make: &make,
            play: &|world, turn| {
                let trouble = troubles.get(turn.number).copied().unwrap_or(Trouble::Cut);
                let plan = named(trouble, turn.dice);
                schedule(world, turn, plan, args.messages, ground.patience)
            },
        },
    )
}

/// A trouble: where, what, from when to when.
type Spell = (Who, Trouble, Duration, Duration);

/// One trouble on every link in turn, each a while longer than the one before.
fn named(trouble: Trouble, dice: &mut Dice) -> Vec<Spell> {
    let mut spells = Vec::new();
    for (place, who) in hosts().into_iter().enumerate() {
        let begin = DROPPING / 5 * u32::try_from(place).unwrap_or(0);
        spells.push((
            who,
            trouble,
            begin,
            begin + Duration::from_secs(1) + dice.time(TROUBLE),
        ));
    }
    spells
}

fn random(dice: &mut Dice) -> Vec<Spell> {
    let count = dice.within(2, 6);
    let spell = |_| {
        let who = *dice.pick(&hosts());
        let trouble = *dice.pick(&Trouble::ALL);
        let begin = dice.time(DROPPING);
        let lasts = match dice.chance(60) {
            true => dice.time(LONG_TROUBLE),
            false => dice.time(TROUBLE),
        };
        (who, trouble, begin, begin + lasts)
    };
    (0..count).map(spell).collect()
}

fn hosts() -> Vec<Who> {
    let agents = (0..AGENTS).map(Who::Agent);
    std::iter::once(Who::Station).chain(agents).collect()
}

fn schedule(
    world: &mut World,
    turn: &mut Turn<'_>,
    spells: Vec<Spell>,
    messages: usize,
    patience: Duration,
) -> Result<Vec<Violation>> {
    let spaces = turn.around.downcast_ref::<Spaces>();
    let spaces = spaces.context("find the namespaces of this world")?;
    let dice = &mut *turn.dice;
    let mut plan = Vec::new();
    for parcel in world.parcels(messages) {
        plan.push((dice.time(DROPPING), Step::Drop(parcel)));
    }
    for (who, trouble, begin, end) in &spells {
        plan.push((*begin, Step::Spoil(*who, *trouble)));
        plan.push((*end, Step::Heal(*who, *trouble)));
    }
    world.play(plan, |world, step| match step {
        Step::Drop(parcel) => world.drop_file(parcel),
        Step::Spoil(who, trouble) => {
            let name = format!("{} ({who})", trouble.as_str());
            world.figures.add("faults", &name, 1);
            spaces.spoil(who, trouble, dice)
        }
        Step::Heal(who, trouble) => spaces.heal(who, trouble),
    })?;
    // Spells overlap: healing one may have come before another began on the same link.
    for (who, trouble, _, _) in spells {
        spaces.heal(who, trouble)?;
    }
    world.figures.add("rounds", "run", 1);
    world.settle(patience)?;
    world.judge_round()
}
