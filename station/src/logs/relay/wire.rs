//! How a message is written for a syslog receiver: RFC 5424, with its length in front (RFC 6587, 3.4.1). Pure.
//!
//! What is RFC 5424 already goes as it came. Everything else gets a header; its text stays byte for byte, also where it is no UTF-8.

use std::io::Write as _;

use jiff::{Timestamp, tz::TimeZone};
use steward_protocol::{
    logs::{Gap, Micros, Record},
    syslog::{Clock, Form, Message, pri},
};

use super::super::{follow::Item, name::Line, words};

/// Where we say which node and domain a message is of. 32473 is the number for examples (RFC 5612): Steward has none
/// of its own.
pub const SD_ID: &str = "steward@32473";

/// Facility `user`, of what names none.
const USER: u8 = 1;

/// Facility `syslog` and severity `warning`: what we say ourselves.
const OURS: u8 = 5 * 8 + 4;

/// Longest names (RFC 5424, 6).
const MAX_HOST: usize = 255;
const MAX_APP: usize = 48;
const MAX_PROCID: usize = 128;
const MAX_MSGID: usize = 32;

/// Writes messages; keeps its memory.
#[derive(Debug, Default)]
pub struct Wire {
    out: Vec<u8>,
    one: Vec<u8>,
}

impl Wire {
    /// Adds what was read.
    pub fn put(&mut self, line: &Line, item: &Item<'_>) {
        let before = self.one.len();
        debug_assert_eq!(before, 0, "each is framed by itself");
        match item {
            Item::Message(record) if is_rfc5424(record.bytes) => {
                self.one.extend_from_slice(record.bytes);
            }
            Item::Message(record) => message(&mut self.one, line, record),
            Item::Gap(at, gap) => missing(&mut self.one, line, (*at, gap)),
        }
        write(&mut self.out, format_args!("{} ", self.one.len()));
        self.out.append(&mut self.one);
    }

    /// Returns what is to be sent.
    pub fn bytes(&self) -> &[u8] {
        &self.out
    }

    /// Forgets it.
    pub fn clear(&mut self) {
        self.out.clear();
    }
}

/// Tells whether a message is RFC 5424 to the letter, as far as a receiver needs it.
fn is_rfc5424(bytes: &[u8]) -> bool {
    let mut fields = bytes.splitn(7, |byte| *byte == b' ');
    let has_header = fields
        .by_ref()
        .take(6)
        .filter(|field| !field.is_empty())
        .count()
        == 6;
    let Some(rest) = fields.next().filter(|_| has_header && pri(bytes).is_some()) else {
        return false;
    };
    if bytes.starts_with(b"<0") && !bytes.starts_with(b"<0>") {
        return false;
    }
    let message = Message::parse(bytes);
    let has_data = rest == b"-" || rest.starts_with(b"- ") || !message.raw_data().is_empty();
    message.form() == Form::Rfc5424 && has_data && !message.has_ill_formed_data()
}

fn message(out: &mut Vec<u8>, line: &Line, record: &Record<'_>) {
    let message = Message::parse(record.bytes);
    let facility = message
        .facility()
        .map_or(USER, |facility| facility.number());
    let received = record.received.timestamp();
    // A sender that names no zone is taken to be in UTC.
    let zone = TimeZone::UTC;
    let clock = Clock::new(received, &zone);
    let stamp = message.stamp();
    let sent = stamp.and_then(|stamp| Some(clock.resolve(&stamp)?.at));
    write(
        out,
        format_args!("<{}>1 ", facility * 8 + record.severity.min(7)),
    );
    time(out, sent.unwrap_or(received));
    let host = message.host().unwrap_or(line.node.as_str().as_bytes());
    for (name, longest) in [
        (Some(host), MAX_HOST),
        (message.app(), MAX_APP),
        (message.procid(), MAX_PROCID),
        (message.msgid(), MAX_MSGID),
    ] {
        field(out, name, longest);
    }
    write(
        out,
        format_args!(
            " [{SD_ID} node=\"{}\" domain=\"{}\"",
            line.node, line.domain
        ),
    );
    if record.is_cut() {
        write(out, format_args!(" length=\"{}\"", record.original));
    }
    out.push(b']');
    out.extend_from_slice(message.raw_data());
    if !message.text().is_empty() {
        out.push(b' ');
        out.extend_from_slice(message.text());
    }
}

fn missing(out: &mut Vec<u8>, line: &Line, (at, gap): (Micros, &Gap)) {
    write(out, format_args!("<{OURS}>1 "));
    time(out, gap.until.unwrap_or(at).timestamp());
    let (node, domain) = (&line.node, &line.domain);
    write(
        out,
        format_args!(" {node} steward - gap [{SD_ID} node=\"{node}\" domain=\"{domain}\""),
    );
    write(out, format_args!(" reason=\"{}\"", words::reason(gap)));
    if let Some(count) = gap.count {
        write(out, format_args!(" count=\"{count}\""));
    }
    for (name, at) in [("since", gap.since), ("until", gap.until)] {
        if let Some(at) = at {
            write(out, format_args!(" {name}=\""));
            time(out, at.timestamp());
            out.push(b'"');
        }
    }
    write(
        out,
        format_args!("] {}/{}: {}", node, domain, words::missing(gap)),
    );
}

fn time(out: &mut Vec<u8>, at: Timestamp) {
    let year = at.to_zoned(TimeZone::UTC).year();
    match (0..=9999).contains(&year) {
        true => write(
            out,
            format_args!("{}", at.strftime("%Y-%m-%dT%H:%M:%S%.6fZ")),
        ),
        false => out.push(b'-'),
    }
}

/// Writes a field of the header: what may not stand in one becomes `_`.
fn field(out: &mut Vec<u8>, name: Option<&[u8]>, longest: usize) {
    out.push(b' ');
    let name = name.filter(|name| !name.is_empty()).unwrap_or(b"-");
    let allowed = |byte: &u8| match byte {
        b'!'..=b'~' => *byte,
        _ => b'_',
    };
    out.extend(name.iter().take(longest).map(allowed));
}

fn write(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    // Writing to memory does not fail.
    out.write_fmt(text).ok();
}
