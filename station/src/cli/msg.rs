//! `steward msg …`: messages and what became of them.

use anyhow::Result;
use clap::Subcommand;

use super::{Exit, Session};

pub(super) mod deliveries;
mod ls;
mod output;
mod show;
mod watch;

/// What can be asked about messages.
#[derive(Debug, Subcommand)]
pub(super) enum MsgVerb {
    /// List messages, newest first
    Ls(ls::LsArgs),
    /// Show one message and everything known of it
    Show(show::ShowArgs),
    /// Wait until messages are settled, and show how far they have come
    Watch(watch::WatchArgs),
    /// Write what a command printed on a node, byte for byte
    Output(output::OutputArgs),
}

pub(super) async fn msg(session: &Session, verb: MsgVerb) -> Result<Exit> {
    match verb {
        MsgVerb::Ls(args) => ls::ls(session, &args).await,
        MsgVerb::Show(args) => show::show(session, &args).await,
        MsgVerb::Watch(args) => watch::watch(session, &args).await,
        MsgVerb::Output(args) => output::output(session, &args).await,
    }
}
