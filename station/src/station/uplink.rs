//! What nodes say, decoded: bytes on a subject become an event for the courier, or garbage.
//!
//! Pure. Garbage is told apart by kind, so that it can be counted and logged once per kind.

use steward_protocol::{
    Ack, DecodeError, Facts, FaultEvent, Frame, Hello, Kind, Method, NodeName, Origin, ReportEvent,
    Sealed, Subject, SubjectError, TextEvent, Uplink, envelope::Body, limits,
};

use crate::courier::{Event, KnownReport, Report};

/// A frame that means nothing here.
#[derive(Debug, thiserror::Error)]
pub(super) enum Garbage {
    /// The subject is not one towards a station.
    #[error("the subject {0}")]
    Subject(SubjectError),
    /// No node says such a thing.
    #[error("nobody says {0} to a station")]
    Method(String),
    /// The payload is not what the subject promises.
    #[error("the payload {error}")]
    Payload {
        /// What kind of frame it should have been.
        kind: &'static str,
        /// What is wrong with it.
        error: DecodeError,
    },
    /// The hello is larger than a node has any reason to make it.
    #[error("the hello of {node} has more {what} than the {limit} that are believed")]
    Excess {
        /// Who.
        node: String,
        /// Of what.
        what: &'static str,
        /// How much is believed.
        limit: usize,
    },
    /// A report that contradicts itself.
    #[error("the report {0}")]
    Report(String),
    /// The payload's own idea of its subject differs.
    #[error("what {0} says is about another node")]
    Sender(String),
}

impl Garbage {
    /// Returns the name it is counted under.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Subject(_) => "garbage_subject",
            Self::Method(_) => "garbage_method",
            Self::Payload { kind, .. } => kind,
            Self::Excess { .. } => "garbage_hello_size",
            Self::Report(_) => "garbage_report",
            Self::Sender(_) => "garbage_sender",
        }
    }
}

/// Processes of one node that are believed: an agent has at most 64 for orders, and a few of its own.
const MAX_PROCESSES: usize = 128;

/// Methods of one node that are believed: there are far fewer.
const MAX_METHODS: usize = 64;

/// Bytes of all texts of one hello, counters and lanes included, that are believed.
const MAX_TEXT: usize = 128 * 1024;

fn facts_text(facts: &Facts) -> usize {
    let texts = [&facts.os, &facts.kernel, &facts.arch];
    let methods = facts.methods.iter().flatten();
    let names = methods.map(|method| method.as_str().len());
    texts
        .into_iter()
        .flatten()
        .map(String::len)
        .chain(names)
        .sum()
}

/// The roster keeps what a hello says, so that it is bounded here.
fn check_size(node: &NodeName, hello: &Hello) -> Result<(), Garbage> {
    let labels = hello
        .labels
        .iter()
        .map(|(key, value)| key.len() + value.len());
    let faults = hello
        .processes
        .iter()
        .map(|process| process.last_fault.as_ref().map_or(0, String::len));
    let counters = hello.counters.keys().map(String::len);
    let text: usize = labels.chain(faults).chain(counters).sum::<usize>()
        + hello.budgets.keys().map(String::len).sum::<usize>()
        + hello.facts.as_ref().map_or(0, facts_text)
        + hello.version.len()
        + hello.boot_id.len();
    let methods = hello
        .facts
        .as_ref()
        .and_then(|facts| facts.methods.as_ref());
    let methods = methods.map_or(0, Vec::len);
    for (what, found, limit) in [
        ("labels", hello.labels.len(), limits::MAX_LABELS),
        ("methods", methods, MAX_METHODS),
        ("processes", hello.processes.len(), MAX_PROCESSES),
        ("bytes of text", text, MAX_TEXT),
        ("lanes", hello.lanes.len(), limits::MAX_IDS),
    ] {
        if found > limit {
            return Err(Garbage::Excess {
                node: node.to_string(),
                what,
                limit,
            });
        }
    }
    Ok(())
}

