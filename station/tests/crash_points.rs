//! The n-th durable step fails, or the program dies at it, for every n: of the inbox, of the ledger's
//! and the journal's first creation and migration, of a node at work, and of the writer of results.
//!
//! Every row runs the real programs. `STEWARD_CRASH_POINTS=all` tries every n; without it that is done
//! for the inbox and the results killed, and for the rest a sample spread evenly is tried.

use std::{
    env, fs,
    io::Write,
    os::unix::fs::PermissionsExt,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
};

use nix::errno::Errno;
use rusqlite::{Connection, OpenFlags};
use serde_json::{Value, json};
use steward_station::broker::Broker;
use tempfile::TempDir;

use crate::{
    support::{Running, World, agent_program, eventually, nats_server},
    tracer::{Aim, Harm, Traced},
};

mod databases;
mod results;

/// Points tried of each scenario where not all are.
const SAMPLE: usize = 8;

/// Scenarios run side by side: a row waits more than it works.
const WORKERS: usize = 3;

/// Above every count of steps: nothing is harmed.
const NEVER: usize = usize::MAX;

/// What one row showed.
pub(crate) enum Tried {
    Hit,
    /// The scenario came to its end, with this many steps, before the one aimed at.
    Missed(usize),
}

/// How many of a scenario's steps are tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Depth {
    Every,
    Sample,
}

/// Tries a scenario with the harm at a step after the other: all of them, where that is asked for.
pub(crate) fn sweep(scenario: &str, row: impl Fn(&str, usize) -> Tried + Sync) {
    let every = env::var_os("STEWARD_CRASH_POINTS").is_some_and(|value| value == "all");
    let depth = if every { Depth::Every } else { Depth::Sample };
    sweep_to(depth, scenario, row);
}

/// `row` gets a broker's address and a step's number.
fn sweep_to(depth: Depth, scenario: &str, row: impl Fn(&str, usize) -> Tried + Sync) {
    let brokers: Vec<(TempDir, Broker)> = (0..WORKERS)
        .map(|_| {
            let place = tempfile::tempdir().expect("a folder");
            let broker = Broker::start(nats_server(), place.path());
            (place, broker.unwrap_or_else(|error| panic!("{error}")))
        })
        .collect();
    let Tried::Missed(total) = row(brokers[0].1.url(), NEVER) else {
        panic!("{scenario}: a step without a number was hit");
    };
    assert!(total > 0, "{scenario}: no durable step was seen");
    let stride = match depth {
        Depth::Every => 1,
        Depth::Sample => total.div_ceil(SAMPLE),
    };
    let [next, hits, wrong] = [const { AtomicUsize::new(0) }; 3];
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for (_, broker) in &brokers {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let at = 1 + stride * next.fetch_add(1, Ordering::Relaxed);
                    match catch_unwind(AssertUnwindSafe(|| row(broker.url(), at))) {
                        Ok(Tried::Hit) => drop(hits.fetch_add(1, Ordering::Relaxed)),
                        // Threads take turns as they please: a run may be shorter than another.
                        Ok(Tried::Missed(_)) if at <= total => {}
                        Ok(Tried::Missed(_)) => done.store(true, Ordering::Relaxed),
                        Err(_) => {
                            wrong.fetch_add(1, Ordering::Relaxed);
                            done.fetch_or(at > total, Ordering::Relaxed);
                        }
                    }
                }
            });
        }
    });
    let [hits, wrong] = [hits, wrong].map(AtomicUsize::into_inner);
    assert_eq!(
        wrong, 0,
        "{scenario}: of {total} steps {hits} were harmed well; the others panicked above"
    );
    assert!(hits > 0, "{scenario}: nothing was ever hit");
    let line = format!("{scenario}: {total} durable steps, {hits} of them harmed, one a run\n");
    std::io::stderr().write_all(line.as_bytes()).ok();
}

/// A world on `url` whose station takes files at once.
struct Site {
    world: World,
    config: PathBuf,
}

