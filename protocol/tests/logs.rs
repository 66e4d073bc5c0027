//! Batches of log records: what goes in comes out, the bytes stay what they are, and no bytes do harm.
//!
//! IF A TEST OF A FILE IN `wire/` FAILS, DO NOT EDIT THE FILE. Nodes in the field have such bytes on their disks: the
//! code has changed the layout and must be mended, or the change needs a new version with files of its own.

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use steward_protocol::{
    Digest, Frame, Generation, InstanceId, LedgerId, Reign, checksum,
    logs::{
        Batch, BatchError, Builder, Codec, Entry, Gap, Header, Kept, Kind, MAX_BATCH, MAX_BYTES,
        MAX_HEADER, MAX_RAW, MAX_SOURCE, MAX_SOURCES, Micros, Packer, Push, Reason, Stream,
        Unpacker, frame,
    },
    syslog::Severities,
    version,
};
use uuid::Uuid;

const GENERATION: Generation =
    Generation(Uuid::from_u128(0x0193_4d6a_7b00_7000_8000_0000_0000_0007));

/// What is to be seen, and how a header comes to be so.
type Change = (&'static str, fn(&mut Header));

/// When the golden records were received: 2026-11-21T08:00:00Z.
const AT: i64 = 1_795_248_000_000_000;

fn stream() -> Stream {
    Stream {
        generation: GENERATION,
        after: None,
        domain: "nginx".parse().expect("a name"),
    }
}

fn line(bytes: &[u8]) -> Entry<'_> {
    Entry {
        received: Micros(AT),
        source: "udp://127.0.0.1:5514",
        severity: 6,
        app: Some(b"nginx"),
        unparsed: false,
        original: None,
        bytes,
    }
}

/// One of everything.
fn golden() -> Builder {
    let mut builder = Builder::new(MAX_RAW);
    let first = line(b"<190>Nov 21 08:00:00 ship1 nginx: GET / 200");
    let cut = Entry {
        received: Micros(AT - 1_500),
        source: "file:///var/log/a.log",
        severity: 3,
        unparsed: true,
        original: Some(1 << 20),
        bytes: b"\xff\x00not syslog",
        ..first
    };
    let gap = Gap::new(Some(17), Reason::KernelDrop).between(Micros(AT), Micros(AT + 9));
    assert_eq!(builder.push(&first), Push::Taken);
    assert_eq!(builder.push(&cut), Push::Taken);
    assert_eq!(
        builder.push_gap(
            Micros(AT + 10),
            first.source,
            &gap.with_detail("of 3 sockets")
        ),
        Push::Taken
    );
    builder
}

fn pack(builder: &Builder, first: u64) -> Vec<u8> {
    let mut packer = Packer::new().expect("memory");
    packer
        .records(&stream(), first, builder)
        .expect("a batch")
        .to_vec()
}

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/wire/v1")
        .join(name)
}

