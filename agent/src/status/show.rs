//! A status for people: rows of what is known, and a table of the processes. Pure.

use std::{fmt::Display, time::Duration};

use jiff::Timestamp;
use steward_protocol::{MethodName, ProcessView};

use super::{BrokerView, StationView, StatusView, Usage};
use crate::syslog::board::LogsView;

/// Returns the page.
pub fn page(status: &StatusView) -> String {
    let mut rows = vec![
        ("node", status.node.to_string()),
        ("state", state(status)),
        ("since", time(status.since, status.at)),
        ("broker", broker(&status.broker, status.at)),
        ("station", station(&status.station, status.at)),
        (
            "version",
            format!("{}, process id {}", status.version, status.pid),
        ),
        ("instance", status.instance.to_string()),
    ];
    let commands = status.commands;
    rows.push((
        "commands",
        format!(
            "{} running, at most {} at once",
            commands.running, commands.at_once
        ),
    ));
    if !status.methods.is_empty() {
        let names: Vec<&str> = status.methods.iter().map(MethodName::as_str).collect();
        rows.push(("offers", names.join(", ")));
    }
    match &status.journal {
        Some(journal) => rows.extend([
            ("queue", usage(journal.queue)),
            ("unconfirmed", journal.unconfirmed.to_string()),
            ("results", format!("{} bytes", usage(journal.results))),
            ("events", usage(journal.events)),
            (
                "journal",
                format!("{}, opened {} times", journal.journal_id, journal.starts),
            ),
        ]),
        None => rows.push((
            "journal",
            "it does not answer; its disk may hang".to_owned(),
        )),
    }
    if !status.counters.is_empty() {
        let counters = status.counters.iter();
        let words: Vec<String> = counters
            .map(|(name, count)| format!("{name} {count}"))
            .collect();
        rows.push(("counters", words.join(", ")));
    }
    if let Some(logs) = &status.logs {
        rows.extend(self::logs(logs));
    }
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let mut page: String = rows
        .iter()
        .map(|(name, text)| format!("{name:width$}  {}\n", escape(text)))
        .collect();
    page.push('\n');
    page += &processes(&status.processes, status.at);
    page
}

fn logs(logs: &LogsView) -> Vec<(&'static str, String)> {
    let inputs = logs.inputs.iter().map(|(name, input)| {
        let mut text = format!("{name}: {} messages", input.messages);
        for (number, words) in [
            (input.files, "files"),
            (input.behind, "bytes to be read"),
            (input.connections, "connections"),
            (input.turned_away, "connections turned away"),
            (input.kernel_drops, "dropped by the kernel"),
            (input.refused, "refused for want of room"),
            (input.dropped, "dropped by rules"),
            (input.cut, "cut"),
            (input.out_of_step, "out of step"),
        ] {
            if number > 0 {
                text += &format!(", {number} {words}");
            }
        }
        if let Some(trouble) = &input.trouble {
            text += &format!("; does not work: {trouble}");
        }
        ("logs from", text)
    });
    let domains = logs.domains.iter().map(|(name, domain)| {
        let mut text = format!("{name}: {} of {} bytes", domain.used, domain.share);
        for (number, words) in [
            (domain.dropped, "dropped"),
            (domain.damaged, "damaged places"),
        ] {
            if number > 0 {
                text += &format!(", {number} {words}");
            }
        }
        if let Some(stuck) = &domain.stuck {
            text += &format!("; takes nothing: {stuck}");
        }
        ("logs of", text)
    });
    inputs.chain(domains).collect()
}

fn state(status: &StatusView) -> String {
    let state = match (status.broker.connected, status.station.welcomed) {
        _ if status.stopping => "stopping",
        (true, true) => "running, connected and welcomed",
        (true, false) => "running and connected, but not welcomed by the station",
        (false, _) => "running, but not connected to the broker",
    };
    state.to_owned()
}

fn broker(broker: &BrokerView, now: Timestamp) -> String {
    let state = match (&broker.refused, broker.connected) {
        (Some(sentence), _) => return format!("{}, not used: {sentence}", broker.url),
        (None, true) => "connected",
        (None, false) => "not connected",
    };
    format!("{}, {state} since {}", broker.url, time(broker.since, now))
}

fn station(station: &StationView, now: Timestamp) -> String {
    let mut text = station.name.to_string();
    match (station.ledger_id, station.epoch) {
        (Some(ledger_id), Some(epoch)) => text += &format!(", ledger {ledger_id}, epoch {epoch}"),
        (_, _) => text += ", has not welcomed this start",
    }
    if let Some(at) = station.last_hello {
        text += &format!(", last hello {}", time(at, now));
    }
    if let Some(micros) = station.round_trip_us {
        text += &format!(", round trip {micros} µs");
    }
    text
}

