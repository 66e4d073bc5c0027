//! What is found, against looking at everything; and what retention leaves.

use std::time::{Duration, SystemTime};

use regex::bytes::Regex;

use super::*;
use crate::{
    logs::{
        disk::Files,
        read::{Direction, Ends, Merge, Query, ends, gaps},
        retain::{Limits, tidy},
    },
    view::logs::LogFinding,
};

/// Three lines of a few batches each, side by side in time.
fn three_lines() -> Ram {
    let disk = Ram::default();
    let mut store = Store::new(disk.clone());
    for number in 0..6 {
        for line in 0..3 {
            let time = DAY * 20_000 + i64::try_from(number * 10 + line).expect("few");
            commit(
                &mut store,
                &[(line, at_time(line, 0, (number as u64 * 7, 7), time))],
            );
        }
    }
    disk
}

fn found(disk: &Ram, query: &Query, room: usize) -> Vec<(i64, usize, u64)> {
    let lines: Vec<Key> = (0..3).map(key).collect();
    let ends = ends(disk, &lines).expect("ends");
    let merge = Merge::with_room(disk, query.clone(), (&Ends::new(), &ends), room);
    let mut merge = merge.expect("a reader");
    let mut found = Vec::new();
    while let Some((line, one)) = merge.pull().expect("a disk that works") {
        let line = lines
            .iter()
            .position(|key| *key == line)
            .expect("one of three");
        found.push((one.received.0, line, one.position));
    }
    found
}

#[test]
fn what_is_found_does_not_depend_on_how_much_room_there_is() {
    let disk = three_lines();
    for direction in [Direction::Forward, Direction::Backward] {
        let query = Query {
            direction,
            ..Query::everything()
        };
        let all = found(&disk, &query, 1 << 20);
        assert_eq!(all.len(), 3 * 6 * 7);
        let mut sorted = all.clone();
        sorted.sort();
        if direction == Direction::Backward {
            sorted.reverse();
        }
        assert_eq!(all, sorted, "merged by time");
        for room in [0, 1, 300, 1000, 5000] {
            assert_eq!(found(&disk, &query, room), all, "{room}");
        }
    }
}

#[test]
fn an_expression_finds_what_looking_at_each_message_finds() {
    let disk = three_lines();
    for expression in [
        "position 1",
        "position [0-9]$",
        "^<13>line 2",
        "(3|7)",
        "x*",
        "position 4(.|\\n)*position 5",
        "9(?s-u:.){0,40}line 1",
        "\\bline 1\\b",
        "nowhere",
    ] {
        let regex = Regex::new(expression).expect("an expression");
        let mut expected = Vec::new();
        for (time, line, position) in found(&disk, &Query::everything(), 1 << 20) {
            let text = format!("<13>line {line} generation 0 position {position}");
            if regex.is_match(text.as_bytes()) {
                expected.push((time, line, position));
            }
        }
        let query = Query {
            grep: Some(regex),
            ..Query::everything()
        };
        assert_eq!(found(&disk, &query, 1 << 20), expected, "{expression}");
    }
}

#[test]
fn what_is_found_does_not_depend_on_who_looks_for_it_nor_on_how_far_ahead() {
    let disk = Ram::default();
    let mut store = Store::new(disk.clone());
    let mut next = 0;
    for number in 0..300 {
        let count = number % 40 + 1;
        commit(&mut store, &[(0, batch(0, 0, next, count))]);
        next += count;
    }
    let all = stored(&disk, 0);
    let dir = key(0).dir();
    let name = catalog::segments(&disk, &dir).expect("segments")[0].name;
    let log = disk.open(&path(&dir, &name.log()), Mode::Write);
    let damaged = &all[150].0;
    disk.write(&log.expect("opened"), damaged.end() - 3, b"!!!")
        .expect("written");
    let mut ends = ends(&disk, &[key(0)]).expect("ends");
    let end = ends[&key(0)];
    for lines in [1, 70] {
        ends.extend((1..lines).map(|line| (key(line), end)));
        for expression in [
            "",
            "position [0-9]*7$",
            "position 1[^0]*3",
            "(?s-u:position 2.*)",
        ] {
            let regex = Regex::new(expression).expect("an expression");
            let is_found = |position: &u64| {
                position == &damaged.first
                    || !(damaged.first..damaged.next()).contains(position)
                        && regex.is_match(format!("generation 0 position {position}").as_bytes())
            };
            let expected: Vec<u64> = (0..next).filter(is_found).collect();
            for room in [1_000, 20_000, 8 << 20] {
                for direction in [Direction::Forward, Direction::Backward] {
                    let query = Query {
                        direction,
                        grep: Some(regex.clone()),
                        ..Query::everything()
                    };
                    let merge = Merge::with_room(&disk, query, (&Ends::new(), &ends), room);
                    let mut merge = merge.expect("a reader");
                    let mut found = Vec::new();
                    while let Some((_, one)) = merge.pull().expect("a disk that works") {
                        assert_eq!(one.gap.is_some(), one.position == damaged.first);
                        found.push(one.position);
                    }
                    if direction == Direction::Backward {
                        found.reverse();
                    }
                    assert_eq!(found, expected, "{expression} {room} {direction:?} {lines}");
                }
            }
        }
    }
}

