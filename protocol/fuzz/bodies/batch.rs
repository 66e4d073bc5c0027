//! A batch of log records, read from arbitrary bytes: it is never a panic, what is sound keeps to its header and its limits,
//! and whoever looks into a segment finds no more than is there.
//!
//! Checksums are made right for most inputs, or nothing would ever come behind them.

use steward_protocol::{
    Digest, checksum,
    logs::{Batch, Codec, Header, MAX_BYTES, MAX_RAW, Unpacker, frame},
};

pub(crate) fn run(input: &[u8]) {
    let [how, rest @ ..] = input else {
        return;
    };
    match how % 3 {
        0 => {
            read(rest);
            find(rest);
        }
        1 => with_header(rest),
        _ => with_records(rest),
    }
}

/// Heads as in a segment.
fn find(bytes: &[u8]) {
    let Some(at) = frame::find(bytes) else {
        return;
    };
    let length = frame::length(&bytes[at..]).expect("it was found");
    assert_eq!(bytes[at..at + frame::HEAD], frame::head(length));
    if let Some(payload) = bytes.get(at + frame::HEAD..at + frame::HEAD + length) {
        read(payload);
    }
}

/// A header of any content, and a body of any bytes.
fn with_header(bytes: &[u8]) {
    let end = bytes.iter().position(|byte| *byte == b'\n');
    let (header, body) = bytes.split_at(end.unwrap_or(bytes.len()));
    let body = body.get(1..).unwrap_or_default();
    let header = match serde_json::from_slice::<Header>(header) {
        Ok(mut header) => {
            header.blake3 = Digest::of(body);
            header.body_len = body.len() as u32;
            if header.codec == Codec::None {
                header.raw_len = header.body_len;
            }
            serde_json::to_vec(&header).expect("a header")
        }
        Err(_) => header.to_vec(),
    };
    read(&joined(header, body));
}

/// A sound header, and records of any bytes.
fn with_records(bytes: &[u8]) {
    let [count, sources, body @ ..] = bytes else {
        return;
    };
    let sources: Vec<String> = (0..sources % 4).map(|number| number.to_string()).collect();
    let header = serde_json::json!({
        "v": 1, "generation": "0190a000-0000-7000-8000-000000000001", "domain": "nginx",
        "first": 7, "count": u64::from(*count) + 1, "kind": "records", "from": 0, "to": i64::MAX,
        "severities": 255, "sources": sources, "codec": "none",
        "raw_len": body.len(), "body_len": body.len(), "blake3": Digest::of(body),
    });
    read(&joined(header.to_string().into_bytes(), body));
}

fn joined(header: Vec<u8>, body: &[u8]) -> Vec<u8> {
    let header = checksum::append(header);
    let mut payload = (header.len() as u32).to_be_bytes().to_vec();
    payload.extend_from_slice(&header);
    payload.extend_from_slice(body);
    payload
}

fn read(bytes: &[u8]) {
    if let Ok((header, offset)) = Header::read(bytes) {
        assert!(offset <= bytes.len() && header.next() > header.first);
    }
    let Ok(batch) = Batch::read(bytes) else {
        return;
    };
    let mut unpacker = Unpacker::new().expect("memory");
    let is_sound = unpacker.check(&batch).is_ok();
    let (mut next, mut length) = (batch.header().first, 0);
    if let Ok(records) = unpacker.records(&batch) {
        for record in records {
            let Ok(record) = record else {
                assert!(!is_sound);
                return;
            };
            assert_eq!(record.position, next);
            assert!(record.bytes.len() <= MAX_BYTES);
            // Whatever a gap says, somebody will print it.
            drop(record.gap());
            next += 1;
            length += record.bytes.len();
        }
        assert!(length <= MAX_RAW);
        assert!(!is_sound || batch.header().gap.is_some() || next == batch.header().next());
    }
}
