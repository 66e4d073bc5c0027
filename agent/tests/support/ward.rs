//! Wardens without an agent: commands started and awaited as an agent would. The benchmark of wardens
//! uses this file too.

use std::{fs, path::Path, time::Duration};

use steward_agent::{
    child::{
        Cancelled, End, Finished, Following, How, Nursery, Place, Running, Spec, Stopped, Terms,
        cgroup::{Cgroups, Insist},
    },
    signals::Stop,
};
use steward_protocol::{MessageId, body::Limits};
use tempfile::TempDir;
use tokio::sync::watch;
use uuid::Uuid;

pub(crate) const LONG: Duration = Duration::from_secs(60);
pub(crate) const SHORT: Duration = Duration::from_millis(300);

/// A place for wardens.
pub(crate) struct Ward {
    pub(crate) dir: TempDir,
    pub(crate) nursery: Nursery,
}

/// How a command came to its end, taken apart.
pub(crate) type Ending = (Option<i32>, Option<i32>, Option<Stopped>);

impl Ward {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let program = Path::new(env!("CARGO_BIN_EXE_steward-agent"));
        let nursery = Nursery::with_program(dir.path(), program).expect("a nursery");
        Self { dir, nursery }
    }

    pub(crate) fn start(&self, spec: &Spec) -> Running {
        self.nursery.start(spec).expect("a warden starts")
    }

    pub(crate) fn place(&self, spec: &Spec) -> Place {
        self.nursery.place(spec.message_id, spec.attempt)
    }

    /// Runs to the end that comes by itself, and makes sure that nothing is left.
    pub(crate) async fn run(&self, spec: &Spec) -> End {
        self.run_until(spec, Box::pin(std::future::pending())).await
    }

    /// The same, stopped once `cancelled` resolves.
    pub(crate) async fn run_until(&self, spec: &Spec, cancelled: Cancelled) -> End {
        let end = finish(self.start(spec), cancelled).await;
        assert_eq!(children_of(spec.message_id), Vec::<i32>::new(), "left");
        let id = spec.message_id.to_string();
        assert_eq!(wardens_of(&id), Vec::<i32>::new(), "left");
        end
    }
}

/// Waits for the end of a command, stopped once `cancelled` resolves.
pub(crate) async fn finish(running: Running, cancelled: Cancelled) -> End {
    let (_stop, stop) = watch::channel(Stop::No);
    let terms = Terms {
        drain: LONG,
        stop,
        cancelled,
    };
    match running.finish(terms).await {
        Finished::Over(end) => *end,
        other => panic!("it did not end: {other:?}"),
    }
}

/// Returns how a command came to its end; it must have run.
pub(crate) fn ending(end: &End) -> Ending {
    match &end.how {
        How::Ended {
            exit_code,
            signal,
            stopped,
            survivors,
        } => {
            assert_eq!(survivors, &Vec::<i32>::new());
            (*exit_code, *signal, *stopped)
        }
        How::NotStarted { reason, .. } => panic!("it did not start: {reason}"),
    }
}

/// Returns why a command did not run, and the exit code said of it.
pub(crate) fn refusal(end: &End) -> (Option<i32>, &str) {
    match &end.how {
        How::NotStarted { exit_code, reason } => (*exit_code, reason),
        How::Ended { .. } => panic!("it ran: {end:?}"),
    }
}

pub(crate) fn spec(argv: &[&str]) -> Spec {
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
        timeout: LONG,
        grace: Duration::from_secs(5),
        cap: 16 << 20,
        following: Following::Nobody,
        node: "ship1".parse().expect("a name"),
        message_id: MessageId(Uuid::new_v4()),
        attempt: 1,
        success_codes: vec![0],
    }
}

pub(crate) fn shell(script: &str) -> Spec {
    spec(&["sh", "-c", script])
}

/// Returns the wardens whose command line has these words in it: a message's id, or a directory.
pub(crate) fn wardens_of(words: &str) -> Vec<i32> {
    let listing = fs::read_dir("/proc").expect("/proc is there");
    listing
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).into_owned();
            line.split('\0').nth(1) == Some("child") && line.contains(words)
        })
        .collect()
}

/// Returns the processes whose environment names this message.
pub(crate) fn children_of(id: steward_protocol::MessageId) -> Vec<i32> {
    let wanted = format!("STEWARD_MESSAGE_ID={id}");
    let listing = fs::read_dir("/proc").expect("/proc is there");
    listing
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| {
            let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environ
                .split(|byte| *byte == 0)
                .any(|pair| pair == wanted.as_bytes())
        })
        .collect()
}
