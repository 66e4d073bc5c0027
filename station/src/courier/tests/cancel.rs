//! Tests of calling off and of repeating: what travels, what waits, what a restart keeps.

use super::*;

fn cancel(courier: &mut Courier, number: u128, at: Moment) -> (CancelAnswer, Vec<Action>) {
    let cancellation = Cancellation {
        id: id(number),
        nodes: vec![ship(1)],
        by: "uid:7".to_owned(),
    };
    let (mut answers, actions) = courier.cancel(&cancellation, at);
    assert_eq!(answers.len(), 1, "one answer per node");
    (answers.remove(0).1, actions)
}

/// Repeats `old` and waits for it there.
fn retry(courier: &mut Courier, number: u128, old: u64, at: Moment) -> Vec<Action> {
    let mut accepted = (*accepted(courier, number, &[ship(1)], Options::standard())).clone();
    accepted.retry_of = Some(id(old.into()));
    accepted.holds = vec![(ship(1), old)];
    courier.accept(Arc::new(accepted), at)
}

fn withdrawals(actions: &[Action]) -> Vec<&Withdrawal> {
    actions
        .iter()
        .filter_map(|action| match action {
            Action::Cancel(withdrawal) => Some(&**withdrawal),
            _ => None,
        })
        .collect()
}

fn seqs(actions: &[Action]) -> Vec<Option<u64>> {
    orders(actions).iter().map(|order| order.send.seq).collect()
}

fn requests(actions: &[Action]) -> usize {
    let is_request =
        |action: &&Action| matches!(action, Action::Record(Record::CancelRequested { .. }));
    actions.iter().filter(is_request).count()
}

fn releases(actions: &[Action]) -> Vec<u64> {
    let released = |action: &Action| match action {
        Action::Record(Record::Released { pos, .. }) => Some(*pos),
        _ => None,
    };
    actions.iter().filter_map(released).collect()
}

/// Returns the machine that a restart makes of these records.
fn restarted(records: &[&[Action]]) -> Courier {
    let mut replay = Replay::new(LEDGER);
    for action in records.iter().flat_map(|actions| actions.iter()) {
        if let Action::Record(record) = action {
            replay.record(record);
        }
    }
    let name = "central".parse().expect("a name");
    let mut courier = Courier::load(name, replay.load(2), now(0));
    courier.on(Event::Connected, now(0));
    courier
}

#[test]
fn what_was_never_sent_is_cancelled_at_once() {
    let mut courier = courier();
    submit(&mut courier, 1, Options::standard());
    let (answer, actions) = cancel(&mut courier, 1, now(1));
    assert_eq!(answer, CancelAnswer::Cancelled);
    assert_eq!(
        (requests(&actions), moves(&actions)),
        (1, vec![State::Cancelled])
    );
    assert_eq!(courier.open(), 0);
    assert!(orders(&greet(&mut courier, 1, 1, now(2))).is_empty());
    assert_eq!(cancel(&mut courier, 1, now(3)).0, CancelAnswer::NotOpen);
}

