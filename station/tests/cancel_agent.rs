//! Calling off what a node has: queued, running, unanswered; and repeating what is unsettled.

use std::path::{Path, PathBuf};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{
    cancel_retry::{await_state, message, submit, submit_with, texts, why},
    support::{World, code, delivery_to, eventually, state_of},
};

/// Returns a command that says when it starts and when it has come to its end.
fn slow(truth: &Path, seconds: u32) -> String {
    let truth = truth.display();
    format!("echo start >> '{truth}'; sleep {seconds}; echo end >> '{truth}'")
}

fn truth(world: &World, name: &str) -> PathBuf {
    world.folder.path().join(name)
}

#[test]
fn a_running_command_is_stopped_and_that_is_confirmed() {
    let world = World::new();
    let _station = world.station();
    let _agent = world.agent("ship1");
    world.await_online(&["ship1"]);
    let truth = truth(&world, "truth");
    let id = submit(&world, "running", &["ship1"], &slow(&truth, 50));
    await_state(&world, &id, "ship1", "running");
    eventually("the command to have started", || {
        (world.lines_of(&truth) == ["start"]).then_some(())
    });
    let output = world.steward(&["msg", "cancel", &id]);
    let (stdout, stderr) = texts(&output);
    assert_eq!(code(output.status), 0, "{stderr}");
    assert!(stdout.contains("cancelled"), "{stdout}");
    let delivery = delivery_to(&message(&world, &id), "ship1").clone();
    assert_eq!(delivery["observed_by"], "ship1", "on the node's word");
    let told = why(&world, &id, "ship1");
    assert!(told.contains("ship1 had started it, stopped it"), "{told}");
    // The lane is free, and what was stopped never came to its end.
    let next = world.steward(&["run", "--to", "ship1", "--", "true"]);
    assert_eq!(code(next.status), 0, "{next:?}");
    assert_eq!(world.lines_of(&truth), ["start"]);
}

#[test]
fn a_queued_command_is_called_off_without_touching_the_one_before_it() {
    let world = World::new();
    let _station = world.station();
    let _agent = world.agent("ship1");
    world.await_online(&["ship1"]);
    let (first_truth, second_truth) = (truth(&world, "first"), truth(&world, "second"));
    let first = submit(&world, "front", &["ship1"], &slow(&first_truth, 3));
    let second = submit(&world, "behind", &["ship1"], &slow(&second_truth, 0));
    await_state(&world, &first, "ship1", "running");
    await_state(&world, &second, "ship1", "received");
    let told = why(&world, &second, "ship1");
    assert!(
        told.contains(&format!("before it comes message {first}")),
        "{told}"
    );
    let output = world.steward(&["msg", "cancel", &second]);
    assert_eq!(code(output.status), 0, "{output:?}");
    assert_eq!(
        state_of(&message(&world, &first), "ship1"),
        "running",
        "cancelling does not queue"
    );
    await_state(&world, &first, "ship1", "succeeded");
    let next = world.steward(&["run", "--to", "ship1", "--", "true"]);
    assert_eq!(code(next.status), 0, "{next:?}");
    assert!(world.lines_of(&second_truth).is_empty());
    let told = why(&world, &second, "ship1");
    assert!(
        told.contains("ship1 confirmed that it never started it and never will"),
        "{told}"
    );
}

#[test]
fn what_ended_before_the_cancellation_came_ends_as_it_did() {
    let world = World::new();
    let _station = world.station();
    let agent = world.agent("ship1");
    world.await_online(&["ship1"]);
    let truth = truth(&world, "truth");
    let script = format!("echo start >> '{}'; sleep 1", truth.display());
    let id = submit(&world, "quick", &["ship1"], &script);
    eventually("the command to have started", || {
        (world.lines_of(&truth) == ["start"]).then_some(())
    });
    // The agent sleeps through the end of its command and through the request.
    agent.signal(Signal::STOP);
    let output = world.steward(&["msg", "cancel", &id, "--no-wait"]);
    assert_eq!(code(output.status), 0, "{output:?}");
    eventually("the command to have ended by itself", || {
        // One that has ended and is not reaped has no environment any more.
        let mut processes = std::fs::read_dir("/proc").expect("proc").flatten();
        let sleeping = processes.any(|entry| {
            let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
            environment
                .windows(id.len())
                .any(|window| window == id.as_bytes())
        });
        (!sleeping).then_some(())
    });
    agent.signal(Signal::CONT);
    let message = world.await_final("quick");
    let state = state_of(&message, "ship1");
    // Which word comes first decides, but both are true: it ended, or it was stopped as it ended.
    assert!(["succeeded", "cancelled"].contains(&state), "{message}");
    assert_eq!(delivery_to(&message, "ship1")["observed_by"], "ship1");
}

