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

use steward_agent::{
    child::{
        Finished, Following, Nursery, Spec, Terms,
        cgroup::{Cgroups, Insist},
    },
    signals::Stop,
};
use steward_protocol::{MessageId, body::Limits};
use tokio::sync::watch;
use uuid::Uuid;

/// Commands measured each way.
const ROUNDS: usize = 300;

/// What a warden may cost (issue 4).
const TIME: Duration = Duration::from_millis(2);
const MEMORY: u64 = 2 << 20;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let dir = tempfile::tempdir().unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_steward-agent"));
    let nursery = Nursery::with_program(dir.path(), program).unwrap();
    let (mut direct, mut warded, mut durable) = (Vec::new(), Vec::new(), Vec::new());
    // In turns, so that whatever else the machine does is shared.
    for round in 0..ROUNDS {
        direct.push(timed(run_direct).await);
        warded.push(timed(async || run_warded(&nursery).await).await);
        durable.push(timed(async || make_durable(&dir.path().join(round.to_string()))).await);
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
    let (private, anonymous) = memory(&nursery).await;
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

async fn run_warded(nursery: &Nursery) {
    let running = nursery.start(&spec(&["true"])).unwrap();
    let (_stop, stop) = watch::channel(Stop::No);
    let terms = Terms {
        drain: Duration::ZERO,
        stop,
        cancelled: Box::pin(std::future::pending()),
    };
    match running.finish(terms).await {
        Finished::Over(end) => assert!(end.success),
        other => panic!("{other:?}"),
    }
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
async fn memory(nursery: &Nursery) -> (u64, u64) {
    // Two of them: the program's own pages are shared, by these as by the agent.
    let other = nursery.start(&spec(&["sleep", "1000"])).unwrap();
    let running = nursery.start(&spec(&["sleep", "1000"])).unwrap();
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
        let (_stop, stop) = watch::channel(Stop::No);
        let terms = Terms {
            drain: Duration::ZERO,
            stop,
            cancelled: Box::pin(std::future::ready(())),
        };
        running.finish(terms).await;
    }
    figures
}

fn spec(argv: &[&str]) -> Spec {
    Spec {
        argv: argv.iter().map(ToString::to_string).collect(),
        cwd: None,
        env: Default::default(),
        stdin: None,
        user: None,
        group: None,
        nice: None,
        limits: Limits::default(),
        insist: Insist::Require,
        cgroups: Cgroups::default(),
        timeout: Duration::from_secs(60),
        grace: Duration::from_secs(5),
        cap: 16 << 20,
        following: Following::Nobody,
        node: "ship1".parse().unwrap(),
        message_id: MessageId(Uuid::new_v4()),
        attempt: 1,
        success_codes: vec![0],
    }
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
