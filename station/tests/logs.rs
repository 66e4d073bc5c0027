//! Logs at the station, with a real broker and real stations; the test plays the nodes.

use std::{collections::BTreeMap, process::Stdio, time::Duration};

use async_nats::{Client, Subscriber};
use futures_util::StreamExt;
use jiff::Timestamp;
use nix::errno::Errno;
use serde_json::Value;
use steward_protocol::{
    Frame, Generation, Hello, InstanceId, JournalId, Origin, Reign, checksum,
    logs::{Builder, Entry, Gap, Kept, Micros, Packer, Push, Reason, Stream},
};
use tokio::{runtime::Runtime, time::timeout};
use uuid::Uuid;

use crate::{
    crash_points::{Tried, sweep, tried},
    support::{World, code, eventually},
    tracer::{Aim, Harm, Traced},
};

mod spool;
mod steps;

/// Batches on their way at once.
const WINDOW: u64 = 64;

/// Messages of a batch.
pub(crate) const COUNT: u64 = 20;

/// How long is waited for a word before all is said again.
const PATIENCE: Duration = Duration::from_millis(300);

/// A node's way to its station.
pub(crate) struct Ship {
    name: &'static str,
    client: Client,
    heard: Subscriber,
    origin: Origin,
}

impl Ship {
    pub(crate) async fn new(world: &World, name: &'static str) -> Self {
        let client = async_nats::connect(&world.url).await.expect("connects");
        let heard = client
            .subscribe(format!("{name}.>"))
            .await
            .expect("subscribed");
        client.flush().await.expect("flushed");
        let origin = Origin {
            v: 1,
            instance: InstanceId(Uuid::new_v4()),
            journal_id: JournalId(Uuid::new_v4()),
            ledger_id: None,
        };
        Self {
            name,
            client,
            heard,
            origin,
        }
    }

    async fn greet(&self) {
        let at = Timestamp::now();
        let body = Hello {
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
        };
        let frame = Frame {
            send: self.origin.clone(),
            body,
        }
        .encode()
        .expect("small");
        self.publish(
            &format!("central.event.hello.node.{}", self.name),
            &checksum::append(frame),
        )
        .await;
    }

    async fn publish(&self, subject: &str, payload: &[u8]) {
        let published = self
            .client
            .publish(subject.to_owned(), payload.to_vec().into());
        published.await.expect("published");
    }

    /// Says hello until there is a welcome.
    pub(crate) async fn come_aboard(&mut self) {
        for _ in 0..200 {
            self.greet().await;
            while let Ok(Some(message)) = timeout(PATIENCE, self.heard.next()).await {
                if message.subject.contains(".event.welcome.") {
                    return;
                }
            }
        }
        panic!("{} was never welcomed", self.name);
    }

    pub(crate) async fn say(&self, domain: &str, payload: &[u8]) {
        self.publish(
            &format!("central.event.syslogforwarding.{domain}.{}", self.name),
            payload,
        )
        .await;
    }

    /// Waits for a word about logs; nothing if none comes in time.
    pub(crate) async fn word(&mut self, patience: Duration) -> Option<Kept> {
        loop {
            let message = timeout(patience, self.heard.next()).await.ok()??;
            if message.subject.contains(".event.kept.") {
                let frame = Frame::<Reign, Kept>::decode(&message.payload).expect("a word");
                assert_eq!(frame.send.instance, self.origin.instance);
                return Some(frame.body);
            }
        }
    }

    /// Sends batches of two domains until all are confirmed. Returns false if that is given up.
    async fn send_all(
        &mut self,
        batches: &[(Vec<u8>, Vec<u8>)],
        give_up: impl Fn() -> bool,
    ) -> bool {
        let mut next: BTreeMap<Generation, u64> = BTreeMap::new();
        for _ in 0..200 {
            if give_up() {
                return false;
            }
            self.greet().await;
            for (one, other) in batches {
                self.say("nginx", one).await;
                self.say("system", other).await;
            }
            while let Some(kept) = self.word(PATIENCE).await {
                let known = next.entry(kept.generation).or_default();
                assert!(kept.next >= *known, "{kept:?} after {known}");
                *known = kept.next;
            }
            if next.len() == 2 && next.values().all(|next| *next == batches.len() as u64) {
                return true;
            }
        }
        false
    }

    /// Sends a batch until its end is confirmed.
    pub(crate) async fn store(&mut self, domain: &str, payload: &[u8], next: u64) {
        for _ in 0..100 {
            self.say(domain, payload).await;
            while let Some(kept) = self.word(PATIENCE).await {
                if kept.next == next {
                    return;
                }
            }
        }
        panic!("a batch of {} was never confirmed", self.name);
    }
}

pub(crate) struct Spool {
    pub(crate) stream: Stream,
    pub(crate) packer: Packer,
}

