//! `steward serve`: resolves the configuration and hands it to the station.

use anyhow::{Context, Result};

use super::{Exit, Globals, config, logging};
use crate::signals::Stop;

pub(super) async fn serve(globals: &Globals, flags: &config::StationFlags) -> Result<Exit> {
    let resolved = match config::resolved(globals, flags)? {
        Ok(resolved) => resolved,
        Err(problems) => return Ok(config::refuse(&problems)),
    };
    logging::start(&resolved.config.log)?;
    for warning in &resolved.warnings {
        tracing::warn!("{warning}");
    }
    let stop = Stop::on_signals().context("listen to signals")?;
    crate::serve::serve(resolved.config, stop, say_ready)
        .await
        .map_err(anyhow::Error::new)?;
    Ok(Exit::Success)
}

/// Whoever started the station waits for this line.
#[expect(
    clippy::print_stdout,
    reason = "the one line a daemon prints when it is ready"
)]
fn say_ready(line: &str) {
    println!("{line}");
}
