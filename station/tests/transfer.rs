//! Outputs and files on their way, between real programs, over links that break.

use std::{
    fs,
    io::Write,
    net::{Shutdown, TcpListener, TcpStream},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use serde_json::{Value, json};
use steward_protocol::Digest;

use crate::support::{Running, World, agent_program, code, delivery_to, eventually, state_of};

mod cut;
mod disk;

/// Bytes that look like nothing in particular, of which every part is different.
pub(crate) fn noise(bytes: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut noise = Vec::with_capacity(bytes + 8);
    while noise.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        noise.extend_from_slice(&state.to_le_bytes());
    }
    noise.truncate(bytes);
    noise
}

/// Submits one message, called `name`.
pub(crate) fn submit(world: &World, name: &str, message: &Value) {
    let mut message = message.clone();
    message["name"] = json!(name);
    message["domain"] = json!("files");
    let mut file = tempfile::NamedTempFile::with_suffix(".json").expect("a file");
    file.write_all(json!([message]).to_string().as_bytes())
        .expect("written");
    let path = file.path().to_str().expect("a path");
    let output = world.steward(&["submit", path]);
    assert!(output.status.success(), "{output:?}");
}

pub(crate) fn fetch(world: &World, name: &str, path: &Path) {
    let message = json!({ "to": ["ship1"], "method": "filefetch", "path": path });
    submit(world, name, &message);
}

pub(crate) fn fetched(world: &World, name: &str) -> PathBuf {
    world.state_dir().join("results/files/ship1").join(name)
}

#[test]
fn a_fetched_file_stays_where_its_reply_puts_it() {
    let world = World::new();
    let _station = world.station();
    let _agent = world.agent("ship1");
    world.await_online(&["ship1"]);
    let path = world.folder.path().join("catalogue");
    fs::write(&path, "the file itself").expect("written");
    let reply = |name: &str| json!({ "to": "file", "directory": "d", "file_name": name });
    let fetch =
        json!({ "to": ["ship1"], "method": "filefetch", "path": path, "reply": reply("it") });
    submit(&world, "fetched", &fetch);
    world.await_final("fetched");
    // Results are written one after the other: when a later one is there, so are those before it.
    let later = json!({ "to": ["ship1"], "method": "shellcommand", "data": ["echo", "later"],
                        "reply": reply("later") });
    submit(&world, "later", &later);
    let results = world.state_dir().join("results/d/ship1");
    eventually("the later result", || fs::read(results.join("later")).ok());
    let there = fs::read_to_string(results.join("it")).expect("received");
    assert_eq!(there, "the file itself");
}

#[test]
fn a_file_of_a_node_comes_to_the_station_and_only_then_is_it_said_to_have() {
    let world = World::new();
    let _station = world.station();
    let _agent = world.agent("ship1");
    world.await_online(&["ship1"]);
    for (name, bytes) in [("empty", 0), ("small", 11), ("large", 3 << 20)] {
        let content = noise(bytes, 7);
        let path = world.folder.path().join(name);
        fs::write(&path, &content).expect("written");
        fetch(&world, name, &path);
        let message = world.await_final(name);
        assert_eq!(state_of(&message, "ship1"), "succeeded", "{message}");
        let digest = Digest::of(&content).to_string();
        let words = delivery_to(&message, "ship1")["stdout"]["text"]
            .as_str()
            .expect("words");
        assert!(words.contains(&digest), "{words}");
        let there = fs::read(fetched(&world, name)).expect("received");
        assert!(there == content, "{name} is another file");
    }
    let missing = world.folder.path().join("missing");
    fetch(&world, "missing", &missing);
    let message = world.await_final("missing");
    assert_eq!(state_of(&message, "ship1"), "failed", "{message}");
    let reason = delivery_to(&message, "ship1")["reason"].as_str();
    assert!(
        reason.is_some_and(|reason| reason.contains("cannot be read")),
        "{message}"
    );
}

#[test]
fn a_file_of_the_station_comes_to_a_node_with_its_mode_or_not_at_all() {
    let world = World::new();
    let _station = world.station();
    let _agent = world.agent("ship1");
    world.await_online(&["ship1"]);
    let content = noise(3 << 20, 8);
    fs::create_dir_all(world.state_dir().join("files/images")).expect("made");
    fs::write(world.state_dir().join("files/images/app"), &content).expect("written");
    let target = world.folder.path().join("deep/down/app");
    let message = json!({ "to": ["ship1"], "method": "filesend", "source": "images/app",
        "path": target, "mode": "0640", "parents": true, "if_match": "absent" });
    submit(&world, "first", &message);
    let settled = world.await_final("first");
    assert_eq!(state_of(&settled, "ship1"), "succeeded", "{settled}");
    assert!(fs::read(&target).expect("received") == content);
    let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(&target).expect("there"));
    assert_eq!(mode & 0o7777, 0o640);
    submit(&world, "second", &message);
    let settled = world.await_final("second");
    assert_eq!(
        state_of(&settled, "ship1"),
        "failed",
        "it is there now: {settled}"
    );
    let left: Vec<_> = fs::read_dir(target.parent().expect("a directory"))
        .expect("listed")
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    assert_eq!(left, ["app"], "nothing half-received stays");
}