#[test]
fn of_what_may_have_reached_its_node_only_the_cancellation_travels_until_the_node_has_spoken() {
    for (said, state) in [
        (None, State::Sent),
        (Some(State::Received), State::Received),
        (Some(State::Running), State::Running),
        (Some(State::Deferred), State::Deferred),
    ] {
        let mut courier = courier();
        greet(&mut courier, 1, 1, now(0));
        submit(&mut courier, 1, Options::standard());
        if let Some(said) = said {
            say(&mut courier, ack(1, said), now(1));
        }
        let (answer, actions) = cancel(&mut courier, 1, now(2));
        assert_eq!(answer, CancelAnswer::Requested { state });
        assert_eq!(
            (requests(&actions), moves(&actions)),
            (1, vec![]),
            "{state}"
        );
        let sent = withdrawals(&actions);
        assert_eq!(sent.len(), 1, "{state}: at once");
        assert_eq!(
            (
                sent[0].subject.to_string(),
                sent[0].send.seq,
                sent[0].send.attempt
            ),
            (
                "ship1.command.cancel.operatingsystem".to_owned(),
                Some(1),
                1
            )
        );
        assert_eq!(
            (
                sent[0].cancel.id,
                sent[0].cancel.digest,
                sent[0].cancel.by.as_str()
            ),
            (id(1), digest(1, &ship(1)), "uid:7")
        );
        // Whatever else it says does not end the asking.
        say(&mut courier, ack(1, State::Running), now(3));
        let again = courier.on(Event::Tick, now(400));
        assert_eq!(
            (withdrawals(&again).len(), orders(&again).len()),
            (1, 0),
            "{state}"
        );
        let end = say(&mut courier, ack(1, State::Cancelled), now(401));
        assert_eq!(moves(&end), [State::Cancelled]);
        assert!(courier.on(Event::Tick, now(5000)).is_empty(), "{state}");
    }
}

#[test]
fn a_cancellation_for_a_node_that_is_away_waits_for_its_hello() {
    let mut courier = courier();
    greet(&mut courier, 1, 1, now(0));
    submit(&mut courier, 1, Options::standard());
    say(&mut courier, ack(1, State::Running), now(1));
    let sent = now(1).mono;
    courier.on(
        Event::NoResponders {
            node: ship(1),
            sent,
        },
        now(2),
    );
    assert!(withdrawals(&cancel(&mut courier, 1, now(3)).1).is_empty());
    assert_eq!(withdrawals(&greet(&mut courier, 1, 1, now(500))).len(), 1);
}

#[test]
fn asking_twice_is_recorded_once_and_sent_at_once() {
    let mut courier = courier();
    greet(&mut courier, 1, 1, now(0));
    submit(&mut courier, 1, Options::standard());
    cancel(&mut courier, 1, now(1));
    let (answer, actions) = cancel(&mut courier, 1, now(2));
    let since = now(1).wall;
    assert_eq!(
        answer,
        CancelAnswer::Repeated {
            state: State::Sent,
            since
        }
    );
    assert_eq!((requests(&actions), withdrawals(&actions).len()), (0, 1));
}

#[test]
fn a_cancellation_overtakes_what_the_node_put_off() {
    let mut courier = courier();
    greet(&mut courier, 1, 1, now(0));
    for number in [1, 2, 3] {
        submit(&mut courier, number, Options::standard());
    }
    say(&mut courier, ack(1, State::Deferred), now(1));
    let (_, actions) = cancel(&mut courier, 2, now(1));
    assert_eq!(withdrawals(&actions).len(), 1);
    let gap = Ack {
        deferral: Some(Deferral::Gap),
        expected_seq: Some(1),
        ..ack(2, State::Deferred)
    };
    let actions = say(&mut courier, gap, now(1));
    assert!(
        orders(&actions).is_empty(),
        "the node asked for the first one later"
    );
    // The first is called off too: its tombstone fills its place, and the second need not wait.
    let (_, actions) = cancel(&mut courier, 1, now(2));
    assert_eq!(withdrawals(&actions)[0].send.seq, Some(1));
    let actions = say(&mut courier, ack(1, State::Cancelled), now(2));
    assert_eq!(withdrawals(&actions).len(), 1, "the second, at once");
    let actions = say(&mut courier, ack(2, State::Cancelled), now(3));
    assert_eq!(seqs(&actions), [], "the third is on its way already");
}

