//! What forwarding logs costs: the product beside rsyslog and syslog-ng, in the same run, on the same two processors.
//!
//! Every round measures everybody once, one after the other, so that a machine that is busy for a while is so for all of
//! them; medians of the rounds are compared. This file knows the order and the gates; how each is measured stands in
//! `measure`.

mod lines;
mod measure;
mod peers;
mod plant;
mod receive;
mod restart;
mod results;
mod table;
mod usage;
mod wire;

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use steward_station::signals::Urgency;

use self::{
    measure::{Bench, Datagrams, Outage, Pace},
    peers::{ABSENT, Peer, Root, is_on_path},
    results::{Results, mega},
    table::{gates, median, number},
};
use super::runner::{Ground, Report, note, say};

/// Processors everybody shares.
const PROCESSORS: usize = 2;

/// How much is measured.
#[derive(Debug, Clone, Args)]
pub(crate) struct ForwardingArgs {
    /// Lines of about 200 bytes, sent over one TCP connection
    #[arg(long, default_value_t = 1_000_000)]
    lines: u64,
    /// How often everybody is measured; medians count
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of the measurements at a fixed rate
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Also how soon an agent is ready with a spool of so many GiB; 10 for the figure
    #[arg(long, value_name = "GIB", default_value_t = 0)]
    spool: u64,
    /// Where rsyslog and syslog-ng were unpacked by `.ci/peers` [default: target/peers, or the system's]
    #[arg(long, value_name = "DIR")]
    peers: Option<PathBuf>,
    /// Only this part; may be given several times
    #[arg(long = "only", value_name = "PART")]
    only: Vec<Part>,
}

/// A part of the measurements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// rsyslog and syslog-ng
    Peers,
    /// Sender, agent, broker, a receiver that counts
    Agent,
    /// The same with the real station
    Whole,
    /// Outage and drain, with memory
    Outage,
    /// Latency at 1,000 messages a second
    Latency,
    /// 100,000 datagrams a second
    Datagrams,
}

/// Runs the suite.
pub(crate) fn run(ground: &Ground, args: &ForwardingArgs) -> Result<Report> {
    keep_to_processors()?;
    let began = std::time::Instant::now();
    let mut bench = Bench {
        ground,
        peers: Root::find(args.peers.as_deref()),
        dice: ground.dice.fork(0),
        stream: measure::stream(ground.seed, args.lines),
        lines: args.lines,
        length: Duration::from_secs(args.seconds),
    };
    if bench.peers.is_none() {
        note("forwarding: rsyslog and syslog-ng are not there; `.ci/peers` unpacks them");
    }
    let mut results = Results::default();
    for number in 1..=args.rounds {
        round(&mut bench, args, &mut results)?;
        note(&format!(
            "forwarding: round {number} of {} done, {:.0} s",
            args.rounds,
            began.elapsed().as_secs_f64()
        ));
        if ground.stop.urgency() != Urgency::GoOn {
            break;
        }
    }
    if args.spool > 0 {
        let restarted = restart::run(ground, &mut bench.dice, args.spool << 30);
        results.restart = Some(restarted.context("restart with a large spool")?);
    }
    tell(&bench, args, &results);
    let unaccounted: u64 = results.datagrams.iter().map(Datagrams::unaccounted).sum();
    if unaccounted > 0 {
        bail!("account for {unaccounted} datagrams: they are neither stored nor in a gap");
    }
    Ok(Report::default())
}

/// Keeps this program and all it starts to as many processors as the figures are for.
fn keep_to_processors() -> Result<()> {
    let allowed = sched_getaffinity(None).context("ask for processors")?;
    let mut these = CpuSet::new();
    let all = 0..CpuSet::MAX_CPU;
    for processor in all.filter(|one| allowed.is_set(*one)).take(PROCESSORS) {
        these.set(processor);
    }
    sched_setaffinity(None, &these).context("keep to two processors")
}

fn round(bench: &mut Bench<'_>, args: &ForwardingArgs, results: &mut Results) -> Result<()> {
    let wants = |part| args.only.is_empty() || args.only.contains(&part);
    if wants(Part::Peers) {
        results.rsyslog.extend(bench.peer(Peer::RsyslogMemory)?);
    }
    if wants(Part::Agent) {
        results.agent.push(bench.agent()?);
    }
    if wants(Part::Peers) {
        results.syslog_ng.extend(bench.peer(Peer::SyslogNg)?);
    }
    if wants(Part::Whole) {
        let (pace, station) = bench.whole()?;
        results.whole.push(pace);
        results.station.push(station);
    }
    if wants(Part::Peers) {
        let drained = bench.peer_drain(Peer::RsyslogDisk)?;
        results.rsyslog_drain.extend(drained);
    }
    if wants(Part::Outage) {
        results.outages.push(bench.outage()?);
    }
    if wants(Part::Latency) {
        let waits = bench.latency()?;
        let at = |share: f64| {
            let index = (waits.len() as f64 * share) as usize;
            let wait = waits.get(index.min(waits.len().saturating_sub(1)));
            wait.map_or(0.0, |wait| wait.as_secs_f64() * 1e3)
        };
        results.latency.push((at(0.5), at(0.99)));
    }
    if wants(Part::Datagrams) {
        results.datagrams.push(bench.datagrams()?);
    }
    Ok(())
}

