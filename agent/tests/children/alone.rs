//! One warden, one command.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use steward_agent::child::{Finished, Stopped, Terms};
use tokio::sync::watch;

use crate::support::{
    DEADLINE, children_of, eventually, signal_all,
    ward::{LONG, SHORT, Ward, ending, refusal, shell, spec},
    wardens_of,
};

#[tokio::test]
async fn bytes_come_back_as_they_were_from_both_streams() {
    let spec = shell("printf '\\377\\000a'; printf 'b\\n' >&2; exit 5");
    let end = Ward::new().run(&spec).await;
    assert_eq!(end.stdout.head, b"\xff\x00a");
    assert_eq!(end.stderr.head, b"b\n");
    assert_eq!(ending(&end), (Some(5), None, None));
    assert!(!end.success);
}

#[tokio::test]
async fn a_command_that_never_ends_is_ended_and_what_it_wrote_is_kept() {
    let mut spec = shell("echo early; exec sleep 1000");
    spec.timeout = SHORT;
    let end = Ward::new().run(&spec).await;
    assert_eq!(ending(&end), (None, Some(15), Some(Stopped::TimedOut)));
    assert_eq!(end.stdout.head, b"early\n");
}

#[tokio::test]
async fn a_command_that_ignores_term_is_killed_after_its_grace() {
    for grace in [SHORT, Duration::from_millis(1200)] {
        let mut spec = shell("trap '' TERM; while :; do sleep 1; done");
        (spec.timeout, spec.grace) = (SHORT, grace);
        let begun = Instant::now();
        let end = Ward::new().run(&spec).await;
        assert_eq!(ending(&end), (None, Some(9), Some(Stopped::TimedOut)));
        assert!(begun.elapsed() >= SHORT + grace, "it was given its time");
    }
}

#[tokio::test]
async fn a_grandchild_that_holds_the_pipe_does_not_hold_us() {
    let begun = Instant::now();
    let end = Ward::new().run(&shell("sleep 1000 & echo done")).await;
    assert_eq!(ending(&end), (Some(0), None, None));
    assert!(end.success);
    assert_eq!(end.stdout.head, b"done\n");
    assert!(begun.elapsed() < Duration::from_secs(60));
}

#[tokio::test]
async fn a_grandchild_that_forks_twice_into_a_session_of_its_own_without_a_trace_is_ended() {
    let ward = Ward::new();
    let file = ward.dir.path().join("pid");
    let path = file.display();
    // Exec keeps the number; what remains has no name, another session, and no living parent.
    let script = format!(
        "(setsid env -i sh -c 'sleep 1000 & echo $! > {path}; exec sleep 1000' >/dev/null 2>&1 &) ;
         while [ ! -s {path} ]; do sleep 0.01; done"
    );
    ward.run(&shell(&script)).await;
    let pid = fs::read_to_string(&file).expect("it ran");
    let gone = !Path::new("/proc").join(pid.trim()).exists();
    assert!(gone, "process {pid} is left");
}

#[tokio::test]
async fn one_that_forks_as_fast_as_it_can_is_ended() {
    // Bounded, so that it does no harm where it should not be ended.
    let script =
        "f() { for i in 1 2 3; do [ $1 -lt 6 ] && f $(($1 + 1)) & done; sleep 1000; }; f 1";
    let mut spec = shell(script);
    (spec.timeout, spec.grace) = (Duration::from_secs(1), SHORT);
    let end = Ward::new().run(&spec).await;
    assert_eq!(ending(&end).2, Some(Stopped::TimedOut));
}

#[tokio::test]
async fn two_hundred_mebibytes_are_counted_and_only_the_first_part_is_kept() {
    let ward = Ward::new();
    let mut spec = shell("head -c 209715200 /dev/zero; echo end");
    spec.cap = 1 << 20;
    let end = ward.run(&spec).await;
    assert_eq!(end.stdout.bytes, 209_715_204);
    assert_eq!(end.stdout.kept(), 64 * 1024);
    assert!(end.stdout.tail.ends_with(b"\0end\n"));
    assert_eq!(end.log.bytes, 1 << 20, "to the byte");
    assert!(end.log.cut.expect("it says so").contains("1048576 bytes"));
}

#[tokio::test]
async fn input_is_what_was_given_or_nothing() {
    let ward = Ward::new();
    let mut given = spec(&["cat"]);
    given.stdin = Some("hello\n".repeat(20_000));
    assert_eq!(ward.run(&given).await.stdout.bytes, 120_000);
    let end = ward.run(&spec(&["cat"])).await;
    assert_eq!((end.success, end.stdout.bytes), (true, 0));
    let mut ignored = spec(&["true"]);
    ignored.stdin = Some("x".repeat(200_000));
    assert!(ward.run(&ignored).await.success);
}

