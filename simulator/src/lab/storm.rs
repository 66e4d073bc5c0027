//! Everything at once, at random, for as long as asked: kills, stops and network troubles together.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use rustix::process::Signal;

use super::{
    dice::Dice,
    judge::Violation,
    layout::Layout,
    net::{Spaces, Trouble},
    runner::{self, Ground, Made, Report, Turn, Worlds},
    traffic::Parcel,
    world::{Who, World},
};

/// Agents of a world.
const AGENTS: usize = 3;

/// One bout of the storm: after it the world is healed, settled and checked.
const BOUT: Duration = Duration::from_secs(6);

/// How long a trouble of the network lasts, at most.
const TROUBLE: Duration = Duration::from_secs(3);

/// How long a process is away or stopped, at most.
const AWAY: Duration = Duration::from_millis(1500);

/// The sizes of the suite.
#[derive(Debug, Clone, Args)]
pub(crate) struct StormArgs {
    /// How long new bouts are begun
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Messages of a bout
    #[arg(long, default_value_t = 80)]
    messages: usize,
}

/// One step of a bout.
enum Step {
    Drop(Parcel),
    Kill(Who),
    Start(Who),
    Stop(Who),
    Continue(Who),
    Spoil(Who, Trouble),
    Heal(Who, Trouble),
}

pub(crate) fn run(ground: &Ground, args: &StormArgs) -> Result<Report> {
    let end = Instant::now() + Duration::from_secs(args.seconds);
    runner::run(
        ground,
        &Worlds {
            suite: "storm",
            count: ground.jobs,
            make: &|dir, dice, _| {
                let programs = ground.programs.clone();
                let mut layout = Layout::new(dir.path(), programs, AGENTS, dice)?;
                let spaces = Spaces::make(&mut layout)?;
                Ok(Made {
                    mix: ground.mix(&layout),
                    layout,
                    around: Box::new(spaces),
                })
            },
            play: &|world, turn| {
                let mut found = Vec::new();
                while Instant::now() < end {
                    found.extend(bout(world, turn, args.messages, ground.patience)?);
                }
                Ok(found)
            },
        },
    )
}

fn plan(world: &mut World, dice: &mut Dice, messages: usize) -> Vec<(Duration, Step)> {
    let mut plan = Vec::new();
    for parcel in world.parcels(messages) {
        plan.push((dice.time(BOUT), Step::Drop(parcel)));
    }
    let everybody = world.layout.members();
    for _ in 0..dice.within(3, 9) {
        let (at, who) = (dice.time(BOUT), *dice.pick(&everybody));
        let (first, second, lasts) = match dice.below(5) {
            0 | 1 => (Step::Kill(who), Step::Start(who), dice.time(AWAY)),
            2 => (Step::Stop(who), Step::Continue(who), dice.time(AWAY)),
            _ if who == Who::Broker => (Step::Kill(who), Step::Start(who), dice.time(AWAY)),
            _ => {
                let trouble = *dice.pick(&Trouble::ALL);
                (
                    Step::Spoil(who, trouble),
                    Step::Heal(who, trouble),
                    dice.time(TROUBLE),
                )
            }
        };
        plan.push((at, first));
        plan.push((at + lasts, second));
    }
    plan
}

fn bout(
    world: &mut World,
    turn: &mut Turn<'_>,
    messages: usize,
    patience: Duration,
) -> Result<Vec<Violation>> {
    let spaces = turn.around.downcast_ref::<Spaces>();
    let spaces = spaces.context("find the namespaces of this world")?;
    let dice = &mut *turn.dice;
    let plan = plan(world, dice, messages);
    let mut spoilt = Vec::new();
    world.play(plan, |world, step| match step {
        Step::Drop(parcel) => world.drop_file(parcel),
        Step::Kill(who) => world.kill(who),
        Step::Start(who) => world.start(who),
        Step::Stop(who) => {
            world.figures.add("faults", &format!("stop {who}"), 1);
            world.member(who)?.signal(Signal::STOP);
            Ok(())
        }
        Step::Continue(who) => {
            world.member(who)?.signal(Signal::CONT);
            Ok(())
        }
        Step::Spoil(who, trouble) => {
            world
                .figures
                .add("faults", &format!("{} ({who})", trouble.as_str()), 1);
            spoilt.push((who, trouble));
            spaces.spoil(who, trouble, dice)
        }
        Step::Heal(who, trouble) => spaces.heal(who, trouble),
    })?;
    // Spells overlap, so the last word on each is spoken here.
    for (who, trouble) in spoilt {
        spaces.heal(who, trouble)?;
    }
    for who in world.layout.members() {
        world.member(who)?.signal(Signal::CONT);
        world.start(who)?;
    }
    world.figures.add("rounds", "run", 1);
    world.settle(patience)?;
    world.judge_round()
}
