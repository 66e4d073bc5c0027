//! What is said of a delivery when its time is over, its journal is another one, or its agent has started anew.

use super::*;

#[test]
fn the_deadline_makes_expired_only_what_was_never_sent() {
    let mut courier = courier();
    let options = Options {
        expires: Duration::from_secs(60),
        ..Options::standard()
    };
    submit(&mut courier, 1, options.clone());
    assert_eq!(moves(&courier.on(Event::Tick, now(61))), [State::Expired]);

    let mut courier = self::courier();
    greet(&mut courier, 1, 1, now(0));
    submit(&mut courier, 1, options);
    let actions = courier.on(Event::Tick, now(61));
    assert_eq!(moves(&actions), [State::Unknown]);
    let tombstone = courier.on(Event::Tick, now(62));
    let sent = orders(&actions)
        .into_iter()
        .chain(orders(&tombstone))
        .last()
        .expect("it goes on travelling");
    assert_eq!(sent.send.ttl_left_ms, 0);
    assert_eq!(
        moves(&say(&mut courier, ack(1, State::Expired), now(63))),
        [State::Expired]
    );
}

#[test]
fn an_unknown_delivery_reconciles_with_what_really_happened() {
    let mut courier = courier();
    greet(&mut courier, 1, 1, now(0));
    submit(
        &mut courier,
        1,
        Options {
            expires: Duration::from_secs(60),
            ..Options::standard()
        },
    );
    courier.on(Event::Tick, now(61));
    assert_eq!(
        moves(&say(&mut courier, ack(1, State::Succeeded), now(5000))),
        [State::Succeeded]
    );
}

#[test]
fn a_running_command_may_outlive_the_deadline_of_its_start() {
    let mut courier = courier();
    greet(&mut courier, 1, 1, now(0));
    submit(
        &mut courier,
        1,
        Options {
            expires: Duration::from_secs(60),
            ..Options::standard()
        },
    );
    say(&mut courier, ack(1, State::Running), now(50));
    assert!(moves(&courier.on(Event::Tick, now(61))).is_empty());
    assert_eq!(
        moves(&courier.on(Event::Tick, now(50 + 300 + 61))),
        [State::Unknown]
    );
}

#[test]
fn a_lost_journal_interrupts_what_was_sent_and_starts_the_numbers_again() {
    let mut courier = courier();
    greet(&mut courier, 1, 1, now(0));
    submit(&mut courier, 1, Options::standard());
    for second in [26, 36, 40] {
        courier.on(Event::Tick, now(second));
    }
    submit(&mut courier, 2, Options::standard());
    let actions = reimaged(&mut courier, now(50));
    assert_eq!(
        (moves(&actions), faults(&actions)),
        (vec![State::Interrupted], vec!["journal lost"])
    );
    assert_eq!(
        orders(&actions)
            .iter()
            .map(|order| order.send.seq)
            .collect::<Vec<_>>(),
        [Some(1)]
    );
}

#[test]
fn word_of_another_journal_is_not_believed() {
    let mut courier = courier();
    greet(&mut courier, 1, 1, now(0));
    submit(&mut courier, 1, Options::standard());
    let forged = Event::Ack {
        node: ship(1),
        origin: origin(2, 2),
        ack: Box::new(ack(1, State::Succeeded)),
    };
    assert!(courier.on(forged, now(1)).is_empty());
}

#[test]
fn a_new_start_of_the_agent_is_asked_about_everything_it_may_have_lost() {
    let mut courier = courier();
    greet(&mut courier, 1, 1, now(0));
    submit(&mut courier, 1, Options::standard());
    say(&mut courier, ack(1, State::Running), now(1));
    let actions = greet(&mut courier, 2, 2, now(2));
    let sent = orders(&actions);
    assert_eq!(
        sent.iter()
            .map(|order| order.send.instance)
            .collect::<Vec<_>>(),
        [origin(1, 2).instance]
    );
}
