//! Faults of a real agent: what the watchdog leaves alone, and how it ends when told to escalate.

use rustix::process::{Resource, Rlimit, prlimit};
use serde_json::json;
use steward_protocol::State;

use crate::support::{Field, Request, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn slow_commands_and_idle_processes_are_not_taken_for_wedged_ones() {
    let field = Field::new();
    let station = field.station().await;
    let config = field.path("agent.toml");
    // The shortest there is.
    let _agent = field
        .agent("ship1")
        .config(&config, "wedged_after = \"1s\"\n")
        .start();
    station.met("ship1").await;
    let idle = Request::body("ship1.command.shellcommand.idle", json!({"data": ["true"]}));
    station.over(&station.send(idle).await).await;
    let slow = Request::new("ship1", &["sleep", "4"]);
    let sent = station.send(slow).await;
    assert_eq!(station.over(&sent).await.state, State::Succeeded);
    station.world().hellos.clear();
    let restarts = station
        .hello("a hello after it", |_, hello| {
            let processes = hello.processes.iter();
            Some(processes.map(|process| process.restarts).sum::<u32>())
        })
        .await;
    assert_eq!(restarts, 0);
    assert_eq!(station.world().faults, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_told_to_ends_after_a_fault_and_reports_it_once_it_is_back() {
    let field = Field::new();
    let station = field.station().await;
    let config = field.path("agent.toml");
    let text = "[restart.not_startable]\nintensity = 0\ngive_up = \"escalate\"\n";
    let mut agent = field.agent("ship1").config(&config, text).start();
    station.met("ship1").await;
    let none = Rlimit {
        current: Some(3),
        maximum: Some(1024),
    };
    prlimit(Some(agent.pid()), Resource::Nofile, none).expect("it is ours to limit");
    let sent = station.send(Request::new("ship1", &["true"])).await;
    assert_eq!(agent.wait().code(), Some(1));
    let log = agent.log();
    assert!(
        log.contains("failed to go on after a fault: not_startable"),
        "{log}"
    );

    let _agent = field.agent("ship1").config(&config, text).start();
    eventually("the fault", || station.world().faults.first().cloned()).await;
    let over = station.over(&sent).await;
    assert_ne!(over.state, State::Succeeded, "it never ran");
    station.settled("ship1").await;
    let faults = station.world().faults.clone();
    let mut ids: Vec<_> = faults.iter().map(|fault| fault.id).collect();
    ids.dedup();
    assert_eq!(ids.len(), 1, "{faults:?}");
    assert_eq!(faults[0].verdict, "end the agent");
}
