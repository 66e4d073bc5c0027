//! `steward msg ls`.

use anyhow::Result;
use clap::Args;
use jiff::Timestamp;
use steward_protocol::{NodeName, State};

use crate::{
    cli::{
        Exit, Session,
        client::Query,
        outcome::tally,
        render::{
            Listing,
            table::{Cell, Column, Show},
        },
    },
    config::values,
    view::MessageLine,
};

/// The arguments of `steward msg ls`.
#[derive(Debug, Args)]
pub(in crate::cli) struct LsArgs {
    /// Most messages listed; 0 lists all
    #[arg(long, value_name = "N", default_value_t = 50)]
    limit: u64,
    /// Only messages with a delivery in this state
    #[arg(long, value_name = "STATE")]
    state: Option<State>,
    /// Only messages for this node
    #[arg(long, value_name = "NODE")]
    node: Option<NodeName>,
    /// Only messages accepted since this time (RFC 3339), or within this time (1h)
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<Timestamp>,
}

fn since(text: &str) -> Result<Timestamp, String> {
    values::since(text, Timestamp::now())
}

const LISTING: Listing<MessageLine> = Listing {
    columns: &[
        Column {
            title: "ID",
            show: Show::Always,
            cell: |line| Cell::text(line.id),
        },
        Column {
            title: "NAME",
            show: Show::Always,
            cell: |line| line.name.clone().map_or(Cell::Empty, Cell::Name),
        },
        Column {
            title: "ACCEPTED",
            show: Show::Always,
            cell: |line| Cell::Time(line.accepted_at),
        },
        Column {
            title: "STATES",
            show: Show::Always,
            cell: |line| Cell::text(tally(&line.counts)),
        },
        Column {
            title: "WHAT",
            show: Show::Wide,
            cell: |line| Cell::text(&line.what),
        },
        Column {
            title: "SOURCE",
            show: Show::Wide,
            cell: |line| Cell::text(&line.source),
        },
        Column {
            title: "BY",
            show: Show::Wide,
            cell: |line| Cell::text(&line.submitted_by),
        },
    ],
    name: |line| line.id.to_string(),
    empty: "no messages",
};

pub(super) async fn ls(session: &Session, args: &LsArgs) -> Result<Exit> {
    let path = Query::new()
        .with("limit", args.limit)
        .with_some("state", args.state)
        .with_some("node", args.node.as_ref())
        .with_some("since", args.since)
        .on("/messages");
    let lines: Vec<MessageLine> = session.client.get(&path).await?;
    session.screen.list(&LISTING, &lines)?;
    if args.limit > 0 && lines.len() as u64 >= args.limit {
        crate::cli::render::notice(&format!("the newest {}; --limit 0 lists all", args.limit));
    }
    Ok(Exit::Success)
}
