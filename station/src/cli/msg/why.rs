//! `steward msg why`: why a delivery stands as it does, in sentences.

use anyhow::Result;
use clap::Args;
use steward_protocol::NodeName;

use crate::{
    cli::{
        Exit, Session,
        client::encode,
        render::{
            Format, Listing, Screen, emit, stdout_width,
            table::{Cell, Column, Show},
            text::{escape, indent, time_and_age, wrap},
        },
    },
    view::{Sentence, WhyView},
};

/// Widest line of an explanation: beyond it, reading gets hard.
const WIDTH: usize = 100;

/// The arguments of `steward msg why`.
#[derive(Debug, Args)]
pub(in crate::cli) struct WhyArgs {
    /// The message: its id, or as much of it as is unambiguous
    #[arg(value_parser = super::id)]
    id: String,
    /// The node
    node: NodeName,
}

const LISTING: Listing<Sentence> = Listing {
    columns: &[
        Column {
            title: "AT",
            show: Show::Always,
            cell: |sentence| Cell::time(sentence.at),
        },
        Column {
            title: "BY",
            show: Show::Always,
            cell: |sentence| Cell::maybe(sentence.by.as_deref()),
        },
        Column {
            title: "TEXT",
            show: Show::Always,
            cell: |sentence| Cell::text(&sentence.text),
        },
    ],
    name: |sentence| sentence.text.clone(),
    empty: "nothing is known",
};

pub(super) async fn why(session: &Session, args: &WhyArgs) -> Result<Exit> {
    let path = format!("/messages/{}/why/{}", encode(&args.id), args.node);
    let view: WhyView = session.client.get(&path).await?;
    let screen = &session.screen;
    match screen.format {
        Format::Json | Format::Jsonl => screen.json(&view)?,
        Format::Csv => screen.list(&LISTING, &view.sentences)?,
        Format::Name => emit(&format!("{}\n", view.state))?,
        Format::Table | Format::Wide => {
            let width = screen.is_terminal().then(|| stdout_width().min(WIDTH));
            emit(&page(screen, &view, width))?;
        }
    }
    Ok(Exit::Success)
}

/// One sentence per line; on a terminal, folded to its width.
fn page(screen: &Screen, view: &WhyView, width: Option<usize>) -> String {
    let mut page = format!(
        "{}: {} since {}\n",
        view.node,
        screen.cell(&Cell::state(view.state)),
        time_and_age(view.since, screen.now)
    );
    for sentence in &view.sentences {
        let line = escape(&sentence.text);
        let block = match width {
            Some(width) => wrap(&line, width.saturating_sub(2)),
            None => line,
        };
        page += &indent(&block, 2);
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_explanation_is_folded_and_cannot_act_on_the_terminal() {
        let at = "2026-11-21T08:00:00Z".parse().expect("a time");
        let sentence = |text: &str| Sentence {
            text: text.to_owned(),
            at: None,
            by: None,
        };
        let view = WhyView {
            id: "0190f000-0000-7000-8000-000000000001"
                .parse()
                .expect("an id"),
            name: None,
            node: "ship1".parse().expect("a name"),
            state: steward_protocol::State::Sent,
            since: at,
            sentences: vec![sentence("One two three."), sentence("Four \x1b[2J.")],
        };
        let screen = Screen::plain(Format::Table, at);
        assert_eq!(
            page(&screen, &view, Some(12)),
            "ship1: sent since 2026-11-21T08:00:00Z (now)\n  One two\n  three.\n  Four\n  \\x1b[2J.\n"
        );
        assert_eq!(
            page(&screen, &view, None),
            "ship1: sent since 2026-11-21T08:00:00Z (now)\n  One two three.\n  Four \\x1b[2J.\n"
        );
    }
}
