//! Who is who and what time it is (design section 4.4), with real stations, agents and brokers: twins,
//! clones, re-imaged nodes, second stations, restored ledgers, and clocks that are wrong.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};

use crate::support::{Running, World, agent_program, code, delivery_to, eventually, state_of};

/// An agent's directory and how it is started.
struct Agent<'world> {
    world: &'world World,
    dir: PathBuf,
    url: String,
}

impl<'world> Agent<'world> {
    fn new(world: &'world World, dir: &str) -> Self {
        Self {
            world,
            dir: world.folder.path().join(dir),
            url: world.url.clone(),
        }
    }

    fn command(&self, program: &[&str]) -> Command {
        let mut words = program.iter().copied();
        let mut command = match words.next() {
            Some(first) => {
                let mut command = Command::new(first);
                command.args(words).arg(agent_program());
                command
            }
            None => Command::new(agent_program()),
        };
        command
            .args(["run", "--node", "ship1", "--nats", &self.url])
            .args(["--heartbeat", "200ms", "--state-dir"])
            .arg(&self.dir)
            .env("RUST_LOG", "error");
        command
    }

    fn start(&self) -> Running {
        Running::start(self.command(&[])).0
    }

    /// Copies this agent's journal as it lies there, as a disk image would.
    fn cloned(&self, dir: &str) -> Self {
        let clone = Self::new(self.world, dir);
        fs::create_dir(&clone.dir).expect("a folder");
        for name in ["journal.db", "journal.db-wal"] {
            let from = self.dir.join(name);
            if from.exists() {
                fs::copy(from, clone.dir.join(name)).expect("copied");
            }
        }
        clone
    }
}

fn truth(world: &World) -> PathBuf {
    world.folder.path().join("truth")
}

/// Returns a command that appends its name and the command line of the agent that runs it to the
/// truth; between the two is the process that watches over it.
fn script(world: &World, name: &str, then: &str) -> String {
    format!(
        "echo {name} $(tr '\\0' ' ' </proc/$(cut -d' ' -f4 /proc/$PPID/stat)/cmdline) >> '{}'; {then}",
        truth(world).display()
    )
}

fn submit(world: &World, name: &str, then: &str) {
    let script = script(world, name, then);
    let arguments = [
        "run",
        "--to",
        "ship1",
        "--no-wait",
        "--name",
        name,
        "--",
        "sh",
        "-c",
        &script,
    ];
    let output = world.steward(&arguments);
    assert_eq!(code(output.status), 0, "{output:?}");
}

fn runs(world: &World, name: &str) -> Vec<String> {
    let lines = world.lines_of(&truth(world));
    let of = |line: &&String| line.split(' ').next() == Some(name);
    lines.iter().filter(of).cloned().collect()
}

fn node(world: &World) -> Value {
    world.json(&["node", "show", "ship1", "-o", "json"])
}

fn conflict(world: &World) -> Option<String> {
    node(world)["conflict"].as_str().map(str::to_owned)
}

fn await_conflict(world: &World, word: &str) {
    eventually(&format!("a conflict that says {word:?}"), || {
        conflict(world)?.contains(word).then_some(())
    });
}

fn fault_kinds(world: &World) -> Vec<String> {
    let status = world.json(&["status", "-o", "json"]);
    let faults = status["faults"].as_array().cloned().unwrap_or_default();
    let kind = |fault: &Value| fault["kind"].as_str().map(str::to_owned);
    faults.iter().filter_map(kind).collect()
}

fn gate(world: &World, name: &str) -> (PathBuf, String) {
    let gate = world.folder.path().join(name);
    let wait = format!("while [ ! -e '{}' ]; do sleep 0.05; done", gate.display());
    (gate, wait)
}

fn await_running(world: &World, name: &str) {
    eventually(&format!("{name} to start"), || {
        (runs(world, name).len() == 1).then_some(())
    });
}

fn await_state(world: &World, name: &str, state: &str) {
    eventually(&format!("{name} to be {state}"), || {
        let id = world.message_called(name)?;
        let message = world.json(&["msg", "show", &id, "-o", "json"]);
        (state_of(&message, "ship1") == state).then_some(())
    });
}

