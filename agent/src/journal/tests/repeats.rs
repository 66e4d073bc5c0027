//! What is kept to be said again: when, how much at a time, and what goes when there is too much.

use super::{
    super::spool::{Kept, MAX_EVENTS, Resend, Spool, mix},
    *,
};

fn event(number: usize) -> EventId {
    EventId(Uuid::from_u128(number as u128))
}

fn kept(id: EventId) -> Kept {
    Kept {
        rank: 0,
        id,
        bytes: 1,
        is_text: false,
    }
}

fn spool(events: usize) -> Spool {
    let mut spool = Spool::default();
    for number in 1..=events {
        spool.push(kept(event(number)));
    }
    spool
}

#[test]
fn what_was_said_is_repeated_after_five_seconds_and_up_to_as_much_again_doubling_to_five_minutes() {
    for (said_before, shortest, longest) in [
        (0, 5_000, 10_000),
        (1, 5_000, 15_000),
        (2, 5_000, 25_000),
        (5, 5_000, 165_000),
        (6, 5_000, 300_000),
        (60, 5_000, 300_000),
    ] {
        let wait = |dice| {
            let plan = (0..said_before).fold(Resend::default(), |plan, _| plan.again(0, dice));
            plan.again(1_000_000, dice).due_ms - 1_000_000
        };
        assert_eq!(
            (wait(0), wait(u64::MAX)),
            (shortest, longest),
            "said {said_before} times before"
        );
    }
    let said = Resend::said(7, u64::MAX);
    assert_eq!(said, Resend::default().again(7, u64::MAX));
}

#[test]
fn one_random_number_is_spread_over_many_things_as_splitmix64_does() {
    // The first numbers of its reference implementation (S. Vigna) for the seed 0.
    for (salt, expected) in [
        (1, 0xE220_A839_7B1D_CDAF),
        (2, 0x6E78_9E6A_A1B9_65F4),
        (3, 0x06C4_5D18_8009_454F),
        (4, 0xF88B_B8A8_724C_81EC),
    ] {
        assert_eq!(mix(0, salt), expected, "{salt}");
    }
    // Every bit of the random number counts, whatever it is spread over.
    for salt in 0..4 {
        let bits = (0..64).map(|bit| mix(1 << bit, salt));
        let different: BTreeSet<u64> = bits.chain([mix(0, salt)]).collect();
        assert_eq!(different.len(), 65, "salt {salt}");
    }
}

#[test]
fn a_full_spool_lets_the_oldest_event_go_for_the_newest() {
    let mut spool = spool(MAX_EVENTS - 1);
    for (number, expected) in [
        (MAX_EVENTS, vec![]),
        (MAX_EVENTS + 1, vec![1]),
        (MAX_EVENTS + 2, vec![2]),
    ] {
        let pushed = (number as u64, expected);
        assert_eq!(spool.push(kept(event(number))), pushed, "event {number}");
    }
    assert_eq!(spool.confirm(event(2)), None, "it is gone");
    assert_eq!(spool.confirm(event(3)), Some(3));
    let room = (MAX_EVENTS as u64 + 3, vec![]);
    assert_eq!(spool.push(kept(event(99_999))), room);
}

#[test]
fn events_kept_from_an_earlier_start_are_due_at_once_and_new_ones_rank_behind_them() {
    let old = |rank, number| Kept {
        rank,
        ..kept(event(number))
    };
    let mut spool = Spool::new([old(7, 1), old(4, 2)]);
    assert_eq!(spool.push(kept(event(3))), (8, vec![]));
    assert_eq!(spool.next_due(), Some(0));
    assert_eq!(spool.due(1_000, 0, 10), [4, 7, 8], "in their order");
    assert_eq!(Spool::default().next_due(), None);
    assert_eq!(Spool::default().push(kept(event(1))), (1, vec![]));
}

