//! A real fault of a real agent: judged there, told here, and what it does to orders.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::{Value, json};

use crate::{
    cancel_retry::{await_state, message, submit},
    support::{Running, World, code, delivery_to, eventually},
};

const VICTIM: &str = "ship1.command.shellcommand.operatingsystem";

/// One command that cannot be started is enough to give its process up.
const CONFIG: &str = "[restart.not_startable]\nintensity = 0\ngive_up = \"stop\"\n";

/// Leaves the agent so many descriptors, and returns what it had.
fn descriptors(agent: &Running, limit: Rlimit) -> Rlimit {
    let pid = Pid::from_raw(agent.pid().cast_signed());
    prlimit(pid, Resource::Nofile, limit).expect("it is ours to limit")
}

/// Takes every free descriptor from the agent while `work` is done.
fn without_descriptors(agent: &Running, work: impl FnOnce()) {
    let none = Rlimit {
        current: Some(3),
        maximum: Some(1024),
    };
    let before = descriptors(agent, none);
    work();
    descriptors(
        agent,
        Rlimit {
            maximum: Some(1024),
            current: before.current.map(|current| current.min(1024)),
        },
    );
}

fn process(world: &World, subject: &str) -> Option<Value> {
    let node = world.json(&["node", "show", "ship1", "-o", "json"]);
    let processes = node["processes"].as_array()?;
    let found = processes
        .iter()
        .find(|process| process["subject"] == subject);
    found.cloned()
}

/// Follows the events in a process of its own.
fn following(world: &World) -> (std::process::Child, BufReader<std::process::ChildStdout>) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_steward"))
        .args(["events", "--follow", "-o", "jsonl", "--node", "ship1"])
        .env("STEWARD_STATE_DIR", world.state_dir())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("steward runs");
    let stdout = child.stdout.take().expect("it is piped");
    (child, BufReader::new(stdout))
}

#[test]
fn a_process_that_is_given_up_is_seen_at_the_station_and_leaves_the_others_running() {
    let world = World::new();
    let _station = world.station();
    let config = world.folder.path().join("agent.toml");
    std::fs::write(&config, CONFIG).expect("written");
    let config = config.to_str().expect("a plain path").to_owned();
    let agent = world.agent_with("ship1", &["--config", &config]);
    world.await_online(&["ship1"]);
    let (mut follower, mut followed) = following(&world);

    without_descriptors(&agent, || {
        let id = submit(&world, "starved", &["ship1"], "true");
        await_state(&world, &id, "ship1", "failed");
    });
    let stopped = eventually("the process to be shown as stopped", || {
        process(&world, VICTIM).filter(|process| process["state"] == "stopped")
    });
    assert!(stopped["last_fault"].is_string(), "{stopped}");
    let fault = eventually("the fault among the events", || {
        let events = world.json(&["events", "--kind", "not_startable", "-o", "json"]);
        events.as_array()?.first().cloned()
    });
    assert_eq!(fault["node"], "ship1");
    assert_eq!(fault["subject"], VICTIM);
    assert_eq!(fault["verdict"], "stop this process, the others go on");

    let second = submit(&world, "too late", &["ship1"], "true");
    eventually("the second order to be deferred", || {
        let delivery = delivery_to(&message(&world, &second), "ship1").clone();
        let reason = delivery["reason"].as_str()?.to_owned();
        reason.contains("process stopped").then_some(())
    });
    let other = json!([{"to": ["ship1"], "method": "shellcommand", "domain": "nginx",
                        "name": "other", "data": ["true"]}]);
    world.drop_file("other.json", &other.to_string());
    assert_eq!(
        world.await_final("other")["deliveries"][0]["state"],
        "succeeded"
    );

    let mut line = String::new();
    followed.read_line(&mut line).expect("a line");
    let entry: Value = serde_json::from_str(&line).expect("one entry");
    assert_eq!(entry["key"], fault["key"], "whoever follows is told");
    follower.kill().expect("it runs");
    follower.wait().expect("reaped");
    show_and_list(&world, fault["key"].as_str().expect("a key"));
}

/// Looks at what the node's page and the list of events say in other formats.
fn show_and_list(world: &World, key: &str) {
    let page = world.steward(&["node", "show", "ship1"]);
    let page = String::from_utf8_lossy(&page.stdout).into_owned();
    for words in [
        "faults           1 kept",
        "not_startable",
        "stop this process",
    ] {
        assert!(page.contains(words), "{words:?} not in {page}");
    }
    let output = world.steward(&["events", "-o", "name"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{key}\n"));
    let output = world.steward(&[
        "events",
        "-o",
        "csv",
        "--deliveries",
        "--kind",
        "deferred,failed",
    ]);
    let csv = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(csv.contains(",ship1,failed,"), "{csv}");
    let output = world.steward(&["events", "--follow", "-o", "json"]);
    assert_eq!(code(output.status), 2, "{output:?}");
}
