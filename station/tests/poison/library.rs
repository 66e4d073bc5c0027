//! What the client library in use does with frames that any publisher can send: today's behaviour,
//! held so that an upgrade that changes it is noticed. It is why the station has a relay.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use async_nats::{ConnectOptions, Event};
use futures_util::StreamExt;

use super::{
    print,
    raw::{Raw, RawFrame},
};
use crate::support::{DEADLINE, World};

/// What the library does with a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It delivers it.
    Delivered,
    /// It drops the connection, and with it the frame.
    Fatal,
}

use Fate::{Delivered, Fatal};

/// A frame out of the ordinary.
#[derive(Debug, Clone)]
pub(super) struct Odd {
    pub(super) name: &'static str,
    subject: &'static [u8],
    reply: Option<&'static [u8]>,
    header: Option<Vec<u8>>,
    payload: Vec<u8>,
    /// What async-nats 0.51 does with it.
    pub(super) fate: Fate,
    /// What the station counts it as.
    pub(super) counted: &'static str,
}

impl Odd {
    pub(super) fn bytes(&self) -> Vec<u8> {
        RawFrame {
            subject: self.subject,
            reply: self.reply,
            header: self.header.as_deref(),
            payload: &self.payload,
        }
        .bytes()
    }
}

const EVIL: &[u8] = b"central.event.ack.operatingsystem.evil";

/// Every kind of frame out of the ordinary that a nats-server 2.15.1 passes on.
pub(super) fn odd_frames() -> Vec<Odd> {
    let odd = |name, fate, counted| Odd {
        name,
        subject: EVIL,
        reply: None,
        header: None,
        payload: b"not json".to_vec(),
        fate,
        counted,
    };
    let reply = |name, reply: &'static [u8], fate, counted| Odd {
        reply: Some(reply),
        ..odd(name, fate, counted)
    };
    let header = |name, header: &[u8], fate, counted| Odd {
        header: Some(header.to_vec()),
        ..odd(name, fate, counted)
    };
    let payload = |name, bytes, counted| Odd {
        payload: vec![b'x'; bytes],
        ..odd(name, Delivered, counted)
    };
    let huge = [b"NATS/1.0\r\nA: ", &vec![b'a'; 500_000][..], b"\r\n\r\n"].concat();
    let large = [b"NATS/1.0\r\nA: ", &vec![b'a'; 8_000][..], b"\r\n\r\n"].concat();
    vec![
        Odd {
            subject: b"central.event.ack.\xff.evil",
            ..odd("a subject that is not text", Fatal, "poison_subject")
        },
        reply(
            "a reply that is not text",
            b"\xff\xfe",
            Fatal,
            "poison_reply",
        ),
        // Other blanks than the server's own split the line of a frame with a header only.
        reply(
            "a reply with a wide blank",
            "a\u{2003}b".as_bytes(),
            Delivered,
            "garbage_ack",
        ),
        Odd {
            header: Some(b"NATS/1.0\r\n\r\n".to_vec()),
            ..reply(
                "a reply with a wide blank, and a header",
                "a\u{2003}b".as_bytes(),
                Fatal,
                "garbage_ack",
            )
        },
        Odd {
            header: Some(b"NATS/1.0\r\n\r\n".to_vec()),
            ..reply(
                "a reply with a vertical tab, and a header",
                b"a\x0bb",
                Fatal,
                "garbage_ack",
            )
        },
        header(
            "a header that is not text",
            b"NATS/1.0\r\nA: \xff\r\n\r\n",
            Fatal,
            "poison_header",
        ),
        // The server makes a plain message of it.
        header("an empty header", b"", Delivered, "garbage_ack"),
        header(
            "another header version",
            b"NATS/2.0\r\n\r\n",
            Fatal,
            "poison_header",
        ),
        header(
            "no header version",
            b"garbage\r\n\r\n",
            Fatal,
            "poison_header",
        ),
        header(
            "a version with a tail",
            b"NATS/1.0garbage\r\n\r\n",
            Fatal,
            "poison_header",
        ),
        header(
            "a status of two digits",
            b"NATS/1.0 50\r\n\r\n",
            Fatal,
            "poison_header",
        ),
        header(
            "a status that is no number",
            b"NATS/1.0 abc\r\n\r\n",
            Fatal,
            "poison_header",
        ),
        header(
            "a field without a colon",
            b"NATS/1.0\r\ngarbage\r\n\r\n",
            Fatal,
            "poison_header",
        ),
        header(
            "a field name with a blank",
            b"NATS/1.0\r\nA b: c\r\n\r\n",
            Fatal,
            "poison_header",
        ),
        header(
            "a field name with a NUL",
            b"NATS/1.0\r\nA\0: c\r\n\r\n",
            Fatal,
            "poison_header",
        ),
        header(
            "a field name that is not ASCII",
            "NATS/1.0\r\n\u{e9}: c\r\n\r\n".as_bytes(),
            Fatal,
            "poison_header",
        ),
        header(
            "a first field that is folded",
            b"NATS/1.0\r\n A: c\r\n\r\n",
            Fatal,
            "poison_header",
        ),
        header(
            "a field without a name",
            b"NATS/1.0\r\n: c\r\n\r\n",
            Delivered,
            "poison_header",
        ),
        header(
            "a value with a NUL",
            b"NATS/1.0\r\nA: \0\r\n\r\n",
            Delivered,
            "poison_header",
        ),
        header(
            "a folded value",
            b"NATS/1.0\r\nA: b\r\n c\r\n\r\n",
            Delivered,
            "poison_header",
        ),
        header(
            "a header without an end",
            b"NATS/1.0\r\nA: b",
            Delivered,
            "poison_header",
        ),
        header(
            "the same field twice",
            b"NATS/1.0\r\nA: b\r\nA: c\r\n\r\n",
            Delivered,
            "garbage_ack",
        ),
        header("a large header", &large, Delivered, "garbage_ack"),
        header("a huge header", &huge, Delivered, "poison_size"),
        header(
            "a forged 503",
            b"NATS/1.0 503\r\n\r\n",
            Delivered,
            "misdirected",
        ),
        header(
            "a forged 409",
            b"NATS/1.0 409 Consumer Deleted\r\n\r\n",
            Delivered,
            "misdirected",
        ),
        payload("an empty payload", 0, "garbage_ack"),
        payload("a payload above ours", 600 * 1024, "poison_size"),
        payload("the largest payload", 1024 * 1024, "poison_size"),
    ]
}

