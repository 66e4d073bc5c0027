//! Commands that misbehave, for real.

use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt, time::Instant as Clock};

use tempfile::TempDir;
use uuid::Uuid;

use super::*;

fn spec(argv: &[&str]) -> Spec {
    Spec {
        body: ShellBody {
            data: argv.iter().map(ToString::to_string).collect(),
            ..ShellBody::default()
        },
        node: "ship1".parse().expect("a name"),
        message_id: MessageId(Uuid::new_v4()),
        attempt: 1,
    }
}

fn shell(script: &str) -> Spec {
    spec(&["sh", "-c", script])
}

/// Nobody wants it stopped.
fn never() -> Cancelled {
    Box::pin(std::future::pending())
}

/// Runs to the end with this timeout, and makes sure that nothing is left.
async fn run(spec: &Spec, timeout: Duration) -> Ended {
    adopt_orphans().expect("the kernel allows it");
    let (_stop, stopping) = watch::channel(Stop::No);
    let terms = Terms {
        timeout,
        drain: Duration::from_secs(1),
        stop: stopping,
        cancelled: never(),
    };
    let running = start(spec).expect("it starts");
    let ended = running.finish(terms).await.expect("its end is known");
    assert_eq!(relatives(spec.message_id), Vec::<i32>::new(), "left behind");
    ended
}

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(300);

/// Returns the living processes that carry a message's id.
fn relatives(id: MessageId) -> Vec<i32> {
    let wanted = format!("STEWARD_MESSAGE_ID={id}");
    fs::read_dir("/proc")
        .expect("/proc is there")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| {
            let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environ
                .split(|byte| *byte == 0)
                .any(|pair| pair == wanted.as_bytes())
        })
        .collect()
}

#[tokio::test]
async fn bytes_come_back_as_they_were_from_both_streams() {
    let ended = run(
        &shell("printf '\\377\\000a'; printf 'b\\n' >&2; exit 5"),
        LONG,
    )
    .await;
    assert_eq!(ended.stdout.head, b"\xff\x00a");
    assert_eq!(ended.stderr.head, b"b\n");
    assert_eq!(
        (ended.exit_code, ended.signal, ended.stopped),
        (Some(5), None, None)
    );
}

#[tokio::test]
async fn a_command_that_never_ends_is_ended_and_what_it_wrote_is_kept() {
    let ended = run(&shell("echo early; exec sleep 1000"), SHORT).await;
    assert_eq!(ended.stopped, Some(Stopped::TimedOut));
    assert_eq!((ended.exit_code, ended.signal), (None, Some(15)));
    assert_eq!(ended.stdout.head, b"early\n");
}

#[tokio::test]
async fn a_command_that_ignores_term_is_killed() {
    let begun = Clock::now();
    let ended = run(&shell("trap '' TERM; while :; do sleep 1; done"), SHORT).await;
    assert_eq!(ended.signal, Some(9));
    assert!(begun.elapsed() >= GRACE, "it was given its time");
    assert!(begun.elapsed() < GRACE + Duration::from_secs(5));
}

#[tokio::test]
async fn a_grandchild_that_holds_the_pipe_does_not_hold_us() {
    let begun = Clock::now();
    let ended = run(&shell("sleep 1000 & echo done"), LONG).await;
    assert_eq!((ended.exit_code, ended.stopped), (Some(0), None));
    assert_eq!(ended.stdout.head, b"done\n");
    assert!(begun.elapsed() < DRAIN + Duration::from_secs(5));
}

#[tokio::test]
async fn a_grandchild_that_forks_twice_into_a_session_of_its_own_is_found() {
    let script = "(setsid sh -c 'sleep 1000 & sleep 1000' >/dev/null 2>&1 &) ; echo done";
    let ended = run(&shell(script), LONG).await;
    assert_eq!(ended.stdout.head, b"done\n");
}

#[tokio::test]
async fn a_grandchild_that_also_wipes_its_environment_is_ended_when_no_command_runs() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let path = file.path().display();
    // Exec keeps the number; what remains has no tag, another session, and no living parent.
    let script = format!(
        "(setsid env -i sh -c 'echo $$ > {path}; exec sleep 1000' >/dev/null 2>&1 &) ; while [ ! -s {path} ]; do sleep 0.01; done"
    );
    run(&shell(&script), LONG).await;
    let text = std::fs::read_to_string(file.path()).expect("readable");
    let pid: i32 = text.trim().parse().expect("a number");
    let deadline = Clock::now() + LONG;
    // Other tests' commands may run now; the first sweep without one ends it.
    while sweep::mark(pid).is_some_and(is_alive) {
        assert!(Clock::now() < deadline, "it was not ended");
        run(&shell("true"), LONG).await;
    }
}

