//! The spool of an agent harmed at every durable step, with a real station behind it: what was accepted before arrives, once
//! and in order, and what is missing is said.

use std::{
    fs,
    io::Write,
    net::TcpStream,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use nix::errno::Errno;
use steward_protocol::logs::{Batch, frame};

use crate::{
    crash_points::{Tried, sweep, tried},
    support::{Running, World, agent_program, eventually, ports::free_port},
    tracer::{Aim, Harm, Traced},
};

use super::logs;

/// Messages written at once.
const GROUP: usize = 10;

/// Groups written while the agent is watched.
const GROUPS: usize = 5;

/// Longer than anything takes here that happens at all.
const DEADLINE: Duration = Duration::from_secs(60);

/// A node whose agent has one input.
struct Node {
    world: World,
    port: u16,
}

impl Node {
    fn new(url: &str) -> Self {
        let mut world = World::without_broker();
        url.clone_into(&mut world.url);
        let port = free_port();
        let input = format!("[[syslog]]\ndomain = \"app\"\ninput = \"tcp://127.0.0.1:{port}\"\n");
        // Small, so that there are several segments.
        let spool = "[syslog_spool]\nsize = \"1MiB\"\nshare = \"1MiB\"\n";
        fs::write(world.folder.path().join("agent.toml"), input + spool).expect("a config");
        Self { world, port }
    }

    fn dir(&self) -> PathBuf {
        self.world.folder.path().join("ship1")
    }

    fn command(&self) -> Command {
        let mut command = Command::new(agent_program());
        command
            .args(["run", "--node", "ship1", "--nats", &self.world.url])
            .args(["--heartbeat", "200ms", "--config"])
            .arg(self.world.folder.path().join("agent.toml"))
            .arg("--state-dir")
            .arg(self.dir())
            .env("RUST_LOG", "error");
        command
    }

    fn agent(&self) -> Running {
        Running::start(self.command()).0
    }

    fn watched(&self, at: usize, harm: Harm) -> Traced {
        let folder = self.dir().join("logs");
        Traced::start(&self.command(), Aim { folder, at, harm })
    }

    /// Writes messages, once somebody listens; whether they were taken, nobody knows. Tells whether it came to that.
    fn write(
        &self,
        numbers: std::ops::Range<usize>,
        length: usize,
        is_over: impl Fn() -> bool,
    ) -> bool {
        let text: String = numbers.map(|number| line(number, length) + "\n").collect();
        let deadline = Instant::now() + DEADLINE;
        while !is_over() {
            if let Ok(mut sender) = TcpStream::connect(("127.0.0.1", self.port)) {
                sender.write_all(text.as_bytes()).ok();
                return true;
            }
            assert!(
                Instant::now() < deadline,
                "in vain awaited: an input that listens"
            );
            std::thread::sleep(Duration::from_millis(2));
        }
        false
    }

    /// Returns the numbers that are stored; they are in order, each once, and as they were written.
    fn stored(&self, length: usize) -> Vec<usize> {
        let (_, raw) = logs(&self.world, &["-o", "raw", "--domain", "app"]);
        let number = |text: &str| {
            let number = text.split(' ').nth(1).and_then(|word| word.parse().ok());
            let number = number.unwrap_or_else(|| panic!("strange: {text}"));
            assert_eq!(text, line(number, length));
            number
        };
        let numbers: Vec<usize> = raw.lines().map(number).collect();
        assert!(
            numbers.is_sorted_by(|one, other| one < other),
            "{numbers:?}"
        );
        numbers
    }
}

fn line(number: usize, length: usize) -> String {
    let mut state = number as u64 + 1;
    let mut text = format!("<13>app: {number:06} ");
    while text.len() < length {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        text += &format!("{:x}", state >> 16);
    }
    text
}

fn place(traced: &Traced, at: usize) -> String {
    let steps: Vec<String> = traced.steps().iter().map(ToString::to_string).collect();
    format!("step {at} of {steps:?}; log: {}", traced.log())
}

/// Messages come, a few at a time, each group when the one before is stored; a step is harmed.
fn coming(url: &str, at: usize, harm: Harm) -> Tried {
    let node = Node::new(url);
    let _station = node.world.station();
    let traced = node.watched(at, harm);
    let mut written = 0;
    for _ in 0..GROUPS {
        if !node.write(written..written + GROUP, 40, || traced.has_ended()) {
            break;
        }
        written += GROUP;
        let deadline = Instant::now() + DEADLINE;
        while !traced.has_ended() && node.stored(40).last() != Some(&(written - 1)) {
            assert!(
                Instant::now() < deadline,
                "nothing goes on after {}",
                place(&traced, at)
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    let place = place(&traced, at);
    let has_failed = traced.has_ended();
    let result = tried(traced);
    let _agent = node.agent();
    assert!(node.write(written..written + 1, 40, || false));
    let stored = eventually(&format!("the last message after {place}"), || {
        let stored = node.stored(40);
        (stored.last() == Some(&written)).then_some(stored)
    });
    let missing: Vec<usize> = (0..written)
        .filter(|number| !stored.contains(number))
        .collect();
    // Who was killed may have lost what came in that moment; an end of it.
    let end = written.saturating_sub(missing.len())..written;
    assert!(
        missing.len() <= GROUP && missing == end.collect::<Vec<_>>(),
        "{missing:?}: {place}"
    );
    assert!(missing.is_empty() || has_failed, "{missing:?}: {place}");
    let (code, said) = logs(&node.world, &["--gaps"]);
    assert!(
        missing.is_empty() || code == 1,
        "{missing:?} and {said}: {place}"
    );
    assert_eq!(logs(&node.world, &["verify"]).0, 0, "{place}");
    result
}

/// A spool of before is delivered and released; a step is harmed.
fn leaving(url: &str, at: usize, harm: Harm) -> Tried {
    const COUNT: usize = 300;
    const LENGTH: usize = 1500;
    let node = Node::new(url);
    let agent = node.agent();
    for from in (0..COUNT).step_by(50) {
        assert!(node.write(from..from + 50, LENGTH, || false));
        let spool = node.dir().join("logs/spool/app");
        eventually("what was written to be in the spool", || {
            (spooled(&spool) == from as u64 + 50).then_some(())
        });
    }
    agent.kill();
    let _station = node.world.station();
    let traced = node.watched(at, harm);
    let deadline = Instant::now() + DEADLINE;
    let is_there = || node.stored(LENGTH).last() == Some(&(COUNT - 1));
    while !traced.has_ended() && !is_there() {
        assert!(
            Instant::now() < deadline,
            "nothing goes on after {}",
            place(&traced, at)
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    let place = place(&traced, at);
    let result = tried(traced);
    let _agent = node.agent();
    assert!(node.write(COUNT..COUNT + 1, LENGTH, || false));
    let stored = eventually(&format!("the last message after {place}"), || {
        let stored = node.stored(LENGTH);
        (stored.last() == Some(&COUNT)).then_some(stored)
    });
    assert_eq!(stored, (0..=COUNT).collect::<Vec<_>>(), "{place}");
    assert_eq!(logs(&node.world, &["verify"]).0, 0, "{place}");
    result
}

/// Returns how many records the files of a spool have in whole batches.
fn spooled(dir: &Path) -> u64 {
    let files = fs::read_dir(dir).into_iter().flatten().flatten();
    files.map(|entry| spooled_in(&entry.path())).sum()
}

fn spooled_in(path: &Path) -> u64 {
    let bytes = fs::read(path).expect("a file of the spool");
    let (mut rest, mut count) = (bytes.as_slice(), 0);
    while let Some(at) = frame::find(rest) {
        let length = frame::length(&rest[at..]).expect("it was found");
        let end = at + frame::HEAD + length;
        let Some(payload) = rest.get(at + frame::HEAD..end) else {
            break;
        };
        count += Batch::read(payload).map_or(0, |batch| batch.header().count);
        rest = &rest[end..];
    }
    count
}

#[test]
fn logs_in_a_spool_survive_a_crash_at_any_step() {
    for (word, harm) in [
        ("killed", Harm::Kill),
        ("torn", Harm::Tear),
        ("EIO", Harm::Fail(Errno::EIO)),
        ("ENOSPC", Harm::Fail(Errno::ENOSPC)),
    ] {
        sweep(&format!("a spool that is filled, {word}"), |url, at| {
            coming(url, at, harm)
        });
        sweep(&format!("a spool that is emptied, {word}"), |url, at| {
            leaving(url, at, harm)
        });
    }
}
