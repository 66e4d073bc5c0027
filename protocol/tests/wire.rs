//! The bytes of every wire version, as files.
//!
//! IF A TEST HERE FAILS, DO NOT EDIT THE FILE. Programs in the field speak these bytes: the code
//! has changed the wire and must be mended, or the change needs a new version with files of its own.

use std::{collections::BTreeMap, path::Path};

use jiff::Timestamp;
use steward_protocol::{
    Ack, Budget, Cancel, Confirm, DecodeError, Deferral, Digest, Envelope, EventId, Facts,
    FaultEvent, Frame, Hello, InstanceId, JournalId, LedgerId, MessageId, Order, Origin, Outcome,
    Output, ProcessState, ProcessView, Reign, ReportEvent, Sealed, Send, State, TextEvent, Welcome,
    checksum,
    envelope::Body,
    limits::MAX_FRAME,
    transfer::{
        Ask, Chunk, CommandEnd, End, Extent, Failed, Failure, Packet, Passage, Transfer, Want,
        What, Whole,
    },
    version,
};
use uuid::Uuid;

const LEDGER: LedgerId = LedgerId(Uuid::from_u128(0x0f0e_0d0c_0b0a_4908_8706_0504_0302_0100));
const INSTANCE: InstanceId = InstanceId(Uuid::from_u128(0x1f1e_1d1c_1b1a_4918_9716_1514_1312_1110));
const JOURNAL: JournalId = JournalId(Uuid::from_u128(0x2f2e_2d2c_2b2a_4928_a726_2524_2322_2120));
const MESSAGE: MessageId = MessageId(Uuid::from_u128(0x0193_4d6a_7b00_7000_8000_0000_0000_0001));
const OTHER: MessageId = MessageId(Uuid::from_u128(0x0193_4d6a_7b00_7000_8000_0000_0000_0002));
const EVENT: EventId = EventId(Uuid::from_u128(0x0193_4d6a_7b00_7000_8000_0000_0000_0003));

