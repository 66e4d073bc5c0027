//! `steward config show|check`, and where the pieces of a configuration are fetched from.

use std::{
    collections::BTreeMap,
    env, fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use serde::Serialize;

use super::{
    Exit, Globals,
    exit::Misuse,
    render::{
        Listing, notice,
        table::{Cell, Column, Show},
        text,
    },
};
use crate::config::{ConfigProblem, DEFAULT_FILE, Entry, File, Resolved, resolve, settings};

/// The flags of a station.
#[derive(Debug, Args)]
pub(super) struct StationFlags {
    /// Configuration file [default: /etc/steward/station.toml, if it exists]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Address of the broker, or several separated by commas [env: NATS_URL] [default: nats://127.0.0.1:4222]
    #[arg(long, value_name = "URL")]
    nats: Option<String>,
    /// Credentials file for the broker [env: NATS_CREDS]
    #[arg(long, value_name = "FILE")]
    creds: Option<String>,
    /// The station's own node name [env: STEWARD_NAME] [default: central]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Also answer questions (never changes) on this loopback address [env: STEWARD_HTTP]
    #[arg(long, value_name = "ADDRESS:PORT")]
    http: Option<String>,
    /// Use a broker on another machine although messages are not signed yet [env: STEWARD_ALLOW_UNSIGNED]
    #[arg(long)]
    allow_unsigned: bool,
}

/// What can be asked about the configuration.
#[derive(Debug, Subcommand)]
pub(super) enum ConfigVerb {
    /// Show every setting with its value and where that came from
    Show(StationFlags),
    /// Say what is wrong with the configuration, all of it at once
    Check(StationFlags),
}

/// One setting, for scripts.
#[derive(Debug, Serialize)]
struct Line {
    key: &'static str,
    value: Option<String>,
    from: String,
    environment: &'static str,
    about: &'static str,
}

const LISTING: Listing<Line> = Listing {
    columns: &[
        Column {
            title: "KEY",
            show: Show::Always,
            cell: |line| Cell::text(line.key),
        },
        Column {
            title: "VALUE",
            show: Show::Always,
            cell: |line| Cell::maybe(line.value.as_deref()),
        },
        Column {
            title: "FROM",
            show: Show::Always,
            cell: |line| Cell::text(&line.from),
        },
        Column {
            title: "ENVIRONMENT",
            show: Show::Wide,
            cell: |line| Cell::text(line.environment),
        },
        Column {
            title: "MEANING",
            show: Show::Wide,
            cell: |line| Cell::text(line.about),
        },
    ],
    name: |line| line.key.to_owned(),
    empty: "no settings",
};

pub(super) fn config(globals: &Globals, verb: &ConfigVerb) -> Result<Exit> {
    let (ConfigVerb::Show(flags) | ConfigVerb::Check(flags)) = verb;
    let resolved = match resolved(globals, flags)? {
        Ok(resolved) => resolved,
        Err(problems) => return Ok(refuse(&problems)),
    };
    for warning in &resolved.warnings {
        notice(&format!("warning: {warning}"));
    }
    match verb {
        ConfigVerb::Show(_) => {
            let lines: Vec<Line> = resolved.entries.into_iter().map(line).collect();
            globals.screen().list(&LISTING, &lines)?;
        }
        ConfigVerb::Check(_) => notice("the configuration is fine"),
    }
    Ok(Exit::Success)
}

fn line(entry: Entry) -> Line {
    Line {
        key: entry.setting.key,
        value: entry.value,
        from: entry.origin.to_string(),
        environment: entry.setting.environment,
        about: entry.setting.about,
    }
}

/// Says what is wrong.
pub(super) fn refuse(problems: &[ConfigProblem]) -> Exit {
    for problem in problems {
        notice(&text::escape(&format!("error: {problem}")));
    }
    Exit::Usage
}

/// Fetches flags, environment and file, and resolves them.
///
/// # Errors
///
/// Fails when the file cannot be read; problems inside it are the inner error.
pub(super) fn resolved(
    globals: &Globals,
    flags: &StationFlags,
) -> Result<Result<Resolved, Vec<ConfigProblem>>> {
    let file = match &flags.config {
        Some(path) => Some(read(path).map_err(|error| {
            Misuse(format!(
                "the configuration file {} cannot be read: {error}",
                path.display()
            ))
        })?),
        None => match read(Path::new(DEFAULT_FILE)) {
            Ok(file) => Some(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                return Err(error).with_context(|| {
                    format!("read {DEFAULT_FILE}; name another file with --config")
                });
            }
        },
    };
    Ok(resolve(
        &given(globals, flags),
        &environment(),
        file.as_ref(),
    ))
}

fn read(path: &Path) -> io::Result<File> {
    Ok(File {
        path: path.to_owned(),
        text: fs::read_to_string(path)?,
    })
}

/// Only what is asked for is looked up: other variables need not be text.
fn environment() -> BTreeMap<String, String> {
    settings()
        .iter()
        .filter_map(|setting| {
            let value = env::var(setting.environment).ok()?;
            Some((setting.environment.to_owned(), value))
        })
        .collect()
}

fn given(globals: &Globals, flags: &StationFlags) -> BTreeMap<&'static str, String> {
    let log_format = globals.log_format.map(|format| format.as_str().to_owned());
    [
        ("state_dir", globals.state_dir.clone()),
        ("log.format", log_format),
        ("nats", flags.nats.clone()),
        ("creds", flags.creds.clone()),
        ("name", flags.name.clone()),
        ("http", flags.http.clone()),
        (
            "allow_unsigned",
            flags.allow_unsigned.then(|| "true".to_owned()),
        ),
    ]
    .into_iter()
    .filter_map(|(key, value)| Some((key, value?)))
    .collect()
}
