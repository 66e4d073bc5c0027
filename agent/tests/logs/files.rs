//! Files that are followed by a real agent: rotated, packed, truncated, deleted, while it runs, while it does not, and
//! while it is killed.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use rustix::process::Signal;
use steward_protocol::logs::Reason;

use super::{check_order, input, pair, run, start, texts};
use crate::support::{Agent, Field, Station, eventually};

/// A file that a program writes to.
struct Log {
    path: PathBuf,
    file: File,
    next: usize,
}

impl Log {
    fn new(field: &Field) -> Self {
        Self::at(&dir(field).join("app.log"))
    }

    fn at(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            file: open(path),
            next: 0,
        }
    }

    fn write(&mut self, count: usize) {
        let lines = (self.next..self.next + count).map(line);
        let text: String = lines.collect();
        self.file.write_all(text.as_bytes()).expect("it is written");
        self.next += count;
    }

    fn beside(&self, ending: &str) -> PathBuf {
        let mut path = self.path.clone().into_os_string();
        path.push(ending);
        path.into()
    }

    /// As `logrotate` does with `create`, up to two old ones.
    fn rotate(&mut self) {
        if self.beside(".1").exists() {
            fs::rename(self.beside(".1"), self.beside(".2")).expect("it is renamed");
        }
        fs::rename(&self.path, self.beside(".1")).expect("it is renamed");
        self.file = open(&self.path);
    }

    /// As `logrotate` does with `copytruncate`.
    fn copy_and_truncate(&mut self) {
        if self.beside(".1").exists() {
            fs::rename(self.beside(".1"), self.beside(".2")).expect("it is renamed");
        }
        fs::copy(&self.path, self.beside(".1")).expect("it is copied");
        File::options()
            .write(true)
            .open(&self.path)
            .and_then(|file| file.set_len(0))
            .expect("it is truncated");
    }
}

fn open(path: &Path) -> File {
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    options.open(path).expect("a file")
}

fn dir(field: &Field) -> PathBuf {
    let dir = field.path("log");
    fs::create_dir_all(&dir).expect("a directory");
    dir
}