#[test]
fn a_reader_that_is_left_in_the_middle_ends_at_once() {
    let disk = Ram::default();
    let mut store = Store::new(disk.clone());
    for number in 0..200 {
        commit(&mut store, &[(0, batch(0, 0, number * 10, 10))]);
    }
    let ends = ends(&disk, &[key(0)]).expect("ends");
    for wanted in [0, 1, 100, 1000] {
        let merge = Merge::new(&disk, Query::everything(), &Ends::new(), &ends);
        let mut merge = merge.expect("a reader");
        for position in 0..wanted {
            let (_, found) = merge.pull().expect("a disk that works").expect("more");
            assert_eq!(found.position, position);
        }
    }
}

#[test]
fn what_retention_removed_is_known_and_not_lost() {
    let dir = tempfile::tempdir().expect("a directory");
    let files = Files::new(dir.path().to_owned());
    let mut store = Store::new(files.clone());
    for number in 0..5_u64 {
        let time = (10 + i64::try_from(number).expect("few")) * DAY;
        let payload = at_time(0, 0, (number * 5, 5), time);
        let done = store.commit(vec![arrived(0, &payload)], Duration::ZERO);
        assert!(done.failed.is_empty());
    }
    let findings = || {
        let mut all = Vec::new();
        let range = (None, None, gaps::Depth::Everything);
        gaps::examine(&files, &key(0), range, &mut |finding| all.push(finding)).expect("examined");
        all
    };
    let now = SystemTime::now();
    let segments = || {
        catalog::segments(&files, &key(0).dir())
            .expect("segments")
            .len()
    };
    let limits = Limits {
        age: Duration::from_secs(3600),
        bytes: 1 << 30,
    };
    assert!(tidy(&files, limits, now).is_empty());
    assert_eq!(segments(), 5);
    // Too many bytes: the two oldest go.
    tidy(
        &files,
        Limits {
            bytes: 3 * 8192,
            ..limits
        },
        now,
    );
    assert_eq!(segments(), 3);
    let [LogFinding::Removed(removed), LogFinding::Extent(extent)] = &findings()[..] else {
        panic!("{:?}", findings());
    };
    assert_eq!((removed.records, extent.records, extent.gaps), (10, 15, 0));
    // All too old: the newest is to be closed first.
    let later = now + Duration::from_secs(7200);
    assert_eq!(tidy(&files, limits, later), [(key(0), 5)]);
    store.close(&key(0), 5).expect("closed");
    assert_eq!(tidy(&files, limits, later), []);
    assert_eq!(segments(), 1);
    // What was removed is known, and what goes on goes on.
    let mut store = Store::new(files.clone());
    for (first, stored) in [(0, 0), (20, 0), (25, 1)] {
        let payload = at_time(0, 0, (first, 5), 20 * DAY);
        assert_eq!(
            store
                .commit(vec![arrived(0, &payload)], Duration::ZERO)
                .stored,
            stored,
            "{first}"
        );
    }
    assert!(
        !findings()
            .iter()
            .any(|finding| matches!(finding, LogFinding::Gap(_) | LogFinding::Damage(_)))
    );
}

