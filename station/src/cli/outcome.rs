//! What came of messages, for people: outputs and summaries.
//!
//! Pure: views in, text out.

use std::collections::BTreeMap;

use steward_protocol::{Output, State};

use super::render::{
    Paint,
    table::{settle, tone_of},
    text,
};
use crate::view::{DeliveryView, MessageView};

/// Most nodes named in one heading.
const MAX_NAMES: usize = 20;

/// Returns how one delivery ended, or where it stands: `failed, exit code 3, 0.42s`.
pub(crate) fn verdict(delivery: &DeliveryView, paint: Paint) -> String {
    let word = settle(
        &tone_of(delivery.state).mark(delivery.state.as_str()),
        paint,
    );
    let mut parts = vec![word];
    parts.extend(delivery.exit_code.map(|code| format!("exit code {code}")));
    parts.extend(delivery.signal.map(|signal| format!("signal {signal}")));
    if let (Some(start), Some(end)) = (delivery.started_at, delivery.finished_at) {
        parts.push(text::took(end.duration_since(start)));
    }
    parts.extend(delivery.reason.as_deref().map(text::escape));
    parts.extend(cancel_pending(delivery));
    parts.join(", ")
}

/// Says that somebody asked to cancel it and its node has not answered that yet.
pub(crate) fn cancel_pending(delivery: &DeliveryView) -> Option<String> {
    let cancel = delivery.cancel.as_ref()?;
    let pending = !delivery.state.is_final();
    pending.then(|| {
        format!(
            "cancel requested by {}, not confirmed by the node yet",
            text::escape(&cancel.by)
        )
    })
}

/// Returns the deliveries of `view`, those that came out alike under one heading.
pub(crate) fn grouped(view: &MessageView, paint: Paint) -> String {
    let mut groups: Vec<(&DeliveryView, Vec<&str>)> = Vec::new();
    for delivery in &view.deliveries {
        let node = delivery.node.as_str();
        match groups.iter_mut().find(|(first, _)| alike(first, delivery)) {
            Some((_, nodes)) => nodes.push(node),
            None => groups.push((delivery, vec![node])),
        }
    }
    groups
        .iter()
        .map(|(first, nodes)| {
            let mut block = format!("{}: {}\n", names(nodes), group_verdict(first, nodes, paint));
            block += &stream("", first.stdout.as_ref());
            block += &stream("stderr:", first.stderr.as_ref());
            block
        })
        .collect::<Vec<_>>()
        .join("\n")
}

fn alike(one: &DeliveryView, other: &DeliveryView) -> bool {
    let digest = |output: &Option<Output>| output.as_ref().map(|output| output.blake3);
    one.state == other.state
        && one.exit_code == other.exit_code
        && one.signal == other.signal
        && one.reason == other.reason
        && digest(&one.stdout) == digest(&other.stdout)
        && digest(&one.stderr) == digest(&other.stderr)
}

/// Members of a group took different times, so only a group of one tells its own.
fn group_verdict(first: &DeliveryView, nodes: &[&str], paint: Paint) -> String {
    if nodes.len() == 1 {
        return verdict(first, paint);
    }
    let timeless = DeliveryView {
        started_at: None,
        ..first.clone()
    };
    verdict(&timeless, paint)
}

fn names(nodes: &[&str]) -> String {
    let shown = nodes[..nodes.len().min(MAX_NAMES)].join(", ");
    match nodes.len() {
        1 => shown,
        count if count > MAX_NAMES => {
            format!("{shown} and {} more ({count} nodes)", count - MAX_NAMES)
        }
        count => format!("{shown} ({count} nodes)"),
    }
}

fn stream(title: &str, output: Option<&Output>) -> String {
    let Some(output) = output.filter(|output| output.bytes > 0) else {
        return String::new();
    };
    let mut block = String::new();
    if !title.is_empty() {
        block += &format!("  {title}\n");
    }
    block + &text::indent(&readable(output), if title.is_empty() { 2 } else { 4 })
}

/// Returns an output as safe lines, with a word where something is missing.
pub(crate) fn readable(output: &Output) -> String {
    let mut lines = text::escape_output(&output.head);
    if output.is_truncated() {
        if !lines.is_empty() && !lines.ends_with('\n') {
            lines.push('\n');
        }
        lines += &format!("… {} left out …\n", text::plural(output.omitted(), "byte"));
        lines += &text::escape_output(&output.tail);
    }
    lines
}

/// Says what is missing in the middle of an output; nothing where nothing is.
pub(crate) fn left_out(stream: &str, output: &Output) -> Option<String> {
    let (head, tail) = (output.head.len() as u64, output.tail.len() as u64);
    output.is_truncated().then(|| {
        format!(
            "{stream}: {} of {} left out after the first {head}; the first {head} and the last {tail} are kept, no more is stored anywhere",
            text::plural(output.omitted(), "byte"),
            output.bytes,
        )
    })
}

/// Returns the summary of all deliveries of all messages: `3 deliveries: 2 succeeded, 1 failed`.
pub(crate) fn summary<'a>(views: impl IntoIterator<Item = &'a MessageView>) -> String {
    let mut counts: BTreeMap<State, u64> = BTreeMap::new();
    for delivery in views.into_iter().flat_map(|view| &view.deliveries) {
        *counts.entry(delivery.state).or_default() += 1;
    }
    let total: u64 = counts.values().sum();
    let noun = if total == 1 { "delivery" } else { "deliveries" };
    format!("{total} {noun}: {}", tally(&counts))
}

/// Returns counted states as words: `2 succeeded, 1 failed`.
pub(crate) fn tally(counts: &BTreeMap<State, u64>) -> String {
    if counts.is_empty() {
        return "none".to_owned();
    }
    counts
        .iter()
        .map(|(state, count)| format!("{count} {state}"))
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests;