#[tokio::test]
async fn two_hundred_mebibytes_are_counted_and_not_kept() {
    let ended = run(&shell("head -c 209715200 /dev/zero"), LONG).await;
    assert_eq!(ended.stdout.bytes, 209_715_200);
    assert_eq!(ended.stdout.kept(), 64 * 1024);
    assert!(ended.stdout.is_truncated());
}

#[tokio::test]
async fn input_is_what_was_given_or_nothing() {
    let mut given = spec(&["cat"]);
    given.body.stdin = Some("hello\n".repeat(20_000));
    let ended = run(&given, LONG).await;
    assert_eq!(ended.stdout.bytes, 120_000);
    let ended = run(&spec(&["cat"]), LONG).await;
    assert_eq!((ended.exit_code, ended.stdout.bytes), (Some(0), 0));
    let mut ignored = spec(&["true"]);
    ignored.body.stdin = Some("x".repeat(200_000));
    assert_eq!(run(&ignored, LONG).await.exit_code, Some(0));
}

#[tokio::test]
async fn cwd_and_env_are_as_asked() {
    let mut asked = shell("pwd; echo $A $STEWARD_NODE $STEWARD_ATTEMPT");
    asked.body.cwd = Some("/usr".to_owned());
    asked.body.env = BTreeMap::from([
        ("A".to_owned(), "b".to_owned()),
        ("STEWARD_NODE".to_owned(), "forged".to_owned()),
    ]);
    let ended = run(&asked, LONG).await;
    assert_eq!(ended.stdout.head, b"/usr\nb ship1 1\n");
}

fn failure(spec: &Spec) -> (Option<i32>, String) {
    match start(spec) {
        Ok(_) => panic!("it started"),
        Err(not_started) => (not_started.exit_code, not_started.reason),
    }
}

#[tokio::test]
async fn what_cannot_be_started_says_why() {
    let dir = TempDir::new().expect("a directory");
    let file = |name: &str, text: &str, mode: u32| {
        let path = dir.path().join(name);
        fs::write(&path, text).expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("its mode");
        path.to_string_lossy().into_owned()
    };
    let plain = file("plain", "x", 0o644);
    let nonsense = file("nonsense", "\u{1}\u{2}", 0o755);
    let elsewhere = |cwd: &str| {
        let mut spec = spec(&["true"]);
        spec.body.cwd = Some(cwd.to_owned());
        spec
    };
    for (spec, code, words) in [
        (spec(&["no-such-program"]), 127, "was not found"),
        (spec(&["/no/such/program"]), 127, "was not found"),
        (spec(&[&plain]), 126, "cannot be executed"),
        (spec(&[&nonsense]), 126, "cannot be executed"),
        (spec(&["/"]), 126, "cannot be executed"),
        (elsewhere("/no/such/dir"), 126, "working directory"),
        (elsewhere("/etc/passwd"), 126, "is not a directory"),
    ] {
        let (exit_code, reason) = failure(&spec);
        assert_eq!(exit_code, Some(code), "{reason}");
        assert!(reason.contains(words), "{reason}");
    }
}

#[tokio::test]
async fn a_stopping_agent_gives_a_command_its_drain_and_a_second_word_kills_it() {
    adopt_orphans().expect("the kernel allows it");
    for (words, drain, signal) in [
        (vec![Stop::Drain], SHORT, 15),
        (vec![Stop::Drain, Stop::Now], LONG, 9),
        (vec![Stop::Now], LONG, 9),
    ] {
        let (stop, stopping) = watch::channel(Stop::No);
        let terms = Terms {
            timeout: LONG,
            drain,
            stop: stopping,
            cancelled: never(),
        };
        let running = start(&spec(&["sleep", "1000"])).expect("it starts");
        let ending = tokio::spawn(running.finish(terms));
        for word in words {
            stop.send_replace(word);
            tokio::task::yield_now().await;
        }
        let ended = ending.await.expect("no panic").expect("its end is known");
        assert_eq!(
            (ended.signal, ended.stopped),
            (Some(signal), Some(Stopped::AgentStopping))
        );
    }
}

#[tokio::test]
async fn a_command_is_found_by_its_message_and_watched_to_its_end() {
    let mut spec = spec(&["cat"]);
    spec.body.stdin = None;
    spec.body.data = vec!["sleep".to_owned(), "1000".to_owned()];
    let running = start(&spec).expect("it starts");
    let label = running.label.clone();
    // For a moment after its start a program has no environment yet.
    let deadline = Clock::now() + LONG;
    while find_leader(&label) != Some(running.mark()) {
        assert!(
            Clock::now() < deadline,
            "the command is not found by its message"
        );
        sleep(LOOK).await;
    }
    let neighbour = Label {
        node: "another".parse().expect("a name"),
        ..label.clone()
    };
    assert_eq!(find_leader(&neighbour), None);
    let mark = running.mark();
    // As after a restart of the agent: nobody waits for it as a child.
    drop(running);
    let (_stop, stopping) = watch::channel(Stop::No);
    let terms = Terms {
        timeout: SHORT,
        drain: LONG,
        stop: stopping,
        cancelled: never(),
    };
    let end = super::watch(mark, &label, terms).await;
    assert_eq!(end, WatchEnd::Stopped(Stopped::TimedOut));
    assert!(!is_alive(mark));
}

