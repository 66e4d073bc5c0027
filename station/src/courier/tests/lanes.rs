//! The order within a lane: its window, its numbers, its gaps.

use super::*;

#[test]
fn the_window_of_a_lane_is_eight_and_moves_on_with_every_end() {
    let mut courier = courier();
    greet(&mut courier, 1, 1, now(0));
    let mut sent = 0;
    for number in 1..=20 {
        sent += orders(&submit(&mut courier, number, Options::standard())).len();
    }
    assert_eq!(sent, limits::LANE_WINDOW);
    let actions = say(&mut courier, ack(1, State::Failed), now(1));
    let next = orders(&actions);
    assert_eq!(
        next.iter().map(|order| order.send.seq).collect::<Vec<_>>(),
        [Some(9)]
    );
    assert_eq!((next[0].send.low, next[0].send.seq_low), (2, Some(2)));
}

#[test]
fn every_node_is_told_what_is_settled_in_its_own_lane() {
    let mut courier = courier();
    greet(&mut courier, 1, 1, now(0));
    let hello = Box::new(hello_of(1));
    courier.on(
        Event::Hello {
            node: ship(2),
            origin: origin(2, 2),
            hello,
        },
        now(0),
    );
    submit(&mut courier, 1, Options::standard());
    say(&mut courier, ack(1, State::Succeeded), now(1));
    let both = accepted(&courier, 2, &[ship(1), ship(2)], Options::standard());
    let actions = courier.accept(both, now(2));
    let seqs: Vec<_> = orders(&actions)
        .iter()
        .map(|order| (order.send.seq, order.send.seq_low))
        .collect();
    assert_eq!(seqs, [(Some(2), Some(2)), (Some(1), Some(1))]);
}

#[test]
fn what_need_not_be_ordered_has_no_sequence_number() {
    let mut courier = courier();
    greet(&mut courier, 1, 1, now(0));
    let options = Options {
        ordered: false,
        ..Options::standard()
    };
    let actions = submit(&mut courier, 1, options);
    assert_eq!(
        orders(&actions)
            .iter()
            .map(|order| order.send.seq)
            .collect::<Vec<_>>(),
        [None]
    );
}

#[test]
fn a_gap_is_closed_from_what_the_node_expects() {
    let mut courier = courier();
    greet(&mut courier, 1, 1, now(0));
    submit(&mut courier, 1, Options::standard());
    submit(&mut courier, 2, Options::standard());
    let gap = Ack {
        deferral: Some(Deferral::Gap),
        expected_seq: Some(1),
        ..ack(2, State::Deferred)
    };
    let actions = say(&mut courier, gap, now(2));
    let seqs: Vec<_> = orders(&actions)
        .iter()
        .map(|order| order.send.seq)
        .collect();
    assert_eq!(seqs, [Some(1), Some(2)]);
}

#[test]
fn what_comes_after_something_put_off_waits_for_it() {
    let mut courier = courier();
    greet(&mut courier, 1, 1, now(0));
    submit(&mut courier, 1, Options::standard());
    say(&mut courier, ack(1, State::Deferred), now(1));
    assert!(orders(&submit(&mut courier, 2, Options::standard())).is_empty());
    let actions = courier.on(Event::Tick, now(90));
    assert_eq!(
        orders(&actions)
            .iter()
            .map(|order| order.send.seq)
            .collect::<Vec<_>>(),
        [Some(1), Some(2)]
    );
}