#[test]
fn events_are_repeated_a_few_at_a_time_and_none_before_it_is_due() {
    let mut spool = spool(5);
    assert!(spool.due(1_000, 0, 0).is_empty());
    assert_eq!(spool.due(1_000, 0, 2), [1, 2]);
    assert_eq!(
        spool.due(1_000, 0, 2),
        [3, 4],
        "those said wait behind the others"
    );
    assert_eq!(spool.next_due(), Some(0), "the fifth");
    assert_eq!(spool.due(1_000, 0, 2), [5]);
    let next = spool.next_due().expect("five wait");
    assert!((6_000..=11_000).contains(&next), "{next}");
    assert!(spool.due(next - 1, 0, 5).is_empty());
    assert_eq!(spool.due(next, 0, 1).len(), 1);
    // The station is back: all of them, at once.
    spool.hurry();
    assert_eq!(spool.next_due(), Some(0));
    assert_eq!(spool.due(0, 0, 9), [1, 2, 3, 4, 5]);
}

#[test]
fn a_confirmed_event_is_not_repeated_and_one_nobody_kept_changes_nothing() {
    let mut spool = spool(3);
    assert_eq!(spool.confirm(event(2)), Some(2));
    assert_eq!(spool.confirm(event(2)), None);
    assert_eq!(spool.confirm(event(9)), None);
    assert_eq!(spool.due(0, 0, 9), [1, 3]);
}

/// Reports an event to a journal, and returns what that writes.
fn report(bench: &mut Bench, number: usize) -> Vec<Write> {
    let ask = Ask::Report(Box::new(super::super::spool::Notice::Fault(
        steward_protocol::FaultEvent {
            id: event(number),
            at: Timestamp::UNIX_EPOCH,
            kind: String::new(),
            subject: None,
            detail: String::new(),
            verdict: String::new(),
        },
    )));
    bench.journal.next(ask, &bench.now.clone()).1
}

#[test]
fn an_event_is_due_until_the_station_has_stored_it() {
    let mut bench = Bench::welcomed();
    assert!(matches!(
        report(&mut bench, 1).as_slice(),
        [Write::Event(1, kept)] if kept.id() == event(1)
    ));
    report(&mut bench, 2);
    let due = |bench: &mut Bench, all| match bench.ask(Ask::Due { all, dice: 0 }) {
        Answer::Due(due) => (due.events, due.next_ms.map(|at| at - bench.now.boot_ms)),
        other => panic!("due was answered with {other:?}"),
    };
    let (events, next) = due(&mut bench, false);
    assert_eq!(events, [1, 2]);
    assert!(next.is_some_and(|wait| (5_000..=10_000).contains(&wait)));
    assert!(due(&mut bench, false).0.is_empty());
    let reign = Reign {
        v: 1,
        ledger_id: LEDGER,
        epoch: 1,
        instance: INSTANCE,
        low: 0,
    };
    let what = What::Confirm {
        orders: Vec::new(),
        events: vec![event(1), event(7)],
    };
    let ask = Ask::Word(Word { reign, what });
    let (_, writes) = bench.journal.next(ask, &bench.now.clone());
    assert!(
        matches!(writes.as_slice(), [Write::ForgetEvent(1)]),
        "{writes:?}"
    );
    assert_eq!(due(&mut bench, true).0, [2]);
}

#[test]
fn answers_are_repeated_sixteen_at_a_time_and_events_sixty_four() {
    let mut bench = Bench::welcomed();
    for pos in 1..=20 {
        let mut expired = order(pos);
        expired.send.ttl_left_ms = 0;
        bench.offer(&expired);
    }
    for number in 1..=70 {
        report(&mut bench, number);
    }
    let mut counts = Vec::new();
    for all in [true, false, false] {
        match bench.ask(Ask::Due { all, dice: 0 }) {
            Answer::Due(due) => {
                counts.push((due.answers.len(), due.events.len()));
                let at_once = due.next_ms == Some(0);
                assert_eq!(at_once, all, "there is more to say now");
            }
            other => panic!("due was answered with {other:?}"),
        }
    }
    assert_eq!(counts, [(16, 64), (4, 6), (0, 0)]);
}
