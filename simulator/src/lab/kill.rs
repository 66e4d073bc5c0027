//! Kills station, agents and broker with signal 9 at random moments while messages flow.

use std::time::Duration;

use anyhow::Result;
use clap::Args;

use super::{
    dice::Dice,
    judge::Violation,
    layout::Layout,
    runner::{self, Ground, Made, Report, Worlds},
    traffic::Parcel,
    world::{Who, World},
};

/// Cycles of one world: enough that ledger and journal grow old, few enough that evidence stays readable.
const CYCLES_OF_A_WORLD: usize = 50;

/// Nodes of a world.
const NODES: usize = 3;

/// How long files are dropped in one cycle.
const DROPPING: Duration = Duration::from_millis(500);

/// When the last of a cycle's kills happens: work is still under way then.
const KILLING: Duration = Duration::from_millis(800);

/// How long a killed process stays away, at most.
const AWAY: Duration = Duration::from_millis(250);

/// The sizes of the suite.
#[derive(Debug, Clone, Args)]
pub(crate) struct KillArgs {
    /// Cycles: messages dropped, at least one kill, everything settled and checked
    #[arg(long, default_value_t = 30)]
    cycles: usize,
    /// Messages of a cycle
    #[arg(long, default_value_t = 20)]
    messages: usize,
}

/// One step of a cycle.
enum Step {
    Drop(Parcel),
    Kill(Who),
    Start(Who),
}

pub(crate) fn run(ground: &Ground, args: &KillArgs) -> Result<Report> {
    let cycles_each = CYCLES_OF_A_WORLD
        .min(args.cycles.div_ceil(ground.jobs))
        .max(1);
    runner::run(
        ground,
        &Worlds {
            suite: "kill",
            count: args.cycles.div_ceil(cycles_each),
            make: &|dir, dice, _| {
                let layout = Layout::new(dir.path(), ground.programs.clone(), NODES, dice)?;
                Ok(Made {
                    mix: ground.mix(&layout),
                    layout,
                    around: Box::new(()),
                })
            },
            play: &|world, turn| {
                let cycles = cycles_each.min(args.cycles - turn.number * cycles_each);
                let mut violations = Vec::new();
                for _ in 0..cycles {
                    violations.extend(cycle(world, turn.dice, args.messages, ground.patience)?);
                }
                Ok(violations)
            },
        },
    )
}

fn cycle(
    world: &mut World,
    dice: &mut Dice,
    messages: usize,
    patience: Duration,
) -> Result<Vec<Violation>> {
    let mut plan: Vec<(Duration, Step)> = Vec::new();
    for parcel in world.parcels(messages) {
        plan.push((dice.time(DROPPING), Step::Drop(parcel)));
    }
    for _ in 0..dice.within(1, 3) {
        let who = victim(dice);
        let at = dice.time(KILLING);
        plan.push((at, Step::Kill(who)));
        plan.push((at + dice.time(AWAY), Step::Start(who)));
    }
    world.play(plan, |world, step| match step {
        Step::Drop(parcel) => world.drop_file(parcel),
        Step::Kill(who) => world.kill(who),
        Step::Start(who) => world.start(who),
    })?;
    world.figures.add("rounds", "run", 1);
    // Two plans for one process may have ended with its kill.
    for who in world.layout.members() {
        world.start(who)?;
    }
    world.settle(patience)?;
    world.judge_round()
}

/// The broker dies less often: after that, everybody waits for a second to connect again.
fn victim(dice: &mut Dice) -> Who {
    match dice.below(10) {
        0..=3 => Who::Station,
        4..=8 => Who::Agent(dice.below(NODES)),
        _ => Who::Broker,
    }
}