#[test]
fn thousands_of_lines_are_read_side_by_side_with_few_files_open() {
    let dir = tempfile::tempdir().expect("a directory");
    let files = Files::new(dir.path().to_owned());
    let mut store = Store::new(files.clone());
    let lines = 3000;
    let begin = DAY * 20_000;
    let window = (0..lines).map(|line| {
        let time = begin + i64::try_from(line).expect("few");
        arrived(line, &at_time(line, 0, (0, 1), time))
    });
    let done = store.commit(window.collect(), Duration::ZERO);
    assert!(done.failed.is_empty(), "{:?}", done.failed.first());
    drop(store);
    let keys: Vec<Key> = (0..lines).map(key).collect();
    let ends = ends(&files, &keys).expect("ends");
    for direction in [Direction::Forward, Direction::Backward] {
        let query = Query {
            direction,
            ..Query::everything()
        };
        let mut merge = Merge::new(&files, query, &Ends::new(), &ends).expect("a reader");
        let open = std::fs::read_dir("/proc/self/fd").expect("a list").count();
        // Other tests have some open at the same time.
        assert!(open < 600, "{open} files are open");
        let mut times = Vec::new();
        while let Some((_, found)) = merge.pull().expect("a disk that works") {
            times.push(found.received.0 - begin);
        }
        if direction == Direction::Backward {
            times.reverse();
        }
        assert_eq!(
            times,
            (0..i64::try_from(lines).expect("few")).collect::<Vec<_>>()
        );
    }
}

#[test]
fn an_index_that_is_read_in_pieces_says_the_same() {
    let disk = Ram::default();
    let mut store = Store::new(disk.clone());
    for number in 0..300 {
        commit(&mut store, &[(0, batch(0, 0, number * 2, 2))]);
    }
    // So many lines that each has only the fewest entries at hand.
    let mut ends = ends(&disk, &[key(0)]).expect("ends");
    let end = ends[&key(0)];
    ends.extend((1..5000).map(|line| (key(line), end)));
    for direction in [Direction::Forward, Direction::Backward] {
        let query = Query {
            direction,
            ..Query::everything()
        };
        let mut merge = Merge::new(&disk, query, &Ends::new(), &ends).expect("a reader");
        let mut positions = Vec::new();
        while let Some((_, found)) = merge.pull().expect("a disk that works") {
            positions.push(found.position);
        }
        if direction == Direction::Backward {
            positions.reverse();
        }
        assert_eq!(positions, (0..600).collect::<Vec<_>>());
    }
}

#[test]
fn a_gap_is_told_of_in_every_range_it_reaches_into() {
    let disk = Ram::default();
    let mut store = Store::new(disk.clone());
    let hour = DAY / 24;
    let begin = DAY * 20_000;
    commit(&mut store, &[(0, at_time(0, 0, (0, 5), begin))]);
    let mut builder = Builder::new(1024);
    let gap = steward_protocol::logs::Gap::new(Some(9), steward_protocol::logs::Reason::KernelDrop)
        .between(Micros(begin + hour), Micros(begin + 2 * hour));
    assert_eq!(
        builder.push_gap(Micros(begin + 5 * hour), "s", &gap),
        Push::Taken
    );
    let stream = Stream {
        generation: generation(0),
        after: None,
        domain: key(0).domain,
    };
    let mut packer = Packer::new().expect("memory");
    let payload = packer
        .records(&stream, 5, &builder)
        .expect("packed")
        .to_vec();
    commit(&mut store, &[(0, payload)]);
    commit(&mut store, &[(0, at_time(0, 0, (6, 5), begin + 9 * hour))]);
    for (since, until, gaps) in [
        (None, None, 1),
        (Some(0), Some(0), 0),
        (Some(0), Some(1), 1),
        (Some(1), Some(2), 1),
        (Some(2), Some(4), 1),
        (Some(4), Some(6), 1),
        (Some(6), None, 0),
    ] {
        let at = |hours: Option<i64>| hours.map(|hours| Micros(begin + hours * hour));
        let mut found = 0;
        let range = (at(since), at(until), gaps::Depth::Gaps);
        gaps::examine(&disk, &key(0), range, &mut |finding| {
            found += u64::from(matches!(finding, LogFinding::Gap(_)));
        })
        .expect("examined");
        assert_eq!(found, gaps, "{since:?} to {until:?}");
        // Who asks only how much there is, is told as many.
        let (mut counted, range) = (None, (range.0, range.1, gaps::Depth::Extent));
        gaps::examine(&disk, &key(0), range, &mut |finding| {
            if let LogFinding::Extent(extent) = finding {
                counted = Some((extent.gaps, extent.missing));
            }
        })
        .expect("examined");
        assert_eq!(counted, Some((gaps, 9 * gaps)), "{since:?} to {until:?}");
    }
}

