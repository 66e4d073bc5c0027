//! What each policy does at its limit, and what a full disk costs.

use steward_protocol::logs::Reason;

use super::{
    domain, lines, open, portion,
    power::{Dice, Power},
    settings,
    station::{ALL, Stored, deliver},
};
use crate::syslog::spool::{Policy, Spool, Taken};

const SHARE: u64 = 100_000;

/// Lines appended in portions of 20, and how many of them were taken.
fn fill(spool: &mut Spool<Power>, lines: u64) -> u64 {
    let mut taken = 0;
    for at in (0..lines).step_by(20) {
        if spool.append(&domain("nginx"), &portion(at..at + 20)) == Taken::Yes {
            taken += 20;
        }
        spool.commit();
    }
    taken
}

fn used(spool: &Spool<Power>) -> u64 {
    spool.standings()[0].used
}

fn all(spool: &mut Spool<Power>) -> Stored {
    let mut stored = Stored::default();
    deliver(spool, &domain("nginx"), &mut stored, ALL);
    stored
}

#[test]
fn block_takes_nothing_more_and_goes_on_when_there_is_room() {
    let disk = Power::default();
    let mut spool = open(&disk, &settings(SHARE, Policy::Block), 0);
    let taken = fill(&mut spool, 10_000);
    assert!(taken > 500 && taken < 10_000, "{taken}");
    assert!(used(&spool) <= SHARE);
    let mut stored = all(&mut spool);
    assert_eq!(stored.lines, lines(0..taken));
    assert!(stored.gaps.is_empty());
    assert_eq!(
        spool.append(&domain("nginx"), &portion(taken..taken + 20)),
        Taken::Yes
    );
    spool.commit();
    deliver(&mut spool, &domain("nginx"), &mut stored, ALL);
    assert_eq!(stored.lines, lines(0..taken + 20));
}

#[test]
fn drop_oldest_keeps_the_newest_and_counts_the_others() {
    let disk = Power::default();
    let mut spool = open(&disk, &settings(SHARE, Policy::DropOldest), 0);
    assert_eq!(fill(&mut spool, 10_000), 10_000);
    assert!(used(&spool) <= SHARE + 1000, "{}", used(&spool));
    // A gap takes no more room, however often it grows.
    assert!(spool.standings()[0].segments < 20);
    let mut spool = open(&disk, &settings(SHARE, Policy::DropOldest), 1);
    let stored = all(&mut spool);
    let kept = stored.lines.len() as u64;
    assert!(kept > 500, "{kept}");
    assert_eq!(stored.lines, lines(10_000 - kept..10_000));
    assert_eq!(stored.missing(), 10_000 - kept);
    let [gap] = stored.gaps.as_slice() else {
        panic!("{:?}", stored.gaps);
    };
    assert_eq!(
        (gap.reason, gap.since),
        (Reason::SpoolFull, Some(super::AT))
    );
    assert_eq!(stored.losses, 0);
}

#[test]
fn what_is_dropped_while_it_is_sent_is_told_once() {
    let disk = Power::default();
    let mut spool = open(&disk, &settings(SHARE, Policy::DropOldest), 0);
    let mut stored = Stored::default();
    let mut dice = Dice(1);
    for at in (0..30_000).step_by(20) {
        assert_eq!(
            spool.append(&domain("nginx"), &portion(at..at + 20)),
            Taken::Yes
        );
        spool.commit();
        if dice.below(60) == 0 {
            deliver(
                &mut spool,
                &domain("nginx"),
                &mut stored,
                dice.below(40) as usize,
            );
        }
    }
    deliver(&mut spool, &domain("nginx"), &mut stored, ALL);
    assert!(stored.missing() > 0);
    assert_eq!(stored.lines.len() as u64 + stored.missing(), 30_000);
    assert!(stored.lines.is_sorted());
}

#[test]
fn drop_newest_keeps_the_oldest_and_counts_the_others() {
    let disk = Power::default();
    let mut spool = open(&disk, &settings(SHARE, Policy::DropNewest), 0);
    assert_eq!(fill(&mut spool, 10_000), 10_000);
    assert!(used(&spool) <= SHARE + 20_000, "{}", used(&spool));
    let stored = all(&mut spool);
    let kept = stored.lines.len() as u64;
    assert!(kept > 500 && kept < 10_000, "{kept}");
    assert_eq!(stored.lines, lines(0..kept));
    let mut rest = all(&mut spool);
    spool.commit();
    deliver(&mut spool, &domain("nginx"), &mut rest, ALL);
    assert_eq!(kept + spool.standings()[0].dropped, 10_000);
}

#[test]
fn drop_newest_tells_exactly_how_many_when_there_is_room_again() {
    let disk = Power::default();
    let mut spool = open(&disk, &settings(SHARE, Policy::DropNewest), 0);
    fill(&mut spool, 10_000);
    let mut stored = all(&mut spool);
    assert_eq!(
        spool.append(&domain("nginx"), &portion(10_000..10_020)),
        Taken::Yes
    );
    spool.commit();
    deliver(&mut spool, &domain("nginx"), &mut stored, ALL);
    assert_eq!(stored.lines.len() as u64 + stored.missing(), 10_020);
    assert!(
        stored
            .gaps
            .iter()
            .all(|gap| gap.reason == Reason::SpoolFull)
    );
}

