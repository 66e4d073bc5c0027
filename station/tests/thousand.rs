//! A thousand commands for one node at once: the node takes its queue, the station holds the rest.

use std::{collections::BTreeMap, fs};

use serde_json::{Value, json};

use crate::support::{World, eventually};

/// As many messages as one file may hold.
const COMMANDS: usize = 1000;

/// Few enough that the queue is full for most of the time.
const QUEUE: usize = 20;

/// One file of commands that each append their number and what runs beside them to `truth`.
fn thousand(truth: &std::path::Path) -> String {
    let message = |number: usize| {
        let script = format!("echo {number} >> '{}'", truth.display());
        // Many lanes and some without order, so that far more is on its way than the queue holds.
        json!({ "to": "ship1", "method": "shellcommand", "domain": format!("d{}", number % 10),
                "name": format!("n{number}"), "ordered": !number.is_multiple_of(3),
                "data": ["sh", "-c", script] })
    };
    Value::from_iter((0..COMMANDS).map(message)).to_string()
}

#[test]
fn a_thousand_commands_at_once_all_run_once_though_the_queue_is_short() {
    let world = World::new();
    let _station = world.station();
    let config = world.folder.path().join("agent.toml");
    fs::write(&config, format!("queue = {QUEUE}\ncommands_at_once = 4\n")).expect("writable");
    let truth = world.folder.path().join("truth");
    // The station has all of them before the node is there.
    world.drop_file("thousand.json", &thousand(&truth));
    eventually("the file to be accepted", || {
        world.message_called(&format!("n{}", COMMANDS - 1))
    });
    let config = config.to_str().expect("UTF-8");
    let _agent = world.agent_with("ship1", &["--config", config]);

    let mut waited = 0;
    eventually("every command to have succeeded", || {
        let list = world.json(&["msg", "ls", "-o", "json", "--limit", "0"]);
        let count = |state: &str| {
            let messages = list.as_array().expect("a list").iter();
            let in_state = messages.filter_map(|message| message["counts"][state].as_u64());
            in_state.sum::<u64>()
        };
        waited = waited.max(count("deferred"));
        (count("succeeded") == COMMANDS as u64).then_some(())
    });
    assert!(waited > 0, "the node's queue was never full");
    let mut ran = BTreeMap::<String, usize>::new();
    for line in world.lines_of(&truth) {
        *ran.entry(line).or_default() += 1;
    }
    assert_eq!(ran.len(), COMMANDS, "each ran");
    assert!(ran.values().all(|times| *times == 1), "and once: {ran:?}");
}
