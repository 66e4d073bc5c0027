//! The station's writer of results harmed at every step it takes below `results/`, and at a sample of
//! all its station's steps: what is replaced is old or new, what is appended is there once.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::errno::Errno;
use serde_json::{Value, json};

use super::{Depth, HARMS, Site, Tried, names_in, open, place, sweep_to, tried, watch};
use crate::{
    support::DEADLINE,
    tracer::{Aim, Harm, Step, Traced},
};

/// What the nodes' answers come to.
const REPORT: &str = "a report, and a new one\n";
/// Once each; what the second came to may be heard first when a station was away.
const LOGS: [&str; 2] = ["first\nsecond\n", "second\nfirst\n"];

/// What may be there before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Before {
    /// Not even a directory.
    Nothing,
    /// An older report, and a log with one line.
    Older,
}

impl Before {
    const REPORT: &str = "an older report that is longer than the new one is\n";
    const LOG: &str = "zeroth\n";

    fn of(self, file: &'static str) -> &'static str {
        match self {
            Self::Nothing => "",
            Self::Older => file,
        }
    }

    /// Returns what the log may be in the end.
    fn logs(self) -> [String; 2] {
        LOGS.map(|log| format!("{}{log}", self.of(Self::LOG)))
    }
}

/// Where the files are.
struct Results(PathBuf);

impl Results {
    fn of(site: &Site) -> Self {
        Self(site.world.state_dir().join("results"))
    }

    fn directory(&self) -> PathBuf {
        self.0.join("d/ship1")
    }

    fn lay_out(&self, before: Before) {
        if before == Before::Older {
            fs::create_dir_all(self.directory()).expect("made");
            fs::write(self.directory().join("report"), Before::REPORT).expect("written");
            fs::write(self.directory().join("log"), Before::LOG).expect("written");
        }
    }

    fn text(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.directory().join(name)).ok()
    }

    fn are_written(&self, before: Before) -> bool {
        let log = self.text("log");
        let is_whole = before.logs().into_iter().any(|whole| log == Some(whole));
        self.text("report").as_deref() == Some(REPORT) && is_whole
    }

    /// Whatever happened: no report is half a report, and a log lacks at most its end.
    fn hold(&self, before: Before, at_step: &str) {
        if let Some(report) = self.text("report") {
            let is_older = before == Before::Older && report == Before::REPORT;
            let is_whole = report == REPORT || is_older;
            assert!(is_whole, "{at_step}: the report is {report:?}");
        }
        let log = self.text("log").unwrap_or_default();
        let is_begun = before.logs().iter().any(|whole| whole.starts_with(&log));
        assert!(is_begun, "{at_step}: the log is {log:?}");
    }

    /// In the end all of it is there, once, and nothing else.
    fn are_whole(&self, before: Before, at_step: &str) {
        assert!(
            self.are_written(before),
            "{at_step}: report {:?}, log {:?}",
            self.text("report"),
            self.text("log")
        );
        for (folder, names) in [
            (self.0.clone(), vec!["d"]),
            (self.0.join("d"), vec!["ship1"]),
            (self.directory(), vec!["log", "report"]),
        ] {
            assert_eq!(names_in(&folder), names, "{at_step}");
        }
        for name in ["log", "report"] {
            let found = fs::metadata(self.directory().join(name)).expect("it is there");
            let others = found.permissions().mode() & 0o007;
            // What was there before is not ours to close.
            assert!(others == 0 || before == Before::Older, "{at_step}: {name}");
        }
    }
}

/// Returns a file with the messages whose answers are written.
fn messages() -> String {
    let message = |name: &str, text: &str, reply: Value| {
        json!({ "to": ["ship1"], "method": "shellcommand", "domain": "d", "name": name,
                "data": ["printf", "%s", text], "reply": reply })
    };
    let log = json!({ "to": "append", "file_name": "log" });
    let report = json!({ "to": "file", "file_name": "report" });
    json!([
        message("first", "first\n", log.clone()),
        message("report", REPORT, report),
        message("second", "second\n", log),
    ])
    .to_string()
}

fn nothing_waits(site: &Site) -> bool {
    let ledger = open(&site.world.state_dir().join("ledger.sqlite3"));
    let count = ledger.and_then(|ledger| {
        let query = "SELECT count(*) FROM errand";
        ledger.query_row(query, [], |row| row.get::<_, i64>(0)).ok()
    });
    count == Some(0)
}

