//! `steward msg cancel`: calls a message off, and waits until its nodes have said what became of it.

use anyhow::Result;
use clap::Args;
use steward_protocol::{NodeName, State};

use super::deliveries;
use crate::{
    cli::{
        Exit, Session,
        client::encode,
        render::{
            Format, Listing, emit, notice,
            table::{Cell, Column, Show},
        },
        submit::{Messages, report_refusal},
        wait::{Ended, Meant, Patience, settle, whole},
    },
    signals::Stop,
    view::{CancelAsk, CancelLine, CancelOutcome, CancelReceipt, MessageView},
};

/// Printed under the verb's help: here success is that everything was cancelled.
pub(super) const EXIT_CODES: &str = "Exit codes: 0 cancelled on every node meant, \
    1 nothing could be cancelled because everything was final, 2 usage, \
    3 some node ended otherwise, 4 some node had not confirmed when waiting ended, \
    5 no such node in the message, 6 station out of reach.";

/// The arguments of `steward msg cancel`.
#[derive(Debug, Args)]
pub(in crate::cli) struct CancelArgs {
    /// The message: its id, or as much of it as is unambiguous
    #[arg(value_parser = super::id)]
    id: String,
    /// Only on these nodes: names separated by commas
    #[arg(long, value_name = "NODE,…", value_delimiter = ',')]
    to: Vec<NodeName>,
    /// How long to wait until the nodes have confirmed, or none
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = Patience::parse)]
    timeout: Patience,
    /// Ask for it and do not wait
    #[arg(long)]
    no_wait: bool,
}

const LISTING: Listing<CancelLine> = Listing {
    columns: &[
        Column {
            title: "NODE",
            show: Show::Always,
            cell: |line| Cell::text(&line.node),
        },
        Column {
            title: "STATE",
            show: Show::Always,
            cell: |line| Cell::state(line.state),
        },
        Column {
            title: "NOTE",
            show: Show::Always,
            cell: |line| Cell::text(note(line.outcome)),
        },
    ],
    name: |line| line.node.to_string(),
    empty: "no deliveries",
};

fn note(outcome: CancelOutcome) -> &'static str {
    match outcome {
        CancelOutcome::Cancelled => "cancelled: it was never sent",
        CancelOutcome::Requested => "the node is asked to cancel it",
        CancelOutcome::Repeated => "was being cancelled already; the node is asked again",
        CancelOutcome::Final => "final already, nothing to cancel",
    }
}

pub(super) async fn cancel(session: &Session, args: &CancelArgs) -> Result<Exit> {
    let ask = CancelAsk {
        nodes: (!args.to.is_empty()).then(|| args.to.clone()),
    };
    let path = format!("/messages/{}/cancel", encode(&args.id));
    let receipt: CancelReceipt = match session.client.post(&path, serde_json::to_vec(&ask)?).await {
        Ok(receipt) => receipt,
        Err(error) => return report_refusal("cancel", None, error),
    };
    let was_final = |line: &&CancelLine| line.outcome == CancelOutcome::Final;
    if receipt.nodes.iter().all(|line| was_final(&line)) {
        show(session, &receipt)?;
        notice(&format!(
            "nothing of message {} could be cancelled: it is final already",
            receipt.id
        ));
        return Ok(Exit::Other);
    }
    if args.no_wait {
        show(session, &receipt)?;
        return Ok(Exit::Success);
    }
    for line in receipt.nodes.iter().filter(was_final) {
        notice(&format!("{} had ended before: {}", line.node, line.state));
    }
    wait(session, args.timeout, &receipt).await
}

fn show(session: &Session, receipt: &CancelReceipt) -> Result<()> {
    match session.screen.format {
        Format::Json => session.screen.json(receipt),
        _ => session.screen.list(&LISTING, &receipt.nodes),
    }
}

/// Waits until the nodes meant have spoken, and shows what became of each.
async fn wait(session: &Session, patience: Patience, receipt: &CancelReceipt) -> Result<Exit> {
    let nodes: Vec<NodeName> = receipt.nodes.iter().map(|line| line.node.clone()).collect();
    let meant = Meant {
        ids: &[receipt.id],
        nodes: Some(&nodes),
    };
    let stop = Stop::on_signals()?;
    let limit = match settle(session, meant, patience, &stop).await? {
        Ended::Detached => return Ok(Exit::NotFinal),
        Ended::Settled => patience.away(),
        Ended::TimedOut => std::time::Duration::ZERO,
    };
    let mut view = whole(&session.client, receipt.id, limit).await?;
    view.deliveries
        .retain(|delivery| nodes.contains(&delivery.node));
    let views = [view];
    let screen = &session.screen;
    match screen.format {
        Format::Json => screen.json(&Messages { messages: &views })?,
        Format::Jsonl => screen.json(&views[0])?,
        Format::Name => emit(&format!("{}\n", receipt.id))?,
        Format::Csv | Format::Table | Format::Wide => deliveries::list(screen, &views)?,
    }
    Ok(exit(&views[0]))
}

/// What was asked for is `cancelled`; any other end is not what was asked.
fn exit(view: &MessageView) -> Exit {
    let states = view.deliveries.iter().map(|delivery| delivery.state);
    Exit::of_states(states.map(|state| match state {
        State::Cancelled => State::Succeeded,
        state if state.is_final() => State::Failed,
        state => state,
    }))
}
