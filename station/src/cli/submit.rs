//! `steward submit`: hands message files to the station, and waits for their end if asked to.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Result;
use clap::{Args, ValueEnum};
use serde::Serialize;
use steward_protocol::MessageId;

use super::{
    Exit, Session,
    check::{format_of, is_stdin, read_file},
    client::{ClientError, Query},
    inbox::problem,
    msg::deliveries,
    outcome,
    render::{
        Format, Listing, emit, emit_bytes, notice, say,
        table::{Cell, Column, Show},
        text,
    },
    wait::{Ended, Meant, Patience, resume, settle, whole},
};
use crate::{
    inbox,
    signals::Stop,
    view::{MessageView, Problem, Receipt, ReceiptLine},
};

/// How long is waited when nothing is said.
pub(super) const USUAL_PATIENCE: &str = "5m";

/// The arguments of `steward submit`.
#[derive(Debug, Args)]
pub(super) struct SubmitArgs {
    /// Message files; - reads standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Wait until every delivery is final, and show what came of it
    #[arg(long)]
    wait: bool,
    /// How long to wait, or none [default: 5m]
    #[arg(long, value_name = "TIME", requires = "wait", value_parser = Patience::parse)]
    timeout: Option<Patience>,
    /// The language of standard input, and of files whose names do not tell
    #[arg(long, value_name = "FORMAT")]
    format: Option<Language>,
}

/// The languages of message files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Language {
    Json,
    Yaml,
}

/// The wrapper around messages, fixed for scripts.
#[derive(Debug, Serialize)]
pub(super) struct Messages<'a, T> {
    pub(super) messages: &'a [T],
}

const RECEIPTS: Listing<ReceiptLine> = Listing {
    columns: &[
        Column {
            title: "ID",
            show: Show::Always,
            cell: |line| Cell::text(line.id),
        },
        Column {
            title: "NAME",
            show: Show::Always,
            cell: |line| Cell::maybe(line.name.as_deref()),
        },
        Column {
            title: "NODES",
            show: Show::Always,
            cell: |line| Cell::number(line.nodes.len() as u64),
        },
        Column {
            title: "NOTE",
            show: Show::Always,
            cell: note,
        },
    ],
    name: |line| line.id.to_string(),
    empty: "no messages",
};

fn note(line: &ReceiptLine) -> Cell {
    let Some(old) = line.retry_of else {
        return Cell::maybe(line.recognised.then_some("known already, not run again"));
    };
    let repeats = format!("repeats {old}");
    if line.held.is_empty() {
        return Cell::Text(repeats);
    }
    let held: Vec<&str> = line.held.iter().map(|node| node.as_str()).collect();
    Cell::text(format!(
        "{repeats}; held on {} until that is settled there",
        held.join(", ")
    ))
}

pub(super) async fn submit(session: &Session, args: &SubmitArgs) -> Result<Exit> {
    let mut receipt = Receipt {
        messages: Vec::new(),
    };
    let mut refused = None;
    let mut accepted_files = 0;
    for path in &args.files {
        match hand_over(session, args, path).await {
            Ok(Ok(accepted)) => {
                accepted_files += 1;
                receipt.messages.extend(accepted.messages);
            }
            Ok(Err(exit)) => refused = Some(exit),
            Err(error) => {
                if accepted_files > 0 {
                    notice(&tally_of_files(accepted_files, args.files.len()));
                    accept(session, &receipt)?;
                }
                return Err(error);
            }
        }
    }
    if refused.is_some() && args.files.len() > 1 {
        notice(&tally_of_files(accepted_files, args.files.len()));
    }
    let exit = match refused {
        Some(exit) if receipt.messages.is_empty() => return Ok(exit),
        // Some files came through and some did not: neither "all succeeded" nor "nothing accepted".
        Some(_) => Some(Exit::Other),
        None => None,
    };
    let shown = if args.wait {
        let usual = Patience::parse(USUAL_PATIENCE).map_err(anyhow::Error::msg)?;
        let ids: Vec<MessageId> = receipt.messages.iter().map(|line| line.id).collect();
        wait_and_show(session, &ids, args.timeout.unwrap_or(usual)).await?
    } else {
        accept(session, &receipt)?
    };
    Ok(exit.unwrap_or(shown))
}

fn tally_of_files(accepted: u64, files: usize) -> String {
    format!(
        "accepted {accepted} of {}",
        text::plural(files as u64, "file")
    )
}

/// Hands one file over; a refusal has been printed when it comes back.
async fn hand_over(
    session: &Session,
    args: &SubmitArgs,
    path: &Path,
) -> Result<Result<Receipt, Exit>> {
    let bytes = match read_file(path) {
        Ok(bytes) => bytes,
        Err(error) => {
            let name = text::escape(&path.display().to_string());
            notice(&format!("error: {name} cannot be read: {error}"));
            return Ok(Err(Exit::NothingAccepted));
        }
    };
    let name = match path.file_name() {
        Some(name) if !is_stdin(path) => name.to_string_lossy().into_owned(),
        Some(_) | None => "stdin".to_owned(),
    };
    let named_yaml = format_of(path) == inbox::Format::Yaml;
    let language = match args.format {
        Some(Language::Yaml) => "yaml",
        None if named_yaml => "yaml",
        Some(Language::Json) | None => "json",
    };
    let question = Query::new()
        .with("name", &name)
        .with("format", language)
        .on("/messages");
    if bytes.len() > inbox::MAX_FILE {
        notice(&format!(
            "error: {} is larger than {} bytes; split it",
            text::escape(&name),
            inbox::MAX_FILE
        ));
        return Ok(Err(Exit::NothingAccepted));
    }
    match session.client.post(&question, bytes.clone()).await {
        Ok(receipt) => Ok(Ok(receipt)),
        Err(error) => report_refusal(&name, Some(&bytes), error).map(Err),
    }
}