fn usage(usage: Usage) -> String {
    format!("{} of {}", usage.used, usage.most)
}

const TITLES: [&str; 7] = [
    "PROCESS",
    "STATE",
    "SINCE",
    "QUEUED",
    "HANDLED",
    "RESTARTS",
    "LAST FAULT",
];

fn processes(processes: &[ProcessView], now: Timestamp) -> String {
    let mut rows = vec![TITLES.map(str::to_owned)];
    rows.extend(processes.iter().map(|process| {
        [
            process.subject.to_string(),
            process.state.as_str().to_owned(),
            time(process.since, now),
            process.queued.to_string(),
            process.handled.to_string(),
            process.restarts.to_string(),
            escape(process.last_fault.as_deref().unwrap_or("-")),
        ]
    }));
    let widths: Vec<usize> = (0..TITLES.len())
        .map(|column| {
            rows.iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        })
        .collect();
    let line = |row: &[String; 7]| {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        format!("{}\n", cells.join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

/// Returns a time and how long ago that is.
fn time(at: Timestamp, now: Timestamp) -> String {
    let age = now.duration_since(at).as_secs();
    let age = Duration::from_secs(u64::try_from(age).unwrap_or(0));
    let shown: Box<dyn Display> = Box::new(humantime::format_duration(age));
    format!("{:.0} ({shown} ago)", at)
}

/// Escapes what could act on a terminal: control characters, and those that turn the writing direction.
fn escape(text: &str) -> String {
    let is_unsafe = |character: char| {
        character.is_control()
            || matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        if is_unsafe(character) {
            escaped.extend(character.escape_default());
        } else {
            escaped.push(character);
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn status() -> StatusView {
        let status = json!({
            "node": "ship1", "instance": "00000000-0000-4000-8000-000000000001", "pid": 7,
            "version": "1.2.3", "since": "2026-11-21T08:00:00Z", "at": "2026-11-21T08:05:00Z",
            "stopping": false,
            "broker": {"url": "127.0.0.1:4222", "connected": true, "since": "2026-11-21T08:00:01Z"},
            "station": {
                "name": "central", "welcomed": true, "epoch": 3,
                "ledger_id": "00000000-0000-4000-8000-000000000002",
                "last_hello": "2026-11-21T08:04:55Z", "round_trip_us": 480
            },
            "journal": {
                "journal_id": "00000000-0000-4000-8000-000000000003", "starts": 2,
                "started": {"used": 1, "most": 4}, "queue": {"used": 5, "most": 100},
                "unconfirmed": 1, "events": {"used": 0, "most": 1000},
                "results": {"used": 10, "most": 67108864}
            },
            "commands": {"running": 1, "at_once": 4},
            "methods": ["hello", "ping"],
            "counters": {"reconnects": 1},
            "processes": [{
                "subject": "ship1.command.shellcommand.nginx", "state": "stopped",
                "since": "2026-11-21T08:01:00Z", "restarts": 5, "queued": 5, "handled": 12,
                "last_fault": "bro\u{1b}[31mken"
            }]
        });
        serde_json::from_value(status).expect("a status")
    }

    #[test]
    fn a_status_is_told_in_rows_and_a_table() {
        let expected = "\
node         ship1
state        running, connected and welcomed
since        2026-11-21T08:00:00Z (5m ago)
broker       127.0.0.1:4222, connected since 2026-11-21T08:00:01Z (4m 59s ago)
station      central, ledger 00000000-0000-4000-8000-000000000002, epoch 3, last hello 2026-11-21T08:04:55Z (5s ago), round trip 480 µs
version      1.2.3, process id 7
instance     00000000-0000-4000-8000-000000000001
commands     1 running, at most 4 at once
offers       hello, ping
queue        5 of 100
unconfirmed  1
results      10 of 67108864 bytes
events       0 of 1000
journal      00000000-0000-4000-8000-000000000003, opened 2 times
counters     reconnects 1

PROCESS                           STATE    SINCE                          QUEUED  HANDLED  RESTARTS  LAST FAULT
ship1.command.shellcommand.nginx  stopped  2026-11-21T08:01:00Z (4m ago)  5       12       5         bro\\u{1b}[31mken
";
        assert_eq!(page(&status()), expected);
    }

    #[test]
    fn what_is_not_well_is_said() {
        let mut status = status();
        status.station.welcomed = false;
        assert!(page(&status).contains("but not welcomed by the station"));
        status.broker.connected = false;
        status.journal = None;
        let text = page(&status);
        assert!(text.contains("but not connected to the broker"), "{text}");
        assert!(text.contains("does not answer"), "{text}");
        status.stopping = true;
        assert!(
            page(&status).contains("state         stopping")
                || page(&status).contains("stopping\n")
        );
    }
}