fn line(number: usize) -> String {
    // Something of it does not compress.
    let noise = (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    format!("2026-11-21T10:00:00Z ship1 app[7]: line {number:07} of {noise:016x}\n")
}

fn config(field: &Field) -> String {
    input("app", &format!("file://{}/*.log", dir(field).display()))
}

/// Waits for so many lines, and checks that they are the first so many in their order, each once.
async fn check_all(station: &Station, count: usize) {
    let seen = texts(station, "app", count).await;
    let wanted: Vec<String> = (0..count).map(|n| line(n).trim_end().to_owned()).collect();
    if seen != wanted {
        let place = seen
            .iter()
            .zip(&wanted)
            .position(|(one, other)| one != other);
        let place = place.unwrap_or(count);
        panic!(
            "{} lines for {count}; at {place}: {:?}",
            seen.len(),
            seen.get(place)
        );
    }
    check_order(station);
}

fn gaps(station: &Station) -> Vec<Reason> {
    let gaps = station.world().logs.gaps("app");
    gaps.iter().map(|gap| gap.reason).collect()
}

fn stop(agent: &mut Agent) {
    agent.signal(Signal::TERM);
    assert!(agent.wait().success());
}

#[tokio::test]
async fn what_is_in_a_file_arrives_once_through_rotation_and_starts() {
    let field = Field::new();
    let mut log = Log::new(&field);
    log.write(1000);
    let (mut agent, station) = pair(&field, &config(&field)).await;
    check_all(&station, 1000).await;
    log.write(1);
    check_all(&station, 1001).await;
    log.write(500);
    log.rotate();
    log.write(500);
    check_all(&station, 2001).await;
    stop(&mut agent);
    log.write(100);
    let mut agent = start(&field, &config(&field));
    check_all(&station, 2101).await;
    agent.kill();
    let _agent = start(&field, &config(&field));
    log.write(100);
    check_all(&station, 2201).await;
    assert_eq!(gaps(&station), []);
    let world = station.world();
    let record = &world.logs.records[0];
    let source = format!("file://{}", log.path.display());
    assert_eq!((&record.source, record.severity), (&source, 5));
}

#[tokio::test]
async fn what_was_rotated_and_packed_without_the_agent_is_found() {
    for (program, words) in [("gzip", &[][..]), ("zstd", &["-q", "--rm"])] {
        let field = Field::new();
        let mut log = Log::new(&field);
        log.write(3000);
        let (mut agent, station) = pair(&field, &config(&field)).await;
        check_all(&station, 3000).await;
        stop(&mut agent);
        log.write(3000);
        log.rotate();
        log.write(2000);
        log.rotate();
        log.write(1000);
        for old in [log.beside(".1"), log.beside(".2")] {
            let old = old.display().to_string();
            run(program, &[words, &[&old]].concat());
        }
        let _agent = start(&field, &config(&field));
        check_all(&station, 9000).await;
        assert_eq!(gaps(&station), [], "{program}");
    }
}

#[tokio::test]
async fn a_copy_that_is_made_before_truncation_is_read_on() {
    let field = Field::new();
    let mut log = Log::new(&field);
    log.write(1000);
    let (mut agent, station) = pair(&field, &config(&field)).await;
    check_all(&station, 1000).await;
    for round in 1..4 {
        log.write(1000);
        log.copy_and_truncate();
        log.write(10);
        check_all(&station, 1000 + round * 1010).await;
    }
    stop(&mut agent);
    log.write(1000);
    log.copy_and_truncate();
    log.write(1000);
    log.copy_and_truncate();
    log.write(10);
    let _agent = start(&field, &config(&field));
    check_all(&station, 6040).await;
    assert_eq!(gaps(&station), []);
}

#[tokio::test]
async fn a_program_that_goes_on_where_it_was_leaves_a_hole_and_no_message() {
    let field = Field::new();
    let path = dir(&field).join("app.log");
    let mut file = File::create(&path).expect("a file");
    let write = |file: &mut File, from, to| {
        let text: String = (from..to).map(line).collect();
        file.write_all(text.as_bytes()).expect("it is written");
    };
    write(&mut file, 0, 1000);
    let (_agent, station) = pair(&field, &config(&field)).await;
    check_all(&station, 1000).await;
    fs::copy(&path, path.with_extension("log.1")).expect("it is copied");
    file.set_len(0).expect("it is truncated");
    // Nobody reads through a hole of this size.
    file.seek(SeekFrom::Start(100 << 30)).expect("a place");
    write(&mut file, 1000, 2000);
    check_all(&station, 2000).await;
    write(&mut file, 2000, 2100);
    check_all(&station, 2100).await;
    assert_eq!(gaps(&station), []);
}

#[tokio::test]
async fn what_cannot_be_read_any_more_is_told() {
    let field = Field::new();
    let mut log = Log::new(&field);
    log.write(100);
    let (mut agent, station) = pair(&field, &config(&field)).await;
    check_all(&station, 100).await;
    log.write(100);
    check_all(&station, 200).await;
    File::options()
        .write(true)
        .open(&log.path)
        .and_then(|file| file.set_len(0))
        .expect("it is truncated");
    log.write(100);
    texts(&station, "app", 300).await;
    eventually("the word on a truncated file", || {
        (gaps(&station) == [Reason::SourceTruncated]).then_some(())
    })
    .await;
    // What is open is read to its end also without a name.
    fs::remove_file(&log.path).expect("it is deleted");
    log.write(100);
    texts(&station, "app", 400).await;
    log.file = open(&log.path);
    log.write(100);
    texts(&station, "app", 500).await;
    stop(&mut agent);
    log.write(100);
    fs::remove_file(&log.path).expect("it is deleted");
    let _agent = start(&field, &config(&field));
    eventually("the word on a file that is gone", || {
        (gaps(&station) == [Reason::SourceTruncated, Reason::SourceVanished]).then_some(())
    })
    .await;
    let world = station.world();
    let gap = &world.logs.gaps("app")[1];
    assert_eq!(gap.count, None);
    assert!(
        gap.detail
            .as_ref()
            .is_some_and(|text| text.contains("app.log")),
        "{gap:?}"
    );
    assert_eq!(world.logs.texts("app").len(), 500);
}

#[tokio::test]
async fn half_lines_are_held_and_long_ones_cut() {
    let field = Field::new();
    let path = dir(&field).join("app.log");
    let mut file = open(&path);
    let (_agent, station) = pair(&field, &config(&field)).await;
    let mut write = |text: &str| file.write_all(text.as_bytes()).expect("it is written");
    write("<11>Nov 21 10:00:00 h app: one\r\nhal");
    assert_eq!(
        texts(&station, "app", 1).await,
        ["<11>Nov 21 10:00:00 h app: one"]
    );
    write("f\n\n");
    assert_eq!(texts(&station, "app", 2).await[1], "half");
    for _ in 0..100 {
        write(&"x".repeat(10_000));
    }
    write("\nafter\nno end");
    let seen = texts(&station, "app", 4).await;
    assert_eq!((seen[2].len(), seen[3].as_str()), (8 << 10, "after"));
    fs::rename(&path, path.with_extension("log.1")).expect("it is renamed");
    write(", or not\n");
    assert_eq!(texts(&station, "app", 5).await[4], "no end, or not");
    write("the end");
    let mut next = open(&path);
    next.write_all(b"the next\n").expect("it is written");
    assert_eq!(
        texts(&station, "app", 7).await[5..],
        ["the end", "the next"]
    );
    let world = station.world();
    assert_eq!(world.logs.records[2].length, 1_000_000);
    assert_eq!(world.logs.records[0].severity, 3);
}

#[tokio::test]
async fn messages_of_several_lines_are_joined() {
    let field = Field::new();
    let path = dir(&field).join("app.log");
    let mut file = open(&path);
    let config = config(&field) + "multiline = '^\\d{4}-'\nmultiline_timeout = \"300ms\"\n";
    let (_agent, station) = pair(&field, &config).await;
    let trace = "2026-11-21 panic\n  at one\n  at two\n";
    let text = format!("{trace}2026-11-21 fine\n{trace}");
    file.write_all(text.as_bytes()).expect("it is written");
    let seen = texts(&station, "app", 3).await;
    let trace = trace.trim_end();
    assert_eq!(seen, [trace, "2026-11-21 fine", trace]);
}

#[tokio::test]
async fn new_files_are_found_and_others_left_alone() {
    let field = Field::new();
    let dir = dir(&field);
    fs::write(dir.join("old.log"), "old\n").expect("it is written");
    let more = field.path("more");
    let config = format!(
        "{}from = \"end\"\nfiles = [\"{}/**/*.txt\"]\nexclude = [\"{}/no*\"]\n",
        config(&field),
        more.display(),
        dir.display()
    );
    let (_agent, station) = pair(&field, &config).await;
    eventually("the file that is there", || {
        let notes = fs::read_dir(field.path("ship1").join("logs/files")).ok()?;
        (notes.count() > 0).then_some(())
    })
    .await;
    fs::write(dir.join("no.log"), "not this\n").expect("it is written");
    fs::write(dir.join("new.log"), "new\n").expect("it is written");
    assert_eq!(texts(&station, "app", 1).await, ["new"]);
    fs::create_dir_all(more.join("a/b")).expect("a directory");
    fs::write(more.join("a/b/c.txt"), "deep\n").expect("it is written");
    assert_eq!(texts(&station, "app", 2).await[1], "deep");
    let mut old = open(&dir.join("old.log"));
    old.write_all(b"more of old\n").expect("it is written");
    assert_eq!(texts(&station, "app", 3).await[2], "more of old");
}

#[tokio::test]
async fn a_full_spool_holds_files_back_and_loses_nothing_even_when_the_agent_ends() {
    let mut field = Field::new();
    let mut log = Log::new(&field);
    let config = format!(
        "{}[syslog_spool]\nsize = \"2MiB\"\nshare = \"1MiB\"\n",
        config(&field)
    );
    let (mut agent, station) = pair(&field, &config).await;
    station.world().logs.keeps = false;
    log.write(200_000);
    station
        .hello("a spool that is full", |_, hello| {
            let budget = hello.budgets.get("log_spool_bytes")?;
            (budget.used > 800 << 10).then_some(())
        })
        .await;
    stop(&mut agent);
    let mut agent = start(&field, &config);
    agent.kill();
    let _agent = start(&field, &config);
    station.world().logs.keeps = true;
    field.cut();
    field.heal();
    check_all(&station, 200_000).await;
    assert_eq!(gaps(&station), []);
}

#[tokio::test]
async fn what_the_spool_has_beyond_the_notes_does_not_come_twice() {
    let field = Field::new();
    let mut log = Log::new(&field);
    log.write(100);
    let (mut agent, station) = pair(&field, &config(&field)).await;
    check_all(&station, 100).await;
    stop(&mut agent);
    let notes = field.path("ship1").join("logs/files");
    let before = field.path("before");
    let copy = |from: &Path, to: &Path| {
        let words = [
            "-rT",
            &from.display().to_string(),
            &to.display().to_string(),
        ];
        run("cp", &words);
    };
    copy(&notes, &before);
    let mut agent = start(&field, &config(&field));
    log.write(5000);
    log.rotate();
    log.write(1000);
    check_all(&station, 6100).await;
    agent.kill();
    // As if it had been killed before it noted anything.
    copy(&before, &notes);
    log.write(10);
    let mut agent = start(&field, &config(&field));
    log.write(10);
    check_all(&station, 6120).await;
    stop(&mut agent);
    let _agent = start(&field, &config(&field));
    log.write(10);
    check_all(&station, 6130).await;
    assert_eq!(gaps(&station), []);
}

#[tokio::test]
async fn inputs_of_files_are_shown_with_how_many_there_are() {
    let field = Field::new();
    let mut log = Log::new(&field);
    log.write(10);
    open(&dir(&field).join("other.log"));
    let (_agent, station) = pair(&field, &config(&field)).await;
    check_all(&station, 10).await;
    let ask = |words: &[&str]| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_steward-agent"))
            .args(words)
            .arg("--state-dir")
            .arg(field.path("ship1"))
            .output()
            .expect("the agent starts");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    eventually("a status with files", || {
        let said = ask(&["status"]);
        said.contains("*.log: 10 messages, 2 files").then_some(())
    })
    .await;
    let config = field.path("agent.toml").display().to_string();
    let words = ["check", "--node", "ship1", "--nats", "127.0.0.1:1"];
    let said = ask(&[&words[..], &["--config", &config]].concat());
    assert!(said.contains("go to domain app; 2 files now"), "{said}");
}

/// Writes and rotates until told to end, and returns how many lines that were.
fn keep_writing(mut log: Log, stop: &AtomicBool, rotate: fn(&mut Log)) -> usize {
    let mut rounds = 0;
    while !stop.load(Ordering::Relaxed) {
        log.write(20);
        rounds += 1;
        if rounds % 100 == 0 {
            rotate(&mut log);
        }
        thread::sleep(Duration::from_millis(1));
    }
    log.next
}

fn pack(log: &mut Log) {
    let old = log.beside(".2");
    if old.exists() {
        let packed = log.beside(&format!(".2-{:07}.gz", log.next));
        let old = old.display();
        run(
            "sh",
            &[
                "-c",
                &format!("gzip {old} && mv {old}.gz {}", packed.display()),
            ],
        );
    }
}

async fn kill_again_and_again(rotate: fn(&mut Log)) {
    const KILLS: usize = 20;
    let field = Field::new();
    let station = field.station().await;
    let ending = Arc::new(AtomicBool::new(false));
    // Small, so that the station's word removes segments all the time.
    let config = config(&field) + "[syslog_spool]\nsize = \"2MiB\"\nshare = \"1MiB\"\n";
    let mut log = Log::new(&field);
    log.write(100);
    // What was rotated before the first start is not its business.
    let mut agent = start(&field, &config);
    check_all(&station, 100).await;
    agent.kill();
    let told = Arc::clone(&ending);
    let writing = thread::spawn(move || keep_writing(log, &told, rotate));
    for round in 0..KILLS {
        // Killed once more at whatever it is doing by then.
        let mut agent = start(&field, &config);
        thread::sleep(Duration::from_millis(17 * round as u64));
        agent.kill();
        let mut agent = start(&field, &config);
        let seen = station.world().logs.count("app");
        texts(&station, "app", seen + 100 + 150 * (round % 7)).await;
        agent.kill();
    }
    ending.store(true, Ordering::Relaxed);
    let count = writing.join().expect("a number");
    let _agent = start(&field, &config);
    let awaited = line(count - 1).trim_end().to_owned();
    eventually("the last line", || {
        let world = station.world();
        let last = world.logs.records.last()?;
        (last.text == awaited).then_some(())
    })
    .await;
    check_order(&station);
    let mut times = BTreeMap::new();
    for text in station.world().logs.texts("app") {
        *times.entry(text).or_insert(0) += 1;
    }
    let lost = (0..count)
        .filter(|n| !times.contains_key(line(*n).trim_end()))
        .count();
    let repeated: usize = times.values().map(|times| times - 1).sum();
    let world = station.world();
    let mut gaps = world.logs.gaps("app");
    // A write that was cut in two; nothing of it had been noted.
    gaps.retain(|gap| gap.reason != Reason::UncleanStart);
    assert_eq!((lost, repeated, gaps), (0, 0, vec![]), "of {count}");
}

#[tokio::test]
async fn killed_twenty_times_while_files_are_renamed_and_packed_every_line_comes_once() {
    kill_again_and_again(|log| {
        log.rotate();
        pack(log);
    })
    .await;
}

#[tokio::test]
async fn killed_twenty_times_while_files_are_copied_and_truncated_every_line_comes_once() {
    kill_again_and_again(|log| {
        let copy = log.beside(&format!("-{:08}", log.next));
        log.copy_and_truncate();
        fs::rename(log.beside(".1"), copy).expect("it is renamed");
    })
    .await;
}