/// Says what is wrong with a submission; any other error is handed on. `bytes` are the file as it
/// was submitted, where the operator knows it.
///
/// # Errors
///
/// Returns `error` where it is no refusal.
pub(super) fn report_refusal(name: &str, bytes: Option<&[u8]>, error: ClientError) -> Result<Exit> {
    match error {
        ClientError::Answer { status: 422, view } => {
            match bytes {
                _ if view.problems.is_empty() => {
                    notice(&format!("error: {}", text::escape_block(&view.error)));
                }
                Some(bytes) => {
                    let name = text::escape(name);
                    notice(inbox::render(&name, Some(bytes), &view.problems).trim_end());
                }
                // Nobody has seen the file that a command became, so only the reasons help.
                None => {
                    for one in view.problems {
                        let placeless = Problem { line: None, ..one };
                        notice(&format!("error: {}", problem(&placeless).trim_end()));
                    }
                }
            }
            Ok(Exit::NothingAccepted)
        }
        error => Err(error.into()),
    }
}

/// Shows what was accepted.
///
/// # Errors
///
/// Fails when standard output does.
pub(super) fn accept(session: &Session, receipt: &Receipt) -> Result<Exit> {
    match session.screen.format {
        Format::Json => session.screen.json(receipt)?,
        _ => session.screen.list(&RECEIPTS, &receipt.messages)?,
    }
    Ok(match receipt.messages.is_empty() {
        true => Exit::NothingAccepted,
        false => Exit::Success,
    })
}

/// Waits for messages and shows what came of them.
///
/// # Errors
///
/// Fails when the station is out of reach or standard output is.
pub(super) async fn wait_and_show(
    session: &Session,
    ids: &[MessageId],
    patience: Patience,
) -> Result<Exit> {
    let views = match wait(session, ids, patience).await {
        Ok(Some(views)) => views,
        Ok(None) => return Ok(Exit::NotFinal),
        Err(error) => {
            let noun = text::plural(ids.len() as u64, "message");
            notice(&format!(
                "{noun} accepted, but not followed to the end; the station keeps on. {}",
                resume(session, ids)
            ));
            return Err(error);
        }
    };
    show(session, &views)?;
    let states = views.iter().flat_map(|view| &view.deliveries);
    Ok(Exit::of_states(states.map(|delivery| delivery.state)))
}

/// Returns the messages when they are settled or patience is over; none when the operator left.
async fn wait(
    session: &Session,
    ids: &[MessageId],
    patience: Patience,
) -> Result<Option<Vec<MessageView>>> {
    let stop = Stop::on_signals()?;
    let limit = match settle(session, Meant { ids, nodes: None }, patience, &stop).await? {
        Ended::Detached => return Ok(None),
        Ended::Settled => patience.away(),
        // Patience is over: one attempt.
        Ended::TimedOut => Duration::ZERO,
    };
    let mut views = Vec::with_capacity(ids.len());
    for id in ids {
        views.push(whole(&session.client, *id, limit).await?);
    }
    Ok(Some(views))
}

fn show(session: &Session, views: &[MessageView]) -> Result<()> {
    let screen = &session.screen;
    match screen.format {
        Format::Json => screen.json(&Messages { messages: views }),
        Format::Jsonl => views.iter().try_for_each(|view| screen.json(view)),
        Format::Csv => deliveries::list(screen, views),
        Format::Name => views
            .iter()
            .try_for_each(|view| emit(&format!("{}\n", view.id))),
        Format::Table | Format::Wide => show_to_people(session, views),
    }
}

/// One node's output stands alone, as if the command had run here; many are grouped.
fn show_to_people(session: &Session, views: &[MessageView]) -> Result<()> {
    let screen = &session.screen;
    if let [view] = views
        && let [delivery] = view.deliveries.as_slice()
    {
        if let Some(output) = &delivery.stdout {
            if screen.is_terminal() {
                let lines = outcome::readable(output);
                emit(&lines)?;
                if !lines.is_empty() && !lines.ends_with('\n') {
                    emit("\n")?;
                }
            } else {
                emit_bytes(&output.head)?;
                emit_bytes(&output.tail)?;
                if let Some(line) = outcome::left_out("stdout", output) {
                    notice(&line);
                }
            }
        }
        if let Some(output) = &delivery.stderr {
            say(&outcome::readable(output));
        }
        let verdict = outcome::verdict(delivery, screen.paint());
        notice(&format!("{}: {verdict}", delivery.node));
        return Ok(());
    }
    for view in views {
        if views.len() > 1 {
            let name = view.name.as_deref().map(text::escape).unwrap_or_default();
            emit(&format!("message {} {name}\n", view.id))?;
        }
        emit(&format!("{}\n", outcome::grouped(view, screen.paint())))?;
    }
    notice(&outcome::summary(views));
    Ok(())
}