fn is_as_in_file(name: &str, bytes: &[u8]) {
    let path = file(name);
    let expected = std::fs::read(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert!(
        bytes == expected,
        "{name} is another one now:\n{}",
        String::from_utf8_lossy(bytes)
    );
}

fn check_golden_records(payload: &[u8]) {
    let batch = Batch::read(payload).expect("a batch");
    let mut unpacker = Unpacker::new().expect("memory");
    unpacker.check(&batch).expect("is sound");
    let records: Vec<_> = unpacker
        .records(&batch)
        .expect("unpacks")
        .map(|record| record.expect("a record"))
        .collect();
    let [first, cut, gap] = records.as_slice() else {
        panic!("{} records", records.len());
    };
    assert_eq!(first.position, 41);
    assert_eq!(first.received, Micros(AT));
    assert_eq!(first.source, "udp://127.0.0.1:5514");
    assert_eq!(
        (first.severity, first.unparsed, first.is_cut()),
        (6, false, false)
    );
    assert_eq!(first.bytes, b"<190>Nov 21 08:00:00 ship1 nginx: GET / 200");
    assert_eq!(first.gap(), None);
    assert_eq!(cut.received, Micros(AT - 1_500));
    assert_eq!(cut.source, "file:///var/log/a.log");
    assert_eq!(
        (cut.severity, cut.unparsed, cut.original),
        (3, true, 1 << 20)
    );
    assert_eq!(cut.bytes, b"\xff\x00not syslog");
    assert_eq!(gap.position, 43);
    let gap = gap.gap().expect("a gap");
    assert_eq!((gap.count, gap.reason), (Some(17), Reason::KernelDrop));
    assert_eq!(gap.since, Some(Micros(AT)));
    assert_eq!(gap.detail.as_deref(), Some("of 3 sockets"));
    let header = batch.header();
    assert_eq!((header.first, header.count, header.next()), (41, 3, 44));
    assert_eq!(
        (header.from, header.to),
        (Micros(AT - 1_500), Micros(AT + 10))
    );
    assert_eq!(
        header.severities,
        Severities::from_bits(1 << 3 | 1 << 4 | 1 << 6)
    );
    assert_eq!(header.apps.as_deref(), Some(&["nginx".to_owned()][..]));
    assert_eq!((header.gaps, header.has_gaps()), (1, true));
}

#[test]
fn wire_v1_a_batch_that_does_not_compress_has_these_bytes() {
    let mut builder = Builder::new(MAX_RAW);
    let entry = line(b"\x01\x02\x03\x04");
    assert_eq!(builder.push(&entry), Push::Taken);
    let payload = pack(&builder, 0);
    let batch = Batch::read(&payload).expect("a batch");
    assert_eq!(batch.header().codec, Codec::None);
    is_as_in_file("log-batch-plain.bin", &payload);
}

/// Its bytes are up to zstd; that they can be read is up to us.
#[test]
fn wire_v1_a_compressed_batch_can_be_read() {
    let payload = std::fs::read(file("log-batch.bin")).expect("the file");
    check_golden_records(&payload);
    check_golden_records(&pack(&golden(), 41));
}

#[test]
fn wire_v1_a_gap_has_these_bytes() {
    let gap = Gap::new(Some(1000), Reason::SpoolFull).between(Micros(AT), Micros(AT + 5));
    let mut packer = Packer::new().expect("memory");
    let payload = packer.gap(&stream(), 44, 1000, gap.clone()).expect("a gap");
    is_as_in_file("log-gap.bin", payload);
    let batch = Batch::read(payload).expect("a batch");
    let header = batch.header();
    assert_eq!(
        (header.kind, header.first, header.next()),
        (Kind::Gap, 44, 1044)
    );
    assert_eq!((header.from, header.to), (Micros(AT), Micros(AT + 5)));
    assert_eq!(header.gap, Some(gap));
    assert!(header.has_gaps());
    let mut unpacker = Unpacker::new().expect("memory");
    assert_eq!(unpacker.records(&batch).expect("unpacks").count(), 0);
}

#[test]
fn wire_v1_the_stations_word_has_these_bytes() {
    let reign = Reign {
        v: version::CURRENT,
        ledger_id: LedgerId(Uuid::from_u128(1)),
        epoch: 3,
        instance: InstanceId(Uuid::from_u128(2)),
        low: 0,
    };
    for (name, again) in [("kept.json", false), ("kept-again.json", true)] {
        let body = Kept {
            generation: GENERATION,
            next: 44,
            again,
        };
        let encoded = Frame {
            send: reign.clone(),
            body,
        }
        .encode()
        .expect("small enough");
        is_as_in_file(name, &encoded);
        let decoded = Frame::<Reign, Kept>::decode(&encoded).expect("decodes");
        assert_eq!(decoded.body, body);
    }
}

#[test]
fn only_the_first_batch_of_a_numbering_names_the_one_before() {
    let after = Some(Generation(Uuid::from_u128(6)));
    let stream = Stream { after, ..stream() };
    let mut packer = Packer::new().expect("memory");
    for (first, expected) in [(0, after), (1, None)] {
        let payload = packer.records(&stream, first, &golden()).expect("a batch");
        let (header, _) = Header::read(payload).expect("a header");
        assert_eq!(header.after, expected, "{first}");
    }
}

#[test]
fn every_flipped_bit_of_a_batch_is_noticed() {
    let mut gap = Packer::new().expect("memory");
    let gap = gap
        .gap(&stream(), 44, 1000, Gap::new(None, Reason::Corrupt))
        .expect("a gap")
        .to_vec();
    for mut payload in [pack(&golden(), 41), gap] {
        for bit in 0..payload.len() * 8 {
            payload[bit / 8] ^= 1 << (bit % 8);
            assert!(Batch::read(&payload).is_err(), "bit {bit} is not noticed");
            payload[bit / 8] ^= 1 << (bit % 8);
        }
        for length in 0..payload.len() {
            assert!(Batch::read(&payload[..length]).is_err(), "{length} bytes");
        }
        payload.push(0);
        assert!(Batch::read(&payload).is_err(), "one byte more");
    }
}

#[test]
fn every_flipped_bit_of_a_head_is_noticed() {
    let mut head = frame::head(1234);
    assert_eq!(frame::length(&head), Some(1234));
    for bit in 0..head.len() * 8 {
        head[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(frame::length(&head), None, "bit {bit}");
        head[bit / 8] ^= 1 << (bit % 8);
    }
    let mut bytes = head[..7].to_vec();
    bytes.extend_from_slice(&head);
    assert_eq!(frame::find(&bytes), Some(7));
    assert_eq!(frame::find(&bytes[..bytes.len() - 1]), None);
    assert_eq!(frame::find(&[]), None);
}

/// A payload with this header, which nobody made, and this body.
fn forge(change: impl FnOnce(&mut Header), body: &[u8]) -> Vec<u8> {
    let payload = pack(&golden(), 41);
    let (mut header, _) = Header::read(&payload).expect("a header");
    header.body_len = u32::try_from(body.len()).expect("small");
    header.blake3 = Digest::of(body);
    change(&mut header);
    let json = checksum::append(serde_json::to_vec(&header).expect("JSON"));
    let mut forged = u32::try_from(json.len())
        .expect("small")
        .to_be_bytes()
        .to_vec();
    forged.extend_from_slice(&json);
    forged.extend_from_slice(body);
    forged
}

#[test]
fn a_batch_that_contradicts_itself_is_refused() {
    let changes: [Change; 11] = [
        ("no record", |header| header.count = 0),
        ("beyond what can be counted", |header| {
            header.first = u64::MAX - 1
        }),
        ("ends before it begins", |header| {
            header.from = Micros(i64::MAX)
        }),
        ("a gap with records", |header| header.kind = Kind::Gap),
        ("records with a gap", |header| {
            header.gap = Some(Gap::new(None, Reason::Other))
        }),
        ("more gaps than records", |header| header.gaps = 4),
        ("more records than bytes", |header| {
            header.count = u64::from(header.raw_len) / 4 + 1
        }),
        ("more bytes than are taken", |header| {
            header.raw_len = u32::MAX
        }),
        ("another length", |header| header.codec = Codec::None),
        ("more body than there is", |header| header.body_len += 1),
        ("too many sources", |header| {
            header.sources = vec![String::new(); MAX_SOURCES + 1]
        }),
    ];
    let payload = pack(&golden(), 41);
    let body = Batch::read(&payload).expect("a batch").body();
    assert!(
        Batch::read(&forge(|_| {}, body)).is_ok(),
        "the unchanged one"
    );
    for (what, change) in changes {
        assert!(Batch::read(&forge(change, body)).is_err(), "{what}");
    }
    let later = forge(|header| header.v = 2, body);
    assert!(matches!(Batch::read(&later), Err(BatchError::Version(2))));
}

#[test]
fn a_body_that_unpacks_to_more_than_it_names_is_refused() {
    let bomb = zstd::bulk::compress(&vec![0; 1 << 28], 1).expect("compresses");
    assert!(bomb.len() < 64 * 1024);
    let mut unpacker = Unpacker::new().expect("memory");
    for raw_len in [100, MAX_RAW as u32] {
        let payload = forge(|header| header.raw_len = raw_len, &bomb);
        let batch = Batch::read(&payload).expect("a batch, from the outside");
        assert!(matches!(
            unpacker.records(&batch),
            Err(BatchError::Unpack(_))
        ));
    }
    let short = zstd::bulk::compress(&[0; 99], 1).expect("compresses");
    let payload = forge(|header| header.raw_len = 100, &short);
    let batch = Batch::read(&payload).expect("a batch, from the outside");
    assert!(matches!(
        unpacker.records(&batch),
        Err(BatchError::Unpack(None))
    ));
}

#[test]
fn a_header_that_lies_about_its_records_is_found_out() {
    let payload = pack(&golden(), 41);
    let body = Batch::read(&payload).expect("a batch").body();
    let changes: [Change; 6] = [
        ("fewer records", |header| header.count = 2),
        ("more records", |header| header.count = 4),
        ("other times", |header| header.to.0 += 1),
        ("other severities", |header| {
            header.severities = Severities::ALL
        }),
        ("no gap", |header| header.gaps = 0),
        ("no source", |header| header.sources.truncate(1)),
    ];
    let mut unpacker = Unpacker::new().expect("memory");
    for (what, change) in changes {
        let payload = forge(change, body);
        let batch = Batch::read(&payload).expect("a batch, from the outside");
        assert!(unpacker.check(&batch).is_err(), "{what}");
    }
}

#[test]
fn a_batch_is_full_before_it_is_too_large() {
    let noise: Vec<u8> = (0..MAX_BYTES as u64)
        .map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u8)
        .collect();
    let mut builder = Builder::new(usize::MAX);
    let sources: Vec<String> = (0..MAX_SOURCES + 1)
        .map(|number| format!("{number}{}", "\u{1}".repeat(MAX_SOURCE)))
        .collect();
    let mut taken = 0;
    for (at, source) in sources.iter().cycle().enumerate() {
        let bytes = if at == 0 {
            &noise[..]
        } else {
            &noise[at..at + 100]
        };
        match builder.push(&Entry {
            source,
            ..line(bytes)
        }) {
            Push::Taken => taken += 1,
            Push::Full => break,
        }
    }
    assert!(taken > 1);
    while builder.push(&line(&noise[..1000])) == Push::Taken {}
    let payload = pack(&builder, 0);
    assert!(payload.len() <= MAX_BATCH);
    let batch = Batch::read(&payload).expect("a batch");
    Unpacker::new()
        .expect("memory")
        .check(&batch)
        .expect("is sound");
    builder.clear();
    let longest = vec![b'x'; MAX_BYTES + 1];
    assert_eq!(builder.push(&line(&longest)), Push::Taken);
    let payload = pack(&builder, 0);
    let batch = Batch::read(&payload).expect("a batch");
    let mut unpacker = Unpacker::new().expect("memory");
    let record = unpacker
        .records(&batch)
        .expect("unpacks")
        .next()
        .expect("one")
        .expect("a record");
    assert_eq!(record.bytes.len(), MAX_BYTES);
    assert_eq!(record.original, MAX_BYTES as u64 + 1);
    const { assert!(MAX_RAW + MAX_HEADER + 4 <= MAX_BATCH) };
}

#[test]
fn a_batch_names_its_programs_only_if_all_are_known() {
    let names: Vec<String> = (0..17).map(|number| format!("app{number}")).collect();
    let known = |apps: &[Option<&[u8]>]| {
        let mut builder = Builder::new(MAX_RAW);
        for app in apps {
            assert_eq!(
                builder.push(&Entry {
                    app: *app,
                    ..line(b"x")
                }),
                Push::Taken
            );
        }
        let payload = pack(&builder, 0);
        let (header, _) = Header::read(&payload).expect("a header");
        header.apps.map(|apps| apps.len())
    };
    let all: Vec<Option<&[u8]>> = names.iter().map(|name| Some(name.as_bytes())).collect();
    assert_eq!(known(&all[..16]), Some(16));
    assert_eq!(known(&all), None);
    assert_eq!(known(&[all[0], all[1], all[0]]), Some(2));
    assert_eq!(known(&[all[0], None]), None);
    assert_eq!(known(&[Some(b"\xff")]), None);
    assert_eq!(known(&[Some(&[b'a'; 49])]), None);
}

prop_compose! {
    fn any_entry()(
        received in any::<i64>(),
        source in prop::sample::select(vec!["a", "udp://1.2.3.4:5", ""]),
        severity in 0_u8..8,
        unparsed in any::<bool>(),
        more in prop::option::of(1_u64..u64::MAX / 2),
        bytes in prop::collection::vec(any::<u8>(), 0..300),
    ) -> (i64, &'static str, u8, bool, Option<u64>, Vec<u8>) {
        let original = more.map(|more| bytes.len() as u64 + more);
        (received, source, severity, unparsed, original, bytes)
    }
}

proptest! {
    #[test]
    fn what_goes_into_a_batch_comes_out(
        entries in prop::collection::vec(any_entry(), 1..50),
        first in 0..u64::MAX - 100,
    ) {
        let mut builder = Builder::new(MAX_RAW);
        for (received, source, severity, unparsed, original, bytes) in &entries {
            let entry = Entry {
                received: Micros(*received),
                source,
                severity: *severity,
                app: None,
                unparsed: *unparsed,
                original: *original,
                bytes,
            };
            prop_assert_eq!(builder.push(&entry), Push::Taken);
        }
        let payload = pack(&builder, first);
        let batch = Batch::read(&payload).expect("a batch");
        let mut unpacker = Unpacker::new().expect("memory");
        unpacker.check(&batch).expect("is sound");
        let records: Vec<_> = unpacker
            .records(&batch)
            .expect("unpacks")
            .map(|record| record.expect("a record"))
            .collect();
        prop_assert_eq!(records.len(), entries.len());
        for (at, (record, entry)) in records.iter().zip(&entries).enumerate() {
            let (received, source, severity, unparsed, original, bytes) = entry;
            prop_assert_eq!(record.position, first + at as u64);
            prop_assert_eq!(record.received, Micros(*received));
            prop_assert_eq!(record.source, *source);
            prop_assert_eq!(record.severity, *severity);
            prop_assert_eq!(record.unparsed, *unparsed);
            prop_assert_eq!(record.original, original.unwrap_or(bytes.len() as u64));
            prop_assert_eq!(record.bytes, bytes.as_slice());
            prop_assert!(!record.is_gap());
        }
    }

    #[test]
    fn no_bytes_make_reading_a_batch_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        drop(Batch::read(&bytes));
        let _ = frame::find(&bytes);
    }

    #[test]
    fn no_records_make_unpacking_panic(
        raw in prop::collection::vec(any::<u8>(), 4..400),
        count in 1_u64..100,
    ) {
        let payload = forge(
            |header| {
                header.codec = Codec::None;
                header.raw_len = header.body_len;
                header.count = count;
                header.gaps = 0;
            },
            &raw,
        );
        if let Ok(batch) = Batch::read(&payload) {
            let mut unpacker = Unpacker::new().expect("memory");
            let records = unpacker.records(&batch).expect("not compressed");
            prop_assert!(records.count() <= 101);
            drop(unpacker.check(&batch));
        }
    }
}