fn hello(node: NodeName, station: &NodeName, payload: &[u8]) -> Result<Event, Garbage> {
    let frame = frame::<Hello>(payload, "garbage_hello")?;
    let serves = |subject: &Subject| subject.node == node || subject.node == *station;
    let mut processes = frame.body.processes.iter();
    if !processes.all(|process| serves(&process.subject)) {
        return Err(Garbage::Sender(node.to_string()));
    }
    check_size(&node, &frame.body)?;
    Ok(Event::Hello {
        node,
        origin: frame.send,
        hello: Box::new(frame.body),
    })
}

/// Returns what `payload` on `subject` means.
pub(super) fn decode(subject: &str, payload: &[u8]) -> Result<Event, Garbage> {
    let Uplink {
        address,
        sender: node,
    } = subject.parse().map_err(Garbage::Subject)?;
    let unknown = || Garbage::Method(format!("{}.{}", address.kind, address.method));
    let method = Method::from_name(&address.method).ok_or_else(unknown)?;
    match (address.kind, method) {
        (Kind::Event, Method::Hello) => hello(node, &address.node, payload),
        (Kind::Event, Method::Ack) => {
            let frame = frame::<Ack>(payload, "garbage_ack")?;
            Ok(Event::Ack {
                node,
                origin: frame.send,
                ack: Box::new(frame.body),
            })
        }
        (Kind::Event, Method::Fault) => {
            let frame = frame::<FaultEvent>(payload, "garbage_fault")?;
            Ok(Event::Fault {
                node,
                origin: frame.send,
                fault: Box::new(frame.body),
            })
        }
        (Kind::Event, Method::Textlogging) => {
            let frame = frame::<TextEvent>(payload, "garbage_text")?;
            Ok(Event::Text {
                node,
                origin: frame.send,
                text: Box::new(frame.body),
            })
        }
        (Kind::Event, Method::Report) => {
            let frame = frame::<ReportEvent>(payload, "garbage_report")?;
            let report = report(&node, frame.body)?;
            Ok(Event::Report {
                node,
                origin: frame.send,
                report: Box::new(report),
            })
        }
        (
            Kind::Event,
            Method::Shellcommand
            | Method::Welcome
            | Method::Confirm
            | Method::Cancel
            | Method::Ping
            | Method::Filewrite
            | Method::Fileappend
            | Method::Filefetch
            | Method::Filesend
            | Method::Tailfile
            | Method::Httpget
            | Method::Processes
            | Method::Schedule
            | Method::Output
            | Method::Want
            | Method::Content
            // Batches of logs take a way of their own (`station/src/logs/hear.rs`).
            | Method::Syslogforwarding
            | Method::Kept,
        )
        | (Kind::Command, _) => Err(unknown()),
    }
}

/// Most bytes of what a report says gave its order.
const MAX_SOURCE: usize = 512;

/// Checks that a report does not contradict itself; what the ledger knows of it is added later.
fn report(node: &NodeName, event: ReportEvent) -> Result<Report, Garbage> {
    let wrong = |what: &str| Garbage::Report(what.to_owned());
    let order = Sealed::open(event.order.get()).map_err(|error| Garbage::Payload {
        kind: "garbage_report",
        error,
    })?;
    let (asked, ack) = (order.order(), event.ack);
    let from_source = event.source.starts_with("schedule:") || event.source.starts_with("startup:");
    if asked.to != *node || asked.subject.node != *node {
        return Err(Garbage::Sender(node.to_string()));
    }
    if !from_source || event.source.len() > MAX_SOURCE {
        return Err(wrong("does not say what gave the order"));
    }
    if ack.id != asked.id || ack.digest != order.digest() || event.id.0 != asked.id.0 {
        return Err(wrong("is about another order"));
    }
    if !ack.state.is_final() {
        return Err(wrong("is about an order that is not over"));
    }
    ack.check(&asked.success_codes)
        .map_err(|error| Garbage::Report(error.to_string()))?;
    Ok(Report {
        source: event.source,
        order,
        ack,
        known: KnownReport::New,
    })
}

/// Returns who said what became `event`.
pub(super) fn sender(event: &Event) -> Option<&NodeName> {
    match event {
        Event::Hello { node, .. }
        | Event::Ack { node, .. }
        | Event::Fault { node, .. }
        | Event::Text { node, .. }
        | Event::Report { node, .. } => Some(node),
        Event::Connected | Event::Disconnected | Event::NoResponders { .. } | Event::Tick => None,
    }
}

