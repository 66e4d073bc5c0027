//! Cancellations: of orders unknown, waiting, started and over; by whom, and when not.

use super::*;

fn over(bench: &mut Bench, cancellation: &Cancellation) -> Ticket {
    match bench.cancel(cancellation) {
        Cancelled::Over(ticket) => ticket,
        other => panic!("it is not over: {other:?}"),
    }
}

fn reason(bench: &Bench, ticket: Ticket) -> String {
    let entry = bench.journal.entry(ticket).expect("it is kept");
    entry.ack().reason.unwrap_or_default()
}

/// Returns what is said to the cancellation of order 1, unknown and changed in one way.
fn first_answer(change: impl FnOnce(&mut Cancellation)) -> (Cancelled, Option<State>) {
    let mut bench = Bench::welcomed();
    let mut cancellation = cancellation(&order(1));
    change(&mut cancellation);
    let cancelled = bench.cancel(&cancellation);
    (cancelled, bench.state(Ticket(1)))
}

#[test]
fn the_cancellation_of_an_unknown_order_is_answered_by_the_first_check_it_fails() {
    let defer = |deferral, expected_seq| Cancelled::Deferred {
        deferral,
        expected_seq,
    };
    let settled = Cancelled::Ignored(Counter::Settled);
    let buried = (Cancelled::Over(Ticket(1)), Some(State::Cancelled));
    type Row = (
        &'static str,
        fn(&mut Cancellation),
        (Cancelled, Option<State>),
    );
    let rows: Vec<Row> = vec![
        ("plain", |_| {}, buried.clone()),
        (
            "its deadline is no matter",
            |call| call.send.ttl_left_ms = 0,
            buried.clone(),
        ),
        (
            "unordered",
            |call| (call.send.seq, call.send.seq_low) = (None, None),
            buried.clone(),
        ),
        (
            "no gap, the missing ones are settled",
            |call| (call.send.seq, call.send.seq_low) = (Some(3), Some(3)),
            buried,
        ),
        (
            "another instance",
            |call| call.send.instance = InstanceId(Uuid::nil()),
            (defer(Deferral::StaleInstance, None), None),
        ),
        (
            "another ledger",
            |call| call.send.ledger_id = LedgerId(Uuid::nil()),
            (defer(Deferral::ForeignLedger, None), None),
        ),
        (
            "an old epoch",
            |call| call.send.epoch = 0,
            (defer(Deferral::StaleEpoch, None), None),
        ),
        (
            "a gap",
            |call| call.send.seq = Some(3),
            (defer(Deferral::Gap, Some(1)), None),
        ),
        ("settled", |call| call.send.low = 2, (settled.clone(), None)),
        (
            "settled in its lane",
            |call| call.send.seq_low = Some(2),
            (settled, None),
        ),
    ];
    for (name, change, expected) in rows {
        assert_eq!(first_answer(change), expected, "{name}");
    }
    let mut bench = Bench::new();
    let early = bench.cancel(&cancellation(&order(1)));
    assert_eq!(early, Cancelled::Ignored(Counter::BeforeWelcome));
}

#[test]
fn an_order_cancelled_unseen_holds_its_place_and_never_begins() {
    let mut bench = Bench::welcomed();
    let ticket = over(&mut bench, &cancellation(&order(1)));
    assert_eq!(
        reason(&bench, ticket),
        "cancelled by ann at 2026-01-01T00:00:00Z, and never started"
    );
    let second = bench.taken(&order(2));
    assert_eq!(bench.offer(&order(1)), Offered::Stands(ticket));
    assert_eq!(bench.begin(ticket), Begun::Gone);
    assert!(matches!(bench.begin(second), Begun::Go { .. }));
    bench.crash();
    assert_eq!(bench.offer(&order(1)), Offered::Stands(ticket));
    assert_eq!(bench.state(ticket), Some(State::Cancelled));
    // It is told until the station has stored it, and forgotten as anything else is.
    let due = |bench: &mut Bench| match bench.ask(Ask::Due { all: true, dice: 0 }) {
        Answer::Due(due) => due.answers,
        other => panic!("due was answered with {other:?}"),
    };
    assert!(due(&mut bench).contains(&ticket));
    let orders = vec![MessageId(Uuid::from_u128(1))];
    bench.word(What::Confirm {
        orders,
        events: Vec::new(),
    });
    assert!(!due(&mut bench).contains(&ticket));
    bench.low = 2;
    bench.welcome();
    assert_eq!(bench.state(ticket), None);
    let late = bench.cancel(&cancellation(&order(1)));
    assert_eq!(late, Cancelled::Ignored(Counter::Settled));
}

