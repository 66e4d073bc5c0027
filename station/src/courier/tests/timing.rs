//! When an order travels again, to the millisecond: hellos, round trips, waits and windows.

use super::*;

/// Dice that make every resend of the first message wait for as long as it can.
const LONG: u64 = u64::MAX - 1000;

fn at(millis: u64, dice: u64) -> Moment {
    let mono = Duration::from_millis(millis);
    let wall = now(0).wall + mono;
    Moment { mono, wall, dice }
}

/// The shortest waits.
fn short(millis: u64) -> Moment {
    at(millis, 0)
}

fn long(millis: u64) -> Moment {
    at(millis, LONG)
}

fn hello(courier: &mut Courier, hello: Hello, at: Moment) -> Vec<Action> {
    let event = Event::Hello {
        node: ship(1),
        origin: origin(1, 1),
        hello: Box::new(hello),
    };
    courier.on(event, at)
}

fn send(courier: &mut Courier, number: u128, at: Moment) -> Vec<Action> {
    let accepted = accepted(courier, number, &[ship(1)], Options::standard());
    courier.accept(accepted, at)
}

fn seqs(actions: &[Action]) -> Vec<u64> {
    let seq = |order: &&Dispatch| order.send.seq;
    orders(actions).iter().filter_map(seq).collect()
}

fn gap(number: u128, expected: u64) -> Ack {
    Ack {
        deferral: Some(Deferral::Gap),
        expected_seq: Some(expected),
        ..ack(number, State::Deferred)
    }
}

fn cancel(courier: &mut Courier, number: u128, at: Moment) -> usize {
    let cancellation = Cancellation {
        id: id(number),
        nodes: vec![ship(1)],
        by: "uid:7".to_owned(),
    };
    withdrawals(&courier.cancel(&cancellation, at).1)
}

fn withdrawals(actions: &[Action]) -> usize {
    let is_cancel = |action: &&Action| matches!(action, Action::Cancel(_));
    actions.iter().filter(is_cancel).count()
}

fn numbers(count: usize) -> Vec<MessageId> {
    (1000..).map(id).take(count).collect()
}

fn named() -> Hello {
    Hello {
        open: vec![id(1)],
        ..hello_of(1)
    }
}

fn ended() -> Hello {
    Hello {
        unconfirmed: vec![id(1)],
        ..hello_of(1)
    }
}

/// The node has many other orders: of a full list it cannot be told what is missing from it.
fn others(open: usize, unconfirmed: usize) -> Hello {
    Hello {
        open: numbers(open),
        unconfirmed: numbers(unconfirmed),
        ..hello_of(1)
    }
}

/// Sent three times, last at 25 s, and not due before 50 s; the last hello came at 18 s.
fn waiting() -> Courier {
    let mut courier = courier();
    greet(&mut courier, 1, 1, long(0));
    assert_eq!(seqs(&send(&mut courier, 1, long(0))), [1]);
    assert!(orders(&hello(&mut courier, named(), long(8_000))).is_empty());
    assert_eq!(seqs(&courier.on(Event::Tick, long(10_000))), [1]);
    assert!(orders(&hello(&mut courier, named(), long(18_000))).is_empty());
    assert_eq!(seqs(&courier.on(Event::Tick, long(25_000))), [1]);
    courier
}

#[test]
fn a_hello_hurries_an_order_that_did_not_arrive_or_whose_answer_did_not() {
    for (millis, said, is_sent, why) in [
        (27_000, hello_of(1), false, "it may still be on its way"),
        (27_001, hello_of(1), true, "two round trips and a second"),
        (30_000, named(), false, "it is there"),
        (33_000, named(), false, "one and a half heartbeats"),
        (33_001, named(), true, "a hello has been missed"),
        (27_000, ended(), false, "its answer may be on its way"),
        (30_000, ended(), true, "its answer was lost"),
        (30_000, others(999, 999), true, "it is not in the list"),
        (30_000, others(1000, 0), false, "the list is full"),
        (30_000, others(0, 1000), false, "the other list is full"),
    ] {
        let mut courier = waiting();
        let actions = hello(&mut courier, said, long(millis));
        assert_eq!(orders(&actions).len(), usize::from(is_sent), "{why}");
    }
}

#[test]
fn a_hello_asks_for_an_order_that_was_there_and_is_not_any_more() {
    for (millis, said, is_sent, why) in [
        (27_000, hello_of(1), false, "too early to tell"),
        (30_000, hello_of(1), true, "it has vanished"),
        (30_000, named(), false, "it is there"),
        (30_000, ended(), true, "its answer was lost"),
        (33_001, named(), false, "a missed hello changes nothing"),
        (30_000, others(999, 999), true, "it is not in the list"),
        (30_000, others(1000, 0), false, "the list is full"),
    ] {
        for state in [State::Received, State::Running] {
            let mut courier = waiting();
            say(&mut courier, ack(1, state), long(26_000));
            let actions = hello(&mut courier, said.clone(), long(millis));
            assert_eq!(orders(&actions).len(), usize::from(is_sent), "{why}");
        }
    }
}