#[tokio::test]
async fn one_that_wants_a_terminal_finds_none() {
    let script =
        "tty; if (: </dev/tty) 2>/dev/null; then echo one; else echo none; fi; ps -o tty= $$";
    let end = Ward::new().run(&shell(script)).await;
    let text = String::from_utf8(end.stdout.head).expect("text");
    assert!(text.starts_with("not a tty\nnone\n?"), "{text}");
}

#[tokio::test]
async fn surroundings_are_as_asked_and_nothing_of_ours_leaks() {
    let ward = Ward::new();
    let script =
        "pwd; echo $A $STEWARD_NODE $STEWARD_ATTEMPT; nice; ls -l /proc/self/fd | grep -c -e '->';
                  grep -E 'Sig(Blk|Ign|Cgt)' /proc/self/status";
    let mut asked = shell(script);
    asked.cwd = Some("/usr".to_owned());
    asked.nice = Some(7);
    asked.env = BTreeMap::from([
        ("A".to_owned(), "b".to_owned()),
        ("STEWARD_NODE".to_owned(), "forged".to_owned()),
    ]);
    let end = ward.run(&asked).await;
    let text = String::from_utf8(end.stdout.head).expect("text");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[..3], ["/usr", "b ship1 1", "7"], "{text}");
    // As many descriptors as without a warden; the shell that runs the tests may leave some open.
    let count = "ls -l /proc/self/fd | grep -c -e '->'";
    let plain = std::process::Command::new("sh")
        .args(["-c", count])
        .output();
    let plain = String::from_utf8(plain.expect("it runs").stdout).expect("text");
    assert_eq!(lines[3], plain.trim(), "{text}");
    let own = fs::read_to_string("/proc/self/status").expect("readable");
    let ignored = |text: &str| {
        let line = text.lines().find(|line| line.starts_with("SigIgn"));
        let mask = line.and_then(|line| line.split_whitespace().nth(1));
        u64::from_str_radix(mask.expect("a mask"), 16).expect("a number")
    };
    // What the test was started with ignoring stays so; that of a broken pipe, which we ignore, does not.
    // The C library's own two are its own business.
    let of_libc = 0b11 << 31;
    assert_eq!(ignored(&text) & !ignored(&own) & !of_libc, 0, "{text}");
    assert_eq!(ignored(&text) & (1 << 12), 0, "{text}");
    assert!(text.contains("SigBlk:\t0000000000000000"), "{text}");
}

#[tokio::test]
async fn a_user_and_a_group_are_as_asked_and_nothing_more() {
    if !rustix::process::getuid().is_root() {
        let mut asked = spec(&["id"]);
        asked.user = Some("nobody".to_owned());
        let end = Ward::new().run(&asked).await;
        assert!(refusal(&end).1.contains("does not run as root"));
        return;
    }
    let ward = Ward::new();
    for (user, group, expected) in [
        (Some("nobody"), None, "nobody nogroup nogroup\n"),
        (Some("65534"), Some("daemon"), "nobody daemon daemon\n"),
        (None, Some("daemon"), "root daemon"),
    ] {
        let mut asked = shell("echo $(id -un) $(id -gn) $(id -Gn)");
        asked.user = user.map(str::to_owned);
        asked.group = group.map(str::to_owned);
        let end = ward.run(&asked).await;
        let text = String::from_utf8(end.stdout.head).expect("text");
        assert!(text.starts_with(expected), "{text}");
    }
}

#[tokio::test]
async fn what_cannot_be_started_says_why() {
    let ward = Ward::new();
    let file = |name: &str, text: &str, mode: u32| {
        let path = ward.dir.path().join(name);
        fs::write(&path, text).expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("its mode");
        path.to_string_lossy().into_owned()
    };
    let plain = file("plain", "x", 0o644);
    let nonsense = file("nonsense", "\u{1}\u{2}", 0o755);
    let elsewhere = |cwd: &str| {
        let mut spec = spec(&["true"]);
        spec.cwd = Some(cwd.to_owned());
        spec
    };
    let somebody = |user: Option<&str>, group: Option<&str>| {
        let mut spec = spec(&["true"]);
        spec.user = user.map(str::to_owned);
        spec.group = group.map(str::to_owned);
        spec
    };
    let as_root = rustix::process::getuid().is_root();
    let unknown = |words: &'static str| if as_root { words } else { "as root" };
    for (spec, code, words) in [
        (spec(&["no-such-program"]), 127, "was not found"),
        (spec(&["/no/such/program"]), 127, "was not found"),
        (spec(&[&plain]), 126, "cannot be executed"),
        (spec(&[&nonsense]), 126, "cannot be executed"),
        (spec(&["/"]), 126, "cannot be executed"),
        (elsewhere("/no/such/dir"), 126, "working directory"),
        (elsewhere("/etc/passwd"), 126, "is not a directory"),
        (
            somebody(Some("no-such-user"), None),
            126,
            unknown("user \"no-such-user\" does not exist"),
        ),
        (
            somebody(None, Some("no-such-group")),
            126,
            unknown("group \"no-such-group\" does not exist"),
        ),
    ] {
        let end = ward.run(&spec).await;
        let (exit_code, reason) = refusal(&end);
        assert_eq!(exit_code, Some(code), "{reason}");
        assert!(reason.contains(words), "{reason}");
        assert!(!end.success);
    }
}

