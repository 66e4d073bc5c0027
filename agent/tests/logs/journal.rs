//! The systemd journal, with journal files made by the system's own tools and the real `journalctl`.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use steward_protocol::logs::{Micros, Reason};

use super::{check_order, input, numbers, pair, start, texts};
use crate::support::{Agent, Field, Station, eventually, peers};

const BOOT: &str = "5c9d2f3a6a8e4c7d8d1f2b3c4d5e6f70";

/// When the first entry was taken: 2026-11-21T08:00:00Z.
const BEGIN: u64 = 1_795_248_000_000_000;

fn entry(number: usize, boot: &str, message: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let text = |text: &str| text.as_bytes().to_vec();
    let at = BEGIN + number as u64 * 1000;
    let since_boot = 1_000_000 + number * 1000;
    vec![
        ("__REALTIME_TIMESTAMP", text(&at.to_string())),
        ("__MONOTONIC_TIMESTAMP", text(&since_boot.to_string())),
        ("_BOOT_ID", text(boot)),
        ("PRIORITY", text("4")),
        ("SYSLOG_FACILITY", text("3")),
        ("SYSLOG_IDENTIFIER", text("app")),
        ("_PID", text("77")),
        ("_HOSTNAME", text("ship1")),
        ("_SYSTEMD_UNIT", text("app.service")),
        ("MESSAGE", message.to_vec()),
    ]
}

/// Adds numbered entries to a journal file.
fn write(file: &Path, from: usize, to: usize) -> Option<()> {
    let one = |number| entry(number, BOOT, format!("line {number}").as_bytes());
    peers::write_journal(file, &(from..to).map(one).collect::<Vec<_>>())
}

/// A journal in a directory of its own, and the config that reads it.
fn journal(field: &Field) -> (PathBuf, String) {
    let dir = field.path("journal");
    fs::create_dir(&dir).expect("a directory");
    let config = input("system", &format!("journal://{}", dir.display()));
    (dir, config)
}

/// Returns the number of the program that reads the journal for an agent.
fn reader(agent: &Agent) -> Option<i32> {
    let parent = agent.pid().as_raw_nonzero().get();
    let mut numbers = fs::read_dir("/proc")
        .expect("processes")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    numbers.find(|pid| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let its_parent = stat
            .rsplit_once(')')
            .and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse().ok());
        let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        its_parent == Some(parent) && line.starts_with("journalctl") && line.contains("--follow")
    })
}