#[test]
fn cancellations_do_not_wait_for_the_windows() {
    let mut courier = courier();
    greet(&mut courier, 1, 1, now(0));
    let options = Options {
        ordered: false,
        ..Options::standard()
    };
    for number in 1..=200 {
        submit(&mut courier, number, options.clone());
        say(&mut courier, ack(number, State::Deferred), now(0));
    }
    let mut sent = 0;
    for number in 1..=200 {
        sent += withdrawals(&cancel(&mut courier, number, now(0)).1).len();
    }
    assert_eq!(sent, 200);
    assert_eq!(
        orders(&submit(&mut courier, 201, options)).len(),
        1,
        "and leave the windows to the rest"
    );
}

#[test]
fn the_deadline_and_a_lost_journal_do_not_turn_a_request_into_proof() {
    let mut courier = courier();
    greet(&mut courier, 1, 1, now(0));
    let options = Options {
        expires: Duration::from_secs(60),
        ..Options::standard()
    };
    submit(&mut courier, 1, options);
    cancel(&mut courier, 1, now(1));
    assert_eq!(moves(&courier.on(Event::Tick, now(61))), [State::Unknown]);
    courier.on(Event::Tick, now(90));
    let lost = reimaged(&mut courier, now(100));
    assert_eq!(moves(&lost), [State::Interrupted]);
}

#[test]
fn a_new_start_and_a_reconnection_repeat_the_cancellation_at_once() {
    let mut courier = courier();
    greet(&mut courier, 1, 1, now(0));
    submit(&mut courier, 1, Options::standard());
    say(&mut courier, ack(1, State::Running), now(1));
    cancel(&mut courier, 1, now(2));
    let started = greet(&mut courier, 2, 2, now(3));
    assert_eq!(withdrawals(&started).len(), 1);
    courier.on(Event::Disconnected, now(4));
    assert_eq!(withdrawals(&courier.on(Event::Connected, now(4))).len(), 1);
}

#[test]
fn a_repetition_is_not_sent_before_the_old_order_is_settled() {
    for (end, expected, is_sent) in [
        (State::Cancelled, vec![State::Cancelled], true),
        (State::Failed, vec![State::Failed], true),
        (State::Interrupted, vec![State::Interrupted], true),
        // It had succeeded after all: nothing is repeated.
        (
            State::Succeeded,
            vec![State::Succeeded, State::Cancelled],
            false,
        ),
    ] {
        let mut courier = courier();
        greet(&mut courier, 1, 1, now(0));
        submit(&mut courier, 1, Options::standard());
        cancel(&mut courier, 1, now(1));
        assert!(
            orders(&retry(&mut courier, 2, 1, now(1))).is_empty(),
            "{end}"
        );
        assert!(
            courier
                .waiting_for(&ship(1), id(2))
                .contains(&id(1).to_string())
        );
        assert_eq!(
            seqs(&submit(&mut courier, 3, Options::standard())),
            [Some(2)],
            "{end}"
        );
        let actions = say(&mut courier, ack(1, end), now(2));
        assert_eq!(moves(&actions), expected, "{end}");
        let sent: Vec<_> = orders(&actions)
            .iter()
            .map(|order| (order.send.pos, order.send.seq))
            .collect();
        match is_sent {
            true => {
                assert_eq!(releases(&actions), [2]);
                assert_eq!(
                    sent,
                    [(2, Some(3))],
                    "{end}: its number comes after what overtook it"
                );
                // What overtook it is older by number: nothing above it is called settled.
                assert_eq!(orders(&actions)[0].send.seq_low, Some(2));
            }
            false => assert_eq!((releases(&actions), sent), (vec![], vec![]), "{end}"),
        }
    }
}

#[test]
fn a_repetition_of_what_was_never_sent_or_is_settled_is_not_held() {
    let mut courier = courier();
    greet(&mut courier, 1, 1, now(0));
    submit(&mut courier, 1, Options::standard());
    say(&mut courier, ack(1, State::Failed), now(1));
    let actions = retry(&mut courier, 2, 1, now(2));
    assert_eq!(seqs(&actions), [Some(2)]);
    let holds = actions.iter().find_map(|action| match action {
        Action::Record(Record::Accepted(accepted)) => Some(accepted.holds.clone()),
        _ => None,
    });
    assert_eq!(holds, Some(vec![]), "the ledger is told so too");
}