#[test]
fn a_request_survives_both_ends() {
    let world = World::new();
    let station = world.station();
    let agent = world.agent("ship1");
    world.await_online(&["ship1"]);
    agent.signal(Signal::STOP);
    let truth = truth(&world, "truth");
    let id = submit(&world, "both", &["ship1"], &slow(&truth, 0));
    await_state(&world, &id, "ship1", "sent");
    // Killed before it could read the order: nobody can tell, so nothing is claimed.
    agent.kill();
    let output = world.steward(&["msg", "cancel", &id, "--no-wait"]);
    assert_eq!(code(output.status), 0, "{output:?}");
    station.kill();
    let _station = world.station();
    assert_eq!(state_of(&message(&world, &id), "ship1"), "sent");
    let _agent = world.agent("ship1");
    await_state(&world, &id, "ship1", "cancelled");
    let next = world.steward(&["run", "--to", "ship1", "--", "true"]);
    assert_eq!(
        code(next.status),
        0,
        "the tombstone filled its place: {next:?}"
    );
    assert!(world.lines_of(&truth).is_empty(), "it ran all the same");
}

#[test]
fn a_repetition_of_something_running_waits_until_that_is_stopped() {
    let world = World::new();
    let _station = world.station();
    let _agent = world.agent("ship1");
    world.await_online(&["ship1"]);
    let truth = truth(&world, "truth");
    let flag = world.folder.path().join("flag");
    let script = format!(
        "echo start >> '{truth}'; test -e '{flag}' || sleep 50; echo end >> '{truth}'",
        truth = truth.display(),
        flag = flag.display()
    );
    // Unordered, only the hold keeps the two apart.
    let old = submit_with(
        &world,
        "again",
        &["ship1"],
        &script,
        &json!({ "ordered": false }),
    );
    eventually("the command to have started", || {
        (world.lines_of(&truth) == ["start"]).then_some(())
    });
    await_state(&world, &old, "ship1", "running");
    std::fs::write(&flag, "").expect("written");
    let output = world.steward(&[
        "msg", "retry", &old, "--state", "running", "--wait", "-o", "json",
    ]);
    assert_eq!(code(output.status), 0, "{output:?}");
    let answer: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let new = &answer["messages"][0];
    assert_eq!(state_of(new, "ship1"), "succeeded");
    assert_eq!(state_of(&message(&world, &old), "ship1"), "cancelled");
    assert_eq!(world.lines_of(&truth), ["start", "start", "end"]);
    let notes = delivery_to(new, "ship1")["notes"]
        .as_array()
        .expect("notes")
        .clone();
    let words: Vec<&str> = notes
        .iter()
        .filter_map(|note| note["text"].as_str())
        .collect();
    assert!(
        words[0].starts_with("held until") && words[1].starts_with("released"),
        "{words:?}"
    );
}

#[test]
fn a_held_repetition_is_sent_when_the_node_comes_back() {
    let world = World::new();
    let _station = world.station();
    let agent = world.agent("ship1");
    world.await_online(&["ship1"]);
    agent.signal(Signal::STOP);
    let truth = truth(&world, "truth");
    let old = submit(
        &world,
        "back",
        &["ship1"],
        &format!("echo ran >> '{}'", truth.display()),
    );
    await_state(&world, &old, "ship1", "sent");
    agent.kill();
    let receipt = world.json(&["msg", "retry", &old, "--state", "sent", "-o", "json"]);
    assert_eq!(receipt["messages"][0]["held"], json!(["ship1"]));
    let new = receipt["messages"][0]["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    let _agent = world.agent("ship1");
    await_state(&world, &old, "ship1", "cancelled");
    await_state(&world, &new, "ship1", "succeeded");
    assert_eq!(world.lines_of(&truth), ["ran"], "only one of the two ran");
}
