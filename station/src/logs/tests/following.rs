//! A follower reads everything once and in order, whatever happens to it, to the store, and to what is stored.

use std::time::SystemTime;

use super::*;
use crate::logs::{
    disk::Files,
    follow::{Begin, Cursor, Cursors, Follower, Item, begin, keep},
    read::ends,
    retain::{Limits, tidy},
};
use steward_protocol::{
    logs::{Gap, Reason},
    syslog::Severities,
};

const ALL: Severities = Severities::ALL;

/// Returns what a piece of a line says: texts, and gaps in brackets.
fn say(item: &Item<'_>) -> String {
    match item {
        Item::Message(record) => String::from_utf8_lossy(record.bytes).into_owned(),
        Item::Gap(_, gap) => {
            let count = gap.count.map_or("?".to_owned(), |count| count.to_string());
            format!("[{count} {:?}]", gap.reason)
        }
    }
}

pub(super) fn follower<D: Disk + Clone>(disk: &D, cursors: Cursors, lines: usize) -> Follower<D> {
    let mut follower = Follower::new(disk.clone(), ALL, cursors).expect("memory");
    learn(&mut follower, disk, lines);
    follower
}

pub(super) fn learn<D: Disk>(follower: &mut Follower<D>, disk: &D, lines: usize) {
    let lines: Vec<Key> = (0..lines).map(key).collect();
    follower.learn(ends(disk, &lines).expect("ends"));
}

/// Follows to the end, and returns what was said of each line.
fn follow<D: Disk>(follower: &mut Follower<D>) -> BTreeMap<Key, Vec<String>> {
    let mut said: BTreeMap<Key, Vec<String>> = BTreeMap::new();
    loop {
        let portion = follower.pull(&mut |line, item| {
            said.entry(line.clone()).or_default().push(say(&item));
        });
        match portion.expect("a disk that works") {
            Some(portion) => follower.passed(&portion),
            None => return said,
        }
    }
}

fn texts(line: usize, of: usize, range: std::ops::Range<u64>) -> Vec<String> {
    range
        .map(|position| format!("<13>line {line} generation {of} position {position}"))
        .collect()
}

#[test]
fn a_follower_reads_everything_once_over_segments_restarts_and_what_comes() {
    let disk = Ram::default();
    let mut store = Store::new(disk.clone());
    let mut cursors = Cursors::new();
    for round in 0..6_u64 {
        for line in 0..3 {
            // Every other round is another day, and so another segment.
            let time = (10 + i64::try_from(round / 2).expect("few")) * DAY;
            let payload = at_time(line, 0, (round * 5, 5), time);
            commit(&mut store, &[(line, payload)]);
        }
        let mut follower = follower(&disk, cursors, 3);
        let said = follow(&mut follower);
        for line in 0..3 {
            assert_eq!(said[&key(line)], texts(line, 0, round * 5..round * 5 + 5));
        }
        assert!(follow(&mut follower).is_empty());
        keep::save(&disk, "one", follower.cursors()).expect("kept");
        cursors = keep::load(&disk, "one").expect("read").expect("there");
        assert_eq!(&cursors, follower.cursors());
    }
    assert!(
        catalog::segments(&disk, &key(0).dir())
            .expect("segments")
            .len()
            > 2
    );
}

#[test]
fn what_was_not_passed_is_read_again() {
    let disk = Ram::default();
    let mut store = Store::new(disk.clone());
    commit(&mut store, &[(0, batch(0, 0, 0, 5))]);
    let mut follower = follower(&disk, Cursors::new(), 1);
    let before = follower.cursors().clone();
    for _ in 0..2 {
        let mut said = Vec::new();
        let portion = follower.pull(&mut |_, item| said.push(say(&item)));
        assert_eq!(portion.expect("read").expect("something").messages, 5);
        assert_eq!(said, texts(0, 0, 0..5));
    }
    assert_eq!(follow(&mut follower)[&key(0)], texts(0, 0, 0..5));
    follower.rewind(before);
    assert_eq!(follow(&mut follower)[&key(0)], texts(0, 0, 0..5));
}

#[test]
fn who_begins_with_the_newest_reads_only_what_comes() {
    let disk = Ram::default();
    let mut store = Store::new(disk.clone());
    commit(
        &mut store,
        &[(0, batch(0, 0, 0, 5)), (0, batch(0, 0, 5, 5))],
    );
    let ends = ends(&disk, &[key(0)]).expect("ends");
    let cursors = begin(&disk, &ends, Begin::Newest).expect("read");
    assert_eq!(cursors[&key(0)].records, 10);
    commit(
        &mut store,
        &[(0, batch(0, 0, 10, 5)), (1, batch(1, 0, 0, 5))],
    );
    let said = follow(&mut follower(&disk, cursors, 2));
    assert_eq!(said[&key(0)], texts(0, 0, 10..15));
    // A line that is new is read from its beginning.
    assert_eq!(said[&key(1)], texts(1, 0, 0..5));
}