impl Site {
    fn new(url: &str) -> Self {
        let mut world = World::without_broker();
        url.clone_into(&mut world.url);
        let config = world.folder.path().join("station.toml");
        fs::write(&config, "[inbox]\nsettle = \"1ms\"\nrescan = \"100ms\"\n").expect("written");
        Self { world, config }
    }

    /// Returns a world whose station has run before.
    fn settled(url: &str) -> Self {
        let site = Self::new(url);
        drop(site.station());
        site
    }

    fn serve(&self) -> Command {
        let config = self.config.display().to_string();
        let mut command = self.world.serve_command(&["--config", &config]);
        command.env("RUST_LOG", "error");
        command
    }

    fn station(&self) -> Running {
        Running::start(self.serve()).0
    }

    fn agent_command(&self) -> Command {
        let mut command = Command::new(agent_program());
        command
            .args(["run", "--node", "ship1", "--nats", &self.world.url])
            .args(["--heartbeat", "200ms", "--state-dir"])
            .arg(self.agent_dir())
            .env("RUST_LOG", "error");
        command
    }

    fn agent(&self) -> Running {
        Running::start(self.agent_command()).0
    }

    fn agent_dir(&self) -> PathBuf {
        self.world.folder.path().join("ship1")
    }

    fn truth(&self) -> PathBuf {
        self.world.folder.path().join("truth")
    }

    /// Returns a message file whose command appends `name` to the truth.
    fn appending(&self, name: &str) -> String {
        let script = format!("echo {name} >> '{}'; sync '{0}'", self.truth().display());
        json!([{ "to": ["ship1"], "method": "shellcommand", "domain": "operatingsystem",
                 "name": name, "data": ["sh", "-c", script] }])
        .to_string()
    }

    fn runs_of(&self, name: &str) -> usize {
        let lines = self.world.lines_of(&self.truth());
        lines.iter().filter(|line| *line == name).count()
    }

    /// Returns name and state of every delivery in the ledger.
    fn deliveries(&self) -> Vec<(String, String)> {
        let Some(ledger) = open(&self.world.state_dir().join("ledger.sqlite3")) else {
            return Vec::new();
        };
        let rows = |ledger: &Connection| {
            let query = "SELECT coalesce(name, ''), state FROM delivery JOIN message USING (pos) ORDER BY pos";
            let mut statement = ledger.prepare(query)?;
            let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
            rows.collect::<Result<Vec<(String, String)>, rusqlite::Error>>()
        };
        rows(&ledger).unwrap_or_default()
    }

    fn is_final(&self, count: usize) -> bool {
        let deliveries = self.deliveries();
        let is_final = |word: &str| {
            word.parse::<steward_protocol::State>()
                .is_ok_and(|state| state.is_final())
        };
        deliveries.len() >= count && deliveries.iter().all(|(_, state)| is_final(state))
    }
}

fn open(path: &Path) -> Option<Connection> {
    Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).ok()
}

fn names_in(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut names: Vec<String> = entries
        .map(|entry| {
            let name = entry.expect("an entry").file_name();
            name.into_string().expect("a name of ours")
        })
        .collect();
    names.sort();
    names
}

/// Waits for the end of what is traced, or of its work.
fn watch(traced: &Traced, awaited: &str, mut is_done: impl FnMut() -> bool) {
    eventually(awaited, || (traced.has_ended() || is_done()).then_some(()));
}

pub(crate) fn tried(traced: Traced) -> Tried {
    if traced.was_hit() {
        return Tried::Hit;
    }
    Tried::Missed(traced.kill().len())
}

/// Names the step a run was harmed at.
fn place(traced: &Traced, at: usize) -> String {
    let steps = traced.steps();
    let step = at.checked_sub(1).and_then(|index| steps.get(index));
    format!(
        "step {at} of {}: {}; log: {}",
        steps.len(),
        step.map_or_else(|| "none".to_owned(), ToString::to_string),
        traced.log()
    )
}

const BAD: &str = "[{\"to\": [\"ship1\"], \"domian\": \"x\"}]";

