//! `steward node …`: nodes and what is believed of them.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Result;
use clap::Subcommand;
use steward_protocol::{Budget, Facts, MethodName, NodeName, ProcessView};

use super::{
    Exit, Session,
    render::{
        Format, Listing, Screen, emit,
        table::{Cell, Column, Show},
        text::{escape, fields, time_and_age},
    },
};
use crate::view::{FaultView, NodeView};

/// What can be asked about nodes.
#[derive(Debug, Subcommand)]
pub(super) enum NodeVerb {
    /// List nodes
    Ls,
    /// Show one node and everything believed of it
    Show {
        /// The node
        name: NodeName,
    },
}

const LISTING: Listing<NodeView> = Listing {
    columns: &[
        Column {
            title: "NODE",
            show: Show::Always,
            cell: |node| Cell::text(&node.name),
        },
        Column {
            title: "STATE",
            show: Show::Always,
            cell: |node| Cell::presence(node.state),
        },
        Column {
            title: "SINCE",
            show: Show::Always,
            cell: |node| Cell::Time(node.since),
        },
        Column {
            title: "LAST SEEN",
            show: Show::Always,
            cell: |node| Cell::time(node.last_seen),
        },
        Column {
            title: "OPEN",
            show: Show::Always,
            cell: |node| Cell::number(node.open),
        },
        Column {
            title: "VERSION",
            show: Show::Always,
            cell: |node| Cell::maybe(node.version.as_deref()),
        },
        Column {
            title: "NOTE",
            show: Show::Always,
            cell: |node| Cell::maybe(node.conflict.as_deref().or(node.reason.as_deref())),
        },
        Column {
            title: "LABELS",
            show: Show::Wide,
            cell: |node| Cell::text(labels(node)),
        },
        Column {
            title: "INSTANCE",
            show: Show::Wide,
            cell: |node| Cell::maybe(node.instance),
        },
        Column {
            title: "SKEW_MS",
            show: Show::Wide,
            cell: |node| Cell::maybe(node.skew_ms),
        },
        Column {
            title: "ROUND_TRIP_US",
            show: Show::Wide,
            cell: |node| Cell::maybe(node.round_trip_us),
        },
        Column {
            title: "PROCESSES",
            show: Show::Wide,
            cell: |node| Cell::number(node.processes.len() as u64),
        },
        Column {
            title: "FAULTS",
            show: Show::Wide,
            cell: |node| Cell::number(node.fault_count),
        },
    ],
    name: |node| node.name.to_string(),
    empty: "no node has been heard of",
};

const PROCESSES: &[Column<ProcessView>] = &[
    Column {
        title: "PROCESS",
        show: Show::Always,
        cell: |process| Cell::text(&process.subject),
    },
    Column {
        title: "STATE",
        show: Show::Always,
        cell: |process| Cell::text(process.state.as_str()),
    },
    Column {
        title: "SINCE",
        show: Show::Always,
        cell: |process| Cell::Time(process.since),
    },
    Column {
        title: "RESTARTS",
        show: Show::Always,
        cell: |process| Cell::number(process.restarts),
    },
    Column {
        title: "QUEUED",
        show: Show::Always,
        cell: |process| Cell::number(process.queued),
    },
    Column {
        title: "HANDLED",
        show: Show::Always,
        cell: |process| Cell::number(process.handled),
    },
    Column {
        title: "LAST FAULT",
        show: Show::Always,
        cell: |process| Cell::maybe(process.last_fault.as_deref()),
    },
];

const FAULTS: &[Column<FaultView>] = &[
    Column {
        title: "FAULT",
        show: Show::Always,
        cell: |fault| Cell::text(&fault.kind),
    },
    Column {
        title: "TIME",
        show: Show::Always,
        cell: |fault| Cell::Time(fault.at),
    },
    Column {
        title: "PROCESS",
        show: Show::Always,
        cell: |fault| Cell::maybe(fault.subject.as_deref()),
    },
    Column {
        title: "VERDICT",
        show: Show::Always,
        cell: |fault| Cell::text(&fault.verdict),
    },
    Column {
        title: "DETAIL",
        show: Show::Always,
        cell: |fault| Cell::text(&fault.detail),
    },
];