#[test]
fn an_order_cancelled_while_it_waits_is_over_and_leaves_its_place_in_the_queue() {
    let mut bench = Bench::welcomed();
    let tickets = [1, 2, 3].map(|pos| bench.taken(&order(pos)));
    assert_eq!(bench.offer(&order(4)), deferred(Deferral::Busy));
    assert_eq!(over(&mut bench, &cancellation(&order(2))), tickets[1]);
    assert_eq!(bench.state(tickets[1]), Some(State::Cancelled));
    assert_eq!(bench.begin(tickets[1]), Begun::Gone);
    assert!(matches!(bench.offer(&order(4)), Offered::Taken(_)));
    assert_eq!(bench.offer(&order(2)), Offered::Stands(tickets[1]));
    assert_eq!(over(&mut bench, &cancellation(&order(2))), tickets[1]);
}

#[test]
fn a_full_queue_takes_a_cancellation_and_a_full_journal_does_not() {
    let mut bench = Bench::welcomed();
    for pos in 1..=3 {
        bench.taken(&order(pos));
    }
    assert!(matches!(
        bench.cancel(&cancellation(&order(4))),
        Cancelled::Over(_)
    ));
    let filler = bench.journal.entry(Ticket(4)).cloned().expect("it is kept");
    for number in 5..=MAX_ENTRIES as u64 {
        let entry = Entry {
            id: MessageId(Uuid::from_u128(u128::from(number) << 64)),
            ..filler.clone()
        };
        bench.journal.shelf.put(Ticket(number), entry);
    }
    let busy = Cancelled::Deferred {
        deferral: Deferral::Busy,
        expected_seq: None,
    };
    assert_eq!(bench.cancel(&cancellation(&order(5))), busy);
    // What is known needs no room.
    let waiting = bench.cancel(&cancellation(&order(3)));
    assert_eq!(waiting, Cancelled::Over(Ticket(3)));
}

#[test]
fn an_order_cancelled_at_work_is_stopped_once_and_ends_as_its_process_says() {
    let mut bench = Bench::welcomed();
    let ticket = bench.taken(&order(1));
    bench.begin(ticket);
    let mut call = cancellation(&order(1));
    assert_eq!(bench.cancel(&call), Cancelled::Stop(ticket));
    assert_eq!(bench.state(ticket), Some(State::Running));
    // Again by somebody else: the first is remembered.
    call.body.by = "bob".to_owned();
    assert_eq!(bench.cancel(&call), Cancelled::Stop(ticket));
    let Phase::Started(started) = &bench.disk[&ticket].phase else {
        panic!("it is not started");
    };
    let by = started.revoked.as_ref().map(|revoked| revoked.by.as_str());
    assert_eq!(by, Some("ann"), "durable");
    let mark = ChildMark {
        pid: 7,
        start_time: 8,
    };
    bench.ask(Ask::Spawned(ticket, mark));
    let finish = Finish {
        state: State::Cancelled,
        reason: Some("stopped".to_owned()),
        outcome: None,
    };
    let said = bench.ask(Ask::Finish(ticket, Box::new(finish)));
    assert_eq!(said, Answer::Stands(ticket));
    assert_eq!(over(&mut bench, &call), ticket);
    assert_eq!(bench.state(ticket), Some(State::Cancelled));
}