#[test]
fn a_cancellation_of_what_the_node_has_is_hurried_by_a_missed_hello_only() {
    for (millis, is_sent) in [(30_000, false), (33_000, false), (33_001, true)] {
        let mut courier = waiting();
        say(&mut courier, ack(1, State::Running), long(26_000));
        assert_eq!(cancel(&mut courier, 1, long(26_000)), 1);
        let actions = hello(&mut courier, named(), long(millis));
        assert_eq!(withdrawals(&actions), usize::from(is_sent), "{millis}");
    }
}

#[test]
fn a_hello_hurries_what_waits_for_a_gap_and_not_what_the_node_put_off() {
    let mut courier = waiting();
    say(&mut courier, ack(1, State::Deferred), long(26_000));
    let busy = hello(&mut courier, hello_of(1), long(27_500));
    assert_eq!(orders(&busy).len(), 0);

    let mut courier = waiting();
    assert_eq!(seqs(&say(&mut courier, gap(1, 1), long(26_000))), [1]);
    assert!(seqs(&say(&mut courier, gap(1, 1), long(26_200))).is_empty());
    assert_eq!(seqs(&hello(&mut courier, hello_of(1), long(29_000))), [1]);
}

#[test]
fn a_hello_of_a_node_that_was_away_makes_everything_due() {
    let mut courier = waiting();
    let sent = long(25_000).mono;
    let node = ship(1);
    courier.on(Event::NoResponders { node, sent }, long(25_100));
    let back = hello(&mut courier, named(), long(26_000));
    assert_eq!(seqs(&back), [1]);
}

#[test]
fn nobody_there_is_believed_of_what_was_sent_after_the_last_hello() {
    for (sent, is_away) in [
        (9_998, false),
        (9_999, false),
        (10_000, true),
        (11_000, true),
    ] {
        let mut courier = courier();
        greet(&mut courier, 1, 1, short(10_000));
        let sent = Duration::from_millis(sent);
        let node = ship(1);
        courier.on(Event::NoResponders { node, sent }, short(12_000));
        let actions = send(&mut courier, 1, short(12_000));
        assert_eq!(orders(&actions).is_empty(), is_away, "{sent:?}");
    }
}

/// Checks that one order is due again exactly at `millis`.
fn check_due(courier: &mut Courier, millis: u64, dice: u64, why: &str) {
    let early = courier.on(Event::Tick, at(millis - 1, dice));
    assert_eq!(orders(&early).len(), 0, "{why}: too early");
    let in_time = courier.on(Event::Tick, at(millis, dice));
    assert_eq!(orders(&in_time).len(), 1, "{why}: too late");
}

#[test]
fn silence_is_answered_after_three_round_trips_that_are_smoothed() {
    let mut courier = courier();
    greet(&mut courier, 1, 1, short(0));
    send(&mut courier, 1, short(0));
    say(&mut courier, ack(1, State::Received), short(4_000));
    send(&mut courier, 2, short(4_000));
    check_due(
        &mut courier,
        16_000,
        0,
        "the first round trip counts in full",
    );
    say(&mut courier, ack(2, State::Received), short(17_000));
    send(&mut courier, 3, short(20_000));
    say(&mut courier, ack(3, State::Received), short(22_000));
    send(&mut courier, 4, short(30_000));
    // What was sent twice says nothing: (7 * 4 s + 2 s) / 8 = 3.75 s.
    check_due(&mut courier, 41_250, 0, "the next counts an eighth");
}

#[test]
fn a_round_trip_is_never_taken_for_more_than_five_seconds() {
    let mut courier = courier();
    greet(&mut courier, 1, 1, short(0));
    send(&mut courier, 1, short(0));
    say(&mut courier, ack(1, State::Received), short(100_000));
    send(&mut courier, 2, short(100_000));
    check_due(&mut courier, 115_000, 0, "three times five seconds");
}

#[test]
fn an_answer_to_an_order_being_called_off_is_no_measure_of_the_round_trip() {
    let mut courier = courier();
    greet(&mut courier, 1, 1, short(0));
    send(&mut courier, 1, short(0));
    assert_eq!(cancel(&mut courier, 1, short(1_000)), 1);
    say(&mut courier, ack(1, State::Running), short(4_000));
    send(&mut courier, 2, short(4_000));
    check_due(&mut courier, 9_000, 0, "no round trip was measured");
}

