//! Every byte of a small spool flipped in turn; torn tails, bad sectors, lost files.

use steward_protocol::logs::{Gap, Reason};

use super::{
    domain, lines, open, portion,
    power::{Files, Power},
    settings,
    station::{ALL, Stored, deliver},
};
use crate::syslog::spool::{Policy, Taken};

/// A spool of two starts with two commits each, and the lines of each commit.
fn small() -> (Files, Vec<std::ops::Range<u64>>) {
    let disk = Power::default();
    let commits = vec![0..4, 4..9, 9..12, 12..14];
    for (start, two) in commits.chunks(2).enumerate() {
        let mut spool = open(&disk, &settings(1 << 20, Policy::Block), start as u64);
        for numbers in two {
            assert_eq!(
                spool.append(&domain("nginx"), &portion(numbers.clone())),
                Taken::Yes
            );
            spool.commit();
        }
    }
    (disk.all(), commits)
}

fn read(disk: &Power) -> Stored {
    let mut spool = open(disk, &settings(1 << 20, Policy::Block), 7);
    let mut stored = Stored::default();
    deliver(&mut spool, &domain("nginx"), &mut stored, ALL);
    stored
}

/// Checks that at most one commit is missing, and that a gap says so.
fn check(what: &str, stored: &Stored, commits: &[std::ops::Range<u64>]) {
    let missing: Vec<_> = commits
        .iter()
        .filter(|numbers| !stored.lines.contains(&lines((*numbers).clone())[0]))
        .collect();
    let kept: Vec<String> = commits
        .iter()
        .filter(|numbers| !missing.contains(numbers))
        .flat_map(|numbers| lines(numbers.clone()))
        .collect();
    assert_eq!(stored.lines, kept, "{what}: what was kept is another");
    assert_eq!(missing.len(), 1, "{what}: {missing:?} are missing");
    let [gap] = stored.gaps.as_slice() else {
        panic!("{what}: gaps are {:?}", stored.gaps);
    };
    let lost = missing[0].end - missing[0].start;
    assert!(
        gap.count == Some(lost) && gap.reason == Reason::Corrupt
            || gap.count.is_none() && gap.reason == Reason::UncleanStart,
        "{what}: {lost} are lost and the gap is {gap:?}"
    );
}

#[test]
fn one_flipped_byte_anywhere_costs_one_batch_and_is_told() {
    let (files, commits) = small();
    assert_eq!(files.len(), 2);
    let untouched = read(&Power::with(&files));
    assert_eq!(untouched.lines, lines(0..14));
    assert!(untouched.gaps.is_empty() && untouched.losses == 0);
    for (number, (_, name, bytes)) in files.iter().enumerate() {
        for at in 0..bytes.len() {
            let mut files = files.clone();
            files[number].2[at] ^= 0x41;
            let disk = Power::with(&files);
            let what = format!("{name} at {at}");
            let stored = read(&disk);
            check(&what, &stored, &commits);
            assert_eq!(stored.losses, 0, "{what}");
            let bad = disk
                .all()
                .into_iter()
                .find(|(_, name, _)| name.ends_with(".bad"));
            let (_, _, bad) = bad.unwrap_or_else(|| panic!("{what}: nothing was put aside"));
            assert!(!bad.is_empty(), "{what}");
        }
    }
}

#[test]
fn a_file_cut_anywhere_costs_what_is_behind_and_is_told() {
    let (files, commits) = small();
    let bytes = files[1].2.len();
    for length in 1..bytes {
        let mut files = files.clone();
        files[1].2.truncate(length);
        let stored = read(&Power::with(&files));
        let whole = [12, 9]
            .into_iter()
            .find(|end| stored.lines == lines(0..*end));
        assert!(whole.is_some(), "{length} of {bytes}: {:?}", stored.lines);
        // A cut between two batches is what an unfinished write leaves, too.
        assert!(stored.gaps.len() <= 1, "{length}: {:?}", stored.gaps);
        let is_expected = |gap: &Gap| gap.reason == Reason::UncleanStart;
        assert!(stored.gaps.iter().all(is_expected), "{:?}", stored.gaps);
        assert!(commits.len() == 4);
    }
}

#[test]
fn a_lost_file_between_two_is_a_gap_of_known_size() {
    let disk = Power::default();
    let sizes = settings(300_000, Policy::Block);
    let mut spool = open(&disk, &sizes, 0);
    for at in 0..50 {
        assert_eq!(
            spool.append(&domain("nginx"), &portion(at * 20..at * 20 + 20)),
            Taken::Yes
        );
        spool.commit();
    }
    drop(spool);
    let mut files = disk.all();
    assert!(files.len() >= 3, "{}", files.len());
    files.remove(1);
    let stored = read(&Power::with(&files));
    assert_eq!(stored.lines.len() as u64 + stored.missing(), 1000);
    assert_eq!(stored.gaps.len(), 1);
    assert_eq!(stored.gaps[0].reason, Reason::Corrupt);
}

#[test]
fn a_bad_sector_is_read_again_and_then_costs_what_is_on_it() {
    let (files, _) = small();
    let disk = Power::with(&files);
    disk.0.borrow_mut().unreadable = Some(0..100);
    let mut spool = open(&disk, &settings(1 << 20, Policy::Block), 7);
    let nginx = domain("nginx");
    let place = spool.start(&nginx).expect("there is something");
    assert!(
        spool.read(&nginx, place).is_err(),
        "at first it may be for a moment"
    );
    disk.0.borrow_mut().unreadable = None;
    let mut stored = Stored::default();
    disk.0.borrow_mut().unreadable = Some(0..100);
    deliver(&mut spool, &nginx, &mut stored, ALL);
    assert!(!stored.gaps.is_empty());
    assert!(stored.lines.iter().all(|line| lines(0..14).contains(line)));
}

#[test]
fn a_strange_file_is_left_alone() {
    let (mut files, _) = small();
    let dir = files[0].0.clone();
    files.push((dir.clone(), "notes.txt".to_owned(), b"mine".to_vec()));
    files.push((dir, "gap.tmp".to_owned(), b"unfinished".to_vec()));
    let disk = Power::with(&files);
    assert_eq!(read(&disk).lines, lines(0..14));
    let names: Vec<String> = disk.all().into_iter().map(|(_, name, _)| name).collect();
    assert!(names.contains(&"notes.txt".to_owned()));
    assert!(!names.contains(&"gap.tmp".to_owned()));
}
