//! Deadlines on the clock that does not jump, and on the wall clock after a reboot or a change.

use super::*;

#[test]
fn a_deadline_is_kept_on_the_clock_that_does_not_jump() {
    let mut bench = Bench::welcomed();
    let ticket = bench.taken(&order(1));
    bench.word(What::Welcome { skew: None });
    bench.now.boot_ms += 59_999;
    bench.now.wall += SignedDuration::from_hours(100);
    // The wall clock is not trusted; the deadline has a millisecond left, and is refreshed.
    assert_eq!(bench.offer(&order(1)), Offered::Stands(ticket));
    bench.now.boot_ms += 59_999;
    assert_eq!(
        bench.ask(Ask::Due {
            all: false,
            dice: 0
        }),
        Answer::Due(Due {
            next_ms: Some(bench.now.boot_ms + 1),
            ..Due::default()
        })
    );
    bench.now.boot_ms += 1;
    assert_eq!(bench.begin(ticket), Begun::Over(ticket));
    assert_eq!(bench.state(ticket), Some(State::Expired));
}

#[test]
fn after_a_reboot_the_wall_clock_decides_if_it_is_trusted_and_the_station_otherwise() {
    let mut bench = Bench::welcomed();
    let ticket = bench.taken(&order(1));
    bench.now.boot_id = "boot-2".into();
    bench.now.boot_ms = 5;
    bench.word(What::Welcome {
        skew: Some(Duration::from_secs(31)),
    });
    assert_eq!(bench.begin(ticket), Begun::Wait);
    bench.welcome();
    assert!(matches!(bench.begin(ticket), Begun::Go { .. }));
}

#[test]
fn a_start_that_hears_another_one_welcomed_begins_nothing_until_it_is_welcomed_again() {
    let other = InstanceId(Uuid::from_u128(99));
    let foreign = LedgerId(Uuid::from_u128(98));
    for (ledger_id, epoch, waits) in [
        (LEDGER, 1, true),
        (LEDGER, 2, true),
        (LEDGER, 0, false),
        (foreign, 9, false),
    ] {
        let mut bench = Bench::welcomed();
        let ticket = bench.taken(&order(1));
        let reign = Reign {
            v: 1,
            ledger_id,
            epoch,
            instance: other,
            low: 0,
        };
        let what = What::Welcome { skew: None };
        bench.ask(Ask::Word(Word { reign, what }));
        assert_eq!(
            bench.begin(ticket) == Begun::Wait,
            waits,
            "{ledger_id} {epoch}"
        );
        bench.welcome();
        if waits {
            assert!(matches!(bench.begin(ticket), Begun::Go { .. }));
        }
    }
}

#[test]
fn a_wall_clock_set_since_the_welcome_expires_nothing_until_the_station_has_measured_it() {
    for (step, passed_ms, expected) in [
        (31, 0, State::Received),
        (-31, 0, State::Received),
        (86_400, 1_000, State::Received),
        (7_200, 59_000, State::Received),
        // It was not set: an hour passed, and with it the deadline of both clocks.
        (0, 3_601_000, State::Expired),
    ] {
        let mut bench = Bench::welcomed();
        let ticket = bench.taken(&order(1));
        bench.now.boot_ms += passed_ms;
        let passed = i64::try_from(passed_ms).expect("small");
        bench.now.wall += SignedDuration::from_millis(passed) + SignedDuration::from_secs(step);
        bench.ask(Ask::Due {
            all: false,
            dice: 0,
        });
        assert_eq!(
            bench.state(ticket),
            Some(expected),
            "{step} s, {passed_ms} ms"
        );
    }
    // A clock found right by the station counts, also after it was set.
    let mut bench = Bench::welcomed();
    let ticket = bench.taken(&order(1));
    bench.now.wall += SignedDuration::from_secs(7_200);
    bench.welcome();
    bench.ask(Ask::Due {
        all: false,
        dice: 0,
    });
    assert_eq!(bench.state(ticket), Some(State::Expired));
}
