//! How a message is written into a file of the mirror: one line, whatever is in it. Pure.

use std::io::Write as _;

use jiff::{Timestamp, tz::TimeZone};
use steward_protocol::{
    logs::{Gap, Micros, Record},
    syslog::Message,
};

use super::super::{follow::Item, name::Line, words};

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Time of receipt, node, program, text: as rsyslog's own files (`RSYSLOG_FileFormat`).
    ShortIso,
    /// The text alone.
    Cat,
    /// The message as it came, with its header.
    Raw,
}

/// Adds the line for what was read.
pub fn put(out: &mut Vec<u8>, format: Format, line: &Line, item: &Item<'_>) {
    match item {
        Item::Message(record) => message(out, format, line, record),
        Item::Gap(at, gap) => missing(out, format, line, (*at, gap)),
    }
    out.push(b'\n');
}

fn message(out: &mut Vec<u8>, format: Format, line: &Line, record: &Record<'_>) {
    match format {
        Format::Raw => escape(out, record.bytes),
        Format::Cat => escape(out, Message::parse(record.bytes).text()),
        Format::ShortIso => {
            let message = Message::parse(record.bytes);
            begin(out, record.received.timestamp(), line);
            if let Some(app) = message.app().filter(|app| !app.is_empty()) {
                out.push(b' ');
                escape(out, app);
                if let Some(procid) = message.procid().filter(|procid| !procid.is_empty()) {
                    out.push(b'[');
                    escape(out, procid);
                    out.push(b']');
                }
                out.push(b':');
            }
            out.push(b' ');
            escape(out, message.text());
        }
    }
    if record.is_cut() {
        write(
            out,
            format_args!(" ... (cut, it had {} bytes)", record.original),
        );
    }
}

fn missing(out: &mut Vec<u8>, format: Format, line: &Line, (at, gap): (Micros, &Gap)) {
    if format == Format::ShortIso {
        begin(out, at.timestamp(), line);
        out.extend_from_slice(b" steward: ");
    }
    out.extend_from_slice(b"-- ");
    escape(out, words::missing(gap).as_bytes());
    out.extend_from_slice(b" --");
}

fn begin(out: &mut Vec<u8>, at: Timestamp, line: &Line) {
    // One zone for ever: a file is read long after, and elsewhere.
    let at = at.to_zoned(TimeZone::UTC);
    write(
        out,
        format_args!("{} {}", at.strftime("%Y-%m-%dT%H:%M:%S%.6f%:z"), line.node),
    );
}

/// Adds bytes as they are, but for what would end the line or act on a terminal: that becomes `\x0a`. What frames
/// a message at its end is left out.
fn escape(out: &mut Vec<u8>, bytes: &[u8]) {
    let is_framing = |byte: &u8| matches!(byte, 0 | b'\n' | b'\r');
    let end = bytes.iter().rposition(|byte| !is_framing(byte));
    let bytes = bytes
        .get(..end.map_or(0, |end| end + 1))
        .unwrap_or_default();
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(acts) {
        let (sound, other) = rest.split_at(at);
        out.extend_from_slice(sound);
        // In UTF-8, the controls beyond ASCII are C2 80 to C2 9F; C2 alone is what it is.
        let (taken, written) = match other {
            [0xc2, second @ 0x80..=0x9f, ..] => (2, Some((0xc2, *second))),
            [0xc2, ..] => (1, None),
            [one, ..] => (1, Some((*one, 0))),
            [] => break,
        };
        match written {
            Some((0xc2, second)) => write(out, format_args!("\\xc2\\x{second:02x}")),
            Some((one, _)) => write(out, format_args!("\\x{one:02x}")),
            None => out.push(0xc2),
        }
        rest = other.get(taken..).unwrap_or_default();
    }
    out.extend_from_slice(rest);
}

fn acts(byte: &u8) -> bool {
    matches!(byte, 0..=8 | 10..=0x1f | 0x7f | 0xc2)
}

fn write(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    // Writing to memory does not fail.
    out.write_fmt(text).ok();
}