fn frame<B: Body>(payload: &[u8], kind: &'static str) -> Result<Frame<Origin, B>, Garbage> {
    Frame::<Origin, B>::decode(payload).map_err(|error| Garbage::Payload { kind, error })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use steward_protocol::{InstanceId, JournalId};
    use uuid::Uuid;

    use super::*;

    fn hello() -> Hello {
        let at = jiff::Timestamp::UNIX_EPOCH;
        Hello {
            counter: 1,
            boot_id: "boot".to_owned(),
            version: "0.1.0".to_owned(),
            at,
            started_at: at,
            interval_ms: 1000,
            round_trip_us: None,
            labels: BTreeMap::new(),
            lanes: BTreeMap::new(),
            open: Vec::new(),
            unconfirmed: Vec::new(),
            processes: Vec::new(),
            counters: BTreeMap::new(),
            leaving: false,
            facts: None,
            budgets: BTreeMap::new(),
        }
    }

    fn frame(hello: Hello) -> Vec<u8> {
        let send = Origin {
            v: 1,
            instance: InstanceId(Uuid::nil()),
            journal_id: JournalId(Uuid::nil()),
            ledger_id: None,
        };
        Frame { send, body: hello }.encode().expect("small enough")
    }

    fn numbered(count: usize) -> BTreeMap<String, String> {
        (0..count)
            .map(|number| (format!("k{number}"), String::new()))
            .collect()
    }

    #[test]
    fn garbage_is_told_apart_by_kind() {
        let good = frame(hello());
        for (subject, payload, expected) in [
            ("central.event.hello.node.ship1", &good[..], None),
            ("central.event.hello.node", &good, Some("garbage_subject")),
            (
                "central.event.hello.node.ship1.more",
                &good,
                Some("garbage_subject"),
            ),
            (
                "central.event.hello.node.sh*p",
                &good,
                Some("garbage_subject"),
            ),
            (
                "central.event.nonsense.node.ship1",
                &good,
                Some("garbage_method"),
            ),
            (
                "central.command.shellcommand.x.ship1",
                &good,
                Some("garbage_method"),
            ),
            (
                "central.event.welcome.node.ship1",
                &good,
                Some("garbage_method"),
            ),
            ("central.event.hello.node.ship1", b"", Some("garbage_hello")),
            ("central.event.ack.node.ship1", &good, Some("garbage_ack")),
            (
                "central.event.fault.node.ship1",
                &good,
                Some("garbage_fault"),
            ),
        ] {
            let kind = decode(subject, payload).err().map(|garbage| garbage.kind());
            assert_eq!(kind, expected, "{subject}");
        }
    }

    #[test]
    fn a_hello_is_believed_up_to_its_limits() {
        let labels = |count| Hello {
            labels: numbered(count),
            ..hello()
        };
        let text = |bytes: usize| Hello {
            version: "v".repeat(bytes - "boot".len()),
            ..hello()
        };
        let lanes = |count| Hello {
            lanes: numbered(count).into_keys().map(|key| (key, 1)).collect(),
            ..hello()
        };
        let methods = |count| Hello {
            facts: Some(Facts {
                methods: Some(vec!["m".parse().expect("a name"); count]),
                ..Facts::default()
            }),
            ..hello()
        };
        for (hello, expected) in [
            (labels(limits::MAX_LABELS - 1), true),
            (labels(limits::MAX_LABELS), true),
            (labels(limits::MAX_LABELS + 1), false),
            (text(MAX_TEXT - 1), true),
            (text(MAX_TEXT), true),
            (text(MAX_TEXT + 1), false),
            (lanes(limits::MAX_IDS), true),
            (lanes(limits::MAX_IDS + 1), false),
            (methods(MAX_METHODS), true),
            (methods(MAX_METHODS + 1), false),
        ] {
            let result = decode("central.event.hello.node.ship1", &frame(hello));
            assert_eq!(result.is_ok(), expected, "{:?}", result.err());
        }
    }

    fn process(subject: &str, fault: usize) -> steward_protocol::ProcessView {
        let text = "f".repeat(fault);
        let process = serde_json::json!({ "subject": subject, "state": "idle",
            "since": jiff::Timestamp::UNIX_EPOCH, "restarts": 0, "last_fault": text });
        serde_json::from_value(process).expect("a process")
    }

    fn kind_of(hello: Hello) -> Option<&'static str> {
        let result = decode("central.event.hello.node.ship1", &frame(hello));
        result.err().map(|garbage| garbage.kind())
    }

    #[test]
    fn every_text_of_a_hello_counts() {
        let short = "boot".len() + "0.1.0".len();
        let pair =
            |key: usize, value: usize| BTreeMap::from([("k".repeat(key), "v".repeat(value))]);
        let subject = "ship1.command.shellcommand.os";
        type Row = (&'static str, fn(&mut Hello, usize));
        let rows: [Row; 4] = [
            ("a boot id", |hello, bytes| {
                hello.boot_id = "b".repeat(bytes + 4)
            }),
            ("a version", |hello, bytes| {
                hello.version = "v".repeat(bytes + 5)
            }),
            ("a counter", |hello, bytes| {
                hello.counters = BTreeMap::from([("c".repeat(bytes), 1)]);
            }),
            ("a fault", |hello, bytes| {
                hello.processes = vec![process("ship1.command.shellcommand.os", bytes)];
            }),
        ];
        for (what, write) in rows {
            for (more, expected) in [(0, None), (1, Some("garbage_hello_size"))] {
                let mut hello = hello();
                write(&mut hello, MAX_TEXT - short + more);
                assert_eq!(kind_of(hello), expected, "{what}");
            }
        }
        for (more, expected) in [(0, None), (1, Some("garbage_hello_size"))] {
            let mut hello = hello();
            hello.labels = pair(1000, MAX_TEXT - short - 1000 + more);
            assert_eq!(kind_of(hello), expected, "a label");
        }
        for (count, expected) in [
            (MAX_PROCESSES, None),
            (MAX_PROCESSES + 1, Some("garbage_hello_size")),
        ] {
            let mut hello = hello();
            hello.processes = vec![process(subject, 0); count];
            assert_eq!(kind_of(hello), expected, "{count} processes");
        }
    }

    #[test]
    fn a_hello_speaks_of_its_senders_processes_only() {
        for (subject, expected) in [
            ("ship1.command.shellcommand.os", None),
            ("central.event.hello.node", None),
            ("ship2.command.shellcommand.os", Some("garbage_sender")),
        ] {
            let mut hello = hello();
            hello.processes = vec![process("ship1.event.hello.node", 0), process(subject, 0)];
            assert_eq!(kind_of(hello), expected, "{subject}");
        }
    }

    #[test]
    fn what_is_decoded_names_its_sender() {
        let send = || Origin {
            v: 1,
            instance: InstanceId(Uuid::nil()),
            journal_id: JournalId(Uuid::nil()),
            ledger_id: None,
        };
        let ack = serde_json::json!({ "id": Uuid::nil(), "digest": steward_protocol::Digest::of(b""),
            "state": "running", "at": jiff::Timestamp::UNIX_EPOCH });
        let ack: Ack = serde_json::from_value(ack).expect("an ACK");
        let fault = serde_json::json!({ "id": Uuid::nil(), "at": jiff::Timestamp::UNIX_EPOCH,
            "kind": "panic", "detail": "it panicked", "verdict": "restart" });
        let fault: FaultEvent = serde_json::from_value(fault).expect("a fault");
        let ack = Frame {
            send: send(),
            body: ack,
        }
        .encode();
        let fault = Frame {
            send: send(),
            body: fault,
        }
        .encode();
        let node: NodeName = "ship1".parse().expect("a name");
        for (method, payload) in [
            ("hello", frame(hello())),
            ("ack", ack.expect("small enough")),
            ("fault", fault.expect("small enough")),
        ] {
            let event = decode(&format!("central.event.{method}.x.ship1"), &payload);
            let event = event.unwrap_or_else(|error| panic!("{method}: {error}"));
            assert_eq!(sender(&event), Some(&node), "{method}");
        }
        assert_eq!(sender(&Event::Tick), None);
    }
}