#[test]
fn identity_a_second_agent_of_the_name_is_held_back_and_the_first_unaffected() {
    let world = World::new();
    let _station = world.station();
    let first = Agent::new(&world, "first");
    let _first = first.start();
    world.await_online(&["ship1"]);
    submit(&world, "before", "true");
    world.await_final("before");
    let known = node(&world)["instance"].clone();
    let second = Agent::new(&world, "second");
    let _second = second.start();
    await_conflict(&world, "has the journal");
    assert!(fault_kinds(&world).contains(&"conflict".to_owned()));
    for name in ["a", "b", "c", "d", "e"] {
        submit(&world, name, "true");
        assert_eq!(state_of(&world.await_final(name), "ship1"), "succeeded");
        let ran = runs(&world, name);
        assert_eq!(ran.len(), 1, "{ran:?}");
        assert!(ran[0].contains("/first"), "the second one ran it: {ran:?}");
    }
    assert_eq!(node(&world)["instance"], known);
    assert_eq!(node(&world)["state"], "online");
}

#[test]
fn identity_a_clone_supersedes_the_running_original_and_nothing_queued_runs_twice() {
    let world = World::new();
    let _station = world.station();
    let original = Agent::new(&world, "original");
    let _original = original.start();
    world.await_online(&["ship1"]);
    let (open, wait) = gate(&world, "gate");
    submit(&world, "long", &wait);
    await_running(&world, "long");
    // It waits behind the long one, in both copies of the journal.
    submit(&world, "queued", "true");
    await_state(&world, "queued", "received");
    let known = node(&world)["instance"].clone();
    let clone = original.cloned("clone");
    let _clone = clone.start();
    eventually("the clone's higher start to supersede", || {
        (node(&world)["instance"] != known).then_some(())
    });
    await_conflict(&world, "clone");
    fs::write(open, "").expect("opened");
    // The clone finds the running command and cannot see how it ends.
    assert_eq!(state_of(&world.await_final("long"), "ship1"), "interrupted");
    assert_eq!(state_of(&world.await_final("queued"), "ship1"), "succeeded");
    for name in ["a", "b", "c"] {
        submit(&world, name, "true");
        assert_eq!(state_of(&world.await_final(name), "ship1"), "succeeded");
    }
    for name in ["long", "queued", "a", "b", "c"] {
        let ran = runs(&world, name);
        assert_eq!(ran.len(), 1, "{name} ran on both: {ran:?}");
        let by = if name == "long" {
            "/original"
        } else {
            "/clone"
        };
        assert!(ran[0].contains(by), "{ran:?}");
    }
    await_conflict(&world, "clone");
}

#[test]
fn identity_of_two_copies_of_a_stopped_journal_the_first_to_start_is_the_node() {
    let world = World::new();
    let _station = world.station();
    let original = Agent::new(&world, "original");
    let running = original.start();
    world.await_online(&["ship1"]);
    submit(&world, "before", "true");
    world.await_final("before");
    assert_eq!(code(running.terminate()), 0);
    let clone = original.cloned("clone");
    let _original = original.start();
    world.await_online(&["ship1"]);
    let _clone = clone.start();
    await_conflict(&world, "clone");
    for name in ["a", "b", "c"] {
        submit(&world, name, "true");
        assert_eq!(state_of(&world.await_final(name), "ship1"), "succeeded");
        let ran = runs(&world, name);
        assert!(ran.len() == 1 && ran[0].contains("/original"), "{ran:?}");
    }
    assert_eq!(runs(&world, "before").len(), 1);
}

#[test]
fn identity_a_reimaged_node_interrupts_what_was_sent_and_serves_what_comes() {
    let world = World::new();
    let _station = world.station();
    let agent = Agent::new(&world, "agent");
    let running = agent.start();
    world.await_online(&["ship1"]);
    submit(&world, "done", "true");
    world.await_final("done");
    let (open, wait) = gate(&world, "gate");
    submit(&world, "long", &wait);
    await_running(&world, "long");
    submit(&world, "queued", "true");
    await_state(&world, "queued", "received");
    running.kill();
    fs::write(open, "").expect("opened");
    fs::remove_dir_all(&agent.dir).expect("the journal is gone");
    let _again = agent.start();
    for name in ["long", "queued"] {
        let message = world.await_final(name);
        let delivery = delivery_to(&message, "ship1");
        assert_eq!(delivery["state"], "interrupted", "{delivery}");
        let reason = delivery["reason"].as_str().unwrap_or_default();
        assert!(reason.contains("journal lost"), "{reason}");
    }
    assert!(fault_kinds(&world).contains(&"journal lost".to_owned()));
    submit(&world, "later", "true");
    assert_eq!(state_of(&world.await_final("later"), "ship1"), "succeeded");
    for (name, times) in [("done", 1), ("long", 1), ("queued", 0), ("later", 1)] {
        assert_eq!(runs(&world, name).len(), times, "{name}");
    }
}

/// A second station at the first one's broker, as from another host: under another of its addresses.
fn other_host(world: &World) -> World {
    let mut other = World::without_broker();
    other.url = world.url.replace("127.0.0.1", "localhost");
    assert_ne!(other.url, world.url);
    other
}

