//! `tailfile`, in its own time.

use std::{
    fs::{self, OpenOptions},
    io::{BufRead, BufReader, Read, Write},
    path::Path,
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::tempdir;

use super::{begin, done, end, work};

/// A pipe with this much in it, and a part of its first page read, takes no more.
const FULL: u64 = 60_000;

fn append(path: &Path, text: &str) {
    let mut options = OpenOptions::new();
    let file = options.append(true).create(true).open(path);
    let mut file = file.expect("it can be written");
    file.write_all(text.as_bytes()).expect("it is written");
}

fn term(child: &Child) {
    kill_process(Pid::from_child(child), Signal::TERM).expect("it can be signalled");
}

/// Returns the last line on standard error.
fn last_line(stderr: &str) -> Value {
    let line = stderr.lines().last().unwrap_or_default();
    serde_json::from_str(line).unwrap_or_else(|error| panic!("no position ({error}): {stderr}"))
}

#[test]
fn lines_come_at_once_and_term_ends_it_with_the_place_to_go_on() {
    let dir = tempdir().expect("a directory");
    let path = dir.path().join("app.log");
    append(&path, "a\nb\nc\n");
    let body = json!({ "path": path, "lines": 1 });
    let mut child = begin(work("tailfile"), &body.to_string());
    let mut lines = BufReader::new(child.stdout.take().expect("piped"));
    let mut line = String::new();
    lines.read_line(&mut line).expect("a line");
    append(&path, "d\npart");
    lines.read_line(&mut line).expect("a line");
    assert_eq!(line, "c\nd\n");
    term(&child);
    let mut rest = String::new();
    lines.read_to_string(&mut rest).expect("text");
    assert_eq!(rest, "part");
    let worked = end(child);
    assert_eq!(worked.code, Some(0), "{}", worked.stderr);
    let last = last_line(&worked.stderr);
    assert_eq!(last["offset"], 12);
    assert!(last["inode"].is_u64() && last["device"].is_u64());
    // It is rotated, and written to, while nobody looks.
    append(&path, "ly\n");
    fs::rename(&path, dir.path().join("app.log.1")).expect("renamed");
    append(&path, "e\n");
    for from in [last["from"].clone(), json!(last.to_string())] {
        let worked = done(
            "tailfile",
            &json!({ "path": path, "from": from, "for": "3s" }),
        );
        assert_eq!(worked.code, Some(0), "{}", worked.stderr);
        assert_eq!(String::from_utf8_lossy(&worked.stdout), "ly\ne\n");
        assert!(worked.stderr.contains("goes on in"), "{}", worked.stderr);
    }
}

#[test]
fn a_duration_ends_it_and_a_file_may_come_late() {
    let dir = tempdir().expect("a directory");
    let path = dir.path().join("app.log");
    let begun = Instant::now();
    let body = json!({ "path": path, "for": "1500ms" });
    let mut child = begin(work("tailfile"), &body.to_string());
    let mut notes = BufReader::new(child.stderr.take().expect("piped"));
    let mut note = String::new();
    notes.read_line(&mut note).expect("a note");
    assert!(note.contains("no such file yet"), "{note}");
    append(&path, "first\n");
    let worked = end(child);
    assert_eq!(worked.code, Some(0), "{}", worked.stderr);
    assert_eq!(worked.stdout, b"first\n");
    assert!(begun.elapsed() >= Duration::from_millis(1500));
}

#[test]
fn what_cannot_be_followed_is_said() {
    let dir = tempdir().expect("a directory");
    let path = dir.path().join("app.log");
    for (body, words) in [
        (json!({ "path": dir.path() }), "not a regular file"),
        (json!({ "path": "/dev/null" }), "not a regular file"),
        (
            json!({ "path": path, "from": "yesterday" }),
            "last line of its standard error",
        ),
    ] {
        let worked = done("tailfile", &body);
        assert_eq!(worked.code, Some(1), "{body}");
        assert!(worked.stderr.contains(words), "{body}: {}", worked.stderr);
    }
}

#[test]
fn term_is_heard_while_nobody_reads_and_the_place_is_the_one_reached() {
    let dir = tempdir().expect("a directory");
    let path = dir.path().join("app.log");
    let content = "0123456789abcde\n".repeat(100_000);
    append(&path, &content);
    let body = json!({ "path": path, "from": "start" });
    let mut child = begin(work("tailfile"), &body.to_string());
    let mut stdout = child.stdout.take().expect("piped");
    let mut head = vec![0; 1000];
    stdout.read_exact(&mut head).expect("it begins");
    let deadline = Instant::now() + Duration::from_secs(30);
    while rustix::io::ioctl_fionread(&stdout).expect("a pipe") < FULL {
        assert!(Instant::now() < deadline, "in vain awaited: a full pipe");
        std::thread::sleep(Duration::from_millis(5));
    }
    term(&child);
    assert!(child.wait().expect("it ends").success());
    let mut rest = Vec::new();
    stdout.read_to_end(&mut rest).expect("what it wrote");
    let mut stderr = String::new();
    child
        .stderr
        .take()
        .expect("piped")
        .read_to_string(&mut stderr)
        .expect("text");
    let last = last_line(&stderr);
    assert_eq!(last["offset"], (head.len() + rest.len()) as u64);
    assert!(
        rest.len() < content.len() / 2,
        "it did not wait for a reader"
    );
    let worked = done(
        "tailfile",
        &json!({ "path": path, "from": last["from"], "for": "1s" }),
    );
    let whole = [head, rest, worked.stdout].concat();
    assert!(
        whole == content.as_bytes(),
        "{} of {} bytes",
        whole.len(),
        content.len()
    );
}

#[test]
fn a_gibibyte_without_a_line_end_takes_no_memory() {
    let dir = tempdir().expect("a directory");
    let path = dir.path().join("app.log");
    let length: u64 = 1 << 30;
    fs::File::create(&path)
        .and_then(|file| file.set_len(length))
        .expect("a sparse file");
    let mut command = work("tailfile");
    command.stdout(Stdio::piped());
    let body = json!({ "path": path, "from": "start", "for": "60s" });
    let mut child = begin(command, &body.to_string());
    let mut stdout = child.stdout.take().expect("piped");
    let mut piece = vec![1; 1 << 16];
    let mut read = 0;
    while read < length {
        let some = stdout.read(&mut piece).expect("it goes on");
        assert!(some > 0, "it ended after {read} bytes");
        assert!(piece[..some].iter().all(|byte| *byte == 0));
        read += some as u64;
    }
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).expect("it runs");
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .expect("its peak");
    let peak: u64 = peak
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .expect("a number");
    assert!(peak < 32 * 1024, "{peak} kB");
    term(&child);
    assert_eq!(end(child).code, Some(0));
}
