//! `steward serve`: resolves the configuration and hands it to the station.

use anyhow::{Context, Result};

use super::{Exit, Globals, config, logging};
use crate::{config::Config, signals::Stop};

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
    station(resolved.config, stop).await?;
    Ok(Exit::Success)
}

async fn station(config: Config, stop: Stop) -> Result<()> {
    // MERGE: crate::serve::serve(config, stop).await.map_err(anyhow::Error::new)
    drop(stop);
    std::future::ready(Err(anyhow::anyhow!(
        "serve {}: this build has no station in it",
        config.state_dir.display()
    )))
    .await
}
