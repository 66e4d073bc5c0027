//! A file is followed while all that can happen to a log happens to it.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    path::PathBuf,
    time::Duration,
};

use proptest::prelude::*;
use tempfile::TempDir;

use super::{
    follower::{Follower, LINGER, Step},
    generation::PIECE,
    position::Position,
};

/// A log, what writes and rotates it, and what follows it.
struct Log {
    dir: TempDir,
    follower: Follower,
    now: Duration,
    /// What was given so far.
    given: Vec<u8>,
    said: Vec<String>,
}

impl Log {
    fn new(begin: impl FnOnce(&std::path::Path) -> Follower) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let follower = begin(&dir.path().join("app.log"));
        Self {
            dir,
            follower,
            now: Duration::ZERO,
            given: Vec::new(),
            said: Vec::new(),
        }
    }

    fn from_start() -> Self {
        Self::new(|path| Follower::from_start(path).expect("it begins"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, text: &str) {
        self.write_to("app.log", text);
    }

    fn write_to(&self, name: &str, text: &str) {
        let mut options = OpenOptions::new();
        let file = options.append(true).create(true).open(self.path(name));
        let mut file = file.expect("the log can be written");
        file.write_all(text.as_bytes()).expect("it is written");
    }

    /// Makes room for a first generation, as logrotate does.
    fn shift(&self) {
        for number in (1..20).rev() {
            let from = self.path(&format!("app.log.{number}"));
            if from.exists() {
                fs::rename(from, self.path(&format!("app.log.{}", number + 1))).expect("renamed");
            }
        }
    }

    fn rotate(&self) {
        self.shift();
        fs::rename(self.path("app.log"), self.path("app.log.1")).ok();
    }

    fn copy_and_truncate(&self) {
        self.shift();
        if fs::copy(self.path("app.log"), self.path("app.log.1")).is_ok() {
            self.truncate();
        }
    }

    fn truncate(&self) {
        fs::write(self.path("app.log"), "").expect("truncated");
    }

    /// Looks until there is nothing to be done at this moment.
    fn look(&mut self) {
        for _ in 0..10_000 {
            match self.follower.next(self.now).expect("it goes on") {
                Step::Give(bytes) => {
                    self.follower.took(&bytes);
                    self.given.extend(bytes);
                }
                Step::Break => {
                    self.follower.broke();
                    self.given.push(b'\n');
                }
                Step::Say(words) => self.said.push(words),
                Step::Nothing => return,
            }
        }
        panic!("it never comes to rest; it said {:?}", self.said);
    }

    /// Looks until nothing more comes, however long it is waited for.
    fn settle(&mut self) {
        for _ in 0..4 {
            self.look();
            self.now += LINGER;
        }
        self.look();
    }

    /// Ends, and goes on from the place where it ended, if that can still be found.
    fn end_and_resume(&mut self) {
        let rest = self.follower.rest().expect("it can be read");
        self.follower.took(&rest);
        self.given.extend(rest);
        let Some(position) = self.follower.position().filter(|one| one.offset > 0) else {
            return;
        };
        let mut files = fs::read_dir(self.dir.path()).expect("a directory");
        let is_there = |file: std::io::Result<fs::DirEntry>| {
            std::os::unix::fs::DirEntryExt::ino(&file.expect("an entry")) == position.inode
        };
        if !files.any(is_there) {
            return;
        }
        let text = position.to_string();
        let position = Position::read(&text).expect("a position");
        let path = self.path("app.log");
        self.follower = Follower::resume(&path, &position).expect("it resumes");
    }

    fn text(&self) -> String {
        String::from_utf8(self.given.clone()).expect("text")
    }
}

#[test]
fn lines_come_when_they_are_complete_and_the_rest_at_the_end() {
    let mut log = Log::from_start();
    log.look();
    assert_eq!(log.said.len(), 1, "it says that it waits");
    log.write("one\ntw");
    log.look();
    assert_eq!(log.text(), "one\n");
    log.write("o\nthr");
    log.look();
    assert_eq!(log.text(), "one\ntwo\n");
    assert_eq!(log.follower.rest().expect("read"), b"thr");
}

#[test]
fn the_last_lines_come_first_when_they_are_wanted() {
    for (content, lines, expected) in [
        ("a\nb\nc\n", 0, ""),
        ("a\nb\nc\n", 1, "c\n"),
        ("a\nb\nc\n", 2, "b\nc\n"),
        ("a\nb\nc\n", 3, "a\nb\nc\n"),
        ("a\nb\nc\n", 99, "a\nb\nc\n"),
        // What is held back counts, as it does for tail(1).
        ("a\nb\nc", 2, "b\n"),
        ("\n\n\n", 2, "\n\n"),
        ("", 5, ""),
    ] {
        let mut log = Log::new(|path| {
            fs::write(path, content).expect("written");
            Follower::from_end(path, lines).expect("it begins")
        });
        log.look();
        assert_eq!(log.text(), expected, "{lines} of {content:?}");
    }
}

#[test]
fn last_lines_are_found_across_the_pieces_that_are_read() {
    let line = format!("{}\n", "x".repeat(PIECE - 1));
    let mut log = Log::new(|path| {
        fs::write(path, line.repeat(5)).expect("written");
        Follower::from_end(path, 3).expect("it begins")
    });
    log.look();
    assert_eq!(log.given.len(), 3 * PIECE);
}

#[test]
fn a_line_too_long_to_be_held_comes_in_pieces_with_every_byte() {
    let mut log = Log::from_start();
    let long = "y".repeat(3 * PIECE + 7);
    log.write(&long);
    log.look();
    assert_eq!(log.given.len(), 3 * PIECE);
    log.write("\nnext\n");
    log.look();
    assert_eq!(log.text(), format!("{long}\nnext\n"));
}

#[test]
fn what_is_written_to_a_file_after_it_was_rotated_away_is_not_lost() {
    let mut log = Log::from_start();
    log.write("one\n");
    log.look();
    log.rotate();
    log.write_to("app.log.1", "two\n");
    log.write("four\n");
    log.look();
    log.now += LINGER / 2;
    log.write_to("app.log.1", "three");
    log.settle();
    // The last line of a file that is over is ended.
    assert_eq!(log.text(), "one\ntwo\nthree\nfour\n");
}

#[test]
fn a_file_rotated_twice_between_two_looks_is_read_in_full() {
    let mut log = Log::from_start();
    log.write("one\n");
    log.look();
    for text in ["two\n", "three\n", "four\n"] {
        log.rotate();
        log.write(text);
    }
    log.settle();
    assert_eq!(log.text(), "one\ntwo\nthree\nfour\n");
}

#[test]
fn what_was_copied_before_a_truncation_is_read_from_the_copy() {
    let mut log = Log::from_start();
    log.write("one\n");
    log.look();
    log.write("two\n");
    log.copy_and_truncate();
    log.write("three\n");
    log.copy_and_truncate();
    log.write("four, longer than everything before it\n");
    log.settle();
    let expected = "one\ntwo\nthree\nfour, longer than everything before it\n";
    assert_eq!(log.text(), expected, "{:?}", log.said);
}

#[test]
fn a_truncation_without_a_copy_is_said() {
    let mut log = Log::from_start();
    log.write("one\ntwo\n");
    log.look();
    log.truncate();
    log.write("three\n");
    log.settle();
    assert_eq!(log.text(), "one\ntwo\nthree\n");
    let last = log.said.last().expect("a note");
    assert!(last.contains("was truncated"), "{last}");
}

#[test]
fn a_copy_made_by_hand_is_not_read() {
    let mut log = Log::from_start();
    log.write("one\ntwo\n");
    log.look();
    fs::copy(log.path("app.log"), log.path("app.log.bak")).expect("copied");
    log.rotate();
    log.write("three\n");
    log.settle();
    assert_eq!(log.text(), "one\ntwo\nthree\n");
}

#[test]
fn a_place_that_is_not_found_again_is_said_and_the_present_file_begun() {
    let mut log = Log::from_start();
    log.write("one\n");
    log.look();
    fs::remove_file(log.path("app.log")).expect("removed");
    log.write("other\n");
    let position = log.follower.position().expect("a place");
    log.follower = Follower::resume(&log.path("app.log"), &position).expect("it resumes");
    log.settle();
    assert_eq!(log.text(), "one\nother\n");
    assert!(
        log.said
            .iter()
            .any(|words| words.contains("cannot find the place")),
        "{:?}",
        log.said
    );
}

#[test]
fn resuming_reads_every_generation_since() {
    let mut log = Log::from_start();
    log.write("one\ntwo\nth");
    log.look();
    let position = log.follower.position().expect("a place");
    log.write("ree\n");
    for text in ["four\n", "five\n", "six\n"] {
        log.rotate();
        // Times tell the generations apart.
        std::thread::sleep(Duration::from_millis(10));
        log.write(text);
    }
    let path = log.path("app.log");
    log.follower = Follower::resume(&path, &position).expect("it resumes");
    log.settle();
    assert_eq!(log.text(), "one\ntwo\nthree\nfour\nfive\nsix\n");
}

/// What can happen to a log.
#[derive(Debug, Clone, Copy)]
enum Event {
    Append(u8),
    /// A line in two parts, with a look in between.
    Partly,
    Rotate,
    Remove,
    CopyAndTruncate,
    /// After everything was read, as the rest would be lost.
    Truncate,
    Look,
    Linger,
    EndAndResume,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (1_u8..5).prop_map(Event::Append),
        1 => Just(Event::Partly),
        2 => Just(Event::Rotate),
        1 => Just(Event::Remove),
        2 => Just(Event::CopyAndTruncate),
        1 => Just(Event::Truncate),
        3 => Just(Event::Look),
        1 => Just(Event::Linger),
        1 => Just(Event::EndAndResume),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn every_line_comes_exactly_once_and_in_order(events in proptest::collection::vec(event(), 1..40)) {
        let mut log = Log::from_start();
        let mut expected = String::new();
        let mut number = 0;
        for event in events {
            match event {
                Event::Append(lines) => for _ in 0..lines {
                    number += 1;
                    let line = format!("line {number}\n");
                    log.write(&line);
                    expected.push_str(&line);
                },
                Event::Partly => {
                    number += 1;
                    log.write("part of ");
                    log.look();
                    log.write(&format!("{number}\n"));
                    expected.push_str(&format!("part of {number}\n"));
                }
                Event::Rotate => log.rotate(),
                Event::Remove => {
                    // What nobody has opened is gone with its name.
                    log.settle();
                    fs::remove_file(log.path("app.log")).ok();
                }
                Event::CopyAndTruncate => log.copy_and_truncate(),
                Event::Truncate => {
                    log.settle();
                    if log.path("app.log").exists() {
                        log.truncate();
                    }
                    log.look();
                }
                Event::Look => log.look(),
                Event::Linger => log.now += LINGER,
                Event::EndAndResume => log.end_and_resume(),
            }
        }
        log.settle();
        prop_assert_eq!(log.text(), expected, "it said {:?}", log.said);
    }
}
