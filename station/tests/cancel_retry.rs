//! Calling off, repeating and explaining, with real neighbours.

use std::path::Path;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{World, code, delivery_to, eventually, state_of};

/// Submits a message that runs `script` on `nodes`; returns its id.
pub(crate) fn submit(world: &World, name: &str, nodes: &[&str], script: &str) -> String {
    submit_with(world, name, nodes, script, &json!({}))
}

/// As [`submit`], with more fields.
pub(crate) fn submit_with(
    world: &World,
    name: &str,
    nodes: &[&str],
    script: &str,
    more: &Value,
) -> String {
    let mut message = json!({ "to": nodes, "method": "shellcommand", "domain": "operatingsystem",
        "name": name, "data": ["sh", "-c", script] });
    for (key, value) in more.as_object().expect("an object") {
        message[key] = value.clone();
    }
    let file = world.folder.path().join(format!("{name}.json"));
    std::fs::write(&file, message.to_string()).expect("written");
    let path = file.display().to_string();
    let receipt = world.json(&["submit", &path, "-o", "json"]);
    receipt["messages"][0]["id"]
        .as_str()
        .expect("an id")
        .to_owned()
}

pub(crate) fn message(world: &World, id: &str) -> Value {
    world.json(&["msg", "show", id, "-o", "json"])
}

/// Waits until the delivery of `id` to `node` is in `state`.
pub(crate) fn await_state(world: &World, id: &str, node: &str, state: &str) -> Value {
    eventually(&format!("{id} to be {state} on {node}"), || {
        let message = message(world, id);
        (state_of(&message, node) == state).then_some(message)
    })
}

/// Returns the explanation as one text.
pub(crate) fn why(world: &World, id: &str, node: &str) -> String {
    let output = world.steward(&["msg", "why", id, node]);
    assert_eq!(code(output.status), 0, "{output:?}");
    String::from_utf8(output.stdout).expect("text")
}