#[tokio::test]
async fn a_cancelled_command_is_asked_and_its_output_kept() {
    let ward = Ward::new();
    let there = ward.dir.path().join("there");
    let script = format!("echo partial; touch {}; exec sleep 1000", there.display());
    let end = ward.run_until(&shell(&script), once(there)).await;
    assert_eq!(ending(&end), (None, Some(15), Some(Stopped::Told)));
    assert_eq!(end.stdout.head, b"partial\n");
}

/// Resolves once a file is there.
fn once(path: std::path::PathBuf) -> steward_agent::child::Cancelled {
    Box::pin(async move { eventually("a file", || path.exists().then_some(())).await })
}

#[tokio::test]
async fn a_command_cancelled_at_once_is_cancelled_and_not_lost() {
    let ward = Ward::new();
    for _ in 0..20 {
        let at_once = Box::pin(std::future::ready(()));
        let end = ward.run_until(&spec(&["sleep", "1000"]), at_once).await;
        assert_eq!(ending(&end), (None, Some(15), Some(Stopped::Told)));
    }
}

#[tokio::test]
async fn a_command_that_does_not_obey_is_killed_with_all_it_started() {
    let ward = Ward::new();
    let there = ward.dir.path().join("there");
    let script = format!(
        "trap '' TERM; setsid sh -c 'trap \"\" TERM; touch {0}; while :; do sleep 1; done' &
         while :; do sleep 1; done",
        there.display()
    );
    let mut spec = shell(&script);
    spec.grace = SHORT;
    let end = ward.run_until(&spec, once(there)).await;
    assert_eq!(ending(&end), (None, Some(9), Some(Stopped::Told)));
}

#[tokio::test]
async fn a_command_stopped_for_one_reason_is_not_stopped_for_another_afterwards() {
    let mut stubborn = shell("trap '' TERM; while :; do sleep 1; done");
    (stubborn.timeout, stubborn.grace) = (SHORT, SHORT * 4);
    let later = Box::pin(tokio::time::sleep(SHORT * 2));
    let end = Ward::new().run_until(&stubborn, later).await;
    assert_eq!(ending(&end), (None, Some(9), Some(Stopped::TimedOut)));
}

#[tokio::test]
async fn a_command_whose_warden_is_killed_is_lost_and_nothing_of_it_is_left() {
    let ward = Ward::new();
    let script = "setsid sleep 1000 & sleep 1000 & echo $!; exec sleep 1000";
    let spec = shell(script);
    // As the agent does, whose orphans they become.
    steward_agent::child::adopt_orphans().expect("the kernel allows it");
    let running = ward.start(&spec);
    eventually("three processes of the command", || {
        (children_of(spec.message_id).len() == 3).then_some(())
    })
    .await;
    signal_all(&[running.mark().pid], Signal::KILL);
    let (_stop, stop) = watch::channel(steward_agent::signals::Stop::No);
    let terms = Terms {
        drain: LONG,
        stop,
        cancelled: Box::pin(std::future::pending()),
    };
    match running.finish(terms).await {
        Finished::Lost(reason) => assert!(reason.contains("is gone"), "{reason}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(children_of(spec.message_id), Vec::<i32>::new());
}

#[tokio::test]
async fn a_warden_that_cannot_begin_says_why() {
    let ward = Ward::new();
    let spec = spec(&["true"]);
    fs::create_dir_all(ward.place(&spec).dir().join("output")).expect("a directory in the way");
    let dir = ward.place(&spec).dir().to_owned();
    fs::write(
        dir.join("spec.json"),
        serde_json::to_vec(&spec).expect("JSON"),
    )
    .expect("written");
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_steward-agent"))
        .arg("child")
        .arg(&dir)
        .output()
        .expect("it runs");
    assert_eq!(output.status.code(), Some(1));
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(words.contains("create the file for the output"), "{words}");
    let left = fs::read_to_string(dir.join("trouble")).expect("words are left");
    assert!(words.contains(&left), "{left}");
    let begun = Instant::now();
    while !wardens_of(&spec.message_id.to_string()).is_empty() {
        assert!(begun.elapsed() < DEADLINE, "it is still there");
    }
}
