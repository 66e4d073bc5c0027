//! What the rounds gave, and the gates it is held against.
//!
//! It measures nothing and writes nothing.

use std::time::Duration;

use super::{
    measure::{Datagrams, Outage, Pace},
    restart::Restart,
    table::{Gate, Row, median},
};

/// What is asked for, in the order of [`Results::values`]: gate, aim, unit.
const ASKED: [(&str, Gate, Option<f64>, &str); 13] = [
    (
        "agent path ÷ rsyslog in memory",
        Gate::AtLeast(1.0),
        Some(1.5),
        " ×",
    ),
    (
        "agent path ÷ syslog-ng reliable",
        Gate::AtLeast(4.0),
        Some(8.0),
        " ×",
    ),
    (
        "whole path ÷ syslog-ng reliable",
        Gate::AtLeast(2.0),
        Some(4.0),
        " ×",
    ),
    (
        "agent's processor time ÷ rsyslog's",
        Gate::AtMost(0.75),
        Some(0.4),
        " ×",
    ),
    (
        "agent at rest, resident",
        Gate::AtMost(10.0),
        Some(6.0),
        " MB",
    ),
    (
        "agent, peak through burst, outage, drain",
        Gate::AtMost(24.0),
        Some(16.0),
        " MB",
    ),
    (
        "drain ÷ rsyslog disk-assisted",
        Gate::AtLeast(3.0),
        Some(5.0),
        " ×",
    ),
    (
        "spool bytes per raw byte",
        Gate::AtMost(0.35),
        Some(0.2),
        "",
    ),
    (
        "latency at 1,000/s, p50",
        Gate::AtMost(100.0),
        Some(60.0),
        " ms",
    ),
    (
        "latency at 1,000/s, p99",
        Gate::AtMost(300.0),
        Some(150.0),
        " ms",
    ),
    (
        "datagrams at 100,000/s, lost",
        Gate::AtMost(0.05),
        Some(0.0),
        " %",
    ),
    (
        "datagrams neither stored nor counted",
        Gate::AtMost(0.0),
        None,
        " %",
    ),
    (
        "restart with a large spool, ready",
        Gate::AtMost(1.0),
        None,
        " s",
    ),
];

/// What the rounds gave.
#[derive(Debug, Default)]
pub(super) struct Results {
    pub(super) rsyslog: Vec<Pace>,
    pub(super) syslog_ng: Vec<Pace>,
    pub(super) agent: Vec<Pace>,
    pub(super) whole: Vec<Pace>,
    /// Processor time of the station per message, in the whole path.
    pub(super) station: Vec<f64>,
    pub(super) outages: Vec<Outage>,
    pub(super) rsyslog_drain: Vec<(Pace, Duration)>,
    /// p50 and p99 of each round, in milliseconds.
    pub(super) latency: Vec<(f64, f64)>,
    pub(super) datagrams: Vec<Datagrams>,
    pub(super) restart: Option<Restart>,
}

impl Results {
    /// Returns every figure with what is asked of it.
    pub(super) fn rows(&self) -> Vec<Row> {
        let asked = ASKED.into_iter().zip(self.values());
        let row = |((what, gate, aim, unit), value)| Row {
            what,
            value,
            gate,
            aim,
            unit,
        };
        asked.map(row).collect()
    }

    fn values(&self) -> [Option<f64>; ASKED.len()] {
        let rate = |paces: &[Pace]| of(paces, |pace| pace.rate);
        let cost = |paces: &[Pace]| of(paces, |pace| pace.cost);
        let theirs: Vec<Pace> = self.rsyslog_drain.iter().map(|one| one.0).collect();
        let ours: Vec<Pace> = self.outages.iter().map(|one| one.drained).collect();
        let sent = |one: &Datagrams, part: u64| part as f64 * 100.0 / one.sent.max(1) as f64;
        let syslog_ng = rate(&self.syslog_ng);
        [
            ratio(rate(&self.agent), rate(&self.rsyslog)),
            ratio(rate(&self.agent), syslog_ng),
            ratio(rate(&self.whole), syslog_ng),
            ratio(cost(&self.agent), cost(&self.rsyslog)),
            of(&self.outages, |one| mega(one.idle.resident)),
            of(&ours, |pace| mega(pace.memory.peak)),
            ratio(rate(&ours), rate(&theirs)),
            of(&self.agent, |pace| pace.share),
            of(&self.latency, |one| one.0),
            of(&self.latency, |one| one.1),
            of(&self.datagrams, |one| {
                sent(one, one.sent.saturating_sub(one.stored))
            }),
            of(&self.datagrams, |one| sent(one, one.unaccounted())),
            self.restart.map(|one| one.open.as_secs_f64()),
        ]
    }
}

fn of<T>(all: &[T], figure: impl Fn(&T) -> f64) -> Option<f64> {
    median(all.iter().map(figure).collect())
}

fn ratio(one: Option<f64>, other: Option<f64>) -> Option<f64> {
    Some(one? / other?)
}

/// In megabytes of a million bytes.
pub(super) fn mega(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
