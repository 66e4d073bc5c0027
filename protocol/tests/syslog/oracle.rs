//! Another reader of syslog, the crate `syslog_loose`, asked about the same messages.
//!
//! Where both say that a message has the same form, they agree on its fields, or the difference stands in [`DIFFERENCES`] with
//! its reason.

use std::collections::BTreeSet;

use proptest::{option, prelude::*};
use steward_protocol::syslog::{Form, Message};
use syslog_loose::{Protocol, Variant};

use super::vectors;

/// Vectors that are read differently, and why.
const DIFFERENCES: &[(&str, &str)] = &[
    ("3164 no host", TAG_AS_HOST),
    ("3164 nginx without host", TAG_AS_HOST),
    ("3164 cisco asa", TAG_AS_HOST),
    ("3164 one word", TAG_AS_HOST),
    (
        "3164 no host with pid and no colon",
        "a pid proves a tag, whether a colon follows or not; rsyslog and syslog-ng say so",
    ),
    ("3164 year behind the time", "a year is no host"),
    (
        "3164 milliseconds",
        "fractions belong to the time; rsyslog and syslog-ng say so",
    ),
    (
        "3164 microseconds",
        "fractions belong to the time; rsyslog and syslog-ng say so",
    ),
    (
        "3164 pid empty",
        "brackets are not the program's name; rsyslog and syslog-ng say so",
    ),
    (
        "3164 bracket that stays open",
        "a bracket is not the program's name; rsyslog and syslog-ng say so",
    ),
    ("3164 nul", "the NUL is framing"),
    (
        "5424 ill-formed data",
        "what is no structured data is not thrown away",
    ),
];

/// A reason.
const TAG_AS_HOST: &str =
    "a word that ends with a colon is the tag, not the host; rsyslog and syslog-ng say so";

/// What both can tell: PRI, host, program, process, kind, text.
#[derive(Debug, PartialEq, Eq)]
struct Fields {
    pri: Option<u8>,
    rest: [Option<String>; 4],
    text: String,
}

fn ours(raw: &str) -> (Option<Form>, Fields) {
    let message = Message::parse(raw.as_bytes());
    let form = message.stamp().map(|_| message.form());
    let form = if message.form() == Form::Rfc5424 {
        Some(Form::Rfc5424)
    } else {
        form
    };
    let pri = message.facility().zip(message.severity());
    let fields = [
        message.host(),
        message.app(),
        message.procid(),
        message.msgid(),
    ];
    let fields = Fields {
        pri: pri.map(|(facility, severity)| facility.number() * 8 + severity.number()),
        rest: fields.map(|field| field.map(vectors::shown)),
        // The other one drops spaces around it.
        text: vectors::shown(message.text()).trim().to_owned(),
    };
    (form, fields)
}

fn theirs(raw: &str) -> (Option<Form>, Fields) {
    let message = syslog_loose::parse_message_with_year(raw, |_| 2026, Variant::Either);
    let form = match message.protocol {
        Protocol::RFC5424(1) => Some(Form::Rfc5424),
        Protocol::RFC5424(_) => None,
        Protocol::RFC3164 => message.timestamp.map(|_| Form::Rfc3164),
    };
    let pri = message.facility.zip(message.severity);
    let fields = Fields {
        pri: pri.map(|(facility, severity)| facility as u8 * 8 + severity as u8),
        rest: [
            message.hostname.map(str::to_owned),
            message.appname.map(str::to_owned),
            message.procid.map(|procid| procid.to_string()),
            message.msgid.map(str::to_owned),
        ],
        text: message.msg.trim_start_matches('\u{feff}').trim().to_owned(),
    };
    (form, fields)
}

#[test]
fn another_reader_finds_the_same_in_every_vector() {
    let mut different = BTreeSet::new();
    let mut compared = 0;
    let mut told = String::new();
    for vector in vectors::all() {
        let raw = vector.raw();
        let Ok(text) = std::str::from_utf8(&raw) else {
            continue;
        };
        let ((form, ours), (their_form, theirs)) = (ours(text), theirs(text));
        if form.is_none() || form != their_form {
            continue;
        }
        compared += 1;
        if ours != theirs {
            told += &format!("{}\n  ours   {ours:?}\n  theirs {theirs:?}\n", vector.name);
            different.insert(vector.name);
        }
    }
    let known: BTreeSet<_> = DIFFERENCES
        .iter()
        .map(|(name, _)| (*name).to_owned())
        .collect();
    assert_eq!(different, known, "{told}");
    assert!(compared >= 60, "both read {compared} vectors alike in form");
}

proptest! {
    #[test]
    fn another_reader_finds_the_same_in_plain_messages(
        pri in 0_u8..=191,
        day in 1_u8..=28,
        host in "[a-z][a-z0-9.-]{0,12}",
        app in "[a-z][a-z0-9_/.-]{0,12}",
        pid in option::of(1_u32..100_000),
        text in "[A-Za-z][ -~]{0,40}",
    ) {
        let pid = pid.map(|pid| format!("[{pid}]")).unwrap_or_default();
        for line in [
            format!("<{pri}>Jun {day:2} 10:00:00 {host} {app}{pid}: {text}"),
            format!("<{pri}>2026-06-{day:02}T10:00:00.5+02:00 {host} {app}{pid}: {text}"),
            format!("<{pri}>1 2026-06-{day:02}T10:00:00.5+02:00 {host} {app} - - - {text}"),
        ] {
            let ((form, ours), (their_form, theirs)) = (ours(&line), theirs(&line));
            prop_assert!(form.is_some());
            prop_assert_eq!(form, their_form);
            prop_assert_eq!(ours, theirs);
        }
    }
}
