//! `steward completions`: what a shell needs to complete our verbs and flags.

use anyhow::Result;
use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{Cli, Exit, render::emit_bytes};

/// The arguments of `steward completions`.
#[derive(Debug, Args)]
pub(super) struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

pub(super) fn completions(args: &CompletionsArgs) -> Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "steward", &mut script);
    emit_bytes(&script)?;
    Ok(Exit::Success)
}
