//! What the station makes of a broker's version, told by a broker that can be made to claim any.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
};

use crate::support::{Running, World, code, eventually};

/// Speaks just enough of the NATS client protocol to be connected to, and claims `version`.
fn broker_claiming(version: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || serve(stream, version));
        }
    });
    format!("nats://{address}")
}

fn serve(mut stream: TcpStream, version: &str) {
    let info = format!(
        "INFO {{\"server_id\":\"TEST\",\"server_name\":\"test\",\"version\":\"{version}\",\"go\":\"go1\",\"host\":\"127.0.0.1\",\"port\":4222,\"headers\":true,\"max_payload\":1048576,\"proto\":1,\"client_id\":1}}\r\n"
    );
    let Ok(reading) = stream.try_clone() else {
        return;
    };
    if stream.write_all(info.as_bytes()).is_err() {
        return;
    }
    for line in BufReader::new(reading).lines().map_while(Result::ok) {
        if line.starts_with("PING") && stream.write_all(b"PONG\r\n").is_err() {
            return;
        }
    }
}

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