/// One message: how many seconds after the beginning, its severity, its text.
pub(crate) type Line<'a> = (i64, u8, &'a str);

const BEGIN: i64 = 1_795_248_000_000_000;

impl Spool {
    pub(crate) fn new(domain: &str) -> Self {
        let stream = Stream {
            generation: Generation(Uuid::new_v4()),
            after: None,
            domain: domain.parse().expect("a domain"),
        };
        Self {
            stream,
            packer: Packer::new().expect("memory"),
        }
    }

    pub(crate) fn batch(&mut self, first: u64, lines: &[Line<'_>]) -> Vec<u8> {
        let mut builder = Builder::new(128 * 1024);
        for (second, severity, text) in lines {
            let entry = Entry {
                received: Micros(BEGIN + second * 1_000_000),
                source: "udp://127.0.0.1:5514",
                severity: *severity,
                app: None,
                unparsed: false,
                original: None,
                bytes: text.as_bytes(),
            };
            assert_eq!(builder.push(&entry), Push::Taken);
        }
        self.packer
            .records(&self.stream, first, &builder)
            .expect("packed")
            .to_vec()
    }
}

pub(crate) fn numbered(spool: &mut Spool, first: u64) -> Vec<u8> {
    let texts: Vec<String> = (first..first + COUNT).map(text).collect();
    let line = |text| (i64::try_from(first).expect("few") / 100, 6, text);
    let lines: Vec<Line<'_>> = texts.iter().map(|text| line(text.as_str())).collect();
    spool.batch(first, &lines)
}

pub(crate) fn text(number: u64) -> String {
    format!("<14>Nov 21 08:00:00 host app[7]: request number {number} was answered with 200")
}

/// Prints logs; standard output as text.
pub(crate) fn logs(world: &World, arguments: &[&str]) -> (i32, String) {
    let all: Vec<&str> = ["logs"].iter().chain(arguments).copied().collect();
    let output = world.steward(&all);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let code = code(output.status);
    assert!(
        code < 2,
        "{arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    (code, text)
}

#[test]
fn logs_words_say_what_is_stored_and_garbage_is_named() {
    let world = World::new();
    let _station = world.station();
    Runtime::new().expect("a runtime").block_on(async {
        let mut ship = Ship::new(&world, "ship1").await;
        let mut spool = Spool::new("nginx");
        let batches: Vec<_> = (0..4)
            .map(|number| numbered(&mut spool, number * COUNT))
            .collect();
        // Nobody believes a word before the welcome, so none is said.
        ship.say("nginx", &batches[0]).await;
        assert_eq!(ship.word(PATIENCE).await, None);
        ship.come_aboard().await;
        let long = Duration::from_secs(30);
        for (number, next, again) in [
            (1, 0, true),
            (0, COUNT, false),
            (0, COUNT, false),
            (1, 2 * COUNT, false),
            (3, 2 * COUNT, true),
            (2, 3 * COUNT, false),
            (3, 4 * COUNT, false),
        ] {
            ship.say("nginx", &batches[number]).await;
            let kept = ship.word(long).await.expect("a word");
            assert_eq!((kept.next, kept.again), (next, again), "batch {number}");
            assert_eq!(kept.generation, spool.stream.generation);
        }
        let mut damaged = batches[0].clone();
        let middle = damaged.len() / 2;
        damaged[middle] ^= 1;
        ship.say("nginx", &damaged).await;
        ship.say("apache", &batches[0]).await;
        ship.client.flush().await.expect("flushed");
    });
    eventually("the garbage to be counted against its sender", || {
        let status = world.json(&["status", "-o", "json"]);
        let offender = status["offenders"].get(0)?.clone();
        (offender["sender"] == "ship1" && offender["kinds"]["garbage_batch"] == 2).then_some(())
    });
    let (_, raw) = logs(&world, &["-o", "raw"]);
    let expected: String = (0..4 * COUNT).map(|number| text(number) + "\n").collect();
    assert_eq!(raw, expected);
}

#[test]
fn logs_survive_a_station_that_is_killed_twenty_times_in_mid_stream() {
    let world = World::new();
    let mut station = Some(world.station());
    let total = 1200;
    Runtime::new().expect("a runtime").block_on(async {
        let mut ship = Ship::new(&world, "ship1").await;
        let mut spool = Spool::new("nginx");
        let batches: Vec<_> = (0..total)
            .map(|number| numbered(&mut spool, number * COUNT))
            .collect();
        let (mut next, mut sent, mut kills) = (0, 0, 0);
        ship.come_aboard().await;
        while next < total {
            while sent < total.min(next + WINDOW) {
                ship.say("nginx", &batches[usize::try_from(sent).expect("few")])
                    .await;
                sent += 1;
            }
            // While batches are on their way, sometimes right after they left, sometimes after a word.
            if kills < 20 && next >= kills * total / 20 {
                ship.client.flush().await.expect("flushed");
                tokio::time::sleep(Duration::from_millis(kills * 3)).await;
                station.take().expect("running").kill();
                kills += 1;
                station = Some(world.station());
                ship.come_aboard().await;
                sent = next;
                continue;
            }
            match ship.word(PATIENCE).await {
                Some(kept) => {
                    assert!(
                        kept.next % COUNT == 0 && kept.next / COUNT >= next,
                        "{kept:?} after {next}"
                    );
                    next = kept.next / COUNT;
                    sent = if kept.again { next } else { sent.max(next) };
                }
                None => {
                    ship.greet().await;
                    sent = next;
                }
            }
        }
        assert_eq!(kills, 20);
    });
    let (_, raw) = logs(&world, &["-o", "raw"]);
    let lines: Vec<&str> = raw.lines().collect();
    assert_eq!(lines.len() as u64, total * COUNT, "lost or twice");
    for (number, line) in (0..).zip(lines) {
        assert_eq!(line, text(number));
    }
    for arguments in [&["--gaps"][..], &["verify"]] {
        let (code, said) = logs(&world, arguments);
        assert_eq!(code, 0, "{arguments:?}: {said}");
    }
}

#[test]
fn logs_are_found_by_time_severity_program_and_text_and_merged_over_nodes() {
    let world = World::new();
    let _station = world.station();
    Runtime::new().expect("a runtime").block_on(async {
        for (name, offset) in [("ship1", 0), ("ship2", 5)] {
            let mut ship = Ship::new(&world, name).await;
            ship.come_aboard().await;
            let mut spool = Spool::new("nginx");
            let payload = spool.batch(
                0,
                &[
                    (offset, 6, "<14>1 - h web 12 - - started"),
                    (10 + offset, 3, "<11>1 - h web 12 - - it \x1b[31mfailed\x07"),
                    (20 + offset, 4, "<12>1 - h cron - - - late"),
                ],
            );
            ship.store("nginx", &payload, 3).await;
        }
    });
    let cat = |arguments: &[&str]| {
        let all: Vec<&str> = arguments.iter().chain(&["-o", "jsonl"]).copied().collect();
        let (code, text) = logs(&world, &all);
        assert_eq!(code, 0);
        let line = |line: &str| {
            let line: Value = serde_json::from_str(line).expect("JSON");
            let message = line["message"]
                .as_str()
                .expect("a text")
                .split(' ')
                .next()
                .map(str::to_owned);
            format!(
                "{} {}",
                &line["node"].as_str().expect("a node")[4..],
                message.expect("a word")
            )
        };
        text.lines().map(line).collect::<Vec<_>>().join(", ")
    };
    let all = "1 started, 2 started, 1 it, 2 it, 1 late, 2 late";
    let newest_first = "2 late, 1 late, 2 it, 1 it, 2 started, 1 started";
    for (arguments, expected) in [
        (&[][..], all),
        (&["--reverse"], newest_first),
        (&["-n", "3"], "2 it, 1 late, 2 late"),
        (&["-n", "0"], ""),
        (&["-n", "2", "--reverse"], "2 late, 1 late"),
        (&["--node", "ship2"], "2 started, 2 it, 2 late"),
        (&["--node", "ship1,ship2", "--domain", "apache"], ""),
        (&["-p", "err"], "1 it, 2 it"),
        (&["-p", "3..4"], "1 it, 2 it, 1 late, 2 late"),
        (&["-t", "cron"], "1 late, 2 late"),
        (&["-g", "start(ed|ing)$"], "1 started, 2 started"),
        (&["-g", "(?i)FAILED"], "1 it, 2 it"),
        (
            &["--since", "@1795248010", "--until", "@1795248020"],
            "1 it, 2 it, 1 late",
        ),
    ] {
        assert_eq!(cat(arguments), expected, "{arguments:?}");
    }
    let (_, short) = logs(&world, &["-p", "err", "--node", "ship1"]);
    assert!(
        short.ends_with("ship1/nginx web[12]: it \\x1b[31mfailed\\x07\n"),
        "{short}"
    );
    let json = world.json(&["logs", "-o", "json", "-n", "1"]);
    assert_eq!(json[0]["app"], "cron");
    for bad in [
        &["-p", "loud"][..],
        &["--since", "soon"],
        &["-o", "csv"],
        &["-f", "-o", "json"],
    ] {
        let all: Vec<&str> = ["logs"].iter().chain(bad).copied().collect();
        assert_eq!(code(world.steward(&all).status), 2, "{bad:?}");
    }
    assert_eq!(code(world.steward(&["node", "ls", "-o", "cat"]).status), 2);
}

#[test]
fn logs_that_are_missing_are_named_and_damage_is_found() {
    let world = World::new();
    let _station = world.station();
    Runtime::new().expect("a runtime").block_on(async {
        let mut ship = Ship::new(&world, "ship1").await;
        ship.come_aboard().await;
        let mut spool = Spool::new("nginx");
        let (first, stream) = (numbered(&mut spool, 0), spool.stream.clone());
        ship.store("nginx", &first, COUNT).await;
        assert_eq!(logs(&world, &["--gaps"]).0, 0);
        let gap = Gap::new(Some(7), Reason::SpoolFull)
            .between(Micros(BEGIN + 1_000_000), Micros(BEGIN + 2_000_000));
        let payload = spool
            .packer
            .gap(&stream, COUNT, 7, gap)
            .expect("packed")
            .to_vec();
        ship.store("nginx", &payload, COUNT + 7).await;
        // An agent that knows nothing of what was there.
        let mut other = Spool::new("nginx");
        let payload = numbered(&mut other, 0);
        ship.store("nginx", &payload, COUNT).await;
    });
    let (code, said) = logs(&world, &["--gaps"]);
    assert_eq!(code, 1);
    assert!(
        said.contains("7 messages missing: spool full, said by the node"),
        "{said}"
    );
    assert!(said.contains("nobody knows how many: spool lost"), "{said}");
    let (_, short) = logs(&world, &[]);
    assert!(
        short.contains("ship1/nginx -- 7 messages missing: spool full --"),
        "{short}"
    );
    let stats = world.json(&["logs", "--stats", "-o", "json"]);
    assert_eq!(
        (&stats[0]["records"], &stats[0]["generations"]),
        (&Value::from(2 * COUNT), &Value::from(2))
    );
    eventually("the loss to be a fault", || {
        let faults = world.json(&["events", "-o", "json", "--kind", "logs_lost"]);
        (faults.as_array()?.len() == 1).then_some(())
    });
    assert_eq!(
        logs(&world, &["verify"]).0,
        0,
        "what is missing is not damaged"
    );
    let dir = world.state_dir().join("logs/ship1/nginx");
    let mut names = std::fs::read_dir(&dir)
        .expect("a directory")
        .map(|entry| entry.expect("an entry").path());
    let segment = names
        .find(|path| path.extension().is_some_and(|end| end == "log"))
        .expect("a segment");
    let mut bytes = std::fs::read(&segment).expect("read");
    bytes[300] ^= 1;
    std::fs::write(&segment, bytes).expect("written");
    let (code, said) = logs(&world, &["verify"]);
    assert_eq!(code, 1);
    assert!(
        said.contains("damaged: ship1/nginx/00000001-2026-11-21.log, byte 0"),
        "{said}"
    );
    let (_, short) = logs(&world, &[]);
    assert!(short.contains("20 messages missing: corrupt"), "{short}");
}

#[test]
fn logs_that_come_are_followed() {
    let world = World::new();
    let _station = world.station();
    let runtime = Runtime::new().expect("a runtime");
    let mut spool = Spool::new("nginx");
    let mut ship = runtime.block_on(async {
        let mut ship = Ship::new(&world, "ship1").await;
        ship.come_aboard().await;
        let payload = numbered(&mut spool, 0);
        ship.store("nginx", &payload, COUNT).await;
        ship
    });
    let out = world.folder.path().join("followed");
    let mut follower = std::process::Command::new(env!("CARGO_BIN_EXE_steward"))
        .args(["logs", "-f", "-n", "1", "-o", "raw"])
        .env("STEWARD_STATE_DIR", world.state_dir())
        .stdout(std::fs::File::create(&out).expect("created"))
        .stdin(Stdio::null())
        .spawn()
        .expect("it starts");
    let lines = || {
        std::fs::read_to_string(&out)
            .expect("read")
            .lines()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    eventually("the last line that is there", || {
        (lines() == [text(COUNT - 1)]).then_some(())
    });
    runtime.block_on(async {
        let payload = numbered(&mut spool, COUNT);
        ship.store("nginx", &payload, 2 * COUNT).await;
    });
    let so_far: Vec<String> = (COUNT - 1..2 * COUNT).map(text).collect();
    eventually("what came since", || (lines() == so_far).then_some(()));
    runtime.block_on(async {
        // A domain that was not there before.
        let mut other = Spool::new("apache");
        let payload = numbered(&mut other, 0);
        ship.store("apache", &payload, COUNT).await;
    });
    let all: Vec<String> = (COUNT - 1..2 * COUNT).chain(0..COUNT).map(text).collect();
    eventually("what came of it", || (lines() == all).then_some(()));
    follower.kill().expect("killed");
    follower.wait().expect("reaped");
}