/// Runs until somebody wants it stopped once `path` exists, and makes sure that nothing is left.
async fn cancel_once_there(script: &str, path: &Path) -> Ended {
    adopt_orphans().expect("the kernel allows it");
    let spec = shell(script);
    let (_stop, stopping) = watch::channel(Stop::No);
    let path = path.to_owned();
    let terms = Terms {
        timeout: LONG,
        drain: LONG,
        stop: stopping,
        cancelled: Box::pin(async move {
            while !path.exists() {
                sleep(LOOK).await;
            }
        }),
    };
    let running = start(&spec).expect("it starts");
    let ended = running.finish(terms).await.expect("its end is known");
    assert_eq!(relatives(spec.message_id), Vec::<i32>::new(), "left behind");
    ended
}

#[tokio::test]
async fn a_cancelled_command_is_asked_and_its_output_kept() {
    let dir = tempfile::tempdir().expect("a directory");
    let there = dir.path().join("there");
    let script = format!("echo partial; touch {}; exec sleep 1000", there.display());
    let ended = cancel_once_there(&script, &there).await;
    assert_eq!(
        (ended.signal, ended.stopped),
        (Some(15), Some(Stopped::Cancelled))
    );
    assert_eq!(ended.stdout.head, b"partial\n");
}

#[tokio::test]
async fn a_cancelled_command_that_does_not_obey_is_killed_with_all_it_started() {
    let dir = tempfile::tempdir().expect("a directory");
    let there = dir.path().join("there");
    let script = format!(
        "trap '' TERM; setsid sh -c 'trap \"\" TERM; touch {0}; while :; do sleep 1; done' &
         while :; do sleep 1; done",
        there.display()
    );
    let began = Clock::now();
    let ended = cancel_once_there(&script, &there).await;
    assert_eq!(
        (ended.signal, ended.stopped),
        (Some(9), Some(Stopped::Cancelled))
    );
    assert!(began.elapsed() >= GRACE, "it was given time to obey");
}

#[tokio::test]
async fn a_command_that_was_over_before_it_was_cancelled_keeps_its_end() {
    adopt_orphans().expect("the kernel allows it");
    for _ in 0..20 {
        let running = start(&spec(&["true"])).expect("it starts");
        let deadline = Clock::now() + LONG;
        while is_alive(running.mark()) {
            assert!(Clock::now() < deadline, "the command does not end");
            std::thread::sleep(LOOK);
        }
        let (_stop, stopping) = watch::channel(Stop::No);
        let terms = Terms {
            timeout: LONG,
            drain: LONG,
            stop: stopping,
            cancelled: Box::pin(std::future::ready(())),
        };
        let ended = running.finish(terms).await.expect("its end is known");
        assert_eq!((ended.exit_code, ended.stopped), (Some(0), None));
    }
}

#[tokio::test]
async fn a_command_stopped_for_another_reason_is_not_cancelled_afterwards() {
    adopt_orphans().expect("the kernel allows it");
    let (_stop, stopping) = watch::channel(Stop::No);
    let terms = Terms {
        timeout: SHORT,
        drain: LONG,
        stop: stopping,
        cancelled: Box::pin(sleep(SHORT * 2)),
    };
    let stubborn = shell("trap '' TERM; while :; do sleep 1; done");
    let running = start(&stubborn).expect("it starts");
    let ended = running.finish(terms).await.expect("its end is known");
    assert_eq!(
        (ended.signal, ended.stopped),
        (Some(9), Some(Stopped::TimedOut))
    );
}

#[tokio::test]
async fn a_watched_command_can_be_cancelled() {
    let running = start(&spec(&["sleep", "1000"])).expect("it starts");
    let (mark, label) = (running.mark(), running.label.clone());
    drop(running);
    let (_stop, stopping) = watch::channel(Stop::No);
    let terms = Terms {
        timeout: LONG,
        drain: LONG,
        stop: stopping,
        cancelled: Box::pin(std::future::ready(())),
    };
    let end = super::watch(mark, &label, terms).await;
    assert_eq!(end, WatchEnd::Stopped(Stopped::Cancelled));
    assert!(!is_alive(mark));
}
