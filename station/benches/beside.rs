//! How long a command takes alone, and beside transfers both ways that go as fast as they can.
//!
//! `cargo bench -p steward-station --bench beside` runs a station, an agent and a broker on this machine
//! and takes the time of `steward run --to ship1 -- true` as whoever types it sees it.

#![expect(clippy::print_stdout, reason = "the figures are for people")]

use std::{
    fmt,
    fs::{self, File},
    path::Path,
    time::{Duration, Instant},
};

use serde_json::json;

use self::support::{World, code, eventually};

#[path = "../tests/support.rs"]
#[expect(
    dead_code,
    reason = "the tests' file is used as it is, and not all of it here"
)]
mod support;

/// Commands measured each time.
const ROUNDS: usize = 200;

/// Length of the file that is sent; it outlasts the commands.
const SENT: u64 = 4 << 30;

fn main() {
    let world = World::new();
    let _station = world.station();
    let _agent = world.agent("ship1");
    world.await_online(&["ship1"]);
    let alone = Times::of(&world);
    println!("a command alone            {alone}");
    let output = world.state_dir().join("outputs").join(endless(&world));
    let output = output.join("ship1/bytes");
    one(&world, "output", &output);
    let file = File::create(world.state_dir().join("files/large")).expect("a file");
    file.set_len(SENT).expect("room for its length");
    let target = world.folder.path().join("large");
    let message = json!({ "to": ["ship1"], "method": "filesend", "domain": "files",
        "name": "large", "source": "large", "path": target, "timeout": "1h" });
    let id = submit(&world, &message);
    let part = world.folder.path().join(format!(".steward-{id}.part"));
    let beside = one(&world, "output and a file to it", &part);
    println!(
        "beside both it takes       {:.2} times as long (median), {:.2} (ninth of ten)",
        ratio(beside.median, alone.median),
        ratio(beside.most, alone.most)
    );
}

/// Measures once the transfer has begun, and says how fast that went meanwhile.
fn one(world: &World, what: &str, path: &Path) -> Times {
    let bytes = || fs::metadata(path).map_or(0, |found| found.len());
    eventually("the transfer to be under way", || {
        (bytes() > 4 << 20).then_some(())
    });
    let (begun, before) = (Instant::now(), bytes());
    let times = Times::of(world);
    let took = begun.elapsed().as_secs_f64();
    let moved = bytes() - before;
    assert!(moved > 0, "the transfer was over before the commands were");
    println!("beside {what:<19} {times}");
    println!(
        "                           which came at {:.1} MiB/s",
        mebibytes(moved) / took
    );
    times
}

/// Begins an output without end, and returns its message's id.
fn endless(world: &World) -> String {
    submit(
        world,
        &json!({ "to": ["ship1"], "method": "shellcommand", "domain": "files", "name": "endless",
            "stream": true, "timeout": "1h", "data": ["cat", "/dev/zero"] }),
    )
}

fn submit(world: &World, message: &serde_json::Value) -> String {
    let path = world.folder.path().join("message.json");
    fs::write(&path, json!([message]).to_string()).expect("written");
    let output = world.steward(&["submit", path.to_str().expect("a path")]);
    assert_eq!(code(output.status), 0, "{output:?}");
    let name = message["name"].as_str().expect("a name");
    eventually("the message", || world.message_called(name))
}

#[expect(clippy::cast_precision_loss, reason = "it is shown with one digit")]
fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn ratio(one: Duration, other: Duration) -> f64 {
    one.as_secs_f64() / other.as_secs_f64()
}

/// What many commands took.
#[derive(Debug, Clone, Copy)]
struct Times {
    median: Duration,
    most: Duration,
}

impl Times {
    /// Runs commands one after the other.
    fn of(world: &World) -> Self {
        let run = || {
            let begun = Instant::now();
            let output = world.steward(&["run", "--to", "ship1", "--", "true"]);
            assert_eq!(code(output.status), 0, "{output:?}");
            begun.elapsed()
        };
        let mut times: Vec<Duration> = (0..ROUNDS).map(|_| run()).collect();
        times.sort_unstable();
        Self {
            median: times[times.len() / 2],
            most: times[times.len() * 9 / 10],
        }
    }
}

impl fmt::Display for Times {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { median, most } = self;
        write!(formatter, "{median:8.2?} median, {most:8.2?} ninth of ten")
    }
}
