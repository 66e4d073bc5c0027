//! Files of which cannot be noted how far they were read, while the station has what was read.

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

use super::{input, pair, start, texts};
use crate::support::{Field, Station, eventually, logs::spooled};

/// Files, so many that their notes are soon written anew.
const FILES: u64 = 300;

/// Lines of each of them in a round: together much more than is on its way at once.
const LINES: u64 = 20;

/// Bytes of each line, which do not compress.
const LINE: usize = 1500;

/// Returns a line of a file.
fn line(file: u64, number: u64) -> String {
    let mut text = format!("{file:04} {number:04} ");
    let mut noise = file << 32 | number;
    while text.len() < LINE {
        noise = noise
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .wrapping_add(file)
            .rotate_left(29);
        text += &format!("{noise:016x}");
    }
    text
}

fn write(dir: &Path, round: u64) {
    for file in 0..FILES {
        let path = dir.join(format!("{file:04}.log"));
        let opened = fs::OpenOptions::new().create(true).append(true).open(path);
        let mut opened = opened.expect("a file");
        let lines = (round * LINES..(round + 1) * LINES).map(|number| line(file, number) + "\n");
        let text: String = lines.collect();
        opened.write_all(text.as_bytes()).expect("it is written");
    }
}

/// Puts something in the way of notes that are written anew.
fn obstruct(notes: &Path) -> PathBuf {
    let mut entries = fs::read_dir(notes).expect("notes");
    let found = entries.find_map(|entry| {
        let path = entry.ok()?.path();
        (path.extension()? == "notes").then_some(path)
    });
    let way = found.expect("notes").with_extension("notes.new");
    fs::create_dir_all(way.join("in-the-way")).expect("a directory");
    way
}

fn status(field: &Field) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_steward-agent"))
        .args(["status", "--state-dir"])
        .arg(field.path("ship1"))
        .output()
        .expect("the agent starts");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Writes rounds until nothing can be noted any more, and returns how many there are.
async fn write_until_stuck(field: &Field, logs: &Path, station: &Station) -> u64 {
    for round in 1..50 {
        let before = station.world().logs.count("app");
        write(logs, round);
        let is_stuck = eventually("all lines, or that they are not noted", || {
            let stored = station.world().logs.count("app") - before;
            let is_stuck = status(field).contains("note how far files were read");
            (is_stuck || stored >= usize::try_from(FILES * LINES).ok()?).then_some(is_stuck)
        })
        .await;
        if is_stuck {
            return round + 1;
        }
    }
    panic!("notes are never written anew");
}

#[tokio::test]
async fn what_the_station_has_and_the_notes_have_not_comes_once_after_a_kill() {
    let field = Field::new();
    let logs = field.path("log");
    fs::create_dir(&logs).expect("a directory");
    write(&logs, 0);
    let config = input("app", &format!("file://{}/*.log", logs.display()))
        // Small, so that the station's word removes segments at once; there is room for all that is not noted.
        + "[syslog_spool]\nsize = \"8MiB\"\nshare = \"4MiB\"\n";
    let (mut agent, station) = pair(&field, &config).await;
    texts(
        &station,
        "app",
        usize::try_from(FILES * LINES).expect("few"),
    )
    .await;
    let way = obstruct(&field.path("ship1").join("logs/files"));
    let rounds = write_until_stuck(&field, &logs, &station).await;
    // What was handed over by then arrives, and is removed if it may be.
    let spool = field.path("ship1").join("logs/spool/app");
    let (mut before, mut looks) = ((0, 0), 0);
    eventually("that nothing more comes and goes", || {
        let now = (station.world().logs.count("app"), spooled(&spool));
        let is_same = std::mem::replace(&mut before, now) == now;
        looks = if is_same { looks + 1 } else { 0 };
        (looks > 30).then_some(())
    })
    .await;
    agent.kill();
    fs::remove_dir_all(way).expect("it is removed");
    let _agent = start(&field, &config);
    write(&logs, rounds);
    let count = usize::try_from(FILES * LINES * (rounds + 1)).expect("few");
    texts(&station, "app", count).await;
    let mut times = BTreeMap::new();
    for text in station.world().logs.texts("app") {
        *times.entry(text).or_insert(0) += 1;
    }
    for file in 0..FILES {
        for number in 0..LINES * (rounds + 1) {
            let found = times.remove(&line(file, number));
            assert_eq!(found, Some(1), "file {file}, line {number}");
        }
    }
    assert_eq!(times, BTreeMap::new());
    assert_eq!(station.world().logs.gaps("app"), []);
}
