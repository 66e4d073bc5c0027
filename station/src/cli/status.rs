//! `steward status`: the station itself.

use std::collections::BTreeMap;

use anyhow::Result;
use steward_protocol::State;

use super::{
    Exit, Session,
    node::kinds,
    outcome::tally,
    render::{
        Format, Listing, Screen, emit,
        table::{Cell, Column, Show, Tone},
        text::{escape, fields, time_and_age},
    },
};
use crate::view::{BrokerView, FaultView, OffenderView, StatusView};

const FAULTS: &[Column<FaultView>] = &[
    Column {
        title: "FAULT",
        show: Show::Always,
        cell: |fault| Cell::number(fault.n),
    },
    Column {
        title: "AT",
        show: Show::Always,
        cell: |fault| Cell::Time(fault.at),
    },
    Column {
        title: "NODE",
        show: Show::Always,
        cell: |fault| Cell::maybe(fault.node.as_ref()),
    },
    Column {
        title: "KIND",
        show: Show::Always,
        cell: |fault| Cell::text(&fault.kind),
    },
    Column {
        title: "WHAT",
        show: Show::Always,
        cell: |fault| Cell::text(&fault.detail),
    },
    Column {
        title: "VERDICT",
        show: Show::Always,
        cell: |fault| Cell::text(&fault.verdict),
    },
    Column {
        title: "PROCESS",
        show: Show::Wide,
        cell: |fault| Cell::maybe(fault.subject.as_deref()),
    },
];

const OFFENDERS: &[Column<OffenderView>] = &[
    Column {
        title: "OFFENDER",
        show: Show::Always,
        cell: |offender| Cell::maybe(offender.sender.as_ref()),
    },
    Column {
        title: "FRAMES",
        show: Show::Always,
        cell: |offender| Cell::number(offender.frames),
    },
    Column {
        title: "LAST",
        show: Show::Always,
        cell: |offender| Cell::Time(offender.last),
    },
    Column {
        title: "NOT BELIEVED",
        show: Show::Always,
        cell: |offender| Cell::text(kinds(&offender.kinds)),
    },
];

const LISTING: Listing<StatusView> = Listing {
    columns: &[
        Column {
            title: "STATION",
            show: Show::Always,
            cell: |status| Cell::text(&status.name),
        },
        Column {
            title: "READY",
            show: Show::Always,
            cell: |status| Cell::text(status.ready),
        },
        Column {
            title: "VERSION",
            show: Show::Always,
            cell: |status| Cell::text(&status.version),
        },
        Column {
            title: "PID",
            show: Show::Always,
            cell: |status| Cell::number(status.pid),
        },
        Column {
            title: "BROKER_CONNECTED",
            show: Show::Always,
            cell: |status| Cell::text(status.broker.connected),
        },
        Column {
            title: "PROBLEMS",
            show: Show::Always,
            cell: |status| Cell::text(status.problems.join("; ")),
        },
    ],
    name: |status| status.name.to_string(),
    empty: "",
};

pub(super) async fn status(session: &Session) -> Result<Exit> {
    let status: StatusView = session.client.get("/status").await?;
    let exit = match status.ready {
        true => Exit::Success,
        false => Exit::Other,
    };
    let screen = &session.screen;
    match screen.format {
        Format::Json | Format::Jsonl => screen.json(&status)?,
        Format::Csv | Format::Name => screen.list(&LISTING, &[status])?,
        Format::Table | Format::Wide => emit(&page(screen, &status))?,
    }
    Ok(exit)
}

fn page(screen: &Screen, status: &StatusView) -> String {
    let ready = if status.ready {
        screen.tinted("yes", Tone::Good)
    } else {
        let problems: Vec<String> = status.problems.iter().map(|text| escape(text)).collect();
        format!(
            "{}: {}",
            screen.tinted("no", Tone::Bad),
            problems.join("; ")
        )
    };
    let nodes: Vec<String> = status
        .nodes
        .iter()
        .map(|(presence, count)| format!("{count} {}", presence.as_str()))
        .collect();
    let open: BTreeMap<State, u64> = status.open.clone();
    let mut page = fields(&[
        (
            "station",
            format!(
                "{}, steward {}, pid {}",
                status.name,
                escape(&status.version),
                status.pid
            ),
        ),
        ("ready", ready),
        ("broker", broker(screen, &status.broker)),
        (
            "ledger",
            format!("{}, epoch {}", status.ledger_id, status.epoch),
        ),
        ("since", time_and_age(status.started_at, screen.now)),
        (
            "nodes",
            match nodes.as_slice() {
                [] => "none".to_owned(),
                nodes => nodes.join(", "),
            },
        ),
        ("open deliveries", tally(&open)),
        ("inbox", escape(&status.inbox.display().to_string())),
    ]);
    if !status.counters.is_empty() && screen.format == Format::Wide {
        let counters: Vec<(&str, String)> = status
            .counters
            .iter()
            .map(|(name, count)| (name.as_str(), count.to_string()))
            .collect();
        page.push('\n');
        page += &fields(&counters);
    }
    if !status.faults.is_empty() {
        page.push('\n');
        page += &screen.table(FAULTS, &status.faults);
    }
    if !status.offenders.is_empty() {
        page.push('\n');
        page += &screen.table(OFFENDERS, &status.offenders);
    }
    page
}

fn broker(screen: &Screen, broker: &BrokerView) -> String {
    let state = if broker.connected {
        screen.tinted("connected", Tone::Good)
    } else {
        screen.tinted("not connected", Tone::Bad)
    };
    let version = broker.version.as_deref().map(escape);
    let version = version.map_or(String::new(), |version| format!(", nats-server {version}"));
    let reason = broker.reason.as_deref().map(escape);
    let reason = reason.map_or(String::new(), |reason| format!(": {reason}"));
    format!(
        "{}, {state} since {}{version}{reason}",
        escape(&broker.url),
        time_and_age(broker.since, screen.now)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_station_says_whether_it_is_ready_and_what_is_in_the_way() {
        let status: StatusView =
            serde_json::from_str(include_str!("../../tests/golden/status.json"))
                .expect("the golden status is one");
        let now = "2026-11-21T08:05:00Z".parse().expect("a time");
        let page = page(&Screen::plain(Format::Table, now), &status);
        assert_eq!(page, include_str!("../../tests/golden/status.txt"));
    }

    #[test]
    fn an_offender_is_named_in_the_status() {
        let mut status: StatusView =
            serde_json::from_str(include_str!("../../tests/golden/status.json"))
                .expect("the golden status is one");
        let at = "2026-11-21T08:04:00Z".parse().expect("a time");
        status.offenders = vec![OffenderView {
            sender: Some("ship9".parse().expect("a name")),
            frames: 420,
            kinds: [("poison_reply".to_owned(), 420)].into(),
            since: at,
            last: at,
        }];
        let now = "2026-11-21T08:05:00Z".parse().expect("a time");
        let page = page(&Screen::plain(Format::Table, now), &status);
        assert!(
            page.ends_with(
                "OFFENDER  FRAMES  LAST                           NOT BELIEVED\n\
                 ship9     420     2026-11-21T08:04:00Z (1m ago)  poison_reply 420\n"
            ),
            "{page}"
        );
    }
}
