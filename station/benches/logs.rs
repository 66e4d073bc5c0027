//! What stored logs cost: taking them in with fsync, searching them cold against `zstdcat | grep -E`, the last lines.
//!
//! `cargo bench -p steward-station --bench logs`; the directory is below `TMPDIR`, and the disk there decides
//! what durability costs. `STEWARD_BENCH_LINES` says how many lines there are (1,000,000).

#![expect(clippy::print_stdout, reason = "the figures are for people")]
#![expect(clippy::unwrap_used, reason = "it measures or it ends")]

use std::{
    fs::{self, File},
    io::Write,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use rustix::fs::{Advice, fadvise};
use steward_protocol::{
    Generation,
    logs::{Batch, Builder, Entry, Micros, Packer, Push, Stream},
};
use steward_station::logs::{
    disk::Files,
    name::Line,
    read::{Direction, Merge, Query, ends},
    store::{Arrived, Store},
};
use uuid::Uuid;

/// Batches of one commit.
const GROUP: usize = 64;

/// How often each is measured; the median counts.
const ROUNDS: usize = 5;

/// What is searched: few lines have it.
const PATTERN: &str = "status=50[0-9] .* upstream=10\\.1\\.";

fn main() {
    let lines = std::env::var("STEWARD_BENCH_LINES").ok();
    let lines: u64 = lines
        .and_then(|text| text.parse().ok())
        .unwrap_or(1_000_000);
    let dir = tempfile::tempdir().unwrap();
    let text = dir.path().join("text");
    let payloads = payloads(lines, &text);
    ingest(dir.path(), &payloads, lines);
    let disk = Files::new(dir.path().join("0"));
    search(&disk, &text);
    last(&disk);
}

fn line() -> Line {
    Line {
        node: "ship1".parse().unwrap(),
        domain: "nginx".parse().unwrap(),
    }
}

/// Returns batches as a node makes them, and writes the same lines to a file.
fn payloads(lines: u64, text: &Path) -> Vec<Vec<u8>> {
    let stream = Stream {
        generation: Generation(Uuid::new_v4()),
        after: None,
        domain: line().domain,
    };
    let (mut builder, mut packer) = (Builder::new(128 * 1024), Packer::new().unwrap());
    let mut out = std::io::BufWriter::new(File::create(text).unwrap());
    let (mut payloads, mut first) = (Vec::new(), 0);
    for number in 0..lines {
        let message = message(number);
        out.write_all(message.as_bytes()).unwrap();
        out.write_all(b"\n").unwrap();
        let entry = Entry {
            received: Micros(1_795_248_000_000_000 + i64::try_from(number).unwrap() * 100),
            source: "tcp://127.0.0.1:5514",
            severity: 6,
            app: Some(b"nginx"),
            unparsed: false,
            original: None,
            bytes: message.as_bytes(),
        };
        if builder.push(&entry) == Push::Full {
            payloads.push(packer.records(&stream, first, &builder).unwrap().to_vec());
            first += builder.count();
            builder.clear();
            assert_eq!(builder.push(&entry), Push::Taken);
        }
    }
    payloads.push(packer.records(&stream, first, &builder).unwrap().to_vec());
    payloads
}

/// A line of about 200 bytes, different from all others.
fn message(number: u64) -> String {
    let mut dice = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (number >> 7);
    dice ^= dice >> 29;
    let status = if dice.is_multiple_of(997) {
        500 + dice % 5
    } else {
        200
    };
    format!(
        "<190>1 2026-11-21T08:{:02}:{:02}.{:06}Z shop{} nginx 812 access - 10.{}.{}.{} \"GET /catalogue/items/{}?page={} HTTP/1.1\" status={status} bytes={} time=0.{:03} upstream=10.1.{}.7:8080 agent=\"Mozilla/5.0 (X11; Linux x86_64)\"",
        number / 60_000 % 60,
        number / 1000 % 60,
        number % 1_000_000,
        dice % 20,
        dice % 250,
        dice / 251 % 250,
        dice / 65_537 % 250,
        dice % 100_000,
        dice % 17,
        dice % 60_000,
        dice % 1000,
        dice % 9,
    )
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// Time this process has had on processors.
fn processor() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn ingest(dir: &Path, payloads: &[Vec<u8>], lines: u64) {
    let (mut times, mut processors) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let mut store = Store::new(Files::new(dir.join(round.to_string())));
        let (began, used) = (Instant::now(), processor());
        for group in payloads.chunks(GROUP) {
            // As the desk does: every checksum is checked.
            let arrived = |payload: &Vec<u8>| Arrived {
                line: line(),
                header: Batch::read(payload).unwrap().into_header(),
                payload: payload.clone(),
            };
            let done = store.commit(group.iter().map(arrived).collect(), Duration::ZERO);
            assert!(done.failed.is_empty() && done.again == 0);
        }
        times.push(began.elapsed());
        processors.push(processor() - used);
    }
    let (time, used) = (median(times), median(processors));
    let bytes: usize = payloads.iter().map(Vec::len).sum();
    println!(
        "taken in with fsync, {GROUP} batches a commit: {lines} messages in {time:.2?}, {:.0} messages/s; processor {used:.2?}, {:.0} messages/s of one core; {bytes} bytes on disk",
        lines as f64 / time.as_secs_f64(),
        lines as f64 / used.as_secs_f64().max(0.01),
    );
}

/// Lets the kernel forget what it has of the files in a directory.
fn cool(dir: &Path) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            cool(&path);
        } else {
            let file = File::open(&path).unwrap();
            file.sync_all().unwrap();
            fadvise(&file, 0, None, Advice::DontNeed).unwrap();
        }
    }
}