#[test]
fn what_was_dropped_is_told_by_a_spool_that_is_closed_while_it_is_full() {
    let disk = Power::default();
    let mut spool = open(&disk, &settings(SHARE, Policy::DropNewest), 0);
    fill(&mut spool, 10_000);
    assert!(spool.standings()[0].owes, "it tells ever more rarely");
    spool.close();
    assert!(!spool.standings()[0].owes);
    let mut spool = open(&disk, &settings(SHARE, Policy::DropNewest), 1);
    let stored = all(&mut spool);
    assert_eq!(stored.lines.len() as u64 + stored.missing(), 10_000);
}

#[test]
fn a_spool_that_is_closed_while_its_disk_is_full_owes_what_it_took() {
    let disk = Power::default();
    let mut spool = open(&disk, &settings(SHARE, Policy::Block), 0);
    disk.0.borrow_mut().capacity = Some(0);
    assert_eq!(spool.append(&domain("nginx"), &portion(0..20)), Taken::Yes);
    spool.close();
    assert!(spool.standings()[0].owes);
}

#[test]
fn drop_by_severity_drops_the_less_grave_first() {
    let disk = Power::default();
    let mut spool = open(&disk, &settings(SHARE, Policy::DropBySeverity), 0);
    fill(&mut spool, 10_000);
    let mut stored = all(&mut spool);
    assert_eq!(
        spool.append(&domain("nginx"), &portion(10_000..10_020)),
        Taken::Yes
    );
    spool.commit();
    deliver(&mut spool, &domain("nginx"), &mut stored, ALL);
    assert_eq!(stored.lines.len() as u64 + stored.missing(), 10_020);
    let of = |severity: u64| {
        let numbers = stored
            .lines
            .iter()
            .filter_map(|line| line[..6].parse::<u64>().ok());
        numbers
            .filter(|number| number % 8 == severity && *number < 10_000)
            .count()
    };
    assert!(
        of(0) > of(3) && of(3) > of(7) && of(7) > 0,
        "{} {} {}",
        of(0),
        of(3),
        of(7)
    );
}

#[test]
fn one_domain_leaves_room_for_another() {
    let disk = Power::default();
    let mut sizes = settings(SHARE, Policy::Block);
    sizes.total = SHARE + SHARE / 4;
    let mut spool = open(&disk, &sizes, 0);
    fill(&mut spool, 10_000);
    let ssh = domain("ssh");
    assert_eq!(spool.append(&domain("nginx"), &portion(0..20)), Taken::No);
    assert_eq!(spool.append(&ssh, &portion(0..20)), Taken::Yes);
    spool.commit();
    let mut stored = Stored::default();
    deliver(&mut spool, &ssh, &mut stored, ALL);
    assert_eq!(stored.lines, lines(0..20));
}

#[test]
fn a_write_that_fails_anywhere_costs_nothing() {
    for at in 0..40 {
        for times in [1, 3, 20] {
            let disk = Power::default();
            let mut spool = open(&disk, &settings(SHARE, Policy::Block), 0);
            disk.0.borrow_mut().fails = Some((at, at + times));
            let (mut next, mut stuck) = (0, false);
            for _ in 0..80 {
                let numbers = next..next + 20;
                if spool.append(&domain("nginx"), &portion(numbers)) == Taken::Yes {
                    next += 20;
                }
                spool.commit();
                stuck |= spool.standings()[0].stuck.is_some();
            }
            assert!(
                spool.standings()[0].stuck.is_none(),
                "it recovers by itself"
            );
            assert!(stuck || at > 30, "nothing failed at {at}");
            // What is said to be durable survives the loss of power.
            disk.crash(&mut Dice(at));
            let mut spool = open(&disk, &settings(SHARE, Policy::Block), 1);
            let stored = all(&mut spool);
            assert_eq!(
                stored.lines,
                lines(0..next),
                "failed {times} times from {at}"
            );
            assert_eq!(stored.gaps, []);
        }
    }
}

#[test]
fn a_full_disk_stops_what_can_wait_and_counts_what_cannot() {
    for policy in [Policy::Block, Policy::DropNewest, Policy::DropOldest] {
        let disk = Power::default();
        disk.0.borrow_mut().capacity = Some(20_000);
        let mut spool = open(&disk, &settings(SHARE, policy), 0);
        let taken = fill(&mut spool, 2000);
        let standing = &spool.standings()[0];
        assert!(standing.stuck.is_some(), "{policy:?}");
        assert_eq!(taken < 2000, policy == Policy::Block);
        disk.0.borrow_mut().capacity = None;
        spool.commit();
        assert!(
            spool.standings()[0].stuck.is_none(),
            "{policy:?}: it recovers by itself"
        );
        assert_eq!(
            spool.append(&domain("nginx"), &portion(2000..2020)),
            Taken::Yes
        );
        spool.commit();
        let stored = all(&mut spool);
        assert_eq!(
            stored.lines.len() as u64 + stored.missing(),
            taken + 20,
            "{policy:?}"
        );
        let all_full = stored.gaps.iter().all(|gap| gap.reason == Reason::DiskFull);
        assert!(all_full && stored.gaps.is_empty() == (policy == Policy::Block));
    }
}