/// Three answers are written while step `at` below `folder` is harmed.
fn row(site: &Site, before: Before, folder: PathBuf, (at, harm): (usize, Harm)) -> Tried {
    let results = Results::of(site);
    results.lay_out(before);
    site.world.drop_file("messages.json", &messages());
    let _agent = site.agent();
    let traced = Traced::start(&site.serve(), Aim { folder, at, harm });
    let is_done = || site.is_final(3) && results.are_written(before) && nothing_waits(site);
    if let Harm::FailOn(_) = harm {
        watch(&traced, "the step, or the results", || {
            traced.was_hit() || is_done()
        });
        let seen = traced.steps().len();
        // It has met the full disk again.
        watch(&traced, "another try, or the results", || {
            traced.steps().len() > seen || is_done()
        });
        traced.heal();
    }
    watch(&traced, "the results, or the station's end", is_done);
    let at_step = place(&traced, at);
    let result = tried(traced);
    results.hold(before, &at_step);
    let _again = site.station();
    let deadline = Instant::now() + DEADLINE;
    while !is_done() {
        let words = || waits(site, &results);
        assert!(Instant::now() < deadline, "{at_step}: {}", words());
        std::thread::park_timeout(Duration::from_millis(20));
    }
    results.are_whole(before, &at_step);
    result
}

/// Says how far everything is.
fn waits(site: &Site, results: &Results) -> String {
    let (report, log) = (results.text("report"), results.text("log"));
    let messages = site.deliveries().into_iter().map(|(name, _)| {
        let id = site.world.message_called(&name).unwrap_or_default();
        let show = site.world.steward(&["msg", "show", &id, "-o", "json"]);
        String::from_utf8_lossy(&show.stdout).into_owned()
    });
    let messages: Vec<String> = messages.collect();
    format!("report {report:?}, log {log:?}, deliveries {messages:#?}")
}

/// The steps of the writer alone, with what was there before.
fn writer_row(url: &str, before: Before, at: usize, harm: Harm) -> Tried {
    let site = Site::settled(url);
    let folder = Results::of(&site).0;
    row(&site, before, folder, (at, harm))
}

#[test]
fn crash_points_of_the_results_killed_at_every_step() {
    for before in [Before::Nothing, Before::Older] {
        let scenario = format!("results over {before:?}, killed");
        sweep_to(Depth::Every, &scenario, |url, at| {
            writer_row(url, before, at, Harm::Kill)
        });
    }
}

#[test]
fn crash_points_of_the_results_that_go_wrong_otherwise() {
    let full = ("ENOSPC until healed", Harm::FailOn(Errno::ENOSPC));
    for (name, harm) in HARMS.into_iter().skip(1).chain([full]) {
        super::sweep(&format!("results, {name}"), |url, at| {
            writer_row(url, Before::Older, at, harm)
        });
    }
}

/// With the steps of the ledger, where it says how far an append is.
#[test]
fn crash_points_of_the_results_and_the_ledger_killed() {
    super::sweep("results and ledger, killed", |url, at| {
        let site = Site::settled(url);
        let folder = site.world.state_dir();
        row(&site, Before::Older, folder, (at, Harm::Kill))
    });
}

/// A power cut takes what was not made durable: every file is, and every directory on the way, before
/// the ledger is told that it is written.
#[test]
fn results_are_durable_before_they_are_said_to_be_written() {
    let place = tempfile::tempdir().expect("a folder");
    let broker =
        steward_station::broker::Broker::start(crate::support::nats_server(), place.path());
    let broker = broker.unwrap_or_else(|error| panic!("{error}"));
    let site = Site::settled(broker.url());
    let results = Results::of(&site);
    site.world.drop_file("messages.json", &messages());
    let _agent = site.agent();
    let aim = Aim {
        folder: site.world.state_dir(),
        at: super::NEVER,
        harm: Harm::Kill,
    };
    let traced = Traced::start(&site.serve(), aim);
    let is_done = || site.is_final(3) && nothing_waits(&site);
    watch(&traced, "the results", is_done);
    let steps = traced.kill();
    let of = |step: &Step, path: &Path| step.path == path;
    for made in [results.0.clone(), results.0.join("d"), results.directory()] {
        let above = made.parent().expect("not the root");
        let at = steps
            .iter()
            .position(|step| step.call == "mkdir" && of(step, &made));
        let at = at.unwrap_or_else(|| panic!("{} was not made: {steps:?}", made.display()));
        let first = steps
            .iter()
            .position(|step| step.call == "write" && step.path.starts_with(&made));
        let first = first.expect("something was written in it");
        let synced = steps[at..]
            .iter()
            .position(|step| step.call == "sync" && of(step, above));
        let synced = synced.map(|after| at + after);
        assert!(
            synced.is_some_and(|synced| synced < first),
            "{} is not durable before it is written in: {steps:?}",
            made.display()
        );
    }
    for (name, last) in [("report", "rename"), ("log", "write")] {
        let path = results.directory().join(name);
        let at = steps
            .iter()
            .rposition(|step| step.call == last && of(step, &path));
        let at = at.unwrap_or_else(|| panic!("{name}: {steps:?}"));
        let what = match last {
            "rename" => results.directory(),
            _ => path,
        };
        let rest = &steps[at..];
        assert!(
            rest.iter()
                .any(|step| step.call == "sync" && of(step, &what)),
            "{name}: {rest:?}"
        );
        let before = &steps[at.saturating_sub(1)];
        assert!(
            last != "rename" || before.call == "sync",
            "{name}: {before}"
        );
    }
}
