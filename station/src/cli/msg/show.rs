//! `steward msg show`: one message and everything known of it.

use anyhow::Result;
use clap::Args;

use super::deliveries;
use crate::{
    cli::{
        Exit, Session,
        client::encode,
        outcome::{readable, summary, verdict},
        render::{
            Format, Screen, emit,
            table::{Tone, settle, tone_of},
            text::{escape, fields, indent, time_and_age},
        },
    },
    view::{DeliveryView, MessageView},
};

/// Up to this many deliveries are shown one by one; of more, the table says enough.
const DETAILED: usize = 10;

/// Most lines of one output shown; the rest is one command away.
const OUTPUT_LINES: usize = 20;

/// The arguments of `steward msg show`.
#[derive(Debug, Args)]
pub(in crate::cli) struct ShowArgs {
    /// The message: its id, or as much of it as is unambiguous
    #[arg(value_parser = super::id)]
    id: String,
}

pub(super) async fn show(session: &Session, args: &ShowArgs) -> Result<Exit> {
    let path = format!("/messages/{}", encode(&args.id));
    let view: MessageView = session.client.get(&path).await?;
    let screen = &session.screen;
    match screen.format {
        Format::Json | Format::Jsonl => screen.json(&view)?,
        Format::Csv => deliveries::list(screen, &[view])?,
        Format::Name => emit(&format!("{}\n", view.id))?,
        Format::Table | Format::Wide => emit(&page(screen, &view))?,
    }
    Ok(Exit::Success)
}

fn page(screen: &Screen, view: &MessageView) -> String {
    let mut page = header(screen, view);
    page.push('\n');
    page += &deliveries::table(screen, view);
    if view.deliveries.len() <= DETAILED || screen.format == Format::Wide {
        for delivery in &view.deliveries {
            page.push('\n');
            page += &detail(screen, view, delivery);
        }
    } else {
        page += "\nmore of each node with -o wide\n";
    }
    page
}

fn header(screen: &Screen, view: &MessageView) -> String {
    let mut rows = vec![
        ("message", view.id.to_string()),
        ("name", view.name.as_deref().map_or("-".to_owned(), escape)),
        ("source", escape(&view.source)),
        ("submitted by", escape(&view.submitted_by)),
        ("accepted", time_and_age(view.accepted_at, screen.now)),
        ("expires", time_and_age(view.expires_at, screen.now)),
    ];
    rows.extend(view.retry_of.map(|id| ("retry of", id.to_string())));
    let again: Vec<String> = view.retried_by.iter().map(ToString::to_string).collect();
    if !again.is_empty() {
        rows.push(("retried by", again.join(", ")));
    }
    rows.push(("state", summary([view])));
    fields(&rows)
}

fn detail(screen: &Screen, view: &MessageView, delivery: &DeliveryView) -> String {
    let mut block = format!("{}: {}\n", delivery.node, verdict(delivery, screen.paint()));
    for transition in &delivery.transitions {
        let state = transition.state;
        // Padded before it is marked: the marks count as characters.
        let word = settle(&tone_of(state).mark(&format!("{state:11}")), screen.paint());
        let reason = transition.reason.as_deref().map(escape);
        let reason = reason.map_or(String::new(), |reason| format!(": {reason}"));
        block += &format!(
            "  {word}  {}  by {}{reason}\n",
            time_and_age(transition.at, screen.now),
            escape(&transition.observed_by),
        );
    }
    for note in &delivery.notes {
        block += &format!(
            "  {:11}  {}  by {}: {}\n",
            "note",
            time_and_age(note.at, screen.now),
            escape(&note.by),
            escape(&note.text),
        );
    }
    for (name, output) in [("stdout", &delivery.stdout), ("stderr", &delivery.stderr)] {
        let Some(output) = output.as_ref().filter(|output| output.bytes > 0) else {
            continue;
        };
        let lines = readable(output);
        let shown: Vec<&str> = lines.lines().take(OUTPUT_LINES).collect();
        block += &format!("  {name}, {} bytes:\n", output.bytes);
        block += &indent(&shown.join("\n"), 4);
        if lines.lines().count() > shown.len() || output.is_truncated() {
            let command = format!(
                "steward msg output {} {} --stream {name}",
                view.id, delivery.node
            );
            block += &format!("    {}\n", screen.tinted(&command, Tone::Faint));
        }
    }
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_shown_with_everything_known_of_it() {
        let view: MessageView =
            serde_json::from_str(include_str!("../../../tests/golden/message.json"))
                .expect("the golden message is one");
        let now = "2026-11-21T08:05:00Z".parse().expect("a time");
        let page = page(&Screen::plain(Format::Table, now), &view);
        assert_eq!(page, include_str!("../../../tests/golden/msg_show.txt"));
    }
}
