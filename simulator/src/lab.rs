//! The laboratory: the real programs as processes, real faults, and a witness of what truly happened.
//!
//! This file knows the command line. What is done to a world stands in one module per kind of fault; what is
//! promised stands in `judge`.

mod brokers;
mod child;
mod claims;
mod dice;
mod errand;
mod figures;
mod forwarding;
mod judge;
mod kill;
mod layout;
mod logs;
mod meddle;
mod net;
mod proxy;
mod runner;
mod scarce;
mod storm;
mod traffic;
mod witness;
mod world;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use steward_station::signals::Stop;

use self::{
    dice::Dice,
    layout::Programs,
    runner::{Ground, Report},
    witness::{Lie, Testimony},
};

/// Runs the real station, agents and broker in a directory of their own, makes faults, and compares what the
/// station claims with what every command itself wrote down.
///
/// Exits with 0 when every promise was kept, 1 when one was broken (it is named, and the world's directory is
/// kept), 2 when the laboratory itself could not do its work.
#[derive(Debug, Parser)]
#[command(name = "steward-lab", version)]
struct Arguments {
    #[command(subcommand)]
    suite: Suite,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
struct Common {
    /// Seed of every plan; drawn and printed when it is not given
    #[arg(long, global = true)]
    seed: Option<u64>,
    /// Worlds side by side; most of their time is waiting
    #[arg(long, global = true, value_name = "N", default_value_t = 4)]
    jobs: usize,
    /// Where `steward` and `steward-agent` are [default: beside this program]
    #[arg(long, global = true, value_name = "DIR")]
    bin_dir: Option<PathBuf>,
    /// The broker [default: NATS_SERVER_BIN, PATH, or a download]
    #[arg(long, global = true, value_name = "FILE")]
    nats_server: Option<PathBuf>,
    /// Where worlds are made; a path in memory such as /dev/shm is faster
    #[arg(long, global = true, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Seconds a world may take to settle after it was healed; what is not final then counts as lost
    #[arg(long, global = true, value_name = "SECONDS", default_value_t = 120)]
    patience: u64,
    /// Let the witness lie, to see the checker find it
    #[arg(long, global = true, hide = true)]
    lie: Option<Lie>,
}

#[derive(Debug, Subcommand)]
enum Suite {
    /// Kill station, agents and broker with signal 9 at random moments while messages flow
    Kill(kill::KillArgs),
    /// Kill agent, station and broker with signal 9 while programs log
    Logs(logs::LogsArgs),
    /// Put every part into a network namespace of its own and spoil the links between them
    Net(net::NetArgs),
    /// Put a proxy between the broker and everybody else that drops, duplicates, reorders, delays, replays, alters and
    /// cuts frames
    Proxy(proxy::ProxyArgs),
    /// Stop, kill and replace the broker under load, with every supported version of it
    Brokers(brokers::BrokersArgs),
    /// Fill disks, take descriptors away, shift clocks; needs root
    Scarce(scarce::ScarceArgs),
    /// Everything at once, at random, for as long as asked
    Storm(storm::StormArgs),
    /// What forwarding logs costs, beside rsyslog and syslog-ng
    Forwarding(forwarding::ForwardingArgs),
    /// Does nothing until its input ends: keeps a network namespace
    #[command(hide = true)]
    Hold,
    /// What every command of the laboratory runs
    #[command(hide = true)]
    Witness {
        /// As [`Testimony::arguments`] writes them
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

/// Runs the command line.
pub fn main() -> ExitCode {
    // A witness is started thousands of times: it does not wait for anything else to be set up.
    let mut words = std::env::args().skip(1);
    match words.next().as_deref() {
        Some("witness") => return witness(&words.collect::<Vec<_>>()),
        Some("hold") => return hold(),
        _ => {}
    }
    match run(Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            runner::complain(&format!("steward-lab: failed to {error:#}"));
            ExitCode::from(2)
        }
    }
}

fn witness(arguments: &[String]) -> ExitCode {
    let given = Testimony::read(arguments).map(|testimony| testimony.give());
    match given {
        Some(Ok(code)) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
        Some(Err(error)) => {
            runner::complain(&format!("steward-lab witness: {error}"));
            ExitCode::from(99)
        }
        None => ExitCode::from(98),
    }
}

fn hold() -> ExitCode {
    // Whatever ends the input ends this, be it an error.
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink()).ok();
    ExitCode::SUCCESS
}

fn run(arguments: Arguments) -> Result<ExitCode> {
    if let Suite::Net(_) | Suite::Storm(_) = &arguments.suite
        && let Some(code) = net::enter()?
    {
        return Ok(ExitCode::from(u8::try_from(code).unwrap_or(2)));
    }
    // Signals are heard, and proxies run, on this runtime; worlds are looked after by plain threads.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .worker_threads(2)
        .build()
        .context("start the runtime")?;
    let guard = runtime.enter();
    let stop = Stop::on_signals().context("listen to signals")?;
    let common = arguments.common;
    let seed = common
        .seed
        .unwrap_or_else(|| uuid::Uuid::new_v4().as_u64_pair().0 >> 32);
    let ground = Ground {
        programs: Programs::find(common.bin_dir.as_deref(), common.nats_server.as_deref())?,
        dir: common.dir.unwrap_or_else(std::env::temp_dir),
        dice: Dice::new(seed),
        seed,
        jobs: common.jobs.max(1),
        patience: Duration::from_secs(common.patience),
        lie: common.lie,
        stop,
    };
    let report = suite(&ground, &arguments.suite);
    drop(guard);
    runtime.shutdown_background();
    Ok(report?.tell(seed))
}

fn suite(ground: &Ground, suite: &Suite) -> Result<Report> {
    match suite {
        Suite::Kill(args) => kill::run(ground, args),
        Suite::Logs(args) => logs::run(ground, args),
        Suite::Net(args) => net::run(ground, args),
        Suite::Proxy(args) => proxy::run(ground, args),
        Suite::Brokers(args) => brokers::run(ground, args),
        Suite::Scarce(args) => scarce::run(ground, args),
        Suite::Storm(args) => storm::run(ground, args),
        Suite::Forwarding(args) => forwarding::run(ground, args),
        Suite::Hold | Suite::Witness { .. } => Ok(Report::default()),
    }
}
