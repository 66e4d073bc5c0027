//! What survives a restart, and what follows from it: records in, the same machine out.

use super::*;
use crate::courier::open::review_after_word;

fn replay(records: &[Vec<Action>]) -> Replay {
    let mut replay = Replay::new(LEDGER);
    for action in records.iter().flatten() {
        if let Action::Record(record) = action {
            replay.record(record);
        }
    }
    replay
}

fn restarted(loaded: Loaded, at: Moment) -> Courier {
    let mut courier = Courier::load("central".parse().expect("a name"), loaded, at);
    courier.on(Event::Connected, at);
    courier
}

/// What is known of one open delivery: place, state, attempts, number, whether it is called off, holders.
type Known = (u64, State, u32, Option<u64>, bool, Vec<u64>);

fn deliveries(loaded: &Loaded) -> Vec<Known> {
    let known = |delivery: &LoadedDelivery| {
        let open = &delivery.open;
        let held_by = open.held_by.iter().copied().collect();
        let is_cancelled = open.cancel.is_some();
        (
            open.pos,
            open.state,
            open.attempts,
            open.seq,
            is_cancelled,
            held_by,
        )
    };
    loaded.deliveries.iter().map(known).collect()
}

fn cancel(courier: &mut Courier, number: u128, at: Moment) -> Vec<Action> {
    let cancellation = Cancellation {
        id: id(number),
        nodes: vec![ship(1)],
        by: "uid:7".to_owned(),
    };
    courier.cancel(&cancellation, at).1
}

fn hold(courier: &mut Courier, number: u128, holder: u64) -> Vec<Action> {
    let mut accepted = (*accepted(courier, number, &[ship(1)], Options::standard())).clone();
    accepted.holds = vec![(ship(1), holder)];
    courier.accept(Arc::new(accepted), now(1))
}

#[test]
fn a_restart_finds_what_was_recorded() {
    let mut courier = courier();
    let mut records = vec![greet(&mut courier, 1, 1, now(0))];
    for number in 1..=4 {
        records.push(submit(&mut courier, number, Options::standard()));
    }
    records.push(courier.on(Event::Tick, now(20)));
    records.push(say(&mut courier, ack(1, State::Failed), now(21)));
    records.push(say(&mut courier, ack(2, State::Running), now(21)));
    records.push(cancel(&mut courier, 3, now(22)));
    records.push(hold(&mut courier, 5, 3));
    let ledger = replay(&records);
    let loaded = ledger.load(7);
    assert_eq!((loaded.epoch, loaded.next_pos), (7, 6));
    assert_eq!(loaded.ledger_id, LEDGER);
    assert_eq!(
        deliveries(&loaded),
        [
            (2, State::Running, 2, Some(2), false, vec![]),
            (3, State::Sent, 2, Some(3), true, vec![]),
            (4, State::Sent, 2, Some(4), false, vec![]),
            (5, State::Accepted, 0, None, false, vec![3]),
        ]
    );
    let request = loaded.deliveries[1].open.cancel.clone();
    let request = request.expect("it is called off");
    assert_eq!((request.at, request.by.as_str()), (now(22).wall, "uid:7"));
    let lanes: Vec<_> = loaded
        .lanes
        .iter()
        .map(|lane| (&lane.node, lane.lane.to_string(), lane.last_seq))
        .collect();
    let lane = "command.shellcommand.operatingsystem".to_owned();
    assert_eq!(lanes, [(&ship(1), lane, 4)]);
    assert_eq!(loaded.nodes.len(), 1);
    assert_eq!(loaded.nodes[0].journal_id, Some(origin(1, 1).journal_id));
    for (pos, settled) in [(1, Some(State::Failed)), (2, None), (9, None)] {
        assert_eq!(ledger.settled(pos, &ship(1)), settled, "{pos}");
    }

    let mut courier = restarted(loaded, now(30));
    assert_eq!((courier.next_pos(), courier.open()), (6, 4));
    let actions = greet(&mut courier, 1, 1, now(31));
    let sent: Vec<_> = orders(&actions)
        .iter()
        .map(|order| {
            (
                order.send.pos,
                order.send.seq,
                order.send.attempt,
                order.send.epoch,
            )
        })
        .collect();
    let expected = [(2, Some(2), 3, 7), (4, Some(4), 3, 7)];
    assert_eq!(sent, expected, "what may be there keeps its number");
}

#[test]
fn what_was_released_or_reset_is_found_so_after_a_restart() {
    let mut courier = courier();
    let mut records = vec![greet(&mut courier, 1, 1, now(0))];
    for number in 1..=3 {
        records.push(submit(&mut courier, number, Options::standard()));
    }
    records.push(hold(&mut courier, 4, 1));
    // Held records are found even where the release came while the node was away.
    let node = ship(1);
    let sent = now(1).mono;
    courier.on(Event::NoResponders { node, sent }, now(1));
    for second in [30, 40] {
        records.push(courier.on(Event::Tick, now(second)));
    }
    let lost = reimaged(&mut courier, now(50));
    assert_eq!(moves(&lost), [State::Interrupted; 3], "all that were sent");
    // The machine fails before it could send anything after the reset.
    let before = lost
        .iter()
        .take_while(|action| !matches!(action, Action::Record(Record::Attempt { .. })));
    records.push(before.cloned().collect());
    let loaded = replay(&records).load(2);
    assert_eq!(
        deliveries(&loaded),
        [(4, State::Accepted, 0, None, false, vec![])]
    );
    assert!(loaded.lanes.is_empty(), "numbers start again");
    let mut courier = restarted(loaded, now(60));
    let event = Event::Hello {
        node: ship(1),
        origin: origin(2, 2),
        hello: Box::new(hello_of(1)),
    };
    let actions = courier.on(event, now(61));
    assert_eq!(orders(&actions)[0].send.seq, Some(1));
}

