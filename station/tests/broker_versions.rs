//! What the station makes of a broker's version, told by a broker that can be made to claim any.

use std::fs::{self, File};

use crate::{
    claiming::broker_claiming,
    support::{Running, World, code, eventually},
};

/// Starts a station with a broker of this version; returns its status and what it logged.
fn station_with(version: &'static str, awaited: &str) -> (serde_json::Value, String) {
    let mut world = World::without_broker();
    world.url = broker_claiming(version);
    let log = world.folder.path().join("log");
    let mut command = world.serve_command(&[]);
    command.stderr(File::create(&log).expect("a file"));
    let (station, _) = Running::start(command);
    let text = eventually(&format!("the station to log {awaited:?}"), || {
        Some(fs::read_to_string(&log).ok()?).filter(|text| text.contains(awaited))
    });
    let status = world.json(&["status", "-o", "json"]);
    assert_eq!(code(station.terminate()), 0);
    (status, text)
}

#[test]
fn a_broker_older_than_2_9_is_refused_and_the_status_says_why() {
    let (status, _) = station_with("2.8.4", "older than 2.9");
    assert_eq!(status["ready"], false);
    assert_eq!(status["broker"]["connected"], false);
    let reason = status["broker"]["reason"].as_str().unwrap_or_default();
    assert!(
        reason.contains("2.8.4") && reason.contains("upgrade"),
        "{reason}"
    );
}

#[test]
fn a_broker_with_known_holes_is_used_with_a_warning() {
    let (status, log) = station_with("2.10.26", "permission holes");
    assert_eq!(status["broker"]["connected"], true);
    assert_eq!(
        log.matches("permission holes").count(),
        1,
        "said once: {log}"
    );
}