#[test]
fn the_library_drops_its_connection_over_frames_anybody_can_send() {
    let world = World::new();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let mut wrong = Vec::new();
    for odd in odd_frames() {
        let (fate, back) = runtime.block_on(fate_of(&odd, &world.url));
        print(&format!(
            "{:45} {fate:?}, heard again after {back:?}",
            odd.name
        ));
        if fate != odd.fate {
            wrong.push(format!("{}: {fate:?} instead of {:?}", odd.name, odd.fate));
        }
    }
    assert!(
        wrong.is_empty(),
        "the library behaves otherwise now:\n{}",
        wrong.join("\n")
    );
}

/// Returns what becomes of one frame, and how long until the subscriber hears anything again.
async fn fate_of(odd: &Odd, url: &str) -> (Fate, Duration) {
    let lost = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&lost);
    let client = ConnectOptions::new()
        .event_callback(move |event| {
            if event == Event::Disconnected {
                count.fetch_add(1, Ordering::Relaxed);
            }
            async {}
        })
        .connect(url)
        .await
        .expect("connects");
    let mut heard = client.subscribe("central.>").await.expect("subscribes");
    client.flush().await.expect("flushed");
    let raw = Raw::connect(url);
    // The server takes what two connections say in any order; so the subscription must be there.
    let ready = RawFrame::plain("central.ready", b"").bytes();
    let pause = Duration::from_millis(20);
    while tokio::time::timeout(pause, heard.next()).await.is_err() {
        raw.send(&ready);
    }

    let sent = Instant::now();
    raw.send(&odd.bytes());
    let mut delivered = false;
    let deadline = sent + DEADLINE;
    loop {
        assert!(
            Instant::now() < deadline,
            "waited in vain to hear anything after {}; the broker said {:?}",
            odd.name,
            raw.errors()
        );
        raw.send(&RawFrame::plain("central.after", b"").bytes());
        match tokio::time::timeout(Duration::from_millis(20), heard.next()).await {
            Ok(Some(message)) if message.subject.as_str() == "central.after" => break,
            Ok(Some(message)) if message.subject.as_str() == "central.ready" => {}
            Ok(Some(_)) => delivered = true,
            Ok(None) => panic!("the subscription ended after {}", odd.name),
            Err(_) => {}
        }
    }
    let fate = match (lost.load(Ordering::Relaxed), delivered) {
        (0, true) => Delivered,
        (1.., false) => Fatal,
        other => panic!("{}: {other:?}", odd.name),
    };
    (fate, sent.elapsed())
}