fn tell(bench: &Bench<'_>, args: &ForwardingArgs, results: &Results) {
    say(&format!(
        "forwarding: {} lines of {:.0} bytes, seed {}, median of {} rounds, {PROCESSORS} processors",
        args.lines,
        bench.stream.len() as f64 / args.lines as f64,
        bench.ground.seed,
        args.rounds,
    ));
    if args.lines < 1_000_000 || args.rounds < 5 {
        say("a short run: it shows that everything works; its figures say nothing");
    }
    for program in ABSENT {
        if is_on_path(program) {
            say(&format!(
                "{program}: it is here, but nobody has set it up for this"
            ));
        } else {
            say(&format!("{program}: not there, not measured"));
        }
    }
    say(
        "\n| who | messages/s (least–most) | µs of processor per message | memory at the end, peak (MB) |\n|---|---|---|---|",
    );
    let drains = |drain: &(Pace, Duration)| drain.0;
    let rsyslog_drain: Vec<Pace> = results.rsyslog_drain.iter().map(drains).collect();
    let agent_drain: Vec<Pace> = results.outages.iter().map(|one| one.drained).collect();
    for (who, paces) in [
        (Peer::RsyslogMemory.name(), &results.rsyslog),
        (Peer::SyslogNg.name(), &results.syslog_ng),
        ("agent → broker → counting receiver", &results.agent),
        ("agent → broker → station, stored", &results.whole),
        ("drain: rsyslog, disk-assisted", &rsyslog_drain),
        ("drain: agent", &agent_drain),
    ] {
        say(&line(who, paces));
    }
    if let Some(cost) = median(results.station.clone()) {
        say(&format!(
            "\nstation in the whole path: {} µs of processor per message",
            number(cost)
        ));
    }
    details(results);
    say(&format!("\n{}", gates(&results.rows())));
}

fn line(who: &str, paces: &[Pace]) -> String {
    let of = |figure: fn(&Pace) -> f64| -> Vec<f64> { paces.iter().map(figure).collect() };
    let rates = of(|pace| pace.rate);
    let shown = |value: Option<f64>| value.map_or("—".to_owned(), number);
    let least = rates.iter().copied().min_by(f64::total_cmp);
    let most = rates.iter().copied().max_by(f64::total_cmp);
    format!(
        "| {who} | {} ({}–{}) | {} | {}, {} |",
        shown(median(rates)),
        shown(least),
        shown(most),
        shown(median(of(|pace| pace.cost))),
        shown(median(of(|pace| mega(pace.memory.resident)))),
        shown(median(of(|pace| mega(pace.memory.peak)))),
    )
}

/// Says what stands behind some of the rows.
fn details(results: &Results) {
    let idle = |figure: fn(&Outage) -> f64| {
        let all = results.outages.iter().map(figure).collect();
        median(all).map_or("—".to_owned(), number)
    };
    say(&format!(
        "agent at rest, MB: VmRSS {} = RssAnon {} + RssFile {}",
        idle(|one| mega(one.idle.resident)),
        idle(|one| mega(one.idle.own)),
        idle(|one| mega(one.idle.files)),
    ));
    let waited = |waits: Vec<f64>| median(waits).map_or("—".to_owned(), number);
    let ours = results.outages.iter().map(|one| one.wait.as_secs_f64());
    let theirs = results.rsyslog_drain.iter().map(|one| one.1.as_secs_f64());
    say(&format!(
        "until the first message after the outage, s: agent {}, rsyslog {}",
        waited(ours.collect()),
        waited(theirs.collect()),
    ));
    for one in &results.datagrams {
        say(&format!(
            "datagrams: {} sent at {}/s, {} stored, {} missing by the gaps {:?}, {} unaccounted for",
            one.sent,
            number(one.rate),
            one.stored,
            one.counted,
            one.reasons,
            one.unaccounted(),
        ));
    }
    if let Some(restart) = &results.restart {
        say(&format!(
            "restart with a spool of {:.1} GB: takes connections after {:.0} ms, its first batch is there after {:.0} ms",
            restart.bytes as f64 / 1e9,
            restart.open.as_secs_f64() * 1e3,
            restart.first.as_secs_f64() * 1e3,
        ));
    }
}