pub(super) async fn node(session: &Session, verb: NodeVerb) -> Result<Exit> {
    let screen = &session.screen;
    match verb {
        NodeVerb::Ls => {
            let nodes: Vec<NodeView> = session.client.get("/nodes").await?;
            screen.list(&LISTING, &nodes)?;
        }
        NodeVerb::Show { name } => {
            let node: NodeView = session.client.get(&format!("/nodes/{name}")).await?;
            match screen.format {
                Format::Json | Format::Jsonl => screen.json(&node)?,
                Format::Csv | Format::Name => screen.list(&LISTING, &[node])?,
                Format::Table | Format::Wide => emit(&page(screen, &node))?,
            }
        }
    }
    Ok(Exit::Success)
}

fn labels(node: &NodeView) -> String {
    node.labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect::<Vec<_>>()
        .join(",")
}

fn page(screen: &Screen, node: &NodeView) -> String {
    let text = |text: Option<&str>| text.map_or_else(|| "-".to_owned(), escape);
    let mut rows = vec![
        ("node", node.name.to_string()),
        (
            "state",
            format!(
                "{} since {}",
                screen.cell(&Cell::presence(node.state)),
                time_and_age(node.since, screen.now)
            ),
        ),
        ("reason", text(node.reason.as_deref())),
        (
            "last seen",
            node.last_seen
                .map_or_else(|| "never".to_owned(), |at| time_and_age(at, screen.now)),
        ),
        ("open deliveries", node.open.to_string()),
        (
            "labels",
            text(Some(labels(node).as_str()).filter(|labels| !labels.is_empty())),
        ),
        ("version", text(node.version.as_deref())),
        ("instance", screen.cell(&Cell::maybe(node.instance))),
        ("journal", screen.cell(&Cell::maybe(node.journal_id))),
        ("boot", text(node.boot_id.as_deref())),
        ("clock skew", milliseconds(node.skew_ms)),
        ("round trip", microseconds(node.round_trip_us)),
    ];
    if let Some(facts) = &node.facts {
        rows.extend(facts_rows(facts));
    }
    if !node.budgets.is_empty() {
        rows.push(("in use", budgets(&node.budgets)));
    }
    if let Some(conflict) = &node.conflict {
        rows.push(("conflict", escape(conflict)));
    }
    if !node.garbage.is_empty() {
        rows.push(("not believed", kinds(&node.garbage)));
    }
    rows.push(("faults", faults(node)));
    let mut page = fields(&rows);
    page.push('\n');
    page += &match node.processes.as_slice() {
        [] => "no processes reported\n".to_owned(),
        processes => screen.table(PROCESSES, processes),
    };
    if !node.faults.is_empty() {
        page.push('\n');
        page += &screen.table(FAULTS, &node.faults);
    }
    page
}

/// Returns what a node is, as rows.
fn facts_rows(facts: &Facts) -> Vec<(&'static str, String)> {
    let share = |of: Option<u64>, whole: Option<u64>| match (of, whole) {
        (Some(of), Some(whole)) => format!("{} of {} free", size(of), size(whole)),
        _ => "-".to_owned(),
    };
    let words = |parts: &[Option<String>]| {
        let known: Vec<String> = parts.iter().flatten().map(|part| escape(part)).collect();
        match known.is_empty() {
            true => "-".to_owned(),
            false => known.join(", "),
        }
    };
    let kernel = facts
        .kernel
        .as_ref()
        .map(|kernel| format!("kernel {kernel}"));
    let cpus = facts.cpus.map(|cpus| match cpus {
        1 => "1 processor".to_owned(),
        _ => format!("{cpus} processors"),
    });
    let up = facts.uptime_s.map_or_else(
        || "-".to_owned(),
        |seconds| humantime::format_duration(Duration::from_secs(seconds)).to_string(),
    );
    let mut rows = vec![
        (
            "system",
            words(&[facts.os.clone(), kernel, facts.arch.clone(), cpus]),
        ),
        (
            "memory",
            share(facts.memory_available_bytes, facts.memory_bytes),
        ),
        ("disk", share(facts.disk_free_bytes, facts.disk_bytes)),
        ("up", up),
    ];
    if let Some(methods) = &facts.methods {
        let names: Vec<&str> = methods.iter().map(MethodName::as_str).collect();
        rows.push(("offers only", names.join(", ")));
    }
    rows
}

