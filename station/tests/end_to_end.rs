//! The main job with real neighbours: a file in the inbox becomes an ACK with output.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    process::Stdio,
};

use rustix::process::Signal;
use serde_json::json;
use steward_station::broker::Broker;

use crate::support::{World, code, delivery_to, eventually, nats_server, state_of};

mod station;

/// A message file that appends a line to `file` on every node and says hello.
fn appending(name: &str, nodes: &[&str], file: &std::path::Path, then: &str) -> String {
    let script = format!(
        "echo \"$STEWARD_NODE $STEWARD_ATTEMPT\" >> '{}'; {then}",
        file.display()
    );
    json!([{ "to": nodes, "method": "shellcommand", "domain": "operatingsystem", "name": name,
             "data": ["sh", "-c", script] }])
    .to_string()
}

#[test]
fn a_dropped_file_becomes_an_ack_with_output() {
    let world = World::new();
    let _station = world.station();
    let _agents = ["ship1", "ship2", "ship3"].map(|name| world.agent(name));
    world.await_online(&["ship1", "ship2", "ship3"]);
    let truth = world.folder.path().join("truth");
    world.drop_file(
        "hello.json",
        &appending(
            "hello",
            &["ship1", "ship2", "ship3"],
            &truth,
            "echo hi from $STEWARD_NODE",
        ),
    );

    let message = world.await_final("hello");
    for node in ["ship1", "ship2", "ship3"] {
        let delivery = delivery_to(&message, node);
        assert_eq!(delivery["state"], "succeeded");
        assert_eq!(delivery["exit_code"], 0);
        assert_eq!(delivery["attempts"], 1);
        assert_eq!(delivery["stdout"]["text"], format!("hi from {node}\n"));
        assert_eq!(
            delivery["subject"],
            format!("{node}.command.shellcommand.operatingsystem")
        );
        let transitions = delivery["transitions"].as_array().expect("transitions");
        let steps: Vec<_> = transitions
            .iter()
            .map(|step| (step["state"].as_str(), step["observed_by"].as_str()))
            .collect();
        assert_eq!(steps.first(), Some(&(Some("accepted"), Some("central"))));
        assert_eq!(steps.last(), Some(&(Some("succeeded"), Some(node))));
    }
    assert_eq!(world.lines_of(&truth).len(), 3, "each node ran it once");
    assert_eq!(message["source"], "inbox:hello.json");
    let uid = fs::metadata(world.folder.path()).expect("a folder").uid();
    assert_eq!(message["submitted_by"], format!("uid:{uid}"));
}

#[test]
fn one_node_fails_and_the_others_do_not() {
    let world = World::new();
    let _station = world.station();
    let _agents = ["ship1", "ship2"].map(|name| world.agent(name));
    world.await_online(&["ship1", "ship2"]);
    let run = [
        "run",
        "--to",
        "ship1,ship2",
        "-o",
        "json",
        "--",
        "sh",
        "-c",
        "echo out; echo err >&2; [ $STEWARD_NODE = ship1 ] || exit 7",
    ];
    let output = world.steward(&run);
    assert_eq!(code(output.status), 3, "{output:?}");
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let message = &answer["messages"][0];
    assert_eq!(state_of(message, "ship1"), "succeeded");
    assert_eq!(
        (
            state_of(message, "ship2"),
            &delivery_to(message, "ship2")["exit_code"]
        ),
        ("failed", &json!(7))
    );
    assert_eq!(delivery_to(message, "ship2")["stderr"]["text"], "err\n");
}

