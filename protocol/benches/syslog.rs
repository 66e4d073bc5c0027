//! What reading a syslog message costs, against the crate `syslog_loose` in the same run, and what framing costs.
//!
//! `cargo bench -p steward-protocol --bench syslog`. Each figure is the median of rounds that are taken in turns, so that
//! whatever else the machine does is shared; it is for one message.

#![expect(clippy::print_stdout, reason = "the figures are for people")]

use std::{hint::black_box, time::Instant};

use steward_protocol::syslog::{
    self, Message,
    framing::{Framer, Frames, Limits},
};
use syslog_loose::Variant;

/// Rounds; odd, so that there is one in the middle.
const ROUNDS: usize = 31;

/// Messages of each kind in a round.
const MESSAGES: usize = 2000;

/// Bytes read from a socket at once.
const PORTION: usize = 64 * 1024;

/// Real-looking messages of about 200 bytes.
const KINDS: &[(&str, &str)] = &[
    (
        "3164",
        "<86>Jun 30 10:00:00 node1 sshd[4711]: Accepted publickey for operator from 192.0.2.17 port 51022 ssh2: \
         ED25519 SHA256:Qm9vZ2llIHdvb2dpZSBib29naWUgd29vZ2llIGJvb2dp",
    ),
    (
        "3164 nginx",
        "<190>Jun 30 10:00:00 node1 nginx: 192.0.2.17 - - [30/Jun/2026:10:00:00 +0000] \
         \"GET /api/v1/orders/4711?full=1 HTTP/1.1\" 200 612 \"-\" \"Mozilla/5.0 (X11; Linux x86_64) Gecko\"",
    ),
    (
        "3164 rfc 3339 time",
        "<30>2026-06-30T10:00:00.123456+02:00 node1 systemd[1]: Started session-4711.scope - Session 4711 of User \
         operator, which is long enough to be like the others in this list of messages.",
    ),
    (
        "5424",
        "<30>1 2026-06-30T10:00:00.123456+00:00 node1.example.com systemd 1 - - Started session-4711.scope - \
         Session 4711 of User operator, which is long enough to be like the others in this list.",
    ),
    (
        "5424 with data",
        "<165>1 2026-06-30T10:00:00.003Z node1.example.com evntslog - ID47 \
         [exampleSDID@32473 iut=\"3\" eventSource=\"Application\" eventID=\"1011\"][examplePriority@32473 class=\"high\"] \
         An application event log entry",
    ),
    (
        "python",
        "<14>hello from a handler that writes no header at all, but for its PRI, and a NUL at its end\0",
    ),
];

/// Nanoseconds for one message, round by round.
#[derive(Default)]
struct Rounds(Vec<f64>);

impl Rounds {
    fn time(&mut self, messages: usize, mut work: impl FnMut()) {
        let begun = Instant::now();
        work();
        self.0
            .push(begun.elapsed().as_nanos() as f64 / messages as f64);
    }

    fn median(mut self) -> f64 {
        self.0.sort_by(f64::total_cmp);
        self.0[self.0.len() / 2]
    }
}

fn main() {
    println!(
        "{:<22}{:>8}{:>8}{:>8}{:>14}{:>9}",
        "ns per message", "pri", "app", "parse", "syslog_loose", "ratio"
    );
    for (name, message) in KINDS {
        read(name, message);
    }
    println!();
    println!("{:<22}{:>8}{:>8}", "ns per message", "frame", "MB/s");
    let lines = stream(|message| format!("{}\n", message.trim_end_matches('\0')));
    let counted = stream(|message| format!("{} {message}", message.len()));
    frame("LF", &lines);
    frame("octet counts", &counted);
}

fn read(name: &str, message: &str) {
    let [mut pri, mut app, mut parse, mut loose] = [const { Rounds(Vec::new()) }; 4];
    let messages = vec![message; MESSAGES];
    for _ in 0..ROUNDS {
        pri.time(MESSAGES, || {
            for message in &messages {
                black_box(syslog::pri(black_box(message.as_bytes())));
            }
        });
        app.time(MESSAGES, || {
            for message in &messages {
                black_box(syslog::app(black_box(message.as_bytes())));
            }
        });
        parse.time(MESSAGES, || {
            for message in &messages {
                black_box(Message::parse(black_box(message.as_bytes())));
            }
        });
        loose.time(MESSAGES, || {
            for message in &messages {
                let message = black_box(*message);
                black_box(syslog_loose::parse_message_with_year(
                    message,
                    |_| 2026,
                    Variant::Either,
                ));
            }
        });
    }
    let (parse, loose) = (parse.median(), loose.median());
    println!(
        "{name:<22}{:>8.1}{:>8.1}{parse:>8.1}{loose:>14.1}{:>8.1}x",
        pri.median(),
        app.median(),
        loose / parse
    );
}

fn stream(frame: impl Fn(&str) -> String) -> Vec<u8> {
    let messages = KINDS.iter().cycle().take(MESSAGES);
    messages
        .flat_map(|(_, message)| frame(message).into_bytes())
        .collect()
}

fn frame(name: &str, stream: &[u8]) {
    let mut rounds = Rounds::default();
    let mut frames = Frames::default();
    for _ in 0..ROUNDS {
        let mut framer = Framer::new(Limits::default());
        rounds.time(MESSAGES, || {
            for portion in stream.chunks(PORTION) {
                frames.clear();
                framer.push(black_box(portion), &mut frames);
                black_box(&frames);
            }
        });
        framer.finish(&mut frames);
    }
    let nanoseconds = rounds.median();
    let bytes = stream.len() as f64 / MESSAGES as f64;
    println!(
        "{name:<22}{nanoseconds:>8.1}{:>8.0}",
        bytes / nanoseconds * 1000.0
    );
}