#[test]
fn whole_batches_behind_damage_are_set_aside_and_told_of() {
    let disk = Ram::default();
    let mut store = Store::new(disk.clone());
    for number in 0..6 {
        commit(&mut store, &[(0, batch(0, 0, number * 5, 5))]);
    }
    let all = stored(&disk, 0);
    let dir = key(0).dir();
    let name = catalog::segments(&disk, &dir).expect("segments")[0].name;
    // The index has lost its end, and the third batch is damaged.
    let index = disk
        .open(&path(&dir, &name.index()), Mode::Write)
        .expect("opened");
    disk.truncate(&index, 0).expect("cut");
    let log = disk
        .open(&path(&dir, &name.log()), Mode::Write)
        .expect("opened");
    disk.write(&log, all[2].0.at + 50, b"!!!").expect("written");
    let mut store = Store::new(disk.clone());
    store.recover().expect("a disk that works");
    assert_eq!(stored(&disk, 0), all[..2]);
    let aside = disk
        .open(&path(&dir, &name.torn()), Mode::Read)
        .expect("set aside");
    let aside = read_from(&disk, &aside, 0, u64::MAX).expect("read");
    let kept: Vec<u64> = catalog::scan(&aside, 0)
        .iter()
        .map(|entry| entry.first)
        .collect();
    assert_eq!(kept, [15, 20, 25]);
    let mut said = Vec::new();
    let range = (None, None, gaps::Depth::Everything);
    gaps::examine(&disk, &key(0), range, &mut |finding| said.push(finding)).expect("examined");
    let is_told = |finding: &LogFinding| matches!(finding, LogFinding::Damage(damage) if damage.file.ends_with(".torn"));
    assert!(said.iter().any(is_told), "{said:?}");
    // The node sends again what it was not told of.
    assert_eq!(
        words(&commit(&mut store, &[(0, batch(0, 0, 10, 5))])),
        [(15, false)]
    );
    // An end that is only torn leaves nothing behind.
    let length = disk.bytes(&log).expect("length");
    disk.write(&log, length, &batch(0, 0, 15, 5)[..40])
        .expect("written");
    let before = aside.len();
    Store::new(disk.clone())
        .recover()
        .expect("a disk that works");
    let aside = disk
        .open(&path(&dir, &name.torn()), Mode::Read)
        .expect("set aside");
    assert_eq!(disk.bytes(&aside).expect("length"), before as u64);
}

#[test]
fn a_gap_in_the_place_of_a_damaged_beginning_says_all_there_is_to_say() {
    use steward_protocol::logs::{Gap, Reason};
    for (what, after, count, lost) in [
        ("a gap that names nothing", None, Some(4), 0),
        ("one that names what is here", Some(0), Some(4), 0),
        ("one that names another", Some(7), Some(4), 1),
        ("messages that name what is here", Some(0), None, 0),
        ("messages that name nothing", None, None, 1),
    ] {
        let mut store = Store::new(Ram::default());
        commit(&mut store, &[(0, batch(0, 0, 0, 5))]);
        let stream = Stream {
            generation: generation(9),
            after: after.map(generation),
            domain: key(0).domain,
        };
        let mut packer = Packer::new().expect("memory");
        let time = Micros(DAY * 20_001);
        let payload = match count {
            Some(count) => {
                let gap = Gap::new(Some(count), Reason::Corrupt).between(time, time);
                packer.gap(&stream, 0, count, gap)
            }
            None => {
                let mut builder = Builder::new(1024);
                let message = Message {
                    received: time,
                    source: "s",
                    severity: 5,
                    app: None,
                    unparsed: false,
                    original: None,
                    bytes: b"x",
                };
                assert_eq!(builder.push(&message), Push::Taken);
                packer.records(&stream, 0, &builder)
            }
        };
        let payload = payload.expect("packed").to_vec();
        let done = store.commit(vec![arrived(0, &payload)], Duration::ZERO);
        assert_eq!((done.stored, done.lost.len()), (1, lost), "{what}");
        let mut reasons = Vec::new();
        let range = (None, None, gaps::Depth::Gaps);
        gaps::examine(store.disk(), &key(0), range, &mut |finding| {
            if let LogFinding::Gap(gap) = finding {
                reasons.push(gap.gap.reason);
            }
        })
        .expect("examined");
        let mut expected = Vec::new();
        expected.extend((lost > 0).then_some(Reason::SpoolLost));
        expected.extend(count.map(|_| Reason::Corrupt));
        assert_eq!(reasons, expected, "{what}");
    }
}
