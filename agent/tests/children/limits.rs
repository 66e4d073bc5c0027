//! Limits held by control groups: where there are any; elsewhere these tests say so, and how many of
//! them there are.

use std::{fs, io::Write, path::Path, time::Instant};

use steward_agent::child::{
    Stopped,
    cgroup::{Cgroups, Insist, LEAST_MEMORY},
};
use steward_protocol::body::{Bytes, Limits, Quota};

use crate::support::ward::{SHORT, Ward, ending, refusal, shell, spec};

/// Tells whether these limits can be held here, loudly when not.
fn held(ward: &Ward, limits: &Limits) -> bool {
    let missing = ward.nursery.cgroups().missing(limits);
    if missing.is_empty() {
        return true;
    }
    let words = format!(
        "SKIPPED: no control group for {} here\n",
        missing.join(", ")
    );
    std::io::stderr().write_all(words.as_bytes()).ok();
    false
}

fn tasks(most: u32) -> Limits {
    Limits {
        tasks: Some(most),
        ..Limits::default()
    }
}

/// Returns the directories of groups of this message that are left anywhere.
fn groups_of(id: &str) -> Vec<String> {
    fn look(dir: &Path, depth: u32, id: &str, found: &mut Vec<String>) {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        for entry in entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
            if entry.file_name().to_string_lossy().contains(id) {
                found.push(entry.path().display().to_string());
            } else if depth > 0 {
                look(&entry.path(), depth - 1, id, found);
            }
        }
    }
    let mut found = Vec::new();
    look(Path::new("/sys/fs/cgroup"), 4, id, &mut found);
    found
}

#[tokio::test]
async fn a_fork_bomb_hurts_nobody_and_is_ended() {
    let ward = Ward::new();
    if !held(&ward, &tasks(1)) {
        return;
    }
    // None of them goes away by itself, so the limit is reached for sure.
    let mut bomb = shell("b() { b & b & exec sleep 1000; }; b");
    bomb.limits = tasks(20);
    (bomb.timeout, bomb.grace) = (SHORT * 4, SHORT);
    let begun = Instant::now();
    let end = ward.run(&bomb).await;
    assert!(begun.elapsed().as_secs() < 60);
    assert!(
        end.notes
            .iter()
            .any(|note| note.contains("limit of 20 tasks")),
        "{:?}",
        end.notes
    );
    assert_eq!(
        groups_of(&bomb.message_id.to_string()),
        Vec::<String>::new()
    );
}

#[tokio::test]
async fn a_limit_of_tasks_counts_those_of_the_command_alone() {
    let ward = Ward::new();
    if !held(&ward, &tasks(1)) {
        return;
    }
    for (most, works) in [(1, true), (2, true)] {
        let mut one = spec(&["true"]);
        one.limits = tasks(most);
        assert_eq!(ward.run(&one).await.success, works);
    }
    for (most, works) in [(1, false), (2, true)] {
        let mut two = shell("(exit 0); exit $?");
        two.argv[2] = "/bin/true & wait $!".to_owned();
        two.limits = tasks(most);
        assert_eq!(ward.run(&two).await.success, works, "{most}");
    }
}

#[tokio::test]
async fn a_memory_hog_is_killed_at_its_limit() {
    let ward = Ward::new();
    let limits = Limits {
        memory: Some(Bytes(32 << 20)),
        ..Limits::default()
    };
    if !held(&ward, &limits) {
        return;
    }
    // Keeps what it reads.
    let mut hog = shell("exec tail /dev/zero");
    hog.limits = limits;
    let end = ward.run(&hog).await;
    assert_eq!(ending(&end), (None, Some(9), None), "{end:?}");
    assert!(
        end.notes
            .iter()
            .any(|note| note.contains("memory limit of 33554432")),
        "{:?}",
        end.notes
    );
    // What fits, fits.
    hog.argv[2] = "head -c 1000000 /dev/zero | tail -c 1000000 | wc -c".to_owned();
    hog.attempt = 2;
    let end = ward.run(&hog).await;
    assert_eq!(end.stdout.head, b"1000000\n");
    assert_eq!((end.success, end.notes.len()), (true, 0));
    let mut tiny = spec(&["true"]);
    tiny.limits.memory = Some(Bytes(LEAST_MEMORY - 1));
    assert!(
        refusal(&ward.run(&tiny).await)
            .1
            .contains("no program starts")
    );
    tiny.limits.memory = Some(Bytes(LEAST_MEMORY));
    tiny.attempt = 2;
    assert!(ward.run(&tiny).await.success);
}

#[tokio::test]
async fn a_share_of_a_processor_is_all_it_gets() {
    let ward = Ward::new();
    let limits = Limits {
        cpu: Some(Quota(20)),
        ..Limits::default()
    };
    if !held(&ward, &limits) {
        return;
    }
    let mut busy = shell("trap 'times; exit 0' TERM; while :; do :; done");
    busy.limits = limits;
    busy.timeout = SHORT * 5;
    let end = ward.run(&busy).await;
    assert_eq!(ending(&end), (Some(0), None, Some(Stopped::TimedOut)));
    let text = String::from_utf8_lossy(&end.stdout.head).into_owned();
    // "0m0.300000s 0m0.010000s" of the shell itself.
    let seconds: f64 = text
        .split_whitespace()
        .take(2)
        .filter_map(|time| {
            time.trim_end_matches('s')
                .split_once('m')?
                .1
                .parse::<f64>()
                .ok()
        })
        .sum();
    assert!(
        seconds < 0.75,
        "a fifth of 1.5 s, and it had {seconds}: {text}"
    );
}

#[tokio::test]
async fn limits_that_cannot_be_held_keep_it_from_starting_or_are_named() {
    let ward = Ward::new();
    let file = ward.dir.path().join("children");
    let mut asked = spec(&["true"]);
    asked.limits = tasks(5);
    // A nursery tells its own groups; this is a warden that was told of none.
    for (insist, attempt) in [(Insist::Require, 1), (Insist::BestEffort, 2)] {
        (asked.insist, asked.attempt, asked.cgroups) = (insist, attempt, Cgroups::default());
        let place = ward.place(&asked);
        place.create(&asked).expect("a directory");
        let status = std::process::Command::new(env!("CARGO_BIN_EXE_steward-agent"))
            .arg("child")
            .arg(place.dir())
            .status()
            .expect("it runs");
        assert!(status.success());
        let end = place.end().expect("readable").expect("it has ended");
        match insist {
            Insist::Require => assert!(refusal(&end).1.contains("limit on tasks"), "{end:?}"),
            Insist::BestEffort => {
                assert!(end.success);
                assert!(
                    end.notes[0].contains("cannot hold a limit on tasks"),
                    "{end:?}"
                );
            }
        }
    }
    assert!(file.is_dir());
}
