//! Makes an RFC 5424 line of a journal entry: that is what is kept of it, and what everybody can read. Pure.
//!
//! `<PRI>1 TIME HOST APP PROCID MSGID [journal@32473 unit="…"] MESSAGE`. The message is what it was, byte for byte, line
//! ends and all. An entry that has the datagram it came as (`SYSLOG_RAW`: there was more in it than the journal made of
//! it) is that datagram.

use std::io::Write;

use jiff::{Timestamp, fmt::temporal::DateTimePrinter};
use steward_protocol::syslog::{Facility, Severity, level};

use super::export::{Entry, Value};

/// Names our structured data: the number is the one that RFC 5612 gives to everybody.
const DATA: &str = "journal@32473";

/// Longest name of a host, a program, a process and a kind of message (RFC 5424 §6).
const MAX_HOST: usize = 255;
const MAX_APP: usize = 48;
const MAX_PROCID: usize = 128;
const MAX_MSGID: usize = 32;

/// Prints a time with microseconds.
const PRINTER: DateTimePrinter = DateTimePrinter::new().precision(Some(6));

/// Writes an entry at the end of `line`, as much of it as was kept, and returns how long it would be.
pub(super) fn write(entry: &Entry, line: &mut Vec<u8>) -> u64 {
    if entry.raw.length > 0 {
        line.extend_from_slice(&entry.raw.bytes);
        return entry.raw.length;
    }
    let begin = line.len();
    header(entry, line);
    data(entry, line);
    let head = line.len() - begin;
    if entry.message.length == 0 {
        return head as u64;
    }
    line.push(b' ');
    line.extend_from_slice(&entry.message.bytes);
    head as u64 + 1 + entry.message.length
}

/// Returns the program's name: what it calls itself, else what the system does.
fn app(entry: &Entry) -> &Value {
    match entry.identifier.length {
        0 => &entry.command,
        _ => &entry.identifier,
    }
}

fn header(entry: &Entry, line: &mut Vec<u8>) {
    let severity = number(&entry.priority).and_then(Severity::from_number);
    let facility = number(&entry.facility).and_then(Facility::from_number);
    // What the journal itself takes a message without for.
    let pri = level::join(
        facility.unwrap_or(Facility::User),
        severity.unwrap_or(Severity::Notice),
    );
    // Writing to memory does not fail.
    write!(line, "<{pri}>1 ").ok();
    match number(&entry.realtime).and_then(|micros| Timestamp::from_microsecond(micros).ok()) {
        Some(at) => {
            PRINTER
                .print_timestamp(&at, jiff::fmt::StdIoWrite(&mut *line))
                .ok();
        }
        None => line.push(b'-'),
    }
    let pid = match entry.pid.length {
        0 => &entry.said_pid,
        _ => &entry.pid,
    };
    for (value, most) in [
        (&entry.host, MAX_HOST),
        (app(entry), MAX_APP),
        (pid, MAX_PROCID),
        (&entry.message_id, MAX_MSGID),
    ] {
        line.push(b' ');
        word(&value.bytes, most, line);
    }
}

/// Reads a number; nothing, if that is none or too large for what it is.
fn number<T: std::str::FromStr>(value: &Value) -> Option<T> {
    str::from_utf8(value.whole()?).ok()?.parse().ok()
}

/// Writes a word of the header: what may not stand there becomes `_`, and none at all `-`.
fn word(bytes: &[u8], most: usize, line: &mut Vec<u8>) {
    if bytes.is_empty() {
        line.push(b'-');
    }
    let shown = |byte: &u8| if byte.is_ascii_graphic() { *byte } else { b'_' };
    line.extend(bytes.iter().take(most).map(shown));
}

/// Writes what the header has no place for: the unit, and a program's name that does not fit.
fn data(entry: &Entry, line: &mut Vec<u8>) {
    let name = &app(entry).bytes;
    let fits = name.len() <= MAX_APP && name.iter().all(u8::is_ascii_graphic);
    let parameters = [
        ("unit", entry.unit.bytes.as_slice()),
        ("identifier", if fits { &[] } else { name.as_slice() }),
    ];
    line.push(b' ');
    if parameters.iter().all(|(_, value)| value.is_empty()) {
        return line.push(b'-');
    }
    line.push(b'[');
    line.extend_from_slice(DATA.as_bytes());
    for (name, value) in parameters
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
    {
        line.push(b' ');
        line.extend_from_slice(name.as_bytes());
        line.extend_from_slice(b"=\"");
        for byte in String::from_utf8_lossy(value).bytes() {
            if matches!(byte, b'"' | b'\\' | b']') {
                line.push(b'\\');
            }
            line.push(byte);
        }
        line.push(b'"');
    }
    line.push(b']');
}

