//! `steward events`: faults and verdicts, and what happened to messages.

use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;
use jiff::Timestamp;
use steward_protocol::NodeName;

use super::{
    Exit, Session,
    client::Query,
    exit::Misuse,
    render::{
        Format, Listing,
        table::{Cell, Column, Show},
    },
};
use crate::{
    config::values,
    view::{LogEntry, LogPage},
};

/// How long the station holds an answer back when there is nothing new.
const POLL: Duration = Duration::from_secs(30);

/// Most entries taken at a time while following; the rest comes with the next question.
const BATCH: u64 = 1000;

/// The arguments of `steward events`.
#[derive(Debug, Args)]
pub(super) struct EventsArgs {
    /// Most entries listed, the newest ones
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=1000))]
    limit: u64,
    /// Only what concerns this node
    #[arg(long, value_name = "NODE")]
    node: Option<NodeName>,
    /// Only these kinds of faults (panic, storage, …) or, with --deliveries, states and changes (failed, held, …)
    #[arg(long, value_name = "KIND[,KIND…]")]
    kind: Option<String>,
    /// Only what was stored since this time (RFC 3339), or within this time (1h)
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<Timestamp>,
    /// Also what happened to messages: every state, cancellation and hold
    #[arg(long)]
    deliveries: bool,
    /// Go on with what happens from now on
    #[arg(long, short)]
    follow: bool,
}

fn since(text: &str) -> Result<Timestamp, String> {
    values::since(text, Timestamp::now())
}

const LISTING: Listing<LogEntry> = Listing {
    columns: &[
        Column {
            title: "TIME",
            show: Show::Always,
            cell: |entry| Cell::Time(entry.at),
        },
        Column {
            title: "NODE",
            show: Show::Always,
            cell: |entry| Cell::maybe(entry.node.as_ref()),
        },
        Column {
            title: "KIND",
            show: Show::Always,
            cell: |entry| Cell::text(&entry.kind),
        },
        Column {
            title: "WHERE",
            show: Show::Always,
            cell: |entry| match &entry.subject {
                Some(subject) => Cell::text(subject),
                None => Cell::maybe(entry.id),
            },
        },
        Column {
            title: "VERDICT",
            show: Show::Always,
            cell: |entry| Cell::maybe(entry.verdict.as_deref()),
        },
        Column {
            title: "DETAIL",
            show: Show::Always,
            cell: |entry| Cell::maybe(entry.detail.as_deref()),
        },
        Column {
            title: "BY",
            show: Show::Wide,
            cell: |entry| Cell::maybe(entry.by.as_deref()),
        },
        Column {
            title: "NAME",
            show: Show::Wide,
            cell: |entry| entry.name.clone().map_or(Cell::Empty, Cell::Name),
        },
        Column {
            title: "KEY",
            show: Show::Wide,
            cell: |entry| Cell::text(&entry.key),
        },
    ],
    name: |entry| entry.key.clone(),
    empty: "no events",
};

pub(super) async fn events(session: &Session, args: &EventsArgs) -> Result<Exit> {
    let screen = &session.screen;
    if args.follow && screen.format == Format::Json {
        bail!(Misuse(
            "one JSON document has an end and --follow has none; use -o jsonl".to_owned()
        ));
    }
    let query = args.query().with("limit", args.limit);
    let page: LogPage = session.client.get(&query.on("/log")).await?;
    if args.follow {
        return follow(session, args, page).await;
    }
    screen.list(&LISTING, &page.entries)?;
    Ok(Exit::Success)
}

/// Goes on after `page` until the program is ended or nobody reads any more.
async fn follow(session: &Session, args: &EventsArgs, mut page: LogPage) -> Result<Exit> {
    let mut headed = false;
    loop {
        match (page.entries.as_slice(), headed) {
            ([], _) => {}
            (entries, false) => session.screen.list(&LISTING, entries)?,
            (entries, true) => session.screen.more(&LISTING, entries)?,
        }
        headed |= !page.entries.is_empty();
        let query = args
            .query()
            .with("limit", BATCH)
            .with("after_fault", page.after_fault)
            .with("after_event", page.after_event)
            .with("wait", POLL.as_secs());
        page = session.client.get_waiting(&query.on("/log"), POLL).await?;
    }
}

impl EventsArgs {
    fn query(&self) -> Query {
        Query::new()
            .with_some("node", self.node.as_ref())
            .with_some("kind", self.kind.as_deref())
            .with_some("since", self.since)
            .with_some("deliveries", self.deliveries.then_some(true))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::render::Screen;

    fn entries() -> Vec<LogEntry> {
        serde_json::from_str(include_str!("../../tests/golden/events.json"))
            .expect("the golden entries are some")
    }

    #[test]
    fn faults_and_what_happened_to_messages_stand_in_one_table() {
        let now = "2026-11-21T08:05:00Z".parse().expect("a time");
        for (format, golden) in [
            (Format::Table, include_str!("../../tests/golden/events.txt")),
            (
                Format::Wide,
                include_str!("../../tests/golden/events_wide.txt"),
            ),
        ] {
            let table = Screen::plain(format, now).table(LISTING.columns, &entries());
            assert_eq!(table, golden);
        }
    }
}
