//! The simulator's command line: many schedules, one schedule with a trace, or a deliberate bug.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line speaks to its terminal"
)]

use std::{
    io::IsTerminal as _,
    process::ExitCode,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Instant,
};

use clap::{Parser, ValueEnum as _};
use steward_protocol::State;
use steward_simulator::sim::{
    bug::Bug,
    run::{self, Job, Kind, Sum, Then, Violation, Wrong},
};

/// Schedules in which a deliberate bug must be found, when nothing else is said.
const BUG_SCHEDULES: u64 = 100;

/// Schedules run when nothing else is said.
const SCHEDULES: u64 = 20_000;

/// Runs the real decisions of a station and its agents under seeded faults, and checks that nothing
/// is lost, nothing starts twice, and no success is shown that was none.
#[derive(Debug, Parser)]
#[command(name = "steward-sim", version)]
struct Arguments {
    /// How many schedules to run
    #[arg(long, value_name = "N")]
    schedules: Option<u64>,

    /// Messages per schedule
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=200))]
    messages: u64,

    /// The first seed
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,

    /// Schedules at a time; as many as there are cores when not given
    #[arg(long, value_name = "J")]
    jobs: Option<usize>,

    /// Runs one schedule and prints what happens in it
    #[arg(long, value_name = "SEED", conflicts_with = "schedules")]
    replay: Option<u64>,

    /// Goes on when a schedule goes wrong, and lists all that do
    #[arg(long)]
    keep_going: bool,

    /// Lists the deliberate bugs
    #[arg(long)]
    list_bugs: bool,

    /// Runs with a deliberate bug until it is found; exits with 0 when it was
    #[arg(long, value_name = "NAME")]
    bug: Option<Bug>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.list_bugs {
        list_bugs();
        return ExitCode::SUCCESS;
    }
    if let Some(seed) = arguments.replay {
        return replay(seed, &arguments);
    }
    let default = if arguments.bug.is_some() {
        BUG_SCHEDULES
    } else {
        SCHEDULES
    };
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let job = Job {
        seed: arguments.seed,
        schedules: arguments.schedules.unwrap_or(default),
        messages: arguments.messages,
        workers: arguments.jobs.unwrap_or(cores),
        bug: arguments.bug,
        then: if arguments.keep_going {
            Then::GoOn
        } else {
            Then::Stop
        },
    };
    let sum = run::run(job, progress(job.schedules));
    match arguments.bug {
        Some(bug) => tell_hunt(bug, &job, &sum),
        None => tell(&job, &sum),
    }
}

fn list_bugs() {
    for bug in Bug::value_variants() {
        let (name, what) = bug.describe();
        println!("{name:<24} {what}");
    }
}

/// Prints how far it is, about once a second, to whoever looks.
fn progress(schedules: u64) -> impl Fn(u64) + Sync {
    let begun = Instant::now();
    let shown = AtomicU64::new(0);
    let every = if std::io::stderr().is_terminal() {
        1
    } else {
        10
    };
    move |done| {
        let second = begun.elapsed().as_secs() / every;
        if shown.fetch_max(second, Ordering::Relaxed) < second {
            eprintln!("{done} of {schedules} schedules");
        }
    }
}

fn replay(seed: u64, arguments: &Arguments) -> ExitCode {
    let report = run::replay(seed, arguments.messages, arguments.bug);
    for line in &report.trace {
        println!("{line}");
    }
    match &report.violation {
        None => {
            println!("seed {seed}: nothing went wrong");
            ExitCode::SUCCESS
        }
        Some(violation) => {
            println!("seed {seed}: {}", describe(violation));
            ExitCode::FAILURE
        }
    }
}

fn describe(violation: &Violation) -> String {
    let (seconds, millis) = (violation.at / 1000, violation.at % 1000);
    format!(
        "{} at {seconds}.{millis:03} s: {}",
        violation.wrong.as_str(),
        violation.what
    )
}

fn command(seed: u64, job: &Job) -> String {
    let bug = job.bug.map(|bug| format!(" --bug {}", bug.describe().0));
    format!(
        "steward-sim --replay {seed} --messages {}{}",
        job.messages,
        bug.unwrap_or_default()
    )
}

fn tell_hunt(bug: Bug, job: &Job, sum: &Sum) -> ExitCode {
    let (name, _) = bug.describe();
    let Some((seed, violation)) = sum.violations.first() else {
        println!("{name}: NOT FOUND in {} schedules", sum.schedules);
        return ExitCode::FAILURE;
    };
    let within = seed.wrapping_sub(job.seed) + 1;
    println!(
        "{name}: found in schedule {within}, seed {seed}: {}",
        describe(violation)
    );
    println!("replay: {}", command(*seed, job));
    ExitCode::SUCCESS
}

fn tell(job: &Job, sum: &Sum) -> ExitCode {
    let seconds = sum.elapsed.as_secs_f64();
    let count = |kinds: &[Wrong]| {
        let wrong = sum.violations.iter();
        wrong.filter(|(_, it)| kinds.contains(&it.wrong)).count()
    };
    println!(
        "schedules      {} ({} without a fault)",
        sum.schedules, sum.calm
    );
    println!("messages       {}", sum.schedules * job.messages);
    println!("deliveries     {}", sum.deliveries);
    println!("commands       {}", sum.starts);
    for (state, number) in State::ALL.iter().zip(sum.ends).filter(|(_, it)| *it > 0) {
        println!("  {:<12} {number}", state.as_str());
    }
    println!("faults         {}", sum.tally.total());
    for kind in Kind::ALL {
        println!("  {:<36} {}", kind.as_str(), sum.tally.of(kind));
    }
    println!("lost           {}", count(&[Wrong::Lost, Wrong::NotFinal]));
    println!("double         {}", count(&[Wrong::Double]));
    println!(
        "false          {}",
        count(&[Wrong::FalseSuccess, Wrong::FalseState])
    );
    println!(
        "other          {}",
        count(&[
            Wrong::Order,
            Wrong::Ledger,
            Wrong::Unwritten,
            Wrong::Resent,
            Wrong::Withheld
        ])
    );
    println!(
        "slowest end    {:.1} s after the faults ended, commands not counted",
        f64::from(u32::try_from(sum.settled).unwrap_or(u32::MAX)) / 1000.0
    );
    println!("fingerprint    {:016x}", sum.fingerprint);
    println!("elapsed        {seconds:.2} s");
    let rate = u32::try_from(sum.schedules).map_or(f64::INFINITY, f64::from) / seconds;
    println!(
        "rate           {rate:.0} schedules/s with {} workers",
        job.workers
    );
    for (seed, violation) in &sum.violations {
        println!("\nVIOLATION in seed {seed}: {}", describe(violation));
        println!("replay: {}", command(*seed, job));
    }
    if sum.violations.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
