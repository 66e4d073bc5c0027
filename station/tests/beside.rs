//! Commands beside transfers, and the rate transfers are held to.
//!
//! Nothing here depends on how fast the machine is: the transfers either cannot end within the
//! deadline, or have no end, or cannot be faster than their rate.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use serde_json::json;

use crate::{
    support::{World, eventually, state_of},
    transfer::{await_size, fetched, incoming, noise, size, submit},
};

/// Commands that are to be answered.
const PINGS: usize = 20;

/// Bytes of one chunk.
const CHUNK: u64 = 64 << 10;

fn agent_config(world: &World, text: &str) -> PathBuf {
    let path = world.folder.path().join("agent.toml");
    fs::write(&path, text).expect("written");
    path
}

/// Pings, and runs a command now and then; each must be answered before the next.
fn ask(world: &World, commands: usize) {
    for number in 0..commands {
        let name = format!("ask {number}");
        let message = match number % 4 {
            0 => json!({ "to": ["ship1"], "method": "shellcommand", "data": ["true"] }),
            _ => json!({ "to": ["ship1"], "method": "ping" }),
        };
        submit(world, &name, &message);
        let message = world.await_final(&name);
        assert_eq!(state_of(&message, "ship1"), "succeeded", "{message}");
    }
}

/// Fetches a file, side by side with others.
fn fetch(world: &World, name: &str, path: &Path) {
    let message = json!({ "to": ["ship1"], "method": "filefetch", "path": path, "ordered": false,
        "reply": { "to": "file", "file_name": name } });
    submit(world, name, &message);
}

/// Runs a command whose output goes to the station while it runs.
fn stream(world: &World, name: &str, path: &Path) {
    let message = json!({ "to": ["ship1"], "method": "shellcommand", "stream": true,
        "data": ["cat", path] });
    submit(world, name, &message);
}

fn stands(world: &World, name: &str) -> String {
    let id = world.message_called(name).expect("known");
    let message = world.json(&["msg", "show", &id, "-o", "json"]);
    state_of(&message, "ship1").to_owned()
}

fn log_of(world: &World, name: &str) -> PathBuf {
    let id = eventually("the message", || world.message_called(name));
    let outputs = world.state_dir().join("outputs");
    outputs.join(id).join("ship1/bytes")
}

#[test]
fn commands_are_answered_while_transfers_wait_at_the_gate() {
    let world = World::new();
    let _station = world.station();
    // From one chunk to the next it is longer than anything is waited for here.
    // And transfers take no command's place.
    let text = "transfer_rate = \"512\"\ncommands_at_once = 1\n";
    let config = agent_config(&world, text);
    let _agent = world.agent_with("ship1", &["--config", config.to_str().expect("a path")]);
    world.await_online(&["ship1"]);
    let path = world.folder.path().join("large");
    fs::write(&path, noise(1 << 20, 21)).expect("written");
    for name in ["first", "second"] {
        fetch(&world, name, &path);
    }
    stream(&world, "third", &path);
    let ids = ["first", "second"].map(|name| eventually("it", || world.message_called(name)));
    let mut parts = ids.map(|id| incoming(&world, &id)).to_vec();
    parts.push(log_of(&world, "third"));
    let arrived = || parts.iter().map(|part| size(part)).sum::<u64>();
    eventually("the first chunk", || (arrived() > 0).then_some(()));
    for name in ["first", "second"] {
        eventually("both to be at work", || {
            (stands(&world, name) == "running").then_some(())
        });
    }
    ask(&world, PINGS);
    assert!(arrived() <= 2 * CHUNK, "{} bytes were not held", arrived());
    for name in ["first", "second"] {
        assert_eq!(stands(&world, name), "running", "{name}");
        // Nor does a cancellation wait for them.
        let id = world.message_called(name).expect("known");
        world.steward(&["msg", "cancel", &id]);
        let message = world.await_final(name);
        assert_eq!(state_of(&message, "ship1"), "cancelled", "{message}");
    }
}

#[test]
fn commands_are_answered_beside_outputs_that_come_as_fast_as_they_can() {
    let world = World::new();
    let _station = world.station();
    let config = agent_config(&world, "commands_at_once = 1\n");
    let _agent = world.agent_with("ship1", &["--config", config.to_str().expect("a path")]);
    world.await_online(&["ship1"]);
    stream(&world, "endless", Path::new("/dev/zero"));
    let log = log_of(&world, "endless");
    await_size("the output", &log, 4 << 20);
    let before = size(&log);
    for number in 0..PINGS {
        // The commands of the stream's own subject wait for its end; this is another one.
        let name = format!("ping {number}");
        submit(&world, &name, &json!({ "to": ["ship1"], "method": "ping" }));
        let message = world.await_final(&name);
        assert_eq!(state_of(&message, "ship1"), "succeeded", "{message}");
    }
    assert_eq!(stands(&world, "endless"), "running");
    await_size("the output", &log, before + (4 << 20));
    let id = world.message_called("endless").expect("known");
    world.steward(&["msg", "cancel", &id]);
    let message = world.await_final("endless");
    assert_eq!(state_of(&message, "ship1"), "cancelled", "{message}");
}

#[test]
fn all_transfers_of_a_node_together_are_no_faster_than_their_rate() {
    const RATE: u64 = 1 << 20;
    let world = World::new();
    let _station = world.station();
    let config = agent_config(&world, &format!("transfer_rate = \"{RATE}\"\n"));
    let _agent = world.agent_with("ship1", &["--config", config.to_str().expect("a path")]);
    world.await_online(&["ship1"]);
    let content = noise(1 << 20, 22);
    let path = world.folder.path().join("file");
    fs::write(&path, &content).expect("written");
    let begun = Instant::now();
    fetch(&world, "first", &path);
    fetch(&world, "second", &path);
    stream(&world, "third", &path);
    let whole = |path: &Path| fs::read(path).is_ok_and(|there| there == content);
    for name in ["first", "second"] {
        let message = world.await_final(name);
        assert_eq!(state_of(&message, "ship1"), "succeeded", "{message}");
        assert!(whole(&fetched(&world, name)), "{name}");
    }
    let id = world.message_called("third").expect("known");
    let output = world.steward(&["msg", "output", &id, "--follow"]);
    assert!(output.stdout == content, "{} bytes", output.stdout.len());
    let took = begun.elapsed();
    // The last chunk need not be waited for.
    let bytes = 3 * content.len() as u64 - CHUNK;
    let least = Duration::from_secs_f64(bytes as f64 / RATE as f64);
    assert!(took >= least, "{bytes} bytes in {took:?}");
}