#[test]
fn only_what_is_below_files_is_accepted_to_be_sent() {
    let world = World::new();
    let _station = world.station();
    eventually("the directory of files", || {
        world.state_dir().join("files").is_dir().then_some(())
    });
    std::os::unix::fs::symlink("/etc/passwd", world.state_dir().join("files/link"))
        .expect("linked");
    for source in ["link", "../ledger.sqlite3", "/etc/passwd", "missing"] {
        let message = json!([{ "to": ["ship1"], "method": "filesend", "domain": "files",
            "source": source, "path": "/tmp/never" }]);
        let file = world.folder.path().join("message.json");
        fs::write(&file, message.to_string()).expect("written");
        let output = world.steward(&["submit", file.to_str().expect("a path")]);
        assert_eq!(output.status.code(), Some(5), "{source}: {output:?}");
    }
}

#[test]
fn an_output_comes_while_it_is_written_and_can_be_had_again() {
    let world = World::new();
    let _station = world.station();
    let _agent = world.agent("ship1");
    world.await_online(&["ship1"]);
    let go = world.folder.path().join("go");
    let script = format!(
        "echo one; echo two >&2; while [ ! -e '{}' ]; do sleep 0.05; done; echo three; exit 3",
        go.display()
    );
    submit(
        &world,
        "stream",
        &json!({ "to": ["ship1"], "method": "shellcommand",
        "data": ["sh", "-c", script], "stream": true }),
    );
    let id = eventually("the message", || world.message_called("stream"));
    eventually("the first line at the station", || {
        let log = world
            .state_dir()
            .join("outputs")
            .join(&id)
            .join("ship1/bytes");
        let text = fs::read(log).ok()?;
        text.windows(4).any(|four| four == b"two\n").then_some(())
    });
    fs::write(&go, b"").expect("written");
    let output = world.steward(&["msg", "output", &id, "--follow"]);
    assert_eq!(output.stdout, b"one\nthree\n", "{output:?}");
    assert_eq!(output.stderr, b"two\n", "{output:?}");
    let message = world.await_final("stream");
    assert_eq!(state_of(&message, "ship1"), "failed");
    let again = world.steward(&["msg", "output", &id, "ship1", "--full"]);
    assert!(again.status.success(), "{again:?}");
    assert_eq!((again.stdout, again.stderr), (output.stdout, output.stderr));
}

pub(crate) fn size(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |found| found.len())
}

/// Waits until `path` has `bytes` bytes.
pub(crate) fn await_size(what: &str, path: &Path, bytes: u64) {
    eventually(&format!("{bytes} bytes of {what}"), || {
        (size(path) >= bytes).then_some(())
    });
}

pub(crate) fn incoming(world: &World, id: &str) -> PathBuf {
    world
        .state_dir()
        .join("incoming")
        .join(id)
        .join("ship1/bytes")
}

#[test]
fn a_file_that_changes_while_it_is_fetched_fails_in_words() {
    let world = World::new();
    let _station = world.station();
    // Slow enough to be changed under way.
    let config = world.folder.path().join("agent.toml");
    fs::write(&config, "transfer_rate = \"1MiB\"\n").expect("written");
    let _agent = world.agent_with("ship1", &["--config", config.to_str().expect("a path")]);
    world.await_online(&["ship1"]);
    let path = world.folder.path().join("growing");
    fs::write(&path, noise(8 << 20, 5)).expect("written");
    fetch(&world, "growing", &path);
    let id = eventually("the message", || world.message_called("growing"));
    await_size("the file", &incoming(&world, &id), 1 << 20);
    let mut file = fs::OpenOptions::new()
        .append(true)
        .open(&path)
        .expect("open");
    file.write_all(b"more").expect("written");
    let message = world.await_final("growing");
    assert_eq!(state_of(&message, "ship1"), "failed", "{message}");
    let reason = delivery_to(&message, "ship1")["reason"]
        .as_str()
        .expect("a reason");
    assert!(reason.contains("changed"), "{reason}");
    assert!(
        !fetched(&world, "growing").exists(),
        "nothing of it is a result"
    );
}