#[cfg(test)]
mod tests {
    use steward_protocol::syslog::{Form, Message};

    use super::*;

    fn entry(fields: &[(&str, &[u8])]) -> Entry {
        let mut entry = Entry::default();
        for (name, bytes) in fields {
            let value = Value {
                bytes: bytes.to_vec(),
                length: bytes.len() as u64,
            };
            match *name {
                "realtime" => entry.realtime = value,
                "priority" => entry.priority = value,
                "facility" => entry.facility = value,
                "identifier" => entry.identifier = value,
                "command" => entry.command = value,
                "pid" => entry.pid = value,
                "said_pid" => entry.said_pid = value,
                "host" => entry.host = value,
                "unit" => entry.unit = value,
                "message_id" => entry.message_id = value,
                "message" => entry.message = value,
                "raw" => entry.raw = value,
                other => panic!("{other}"),
            }
        }
        entry
    }

    fn check(fields: &[(&str, &[u8])], line: &[u8]) {
        let mut written = Vec::new();
        let length = write(&entry(fields), &mut written);
        assert_eq!(
            String::from_utf8_lossy(&written),
            String::from_utf8_lossy(line)
        );
        assert_eq!(written, line);
        assert_eq!(length, line.len() as u64);
    }

    #[test]
    fn an_entry_becomes_a_line_with_its_message_as_it_was() {
        check(
            &[
                ("realtime", b"1795248000000017"),
                ("priority", b"3"),
                ("facility", b"4"),
                ("identifier", b"sshd"),
                ("command", b"sshd-session"),
                ("pid", b"812"),
                ("host", b"ship1"),
                ("unit", b"ssh.service"),
                ("message", b"two\nlines \xff\0"),
            ],
            b"<35>1 2026-11-21T08:00:00.000017Z ship1 sshd 812 - [journal@32473 unit=\"ssh.service\"] two\nlines \xff\0",
        );
    }

    #[test]
    fn what_is_absent_or_does_not_fit_is_said_so() {
        check(&[], b"<13>1 - - - - - -");
        check(
            &[
                ("realtime", b"x"),
                ("priority", b"9"),
                ("facility", b"24"),
                ("command", b"a b"),
                ("said_pid", b"7"),
                ("message_id", &[b'f'; 32]),
                ("message", b"hi"),
            ],
            b"<13>1 - - a_b 7 ffffffffffffffffffffffffffffffff [journal@32473 identifier=\"a b\"] hi",
        );
        check(
            &[("identifier", "\"]\\ü".as_bytes())],
            "<13>1 - - \"]\\__ - - [journal@32473 identifier=\"\\\"\\]\\\\ü\"]".as_bytes(),
        );
    }

    #[test]
    fn a_datagram_that_the_journal_kept_is_that_datagram() {
        let raw = b"<13>Nov 21 10:00:00 app: text \0 behind";
        check(&[("message", b"text"), ("raw", raw)], raw);
    }

    #[test]
    fn our_own_reader_finds_every_field_again() {
        let mut line = Vec::new();
        let entry = entry(&[
            ("realtime", b"1795248000000000"),
            ("priority", b"6"),
            ("facility", b"3"),
            ("identifier", b"systemd"),
            ("pid", b"1"),
            ("host", b"ship1"),
            ("unit", b"a\"b.service"),
            ("message_id", &[b'a'; 32]),
            ("message", b" leading, and [no data]"),
        ]);
        write(&entry, &mut line);
        let message = Message::parse(&line);
        assert_eq!(message.form(), Form::Rfc5424);
        assert_eq!(message.facility(), Some(Facility::Daemon));
        assert_eq!(message.severity(), Severity::from_number(6));
        assert_eq!(message.host(), Some(&b"ship1"[..]));
        assert_eq!(message.app(), Some(&b"systemd"[..]));
        assert_eq!(message.procid(), Some(&b"1"[..]));
        assert_eq!(message.msgid(), Some(&[b'a'; 32][..]));
        assert_eq!(message.text(), b" leading, and [no data]");
        let element = message.data().next().expect("structured data");
        let unit = element.parameters().next().expect("a parameter");
        assert_eq!(unit.value(), &b"a\"b.service"[..]);
    }
}
