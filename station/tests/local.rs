//! What nodes give themselves, and what is written below `results/`: with real agents, over kills of
//! both ends.

use std::{fs, path::PathBuf};

use serde_json::{Value, json};

use crate::support::{World, delivery_to, eventually, state_of};

fn results(world: &World, path: &str) -> PathBuf {
    world.state_dir().join("results").join(path)
}

/// Returns the messages that came from `source`, oldest first.
fn from(world: &World, source: &str) -> Vec<Value> {
    let list = world.json(&["msg", "ls", "-o", "json", "--limit", "0"]);
    let list = list.as_array().cloned().unwrap_or_default();
    let found = list
        .into_iter()
        .rev()
        .filter(|message| message["source"] == source);
    found.collect()
}

fn set_schedule(name: &str, script: &str) -> String {
    json!([{ "to": ["ship1"], "method": "schedule", "domain": "operatingsystem", "name": name,
             "schedule": name, "every": "1s",
             "run": { "method": "shellcommand", "domain": "operatingsystem", "data": ["sh", "-c", script] } }])
    .to_string()
}

#[test]
fn a_schedule_runs_while_the_station_is_away_and_each_run_is_reported_once() {
    let world = World::new();
    let station = world.station();
    let _agent = world.agent("ship1");
    world.await_online(&["ship1"]);
    let truth = world.folder.path().join("truth");
    let script = format!("echo $STEWARD_MESSAGE_ID >> {}; echo done", truth.display());
    world.drop_file("beat.json", &set_schedule("beat", &script));
    let set = world.await_final("beat");
    assert_eq!(state_of(&set, "ship1"), "succeeded", "{set}");
    station.kill();
    let before = world.lines_of(&truth).len();
    eventually("three runs without a station", || {
        (world.lines_of(&truth).len() >= before + 3).then_some(())
    });
    let station = world.station();
    let ran = world.lines_of(&truth);
    let id = |message: &Value| message["id"].as_str().expect("an id").to_owned();
    eventually("a message for every run", || {
        let told: Vec<String> = from(&world, "schedule:beat").iter().map(id).collect();
        ran.iter().all(|run| told.contains(run)).then_some(())
    });
    let told: Vec<String> = from(&world, "schedule:beat").iter().map(id).collect();
    for run in &ran {
        assert_eq!(told.iter().filter(|id| *id == run).count(), 1, "{run}");
    }
    let message = world.json(&["msg", "show", &ran[0], "-o", "json"]);
    assert_eq!(message["source"], "schedule:beat");
    assert_eq!(message["submitted_by"], "node:ship1");
    let deliveries = message["deliveries"].as_array().expect("deliveries");
    assert_eq!(deliveries.len(), 1);
    let delivery = delivery_to(&message, "ship1");
    assert_eq!(
        (&delivery["state"], &delivery["exit_code"]),
        (&json!("succeeded"), &json!(0))
    );
    assert_eq!(delivery["stdout"]["text"], "done\n");
    assert_eq!(delivery["observed_by"], "ship1");
    drop(station);
}

#[test]
fn every_line_of_text_is_in_the_log_once_and_in_order_over_kills_of_both_ends() {
    let world = World::new();
    let mut station = world.station();
    let mut agent = world.agent("ship1");
    world.await_online(&["ship1"]);
    let mut expected = Vec::new();
    for message in 0..100 {
        let lines: Vec<String> = (0..10)
            .map(|line| format!("line {}", message * 10 + line))
            .collect();
        expected.extend(lines.clone());
        let file = json!([{ "subject": "ship1.event.textlogging.app", "data": lines }]);
        world.drop_file(&format!("text-{message:03}.json"), &file.to_string());
        // The inbox takes the files of one moment in any order.
        eventually("the file to be taken", || {
            let taken = world.inbox().join(format!("text-{message:03}.json"));
            (!taken.exists()).then_some(())
        });
        match message {
            15 | 55 => {
                agent.kill();
                agent = world.agent("ship1");
            }
            35 | 75 => {
                station.kill();
                station = world.station();
            }
            _ => {}
        }
    }
    let log = results(&world, "textlogging/ship1/app.log");
    eventually("every line", || {
        (world.lines_of(&log).len() >= expected.len()).then_some(())
    });
    station.kill();
    let station = world.station();
    assert_eq!(world.lines_of(&log), expected);
    drop((station, agent));
}

