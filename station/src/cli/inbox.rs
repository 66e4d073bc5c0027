//! `steward inbox …`: the files dropped into the inbox, and where they stand.

use std::ffi::OsStr;

use anyhow::{Result, bail};
use clap::Subcommand;

use super::{
    Exit, Session,
    render::{
        Format as Output, Listing, Screen, emit,
        table::{Cell, Column, Show},
        text::{escape, fields, indent, plural, time_and_age},
    },
};
use crate::{
    inbox::Format,
    view::{InboxFileView, InboxPlace, Problem, StatusView},
};

/// What can be asked about the inbox.
#[derive(Debug, Subcommand)]
pub(super) enum InboxVerb {
    /// List the files in and around the inbox
    Ls,
    /// Say where a file stands, why, and what happens next; without a file, how the inbox works
    Explain {
        /// The file's name, as it was dropped
        file: Option<String>,
    },
}

const LISTING: Listing<InboxFileView> = Listing {
    columns: &[
        Column {
            title: "FILE",
            show: Show::Always,
            cell: |file| Cell::Name(file.name.clone()),
        },
        Column {
            title: "PLACE",
            show: Show::Always,
            cell: |file| Cell::place(file.place),
        },
        Column {
            title: "SINCE",
            show: Show::Always,
            cell: |file| Cell::Time(file.since),
        },
        Column {
            title: "BYTES",
            show: Show::Always,
            cell: |file| Cell::number(file.bytes),
        },
        Column {
            title: "REASON",
            show: Show::Always,
            cell: |file| Cell::maybe(reason(file)),
        },
        Column {
            title: "MESSAGES",
            show: Show::Wide,
            cell: |file| {
                let ids: Vec<String> = file.messages.iter().map(ToString::to_string).collect();
                Cell::text(ids.join(" "))
            },
        },
    ],
    name: |file| file.name.clone(),
    empty: "the inbox is empty",
};

pub(super) async fn inbox(session: &Session, verb: InboxVerb) -> Result<Exit> {
    let files: Vec<InboxFileView> = session.client.get("/inbox").await?;
    let screen = &session.screen;
    let name = match verb {
        InboxVerb::Ls => {
            screen.list(&LISTING, &files)?;
            return Ok(Exit::Success);
        }
        InboxVerb::Explain { file: None } => {
            let status: StatusView = session.client.get("/status").await?;
            emit(&rules(&status))?;
            return Ok(Exit::Success);
        }
        InboxVerb::Explain { file: Some(name) } => name,
    };
    let named: Vec<InboxFileView> = files
        .into_iter()
        .filter(|file| is_called(file, &name))
        .collect();
    if named.is_empty() {
        bail!(
            "explain {}: no such file in or around the inbox; `steward inbox ls` lists them",
            escape(&name)
        );
    }
    match screen.format {
        Output::Table | Output::Wide => {
            let pages: Vec<String> = named.iter().map(|file| page(screen, file)).collect();
            emit(&pages.join("\n"))?;
        }
        Output::Json | Output::Jsonl | Output::Csv | Output::Name => {
            screen.list(&LISTING, &named)?;
        }
    }
    Ok(Exit::Success)
}

/// Claimed and accepted files carry a uuid before their name: `<uuid>--<name>`.
fn is_called(file: &InboxFileView, name: &str) -> bool {
    let dropped = file.name.split_once("--").map(|(_, dropped)| dropped);
    file.name == name || dropped == Some(name) || escape(name) == file.name
}

fn reason(file: &InboxFileView) -> Option<String> {
    file.reason
        .clone()
        .or_else(|| file.problems.first().map(|problem| problem.reason.clone()))
}

