//! What a relay writes, and what it believes of its receiver.

use std::time::Instant;

use super::{mirroring::each, *};
use crate::logs::{
    follow::{Cursor, Cursors, Item},
    relay::{settle::Settling, wire::Wire},
};
use steward_protocol::{
    logs::{Gap, Reason},
    syslog::framing::{Ends, Framer, Frames, Limits},
};

/// What a message became, without its length.
fn wired(message: &[u8], original: Option<u64>) -> Vec<u8> {
    let mut wire = Wire::default();
    each(&[(message, original)], &mut |_, record| {
        wire.put(&key(0), &Item::Message(record));
    });
    let (length, rest) = wire.bytes().split_at(
        wire.bytes()
            .iter()
            .position(|byte| *byte == b' ')
            .expect("a length"),
    );
    let length: usize = String::from_utf8_lossy(length).parse().expect("a number");
    assert_eq!(rest.len() - 1, length);
    rest[1..].to_vec()
}

const OURS: &str = "[steward@32473 node=\"ship0\" domain=\"nginx\"";

#[test]
fn rfc_5424_goes_as_it_came_and_everything_else_gets_a_header() {
    let same: &[&[u8]] = &[
        b"<165>1 2003-10-11T22:14:15.003Z mymachine.example.com evntslog - ID47 [exampleSDID@32473 iut=\"3\"] \xef\xbb\xbfAn application event",
        b"<34>1 2003-10-11T22:14:15.003Z mymachine.example.com su - ID47 - 'su root' failed \xff",
        b"<0>1 - - - - - -",
        b"<13>1 2026-11-21T08:00:00+01:00 h a p m - two\nlines",
    ];
    for message in same {
        assert_eq!(
            wired(message, None),
            *message,
            "{}",
            String::from_utf8_lossy(message)
        );
    }
    for (message, original, expected) in [
        (
            "<34>Oct 11 22:14:15 mymachine su[9]: 'su root' failed",
            None,
            format!("<38>1 2026-10-11T22:14:15.000000Z mymachine su 9 - {OURS}] 'su root' failed"),
        ),
        (
            "no syslog at all",
            None,
            format!("<14>1 2026-11-21T08:00:00.000000Z ship0 - - - {OURS}] no syslog at all"),
        ),
        (
            "2026-11-21T07:00:00Z web nginx: from a file",
            None,
            format!("<14>1 2026-11-21T07:00:00.000000Z web nginx - - {OURS}] from a file"),
        ),
        (
            "<13>1 2026-11-21T07:00:00Z h a p m",
            None,
            format!("<14>1 2026-11-21T07:00:00.000000Z h a p m {OURS}]"),
        ),
        (
            "<13>1 2026-11-21T07:00:00Z h a p m [x@1 y=\"2\"",
            None,
            format!("<14>1 2026-11-21T07:00:00.000000Z h a p m {OURS}] [x@1 y=\"2\""),
        ),
        (
            "cut",
            Some(9000),
            format!("<14>1 2026-11-21T08:00:00.000000Z ship0 - - - {OURS} length=\"9000\"] cut"),
        ),
        (
            "",
            None,
            format!("<14>1 2026-11-21T08:00:00.000000Z ship0 - - - {OURS}]"),
        ),
    ] {
        let found = wired(message.as_bytes(), original);
        assert_eq!(String::from_utf8_lossy(&found), expected, "{message}");
    }
}

#[test]
fn a_gap_is_a_message_of_our_own() {
    let gap = Gap::new(Some(1830), Reason::SpoolFull)
        .between(Micros(1_795_248_000_000_000), Micros(1_795_248_001_000_000));
    let mut wire = Wire::default();
    wire.put(&key(0), &Item::Gap(Micros(0), &gap));
    let text = String::from_utf8_lossy(wire.bytes()).into_owned();
    let (_, text) = text.split_once(' ').expect("a length");
    assert_eq!(
        text,
        format!(
            "<44>1 2026-11-21T08:00:01.000000Z ship0 steward - gap {OURS} reason=\"spool_full\" count=\"1830\" since=\"2026-11-21T08:00:00.000000Z\" until=\"2026-11-21T08:00:01.000000Z\"] ship0/nginx: 1830 messages missing: spool full"
        )
    );
}

proptest! {
    /// Whatever a message is, a receiver that counts octets finds it whole, and reads it as RFC 5424.
    #[test]
    fn a_receiver_finds_every_message_whole(
        messages in vec(prop_oneof![
            vec(any::<u8>(), 0..200),
            "<[0-9]{1,3}>(1 )?[ -~]{0,80}".prop_map(String::into_bytes),
        ], 1..8)
    ) {
        let mut wire = Wire::default();
        let mut expected = 0;
        let all: Vec<(&[u8], Option<u64>)> = messages.iter().map(|message| (&message[..], None)).collect();
        each(&all, &mut |_, record| {
            wire.put(&key(0), &Item::Message(record));
            expected += 1;
        });
        let mut framer = Framer::new(Limits::default());
        let mut frames = Frames::default();
        framer.push(wire.bytes(), &mut frames);
        framer.finish(&mut frames);
        let found: Vec<_> = frames.iter().collect();
        prop_assert_eq!(found.len(), expected);
        for (frame, bytes) in found {
            prop_assert!(frame.is_counted() && !frame.is_out_of_step());
            let message = steward_protocol::syslog::Message::parse(bytes);
            prop_assert_eq!(message.form(), steward_protocol::syslog::Form::Rfc5424);
            prop_assert!(!message.has_ill_formed_data());
        }
    }
}

#[test]
fn only_what_has_stood_for_a_while_counts() {
    let begin = Instant::now();
    let at = |seconds| begin + Duration::from_secs(seconds);
    let cursor = |at| Cursor {
        at,
        ..Cursor::default()
    };
    let mut settling = Settling::after(Cursors::new(), Duration::from_secs(5));
    for second in 0..4 {
        settling.written(at(second), &key(0), cursor(second + 1));
        settling.written(at(second), &key(1), cursor(second + 100));
    }
    for (second, counts) in [
        (5, None),
        (6, Some(1)),
        (7, Some(2)),
        (9, Some(4)),
        (99, Some(4)),
    ] {
        settling.settle(at(second));
        let found = settling.settled().get(&key(0)).map(|cursor| cursor.at);
        assert_eq!(found, counts, "after {second} s");
    }
    assert!(settling.take_changed() && !settling.take_changed());
    settling.written(at(100), &key(0), cursor(50));
    settling.all();
    assert_eq!(settling.settled()[&key(0)], cursor(50));
    let _: Ends = Ends::default();
}