#[test]
fn what_is_held_keeps_the_node_from_forgetting_and_can_be_called_off() {
    let mut courier = courier();
    greet(&mut courier, 1, 1, now(0));
    submit(&mut courier, 1, Options::standard());
    cancel(&mut courier, 1, now(1));
    retry(&mut courier, 2, 1, now(1));
    submit(&mut courier, 3, Options::standard());
    say(&mut courier, ack(3, State::Failed), now(2));
    let (answer, actions) = cancel(&mut courier, 2, now(3));
    assert_eq!(
        (answer, moves(&actions)),
        (CancelAnswer::Cancelled, vec![State::Cancelled])
    );
    let actions = say(&mut courier, ack(1, State::Cancelled), now(4));
    assert_eq!((releases(&actions), orders(&actions).len()), (vec![], 0));
    assert_eq!(courier.open(), 0);
}

#[test]
fn what_is_held_expires_without_having_been_sent() {
    let mut courier = courier();
    greet(&mut courier, 1, 1, now(0));
    submit(&mut courier, 1, Options::standard());
    cancel(&mut courier, 1, now(1));
    retry(&mut courier, 2, 1, now(1));
    let actions = courier.on(Event::Tick, now(25 * 3600));
    assert_eq!(moves(&actions), [State::Unknown, State::Expired]);
}

#[test]
fn a_repetition_waits_for_everything_it_goes_back_to() {
    let mut courier = courier();
    greet(&mut courier, 1, 1, now(0));
    submit(&mut courier, 1, Options::standard());
    submit(&mut courier, 2, Options::standard());
    let mut accepted = (*accepted(&courier, 3, &[ship(1)], Options::standard())).clone();
    accepted.holds = vec![(ship(1), 1), (ship(1), 2), (ship(2), 1)];
    courier.accept(Arc::new(accepted), now(1));
    assert!(releases(&say(&mut courier, ack(2, State::Failed), now(2))).is_empty());
    assert_eq!(
        releases(&say(&mut courier, ack(1, State::Failed), now(2))),
        [3]
    );
}

#[test]
fn a_restart_goes_on_calling_off_and_holding_back() {
    let mut courier = courier();
    let greeted = greet(&mut courier, 1, 1, now(0));
    let sent = submit(&mut courier, 1, Options::standard());
    let (_, asked) = cancel(&mut courier, 1, now(1));
    let held = retry(&mut courier, 2, 1, now(1));
    let mut courier = restarted(&[&greeted, &sent, &asked, &held]);
    let actions = greet(&mut courier, 1, 1, now(2));
    assert_eq!(
        (withdrawals(&actions).len(), orders(&actions).len()),
        (1, 0)
    );
    let settled = say(&mut courier, ack(1, State::Cancelled), now(3));
    assert_eq!(seqs(&settled), [Some(2)]);
    // The same, restarted after the release.
    let mut courier = restarted(&[&greeted, &sent, &asked, &held, &settled]);
    assert_eq!(seqs(&greet(&mut courier, 1, 1, now(4))), [Some(2)]);
}

#[test]
fn a_lost_journal_lets_go_of_what_waited_and_numbers_it_anew() {
    let mut courier = courier();
    greet(&mut courier, 1, 1, now(0));
    submit(&mut courier, 1, Options::standard());
    cancel(&mut courier, 1, now(1));
    retry(&mut courier, 2, 1, now(1));
    for second in [26, 36, 40] {
        courier.on(Event::Tick, now(second));
    }
    let actions = reimaged(&mut courier, now(50));
    assert_eq!(
        (moves(&actions), releases(&actions)),
        (vec![State::Interrupted], vec![2])
    );
    assert_eq!(seqs(&actions), [Some(1)]);
}