#[test]
fn what_is_damaged_is_said_and_what_is_behind_it_is_read() {
    for (what, broken, expected) in [
        (
            "in the middle",
            1,
            vec![(0..5, ""), (5..5, "[5 Corrupt]"), (10..15, "")],
        ),
        (
            "at the beginning",
            0,
            vec![(0..0, "[5 Corrupt]"), (5..15, "")],
        ),
        ("at the end", 2, vec![(0..10, "")]),
    ] {
        let disk = Ram::default();
        let mut store = Store::new(disk.clone());
        for number in 0..3 {
            commit(&mut store, &[(0, batch(0, 0, number * 5, 5))]);
        }
        let (entry, _) = stored(&disk, 0)[broken].clone();
        let segment = catalog::segments(&disk, &key(0).dir()).expect("segments")[0];
        let place = path(&key(0).dir(), &segment.name.log());
        let file = disk.open(&place, Mode::Write).expect("opened");
        disk.write(&file, entry.at + 60, b"!!!").expect("written");
        let mut follower = follower(&disk, Cursors::new(), 1);
        let mut all: Vec<String> = Vec::new();
        for (range, gap) in expected {
            all.extend(texts(0, 0, range));
            all.extend((!gap.is_empty()).then(|| gap.to_owned()));
        }
        assert_eq!(follow(&mut follower)[&key(0)], all, "{what}");
        // What was damaged at the end is said as soon as there is something behind it.
        commit(&mut store, &[(0, batch(0, 0, 15, 5))]);
        learn(&mut follower, &disk, 1);
        let mut next = texts(0, 0, 15..20);
        if broken == 2 {
            next.insert(0, "[5 Corrupt]".to_owned());
        }
        assert_eq!(follow(&mut follower)[&key(0)], next, "{what}");
    }
}

#[test]
fn gaps_of_nodes_and_lost_spools_are_said_in_their_place() {
    let disk = Ram::default();
    let mut store = Store::new(disk.clone());
    let domain = || key(0).domain;
    let stream = |of: usize, after: Option<usize>| Stream {
        generation: generation(of),
        after: after.map(generation),
        domain: domain(),
    };
    let mut packer = Packer::new().expect("memory");
    let gap = |reason| Gap::new(None, reason).between(Micros(DAY), Micros(DAY));
    commit(&mut store, &[(0, batch(0, 1, 0, 2))]);
    let full = packer.gap(&stream(1, None), 2, 7, gap(Reason::SpoolFull));
    commit(&mut store, &[(0, full.expect("packed").to_vec())]);
    // A start that names the one before, and one that does not.
    commit(&mut store, &[(0, batch(0, 2, 0, 1))]);
    commit(&mut store, &[(0, batch(0, 9, 0, 1))]);
    // A damaged beginning stands for what would have named the one before.
    let torn = packer.gap(&stream(20, None), 0, 3, gap(Reason::Corrupt));
    commit(&mut store, &[(0, torn.expect("packed").to_vec())]);
    let said = follow(&mut follower(&disk, Cursors::new(), 1));
    let mut expected = texts(0, 1, 0..2);
    expected.push("[7 SpoolFull]".to_owned());
    expected.extend(texts(0, 2, 0..1));
    expected.push("[? SpoolLost]".to_owned());
    expected.extend(texts(0, 9, 0..1));
    expected.push("[3 Corrupt]".to_owned());
    assert_eq!(said[&key(0)], expected);
}

#[test]
fn what_retention_took_before_it_was_read_is_counted_and_said() {
    let dir = tempfile::tempdir().expect("a directory");
    let files = Files::new(dir.path().join("logs"));
    let mut store = Store::new(files.clone());
    let mut put = |from: u64, to: u64| {
        for number in from..to {
            let time = (10 + i64::try_from(number).expect("few")) * DAY;
            let payload = at_time(0, 0, (number * 5, 5), time);
            let done = store.commit(vec![arrived(0, &payload)], Duration::ZERO);
            assert!(done.failed.is_empty());
        }
    };
    let limits = |segments: u64| Limits {
        age: Duration::from_secs(3600),
        bytes: segments * 8192,
    };
    put(0, 4);
    // The two oldest go before anybody follows: nothing was missed.
    tidy(&files, limits(2), SystemTime::now());
    let lines = [key(0)];
    let cursors = begin(&files, &ends(&files, &lines).expect("ends"), Begin::Oldest);
    let mut following = follower(&files, cursors.expect("read"), 1);
    assert_eq!(follow(&mut following)[&key(0)], texts(0, 0, 10..20));
    // What was read is not missed.
    put(4, 6);
    tidy(&files, limits(2), SystemTime::now());
    learn(&mut following, &files, 1);
    assert_eq!(follow(&mut following)[&key(0)], texts(0, 0, 20..30));
    // What was not is, exactly.
    put(6, 10);
    tidy(&files, limits(2), SystemTime::now());
    learn(&mut following, &files, 1);
    let mut expected = vec!["[10 Other]".to_owned()];
    expected.extend(texts(0, 0, 40..50));
    assert_eq!(follow(&mut following)[&key(0)], expected);
    // A store that began anew is followed from its beginning.
    std::fs::remove_dir_all(dir.path().join("logs")).expect("removed");
    let mut store = Store::new(files.clone());
    store.commit(vec![arrived(0, &batch(0, 7, 0, 5))], Duration::ZERO);
    let cursors = following.cursors().clone();
    let mut following = follower(&files, cursors, 1);
    assert_eq!(follow(&mut following)[&key(0)], texts(0, 7, 0..5));
}