#[test]
fn identity_a_second_station_of_the_name_on_this_host_refuses_to_start() {
    let world = World::new();
    let _station = world.station();
    let mut other = World::without_broker();
    other.url.clone_from(&world.url);
    let output = other.serve_command(&[]).output().expect("it starts");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(code(output.status), 1, "{text}");
    assert!(text.contains("another station of this name"), "{text}");
    assert!(
        !other.state_dir().join("ledger.sqlite3").exists(),
        "it left a ledger"
    );
}

#[test]
fn identity_agents_keep_to_their_ledger_until_a_takeover_is_approved() {
    let world = World::new();
    let _station = world.station();
    let agent = Agent::new(&world, "agent");
    let running = agent.start();
    world.await_online(&["ship1"]);
    let other = other_host(&world);
    let _other = other.station();
    submit_elsewhere(&other, &world, "foreign");
    await_conflict(&other, "--accept-ledger");
    submit(&world, "own", "true");
    assert_eq!(state_of(&world.await_final("own"), "ship1"), "succeeded");
    let id = other.message_called("foreign").expect("accepted");
    let message = other.json(&["msg", "show", &id, "-o", "json"]);
    assert_eq!(
        state_of(&message, "ship1"),
        "accepted",
        "never sent: {message}"
    );
    assert!(runs(&world, "foreign").is_empty());

    assert_eq!(code(running.terminate()), 0);
    let ledger = other.json(&["status", "-o", "json"])["ledger_id"]
        .as_str()
        .expect("a ledger")
        .to_owned();
    let mut command = agent.command(&[]);
    command.args(["--accept-ledger", &ledger]);
    let _taken = Running::start(command).0;
    assert_eq!(
        state_of(&other.await_final("foreign"), "ship1"),
        "succeeded"
    );
    assert_eq!(runs(&world, "foreign").len(), 1);
    // The first station sees whose the node is now, and claims nothing of what it is asked.
    await_conflict(&world, "belongs to the ledger");
    submit(&world, "too late", "true");
    let id = world.message_called("too late").expect("accepted");
    let message = world.json(&["msg", "show", &id, "-o", "json"]);
    assert_eq!(state_of(&message, "ship1"), "accepted");
    assert!(runs(&world, "too").is_empty());
}

/// Submits at `other` a command whose truth lies with `world`.
fn submit_elsewhere(other: &World, world: &World, name: &str) {
    let script = script(world, name, "true");
    let arguments = [
        "run",
        "--to",
        "ship1",
        "--no-wait",
        "--name",
        name,
        "--",
        "sh",
        "-c",
        &script,
    ];
    assert_eq!(code(other.steward(&arguments).status), 0);
}

fn copy_ledger(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for name in ["ledger.sqlite3", "ledger.sqlite3-wal"] {
        fs::remove_file(to.join(name)).ok();
        if from.join(name).exists() {
            fs::copy(from.join(name), to.join(name)).expect("copied");
        }
    }
}

#[test]
fn identity_a_station_restored_from_an_old_backup_is_heard_and_runs_nothing_twice() {
    let world = World::new();
    let backup = world.folder.path().join("backup");
    let station = world.station();
    let agent = Agent::new(&world, "agent");
    let _agent = agent.start();
    world.await_online(&["ship1"]);
    submit(&world, "kept", "true");
    world.await_final("kept");
    assert_eq!(code(station.terminate()), 0);
    copy_ledger(&world.state_dir(), &backup);
    // Two more reigns and three messages that the backup does not know.
    for names in [&["x", "y"][..], &["z"]] {
        let station = world.station();
        world.await_online(&["ship1"]);
        for name in names {
            submit(&world, name, "true");
            assert_eq!(state_of(&world.await_final(name), "ship1"), "succeeded");
        }
        assert_eq!(code(station.terminate()), 0);
    }
    copy_ledger(&backup, &world.state_dir());
    let _restored = world.station();
    world.await_online(&["ship1"]);
    for name in ["a", "b"] {
        submit(&world, name, "true");
        assert_eq!(state_of(&world.await_final(name), "ship1"), "succeeded");
    }
    for name in ["kept", "x", "y", "z", "a", "b"] {
        assert_eq!(runs(&world, name).len(), 1, "{name}");
    }
}

/// Where a preloaded clock is read from, and the environment that makes a program use it.
fn with_clock(command: &mut Command, file: &Path) {
    let library = ["x86_64", "aarch64"]
        .map(|machine| {
            PathBuf::from(format!(
                "/usr/lib/{machine}-linux-gnu/faketime/libfaketimeMT.so.1"
            ))
        })
        .into_iter()
        .find(|path| path.exists())
        .expect("the clock is shifted by faketime: apt-get install faketime");
    command
        .env("LD_PRELOAD", library)
        .env("FAKETIME_TIMESTAMP_FILE", file)
        .env("FAKETIME_NO_CACHE", "1")
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
}

