//! Outputs and files on their way, between real programs, over links that break.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};
use steward_protocol::Digest;

use crate::support::{World, delivery_to, eventually, state_of};

/// Bytes that look like nothing in particular, of which every part is different.
fn noise(bytes: usize, seed: u64) -> Vec<u8> {
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
fn submit(world: &World, name: &str, message: &Value) {
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

fn fetch(world: &World, name: &str, path: &Path) {
    let message = json!({ "to": ["ship1"], "method": "filefetch", "path": path });
    submit(world, name, &message);
}

fn fetched(world: &World, name: &str) -> PathBuf {
    world.state_dir().join("results/files/ship1").join(name)
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
    assert!(reason.is_some_and(|reason| reason.contains("cannot be read")), "{message}");
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
    assert_eq!(state_of(&settled, "ship1"), "failed", "it is there now: {settled}");
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
    std::os::unix::fs::symlink("/etc/passwd", world.state_dir().join("files/link")).expect("linked");
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
    submit(&world, "stream", &json!({ "to": ["ship1"], "method": "shellcommand",
        "data": ["sh", "-c", script], "stream": true }));
    let id = eventually("the message", || world.message_called("stream"));
    eventually("the first line at the station", || {
        let log = world.state_dir().join("outputs").join(&id).join("ship1/bytes");
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