fn is_running(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

async fn place_is_kept(field: &Field) {
    let dir = field.path("ship1").join("logs/journal");
    eventually("a place that is kept", || {
        fs::read_dir(&dir).ok()?.next().map(drop)
    })
    .await;
}

#[tokio::test]
async fn entries_of_all_boots_arrive_as_lines_and_new_ones_follow() {
    let field = Field::new();
    let (dir, config) = journal(&field);
    let file = dir.join("system.journal");
    let earlier = "00000000000000000000000000000001";
    let odd = b"two\nlines \xff\0 and bytes".to_vec();
    let entries = [
        entry(0, earlier, b"line 0"),
        entry(1, BOOT, &odd),
        entry(2, BOOT, &[b'x'; 20_000]),
    ];
    if peers::write_journal(&file, &entries).is_none() {
        return;
    }
    let (_agent, station) = pair(&field, &config).await;
    texts(&station, "system", 3).await;
    write(&file, 3, 103);
    let stored = texts(&station, "system", 103).await;
    let head = |micros: &str| {
        format!(
            "<28>1 2026-11-21T08:00:00.{micros}Z ship1 app 77 - [journal@32473 unit=\"app.service\"] "
        )
    };
    assert_eq!(stored[0], head("000000") + "line 0");
    assert_eq!(stored[102], head("102000") + "line 102");
    assert_eq!(numbers(&stored[3..]), (3..103).collect::<Vec<_>>());
    check_order(&station);
    let world = station.world();
    let records = &world.logs.records;
    assert_eq!(records[1].raw, [head("001000").as_bytes(), &odd].concat());
    assert_eq!(records[2].raw.len(), 8 << 10);
    assert_eq!(records[2].length, (head("002000").len() + 20_000) as u64);
    let is_fine = |one: &crate::support::logs::Stored| one.severity == 4 && one.gap.is_none();
    assert!(records.iter().all(is_fine));
}

#[tokio::test]
async fn an_agent_killed_again_and_again_leaves_no_entry_out() {
    const KILLS: usize = 20;
    const ENTRIES: usize = 600;
    let field = Field::new();
    let (dir, config) = journal(&field);
    let file = dir.join("system.journal");
    let station = field.station().await;
    for round in 0..KILLS {
        if write(&file, round * ENTRIES, (round + 1) * ENTRIES).is_none() {
            return;
        }
        let seen = station.world().logs.count("system");
        // Killed once more at whatever it is doing by then.
        let mut agent = start(&field, &config);
        thread::sleep(Duration::from_millis(17 * round as u64));
        agent.kill();
        let mut agent = start(&field, &config);
        // The later the round, the more it has done by then.
        texts(&station, "system", seen + round * ENTRIES / KILLS + 1).await;
        agent.kill();
    }
    let _agent = start(&field, &config);
    let all = KILLS * ENTRIES;
    eventually("every entry", || {
        let mut seen = numbers(&station.world().logs.texts("system"));
        seen.sort_unstable();
        seen.dedup();
        (seen.len() == all).then_some(())
    })
    .await;
    check_order(&station);
    let world = station.world();
    let seen = numbers(&world.logs.texts("system"));
    // What was durable a moment before a kill, and its place was not, is read again.
    let twice = seen.len() - all;
    assert_eq!(twice, 0, "came twice");
    let mut gaps = world.logs.gaps("system");
    // A write that was cut in two; nothing of it had been noted.
    gaps.retain(|gap| gap.reason != Reason::UncleanStart);
    assert!(gaps.is_empty(), "{gaps:?}");
}

#[tokio::test]
async fn an_agent_that_ends_in_order_reads_on_where_it_was() {
    let field = Field::new();
    let (dir, config) = journal(&field);
    let file = dir.join("system.journal");
    if write(&file, 0, 500).is_none() {
        return;
    }
    let (mut agent, station) = pair(&field, &config).await;
    for round in 1..4 {
        texts(&station, "system", round * 500).await;
        agent.signal(Signal::TERM);
        assert!(agent.wait().success());
        write(&file, round * 500, (round + 1) * 500);
        agent = start(&field, &config);
    }
    let stored = texts(&station, "system", 2000).await;
    assert_eq!(numbers(&stored), (0..2000).collect::<Vec<_>>());
    assert!(station.world().logs.gaps("system").is_empty());
    check_order(&station);
}

/// Has an agent read 50 entries, and find another journal at its next start.
async fn vanished(field: &Field, from: usize, to: usize) -> Option<Station> {
    let (dir, config) = journal(field);
    write(&dir.join("old.journal"), 0, 50)?;
    let (mut agent, station) = pair(field, &config).await;
    texts(&station, "system", 50).await;
    place_is_kept(field).await;
    agent.signal(Signal::TERM);
    assert!(agent.wait().success());
    fs::remove_file(dir.join("old.journal")).expect("it goes");
    write(&dir.join("new.journal"), from, to);
    let _agent = start(field, &config);
    texts(&station, "system", 50 + to - from).await;
    Some(station)
}

#[tokio::test]
async fn a_place_that_was_rotated_away_is_a_gap_and_the_oldest_entry_comes_next() {
    let field = Field::new();
    let Some(station) = vanished(&field, 70, 100).await else {
        return;
    };
    check_order(&station);
    let world = station.world();
    let wanted: Vec<_> = (0..50).chain(70..100).collect();
    assert_eq!(numbers(&world.logs.texts("system")), wanted);
    let gaps = world.logs.gaps("system");
    assert_eq!(gaps.len(), 1, "{gaps:?}");
    let gap = &gaps[0];
    assert_eq!((gap.reason, gap.count), (Reason::SourceVanished, None));
    let micros = |number: i64| Some(Micros(BEGIN.cast_signed() + number * 1000));
    assert_eq!((gap.since, gap.until), (micros(49), micros(70)));
}

#[tokio::test]
async fn a_journal_that_began_anew_with_an_earlier_clock_is_read_from_its_oldest_entry() {
    let field = Field::new();
    let Some(station) = vanished(&field, 0, 30).await else {
        return;
    };
    let world = station.world();
    let wanted: Vec<_> = (0..50).chain(0..30).collect();
    assert_eq!(numbers(&world.logs.texts("system")), wanted);
    assert_eq!(world.logs.gaps("system").len(), 1);
}

#[tokio::test]
async fn the_reader_is_started_again_when_it_dies_and_ends_with_its_agent() {
    let field = Field::new();
    let (dir, config) = journal(&field);
    let file = dir.join("system.journal");
    if write(&file, 0, 10).is_none() {
        return;
    }
    let (mut agent, station) = pair(&field, &config).await;
    texts(&station, "system", 10).await;
    place_is_kept(&field).await;
    let first = eventually("a reader", || reader(&agent)).await;
    kill_process(Pid::from_raw(first).expect("a number"), Signal::KILL).expect("it is ours");
    write(&file, 10, 20);
    let stored = texts(&station, "system", 20).await;
    assert_eq!(numbers(&stored), (0..20).collect::<Vec<_>>());
    told(&station, "journalctl has ended (signal: 9").await;
    let second = eventually("another reader", || reader(&agent)).await;
    assert_ne!(first, second);
    agent.kill();
    eventually("the reader to be gone", || {
        (!is_running(second)).then_some(())
    })
    .await;
}

/// Waits for the fault that says so.
async fn told(station: &Station, words: &str) {
    eventually(words, || {
        let world = station.world();
        let mut faults = world.faults.iter();
        faults
            .any(|fault| fault.kind == "not_startable" && fault.detail.contains(words))
            .then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_journal_that_cannot_be_read_is_told_in_words() {
    let field = Field::new();
    let (dir, config) = journal(&field);
    let path = field.path("agent.toml");
    let station = field.station().await;
    let mut command = field.agent("ship1").config(&path, &config);
    command.0.env("PATH", "/nonexistent");
    let agent = command.start();
    station.met("ship1").await;
    told(&station, "start journalctl, which comes with systemd").await;
    drop(agent);
    fs::remove_dir(&dir).expect("it goes");
    let _agent = start(&field, &config);
    told(&station, "No such file or directory").await;
}

/// Has a journal of its own, in a file system of its own, rotated twice, and copies its three files.
const ROTATED: &str = r#"
mount -t tmpfs none /run && mount -t tmpfs none /var/log
mkdir -p /run/systemd/journal /var/log/journal
"$1" 2>/dev/null & journald=$!
await() { for _ in $(seq 300); do eval "$1" && return; sleep 0.1; done; exit 1; }
await 'journalctl --sync 2>/dev/null'
kill -USR1 $journald
await 'ls /var/log/journal/*/system.journal >/dev/null 2>&1'
for part in 1 2 3; do
    for number in $(seq 30); do logger -u /run/systemd/journal/dev-log -t app "part $part $number"; done
    journalctl --sync
    kill -USR2 $journald
    await '[ $(ls /var/log/journal/*/system@*.journal 2>/dev/null | wc -l) = $part ]'
done
kill $journald
cp /var/log/journal/*/system@*.journal "$2"
"#;

/// Returns three files of one journal, in their order, each with the number of its entries.
fn rotated(field: &Field) -> Option<Vec<(PathBuf, u64)>> {
    let dir = field.path("rotated");
    fs::create_dir(&dir).expect("a directory");
    let journald = Path::new("/lib/systemd/systemd-journald");
    let unshared = |words: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c"]).args(words);
        command.status().is_ok_and(|status| status.success())
    };
    if !journald.exists() || !unshared(&["mount -t tmpfs none /run"]) {
        let words = "SKIPPED: this machine gives no journal in a file system of its own\n";
        std::io::stderr().write_all(words.as_bytes()).ok();
        return None;
    }
    let (journald, place) = (journald.display().to_string(), dir.display().to_string());
    assert!(unshared(&[ROTATED, "sh", &journald, &place]), "no journal");
    let mut files: Vec<_> = fs::read_dir(&dir)
        .expect("readable")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    // The number of the first entry is in the name.
    files.sort();
    let count = |file: &PathBuf| {
        let mut command = Command::new("journalctl");
        command.args(["--output=export", "--output-fields=PRIORITY", "--file"]);
        let output = command.arg(file).output().expect("journalctl starts");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.matches("__CURSOR=").count() as u64
    };
    Some(
        files
            .into_iter()
            .map(|file| (file.clone(), count(&file)))
            .collect(),
    )
}

#[tokio::test]
async fn the_journals_own_numbers_tell_how_many_entries_were_removed_unread() {
    for is_following in [true, false] {
        let field = Field::new();
        let (dir, config) = journal(&field);
        let Some(parts) = rotated(&field) else {
            return;
        };
        let [(first, before), (_, missing), (last, after)] = &parts[..] else {
            panic!("{parts:?}");
        };
        let one = dir.join("one.journal");
        fs::copy(first, &one).expect("copied");
        let (mut agent, station) = pair(&field, &config).await;
        let before = usize::try_from(*before).expect("few");
        texts(&station, "system", before).await;
        if !is_following {
            agent.signal(Signal::TERM);
            assert!(agent.wait().success());
        }
        fs::remove_file(&one).expect("it goes");
        fs::rename(last, dir.join("three.journal")).expect("it comes");
        if !is_following {
            agent = start(&field, &config);
        }
        let all = before + usize::try_from(*after).expect("few");
        let stored = texts(&station, "system", all).await;
        assert_eq!(stored.len(), all);
        let is_last = |text: &String| text.ends_with("part 3 30");
        // The kernel may have something to say behind it.
        assert!(stored[before..].iter().any(is_last), "{stored:?}");
        let gaps = station.world().logs.gaps("system");
        let seen: Vec<_> = gaps.iter().map(|gap| (gap.reason, gap.count)).collect();
        let wanted = (Reason::SourceVanished, Some(*missing));
        assert_eq!(seen, [wanted], "while it was followed: {is_following}");
        drop(agent);
    }
}
