//! The record log of a command, read while it runs and after.

use std::{fs, os::unix::fs::MetadataExt};

use steward_agent::child::{
    Following, Spec,
    log::{Log, Records, Stream},
};
use steward_protocol::Digest;

use crate::support::{
    eventually,
    ward::{Ward, shell},
};

/// Opens the log of a command that has been started.
async fn open(ward: &Ward, spec: &Spec) -> Log {
    let place = ward.place(spec);
    eventually("the log", || Log::open(place.clone()).ok()).await
}

/// Reads all there is from `offset` on.
fn rest(log: &Log, mut offset: u64) -> Vec<u8> {
    let (mut all, mut piece) = (Vec::new(), vec![0; 10_000]);
    loop {
        let read = log.read(offset, &mut piece).expect("readable");
        if read == 0 {
            return all;
        }
        all.extend_from_slice(&piece[..read]);
        offset += read as u64;
    }
}

/// Takes a log apart into its two streams.
fn streams(log: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let mut records = Records::default();
    let each = |stream, bytes: &[u8]| match stream {
        Stream::Stdout => stdout.extend_from_slice(bytes),
        Stream::Stderr => stderr.extend_from_slice(bytes),
    };
    records.feed(log, each).expect("a log");
    assert!(records.is_complete());
    (stdout, stderr)
}

#[tokio::test]
async fn a_log_holds_both_streams_apart_and_in_their_order() {
    let ward = Ward::new();
    let gate = ward.dir.path().join("gate");
    let script = format!(
        "echo one; sleep 0.1; echo two >&2; sleep 0.1; echo three; until [ -e {} ]; do sleep 0.02; done; exit 4",
        gate.display()
    );
    let spec = shell(&script);
    let running = tokio::spawn({
        let (spec, nursery) = (spec.clone(), ward.nursery.clone());
        let ward = Ward {
            dir: tempfile::tempdir().expect("a directory"),
            nursery,
        };
        async move { ward.run(&spec).await }
    });
    let log = open(&ward, &spec).await;
    let expected = b"\x01\0\0\0\x04one\n\x02\0\0\0\x04two\n\x01\0\0\0\x06three\n";
    eventually("what it wrote, while it runs", || {
        (rest(&log, 0) == expected).then_some(())
    })
    .await;
    assert_eq!(log.end().expect("readable"), None);
    fs::write(&gate, "").expect("the gate opens");
    let end = running.await.expect("no panic");
    assert_eq!(log.end().expect("readable"), Some(end.clone()));
    assert_eq!(end.log.bytes, expected.len() as u64);
    assert_eq!(end.log.blake3, Digest::of(expected));
    assert_eq!(end.log.cut, None);
    assert_eq!(rest(&log, 9), expected[9..]);
}

#[tokio::test]
async fn a_followed_command_waits_for_its_follower_and_loses_nothing() {
    let ward = Ward::new();
    // 5 MiB that can be told apart, against a lead of 256 KiB.
    let mut spec = shell("seq 1 800000; echo done >&2");
    spec.cap = 256 << 10;
    spec.following = Following::Station;
    let running = tokio::spawn({
        let (spec, nursery) = (spec.clone(), ward.nursery.clone());
        let ward = Ward {
            dir: tempfile::tempdir().expect("a directory"),
            nursery,
        };
        async move { ward.run(&spec).await }
    });
    let log = open(&ward, &spec).await;
    let full = eventually("the log to be full", || {
        let length = log.length().expect("readable");
        (length >= spec.cap).then_some(length)
    })
    .await;
    // Nobody takes anything: it stays so.
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    assert_eq!(log.length().expect("readable"), full);
    assert!(full < spec.cap + 70_000, "{full} bytes ahead");
    let (mut all, mut most) = (Vec::new(), 0);
    loop {
        let ended = log.end().expect("readable").is_some();
        all.extend(rest(&log, all.len() as u64));
        log.release(all.len() as u64).expect("writable");
        let file = fs::metadata(ward.place(&spec).dir().join("output")).expect("it is there");
        most = most.max(file.blocks() * 512);
        if ended {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    let end = running.await.expect("no panic");
    assert!(end.success, "{end:?}");
    assert_eq!(end.log.bytes, all.len() as u64);
    assert_eq!(end.log.blake3, Digest::of(&all));
    assert_eq!(end.log.cut, None);
    let expected: String = (1..=800_000).map(|number| format!("{number}\n")).collect();
    let (stdout, stderr) = streams(&all);
    assert!(stdout == expected.as_bytes(), "the bytes differ");
    assert_eq!(stderr, b"done\n");
    assert!(most < 2 * spec.cap, "{most} bytes were on the disk at once");
    log.read(0, &mut [0; 10]).expect_err("it was released");
    assert_eq!(log.released().expect("readable"), end.log.bytes);
}
