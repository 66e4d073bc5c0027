//! `steward broker`: the nats-server at hand.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Subcommand};

use super::{Exit, render::emit};
use crate::broker;

/// What can be done about a broker.
#[derive(Debug, Subcommand)]
pub(super) enum BrokerVerb {
    /// Print the path of a nats-server for trying things out: from PATH, else fetched
    Path(PathArgs),
}

/// The arguments of `steward broker path`.
#[derive(Debug, Args)]
pub(super) struct PathArgs {
    /// The nats-server to use [env: NATS_SERVER_BIN] [default: from PATH, else fetched]
    #[arg(long, value_name = "FILE")]
    nats_server: Option<PathBuf>,
}

pub(super) fn broker(verb: &BrokerVerb) -> Result<Exit> {
    let BrokerVerb::Path(args) = verb;
    let path = broker::find(args.nats_server.as_deref())?;
    emit(&format!("{}\n", path.display()))?;
    Ok(Exit::Success)
}