#[test]
fn a_cancelled_transfer_leaves_nothing_behind_on_the_node() {
    let world = World::new();
    let station = world.station();
    let _agent = world.agent("ship1");
    world.await_online(&["ship1"]);
    fs::write(world.state_dir().join("files/large"), noise(100 << 20, 6)).expect("written");
    let target = world.folder.path().join("target");
    submit(
        &world,
        "large",
        &json!({ "to": ["ship1"], "method": "filesend", "source": "large",
        "path": target }),
    );
    let id = eventually("the message", || world.message_called("large"));
    let part = world.folder.path().join(format!(".steward-{id}.part"));
    await_size("the file", &part, 1 << 20);
    let output = world.steward(&["msg", "cancel", &id]);
    assert!(
        output.status.code().is_some_and(|code| code != 1),
        "{output:?}"
    );
    let message = world.await_final("large");
    assert_eq!(state_of(&message, "ship1"), "cancelled", "{message}");
    assert!(!part.exists() && !target.exists(), "nothing of it stays");
    assert_eq!(code(station.terminate()), 0);
}

#[test]
fn what_a_killed_agent_received_of_a_file_is_removed_when_its_order_is_over() {
    let world = World::new();
    let _station = world.station();
    let agent = world.agent("ship1");
    world.await_online(&["ship1"]);
    fs::write(world.state_dir().join("files/large"), noise(100 << 20, 6)).expect("written");
    let target = world.folder.path().join("target");
    submit(
        &world,
        "large",
        &json!({ "to": ["ship1"], "method": "filesend", "source": "large",
        "path": target, "idempotent": false }),
    );
    let id = eventually("the message", || world.message_called("large"));
    let part = world.folder.path().join(format!(".steward-{id}.part"));
    await_size("the file", &part, 1 << 20);
    agent.kill();
    // It cannot be sure until the node is back.
    let cancel = world.steward(&["msg", "cancel", &id, "--timeout", "1s"]);
    assert_ne!(cancel.status.code(), Some(1), "{cancel:?}");
    assert!(part.exists(), "nobody was there to remove it");
    let _agent = world.agent("ship1");
    let message = world.await_final("large");
    let state = state_of(&message, "ship1");
    assert!(["interrupted", "cancelled"].contains(&state), "{message}");
    eventually("what was received to be removed", || {
        (!part.exists()).then_some(())
    });
    let notes = world.folder.path().join("ship1/receiving");
    eventually("its note to be removed", || {
        let left = fs::read_dir(&notes).expect("there").count();
        (left == 0).then_some(())
    });
    assert!(!target.exists());
}

#[test]
fn a_long_output_is_fetched_whole_afterwards_and_what_the_cap_cut_is_said() {
    let world = World::new();
    let _station = world.station();
    let config = world.folder.path().join("agent.toml");
    fs::write(&config, "output_cap = \"1MiB\"\n").expect("written");
    let _agent = world.agent_with("ship1", &["--config", config.to_str().expect("a path")]);
    world.await_online(&["ship1"]);
    for (name, bytes, whole) in [("fits", 900_000, true), ("beyond", 1_200_000, false)] {
        let content = noise(bytes, 9);
        let path = world.folder.path().join(name);
        fs::write(&path, &content).expect("written");
        submit(
            &world,
            name,
            &json!({ "to": ["ship1"], "method": "shellcommand",
            "data": ["cat", path] }),
        );
        let message = world.await_final(name);
        assert_eq!(state_of(&message, "ship1"), "succeeded");
        let id = world.message_called(name).expect("known");
        let output = world.steward(&["msg", "output", &id, "--full"]);
        assert_eq!(output.status.success(), whole, "{name}");
        assert!(
            content.starts_with(&output.stdout),
            "{name}: not what was written"
        );
        assert_eq!(output.stdout == content, whole, "{name}");
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(words.contains("are missing"), !whole, "{name}: {words}");
    }
}

#[test]
fn an_output_goes_on_after_the_station_was_killed_and_whoever_follows_sees_no_gap() {
    let world = World::new();
    let station = world.station();
    let _agent = world.agent("ship1");
    world.await_online(&["ship1"]);
    let content = noise(30 << 20, 10);
    let path = world.folder.path().join("out");
    fs::write(&path, &content).expect("written");
    submit(
        &world,
        "big",
        &json!({ "to": ["ship1"], "method": "shellcommand",
        "data": ["cat", path], "stream": true }),
    );
    let id = eventually("the message", || world.message_called("big"));
    let log = world
        .state_dir()
        .join("outputs")
        .join(&id)
        .join("ship1/bytes");
    let shown = world.folder.path().join("shown");
    let mut follower = std::process::Command::new(env!("CARGO_BIN_EXE_steward"))
        .args(["msg", "output", &id, "--follow", "--stream", "stdout"])
        .env("STEWARD_STATE_DIR", world.state_dir())
        .stdout(fs::File::create(&shown).expect("a file"))
        .spawn()
        .expect("steward runs");
    await_size("what is shown", &shown, 5 << 20);
    station.kill();
    let before = size(&log);
    let _station = world.station();
    assert!(size(&log) >= before, "it goes on where it was");
    let status = eventually("the follower to end", || follower.try_wait().expect("ours"));
    assert!(status.success(), "{status}");
    assert!(fs::read(&shown).expect("there") == content);
    assert_eq!(state_of(&world.await_final("big"), "ship1"), "succeeded");
}