/// One file that is accepted and one that is rejected, while step `at` is harmed.
fn inbox_row(url: &str, at: usize, harm: Harm) -> Tried {
    let site = Site::settled(url);
    let inbox = site.world.inbox();
    fs::write(inbox.join("good.json"), site.appending("good")).expect("written");
    fs::write(inbox.join("bad.json"), BAD).expect("written");
    let _agent = site.agent();
    let folder = site.world.state_dir();
    let traced = Traced::start(&site.serve(), Aim { folder, at, harm });
    let is_done = || names_in(&inbox).len() == 3 && names_in(&inbox.join(".processing")).is_empty();
    watch(
        &traced,
        "both files to be dealt with, or the station's end",
        || is_done() && site.is_final(1),
    );
    let at_step = place(&traced, at);
    let result = tried(traced);
    let _station = site.station();
    eventually(
        &format!("both files to be dealt with after {at_step}"),
        || (is_done() && site.is_final(1)).then_some(()),
    );
    inbox_holds(&site, &at_step);
    result
}

/// Accepted exactly once and rejected exactly once, with whole notes and nothing else.
fn inbox_holds(site: &Site, at_step: &str) {
    let inbox = site.world.inbox();
    assert_eq!(
        site.deliveries(),
        [("good".to_owned(), "succeeded".to_owned())],
        "{at_step}"
    );
    assert_eq!(site.runs_of("good"), 1, "{at_step}");
    assert_eq!(
        names_in(&inbox),
        [".done", ".processing", ".rejected"],
        "{at_step}"
    );
    let days = names_in(&inbox.join(".done"));
    assert_eq!(days.len(), 1, "{at_step}: {days:?}");
    let done = inbox.join(".done").join(&days[0]);
    let names = names_in(&done);
    let [file, status] = names.as_slice() else {
        panic!("{at_step}: .done holds {names:?}");
    };
    assert!(file.ends_with("--good.json"), "{at_step}: {names:?}");
    assert_eq!(*status, format!("{file}.status.json"), "{at_step}");
    let id = site
        .world
        .message_called("good")
        .expect("it is in the ledger");
    assert_eq!(
        read_json(&done.join(status))["messages"][0]["id"],
        id,
        "{at_step}"
    );

    let rejected = inbox.join(".rejected");
    let names = names_in(&rejected);
    let [file, json, text] = names.as_slice() else {
        panic!("{at_step}: .rejected holds {names:?}");
    };
    assert!(file.ends_with("bad.json"), "{at_step}: {names:?}");
    assert_eq!(
        (json, text),
        (&format!("{file}.error.json"), &format!("{file}.error.txt")),
        "{at_step}"
    );
    assert!(read_json(&rejected.join(json))["problems"][0]["reason"].is_string());
    let text = fs::read_to_string(rejected.join(text)).expect("readable");
    assert!(text.contains("did you mean"), "{at_step}: {text}");
}

fn read_json(path: &Path) -> Value {
    let text = fs::read_to_string(path).expect("readable");
    serde_json::from_str(&text)
        .unwrap_or_else(|error| panic!("{}: {error}: {text:?}", path.display()))
}

#[test]
fn crash_points_of_the_inbox_killed_at_every_step() {
    sweep_to(Depth::Every, "inbox, killed", |url, at| {
        inbox_row(url, at, Harm::Kill)
    });
}

#[test]
fn crash_points_of_the_inbox_killed_in_every_write() {
    sweep("inbox, torn", |url, at| inbox_row(url, at, Harm::Tear));
}

#[test]
fn crash_points_of_the_inbox_every_step_fails_once() {
    for errno in [Errno::EIO, Errno::ENOSPC] {
        sweep(&format!("inbox, {errno:?}"), |url, at| {
            inbox_row(url, at, Harm::Fail(errno))
        });
    }
}

/// Every way a step can go wrong.
const HARMS: [(&str, Harm); 4] = [
    ("killed", Harm::Kill),
    ("torn", Harm::Tear),
    ("EIO", Harm::Fail(Errno::EIO)),
    ("ENOSPC", Harm::Fail(Errno::ENOSPC)),
];