fn at(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

fn order() -> Order {
    Order {
        id: MESSAGE,
        from: "central".parse().expect("a name"),
        to: "ship2".parse().expect("a name"),
        subject: "ship2.command.shellcommand.operatingsystem"
            .parse()
            .expect("a subject"),
        issued_at: at("2026-11-21T08:00:00Z"),
        expires_at: at("2026-11-22T08:00:00Z"),
        submitted_by: "uid:1000".to_owned(),
        retry_of: None,
        timeout_ms: 300_000,
        ordered: true,
        idempotent: false,
        success_codes: vec![0],
        stream: false,
        body: serde_json::value::RawValue::from_string(r#"{"data":["uname","-a"]}"#.to_owned())
            .expect("JSON"),
    }
}

fn envelope() -> Envelope {
    let send = Send {
        v: version::CURRENT,
        ledger_id: LEDGER,
        epoch: 3,
        instance: INSTANCE,
        pos: 41,
        low: 40,
        seq: Some(7),
        seq_low: Some(6),
        attempt: 1,
        ttl_left_ms: 86_400_000,
    };
    Frame {
        send,
        body: Sealed::seal(order()).expect("small enough"),
    }
}

fn reign() -> Reign {
    Reign {
        v: version::CURRENT,
        ledger_id: LEDGER,
        epoch: 3,
        instance: INSTANCE,
        low: 40,
    }
}

fn origin() -> Origin {
    Origin {
        v: version::CURRENT,
        instance: INSTANCE,
        journal_id: JOURNAL,
        ledger_id: Some(LEDGER),
    }
}

fn ack(state: State) -> Ack {
    Ack {
        id: MESSAGE,
        digest: envelope().body.digest(),
        state,
        at: at("2026-11-21T08:00:01.5Z"),
        reason: None,
        deferral: None,
        expected_seq: None,
        outcome: None,
    }
}

fn succeeded() -> Ack {
    let outcome = Outcome {
        exit_code: Some(0),
        signal: None,
        started_at: at("2026-11-21T08:00:01Z"),
        finished_at: at("2026-11-21T08:00:01.5Z"),
        stdout: Some(Output::whole(b"Linux\n")),
        stderr: Some(Output::whole(&[0xff, 0x00])),
    };
    Ack {
        outcome: Some(outcome),
        ..ack(State::Succeeded)
    }
}

fn hello() -> Hello {
    Hello {
        counter: 5,
        boot_id: "5a1f8a3e-0000-4000-8000-000000000000".to_owned(),
        version: "0.1.0".to_owned(),
        at: at("2026-11-21T08:00:00Z"),
        started_at: at("2026-11-21T07:59:59Z"),
        interval_ms: 10_000,
        round_trip_us: Some(850),
        labels: BTreeMap::from([("site".to_owned(), "bergen".to_owned())]),
        lanes: BTreeMap::from([("ship2.command.shellcommand.operatingsystem".to_owned(), 7)]),
        open: vec![MESSAGE],
        unconfirmed: vec![OTHER],
        processes: vec![ProcessView {
            subject: "ship2.command.shellcommand.operatingsystem"
                .parse()
                .expect("a subject"),
            state: ProcessState::Running,
            since: at("2026-11-21T08:00:00Z"),
            restarts: 1,
            queued: 2,
            handled: 3,
            last_fault: Some("panicked".to_owned()),
        }],
        counters: BTreeMap::from([("garbage".to_owned(), 2)]),
        leaving: false,
        facts: None,
        budgets: BTreeMap::new(),
    }
}

fn hello_with_facts() -> Hello {
    Hello {
        facts: Some(Facts {
            os: Some("Debian GNU/Linux 13 (trixie)".to_owned()),
            kernel: Some("6.12.48".to_owned()),
            arch: Some("x86_64".to_owned()),
            cpus: Some(4),
            memory_bytes: Some(4_123_181_056),
            memory_available_bytes: Some(2_061_590_528),
            disk_bytes: Some(31_000_000_000),
            disk_free_bytes: Some(12_500_000_000),
            uptime_s: Some(86_400),
            methods: None,
        }),
        budgets: BTreeMap::from([
            ("commands".to_owned(), Budget { used: 1, limit: 4 }),
            (
                "results_bytes".to_owned(),
                Budget {
                    used: 2048,
                    limit: 64 << 20,
                },
            ),
        ]),
        ..hello()
    }
}

/// Compares what is written today with the file, and reads the file back.
fn check<T: std::fmt::Debug>(
    name: &str,
    written: Vec<u8>,
    decode: impl Fn(&[u8]) -> Result<T, DecodeError>,
    same: impl Fn(&T) -> bool,
) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/wire/v1")
        .join(name);
    let golden = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(
        String::from_utf8_lossy(&written),
        String::from_utf8_lossy(&golden),
        "the bytes of {name} changed; do not edit the file"
    );
    let value = decode(&golden).expect("the golden bytes are understood");
    assert!(same(&value), "{name} came back as {value:?}");
}

fn check_body<H, B>(name: &str, send: H, body: B)
where
    H: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug,
    B: Body + PartialEq + std::fmt::Debug,
{
    let frame = Frame { send, body };
    let written = frame.encode().expect("encodes");
    check(name, written, Frame::<H, B>::decode, |read| read == &frame);
}

#[test]
fn version_1_order() {
    let same = |read: &Envelope| {
        read.send == envelope().send
            && read.body.text() == envelope().body.text()
            && read.body.order().to.as_str() == "ship2"
    };
    check(
        "order.json",
        envelope().encode().expect("encodes"),
        Envelope::decode,
        same,
    );
}

#[test]
fn version_1_acks() {
    check_body("ack-received.json", origin(), ack(State::Received));
    check_body("ack-succeeded.json", origin(), succeeded());
    let deferred = Ack {
        deferral: Some(Deferral::Gap),
        expected_seq: Some(6),
        reason: Some("6 is missing".to_owned()),
        ..ack(State::Deferred)
    };
    check_body("ack-deferred.json", origin(), deferred);
    let mut cut = succeeded();
    if let Some(stdout) = cut
        .outcome
        .as_mut()
        .and_then(|outcome| outcome.stdout.as_mut())
    {
        stdout.shrink(4);
    }
    check_body("ack-cut.json", origin(), cut);
}

#[test]
fn version_1_hello_and_welcome() {
    check_body("hello.json", origin(), hello());
    check_body("hello-facts.json", origin(), hello_with_facts());
    let mut limited = hello_with_facts();
    if let Some(facts) = &mut limited.facts {
        let names = ["hello", "ping"].map(|name| name.parse().expect("a name"));
        facts.methods = Some(names.into());
    }
    check_body("hello-methods.json", origin(), limited);
    let welcome = Welcome {
        at: at("2026-11-21T08:00:00.25Z"),
        hello_at: at("2026-11-21T08:00:00Z"),
    };
    check_body("welcome.json", reign(), welcome);
}

#[test]
fn version_1_confirm_and_fault() {
    check_body(
        "confirm.json",
        reign(),
        Confirm {
            orders: vec![MESSAGE],
            events: vec![EVENT],
        },
    );
    let fault = FaultEvent {
        id: EVENT,
        at: at("2026-11-21T08:00:00Z"),
        kind: "panic".to_owned(),
        subject: Some(
            "ship2.command.shellcommand.nginx"
                .parse()
                .expect("a subject"),
        ),
        detail: "the process panicked".to_owned(),
        verdict: "restart after 1 s".to_owned(),
    };
    check_body("fault.json", origin(), fault);
}

#[test]
fn version_1_text() {
    let text = TextEvent {
        id: EVENT,
        at: at("2026-11-21T08:00:00Z"),
        domain: "backup".parse().expect("a name"),
        order: Some(MESSAGE),
        after: Some(EventId(OTHER.0)),
        data: vec!["backup done".to_owned(), "caf\u{e9}\n".to_owned()],
    };
    check_body("text.json", origin(), text.clone());
    let first = TextEvent {
        order: None,
        after: None,
        ..text
    };
    check_body("text-first.json", origin(), first);
}

#[test]
fn version_1_report() {
    let order = envelope().body;
    let report = ReportEvent {
        id: EventId(MESSAGE.0),
        at: at("2026-11-21T08:00:01.5Z"),
        source: "schedule:disk".to_owned(),
        order: serde_json::value::RawValue::from_string(order.text().to_owned()).expect("JSON"),
        ack: succeeded(),
    };
    let (id, source) = (report.id, report.source.clone());
    let frame = Frame {
        send: origin(),
        body: report,
    };
    let written = frame.encode().expect("encodes");
    let same = |read: &Frame<Origin, ReportEvent>| {
        read.send == origin()
            && (read.body.id, &read.body.source) == (id, &source)
            && read.body.ack == succeeded()
            && read.body.order.get() == order.text()
    };
    check(
        "report.json",
        written,
        Frame::<Origin, ReportEvent>::decode,
        same,
    );
}

#[test]
fn version_1_order_with_its_checksum() {
    check(
        "order-checksum.json",
        checksum::append(envelope().encode().expect("encodes")),
        Envelope::decode,
        |read| read.send == envelope().send,
    );
}

#[test]
fn version_1_cancel() {
    let cancel = Cancel {
        id: MESSAGE,
        digest: envelope().body.digest(),
        subject: order().subject,
        at: at("2026-11-21T08:00:02Z"),
        by: "uid:1000".to_owned(),
    };
    check_body("cancel.json", envelope().send, cancel);
}

fn transfer(what: What) -> Transfer {
    Transfer {
        id: MESSAGE,
        digest: envelope().body.digest(),
        what,
    }
}

fn passage() -> Passage {
    Passage {
        v: version::CURRENT,
        ledger_id: LEDGER,
        epoch: 3,
    }
}

#[test]
fn version_1_want() {
    let want = Want {
        transfer: transfer(What::Output),
        attempt: Some(1),
        offset: 131_072,
        credit: 1_048_576,
        ask: Ask::More,
        reason: None,
    };
    check_body("want.json", passage(), want.clone());
    let first = Want {
        attempt: None,
        offset: 0,
        ask: Ask::Again,
        transfer: transfer(What::File),
        ..want.clone()
    };
    check_body("want-first.json", origin(), first);
    let given_up = Want {
        ask: Ask::GiveUp,
        reason: Some("there is no room".to_owned()),
        ..want
    };
    check_body("want-give-up.json", passage(), given_up);
}

#[test]
fn version_1_chunk() {
    let bytes = b"\x01\x00\x00\x00\x06Linux\n";
    let plain = Chunk {
        transfer: transfer(What::Output),
        attempt: 1,
        offset: 131_072,
        bytes: 11,
        blake3: Digest::of(bytes),
        end: None,
    };
    check_packet("chunk.bin", plain.clone(), bytes);
    let extent = |bytes: &[u8]| Extent {
        bytes: bytes.len() as u64,
        blake3: Digest::of(bytes),
    };
    let whole = Whole {
        bytes: 11,
        blake3: Digest::of(bytes),
        command: Some(CommandEnd {
            exit_code: Some(0),
            signal: None,
            stdout: extent(b"Linux\n"),
            stderr: extent(b""),
        }),
    };
    let last = Chunk {
        offset: 0,
        end: Some(End::Whole(whole)),
        ..plain.clone()
    };
    check_packet("chunk-end.bin", last, bytes);
    let failed = Chunk {
        transfer: transfer(What::File),
        bytes: 0,
        blake3: Digest::of(b""),
        end: Some(End::Failed(Failed::new(
            Failure::Changed,
            "the file changed while it was read",
        ))),
        ..plain
    };
    check_packet("chunk-failed.bin", failed, b"");
}

fn check_packet(name: &str, chunk: Chunk, bytes: &[u8]) {
    let written = Packet::encode(origin(), chunk.clone(), bytes).expect("small enough");
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/wire/v1")
        .join(name);
    let golden = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(
        written.escape_ascii().to_string(),
        golden.escape_ascii().to_string(),
        "the bytes of {name} changed; do not edit the file"
    );
    let read = Packet::<Origin>::decode(&golden).expect("the golden bytes are understood");
    assert_eq!((read.send, read.chunk), (origin(), chunk), "{name}");
    assert_eq!(read.bytes, bytes, "{name}");
}

#[test]
fn a_newer_version_is_refused_by_name_and_not_guessed_at() {
    let text = String::from_utf8(envelope().encode().expect("encodes")).expect("JSON");
    let newer = text.replacen("\"v\":1", "\"v\":2", 1);
    match Envelope::decode(newer.as_bytes()) {
        Err(DecodeError::Version {
            found: 2,
            order: Some((id, digest)),
        }) => {
            assert_eq!((id, digest), (MESSAGE, envelope().body.digest()));
        }
        other => panic!("expected a refusal of version 2, got {other:?}"),
    }
}

#[test]
fn what_is_added_later_is_ignored_and_kept() {
    let text = String::from_utf8(envelope().encode().expect("encodes")).expect("JSON");
    let grown = text
        .replacen("{\"id\"", "{\"colour\":\"red\",\"id\"", 1)
        .replacen("{\"send\"", "{\"trace\":1,\"send\"", 1);
    let read = Envelope::decode(grown.as_bytes()).expect("unknown fields are ignored");
    assert!(read.body.text().contains("\"colour\":\"red\""));
    assert_eq!(read.body.digest(), Digest::of(read.body.text().as_bytes()));
    assert_ne!(read.body.digest(), envelope().body.digest());
}

#[test]
fn a_frame_at_the_limit_is_read_and_one_beyond_is_not() {
    let limit = steward_protocol::limits::MAX_FRAME;
    for (bytes, expected) in [(limit - 1, true), (limit, true), (limit + 1, false)] {
        let mut text = envelope().encode().expect("encodes");
        text.resize(bytes, b' ');
        assert_eq!(Envelope::decode(&text).is_ok(), expected, "{bytes} bytes");
    }
}

#[test]
fn an_order_at_the_limit_is_sealed_and_one_beyond_is_not() {
    let limit = steward_protocol::limits::MAX_ORDER;
    let overhead = Sealed::seal(order()).expect("small").text().len() - order().body.get().len();
    for (bytes, expected) in [(limit - 1, true), (limit, true), (limit + 1, false)] {
        let body = format!("\"{}\"", "x".repeat(bytes - overhead - 2));
        let body = serde_json::value::RawValue::from_string(body).expect("JSON");
        assert_eq!(
            Sealed::seal(Order { body, ..order() }).is_ok(),
            expected,
            "{bytes} bytes"
        );
    }
}

#[test]
fn a_key_that_comes_twice_is_not_a_frame() {
    let text = String::from_utf8(envelope().encode().expect("encodes")).expect("JSON");
    let doubled = text.replacen("{\"send\"", "{\"order\":{},\"send\"", 1);
    assert!(matches!(
        Envelope::decode(doubled.as_bytes()),
        Err(DecodeError::Json(_))
    ));
}

#[test]
fn a_frame_with_a_checksum_damaged_in_any_one_bit_is_refused_or_means_the_same() {
    let sound = checksum::append(envelope().encode().expect("encodes"));
    let read = Envelope::decode(&sound).expect("a sound frame");
    assert_eq!(read.send, envelope().send);
    for bit in 0..sound.len() * 8 {
        let mut damaged = sound.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        if let Ok(read) = Envelope::decode(&damaged) {
            assert_eq!(read.send, envelope().send, "bit {bit}");
            assert_eq!(read.body.text(), envelope().body.text(), "bit {bit}");
        }
    }
}

#[test]
fn a_frame_too_large_for_a_checksum_stays_as_it_is() {
    for (length, has_one) in [(MAX_FRAME - 41, true), (MAX_FRAME - 40, false)] {
        let mut frame = vec![b' '; length];
        frame[length - 1] = b'}';
        let longer = checksum::append(frame.clone());
        assert_eq!(longer != frame, has_one, "{length}");
        assert!(longer.len() <= MAX_FRAME);
    }
}
