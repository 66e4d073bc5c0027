//! Deliveries as rows, for tables and CSV.

use anyhow::Result;
use serde::Serialize;
use steward_protocol::MessageId;

use crate::{
    cli::outcome::cancel_pending,
    cli::render::{
        Listing, Screen,
        table::{Cell, Column, Show},
    },
    view::{DeliveryView, MessageView},
};

/// One delivery and the message it belongs to.
#[derive(Debug, Serialize)]
struct Row {
    id: MessageId,
    #[serde(flatten)]
    delivery: DeliveryView,
}

/// A column of [`LISTING`]; a `const fn`, because twelve literals of four lines would hide the list.
const fn column(title: &'static str, show: Show, cell: fn(&Row) -> Cell) -> Column<Row> {
    Column { title, show, cell }
}

const LISTING: Listing<Row> = Listing {
    columns: &[
        column("MESSAGE", Show::Wide, |row| Cell::text(row.id)),
        column("NODE", Show::Always, |row| Cell::text(&row.delivery.node)),
        column("STATE", Show::Always, |row| Cell::state(row.delivery.state)),
        column("EXIT", Show::Always, |row| ending(&row.delivery)),
        column("ATTEMPTS", Show::Always, |row| {
            Cell::number(row.delivery.attempts)
        }),
        column("SINCE", Show::Always, |row| Cell::Time(row.delivery.since)),
        column("BY", Show::Always, |row| {
            Cell::text(&row.delivery.observed_by)
        }),
        column("REASON", Show::Always, |row| reason(&row.delivery)),
        column("SUBJECT", Show::Wide, |row| {
            Cell::text(&row.delivery.subject)
        }),
        column("STARTED", Show::Wide, |row| {
            Cell::time(row.delivery.started_at)
        }),
        column("FINISHED", Show::Wide, |row| {
            Cell::time(row.delivery.finished_at)
        }),
    ],
    name: |row| row.delivery.node.to_string(),
    empty: "no deliveries",
};

fn ending(delivery: &DeliveryView) -> Cell {
    match (delivery.exit_code, delivery.signal) {
        (Some(code), _) => Cell::number(code),
        (None, Some(signal)) => Cell::text(format!("signal {signal}")),
        (None, None) => Cell::Empty,
    }
}

fn reason(delivery: &DeliveryView) -> Cell {
    let parts: Vec<String> = delivery
        .reason
        .clone()
        .into_iter()
        .chain(cancel_pending(delivery))
        .collect();
    Cell::text(parts.join("; "))
}

fn rows(views: &[MessageView]) -> Vec<Row> {
    let of = |view: &MessageView| {
        let id = view.id;
        let row = move |delivery| Row { id, delivery };
        view.deliveries.clone().into_iter().map(row)
    };
    views.iter().flat_map(of).collect()
}

/// Prints the deliveries of messages as a list.
///
/// # Errors
///
/// Fails when standard output does.
pub(in crate::cli) fn list(screen: &Screen, views: &[MessageView]) -> Result<()> {
    screen.list(&LISTING, &rows(views))
}

/// Returns the deliveries of one message as a table.
pub(super) fn table(screen: &Screen, view: &MessageView) -> String {
    screen.table(LISTING.columns, &rows(std::slice::from_ref(view)))
}
