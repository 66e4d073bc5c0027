//! What a node gives itself: schedules, what runs at every start, and text for the station's log.

use std::{collections::BTreeSet, fs, path::Path, time::Instant};

use jiff::Timestamp;
use serde_json::{Value, json};
use steward_protocol::{MessageId, ReportEvent, State};

use crate::support::{DEADLINE, Field, Request, Station, eventually, lines};

fn schedule(body: Value) -> Request {
    Request::body("ship1.command.schedule.operatingsystem", body)
}

/// A schedule that appends its message's id to a file every second.
fn appending(name: &str, file: &Path) -> Request {
    let script = format!("echo $STEWARD_MESSAGE_ID >> {}; sync {0}", file.display());
    schedule(json!({ "schedule": name, "every": "1s",
        "run": { "method": "shellcommand", "domain": "operatingsystem", "data": ["sh", "-c", script] } }))
}

fn ran(file: &Path) -> Vec<String> {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

async fn reports(station: &Station, least: usize, source: &str) -> Vec<ReportEvent> {
    eventually(&format!("{least} reports of {source}"), || {
        let world = station.world();
        let found = world
            .reports
            .iter()
            .filter(|report| report.source == source);
        let found: Vec<ReportEvent> = found.cloned().collect();
        (found.len() >= least).then_some(found)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_runs_on_its_own_and_each_run_is_reported_once() {
    let field = Field::new();
    let (_agent, station) = field.pair("ship1").await;
    let file = field.path("ran");
    let sent = station.send(appending("beat", &file)).await;
    assert_eq!(station.over(&sent).await.state, State::Succeeded);
    let found = reports(&station, 2, "schedule:beat").await;
    for report in &found {
        assert_eq!(report.ack.state, State::Succeeded, "{report:?}");
        assert_eq!(report.id.0, report.ack.id.0);
        assert!(ran(&file).contains(&report.ack.id.to_string()));
        assert!(
            report
                .order
                .get()
                .contains("\"submitted_by\":\"node:ship1\"")
        );
    }
    let list = station.send(schedule(json!({ "action": "list" }))).await;
    let ack = station.over(&list).await;
    let stdout = ack
        .outcome
        .and_then(|outcome| outcome.stdout)
        .expect("output");
    let list: Value = serde_json::from_slice(&stdout.head).expect("JSON");
    assert_eq!(
        (&list[0]["schedule"], &list[0]["every"]),
        (&json!("beat"), &json!("1s"))
    );
    assert!(list[0]["runs"].as_u64() >= Some(2), "{list}");
    let next: Timestamp = serde_json::from_value(list[0]["next_run"].clone()).expect("a time");
    assert!(next > found[0].at);
    let remove = json!({ "action": "remove", "schedule": "beat" });
    let removed = station.send(schedule(remove.clone())).await;
    assert_eq!(station.over(&removed).await.state, State::Succeeded);
    let again = station.send(schedule(remove)).await;
    assert_eq!(station.over(&again).await.state, State::Failed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_goes_on_without_a_broker_and_over_a_restart() {
    let mut field = Field::new();
    let (mut agent, station) = field.pair("ship1").await;
    let file = field.path("ran");
    let sent = station.send(appending("beat", &file)).await;
    station.over(&sent).await;
    field.cut();
    let before = lines(&file);
    eventually("runs without a broker", || {
        (lines(&file) >= before + 2).then_some(())
    })
    .await;
    agent.kill();
    let before = lines(&file);
    let _agent = field.agent("ship1").start();
    eventually("runs after a restart", || {
        (lines(&file) >= before + 2).then_some(())
    })
    .await;
    field.heal();
    let expected: BTreeSet<String> = ran(&file).into_iter().collect();
    eventually("a report of every run", || {
        let world = station.world();
        let told: BTreeSet<String> = world
            .reports
            .iter()
            .map(|report| report.ack.id.to_string())
            .collect();
        expected.is_subset(&told).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_never_overlaps_itself() {
    let field = Field::new();
    let (_agent, station) = field.pair("ship1").await;
    let gate = field.path("gate");
    let file = field.path("ran");
    let script = format!(
        "echo x >> {}; until [ -e {} ]; do sleep 0.05; done",
        file.display(),
        gate.display()
    );
    let body = json!({ "schedule": "slow", "every": "1s",
        "run": { "method": "shellcommand", "domain": "operatingsystem", "data": ["sh", "-c", script] } });
    let sent = station.send(schedule(body)).await;
    station.over(&sent).await;
    let skipped = |ack: steward_protocol::Ack| -> u64 {
        let stdout = ack
            .outcome
            .and_then(|outcome| outcome.stdout)
            .expect("output");
        let list: Value = serde_json::from_slice(&stdout.head).expect("JSON");
        list[0]["skipped"].as_u64().expect("a number")
    };
    let deadline = Instant::now() + DEADLINE;
    loop {
        let list = station.send(schedule(json!({ "action": "list" }))).await;
        if skipped(station.over(&list).await) >= 2 {
            break;
        }
        assert!(
            Instant::now() < deadline,
            "in vain awaited: two skipped runs"
        );
    }
    assert_eq!(lines(&file), 1);
    fs::write(&gate, "").expect("the gate opens");
    reports(&station, 1, "schedule:slow").await;
}

fn startup(field: &Field, name: &str, text: &str) {
    let dir = field.path("ship1").join("startup");
    fs::create_dir_all(&dir).expect("a directory");
    fs::write(dir.join(name), text).expect("a file");
}

#[tokio::test(flavor = "multi_thread")]
async fn startup_files_run_at_every_start_in_order_and_a_bad_one_is_told() {
    let field = Field::new();
    let file = field.path("ran");
    let write = |what: &str| {
        json!([{ "method": "shellcommand", "domain": "operatingsystem", "name": what,
            "data": ["sh", "-c", format!("echo {what} >> {}", file.display())] }])
        .to_string()
    };
    startup(&field, "20-second.json", &write("second"));
    startup(&field, "10-first.json", &write("first"));
    startup(
        &field,
        "15-bad.json",
        r#"{"method":"shellcommand","domain":"os","data":["true"],"tiemout":"1s"}"#,
    );
    startup(
        &field,
        "30-other.json",
        r#"{"subject":"ship1.command.shellcommand.secret","data":["true"]}"#,
    );
    let station = field.station().await;
    let config = field.path("agent.toml");
    for start in 1..=2 {
        let agent = field
            .agent("ship1")
            .config(&config, "domains = [\"operatingsystem\"]\n");
        let mut agent = agent.start();
        eventually("both to run", || (lines(&file) >= 2 * start).then_some(())).await;
        let refused = reports(&station, start, "startup:30-other.json").await;
        assert_eq!(refused[0].ack.state, State::Rejected);
        reports(&station, start, "startup:20-second.json").await;
        eventually("the fault of the bad file", || {
            let world = station.world();
            let faults = world.faults.iter();
            let told = faults.filter(|fault| fault.kind == "startup file");
            let told: BTreeSet<String> = told
                .filter(|fault| fault.detail.contains("15-bad.json: tiemout:"))
                .map(|fault| fault.id.to_string())
                .collect();
            (told.len() >= start).then_some(())
        })
        .await;
        agent.kill();
    }
    assert_eq!(ran(&file), ["first", "second", "first", "second"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn startup_needs_no_station() {
    let mut field = Field::new();
    field.cut();
    let file = field.path("ran");
    let run = json!({ "method": "shellcommand", "domain": "os",
        "data": ["sh", "-c", format!("echo x >> {}", file.display())] });
    startup(&field, "a.json", &run.to_string());
    let _agent = field.agent("ship1").start();
    eventually("it to run", || (lines(&file) == 1).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_whenever_no_run_runs_twice_and_each_is_told_truly() {
    let field = Field::new();
    let (mut agent, station) = field.pair("ship1").await;
    let file = field.path("ran");
    for name in ["one", "two", "three"] {
        let sent = station.send(appending(name, &file)).await;
        station.over(&sent).await;
    }
    for kill in 0..8_usize {
        // At another place of a run each time: some end as the file grows, some a while after.
        let before = lines(&file);
        eventually("another run", || (lines(&file) > before).then_some(())).await;
        let wait = std::time::Duration::from_millis(37 * kill as u64 % 101);
        let until = Instant::now() + wait;
        eventually("a moment in its run", || {
            (Instant::now() >= until).then_some(())
        })
        .await;
        agent.kill();
        agent = field.agent("ship1").start();
    }
    let expected: BTreeSet<String> = ran(&file).into_iter().collect();
    assert_eq!(expected.len(), lines(&file), "no run ran twice");
    eventually("a report of every run", || {
        let world = station.world();
        let told: BTreeSet<String> = world
            .reports
            .iter()
            .map(|report| report.ack.id.to_string())
            .collect();
        expected.is_subset(&told).then_some(())
    })
    .await;
    let ids: BTreeSet<String> = ran(&file).into_iter().collect();
    let world = station.world();
    for report in &world.reports {
        let did_run = ids.contains(&report.ack.id.to_string());
        match report.ack.state {
            State::Succeeded => assert!(did_run, "{report:?}"),
            State::Interrupted => {}
            _ => panic!("{report:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_text_arrives_once_whenever_the_agent_is_killed() {
    let field = Field::new();
    let (mut agent, station) = field.pair("ship1").await;
    let mut sent = Vec::new();
    for number in 0..40 {
        let kind = if number % 2 == 0 { "command" } else { "event" };
        let subject = format!("ship1.{kind}.textlogging.app");
        let body = json!({ "data": [format!("line {number}")] });
        sent.push(
            station
                .send(Request::body(&subject, body).unordered())
                .await,
        );
        if number % 10 == 5 {
            let old = station.met("ship1").await;
            agent.kill();
            // What an earlier start said must not be taken for the next one's hello.
            station.world().hellos.clear();
            agent = field.agent("ship1").start();
            station.met_again("ship1", old).await;
            for sent in &sent {
                station.resend(sent).await;
            }
        }
    }
    for sent in &sent {
        station.resend(sent).await;
        assert_eq!(station.over(sent).await.state, State::Succeeded);
    }
    let ids: BTreeSet<MessageId> = sent.iter().map(|sent| sent.id).collect();
    eventually("every text", || {
        (station.world().texts.len() >= 40).then_some(())
    })
    .await;
    let world = station.world();
    let orders: Vec<MessageId> = world.texts.iter().filter_map(|text| text.order).collect();
    assert_eq!(orders.len(), 40, "each once");
    assert_eq!(orders.into_iter().collect::<BTreeSet<_>>(), ids);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_is_refused_beyond_the_most_a_node_has() {
    let field = Field::new();
    let (_agent, station) = field.pair("ship1").await;
    let one = |number: usize| {
        schedule(
            json!({ "schedule": format!("s{number}"), "cron": "0 4 * * *",
            "run": { "method": "ping", "domain": "os" } }),
        )
    };
    for number in 0..64 {
        let sent = station.send(one(number)).await;
        assert_eq!(
            station.over(&sent).await.state,
            State::Succeeded,
            "{number}"
        );
    }
    let sent = station.send(one(64)).await;
    let ack = station.over(&sent).await;
    assert_eq!(ack.state, State::Failed);
    assert!(ack.reason.expect("a reason").contains("64 schedules"));
    let bad = schedule(json!({ "schedule": "x", "cron": "61 * * * *",
        "run": { "method": "ping", "domain": "os" } }));
    let sent = station.send(bad).await;
    let ack = station.over(&sent).await;
    assert_eq!(ack.state, State::Rejected);
    assert!(
        ack.reason
            .expect("a reason")
            .contains("cron: \"61\" is no minute")
    );
}
