//! `steward check`: reads message files as the inbox would, and sends nothing.

use std::{
    ffi::OsStr,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use anyhow::Result;
use clap::Args;
use steward_protocol::Message;

use super::{
    Exit, Globals,
    render::{Format as Output, emit, notice, text},
};
use crate::inbox::{self, Format, MAX_FILE};

/// The arguments of `steward check`.
#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// Message files; - reads standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

pub(super) fn check(globals: &Globals, args: &CheckArgs) -> Result<Exit> {
    let mut messages = Vec::new();
    let mut exit = Exit::Success;
    for path in &args.files {
        let name = text::escape(&path.display().to_string());
        let bytes = match read_file(path) {
            Ok(bytes) => bytes,
            Err(error) => {
                notice(&format!("{name}: cannot be read: {error}"));
                exit = Exit::NothingAccepted;
                continue;
            }
        };
        let format = format_of(path);
        match inbox::read(&bytes, format) {
            Ok(read) => {
                let count = text::plural(read.len() as u64, "message");
                notice(&format!("{name}: {count}, fine"));
                if let Some(remark) = remark(&inbox::unused(&bytes, format)) {
                    notice(&format!("{name}: {remark}"));
                }
                messages.extend(read);
            }
            Err(unreadable) => {
                let problems = unreadable.into_problems(&bytes);
                notice(inbox::render(&name, Some(&bytes), &problems).trim_end());
                exit = Exit::NothingAccepted;
            }
        }
    }
    if !messages.is_empty() {
        emit(&canonical(globals.format(), &messages)?)?;
    }
    Ok(exit)
}

/// Returns a message file in canonical form, or one message per line.
fn canonical(output: Output, messages: &[Message]) -> Result<String> {
    let lines = match output {
        Output::Jsonl => messages
            .chunks(1)
            .map(|one| Ok(inbox::canonical(one)[0].to_string()))
            .collect::<Result<Vec<String>>>()?,
        _ => vec![serde_json::to_string_pretty(&inbox::canonical(messages))?],
    };
    Ok(text::escape_json(&(lines.join("\n") + "\n")))
}

/// Says which fields of a file have no effect.
fn remark(unused: &[&str]) -> Option<String> {
    let verb = if unused.len() == 1 { "is" } else { "are" };
    (!unused.is_empty()).then(|| {
        format!(
            "{} {verb} accepted and not used: delivery goes on until the message expires (\"expires\")",
            unused.join(" and ")
        )
    })
}

/// Reads a file, or standard input for `-`; one byte more than is allowed, so that it can be told.
pub(super) fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let limit = MAX_FILE as u64 + 1;
    if is_stdin(path) {
        io::stdin().lock().take(limit).read_to_end(&mut bytes)?;
    } else {
        File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

pub(super) fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}

pub(super) fn format_of(path: &Path) -> Format {
    Format::of_name(path.file_name().unwrap_or(OsStr::new("-")))
}