/// Returns what is used of what may be, in words.
fn budgets(budgets: &BTreeMap<String, Budget>) -> String {
    let words: Vec<String> = budgets
        .iter()
        .map(
            |(name, Budget { used, limit })| match name.strip_suffix("_bytes") {
                Some(name) => format!("{} {} of {}", escape(name), size(*used), size(*limit)),
                None => format!("{} {used} of {limit}", escape(name)),
            },
        )
        .collect();
    words.join(", ")
}

/// Returns a number of bytes as people read it.
#[expect(clippy::cast_precision_loss, reason = "shown to one place only")]
fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = UNITS[0];
    for next in &UNITS[1..] {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    format!("{value:.1} {unit}")
}

/// Says how many faults are kept, and how to see them all.
fn faults(node: &NodeView) -> String {
    let shown = node.faults.len() as u64;
    match node.fault_count {
        0 => "none kept".to_owned(),
        count if count > shown => format!(
            "{count} kept, the latest {shown} below; all: steward events --node {}",
            node.name
        ),
        count => format!("{count} kept"),
    }
}

/// Returns how many frames of each kind were not believed, in words.
pub(super) fn kinds(garbage: &BTreeMap<String, u64>) -> String {
    let words: Vec<String> = garbage
        .iter()
        .map(|(kind, count)| format!("{} {count}", escape(kind)))
        .collect();
    words.join(", ")
}

fn milliseconds(skew: Option<i64>) -> String {
    skew.map_or_else(|| "-".to_owned(), |skew| format!("{skew:+} ms"))
}

#[expect(clippy::cast_precision_loss, reason = "shown to two places only")]
fn microseconds(round_trip: Option<u64>) -> String {
    round_trip.map_or_else(
        || "-".to_owned(),
        |micros| format!("{:.2} ms", micros as f64 / 1000.0),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> NodeView {
        serde_json::from_str(include_str!("../../tests/golden/node.json"))
            .expect("the golden node is one")
    }

    fn screen() -> Screen {
        Screen::plain(
            Format::Table,
            "2026-11-21T08:05:00Z".parse().expect("a time"),
        )
    }

    #[test]
    fn a_node_is_shown_with_its_processes() {
        let page = page(&screen(), &node());
        assert_eq!(page, include_str!("../../tests/golden/node_show.txt"));
    }

    #[test]
    fn a_node_that_offers_less_than_all_is_shown_with_what_it_offers() {
        let mut node = node();
        let facts = node.facts.as_mut().expect("the golden node has facts");
        let names = ["hello", "ping"].map(|name| name.parse().expect("a name"));
        facts.methods = Some(names.into());
        assert!(page(&screen(), &node).contains("offers only      hello, ping\n"));
    }

    #[test]
    fn what_was_not_believed_of_a_node_is_shown() {
        let garbage = [("poison_reply".to_owned(), 20), ("flood".to_owned(), 3)];
        let node = NodeView {
            garbage: garbage.into(),
            ..node()
        };
        assert!(page(&screen(), &node).contains("not believed     flood 3, poison_reply 20\n"));
    }

    #[test]
    fn nodes_are_listed() {
        let table = screen().table(LISTING.columns, &[node()]);
        assert_eq!(table, include_str!("../../tests/golden/node_ls.txt"));
    }
}