#[test]
fn a_busy_node_is_tried_again_after_waits_that_double_up_to_fifteen_seconds() {
    let mut courier = courier();
    greet(&mut courier, 1, 1, at(0, u64::MAX));
    send(&mut courier, 1, at(0, u64::MAX));
    let mut time = 1_000;
    for (wait, why) in [
        (2, "first"),
        (3, "second"),
        (5, "third"),
        (9, "fourth"),
        (15, "fifth"),
        (15, "sixth"),
    ] {
        say(&mut courier, ack(1, State::Deferred), at(time, u64::MAX));
        time += wait * 1_000;
        check_due(&mut courier, time, u64::MAX, why);
    }
    say(&mut courier, ack(1, State::Received), at(time, u64::MAX));
    say(&mut courier, ack(1, State::Deferred), at(time, u64::MAX));
    check_due(
        &mut courier,
        time + 2_000,
        u64::MAX,
        "it took it in between",
    );
}

#[test]
fn a_gap_is_filled_from_the_number_the_node_expects_once_per_round_trip() {
    let sent = |courier: &mut Courier| {
        greet(courier, 1, 1, short(0));
        for number in 1..=3 {
            send(courier, number, short(0));
        }
    };
    for (millis, expected) in [(500, vec![]), (501, vec![2, 3])] {
        let mut courier = courier();
        sent(&mut courier);
        let actions = say(&mut courier, gap(3, 2), short(millis));
        assert_eq!(seqs(&actions), expected, "after {millis} ms");
    }
    let mut courier = courier();
    sent(&mut courier);
    say(&mut courier, ack(2, State::Received), short(400));
    let actions = say(&mut courier, gap(3, 2), short(2_000));
    assert_eq!(seqs(&actions), [3], "what it has is not missing");
}

#[test]
fn what_waits_for_a_gap_travels_as_soon_as_the_node_has_what_comes_before() {
    let mut courier = courier();
    greet(&mut courier, 1, 1, short(0));
    send(&mut courier, 1, short(0));
    send(&mut courier, 2, short(0));
    assert!(seqs(&say(&mut courier, gap(2, 1), short(100))).is_empty());
    let actions = say(&mut courier, ack(1, State::Received), short(200));
    assert_eq!(seqs(&actions), [2]);
}

#[test]
fn a_gap_that_stays_is_tried_again_after_five_seconds() {
    let mut courier = courier();
    greet(&mut courier, 1, 1, short(0));
    send(&mut courier, 1, short(0));
    say(&mut courier, gap(1, 1), short(100));
    check_due(&mut courier, 5_100, 0, "the gap");
}

#[test]
fn a_reconnection_repeats_what_may_have_been_lost_with_the_connection() {
    for (said, is_sent) in [
        (None, true),
        (Some(gap(1, 2)), true),
        (Some(ack(1, State::Deferred)), false),
        (Some(ack(1, State::Received)), false),
        (Some(ack(1, State::Running)), false),
    ] {
        let mut courier = courier();
        greet(&mut courier, 1, 1, long(0));
        send(&mut courier, 1, long(0));
        let state = said.as_ref().map(|ack| ack.deferral);
        if let Some(said) = said {
            say(&mut courier, said, long(200));
        }
        courier.on(Event::Disconnected, long(300));
        let actions = courier.on(Event::Connected, long(400));
        assert_eq!(orders(&actions).len(), usize::from(is_sent), "{state:?}");
    }
}

#[test]
fn deadlines_are_looked_at_once_a_second() {
    let options = Options {
        expires: Duration::from_secs(60),
        ..Options::standard()
    };
    for (ticks, expected) in [
        (&[59_000, 60_000][..], true),
        (&[58_999, 59_999], false),
        (&[59_500, 60_200], false),
        (&[59_500, 60_200, 60_500], true),
    ] {
        let mut courier = courier();
        submit(&mut courier, 1, options.clone());
        let moved: Vec<State> = ticks
            .iter()
            .flat_map(|tick| moves(&courier.on(Event::Tick, short(*tick))))
            .collect();
        assert_eq!(moved == [State::Expired], expected, "{ticks:?}");
        assert_eq!(moved.len(), usize::from(expected), "{ticks:?}");
    }
}

#[test]
fn what_a_node_has_and_is_silent_about_travels_again_as_a_tombstone() {
    let mut courier = courier();
    greet(&mut courier, 1, 1, short(0));
    let options = Options {
        expires: Duration::from_secs(60),
        ..Options::standard()
    };
    let actions = submit(&mut courier, 1, options);
    assert_eq!(orders(&actions)[0].send.ttl_left_ms, 60_000);
    say(&mut courier, ack(1, State::Received), short(1_000));
    // The node goes on saying hello, and names it.
    for second in (10..60).step_by(10) {
        let told = hello(&mut courier, named(), now(second));
        assert!(orders(&told).is_empty());
    }
    let actions = courier.on(Event::Tick, short(60_000));
    assert_eq!(moves(&actions), [State::Unknown]);
    let sent = orders(&actions);
    assert_eq!((sent.len(), sent[0].send.ttl_left_ms), (1, 0));
    let later = courier.on(Event::Tick, short(62_000));
    assert_eq!((moves(&later).len(), orders(&later).len()), (0, 0));
}

