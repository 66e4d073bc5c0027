//! How a line of a log is written. What it says is hostile: nothing in it acts on a terminal.

use jiff::tz::TimeZone;

use crate::{
    cli::render::text::{escape_output, plural},
    logs::words,
    view::logs::{LogLine, Raw},
};

/// The ways for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// As journalctl's `short`.
    Short,
    /// The same with the whole time and its zone.
    ShortIso,
    /// The text alone.
    Cat,
    /// The bytes as they came.
    Raw,
}

/// Returns a line with its end. A gap is a line of its own.
pub(super) fn line(line: &LogLine, style: Style, zone: &TimeZone, terminal: bool) -> Vec<u8> {
    let bytes = |raw: &Option<Raw>| raw.as_ref().map(Raw::bytes).unwrap_or_default();
    match style {
        Style::Short | Style::ShortIso => short(line, style, zone).into_bytes(),
        Style::Cat => ended(bytes(&line.message), terminal),
        Style::Raw => ended(bytes(&line.raw), terminal),
    }
}

/// Byte for byte where a program reads, escaped where a person does.
fn ended(bytes: Vec<u8>, terminal: bool) -> Vec<u8> {
    let mut line = match terminal {
        true => one_line(&bytes).into_bytes(),
        false => bytes,
    };
    line.push(b'\n');
    line
}

fn short(line: &LogLine, style: Style, zone: &TimeZone) -> String {
    let received = line.received.to_zoned(zone.clone());
    let time = match style {
        Style::ShortIso => received.strftime("%Y-%m-%dT%H:%M:%S%.6f%:z").to_string(),
        _ => received.strftime("%b %d %H:%M:%S").to_string(),
    };
    let place = format!("{time} {}/{}", line.node, line.domain);
    if let Some(said) = gap(line) {
        return format!("{place} -- {said} --\n");
    }
    let part = |raw: &Option<Raw>| {
        raw.as_ref()
            .map(|raw| one_line(&raw.bytes()))
            .unwrap_or_default()
    };
    let (app, procid) = (part(&line.app), part(&line.procid));
    let who = match (app.is_empty(), procid.is_empty()) {
        (true, _) => String::new(),
        (false, true) => format!("{app}: "),
        (false, false) => format!("{app}[{procid}]: "),
    };
    let cut = match line.original {
        Some(bytes) => format!(" … (cut, it had {})", plural(bytes, "byte")),
        None => String::new(),
    };
    format!("{place} {who}{}{cut}\n", part(&line.message))
}

/// Returns what a gap says, if the line is one.
pub(super) fn gap(line: &LogLine) -> Option<String> {
    Some(missing(line.gap.as_ref()?))
}

/// Says what is missing and why.
pub(super) fn missing(gap: &steward_protocol::logs::Gap) -> String {
    one_line(words::missing(gap).as_bytes())
}

/// Returns bytes as text on one line that acts on nothing.
fn one_line(bytes: &[u8]) -> String {
    escape_output(bytes).replace('\n', "\\n")
}