#[test]
fn one_nodes_lost_journal_leaves_the_numbers_of_the_others() {
    let mut courier = courier();
    let mut records = vec![greet(&mut courier, 1, 1, now(0))];
    let hello = |node, journal, instance| Event::Hello {
        node,
        origin: origin(journal, instance),
        hello: Box::new(hello_of(1)),
    };
    records.push(courier.on(hello(ship(2), 5, 5), now(0)));
    let both = accepted(&courier, 1, &[ship(1), ship(2)], Options::standard());
    records.push(courier.accept(both, now(0)));
    records.push(vec![Action::Record(Record::LanesReset {
        node: ship(1),
        at: now(1).wall,
    })]);
    let loaded = replay(&records).load(2);
    let lanes: Vec<_> = loaded.lanes.iter().map(|lane| &lane.node).collect();
    assert_eq!(lanes, [&ship(2)]);
    let numbers = loaded.deliveries.iter();
    let numbers: Vec<_> = numbers
        .map(|delivery| (&delivery.node, delivery.open.seq))
        .collect();
    assert_eq!(numbers, [(&ship(1), None), (&ship(2), Some(1))]);
}

#[test]
fn what_waited_for_something_settled_before_the_restart_is_sent() {
    let mut courier = courier();
    let records = [
        greet(&mut courier, 1, 1, now(0)),
        submit(&mut courier, 1, Options::standard()),
        hold(&mut courier, 2, 1),
    ];
    let mut loaded = replay(&records).load(2);
    loaded.deliveries.remove(0);
    let mut courier = restarted(loaded, now(2));
    let actions = greet(&mut courier, 1, 1, now(3));
    assert_eq!(orders(&actions).len(), 1);
}

#[test]
fn a_restart_does_not_doubt_the_same_delivery_twice() {
    let mut courier = courier();
    let options = Options {
        expires: Duration::from_secs(60),
        ..Options::standard()
    };
    let mut records = vec![greet(&mut courier, 1, 1, now(0))];
    records.push(submit(&mut courier, 1, options.clone()));
    records.push(submit(&mut courier, 2, options));
    let loaded = replay(&records).load(2);
    let mut again = restarted(loaded, now(10));
    assert_eq!(moves(&again.on(Event::Tick, now(61))), [State::Unknown; 2]);
    records.push(courier.on(Event::Tick, now(61)));
    let loaded = replay(&records).load(3);
    let doubts = loaded.deliveries.iter();
    let doubts: Vec<_> = doubts
        .map(|delivery| delivery.open.schedule.review)
        .collect();
    assert_eq!(doubts, [None, None]);
    let mut again = restarted(loaded, now(62));
    let actions = again.on(Event::Tick, now(70));
    assert_eq!((moves(&actions).len(), again.open()), (0, 2));
}

#[test]
fn word_is_due_by_the_deadline_or_once_what_was_begun_should_have_ended() {
    let timeout = Duration::from_secs(100);
    for (state, said, review) in [
        (State::Sent, 10, 1000),
        (State::Deferred, 10, 1000),
        (State::Received, 10, 1000),
        (State::Received, 999, 1000),
        // It may have begun just before.
        (State::Received, 1000, 1160),
        (State::Received, 1001, 1161),
        (State::Running, 10, 1000),
        (State::Running, 840, 1000),
        (State::Running, 841, 1001),
        (State::Running, 2000, 2160),
    ] {
        assert_eq!(
            review_after_word(state, now(1000).wall, timeout, now(said).wall),
            now(review).wall,
            "{state} at {said}"
        );
    }
}

#[test]
fn a_cancellation_names_who_asked_and_changes_no_reason() {
    let mut courier = courier();
    submit(&mut courier, 1, Options::standard());
    let whys = |actions: &[Action]| -> Vec<Option<String>> {
        let why = |action: &Action| match action {
            Action::Record(Record::Moved { why, .. }) => Some(why.clone()),
            Action::Record(Record::Reason { why, .. }) => Some(Some(why.clone())),
            _ => None,
        };
        actions.iter().filter_map(why).collect()
    };
    let why = "cancelled by uid:7 before it was ever sent".to_owned();
    assert_eq!(whys(&cancel(&mut courier, 1, now(1))), [Some(why)]);
    greet(&mut courier, 1, 1, now(1));
    submit(&mut courier, 2, Options::standard());
    say(&mut courier, ack(2, State::Deferred), now(1));
    assert_eq!(whys(&cancel(&mut courier, 2, now(2))), []);
}

#[test]
fn what_is_sent_together_is_sent_again_apart() {
    let dice = Moment {
        dice: 0x9e37_79b9_7f4a_7c15,
        ..now(0)
    };
    let mut courier = courier();
    greet(&mut courier, 1, 1, dice);
    let mut due = Vec::new();
    for number in 1..=8 {
        let accepted = accepted(&courier, number, &[ship(1)], Options::standard());
        courier.accept(accepted, dice);
        let outlook = courier.outlook(&ship(1), id(number), dice);
        due.extend(outlook.and_then(|outlook| outlook.next_at));
    }
    due.sort_unstable();
    due.dedup();
    assert!(due.len() > 4, "more than two of eight at once: {due:?}");
    assert!(due[0] > now(5).wall, "no wait is without chance: {due:?}");
}
