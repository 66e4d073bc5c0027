//! Starts the log: on standard error, for people or for programs.

use std::io::{self, IsTerminal};

use anyhow::{Context, Result};
use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

use super::render::colors_wanted;
use crate::config::{LogConfig, LogFormat};

/// Starts the log of a verb: only what the operator should know, unless `RUST_LOG` says otherwise.
pub(super) fn for_a_verb(format: Option<LogFormat>) -> Result<()> {
    let filter = std::env::var("RUST_LOG").unwrap_or_else(|_| "warn".to_owned());
    let wanted = std::env::var("STEWARD_LOG_FORMAT").unwrap_or_default();
    start(&LogConfig {
        filter,
        format: format
            .or_else(|| LogFormat::from_str(&wanted, false).ok())
            .unwrap_or_default(),
    })
}

/// Starts the log.
///
/// # Errors
///
/// Fails when the filter cannot be read, or a log is running already.
pub(super) fn start(log: &LogConfig) -> Result<()> {
    let filter: EnvFilter = log
        .filter
        .parse()
        .with_context(|| format!("read the log filter {:?}", log.filter))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr);
    let started = match log.format {
        LogFormat::Text => builder
            .with_ansi(io::stderr().is_terminal() && colors_wanted())
            .try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    started.map_err(|error| anyhow::anyhow!("start the log: {error}"))
}