#[test]
fn what_was_kept_by_the_station_leaves_the_disk() {
    let disk = Power::default();
    let mut spool = open(&disk, &settings(SHARE, Policy::Block), 0);
    fill(&mut spool, 1000);
    let stored = all(&mut spool);
    assert_eq!(stored.lines, lines(0..1000));
    assert_eq!(spool.standings()[0].segments, 1);
    // The next start has nothing to add; it empties what is left, which names the generation to the one behind it.
    let mut spool = open(&disk, &settings(SHARE, Policy::Block), 1);
    let mut stored = stored;
    deliver(&mut spool, &domain("nginx"), &mut stored, ALL);
    assert_eq!((spool.standings()[0].segments, used(&spool)), (1, 0));
    let mut spool = open(&disk, &settings(SHARE, Policy::Block), 2);
    assert_eq!(
        spool.append(&domain("nginx"), &portion(1000..1020)),
        Taken::Yes
    );
    spool.commit();
    deliver(&mut spool, &domain("nginx"), &mut stored, ALL);
    assert_eq!(stored.lines, lines(0..1020));
    assert_eq!((stored.losses, stored.gaps.len()), (0, 0));
}

#[test]
fn a_station_that_has_forgotten_is_told_what_is_not_here_any_more() {
    let disk = Power::default();
    let mut spool = open(&disk, &settings(SHARE, Policy::Block), 0);
    fill(&mut spool, 1000);
    let before = all(&mut spool);
    assert_eq!(before.lines.len(), 1000);
    assert_eq!(
        spool.append(&domain("nginx"), &portion(1000..1020)),
        Taken::Yes
    );
    spool.commit();
    let stored = all(&mut spool);
    let [gap] = stored.gaps.as_slice() else {
        panic!("{:?}", stored.gaps);
    };
    assert_eq!(gap.reason, Reason::Released);
    assert_eq!(stored.lines.len() as u64 + stored.missing(), 1020);
    assert_eq!(stored.lines.last(), lines(1019..1020).first());
}

/// Appends about 10 KB to a domain, and tells whether all of it was taken and written.
fn put(spool: &mut Spool<Power>, name: &str) -> bool {
    let taken = (0..12).all(|at| {
        let taken = spool.append(&domain(name), &portion(at * 20..at * 20 + 20));
        spool.commit();
        taken == Taken::Yes
    });
    taken && spool.is_durable(&domain(name))
}

#[test]
fn what_the_station_has_holds_no_room_of_other_domains() {
    for (total, capacity) in [(SHARE, None), (SHARE * 100, Some(SHARE))] {
        let disk = Power::default();
        disk.0.borrow_mut().capacity = capacity.map(|bytes: u64| bytes as usize);
        let mut sizes = settings(SHARE, Policy::Block);
        sizes.total = total;
        let mut spool = open(&disk, &sizes, 0);
        let names: Vec<String> = (0..20).map(|number| format!("d{number}")).collect();
        let mut stored = Vec::new();
        for name in &names {
            assert!(put(&mut spool, name), "{name} of {total}, {capacity:?}");
            let mut all = Stored::default();
            deliver(&mut spool, &domain(name), &mut all, ALL);
            assert_eq!(all.lines, lines(0..240));
            stored.push(all);
        }
        // Its numbers go on where they were.
        for (name, all) in names.iter().zip(&mut stored) {
            assert!(put(&mut spool, name), "{name} of {total}, {capacity:?}");
            deliver(&mut spool, &domain(name), all, ALL);
            assert_eq!(all.lines, [lines(0..240), lines(0..240)].concat());
            assert_eq!((all.losses, all.gaps.len()), (0, 0));
        }
    }
}

#[test]
fn the_newest_segments_are_counted_by_their_bytes() {
    let disk = Power::default();
    let mut spool = open(&disk, &settings(SHARE, Policy::Block), 0);
    fill(&mut spool, 10_000);
    let name = domain("nginx");
    let standing = spool.standings().remove(0);
    // More than a few, and small.
    assert!(standing.segments > 5, "{standing:?}");
    assert_eq!(spool.newest(&name, standing.used), spool.start(&name));
    assert_eq!(spool.newest(&name, u64::MAX), spool.start(&name));
    let position = |bytes| spool.newest(&name, bytes).expect("a place").position;
    assert!(position(1) > position(SHARE / 2) && position(SHARE / 2) > position(SHARE));
}