fn replying(name: &str, reply: &Value, text: &str) -> String {
    json!([{ "to": ["ship1"], "method": "shellcommand", "domain": "os", "name": name,
             "data": ["printf", "%s", text], "reply": reply }])
    .to_string()
}

#[test]
fn a_result_goes_to_the_file_its_message_names() {
    let world = World::new();
    let station = world.station();
    let _agent = world.agent("ship1");
    world.await_online(&["ship1"]);
    let file = json!({ "to": "file", "directory": "reports", "file_name": "disk.txt" });
    let written = |path: &str, text: &str| {
        eventually(&format!("{path} to be {text:?}"), || {
            let found = fs::read_to_string(results(&world, path)).unwrap_or_default();
            (found == text).then_some(())
        });
    };
    world.drop_file("a.json", &replying("a", &file, "first, and longer\n"));
    written("reports/ship1/disk.txt", "first, and longer\n");
    world.drop_file("b.json", &replying("b", &file, "second\n"));
    written("reports/ship1/disk.txt", "second\n");
    world.drop_file("c.json", &replying("c", &json!({ "to": "file" }), "by id"));
    let id = world.await_final("c")["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    written(&format!("os/ship1/{id}"), "by id");
    world.drop_file(
        "d.json",
        &replying("d", &json!({ "to": "none" }), "nowhere"),
    );
    world.await_final("d");
    let append = json!({ "to": "append", "directory": "reports", "file_name": "all.log" });
    let mut expected = String::new();
    let mut station = station;
    for number in 0..20 {
        let line = format!("{number}\n");
        expected.push_str(&line);
        world.drop_file(
            &format!("e{number}.json"),
            &replying(&format!("e{number}"), &append, &line),
        );
        if number % 5 == 2 {
            station.kill();
            station = world.station();
        }
        world.await_final(&format!("e{number}"));
    }
    station.kill();
    let _station = world.station();
    eventually("all lines", || {
        let found = world.lines_of(&results(&world, "reports/ship1/all.log"));
        (found.len() >= 20).then_some(())
    });
    let found = fs::read_to_string(results(&world, "reports/ship1/all.log")).expect("there");
    assert_eq!(found, expected);
    let names: Vec<_> = fs::read_dir(results(&world, "os/ship1"))
        .expect("there")
        .collect();
    assert_eq!(names.len(), 1, "{names:?}");
}

#[test]
fn a_result_never_leaves_its_directory_and_what_is_in_the_way_is_told() {
    let world = World::new();
    let _station = world.station();
    let _agent = world.agent("ship1");
    world.await_online(&["ship1"]);
    let outside = world.folder.path().join("outside");
    fs::create_dir(&outside).expect("a directory");
    fs::create_dir_all(results(&world, "")).expect("a directory");
    std::os::unix::fs::symlink(&outside, results(&world, "way")).expect("a link");
    let reply = json!({ "to": "file", "directory": "way", "file_name": "x" });
    world.drop_file("a.json", &replying("a", &reply, "secret"));
    world.await_final("a");
    let id = world.message_called("a").expect("an id");
    let noted = |wanted: &str| {
        eventually(&format!("a note with {wanted:?}"), || {
            let message = world.json(&["msg", "show", &id, "-o", "json"]);
            let notes = delivery_to(&message, "ship1")["notes"].as_array()?.clone();
            let has = |note: &Value| {
                note["text"]
                    .as_str()
                    .is_some_and(|text| text.contains(wanted))
            };
            notes.iter().any(has).then_some(())
        });
    };
    noted("is a link or no directory");
    assert_eq!(fs::read_dir(&outside).expect("there").count(), 0);
    // Out of the way, it is written after all.
    fs::remove_file(results(&world, "way")).expect("removed");
    eventually("the result", || {
        results(&world, "way/ship1/x").exists().then_some(())
    });
    noted("written after all");
    for (number, bad) in ["../x", "/etc", "a/../../b"].into_iter().enumerate() {
        let reply = json!({ "to": "file", "directory": bad });
        world.drop_file(&format!("bad{number}.json"), &replying("bad", &reply, "x"));
        let refused = world
            .inbox()
            .join(format!(".rejected/bad{number}.json.error.txt"));
        eventually(&format!("the file with {bad:?} to be refused"), || {
            refused.exists().then_some(())
        });
    }
}