#[test]
fn a_node_that_falls_silent_is_recorded_once_it_is_offline_and_sent_nothing() {
    let mut courier = courier();
    greet(&mut courier, 1, 1, short(0));
    send(&mut courier, 1, short(0));
    let is_node = |action: &Action| matches!(action, Action::Record(Record::Node(_)));
    for (millis, is_recorded, is_sent) in [
        (25_001, false, true),
        (35_001, true, false),
        (36_001, false, false),
        (1_000_000, false, false),
    ] {
        let actions = courier.on(Event::Tick, short(millis));
        assert_eq!(actions.iter().any(is_node), is_recorded, "{millis}");
        assert_eq!(!orders(&actions).is_empty(), is_sent, "{millis}");
    }
}

/// Sends an order of a lane of its own.
fn send_in(courier: &mut Courier, number: u128, domain: &str, ordered: bool) -> Vec<Action> {
    let options = Options {
        ordered,
        ..Options::standard()
    };
    let mut accepted = (*accepted(courier, number, &[ship(1)], options)).clone();
    accepted.message.domain = domain.parse().expect("a domain");
    courier.accept(Arc::new(accepted), short(0))
}

#[test]
fn one_node_is_sent_ninety_six_orders_at_once_and_its_lanes_take_turns() {
    let mut courier = courier();
    let mut number = 0;
    let mut submit = |courier: &mut Courier, domain: &str, ordered, count| {
        for _ in 0..count {
            number += 1;
            send_in(courier, number, domain, ordered);
        }
    };
    submit(&mut courier, "free", false, 100);
    let actions = greet(&mut courier, 1, 1, short(0));
    assert_eq!(orders(&actions).len(), 64, "beside the lanes");

    let mut courier = self::courier();
    submit(&mut courier, "free", false, 100);
    for lane in 0..12 {
        submit(&mut courier, &format!("lane{lane}"), true, 10);
    }
    let actions = greet(&mut courier, 1, 1, short(0));
    let sent = orders(&actions);
    assert_eq!(sent.len(), 96);
    for seq in 1..=7 {
        let has_seq = |order: &&&Dispatch| order.send.seq == Some(seq);
        assert_eq!(sent.iter().filter(has_seq).count(), 12, "{seq}");
    }
}

#[test]
fn cancellations_of_a_node_that_was_away_go_out_by_the_ninety_six() {
    let mut courier = courier();
    greet(&mut courier, 1, 1, short(0));
    for number in 1..=200 {
        assert_eq!(send_in(&mut courier, number, "free", false).len(), 3);
        say(&mut courier, ack(number, State::Deferred), short(0));
    }
    let sent = Duration::from_millis(1);
    let node = ship(1);
    courier.on(Event::NoResponders { node, sent }, short(1));
    for number in 1..=200 {
        assert_eq!(cancel(&mut courier, number, short(2)), 0);
    }
    let mut sent = vec![withdrawals(&greet(&mut courier, 1, 1, short(10)))];
    for tick in 11..14 {
        sent.push(withdrawals(&courier.on(Event::Tick, short(tick))));
    }
    assert_eq!(sent, [96, 96, 8, 0]);
}

#[test]
fn lanes_a_node_invents_are_remembered_up_to_a_limit() {
    let mut courier = courier();
    greet(&mut courier, 1, 1, short(0));
    send_in(&mut courier, 1, "known", true);
    let lane = |domain: &str| format!("ship1.command.shellcommand.{domain}");
    let lanes = |lanes: BTreeMap<String, u64>| Hello {
        lanes,
        ..hello_of(1)
    };
    // Ours is one of the 4096.
    let invented = (0..4094).map(|number| (lane(&format!("d{number}")), 3));
    hello(&mut courier, lanes(invented.collect()), short(1));
    let last = BTreeMap::from([
        ("no subject".to_owned(), 9),
        (lane("known"), 40),
        (lane("d7"), 2),
        (lane("last"), 50),
        (lane("late"), 60),
    ]);
    hello(&mut courier, lanes(last), short(2));
    for (number, domain, seq) in [
        (2, "known", 41),
        (3, "d7", 4),
        (4, "last", 51),
        (5, "late", 1),
    ] {
        let actions = send_in(&mut courier, number, domain, true);
        assert_eq!(seqs(&actions), [seq], "{domain}");
    }
}
