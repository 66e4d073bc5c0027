//! When something is sent again: what a simulator of faults found to be late, one decision each.

use super::*;

/// The longest wait the dice can give.
fn unlucky(seconds: u64) -> Moment {
    Moment {
        dice: u64::MAX - 1000,
        ..now(seconds)
    }
}

fn gap(number: u128) -> Ack {
    Ack {
        deferral: Some(Deferral::Gap),
        expected_seq: Some(1),
        ..ack(number, State::Deferred)
    }
}

fn sent_once(at: Moment) -> Courier {
    let mut courier = courier();
    greet(&mut courier, 1, 1, at);
    let accepted = accepted(&courier, 1, &[ship(1)], Options::standard());
    assert_eq!(orders(&courier.accept(accepted, at)).len(), 1);
    courier
}

fn hello(courier: &mut Courier, hello: Hello, at: Moment) -> Vec<Action> {
    let event = Event::Hello {
        node: ship(1),
        origin: origin(1, 1),
        hello: Box::new(hello),
    };
    courier.on(event, at)
}

#[test]
fn the_wait_for_a_busy_node_does_not_grow_with_what_a_gap_cost() {
    let mut courier = sent_once(unlucky(0));
    for second in [2, 5, 9, 14] {
        let again = say(&mut courier, gap(1), unlucky(second));
        assert_eq!(orders(&again).len(), 1, "at {second} s");
    }
    say(&mut courier, ack(1, State::Deferred), unlucky(15));
    let soon = courier.on(Event::Tick, unlucky(18));
    assert_eq!(orders(&soon).len(), 1, "it was busy for the first time");
}

#[test]
fn a_node_that_stays_busy_is_tried_every_fifteen_seconds_at_the_latest() {
    let mut courier = sent_once(unlucky(0));
    for round in 1..=10 {
        let at = round * 15;
        say(&mut courier, ack(1, State::Deferred), unlucky(at - 1));
        let again = courier.on(Event::Tick, unlucky(at + 14));
        assert_eq!(orders(&again).len(), 1, "round {round}");
    }
}

#[test]
fn what_a_hello_does_not_name_did_not_arrive_and_is_sent_again() {
    let mut courier = sent_once(unlucky(0));
    let again = hello(&mut courier, hello_of(1), unlucky(4));
    assert_eq!(orders(&again).len(), 1);
}

#[test]
fn what_a_node_put_off_by_its_own_word_is_not_hurried_by_a_hello() {
    let mut courier = sent_once(unlucky(0));
    for second in [2, 5, 9] {
        say(&mut courier, ack(1, State::Deferred), unlucky(second));
    }
    let again = hello(&mut courier, hello_of(1), unlucky(12));
    assert_eq!(orders(&again).len(), 0);
}

#[test]
fn what_has_ended_without_our_knowing_is_asked_for() {
    let mut courier = sent_once(unlucky(0));
    say(&mut courier, ack(1, State::Running), unlucky(1));
    let runs = Hello {
        open: vec![id(1)],
        ..hello_of(1)
    };
    assert_eq!(orders(&hello(&mut courier, runs, unlucky(10))).len(), 0);
    let ended = Hello {
        unconfirmed: vec![id(1)],
        ..hello_of(1)
    };
    assert_eq!(orders(&hello(&mut courier, ended, unlucky(20))).len(), 1);
}

#[test]
fn what_waits_for_a_gap_to_close_is_sent_when_the_broker_is_back() {
    let mut courier = sent_once(unlucky(0));
    say(&mut courier, gap(1), unlucky(1));
    let at_once = say(&mut courier, gap(1), unlucky(1));
    assert_eq!(orders(&at_once).len(), 0, "it has just been sent");
    courier.on(Event::Disconnected, unlucky(2));
    let again = courier.on(Event::Connected, unlucky(3));
    assert_eq!(orders(&again).len(), 1);
}

/// The hello of another start whose journal has taken five orders of the lane.
fn ahead() -> Hello {
    let lane = "ship1.command.shellcommand.operatingsystem".to_owned();
    Hello {
        lanes: BTreeMap::from([(lane, 5)]),
        ..hello_of(2)
    }
}

fn started(courier: &mut Courier, hello: Hello, at: Moment) -> Vec<Action> {
    let event = Event::Hello {
        node: ship(1),
        origin: origin(1, 2),
        hello: Box::new(hello),
    };
    courier.on(event, at)
}

#[test]
fn a_number_the_node_has_passed_without_its_order_is_given_anew_and_recorded() {
    let mut courier = sent_once(unlucky(0));
    let again = started(&mut courier, ahead(), unlucky(3));
    assert_eq!(orders(&again)[0].send.seq, Some(6));
    let recorded = again.iter().find_map(|action| match action {
        Action::Record(Record::Attempt { first, .. }) => first.as_ref()?.seq.as_ref(),
        _ => None,
    });
    assert_eq!(recorded.map(|(_, seq)| *seq), Some(6));
}

#[test]
fn a_number_whose_order_the_node_knows_stays() {
    let mut courier = sent_once(unlucky(0));
    let knows = Hello {
        open: vec![id(1)],
        ..ahead()
    };
    let again = started(&mut courier, knows, unlucky(3));
    assert_eq!(orders(&again)[0].send.seq, Some(1));
}

#[test]
fn a_late_hello_of_a_start_that_is_over_does_not_lose_the_journal() {
    let mut courier = sent_once(unlucky(0));
    started(&mut courier, hello_of(2), unlucky(1));
    courier.on(Event::Tick, unlucky(30));
    courier.on(Event::Tick, unlucky(60));
    let late = hello(&mut courier, hello_of(1), unlucky(61));
    let reset = |action: &Action| matches!(action, Action::Record(Record::LanesReset { .. }));
    assert!(!late.iter().any(reset));
    assert_eq!(faults(&late), ["conflict"]);
}