#[test]
fn one_message_for_many_nodes_on_one_host_harms_no_neighbour() {
    let world = World::new();
    let _station = world.station();
    let names: Vec<String> = (1..=8).map(|number| format!("shop{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let _agents: Vec<_> = names.iter().map(|name| world.agent(name)).collect();
    world.await_online(&names);
    // Some end while the others still run, so that every end sweeps beside living neighbours.
    let script = "sleep 0.${STEWARD_NODE#shop}; echo $STEWARD_NODE";
    for _ in 0..3 {
        let output = world.steward(&["run", "--to", "*", "-o", "json", "--", "sh", "-c", script]);
        assert_eq!(code(output.status), 0, "{output:?}");
        let answer: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        for name in &names {
            assert_eq!(
                delivery_to(&answer["messages"][0], name)["stdout"]["text"],
                format!("{name}\n")
            );
        }
    }
}

#[test]
fn what_was_pending_survives_the_stations_restart_and_a_kill() {
    let world = World::new();
    let station = world.station();
    let truth = world.folder.path().join("truth");
    world.drop_file(
        "later.json",
        &appending("later", &["ship1"], &truth, "true"),
    );
    let id = eventually("the message to be accepted", || {
        world.message_called("later")
    });
    let waiting = world.json(&["msg", "show", &id, "-o", "json"]);
    assert_eq!(state_of(&waiting, "ship1"), "accepted");
    let reason = delivery_to(&waiting, "ship1")["reason"]
        .as_str()
        .unwrap_or_default();
    assert!(reason.contains("unknown node"), "{reason}");
    let status = world.json(&["status", "-o", "json"]);
    assert_eq!(status["faults"][0]["kind"], "unknown node");

    assert_eq!(code(station.terminate()), 0);
    let station = world.station();
    station.kill();
    let _station = world.station();
    let _agent = world.agent("ship1");
    let message = world.await_final("later");
    assert_eq!(state_of(&message, "ship1"), "succeeded");
    assert_eq!(world.lines_of(&truth).len(), 1);
}

#[test]
fn a_command_goes_on_while_the_broker_is_away_and_its_result_arrives() {
    let mut world = World::new();
    let _station = world.station();
    let _agent = world.agent("ship1");
    world.await_online(&["ship1"]);
    let truth = world.folder.path().join("truth");
    let gate = world.folder.path().join("gate");
    let wait = format!(
        "while [ ! -e '{}' ]; do sleep 0.05; done; echo done",
        gate.display()
    );
    world.drop_file("long.json", &appending("long", &["ship1"], &truth, &wait));
    eventually("the command to start", || {
        (world.lines_of(&truth).len() == 1).then_some(())
    });

    let port: u16 = world
        .url
        .rsplit(':')
        .next()
        .and_then(|port| port.parse().ok())
        .expect("a port");
    drop(world.broker.take());
    fs::write(&gate, "").expect("opened");
    let place = world.folder.path().join("broker-again");
    fs::create_dir(&place).expect("a folder");
    world.broker = Some(
        Broker::start_on(nats_server(), &place, port).unwrap_or_else(|error| panic!("{error}")),
    );
    let message = world.await_final("long");
    assert_eq!(state_of(&message, "ship1"), "succeeded");
    assert_eq!(delivery_to(&message, "ship1")["stdout"]["text"], "done\n");
    assert_eq!(world.lines_of(&truth).len(), 1);
}

#[test]
fn an_agent_killed_in_mid_command_leaves_interrupted_and_does_not_run_it_again() {
    let world = World::new();
    let _station = world.station();
    let agent = world.agent("ship1");
    world.await_online(&["ship1"]);
    let truth = world.folder.path().join("truth");
    // Once told, it ends the process that watches over it too, so that nobody knows how it ended.
    let cut = world.folder.path().join("cut");
    let script = format!(
        "until [ -e '{}' ]; do sleep 0.05; done; kill -KILL $PPID",
        cut.display()
    );
    let script = script.as_str();
    world.drop_file(
        "killed.json",
        &appending("killed", &["ship1"], &truth, script),
    );
    eventually("the command to start", || {
        (world.lines_of(&truth).len() == 1).then_some(())
    });
    agent.kill();
    std::fs::write(&cut, "").expect("a file");
    let _again = world.agent("ship1");
    let message = world.await_final("killed");
    assert_eq!(state_of(&message, "ship1"), "interrupted");
    assert_eq!(world.lines_of(&truth).len(), 1);
    let then = world.steward(&["run", "--to", "ship1", "--", "true"]);
    assert_eq!(code(then.status), 0, "the node works on: {then:?}");
}

#[test]
fn output_that_is_not_text_comes_back_byte_for_byte() {
    let world = World::new();
    let _station = world.station();
    let _agent = world.agent("ship1");
    world.await_online(&["ship1"]);
    world.drop_file(
        "bytes.json",
        &json!([{ "subject": "ship1.command.shellcommand.operatingsystem", "name": "bytes",
                  "data": ["printf", "\\377\\000\\033[31m\\n"] }])
        .to_string(),
    );
    let message = world.await_final("bytes");
    let id = message["id"].as_str().expect("an id");
    let output = world.steward(&["msg", "output", &id[..13], "ship1"]);
    assert_eq!(output.stdout, b"\xff\x00\x1b[31m\n");
    let shown = world.steward(&["msg", "show", id]);
    assert!(
        !shown.stdout.contains(&0x1b),
        "escape codes never reach a terminal raw"
    );
}

#[test]
fn what_cannot_start_is_failed_with_the_shells_codes() {
    let world = World::new();
    let _station = world.station();
    let _agent = world.agent("ship1");
    world.await_online(&["ship1"]);
    let plain = world.folder.path().join("plain");
    fs::write(&plain, "#!/bin/sh\n").expect("written");
    fs::set_permissions(&plain, fs::Permissions::from_mode(0o644)).expect("not executable");
    let plain = plain.display().to_string();
    let rows = [
        (json!({"data": ["no-such-program-here"]}), 127),
        (json!({"data": [plain]}), 126),
        (json!({"data": ["true"], "cwd": "/no/such/place"}), 126),
    ];
    for (index, (body, expected)) in rows.into_iter().enumerate() {
        let mut message = body;
        message["name"] = json!(format!("row {index}"));
        message["subject"] = json!("ship1.command.shellcommand.operatingsystem");
        world.drop_file(&format!("row{index}.json"), &message.to_string());
        let message = world.await_final(&format!("row {index}"));
        let delivery = delivery_to(&message, "ship1");
        assert_eq!(
            (delivery["state"].as_str(), &delivery["exit_code"]),
            (Some("failed"), &json!(expected))
        );
        assert!(delivery["reason"].is_string(), "{delivery}");
    }
}

#[test]
fn exit_codes_tell_what_happened() {
    let world = World::new();
    assert_eq!(code(world.steward(&["node", "ls"]).status), 6, "no station");
    let _station = world.station();
    let _agent = world.agent("ship1");
    world.await_online(&["ship1"]);
    let bad = world.folder.path().join("bad.json");
    fs::write(&bad, r#"[{"to": ["ship1"], "domian": "x"}]"#).expect("written");
    let bad = bad.display().to_string();
    for (arguments, expected) in [
        (&["run", "--to", "ship1", "--", "true"][..], 0),
        (&["run", "--to", "*", "--", "true"][..], 0),
        (&["run", "--to", "ship1", "--", "false"][..], 3),
        (
            &["run", "--to", "ghost", "--timeout", "300ms", "--", "true"][..],
            4,
        ),
        (&["run", "-l", "site=nowhere", "--", "true"][..], 5),
        (&["submit", &bad][..], 5),
        (&["run", "--to", "ship1"][..], 2),
        (&["no-such-verb"][..], 2),
        (&["msg", "show", "ffffffff"][..], 1),
        (&["status"][..], 0),
    ] {
        let output = world.steward(arguments);
        assert_eq!(code(output.status), expected, "{arguments:?}: {output:?}");
    }
}

#[test]
fn a_typo_in_the_case_of_a_name_locks_nobody_out() {
    let world = World::new();
    let _station = world.station();
    let typo = ["run", "--to", "Ship1", "--no-wait", "--", "true"];
    assert_eq!(
        code(world.steward(&typo).status),
        0,
        "kept for a node nobody has heard of"
    );
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
    let refused = world.steward(&typo);
    assert_eq!(code(refused.status), 5, "{refused:?}");
    assert!(
        String::from_utf8_lossy(&refused.stderr).contains("differs only in case"),
        "{refused:?}"
    );
    assert_eq!(
        code(
            world
                .steward(&["run", "--to", "central", "--", "true"])
                .status
        ),
        5
    );
}

#[test]
fn the_open_deliveries_are_bounded_and_what_exceeds_is_told() {
    let world = World::new();
    let config = world.folder.path().join("station.toml");
    fs::write(&config, "max_open_deliveries = 3\n").expect("written");
    let _station = world.station_with(&["--config", &config.display().to_string()]);
    let submit = |to: &str| {
        let output = world.steward(&["run", "--no-wait", "--to", to, "--", "true"]);
        (
            code(output.status),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    assert_eq!(submit("a1,a2").0, 0, "limit - 1");
    assert_eq!(submit("a3").0, 0, "at the limit");
    let (exit, text) = submit("a4");
    assert_eq!(exit, 1, "later it may fit: {text}");
    assert!(text.contains("wait until some are final"), "{text}");
    let (exit, text) = submit("b1,b2,b3,b4");
    assert_eq!(exit, 5, "it never fits: {text}");
    assert!(text.contains("max_open_deliveries"), "{text}");
}

#[test]
fn nodes_are_shown_with_their_presence_and_processes() {
    let world = World::new();
    let _station = world.station();
    let agent = world.agent_with("ship1", &["--label", "site=bergen"]);
    world.await_online(&["ship1"]);
    assert_eq!(
        code(
            world
                .steward(&["run", "-l", "site=bergen", "--", "true"])
                .status
        ),
        0
    );
    let processes = eventually("the process to be listed", || {
        let nodes = world.json(&["node", "ls", "-o", "json"]);
        let processes = nodes[0]["processes"].as_array()?.clone();
        processes
            .iter()
            .any(|process| process["subject"] == "ship1.command.shellcommand.operatingsystem")
            .then_some(processes)
    });
    assert!(
        processes.iter().all(|process| process["restarts"] == 0),
        "{processes:?}"
    );
    agent.signal(Signal::STOP);
    for state in ["late", "offline"] {
        eventually(&format!("the stopped agent to be {state}"), || {
            (world.json(&["node", "ls", "-o", "json"])[0]["state"] == state).then_some(())
        });
    }
    agent.signal(Signal::CONT);
    world.await_online(&["ship1"]);
    assert!(agent.pid() > 0);
    assert_eq!(code(agent.terminate()), 0);
    eventually("the agent that left to be offline", || {
        (world.json(&["node", "ls", "-o", "json"])[0]["state"] == "offline").then_some(())
    });
}
