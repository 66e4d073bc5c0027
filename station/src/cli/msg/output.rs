//! `steward msg output`: what a command printed, byte for byte.

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use steward_protocol::NodeName;

use crate::{
    cli::{
        Exit, Session,
        client::encode,
        outcome::left_out,
        render::{emit_bytes, notice, text},
    },
    view::DeliveryView,
};

/// The arguments of `steward msg output`.
#[derive(Debug, Args)]
pub(in crate::cli) struct OutputArgs {
    /// The message: its id, or as much of it as is unambiguous
    #[arg(value_parser = super::id)]
    id: String,
    /// The node
    node: NodeName,
    /// Which of the two streams
    #[arg(long, value_name = "STREAM", default_value = "stdout")]
    stream: Stream,
}

/// The streams a command writes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Stream {
    Stdout,
    Stderr,
}

pub(super) async fn output(session: &Session, args: &OutputArgs) -> Result<Exit> {
    let path = format!("/messages/{}/nodes/{}", encode(&args.id), args.node);
    let delivery: DeliveryView = session.client.get(&path).await?;
    let stream = match args.stream {
        Stream::Stdout => &delivery.stdout,
        Stream::Stderr => &delivery.stderr,
    };
    let Some(output) = stream else {
        let state = delivery.state;
        bail!(
            "show the output of {}: the node has reported none, the delivery is {state}{}",
            args.node,
            delivery
                .reason
                .map(|reason| format!(" ({})", text::escape(&reason)))
                .unwrap_or_default()
        );
    };
    emit_bytes(&output.head)?;
    emit_bytes(&output.tail)?;
    let name = match args.stream {
        Stream::Stdout => "stdout",
        Stream::Stderr => "stderr",
    };
    if let Some(line) = left_out(name, output) {
        notice(&line);
    }
    Ok(Exit::Success)
}
