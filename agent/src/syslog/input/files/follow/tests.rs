//! Many files and few of them open, and reading on where it stopped.

use std::{fs, io::Write, thread};

use super::{
    super::{note::Notes, settle::SEARCHES},
    *,
};
use crate::config::syslog::Listen;

pub(super) fn input(pattern: String) -> (Input, Files) {
    let files = Files {
        patterns: vec![pattern.clone()],
        exclude: Vec::new(),
        from: Start::Beginning,
        multiline: None,
        pause: Duration::ZERO,
    };
    let input = Input {
        name: format!("file://{pattern}"),
        domain: "app".parse().expect("a domain"),
        listen: Listen::Files(files.clone()),
        max_message: 1024,
        connections: 0,
        idle: Duration::ZERO,
        receive_buffer: 0,
        mode: 0,
    };
    (input, files)
}

/// Reads everything there is, and takes it for durable.
fn read(follower: &mut Follower) -> Vec<String> {
    let mut texts = Vec::new();
    while let Some(turn) = follower.turn() {
        let portion = &turn.portion;
        let messages = portion.messages.iter();
        texts.extend(
            messages.map(|piece| String::from_utf8_lossy(portion.bytes_of(piece)).into_owned()),
        );
        follower.landed(&turn.flight);
    }
    texts
}

#[test]
fn of_many_files_all_are_read_and_few_are_open() {
    let dir = tempfile::tempdir().expect("a directory");
    let count = 3 * MAX_OPEN;
    let path = |number: usize| dir.path().join(format!("{number:04}.log"));
    for number in 0..count {
        fs::write(path(number), format!("line {number}\n")).expect("it is written");
    }
    let (input, files) = input(format!("{}/*.log", dir.path().display()));
    let noted = (Book::default(), Found::Nothing);
    let mut follower = Follower::new(&input, &files, noted, Seen::default());
    for round in 0..3 {
        follower.scan();
        let texts = read(&mut follower);
        let wanted: Vec<String> = (0..count)
            .map(|number| match round {
                0 => format!("line {number}"),
                _ => format!("more {round}"),
            })
            .collect();
        assert_eq!(texts, wanted, "round {round}");
        assert!(follower.handles.len() <= MAX_OPEN);
        assert_eq!(follower.book.behind(), 0);
        for number in 0..count {
            let mut text = fs::read(path(number)).expect("it is read");
            text.extend_from_slice(format!("more {}\n", round + 1).as_bytes());
            fs::write(path(number), text).expect("it is written");
        }
    }
    follower.tick();
    assert_eq!(follower.buffer.capacity(), 0);
}

#[test]
fn a_packed_file_that_is_damaged_is_read_as_far_as_that_goes_and_its_loss_told() {
    use std::io::Write;
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("app.log");
    fs::write(&path, "line 0\n").expect("it is written");
    let (input, files) = input(path.display().to_string());
    let noted = (Book::default(), Found::Nothing);
    let mut follower = Follower::new(&input, &files, noted, Seen::default());
    follower.scan();
    assert_eq!(read(&mut follower), ["line 0"]);
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    for number in 0..100_000 {
        writeln!(packer, "line {number}").expect("it is packed");
    }
    let mut packed = packer.finish().expect("it is packed");
    packed.truncate(packed.len() / 2);
    fs::write(dir.path().join("app.log.1.gz"), packed).expect("it is written");
    follower.handles.clear();
    fs::remove_file(&path).expect("it is removed");
    follower.scan();
    let mut texts = Vec::new();
    let mut gaps = Vec::new();
    while let Some(turn) = follower.turn() {
        texts.extend(
            turn.portion
                .messages
                .iter()
                .map(|piece| String::from_utf8_lossy(turn.portion.bytes_of(piece)).into_owned()),
        );
        gaps.extend(turn.portion.gaps.iter().map(|gap| gap.reason));
    }
    assert!(
        texts.len() > 30_000 && texts.len() < 70_000,
        "{}",
        texts.len()
    );
    for (index, text) in texts.iter().enumerate() {
        assert_eq!(*text, format!("line {}", index + 1));
    }
    assert_eq!(gaps, [Reason::SourceVanished]);
}