#[test]
fn thousands_of_lines_have_their_turn() {
    let disk = Ram::default();
    let mut store = Store::new(disk.clone());
    let lines = 500;
    for round in 0..2 {
        let window: Vec<_> = (0..lines)
            .map(|line| (line, batch(line, 0, round * 3, 3)))
            .collect();
        commit(&mut store, &window);
    }
    // One that has much does not keep the others waiting.
    for round in 2..500 {
        commit(&mut store, &[(0, batch(0, 0, round * 3, 3))]);
    }
    let mut follower = follower(&disk, Cursors::new(), lines);
    let mut pieces = 0;
    let mut seen = BTreeMap::new();
    while let Some(portion) = follower.pull(&mut |_, _| {}).expect("read") {
        pieces += 1;
        *seen.entry(portion.line.clone()).or_insert(0) += portion.messages;
        follower.passed(&portion);
        if seen.len() == lines {
            break;
        }
    }
    assert!(
        pieces <= lines + 1,
        "{pieces} pieces until all had their turn"
    );
    assert_eq!(
        seen.values().filter(|messages| **messages == 6).count(),
        lines - 1
    );
    keep::save(&disk, "many", follower.cursors()).expect("kept");
    assert_eq!(
        keep::load(&disk, "many").expect("read").as_ref(),
        Some(follower.cursors())
    );
}

#[test]
fn a_damaged_file_of_cursors_is_noticed_whichever_byte_it_is() {
    let disk = Ram::default();
    let cursors: Cursors = (0..3)
        .map(|line| {
            (
                key(line),
                Cursor {
                    at: 77,
                    ..Cursor::end((3, 5), 9)
                },
            )
        })
        .collect();
    assert_eq!(keep::load(&disk, "one").expect("read"), None);
    keep::save(&disk, "one", &cursors).expect("kept");
    let file = disk.open("one", Mode::Write).expect("opened");
    let text = read_from(&disk, &file, 0, u64::MAX).expect("read");
    for (at, byte) in text.iter().enumerate() {
        disk.write(&file, at as u64, &[byte ^ 1]).expect("written");
        assert!(keep::load(&disk, "one").is_err(), "byte {at}");
        disk.write(&file, at as u64, &[*byte]).expect("written");
    }
    for length in 0..text.len() as u64 {
        disk.truncate(&file, length).expect("cut");
        assert!(keep::load(&disk, "one").is_err(), "{length} bytes");
        disk.write(&file, 0, &text).expect("written");
    }
    assert_eq!(keep::load(&disk, "one").expect("read"), Some(cursors));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    /// Power cuts of store and cursors together: what is passed on twice is allowed, what is never is not.
    #[test]
    fn whatever_happens_nothing_is_left_out(steps in vec((0..8_u8, any::<u64>()), 1..60)) {
        let disk = Ram::default();
        let mut store = Store::new(disk.clone());
        let (mut next, mut reached) = (0, 0);
        let mut following = follower(&disk, Cursors::new(), 1);
        for (step, dice) in steps {
            match step {
                0..=3 => {
                    let time = DAY * (100 + i64::from(step) * i64::try_from(dice % 3).expect("few"));
                    commit(&mut store, &[(0, at_time(0, 0, (next, 5), time))]);
                    next += 5;
                    learn(&mut following, &disk, 1);
                }
                4 | 5 => {
                    let mut last = None;
                    let portion = following.pull(&mut |_, item| {
                        let Item::Message(record) = item else { panic!("{item:?}") };
                        let from = last.map_or(record.position, |last| last + 1);
                        assert!(from == record.position && from <= reached);
                        last = Some(record.position);
                        reached = reached.max(from + 1);
                    }).expect("a disk that works");
                    if let Some(portion) = portion {
                        following.passed(&portion);
                    }
                }
                6 => keep::save(&disk, "one", following.cursors()).expect("kept"),
                _ => {
                    disk.power_loss(dice);
                    store = Store::new(disk.clone());
                    store.recover().expect("a disk that works");
                    let cursors = keep::load(&disk, "one").expect("read").unwrap_or_default();
                    following = follower(&disk, cursors, 1);
                }
            }
        }
        for said in follow(&mut following).into_values().flatten() {
            let position: u64 = said.rsplit(' ').next().and_then(|text| text.parse().ok()).expect("a position");
            prop_assert!(position <= reached, "{position} after {reached}");
            reached = reached.max(position + 1);
        }
        prop_assert_eq!(reached, next);
    }
}
