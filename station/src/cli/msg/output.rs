//! `steward msg output`: what a command printed, byte for byte.

use std::io::IsTerminal;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use steward_protocol::NodeName;

use crate::{
    cli::{
        Exit, Session,
        client::{Query, encode},
        outcome::left_out,
        render::{emit_bytes, notice, text},
    },
    view::{DeliveryView, MessageView},
};

mod follow;

/// The arguments of `steward msg output`.
#[derive(Debug, Args)]
pub(in crate::cli) struct OutputArgs {
    /// The message: its id, or as much of it as is unambiguous
    #[arg(value_parser = super::id)]
    id: String,
    /// The node; may be left out where the message goes to one only
    node: Option<NodeName>,
    /// Show it from the beginning and then as it comes, until the command has ended
    #[arg(long)]
    follow: bool,
    /// Fetch all that the node has kept, and compare it with its digests
    #[arg(long, conflicts_with = "follow")]
    full: bool,
    /// Which of the two streams [default: stdout; both with --follow and --full]
    #[arg(long, value_name = "STREAM")]
    stream: Option<Stream>,
}

/// The streams a command writes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Stream {
    Stdout,
    Stderr,
    Both,
}

impl Stream {
    fn has_stdout(self) -> bool {
        matches!(self, Self::Stdout | Self::Both)
    }

    fn has_stderr(self) -> bool {
        matches!(self, Self::Stderr | Self::Both)
    }
}

pub(super) async fn output(session: &Session, args: &OutputArgs) -> Result<Exit> {
    let node = match &args.node {
        Some(node) => node.clone(),
        None => only_node(session, &args.id).await?,
    };
    let path = format!("/messages/{}/nodes/{node}", encode(&args.id));
    if args.follow || args.full {
        let stream = args.stream.unwrap_or(Stream::Both);
        if args.full {
            let delivery: DeliveryView = session.client.get(&path).await?;
            if !delivery.state.is_final() {
                let state = delivery.state;
                bail!(
                    "fetch the whole output of {node}: the delivery is {state}; follow it with --follow, or wait with `steward msg watch {}`",
                    args.id
                );
            }
        }
        return follow::follow(session, &format!("{path}/output"), stream).await;
    }
    let delivery: DeliveryView = session.client.get(&path).await?;
    let stream = args.stream.unwrap_or(Stream::Stdout);
    if stream.has_stdout() {
        show(&node, &delivery, Stream::Stdout)?;
    }
    if stream.has_stderr() {
        show(&node, &delivery, Stream::Stderr)?;
    }
    Ok(Exit::Success)
}

/// Returns the node of a message that goes to one only.
async fn only_node(session: &Session, id: &str) -> Result<NodeName> {
    let query = Query::new().with("brief", "true");
    let path = query.on(&format!("/messages/{}", encode(id)));
    let message: MessageView = session.client.get(&path).await?;
    match message.deliveries.as_slice() {
        [only] => Ok(only.node.clone()),
        several => {
            let names: Vec<&str> = several
                .iter()
                .take(20)
                .map(|delivery| delivery.node.as_str())
                .collect();
            bail!(
                "tell whose output is meant: the message goes to {} nodes; name one of {}",
                several.len(),
                names.join(", ")
            )
        }
    }
}

fn show(node: &NodeName, delivery: &DeliveryView, stream: Stream) -> Result<()> {
    let (name, output) = match stream {
        Stream::Stderr => ("stderr", &delivery.stderr),
        Stream::Stdout | Stream::Both => ("stdout", &delivery.stdout),
    };
    let Some(output) = output else {
        let state = delivery.state;
        bail!(
            "show the output of {node}: the node has reported none, the delivery is {state}{}",
            delivery
                .reason
                .as_ref()
                .map(|reason| format!(" ({})", text::escape(reason)))
                .unwrap_or_default()
        );
    };
    emit_bytes(&output.head)?;
    emit_bytes(&output.tail)?;
    if let Some(line) = left_out(name, output) {
        notice(&line);
        if std::io::stderr().is_terminal() {
            notice("--full fetches what the node has kept of it");
        }
    }
    Ok(())
}
