//! Puts a proxy that understands NATS frames between the broker and everybody else.

mod dose;
mod frame;
mod relay;

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, Result};
use clap::Args;
use tokio::runtime::Handle;

use self::{dose::Dose, relay::Proxy};
use super::{
    judge::Violation,
    layout::Layout,
    runner::{self, Ground, Made, Report, Worlds},
    traffic::Mix,
    world::{Who, World},
};

/// Messages of one world, at most: its ledger is read message by message in the end.
const MESSAGES_OF_A_WORLD: usize = 10_000;

/// Deliveries that are open at once: more would only wait in the ledger.
const OPEN: u64 = 3000;

/// Commands an agent runs at once.
const AT_ONCE: usize = 8;

/// How often it is looked whether there is room for more.
const LOOK: Duration = Duration::from_millis(200);

/// The sizes of the suite.
#[derive(Debug, Clone, Args)]
pub(crate) struct ProxyArgs {
    /// Messages, each for one node
    #[arg(long, default_value_t = 10_000)]
    messages: usize,
    /// Messages of one file, at most
    #[arg(long, default_value_t = 200)]
    per_file: usize,
    /// Agents of a world
    #[arg(long, default_value_t = 8)]
    agents: usize,
    #[command(flatten)]
    dose: Dose,
}

pub(crate) fn run(ground: &Ground, args: &ProxyArgs) -> Result<Report> {
    let runtime = Handle::current();
    let each = MESSAGES_OF_A_WORLD
        .min(args.messages.div_ceil(ground.jobs))
        .max(1);
    runner::run(
        ground,
        &Worlds {
            suite: "proxy",
            count: args.messages.div_ceil(each),
            make: &|dir, dice, _| {
                let _inside = runtime.enter();
                let programs = ground.programs.clone();
                let mut layout = Layout::new(dir.path(), programs, args.agents, dice)?;
                layout.at_once = AT_ONCE;
                let broker = SocketAddr::from(([127, 0, 0, 1], layout.listen.1));
                let proxy =
                    Proxy::start(broker, args.dose, dice.fork(2)).context("start a proxy")?;
                // Nodes are to come online before the first fault.
                proxy.calm(true);
                let url = format!("nats://{}", proxy.address());
                for who in layout.members() {
                    if who != Who::Broker {
                        layout.urls.insert(who, url.clone());
                    }
                }
                Ok(Made {
                    mix: mix(ground, &layout, args),
                    layout,
                    around: Box::new(proxy),
                })
            },
            play: &|world, turn| {
                let proxy = turn.around.downcast_ref::<Proxy>();
                let proxy = proxy.context("find the proxy of this world")?;
                let messages = each.min(args.messages - turn.number * each);
                flow(world, proxy, messages, ground.patience)
            },
        },
    )
}

/// Quick commands, so that frames are what takes the time.
fn mix(ground: &Ground, layout: &Layout, args: &ProxyArgs) -> Mix {
    Mix {
        per_file: args.per_file,
        per_message: 1,
        stay: Duration::from_millis(1),
        unusual: 20,
        bad_files: 0,
        ..ground.mix(layout)
    }
}

fn flow(
    world: &mut World,
    proxy: &Proxy,
    messages: usize,
    patience: Duration,
) -> Result<Vec<Violation>> {
    proxy.calm(false);
    for parcel in world.parcels(messages) {
        world.drop_file(parcel)?;
        world.until(patience, |world| {
            let room = world.standing().is_ok_and(|standing| standing.open < OPEN);
            if !room {
                std::thread::sleep(LOOK);
            }
            Ok(room)
        })?;
    }
    world.figures.add("rounds", "run", 1);
    // Faults go on until nearly everything is through; the last of it would meet new ones for ever.
    world.until(patience, |world| {
        std::thread::sleep(LOOK);
        Ok(world
            .standing()
            .is_ok_and(|standing| standing.open < OPEN / 30))
    })?;
    proxy.calm(true);
    world.settle(patience)?;
    world.figures.merge(&proxy.figures());
    Ok(Vec::new())
}
