//! What a warden costs a command: time against a direct spawn, in the same run, and memory.
//!
//! `cargo bench -p steward-agent --bench warden`; the directory is below `TMPDIR`, and the disk there
//! decides what durability costs.

#![expect(clippy::print_stdout, reason = "the figures are for people")]
#![expect(clippy::unwrap_used, reason = "it measures or it ends")]

use std::{
    fs::{self, File},
    io::Write,
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use self::ward::{Ward, finish, spec};

#[path = "../tests/support/ward.rs"]
#[expect(
    dead_code,
    reason = "the tests' file is used as it is, and not all of it here"
)]
mod ward;

/// Commands measured each way.
const ROUNDS: usize = 300;

/// What a warden may cost (issue 4).
const TIME: Duration = Duration::from_millis(2);
const MEMORY: u64 = 2 << 20;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let ward = Ward::new();
    let disk = tempfile::tempdir().unwrap();
    let (mut direct, mut warded, mut durable) = (Vec::new(), Vec::new(), Vec::new());
    // In turns, so that whatever else the machine does is shared.
    for round in 0..ROUNDS {
        direct.push(timed(run_direct).await);
        warded.push(timed(async || run_warded(&ward).await).await);
        durable.push(timed(async || make_durable(&disk.path().join(round.to_string()))).await);
    }
    let (direct, warded, durable) = (Times::of(direct), Times::of(warded), Times::of(durable));
    println!("direct spawn of true      {direct}");
    println!("the same under a warden   {warded}");
    println!("  of that, a durable end  {durable}");
    for (what, warded, durable, direct) in [
        ("undisturbed", warded.least, durable.least, direct.least),
        ("median", warded.median, durable.median, direct.median),
    ] {
        let extra = warded.saturating_sub(direct);
        let rest = extra.saturating_sub(durable);
        println!(
            "a warden costs            {extra:.2?} {what}, {rest:.2?} without the disk (target: below {TIME:?})"
        );
    }
    let (private, anonymous) = memory(&ward).await;
    println!(
        "a warden takes            {} KiB private, of that {} KiB anonymous (target: below {} KiB)",
        private >> 10,
        anonymous >> 10,
        MEMORY >> 10
    );
}

async fn timed(work: impl AsyncFnOnce()) -> Duration {
    let begun = Instant::now();
    work().await;
    begun.elapsed()
}

/// As a command was run before there were wardens.
async fn run_direct() {
    let mut command = tokio::process::Command::new("true");
    command.stdin(Stdio::null()).process_group(0);
    let output = command.output().await.unwrap();
    assert!(output.status.success());
}

async fn run_warded(ward: &Ward) {
    let running = ward.start(&spec(&["true"]));
    let end = finish(running, Box::pin(std::future::pending())).await;
    assert!(end.success);
}

/// What a warden does to the disk for its end, and nothing else.
fn make_durable(path: &Path) {
    fs::create_dir(path).unwrap();
    let (new, end) = (path.join("new"), path.join("end"));
    let mut file = File::create(&new).unwrap();
    file.write_all(&[b' '; 600]).unwrap();
    fs::rename(new, end).unwrap();
    file.sync_all().unwrap();
}

/// Returns the private and the anonymous bytes of a warden whose command runs.
async fn memory(ward: &Ward) -> (u64, u64) {
    // Two of them: the program's own pages are shared, by these as by the agent.
    let other = ward.start(&spec(&["sleep", "1000"]));
    let running = ward.start(&spec(&["sleep", "1000"]));
    let pid = running.mark().pid;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let kib = |name: &str| -> u64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let figure = line.and_then(|line| line.split_whitespace().next());
        figure.unwrap().parse::<u64>().unwrap() << 10
    };
    let figures = (
        kib("Private_Dirty:") + kib("Private_Clean:"),
        kib("Anonymous:"),
    );
    for running in [running, other] {
        finish(running, Box::pin(std::future::ready(()))).await;
    }
    figures
}

/// What many runs took.
struct Times {
    /// The first of ten: what it takes when nobody else wants the processors.
    least: Duration,
    median: Duration,
    most: Duration,
}

impl Times {
    fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        Self {
            least: times[times.len() / 10],
            median: times[times.len() / 2],
            most: times[times.len() * 9 / 10],
        }
    }
}

impl std::fmt::Display for Times {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            least,
            median,
            most,
        } = self;
        write!(
            formatter,
            "{least:8.2?} first of ten, {median:8.2?} median, {most:8.2?} ninth of ten"
        )
    }
}
