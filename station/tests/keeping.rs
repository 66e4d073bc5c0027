//! What is kept of outputs, and for how long: on the node, at the station, in the ledger. What a message
//! came to is never what goes.

use std::{fs, path::PathBuf, process::Output};

use serde_json::json;

use crate::{
    support::{World, delivery_to, eventually, state_of},
    transfer::{noise, submit},
};

/// More than an answer tells. What a node keeps of such an output is half as much again: its first and
/// last bytes are there once more.
const LONG: usize = 200_000;

/// Runs a command that prints so many bytes, all different for each seed, and ends with 3.
fn print(world: &World, name: &str, seed: u64) -> (String, Vec<u8>) {
    let content = noise(LONG, seed);
    let path = world.folder.path().join(name);
    fs::write(&path, &content).expect("written");
    let script = format!("cat '{}'; exit 3", path.display());
    let message =
        json!({ "to": ["ship1"], "method": "shellcommand", "data": ["sh", "-c", script] });
    submit(world, name, &message);
    let message = world.await_final(name);
    assert_eq!(state_of(&message, "ship1"), "failed", "{message}");
    (world.message_called(name).expect("known"), content)
}

fn full(world: &World, id: &str) -> Output {
    world.steward(&["msg", "output", id, "--full"])
}

/// The first and last bytes and the exit code are there, whatever else has gone.
fn is_told(world: &World, name: &str, content: &[u8]) {
    let message = world.await_final(name);
    assert_eq!(delivery_to(&message, "ship1")["exit_code"], 3, "{message}");
    assert_eq!(delivery_to(&message, "ship1")["stdout"]["bytes"], LONG);
    let id = world.message_called(name).expect("known");
    let output = world.steward(&["msg", "output", &id]);
    assert!(output.status.success(), "{output:?}");
    let cut = 48 << 10;
    assert!(output.stdout.starts_with(&content[..cut]), "{name}");
}

fn config(world: &World, name: &str, text: &str) -> String {
    let path = world.folder.path().join(name);
    fs::write(&path, text).expect("written");
    path.display().to_string()
}

#[test]
fn a_node_lets_the_oldest_outputs_go_and_says_so_when_they_are_asked_for() {
    let world = World::new();
    let _station = world.station();
    let budget = config(&world, "agent.toml", "results_budget = \"700KiB\"\n");
    let _agent = world.agent_with("ship1", &["--config", &budget]);
    world.await_online(&["ship1"]);
    let children = world.folder.path().join("ship1/children");
    let is_kept = |id: &str| children.join(format!("{id}-1")).exists();
    let (first, first_content) = print(&world, "first", 31);
    let (second, second_content) = print(&world, "second", 32);
    // Two are within the budget, and three are not.
    assert!(is_kept(&first) && is_kept(&second));
    let (third, third_content) = print(&world, "third", 33);
    eventually("the first output to go", || {
        (!is_kept(&first)).then_some(())
    });
    let output = full(&world, &first);
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{words}");
    assert!(words.contains("results_budget"), "{words}");
    is_told(&world, "first", &first_content);
    for (id, content) in [(&second, &second_content), (&third, &third_content)] {
        let output = full(&world, id);
        assert!(output.status.success(), "{output:?}");
        assert!(output.stdout == **content, "not what was written");
    }
}

#[test]
fn a_station_lets_the_oldest_outputs_go_and_fetches_them_again() {
    let world = World::new();
    let budget = config(&world, "station.toml", "[outputs]\nbytes = \"300KiB\"\n");
    let station = world.station_with(&["--config", &budget]);
    let agent = world.agent("ship1");
    world.await_online(&["ship1"]);
    let place = |id: &str| -> PathBuf { world.state_dir().join("outputs").join(id).join("ship1") };
    let (first, first_content) = print(&world, "first", 34);
    let (second, second_content) = print(&world, "second", 35);
    for (id, content) in [(&first, &first_content), (&second, &second_content)] {
        assert!(full(&world, id).stdout == **content, "not what was written");
        assert!(place(id).join("end.json").exists());
    }
    // It looks when it starts, and every five minutes.
    assert!(station.terminate().success());
    let _station = world.station_with(&["--config", &budget]);
    eventually("the first output to go", || {
        (!place(&first).exists()).then_some(())
    });
    assert!(place(&second).exists(), "the younger one has room");
    is_told(&world, "first", &first_content);
    world.await_online(&["ship1"]);
    assert!(
        full(&world, &first).stdout == first_content,
        "the node has it"
    );
    // What is here needs no node.
    assert!(agent.terminate().success());
    assert!(full(&world, &second).stdout == second_content);
}

#[test]
fn an_output_that_is_longer_than_a_station_keeps_in_all_is_not_taken_and_that_is_said() {
    let world = World::new();
    let budget = config(&world, "station.toml", "[outputs]\nbytes = \"100KiB\"\n");
    let _station = world.station_with(&["--config", &budget]);
    let _agent = world.agent("ship1");
    world.await_online(&["ship1"]);
    let (id, content) = print(&world, "long", 36);
    let output = full(&world, &id);
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{words}");
    assert!(words.contains("102400 bytes"), "{words}");
    is_told(&world, "long", &content);
}

#[test]
fn what_the_ledger_has_forgotten_leaves_no_output_behind() {
    let world = World::new();
    let station = world.station();
    let _agent = world.agent("ship1");
    world.await_online(&["ship1"]);
    let (id, content) = print(&world, "old", 37);
    assert!(full(&world, &id).stdout == content);
    let outputs = world.state_dir().join("outputs").join(&id).join("ship1");
    assert!(outputs.exists());
    assert!(station.terminate().success());
    let age = config(&world, "station.toml", "[retention]\nage = \"1ms\"\n");
    // The ledger forgets in one start, and what it has forgotten goes at the latest in the next.
    let station = world.station_with(&["--config", &age]);
    eventually("the message to be forgotten", || {
        world.message_called("old").is_none().then_some(())
    });
    assert!(station.terminate().success());
    let _station = world.station_with(&["--config", &age]);
    eventually("its output to go", || (!outputs.exists()).then_some(()));
    let output = full(&world, &id);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
}