/// Two commands reach a node that is harmed at its step `at` while it runs them.
fn node_row(url: &str, at: usize, harm: Harm) -> Tried {
    let site = Site::new(url);
    let _station = site.station();
    for name in ["first", "second"] {
        site.world
            .drop_file(&format!("{name}.json"), &site.appending(name));
    }
    eventually("both messages to be accepted", || {
        (site.deliveries().len() == 2).then_some(())
    });
    let folder = site.agent_dir();
    let traced = Traced::start(&site.agent_command(), Aim { folder, at, harm });
    if let Harm::FailOn(_) = harm {
        watch(&traced, "the step, or both messages to be final", || {
            traced.was_hit() || site.is_final(2)
        });
        // Long enough for the node to have met the full disk at work, if it is at work.
        let failed = traced.steps().len();
        watch(&traced, "more than one step to fail", || {
            traced.steps().len() > failed + 8 || site.is_final(2)
        });
        traced.heal();
    }
    watch(
        &traced,
        "both messages to be final, or the agent's end",
        || site.is_final(2),
    );
    let at_step = place(&traced, at);
    let ended = traced.has_ended();
    let result = if ended { Tried::Hit } else { tried(traced) };
    let _again = site.agent();
    eventually(
        &format!("both messages to be final after {at_step}"),
        || site.is_final(2).then_some(()),
    );
    node_holds(&site, &at_step, matches!(harm, Harm::Kill | Harm::Tear));
    result
}

/// Nothing ran twice, what is said to have succeeded ran, and what did not is said to be unknown.
fn node_holds(site: &Site, at_step: &str, may_interrupt: bool) {
    let deliveries = site.deliveries();
    assert_eq!(deliveries.len(), 2, "{at_step}");
    for (name, state) in &deliveries {
        let runs = site.runs_of(name);
        let holds = match state.as_str() {
            "succeeded" => runs == 1,
            "interrupted" => runs <= 1 && may_interrupt,
            _ => false,
        };
        assert!(holds, "{at_step}: {name} is {state} and ran {runs} times");
    }
}

#[test]
fn crash_points_of_a_node_at_work() {
    let full = ("ENOSPC until healed", Harm::FailOn(Errno::ENOSPC));
    for (name, harm) in HARMS.into_iter().chain([full]) {
        sweep(&format!("node at work, {name}"), |url, at| {
            node_row(url, at, harm)
        });
    }
}

/// A station whose disk is full from its step `at` on takes nothing, says so, and goes on when there is room.
fn full_station_row(url: &str, at: usize) -> Tried {
    let site = Site::settled(url);
    let _agent = site.agent();
    let folder = site.world.state_dir();
    let harm = Harm::FailOn(Errno::ENOSPC);
    let traced = Traced::start(&site.serve(), Aim { folder, at, harm });
    let mut ready = false;
    watch(&traced, "the station to be ready, or its end", || {
        ready |= traced.line().is_some();
        ready
    });
    if !traced.has_ended() {
        let submit = |name: &str| {
            let script = format!("echo {name} >> '{}'", site.truth().display());
            let run = [
                "run",
                "--to",
                "ship1",
                "--name",
                name,
                "--no-wait",
                "--",
                "sh",
                "-c",
                &script,
            ];
            crate::support::code(site.world.steward(&run).status)
        };
        let first = submit("first");
        let accepted = usize::from(first == 0);
        assert_eq!(site.deliveries().len(), accepted, "{}", place(&traced, at));
        traced.heal();
        eventually("a submission to be accepted when there is room", || {
            (submit("second") == 0).then_some(())
        });
        eventually("everything accepted to be final", || {
            site.is_final(1 + accepted).then_some(())
        });
        for (name, state) in site.deliveries() {
            assert_eq!(
                (state.as_str(), site.runs_of(&name)),
                ("succeeded", 1),
                "{name}"
            );
        }
        return if traced.was_hit() {
            Tried::Hit
        } else {
            Tried::Missed(traced.kill().len())
        };
    }
    drop(site.station());
    Tried::Hit
}

#[test]
fn crash_points_of_a_station_whose_disk_is_full() {
    sweep("station, ENOSPC until healed", full_station_row);
}