#[test]
fn identity_a_node_without_a_clock_works_by_time_to_live() {
    let world = World::new();
    let _station = world.station();
    let agent = Agent::new(&world, "agent");
    let clock = world.folder.path().join("clock");
    fs::write(&clock, "-18000d").expect("written");
    let mut command = agent.command(&[]);
    with_clock(&mut command, &clock);
    let _agent = Running::start(command).0;
    world.await_online(&["ship1"]);
    let skew = node(&world)["skew_ms"].as_i64().expect("the skew is shown");
    assert!(skew < -17_999 * 86_400_000, "{skew}");
    submit(&world, "works", "true");
    assert_eq!(state_of(&world.await_final("works"), "ship1"), "succeeded");
    // What waits too long expires by the time it was given, whatever the date is.
    let (open, wait) = gate(&world, "gate");
    submit(&world, "long", &wait);
    await_running(&world, "long");
    let late = script(&world, "late", "true");
    let arguments = [
        "run",
        "--to",
        "ship1",
        "--no-wait",
        "--expires",
        "1s",
        "--name",
        "late",
        "--",
        "sh",
        "-c",
        &late,
    ];
    assert_eq!(code(world.steward(&arguments).status), 0);
    assert_eq!(state_of(&world.await_final("late"), "ship1"), "expired");
    fs::write(open, "").expect("opened");
    assert_eq!(state_of(&world.await_final("long"), "ship1"), "succeeded");
    assert!(runs(&world, "late").is_empty());
}

#[test]
fn identity_a_clock_that_steps_by_a_day_neither_expires_nor_loses_what_is_queued() {
    for step in ["+1d", "-1d"] {
        let world = World::new();
        let _station = world.station();
        let agent = Agent::new(&world, "agent");
        let clock = world.folder.path().join("clock");
        fs::write(&clock, "+0d").expect("written");
        let mut command = agent.command(&[]);
        with_clock(&mut command, &clock);
        let _agent = Running::start(command).0;
        world.await_online(&["ship1"]);
        let (open, wait) = gate(&world, "gate");
        submit(&world, "long", &wait);
        await_running(&world, "long");
        let queued = script(&world, "queued", "true");
        let arguments = [
            "run",
            "--to",
            "ship1",
            "--no-wait",
            "--expires",
            "1h",
            "--name",
            "queued",
            "--",
            "sh",
            "-c",
            &queued,
        ];
        assert_eq!(code(world.steward(&arguments).status), 0);
        await_state(&world, "queued", "received");
        fs::write(&clock, step).expect("written");
        // Opened at once: the node has not heard of the step from its station yet.
        fs::write(open, "").expect("opened");
        assert_eq!(
            state_of(&world.await_final("queued"), "ship1"),
            "succeeded",
            "{step}"
        );
        assert_eq!(runs(&world, "queued").len(), 1, "{step}");
        eventually("the skew to be shown", || {
            let skew = node(&world)["skew_ms"].as_i64()?;
            (skew.unsigned_abs() > 80_000_000).then_some(())
        });
        submit(&world, "after", "true");
        assert_eq!(
            state_of(&world.await_final("after"), "ship1"),
            "succeeded",
            "{step}"
        );
    }
}

#[test]
fn identity_an_id_is_one_message_for_ever_also_across_stations_restarts() {
    let world = World::new();
    let station = world.station();
    let agent = Agent::new(&world, "agent");
    let _agent = agent.start();
    world.await_online(&["ship1"]);
    let id = "01934d6a-7b00-7000-8000-0000000000aa";
    let file =
        json!([{ "id": id, "to": ["ship1"], "method": "shellcommand", "domain": "operatingsystem",
                        "name": "once", "data": ["sh", "-c", script(&world, "once", "true")] }])
        .to_string();
    world.drop_file("one.json", &file);
    world.await_final("once");
    station.kill();
    let _again = world.station();
    world.await_online(&["ship1"]);
    world.drop_file("two.json", &file);
    eventually("the second file to be recognised", || {
        let listed = world.json(&["inbox", "ls", "-o", "json"]);
        let is_done = |file: &Value| file["name"] == "two.json" && file["place"] == "done";
        listed.as_array()?.iter().any(is_done).then_some(())
    });
    submit(&world, "then", "true");
    world.await_final("then");
    assert_eq!(runs(&world, "once").len(), 1);
}
