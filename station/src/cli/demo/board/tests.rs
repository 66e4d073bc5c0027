//! Tests of how the demo's table is drawn.

use serde_json::json;

use super::*;
use crate::cli::render::{Paint, table::settle};

fn scene(nodes: usize) -> Scene {
    let names: Vec<String> = (1..=nodes).map(|n| format!("ship{n}")).collect();
    let deliveries: Vec<_> = names
        .iter()
        .map(|node| {
            json!({
                "node": node,
                "subject": format!("{node}.command.shellcommand.operatingsystem"),
                "state": if node == "ship2" { "failed" } else { "succeeded" },
                "since": "2026-11-21T08:00:00Z",
                "observed_by": node,
                "attempts": 1,
            })
        })
        .collect();
    let seen: Vec<_> = names
        .iter()
        .map(|node| {
            json!({
                "name": node, "state": "online", "since": "2026-11-21T08:00:00Z",
                "labels": {}, "open": 0, "processes": [],
            })
        })
        .collect();
    Scene {
        nodes: serde_json::from_value(json!(seen)).expect("nodes"),
        messages: serde_json::from_value(json!([{
            "id": "0190f000-0000-7000-8000-000000000001",
            "name": "demo: fails on one node",
            "source": "inbox:demo-fails-on-one-node.json",
            "submitted_by": "uid:0",
            "accepted_at": "2026-11-21T08:00:00Z",
            "expires_at": "2026-11-22T08:00:00Z",
            "version": 1,
            "deliveries": deliveries,
        }]))
        .expect("messages"),
        files: serde_json::from_value(json!([{
            "name": "demo-invalid.json", "place": "rejected", "since": "2026-11-21T08:00:00Z",
            "bytes": 1, "reason": null,
            "problems": [{"line": 3, "column": 5, "path": "/0/dta", "reason": "unknown field \"dta\"", "hint": "did you mean \"data\"?"}],
        }]))
        .expect("files"),
        events: Vec::new(),
    }
}

fn drawn(nodes: usize, width: usize) -> String {
    let lines: Vec<String> = board(&scene(nodes), width)
        .iter()
        .map(|line| settle(line, Paint::Plain))
        .collect();
    assert!(lines.iter().all(|line| line.chars().count() <= width));
    lines.join("\n")
}

#[test]
fn few_nodes_stand_side_by_side() {
    assert_eq!(
        drawn(3, 100),
        "\
MESSAGE                  ship1      ship2   ship3
                         online     online  online
demo: fails on one node  succeeded  failed  succeeded

rejected demo-invalid.json: line 3, column 5: unknown field \"dta\"; did you mean \"data\"?"
    );
}

#[test]
fn many_nodes_are_counted() {
    assert_eq!(
        drawn(100, 60),
        "\
MESSAGE                  NODES
                         100 online
demo: fails on one node  99 succeeded, 1 failed

rejected demo-invalid.json: line 3, column 5: unknown field…"
    );
}