#[test]
fn an_order_that_is_over_stays_what_it_is() {
    let mut bench = Bench::welcomed();
    let ticket = bench.taken(&order(1));
    bench.begin(ticket);
    bench.finish(ticket, 1);
    assert_eq!(over(&mut bench, &cancellation(&order(1))), ticket);
    assert_eq!(bench.state(ticket), Some(State::Succeeded));
    let mut expired = order(2);
    expired.send.ttl_left_ms = 0;
    bench.offer(&expired);
    let ticket = over(&mut bench, &cancellation(&expired));
    assert_eq!(bench.state(ticket), Some(State::Expired));
    // One that could only be named is refused already, and stays so.
    let third = order(3);
    let unread = Unread {
        id: third.order.order().id,
        digest: third.order.digest(),
        subject: third.order.order().subject.clone(),
        reason: "version".to_owned(),
    };
    bench.ask(Ask::Unread(unread.clone()));
    let ticket = over(&mut bench, &cancellation(&third));
    assert_eq!(bench.state(ticket), Some(State::Rejected));
    // And one that was cancelled first is not refused any more when it comes.
    let mut fourth = unread;
    fourth.id = order(4).order.order().id;
    fourth.digest = order(4).order.digest();
    let mut call = cancellation(&order(4));
    call.send.seq_low = Some(4);
    let ticket = over(&mut bench, &call);
    let stands = Answer::Offered(Offered::Stands(ticket));
    assert_eq!(bench.ask(Ask::Unread(fourth)), stands);
    assert_eq!(bench.state(ticket), Some(State::Cancelled));
}

#[test]
fn another_digest_under_a_known_id_cancels_nothing() {
    let mut bench = Bench::welcomed();
    let ticket = bench.taken(&order(1));
    let mut other = order(1);
    reseal(&mut other, |order| order.timeout_ms = 7);
    let ignored = Cancelled::Ignored(Counter::OtherContent);
    assert_eq!(bench.cancel(&cancellation(&other)), ignored);
    assert_eq!(bench.halt(&cancellation(&other)), {
        Cancelled::Deferred {
            deferral: Deferral::Storage,
            expected_seq: None,
        }
    });
    assert!(matches!(bench.begin(ticket), Begun::Go { .. }));
    assert_eq!(bench.cancel(&cancellation(&other)), ignored);
    let Phase::Started(started) = &bench.disk[&ticket].phase else {
        panic!("it is not started");
    };
    assert_eq!(started.revoked, None);
}

#[test]
fn a_cancelled_order_never_begins_again_though_it_may_be_repeated() {
    let mut bench = Bench::welcomed();
    let mut again = order(1);
    reseal(&mut again, |order| order.idempotent = true);
    let ticket = bench.taken(&again);
    bench.begin(ticket);
    assert_eq!(bench.cancel(&cancellation(&again)), Cancelled::Stop(ticket));
    // The agent ends without having stopped it, and finds it lost.
    bench.crash();
    assert_eq!(bench.state(ticket), Some(State::Interrupted));
    assert_eq!(
        reason(&bench, ticket),
        "lost; it was to be stopped: cancelled by ann at 2026-01-01T00:00:00Z"
    );
    assert_eq!(bench.begin(ticket), Begun::Gone);
}

#[test]
fn an_order_cancelled_between_two_starts_is_not_said_to_have_never_run() {
    let mut bench = Bench::welcomed();
    let mut again = order(1);
    reseal(&mut again, |order| order.idempotent = true);
    let ticket = bench.taken(&again);
    bench.begin(ticket);
    bench.crash();
    assert_eq!(bench.state(ticket), Some(State::Received));
    assert_eq!(over(&mut bench, &cancellation(&again)), ticket);
    assert_eq!(bench.state(ticket), Some(State::Interrupted));
    assert_eq!(bench.begin(ticket), Begun::Gone);
}

#[test]
fn without_a_disk_what_runs_is_stopped_and_everything_else_waits() {
    let mut bench = Bench::welcomed();
    let running = bench.taken(&order(1));
    bench.begin(running);
    let waiting = bench.taken(&order(2));
    let call = |pos| cancellation(&order(pos));
    for pos in 1..=3 {
        bench.cancel_in_vain(&call(pos));
    }
    let storage = Cancelled::Deferred {
        deferral: Deferral::Storage,
        expected_seq: None,
    };
    assert_eq!(bench.halt(&call(1)), Cancelled::Stop(running));
    assert_eq!(bench.halt(&call(2)), storage);
    assert_eq!(bench.halt(&call(3)), storage);
    assert_eq!(bench.state(waiting), Some(State::Received));
    bench.finish(running, 1);
    assert_eq!(bench.halt(&call(1)), Cancelled::Over(running));
    let mut stale = call(1);
    stale.send.epoch = 0;
    assert!(matches!(
        bench.halt(&stale),
        Cancelled::Deferred {
            deferral: Deferral::StaleEpoch,
            ..
        }
    ));
    // The disk is back.
    assert_eq!(over(&mut bench, &call(2)), waiting);
    assert_eq!(bench.state(waiting), Some(State::Cancelled));
}
