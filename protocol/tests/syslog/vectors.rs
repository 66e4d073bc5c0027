//! Vectors: messages as senders write them, with the source of each, and what they are read as.
//!
//! `vectors.jsonl` has one JSON object per line: `name`, `source`, the message as `text` or, where it is not UTF-8, as
//! `hex`, and what is expected. What is absent there is absent in the message. `time` is what the time means to a
//! receiver in Berlin at [`RECEIVED`]. The same file is fed to other programs by [`super::peers`].

use std::fmt::Write;

use jiff::{Timestamp, tz::TimeZone};
use serde::{Deserialize, Serialize};
use steward_protocol::syslog::{self, Clock, Doubt, Message};

const VECTORS: &str = include_str!("vectors.jsonl");

/// When the messages are received.
const RECEIVED: &str = "2026-06-30T08:00:01Z";

/// Where.
const ZONE: &str = "Europe/Berlin";

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Vector {
    pub(super) name: String,
    pub(super) source: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hex: Option<String>,
    pub(super) read: Read,
}

/// What a message is read as.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Read {
    form: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pri: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    app: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    procid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    msgid: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    data: Vec<(String, Vec<(String, String)>)>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    marks: Vec<String>,
    message: String,
}

impl Vector {
    /// Returns the message's bytes.
    pub(super) fn raw(&self) -> Vec<u8> {
        match (&self.text, &self.hex) {
            (Some(text), None) => text.clone().into_bytes(),
            (None, Some(hex)) => (0..hex.len())
                .step_by(2)
                .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
                .collect(),
            _ => panic!("{}: either text or hex", self.name),
        }
    }
}

/// Returns all vectors.
pub(super) fn all() -> Vec<Vector> {
    let vectors = VECTORS.lines().map(|line| serde_json::from_str(line));
    vectors.collect::<Result<_, _>>().expect("vectors.jsonl")
}

/// Returns bytes as text; what is not UTF-8 as `\xff`.
pub(super) fn shown(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            write!(text, "\\x{byte:02x}").unwrap();
        }
    }
    text
}

fn read(raw: &[u8]) -> Read {
    let zone = TimeZone::get(ZONE).unwrap();
    let clock = Clock::new(RECEIVED.parse::<Timestamp>().unwrap(), &zone);
    let message = Message::parse(raw);
    let mut marks = Vec::new();
    let sent = message.stamp().map(|stamp| clock.resolve(&stamp));
    match sent {
        Some(None) => marks.push("no such moment"),
        Some(Some(sent)) if sent.doubt == Some(Doubt::Ahead) => marks.push("ahead"),
        Some(Some(sent)) if sent.doubt == Some(Doubt::Behind) => marks.push("behind"),
        _ => {}
    }
    for (is, mark) in [
        (message.has_bom(), "bom"),
        (message.has_ill_formed_data(), "ill-formed data"),
    ] {
        if is {
            marks.push(mark);
        }
    }
    let pri = message.facility().zip(message.severity());
    assert_eq!(pri, syslog::pri(raw), "the quick way to the PRI");
    assert_eq!(message.app(), syslog::app(raw), "the quick way to the name");
    let data = message.data().map(|element| {
        let parameters = element
            .parameters()
            .map(|parameter| (shown(parameter.name()), shown(&parameter.value())));
        (shown(element.id()), parameters.collect())
    });
    Read {
        form: message.form().as_str().to_owned(),
        pri: pri.map(|(facility, severity)| format!("{facility}.{severity}")),
        time: sent.flatten().map(|sent| sent.at.to_string()),
        host: message.host().map(shown),
        app: message.app().map(shown),
        procid: message.procid().map(shown),
        msgid: message.msgid().map(shown),
        data: data.collect(),
        marks: marks.into_iter().map(str::to_owned).collect(),
        message: shown(message.text()),
    }
}

#[test]
fn every_vector_is_read_as_it_says() {
    let vectors = all();
    let mut wrong = String::new();
    for vector in &vectors {
        let read = read(&vector.raw());
        if read != vector.read {
            writeln!(
                wrong,
                "{}: {}",
                vector.name,
                serde_json::to_string(&read).unwrap()
            )
            .unwrap();
        }
    }
    assert!(wrong.is_empty(), "read otherwise:\n{wrong}");
    let mut names: Vec<_> = vectors.iter().map(|vector| &vector.name).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), vectors.len(), "every vector has its own name");
}