pub(crate) fn texts(output: &std::process::Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

/// Returns a command that succeeds once `flag` exists, and says that it ran.
pub(crate) fn when_there(flag: &Path, truth: &Path) -> String {
    format!(
        "echo ran >> '{}'; test -e '{}'",
        truth.display(),
        flag.display()
    )
}

#[test]
fn what_was_never_sent_is_cancelled_at_once_and_never_runs() {
    let world = World::new();
    let station = world.station();
    let truth = world.folder.path().join("truth");
    let id = submit(
        &world,
        "never",
        &["ship1"],
        &format!("echo ran >> '{}'", truth.display()),
    );
    let told = why(&world, &id, "ship1");
    assert!(told.contains("Nobody has ever heard of ship1"), "{told}");
    assert!(told.contains("It has never been sent"), "{told}");

    let output = world.steward(&["msg", "cancel", &id, "--to", "ship9"]);
    let (_, stderr) = texts(&output);
    assert_eq!(code(output.status), 5, "{stderr}");
    assert!(stderr.contains("does not go to ship9"), "{stderr}");
    assert!(stderr.contains("did you mean ship1?"), "{stderr}");

    let output = world.steward(&["msg", "cancel", &id]);
    let (stdout, stderr) = texts(&output);
    assert_eq!(code(output.status), 0, "{stderr}");
    assert!(stdout.contains("cancelled"), "{stdout}");
    let told = why(&world, &id, "ship1");
    assert!(told.contains("certainly never ran"), "{told}");

    let output = world.steward(&["msg", "cancel", &id]);
    let (_, stderr) = texts(&output);
    assert_eq!(
        code(output.status),
        1,
        "nothing is left to cancel: {stderr}"
    );
    assert!(stderr.contains("final already"), "{stderr}");

    // Not even after a restart, when the node turns up.
    station.kill();
    let _station = world.station();
    let _agent = world.agent("ship1");
    world.await_online(&["ship1"]);
    assert_eq!(
        code(
            world
                .steward(&["run", "--to", "ship1", "--", "true"])
                .status
        ),
        0
    );
    assert_eq!(state_of(&message(&world, &id), "ship1"), "cancelled");
    assert!(world.lines_of(&truth).is_empty(), "it ran all the same");
}

#[test]
fn what_was_sent_to_a_node_that_is_away_stays_pending_and_says_so() {
    let world = World::new();
    let station = world.station();
    let agent = world.agent("ship1");
    world.await_online(&["ship1"]);
    // Stopped, it takes no order and says no goodbye: what is sent now is on nobody's word.
    agent.signal(Signal::STOP);
    let id = submit(&world, "silent", &["ship1"], "true");
    await_state(&world, &id, "ship1", "sent");
    let told = why(&world, &id, "ship1");
    assert!(told.contains("ship1 has not answered"), "{told}");

    let output = world.steward(&["msg", "cancel", &id, "--timeout", "1s"]);
    let (stdout, stderr) = texts(&output);
    assert_eq!(code(output.status), 4, "{stderr}");
    assert!(stdout.contains("not confirmed by the node yet"), "{stdout}");
    station.kill();
    let _station = world.station();
    let delivery = delivery_to(&message(&world, &id), "ship1").clone();
    assert_eq!(delivery["state"], "sent", "a request is no proof");
    assert!(
        delivery["cancel"]["by"]
            .as_str()
            .is_some_and(|by| by.starts_with("uid:"))
    );
    assert_eq!(delivery["notes"][0]["text"], "cancel requested");
    let told = why(&world, &id, "ship1");
    assert!(
        told.contains("to cancel it; ship1 has not confirmed that"),
        "{told}"
    );
    assert!(
        told.contains("has not been heard since this station started"),
        "{told}"
    );
    let last = told.lines().last().expect("a last sentence");
    assert!(last.contains("The cancellation is sent"), "{last}");
    let output = world.steward(&["msg", "cancel", &id, "--no-wait"]);
    let (stdout, _) = texts(&output);
    assert_eq!(code(output.status), 0);
    assert!(stdout.contains("was being cancelled already"), "{stdout}");
    agent.signal(Signal::CONT);
}

#[test]
fn a_failed_message_is_repeated_where_it_failed_and_both_know_of_each_other() {
    let world = World::new();
    let _station = world.station();
    let _agents = ["ship1", "ship2"].map(|name| world.agent(name));
    world.await_online(&["ship1", "ship2"]);
    let (flag, truth) = (
        world.folder.path().join("flag"),
        world.folder.path().join("truth"),
    );
    let script = format!(
        "[ $STEWARD_NODE = ship2 ] || {{ {}; }}",
        when_there(&flag, &truth)
    );
    let old = submit(&world, "first", &["ship1", "ship2"], &script);
    await_state(&world, &old, "ship1", "failed");
    await_state(&world, &old, "ship2", "succeeded");
    let told = why(&world, &old, "ship1");
    assert!(told.contains("that it failed with exit code 1"), "{told}");
    assert!(
        told.contains(&format!("steward msg retry {old} --to ship1")),
        "{told}"
    );

    for (arguments, said) in [
        (&["--to", "ship2"][..], "there is only: succeeded"),
        (&["--state", "running"], "--state failed"),
        (
            &["--state", "succeeded"],
            "what succeeded is never repeated",
        ),
    ] {
        let output = world.steward(&[&["msg", "retry", &old], arguments].concat());
        let (_, stderr) = texts(&output);
        assert_eq!(code(output.status), 5, "{arguments:?}: {stderr}");
        assert!(stderr.contains(said), "{arguments:?}: {stderr}");
    }

    std::fs::write(&flag, "").expect("written");
    let output = world.steward(&["msg", "retry", &old[..13], "--wait", "-o", "json"]);
    assert_eq!(code(output.status), 0, "{output:?}");
    let answer: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let new = &answer["messages"][0];
    assert_eq!(
        (&new["retry_of"], &new["name"]),
        (&json!(old), &json!("first"))
    );
    assert_eq!(
        new["deliveries"].as_array().map(Vec::len),
        Some(1),
        "only where it failed"
    );
    assert_eq!(state_of(new, "ship1"), "succeeded");
    assert_eq!(message(&world, &old)["retried_by"], json!([new["id"]]));
    assert_eq!(world.lines_of(&truth).len(), 2);
    let (page, _) = texts(&world.steward(&["msg", "show", &old]));
    assert!(page.contains("retried by"), "{page}");
    let told = why(&world, &old, "ship1");
    assert!(told.contains("It has been repeated by message"), "{told}");
    let explained = world.json(&["msg", "why", &old, "ship2", "-o", "json"]);
    assert_eq!(explained["state"], "succeeded");
    assert!(
        explained["sentences"]
            .as_array()
            .is_some_and(|all| all.len() >= 3)
    );
}

#[test]
fn a_repetition_of_something_unsettled_is_held_also_over_a_restart() {
    let world = World::new();
    let station = world.station();
    let agent = world.agent("ship1");
    world.await_online(&["ship1"]);
    agent.signal(Signal::STOP);
    let truth = world.folder.path().join("truth");
    let script = format!("echo ran >> '{}'", truth.display());
    let old = submit(&world, "held", &["ship1"], &script);
    await_state(&world, &old, "ship1", "sent");
    let retry = ["msg", "retry", &old, "--state", "sent", "-o", "json"];
    let receipt = world.json(&retry);
    assert_eq!(receipt["messages"][0]["held"], json!(["ship1"]));
    let new = receipt["messages"][0]["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    station.kill();
    let _station = world.station();
    let delivery = delivery_to(&message(&world, &new), "ship1").clone();
    assert_eq!(
        (&delivery["state"], &delivery["held_by"]),
        (&json!("accepted"), &json!([old]))
    );
    let told = why(&world, &new, "ship1");
    assert!(
        told.contains(&format!("held until message {old}")),
        "{told}"
    );
    assert_eq!(
        delivery_to(&message(&world, &old), "ship1")["cancel"]["by"]
            .as_str()
            .map(|by| &by[..4]),
        Some("uid:")
    );
    // Forced, it does not wait; it may then run beside the old one, and that is the operator's word.
    let forced = world.json(&[&retry[..], &["--force"]].concat());
    assert_eq!(forced["messages"][0].get("held"), None);
    // Nobody needs the held one any more: it was never sent.
    let output = world.steward(&["msg", "cancel", &new]);
    assert_eq!(code(output.status), 0, "{output:?}");
    agent.signal(Signal::CONT);
}

#[test]
fn a_read_only_address_explains_and_changes_nothing() {
    let world = World::new();
    let address = format!("127.0.0.1:{}", crate::support::ports::free_port());
    let _station = world.station_with(&["--http", &address]);
    let id = submit(&world, "looked", &["ship1"], "true");
    for (request, expected) in [
        (format!("GET /api/v1/messages/{id}/why/ship1"), 200),
        (format!("GET /api/v1/messages/{id}/why/ship2"), 404),
        (format!("POST /api/v1/messages/{id}/cancel"), 405),
        (format!("POST /api/v1/messages/{id}/retry"), 405),
    ] {
        assert_eq!(ask(&address, &request), expected, "{request}");
    }
    assert_eq!(state_of(&message(&world, &id), "ship1"), "accepted");
}

/// Asks the station at `address`; returns the status.
fn ask(address: &str, request: &str) -> u16 {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(address).expect("the station listens");
    write!(
        stream,
        "{request} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
    )
    .expect("asked");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let status = answer.split(' ').nth(1).and_then(|text| text.parse().ok());
    status.expect("a status")
}
