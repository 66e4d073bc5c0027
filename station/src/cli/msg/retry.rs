//! `steward msg retry`: repeats a message as a new one, for the nodes on which it did not succeed.

use anyhow::Result;
use clap::Args;
use steward_protocol::{MessageId, NodeName, State};

use crate::{
    cli::{
        Exit, Session,
        client::encode,
        submit::{USUAL_PATIENCE, accept, report_refusal, wait_and_show},
        wait::Patience,
    },
    view::{Receipt, RetryAsk},
};

/// The arguments of `steward msg retry`.
#[derive(Debug, Args)]
pub(in crate::cli) struct RetryArgs {
    /// The message: its id, or as much of it as is unambiguous
    #[arg(value_parser = super::id)]
    id: String,
    /// Only where it is in one of these states
    /// [default: failed,timed_out,rejected,expired,interrupted,unknown]
    #[arg(long, value_name = "STATE,…", value_delimiter = ',')]
    state: Vec<State>,
    /// Only on these nodes: names separated by commas
    #[arg(long, value_name = "NODE,…", value_delimiter = ',')]
    to: Vec<NodeName>,
    /// Do not hold the new message until the old one is settled; it may then run twice
    #[arg(long)]
    force: bool,
    /// Wait until every delivery is final, and show what came of it
    #[arg(long)]
    wait: bool,
    /// How long to wait, or none [default: 5m]
    #[arg(long, value_name = "TIME", requires = "wait", value_parser = Patience::parse)]
    timeout: Option<Patience>,
}

pub(super) async fn retry(session: &Session, args: &RetryArgs) -> Result<Exit> {
    let ask = RetryAsk {
        nodes: (!args.to.is_empty()).then(|| args.to.clone()),
        states: (!args.state.is_empty()).then(|| args.state.clone()),
        force: args.force,
    };
    let path = format!("/messages/{}/retry", encode(&args.id));
    let receipt: Receipt = match session.client.post(&path, serde_json::to_vec(&ask)?).await {
        Ok(receipt) => receipt,
        Err(error) => return report_refusal("retry", None, error),
    };
    if !args.wait {
        return accept(session, &receipt);
    }
    let usual = Patience::parse(USUAL_PATIENCE).map_err(anyhow::Error::msg)?;
    let ids: Vec<MessageId> = receipt.messages.iter().map(|line| line.id).collect();
    for id in &ids {
        crate::cli::render::notice(&format!("message {id}"));
    }
    wait_and_show(session, &ids, args.timeout.unwrap_or(usual)).await
}
