//! What the spool costs: real-looking lines of about 200 bytes, a thousand at a time, appended, compressed, written and
//! made durable, then read back.
//!
//! `cargo bench -p steward-agent --bench spool`; the directory is below `TMPDIR`, and the disk there decides what
//! durability costs.

#![expect(clippy::print_stdout, reason = "the figures are for people")]
#![expect(clippy::unwrap_used, reason = "it measures or it ends")]

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use steward_agent::syslog::spool::{
    Found, Policy, Portion, Settings, Spool, Taken, Terms, files::Files,
};
use steward_protocol::{Domain, Generation, logs::Micros};
use uuid::Uuid;

/// Messages in all, and of one commit.
const MESSAGES: u64 = 1_000_000;
const AT_ONCE: u64 = 1000;

/// Rounds, of which the median is shown.
const ROUNDS: usize = 5;

struct Round {
    raw: u64,
    stored: u64,
    written: Duration,
    read: Duration,
}

fn main() {
    let portions: Vec<Portion> = (0..MESSAGES / AT_ONCE).map(portion).collect();
    let mut rounds: Vec<Round> = (0..ROUNDS).map(|_| round(&portions)).collect();
    rounds.sort_by_key(|round| round.written);
    for round in &rounds {
        println!(
            "  written in {:.2?}, read in {:.2?}",
            round.written, round.read
        );
    }
    let median = &rounds[ROUNDS / 2];
    let seconds = median.written.as_secs_f64();
    let raw = median.raw as f64;
    println!(
        "append + compress + fdatasync per {AT_ONCE}: {:.0} messages/s, {:.1} MB/s of raw bytes",
        MESSAGES as f64 / seconds,
        raw / seconds / 1e6
    );
    println!(
        "spool bytes per raw byte: {:.3} ({:.0} bytes per message)",
        median.stored as f64 / raw,
        raw / MESSAGES as f64
    );
    println!(
        "read back for delivery: {:.0} messages/s",
        MESSAGES as f64 / median.read.as_secs_f64()
    );
}

fn round(portions: &[Portion]) -> Round {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings {
        total: 1 << 34,
        batch: 256 << 10,
        longest: 8 << 10,
        domains: BTreeMap::new(),
        others: Terms {
            share: 1 << 34,
            policy: Policy::Block,
        },
    };
    let draw = Box::new(|| Generation(Uuid::now_v7()));
    let mut spool = Spool::open(Files::open(dir.path()).unwrap(), settings, draw).unwrap();
    let nginx: Domain = "nginx".parse().unwrap();
    let begin = Instant::now();
    for portion in portions {
        assert_eq!(spool.append(&nginx, portion), Taken::Yes);
        spool.commit();
    }
    let written = begin.elapsed();
    let begin = Instant::now();
    let mut place = spool.start(&nginx).unwrap();
    while let Found::Batch(batch) = spool.read(&nginx, place).unwrap() {
        place.position = batch.next;
    }
    assert_eq!(place.position, MESSAGES);
    Round {
        raw: portions
            .iter()
            .map(|portion| portion.arena.len() as u64)
            .sum(),
        stored: spool.standings()[0].used,
        written,
        read: begin.elapsed(),
    }
}

/// A thousand lines of a web server: addresses, paths, sizes and times differ as they do.
fn portion(number: u64) -> Portion {
    let at = Micros(1_795_248_000_000_000 + i64::try_from(number).unwrap() * 1000);
    let mut portion = Portion::new(Arc::from("tcp://127.0.0.1:5514"), at);
    for line in number * AT_ONCE..(number + 1) * AT_ONCE {
        let mut dice = line.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut roll = |bound: u64| {
            dice ^= dice >> 29;
            dice = dice.wrapping_mul(0xbf58_476d_1ce4_e5b9);
            (dice >> 33) % bound
        };
        let path = [
            "/",
            "/api/v1/orders",
            "/static/app.js",
            "/login",
            "/images/logo.png",
        ];
        let agent = [
            "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
            "curl/8.14.1",
            "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/141.0 Safari/537.36",
        ];
        let text = format!(
            "<190>Nov 21 08:{:02}:{:02} ship1 nginx: 10.{}.{}.{} - - [21/Nov/2026:08:00:00 +0000] \"GET {}?id={} HTTP/1.1\" {} {} \"-\" \"{}\" rt=0.{:03}",
            line / 60_000 % 60,
            line / 1000 % 60,
            roll(4),
            roll(256),
            roll(256),
            path[usize::try_from(roll(5)).unwrap()],
            roll(100_000),
            [200, 200, 200, 304, 404][usize::try_from(roll(5)).unwrap()],
            roll(50_000),
            agent[usize::try_from(roll(3)).unwrap()],
            roll(1000),
        );
        portion.push(text.as_bytes(), 6);
    }
    portion
}