#[test]
fn what_is_gone_from_a_file_is_waited_for_a_while_and_then_forgotten_for_good() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("app.log");
    fs::write(&path, "other\n").expect("it is written");
    let (input, files) = input(path.display().to_string());
    let mut seen = Seen::default();
    let received = Micros(feed::now().0 + 1_000_000);
    seen.add(&source(&path), received, b"one");
    let noted = (Book::default(), Found::Nothing);
    let mut follower = Follower::new(&input, &files, noted, seen);
    for _ in 0..SEARCHES {
        assert!(follower.give_up().is_empty());
        follower.scan();
        read(&mut follower);
    }
    assert_eq!(follower.give_up(), BTreeSet::from([path.clone()]));
    assert!(follower.has_all() && follower.give_up().is_empty());
    assert!(follower.book.logs[&path].stamp >= received.0);
    fs::write(&path, "other\none\n").expect("it is written");
    follower.scan();
    assert_eq!(read(&mut follower), ["one"]);
}

#[test]
fn what_the_spool_has_is_met_before_anything_takes_room_there() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = |number: usize| dir.path().join(format!("{number:04}.log"));
    let (input, files) = input(format!("{}/*.log", dir.path().display()));
    let mut seen = Seen::default();
    for number in 0..100 {
        let line = format!("line {number}");
        fs::write(path(number), format!("{line}\n")).expect("it is written");
        if number % 3 == 2 {
            seen.add(&source(&path(number)), feed::now(), line.as_bytes());
        }
    }
    let noted = (Book::default(), Found::Nothing);
    let mut follower = Follower::new(&input, &files, noted, seen);
    follower.scan();
    for _ in 0..33 {
        assert!(!follower.has_all());
        let turn = follower.turn().expect("something");
        assert!(turn.portion.is_empty(), "{turn:?}");
    }
    assert!(follower.has_all());
    assert_eq!(read(&mut follower).len(), 67);
}

#[test]
fn what_was_packed_without_the_agent_is_read_on_after_the_first_listing() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("app.log");
    fs::write(&path, "one\n").expect("it is written");
    let (input, files) = input(path.display().to_string());
    let mut notes = Notes::of(&dir.path().join("notes"), "app");
    let noted = (Book::default(), Found::Nothing);
    let mut follower = Follower::new(&input, &files, noted, Seen::default());
    follower.scan();
    assert_eq!(read(&mut follower), ["one"]);
    let saved = notes.save(&follower.book, [path.clone()].into_iter());
    saved.expect("it is noted");
    drop(follower);
    let packed = fs::File::create(dir.path().join("app.log.1.gz")).expect("a file");
    let mut packed = flate2::write::GzEncoder::new(packed, flate2::Compression::default());
    packed.write_all(b"one\ntwo\n").expect("it is written");
    packed.finish().expect("it is written");
    let new = dir.path().join("new");
    fs::write(&new, "three\n").expect("it is written");
    fs::rename(new, &path).expect("it is renamed");
    let noted = notes.load().expect("notes");
    let mut follower = Follower::new(&input, &files, noted, Seen::default());
    follower.scan();
    assert_eq!(read(&mut follower), ["two", "three"]);
}

#[test]
fn a_file_that_is_renamed_during_the_first_listing_is_not_read_behind_the_next_one() {
    for round in 0..100 {
        let dir = tempfile::tempdir().expect("a directory");
        let (input, files) = input(format!("{}/*.log", dir.path().display()));
        let path = dir.path().join("app.log");
        // Others beside it, so that listing takes a while.
        for other in 0..200 {
            fs::write(path.with_extension(format!("{other}")), "").expect("it is written");
        }
        fs::write(&path, "0\n").expect("it is written");
        let (new, old) = (path.with_extension("new"), path.with_extension("log.1"));
        fs::write(&new, "1\n").expect("it is written");
        let noted = (Book::default(), Found::Nothing);
        let mut follower = Follower::new(&input, &files, noted, Seen::default());
        let mut texts = thread::scope(|scope| {
            scope.spawn(|| {
                fs::rename(&path, old).expect("it is renamed");
                fs::rename(new, &path).expect("it is renamed");
            });
            follower.scan();
            read(&mut follower)
        });
        for _ in 0..SEARCHES {
            follower.scan();
            texts.extend(read(&mut follower));
        }
        assert!(texts.is_sorted(), "round {round}: {texts:?}");
        assert!(texts.contains(&"1".to_owned()), "round {round}: {texts:?}");
    }
}

#[test]
fn a_new_file_that_is_rotated_before_it_is_listed_is_read_before_the_next_one() {
    let dir = tempfile::tempdir().expect("a directory");
    let (input, files) = input(format!("{}/*.log", dir.path().display()));
    let noted = (Book::default(), Found::Nothing);
    let mut follower = Follower::new(&input, &files, noted, Seen::default());
    follower.scan();
    fs::write(dir.path().join("app.log.1"), "0\n").expect("it is written");
    fs::write(dir.path().join("app.log"), "1\n").expect("it is written");
    follower.scan();
    assert_eq!(read(&mut follower), ["0", "1"]);
}
