//! `steward msg watch`: waiting for messages that are on their way already.

use anyhow::Result;
use clap::Args;

use crate::cli::{
    Exit, Session,
    submit::wait_and_show,
    wait::{Patience, find},
};

/// The arguments of `steward msg watch`.
#[derive(Debug, Args)]
pub(in crate::cli) struct WatchArgs {
    /// The messages: their ids, or as much of each as is unambiguous
    #[arg(required = true, value_name = "ID", value_parser = super::id)]
    ids: Vec<String>,
    /// How long to wait, or none
    #[arg(long, value_name = "TIME", default_value = "none", value_parser = Patience::parse)]
    timeout: Patience,
}

pub(super) async fn watch(session: &Session, args: &WatchArgs) -> Result<Exit> {
    let mut ids = Vec::with_capacity(args.ids.len());
    for id in &args.ids {
        ids.push(find(&session.client, id, args.timeout).await?);
    }
    wait_and_show(session, &ids, args.timeout).await
}