fn page(screen: &Screen, file: &InboxFileView) -> String {
    let mut rows = vec![
        ("file", escape(&file.name)),
        (
            "place",
            format!(
                "{} since {}",
                screen.cell(&Cell::place(file.place)),
                time_and_age(file.since, screen.now)
            ),
        ),
        ("size", plural(file.bytes, "byte")),
    ];
    rows.extend(file.reason.as_deref().map(|text| ("reason", escape(text))));
    rows.push(("next", next(file).to_owned()));
    for id in &file.messages {
        rows.push(("message", id.to_string()));
    }
    let problems: String = file.problems.iter().map(problem).collect();
    fields(&rows) + &indent(&problems, 2)
}

/// Returns one problem with its place and its hint.
pub(super) fn problem(problem: &Problem) -> String {
    let place = match (problem.line, problem.column) {
        (Some(line), Some(column)) => format!("line {line}, column {column}: "),
        (Some(line), None) => format!("line {line}: "),
        (None, _) => String::new(),
    };
    let hint = problem.hint.as_deref().map(escape);
    let hint = hint.map_or(String::new(), |hint| format!("; {hint}"));
    format!("{place}{}{hint}\n", escape(&problem.reason))
}

fn next(file: &InboxFileView) -> &'static str {
    match file.place {
        InboxPlace::Waiting if Format::of_name(OsStr::new(&file.name)) == Format::Yaml => {
            "nothing while it lies there: it is taken when it is renamed into the inbox while the station runs, or submitted"
        }
        InboxPlace::Waiting => {
            "taken once it is complete and has not changed for a while; a half-written file is rejected in the end"
        }
        InboxPlace::Processing => "accepted or rejected in a moment, also after a restart",
        InboxPlace::Rejected => {
            "nothing; correct the file and drop it again. It is kept with what was wrong beside it"
        }
        InboxPlace::Done => "nothing; follow its messages with `steward msg show ID`",
        InboxPlace::Ignored => {
            "nothing while it has this name: names that begin with a dot or end in ~, .tmp, .part or .swp are left alone. Rename it to have it read"
        }
    }
}

fn rules(status: &StatusView) -> String {
    let inbox = escape(&status.inbox.display().to_string());
    format!(
        "\
drop message files into   {inbox}
left alone                names that begin with a dot or end in ~, .tmp, .part or .swp
accepted files            {inbox}/.done/<date>/
rejected files            {inbox}/.rejected/, with what was wrong beside them

A file renamed into the folder is read at once, a copied one when its writer closes it.
JSON may be copied; YAML must be renamed into place or submitted, because half of it can be valid.
A file is accepted whole or rejected whole. The same content dropped again is a new request.
`steward check FILE` says what would happen, without sending anything.
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rejected_file_is_explained_with_place_reason_and_hint() {
        let file = InboxFileView {
            name: "a.json".to_owned(),
            place: InboxPlace::Rejected,
            since: "2026-11-21T08:00:00Z".parse().expect("a time"),
            bytes: 12,
            reason: None,
            problems: vec![Problem {
                line: Some(3),
                column: Some(7),
                path: "/0/dta".to_owned(),
                reason: "unknown field \"dta\"".to_owned(),
                hint: Some("did you mean \"data\"?".to_owned()),
            }],
            messages: Vec::new(),
        };
        let now = "2026-11-21T08:05:00Z".parse().expect("a time");
        let page = page(&Screen::plain(Output::Table, now), &file);
        assert_eq!(
            page,
            "\
file   a.json
place  rejected since 2026-11-21T08:00:00Z (5m ago)
size   12 bytes
next   nothing; correct the file and drop it again. It is kept with what was wrong beside it
  line 3, column 7: unknown field \"dta\"; did you mean \"data\"?
"
        );
        assert!(is_called(&file, "a.json"));
        assert!(!is_called(&file, "json"));
        for (name, expected) in [("a.json", "taken once"), ("a.YAML", "nothing while")] {
            let waiting = InboxFileView {
                name: name.to_owned(),
                place: InboxPlace::Waiting,
                ..file.clone()
            };
            assert!(next(&waiting).starts_with(expected), "{name}");
        }
    }
}
