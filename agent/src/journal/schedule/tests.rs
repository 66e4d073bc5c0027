//! Intervals, crontabs, restarts, clocks that are set.

use steward_protocol::body::Span;

use super::*;

static ZONE: TimeZone = TimeZone::UTC;

fn moment(wall: &str, boot_ms: u64) -> Moment {
    Moment {
        wall: wall.parse().expect("a time"),
        boot_ms,
        boot_id: "boot".into(),
    }
}

fn at(now: &Moment) -> Instant<'_> {
    Instant {
        now,
        zone: &ZONE,
        dice: 1,
    }
}

fn every(seconds: u64, missed: Missed) -> ScheduleBody {
    ScheduleBody {
        schedule: Some("s".parse().expect("a name")),
        every: Some(Span(Duration::from_secs(seconds))),
        missed: Some(missed),
        ..ScheduleBody::default()
    }
}

fn cron(text: &str, missed: Missed) -> ScheduleBody {
    ScheduleBody {
        cron: Some(text.to_owned()),
        every: None,
        ..every(1, missed)
    }
}

/// What a restart makes of it.
fn restarted(schedule: &Schedule) -> Schedule {
    let progress = Progress {
        set_at: schedule.set_at,
        nominal: schedule.nominal,
        due: schedule.due,
        runs: schedule.runs,
        skipped: schedule.skipped,
        last: schedule.last.clone(),
    };
    Schedule::restore(schedule.body.clone(), progress).expect("a schedule")
}

#[test]
fn an_interval_goes_by_the_clock_of_the_boot_whatever_the_wall_clock_does() {
    let now = moment("2026-11-21T08:00:00Z", 1_000);
    let mut schedule = Schedule::set(every(10, Missed::Skip), at(&now)).expect("a schedule");
    for (wall, boot_ms, expected) in [
        ("2026-11-21T08:00:09.999Z", 10_999, false),
        ("2026-11-21T07:00:10Z", 11_000, true),
        ("2026-11-22T08:00:10Z", 11_000, true),
        ("2026-11-22T08:00:10Z", 10_999, false),
    ] {
        let now = moment(wall, boot_ms);
        assert!(!schedule.look(at(&now)));
        assert_eq!(schedule.is_due(&now), expected, "{wall} {boot_ms}");
    }
    // It is noticed late: the phase stays.
    let late = moment("2026-11-21T08:00:13Z", 14_000);
    schedule.plan(at(&late));
    assert_eq!(schedule.due_ms(&late), 21_000);
    assert_eq!(schedule.skipped, 0);
    // After a suspend of three intervals, one run makes up for what passed.
    let woken = moment("2026-11-21T08:00:45Z", 46_000);
    assert!(schedule.is_due(&woken));
    schedule.plan(at(&woken));
    assert_eq!((schedule.skipped, schedule.due_ms(&woken)), (2, 51_000));
}

#[test]
fn what_passed_while_no_agent_ran_is_skipped_or_made_up_for_once() {
    let begun = moment("2026-11-21T08:00:00Z", 1_000);
    for (missed, skipped, due_ms) in [(Missed::Skip, 3, 505), (Missed::Once, 2, 500)] {
        let schedule = Schedule::set(every(10, missed), at(&begun)).expect("a schedule");
        let mut schedule = restarted(&schedule);
        // Another boot; 8:00:10, :20 and :30 have passed.
        let now = moment("2026-11-21T08:00:39.995Z", 500);
        assert!(schedule.look(at(&now)));
        assert_eq!((schedule.skipped, schedule.due_ms(&now)), (skipped, due_ms));
        if missed == Missed::Once {
            assert!(schedule.is_due(&now));
            schedule.plan(at(&now));
            assert_eq!((schedule.skipped, schedule.due_ms(&now)), (2, 505));
        }
    }
}

#[test]
fn a_restart_in_time_changes_nothing_and_a_clock_that_was_ahead_puts_nothing_off() {
    let begun = moment("2026-11-21T08:00:00Z", 1_000);
    let schedule = Schedule::set(every(10, Missed::Once), at(&begun)).expect("a schedule");
    for (wall, due_ms) in [
        ("2026-11-21T08:00:04Z", 6_500),
        ("2020-01-01T00:00:00Z", 10_500),
    ] {
        let mut schedule = restarted(&schedule);
        let now = moment(wall, 500);
        assert!(!schedule.look(at(&now)));
        assert_eq!(schedule.due_ms(&now), due_ms, "{wall}");
    }
}

#[test]
fn a_crontab_goes_by_the_wall_clock() {
    let now = moment("2026-11-21T08:00:30Z", 1_000);
    let mut schedule = Schedule::set(cron("0 * * * *", Missed::Skip), at(&now)).expect("one");
    assert_eq!(schedule.nominal.to_string(), "2026-11-21T09:00:00Z");
    let due = moment("2026-11-21T09:00:00.2Z", 2_000);
    assert!(!schedule.look(at(&due)) && schedule.is_due(&due));
    schedule.plan(at(&due));
    assert_eq!(schedule.nominal.to_string(), "2026-11-21T10:00:00Z");
    // Set back a little: what has run does not run again. Set back far: it goes with the clock.
    let little = moment("2026-11-21T08:30:00Z", 3_000);
    assert!(!schedule.look(at(&little)) && !schedule.is_due(&little));
    let far = moment("2026-11-20T12:30:00Z", 4_000);
    assert!(schedule.look(at(&far)));
    assert_eq!(schedule.nominal.to_string(), "2026-11-20T13:00:00Z");
    // Set ahead: one run, the others are counted.
    let ahead = moment("2026-11-20T16:10:00Z", 5_000);
    assert!(schedule.is_due(&ahead));
    schedule.plan(at(&ahead));
    assert_eq!(schedule.skipped, 3);
    assert_eq!(schedule.nominal.to_string(), "2026-11-20T17:00:00Z");
}

#[test]
fn a_crontabs_missed_runs_follow_the_policy() {
    let begun = moment("2026-11-21T08:00:30Z", 1_000);
    for (missed, skipped, due) in [(Missed::Skip, 2, false), (Missed::Once, 1, true)] {
        let schedule = Schedule::set(cron("0 * * * *", missed), at(&begun)).expect("one");
        let mut schedule = restarted(&schedule);
        let now = moment("2026-11-21T10:20:00Z", 500);
        assert!(schedule.look(at(&now)));
        assert_eq!((schedule.skipped, schedule.is_due(&now)), (skipped, due));
        if due {
            schedule.plan(at(&now));
        }
        assert_eq!(schedule.skipped, skipped);
        assert_eq!(schedule.nominal.to_string(), "2026-11-21T11:00:00Z");
    }
}

#[test]
fn jitter_delays_a_run_and_does_not_shift_the_next() {
    let now = moment("2026-11-21T08:00:00Z", 0);
    let body = ScheduleBody {
        jitter: Some(Span(Duration::from_secs(5))),
        ..every(10, Missed::Skip)
    };
    let mut seen = std::collections::BTreeSet::new();
    for dice in 0..200 {
        let instant = Instant { dice, ..at(&now) };
        let mut schedule = Schedule::set(body.clone(), instant).expect("a schedule");
        let due = schedule.due_ms(&now);
        assert!((10_000..=15_000).contains(&due), "{due}");
        seen.insert(due);
        let then = moment("2026-11-21T08:00:15Z", 15_000);
        schedule.plan(Instant { dice, ..at(&then) });
        let next = schedule.due_ms(&then);
        assert!((20_000..=25_000).contains(&next), "{next}");
    }
    assert!(seen.len() > 100, "{} times only", seen.len());
}