fn search(disk: &Files, text: &Path) {
    let peer = text.with_extension("zst");
    let made = Command::new("zstd")
        .args(["-1", "-q", "-f", "-o"])
        .arg(&peer)
        .arg(text)
        .status();
    fs::remove_file(text).unwrap();
    let has_peer = made.is_ok_and(|status| status.success());
    let (mut ours, mut theirs, mut found, mut counted) = (Vec::new(), Vec::new(), 0, String::new());
    for _ in 0..ROUNDS {
        cool(disk.root());
        let began = Instant::now();
        found = grep(disk);
        ours.push(began.elapsed());
        if has_peer {
            cool(peer.parent().unwrap());
            let script = format!("zstdcat '{}' | grep -c -E '{PATTERN}'", peer.display());
            let began = Instant::now();
            let output = Command::new("sh").args(["-c", &script]).output().unwrap();
            theirs.push(began.elapsed());
            counted = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        }
    }
    println!(
        "-g '{PATTERN}' over cold data: {:.2?}, {found} found",
        median(ours)
    );
    match has_peer {
        true => println!(
            "zstdcat | grep -E, same run, cold: {:.2?}, {counted} found",
            median(theirs)
        ),
        false => println!("zstdcat | grep -E: zstd is not installed"),
    }
}

fn grep(disk: &Files) -> usize {
    let query = Query {
        grep: Some(regex::bytes::Regex::new(PATTERN).unwrap()),
        ..Query::everything()
    };
    let ends = ends(disk, &[line()]).unwrap();
    let mut merge = Merge::new(disk, query, &std::collections::BTreeMap::new(), &ends).unwrap();
    let mut found = 0;
    while merge.pull().unwrap().is_some() {
        found += 1;
    }
    found
}

fn last(disk: &Files) {
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        cool(disk.root());
        let began = Instant::now();
        let query = Query {
            direction: Direction::Backward,
            ..Query::everything()
        };
        let ends = ends(disk, &[line()]).unwrap();
        let mut merge = Merge::new(disk, query, &std::collections::BTreeMap::new(), &ends).unwrap();
        for _ in 0..100 {
            merge.pull().unwrap().unwrap();
        }
        times.push(began.elapsed());
    }
    println!("the last 100 lines, cold: {:.2?}", median(times));
}
