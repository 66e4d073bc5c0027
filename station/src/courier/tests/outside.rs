//! What the outside learns from the courier: nodes, addresses, what an open delivery waits for.

use super::*;

fn outlook(courier: &Courier, number: u128, at: Moment) -> Outlook {
    let outlook = courier.outlook(&ship(1), id(number), at);
    outlook.expect("something is open")
}

#[test]
fn a_node_is_shown_with_the_number_of_its_open_deliveries() {
    let mut courier = courier();
    greet(&mut courier, 1, 1, now(0));
    let both = accepted(&courier, 1, &[ship(1), ship(2)], Options::standard());
    courier.accept(both, now(0));
    submit(&mut courier, 2, Options::standard());
    assert_eq!(courier.open(), 3);
    let shown: Vec<_> = courier
        .nodes()
        .into_iter()
        .map(|node| (node.name, node.state, node.open))
        .collect();
    let expected = [
        (ship(1), Presence::Online, 2),
        (ship(2), Presence::Unknown, 1),
    ];
    assert_eq!(shown, expected);
    for (name, presence, open) in expected {
        let node = courier.node(&name).expect("known");
        assert_eq!((node.name, node.state, node.open), (name, presence, open));
    }
    assert_eq!(courier.node(&ship(3)), None);
    say(&mut courier, ack(1, State::Failed), now(1));
    assert_eq!(courier.node(&ship(1)).map(|node| node.open), Some(1));
    assert!(
        courier.is_open(&ship(2), 1),
        "the other node's is still open"
    );
    assert_eq!(courier.open(), 2);
}

#[test]
fn a_target_means_the_named_nodes_or_those_that_carry_the_labels() {
    let mut courier = courier();
    let mut hello = hello_of(1);
    hello.labels = BTreeMap::from([("zone".to_owned(), "north".to_owned())]);
    let event = Event::Hello {
        node: ship(1),
        origin: origin(1, 1),
        hello: Box::new(hello),
    };
    courier.on(event, now(0));
    let label =
        |value: &str| Target::Labels(BTreeMap::from([("zone".to_owned(), value.to_owned())]));
    for (target, expected) in [
        (
            Target::Nodes(vec![ship(7), ship(1)]),
            vec![ship(7), ship(1)],
        ),
        (label("north"), vec![ship(1)]),
        (label("south"), vec![]),
        (Target::Labels(BTreeMap::new()), vec![ship(1)]),
    ] {
        assert_eq!(courier.resolve(&target), expected, "{target:?}");
    }
    let twin = "SHIP1".parse().expect("a name");
    assert_eq!(courier.twin_of(&twin), Some(ship(1)));
    assert_eq!(courier.twin_of(&ship(1)), None);
}

#[test]
fn what_a_delivery_waits_for_is_said_in_words() {
    let mut courier = courier();
    submit(&mut courier, 1, Options::standard());
    let said = |courier: &Courier| courier.waiting_for(&ship(1), id(1));
    assert_eq!(
        said(&courier),
        "waiting for the unknown node ship1: nobody has heard of it"
    );
    assert_eq!(
        courier.waiting_for(&ship(9), id(1)),
        "waiting for the unknown node ship9: nobody has heard of it"
    );
    let theirs = Origin {
        ledger_id: Some(LedgerId(Uuid::from_u128(7))),
        ..origin(1, 1)
    };
    let hello = |origin| Event::Hello {
        node: ship(1),
        origin,
        hello: Box::new(hello_of(1)),
    };
    courier.on(hello(theirs), now(5));
    let words = said(&courier);
    assert!(
        words.starts_with(
            "waiting for its turn: ship1 is online since 2027-01-15T08:00:05Z; conflict: belongs to the ledger"
        ),
        "{words}"
    );
    for second in [35, 45] {
        courier.on(Event::Tick, now(second));
    }
    let words = said(&courier);
    assert!(
        words.starts_with(
            "waiting for its turn: ship1 is offline since 2027-01-15T08:00:45Z (silent for 40.0 s"
        ),
        "{words}"
    );
}

#[test]
fn the_outlook_tells_when_it_was_sent_and_is_sent_again() {
    let mut courier = courier();
    submit(&mut courier, 1, Options::standard());
    let expected = Outlook {
        connected: true,
        ready: false,
        ordered: true,
        sent_at: None,
        next_at: Some(now(3).wall),
        deferral: None,
        deaf_at: None,
        ahead: None,
    };
    assert_eq!(outlook(&courier, 1, now(3)), expected, "due since long");
    greet(&mut courier, 1, 1, now(10));
    let sent = outlook(&courier, 1, now(12));
    assert!(sent.ready);
    assert_eq!(sent.sent_at, Some(now(10).wall));
    let next = sent.next_at.expect("it is sent again");
    assert!(next >= now(15).wall && next <= now(20).wall, "{next}");
    assert_eq!(
        outlook(&courier, 1, now(100)).next_at,
        Some(now(100).wall),
        "what is overdue is due now"
    );
    let sent = now(10).mono;
    courier.on(
        Event::NoResponders {
            node: ship(1),
            sent,
        },
        now(13),
    );
    let deaf = outlook(&courier, 1, now(14));
    assert_eq!((deaf.ready, deaf.deaf_at), (false, Some(now(13).wall)));
    courier.on(Event::Disconnected, now(14));
    assert!(!outlook(&courier, 1, now(14)).connected);
    courier.on(Event::Connected, now(15));
    greet(&mut courier, 1, 1, now(16));
    assert_eq!(outlook(&courier, 1, now(16)).deaf_at, None);
    say(&mut courier, ack(1, State::Deferred), now(17));
    assert_eq!(outlook(&courier, 1, now(17)).deferral, Some(Deferral::Busy));
    say(&mut courier, ack(1, State::Running), now(18));
    let has_it = outlook(&courier, 1, now(18));
    assert_eq!((has_it.next_at, has_it.deferral), (None, None));
    say(&mut courier, ack(1, State::Failed), now(19));
    assert_eq!(courier.outlook(&ship(1), id(1), now(19)), None);
}

#[test]
fn the_outlook_tells_what_comes_before_it_in_its_lane() {
    let mut courier = courier();
    greet(&mut courier, 1, 1, now(0));
    for number in 1..=3 {
        submit(&mut courier, number, Options::standard());
    }
    say(&mut courier, ack(1, State::Running), now(1));
    for (number, expected) in [(1, None), (2, Some(1)), (3, Some(2))] {
        let expected = expected.map(|count| Ahead {
            id: id(1),
            state: State::Running,
            count,
        });
        assert_eq!(outlook(&courier, number, now(1)).ahead, expected);
    }
    let options = Options {
        ordered: false,
        ..Options::standard()
    };
    submit(&mut courier, 4, options);
    let unordered = outlook(&courier, 4, now(1));
    assert_eq!((unordered.ordered, unordered.ahead), (false, None));
    let mut held = (*accepted(&courier, 5, &[ship(1)], Options::standard())).clone();
    held.holds = vec![(ship(1), 2)];
    courier.accept(Arc::new(held), now(1));
    assert_eq!(outlook(&courier, 5, now(1)).ahead, None, "it is in no lane");
}
