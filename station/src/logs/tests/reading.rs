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
