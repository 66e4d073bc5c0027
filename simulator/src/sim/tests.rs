//! The simulator's own promises: no bug without a seed that shows it, no seed without its trace.

use clap::ValueEnum as _;

use super::{
    bug::Bug,
    run::{self, Job, Sum, Then},
};

fn job(schedules: u64, bug: Option<Bug>) -> Job {
    Job {
        seed: 1,
        schedules,
        messages: 20,
        workers: 2,
        bug,
        then: Then::Stop,
    }
}

fn run(job: Job) -> Sum {
    run::run(job, |_| {})
}

#[test]
fn without_a_bug_two_thousand_schedules_are_clean() {
    let sum = run(job(2_000, None));
    assert_eq!(sum.violations, []);
    assert_eq!(sum.schedules, 2_000);
    assert!(sum.calm > 0, "some schedules have no fault at all");
}

#[test]
fn every_deliberate_bug_is_found_within_a_hundred_schedules() {
    for bug in Bug::value_variants() {
        let sum = run(job(100, Some(*bug)));
        assert!(!sum.violations.is_empty(), "{bug:?} was not found");
    }
}

#[test]
fn a_seed_gives_the_same_trace_byte_for_byte() {
    for seed in 0..40 {
        let (first, second) = (run::replay(seed, 20, None), run::replay(seed, 20, None));
        assert!(first.trace.len() > 100, "seed {seed} says what happens");
        assert_eq!(first.trace, second.trace, "seed {seed}");
    }
}

#[test]
fn a_trace_shows_the_same_schedule_that_ran_without_one() {
    for seed in 0..40 {
        let one = Job {
            seed,
            ..job(1, None)
        };
        let (silent, traced) = (run(one), run::replay(seed, 20, None));
        assert_eq!(silent.ends, traced.ends, "seed {seed}");
        assert_eq!(silent.tally, traced.tally, "seed {seed}");
        assert_eq!(silent.settled, traced.settled, "seed {seed}");
    }
}

#[test]
fn the_number_of_workers_changes_nothing() {
    let alone = run(Job {
        workers: 1,
        ..job(300, None)
    });
    let together = run(Job {
        workers: 3,
        ..job(300, None)
    });
    assert_eq!(alone.fingerprint, together.fingerprint);
    assert_eq!(alone.tally, together.tally);
}
