//! What is made of a hello, an ACK and a fault: records, answers and counts, in full.

use super::*;

fn hello(courier: &mut Courier, origin: Origin, hello: Hello, at: Moment) -> Vec<Action> {
    let event = Event::Hello {
        node: ship(1),
        origin,
        hello: Box::new(hello),
    };
    courier.on(event, at)
}

fn fault_event(subject: Option<Subject>) -> FaultEvent {
    FaultEvent {
        id: EventId(Uuid::from_u128(9)),
        at: now(0).wall,
        kind: "panic".to_owned(),
        subject,
        detail: "it panicked".to_owned(),
        verdict: "restart".to_owned(),
    }
}

fn report(courier: &mut Courier, origin: Origin, fault: FaultEvent, at: Moment) -> Vec<Action> {
    let event = Event::Fault {
        node: ship(1),
        origin,
        fault: Box::new(fault),
    };
    courier.on(event, at)
}

fn fault_records(actions: &[Action]) -> Vec<&FaultRecord> {
    let fault = |action| match action {
        &Action::Record(Record::Fault(ref fault)) => Some(fault),
        _ => None,
    };
    actions.iter().filter_map(fault).collect()
}

fn records_a_node(actions: &[Action]) -> bool {
    let is_node = |action: &Action| matches!(action, Action::Record(Record::Node(_)));
    actions.iter().any(is_node)
}

fn is_welcomed(actions: &[Action]) -> bool {
    let is_welcome = |action: &Action| matches!(action, Action::Welcome { .. });
    actions.iter().any(is_welcome)
}

#[test]
fn a_fault_the_station_raises_says_of_whom_what_happened_and_what_was_decided() {
    let mut courier = courier();
    let unknown = submit(&mut courier, 1, Options::standard());
    greet(&mut courier, 1, 1, now(1));
    let conflict = hello(&mut courier, origin(2, 2), hello_of(1), now(1));
    let mut lie = ack(1, State::Succeeded);
    lie.outcome = None;
    let contradiction = say(&mut courier, lie, now(1));
    for second in [30, 40, 50] {
        courier.on(Event::Tick, now(second));
    }
    let later = Hello {
        at: now(51).wall,
        ..hello_of(1)
    };
    let lost = hello(&mut courier, origin(2, 2), later, now(51));
    for (actions, at, kind, detail, verdict) in [
        (
            unknown,
            now(0),
            "unknown node",
            "is for ship1, which nobody has heard of",
            "kept until",
        ),
        (conflict, now(1), "conflict", "is known", "held back"),
        (
            contradiction,
            now(1),
            "contradiction",
            "the ACK for 00000000-0000-0000-0000-000000000001",
            "not believed",
        ),
        (lost, now(51), "journal lost", "is known", "interrupted"),
    ] {
        let faults = fault_records(&actions);
        assert_eq!(faults.len(), 1, "{kind}: {actions:?}");
        let fault = faults[0];
        assert_eq!(
            (fault.kind.as_str(), fault.at, fault.node.as_ref()),
            (kind, at.wall, Some(&ship(1)))
        );
        assert!(fault.detail.contains(detail), "{fault:?}");
        assert!(fault.verdict.contains(verdict), "{fault:?}");
    }
}

#[test]
fn a_conflict_is_raised_once_and_counted_every_time() {
    let mut courier = courier();
    greet(&mut courier, 1, 1, now(0));
    let first = hello(&mut courier, origin(2, 2), hello_of(1), now(1));
    let again = hello(&mut courier, origin(2, 2), hello_of(1), now(2));
    assert_eq!((first.len(), again.len()), (1, 0));
    assert_eq!(courier.counters().get("hello_conflict"), Some(&2));
}

#[test]
fn a_hello_is_recorded_when_it_tells_of_a_start_or_an_end_and_welcomed_unless_it_is_the_end() {
    let mut courier = courier();
    let leaving = Hello {
        leaving: true,
        ..hello_of(1)
    };
    for (said, is_recorded, welcomed, why) in [
        (hello_of(1), true, true, "the first"),
        (hello_of(1), false, true, "the same again"),
        (leaving, true, false, "the last"),
        (hello_of(1), false, true, "the same, back"),
    ] {
        let actions = hello(&mut courier, origin(1, 1), said, now(1));
        assert_eq!(
            (records_a_node(&actions), is_welcomed(&actions)),
            (is_recorded, welcomed),
            "{why}"
        );
    }
    let started = hello(&mut courier, origin(1, 2), hello_of(2), now(2));
    assert!(records_a_node(&started), "another start");
}

#[test]
fn whoever_leaves_or_belongs_to_another_ledger_is_sent_nothing() {
    let theirs = Origin {
        ledger_id: Some(LedgerId(Uuid::from_u128(7))),
        ..origin(1, 1)
    };
    let free = Origin {
        ledger_id: None,
        ..origin(1, 1)
    };
    let leaving = Hello {
        leaving: true,
        ..hello_of(1)
    };
    for (origin, said, is_sent) in [
        (origin(1, 1), hello_of(1), true),
        (free, hello_of(1), true),
        (theirs, hello_of(1), false),
        (origin(1, 1), leaving, false),
    ] {
        let mut courier = courier();
        submit(&mut courier, 1, Options::standard());
        let actions = hello(&mut courier, origin, said, now(1));
        assert_eq!(orders(&actions).len(), usize::from(is_sent), "{actions:?}");
    }
}

#[test]
fn a_welcome_names_the_start_the_hello_and_what_is_settled() {
    let mut courier = courier();
    greet(&mut courier, 1, 1, now(0));
    for number in 1..=3 {
        submit(&mut courier, number, Options::standard());
    }
    say(&mut courier, ack(1, State::Failed), now(1));
    let low_of = |actions: Vec<Action>| match actions.first() {
        Some(Action::Welcome {
            node,
            instance,
            low,
            hello_at,
        }) => {
            assert_eq!(
                (node, *instance, *hello_at),
                (&ship(1), origin(1, 1).instance, now(0).wall)
            );
            *low
        }
        other => panic!("expected a welcome, got {other:?}"),
    };
    assert_eq!(low_of(greet(&mut courier, 1, 1, now(2))), 2);
    say(&mut courier, ack(2, State::Failed), now(3));
    say(&mut courier, ack(3, State::Failed), now(3));
    assert_eq!(low_of(greet(&mut courier, 1, 1, now(4))), 4, "all of them");
}

#[test]
fn what_is_final_is_confirmed_to_the_start_that_said_it_on_the_orders_own_domain() {
    let mut courier = courier();
    greet(&mut courier, 1, 1, now(0));
    submit(&mut courier, 1, Options::standard());
    submit(&mut courier, 2, Options::standard());
    let running = say(&mut courier, ack(1, State::Running), now(1));
    let confirmed = |actions: &[Action]| {
        let is_confirm = |action: &Action| matches!(action, Action::Confirm { .. });
        actions.iter().filter(|action| is_confirm(action)).count()
    };
    assert_eq!(confirmed(&running), 0, "not while it runs");
    let actions = say(&mut courier, ack(1, State::Failed), now(2));
    let Some(Action::Confirm {
        node,
        instance,
        low,
        domain,
        confirm,
    }) = actions.get(1)
    else {
        panic!("expected a confirmation, got {actions:?}")
    };
    assert_eq!(
        (node, *instance, *low, domain.as_str()),
        (&ship(1), origin(1, 1).instance, 2, "operatingsystem")
    );
    assert_eq!((&confirm.orders, confirm.events.len()), (&vec![id(1)], 0));
}

#[test]
fn word_of_what_is_not_open_there_is_for_the_ledger_to_judge() {
    let mut courier = courier();
    greet(&mut courier, 1, 1, now(0));
    let elsewhere = accepted(&courier, 1, &[ship(2)], Options::standard());
    courier.accept(elsewhere, now(0));
    submit(&mut courier, 2, Options::standard());
    for (number, why) in [(77, "never ours"), (1, "open on another node")] {
        let actions = say(&mut courier, ack(number, State::Failed), now(1));
        let [
            Action::AskLedger {
                node,
                instance,
                low,
                ack,
            },
        ] = actions.as_slice()
        else {
            panic!("{why}: {actions:?}")
        };
        assert_eq!(
            (node, *instance, *low, ack.id),
            (&ship(1), origin(1, 1).instance, 2, id(number)),
            "{why}"
        );
    }
    assert!(courier.is_open(&ship(2), 1), "it was not touched");
}

#[test]
fn the_reason_of_a_state_is_what_the_node_gave() {
    for (state, deferral, reason, expected) in [
        (
            State::Deferred,
            Some(Deferral::Busy),
            Some("64 orders wait"),
            Some("busy: 64 orders wait"),
        ),
        (State::Deferred, Some(Deferral::Busy), None, Some("busy")),
        (State::Rejected, None, Some("policy"), Some("policy")),
        (State::Rejected, None, None, None),
    ] {
        let mut courier = courier();
        greet(&mut courier, 1, 1, now(0));
        submit(&mut courier, 1, Options::standard());
        let said = Ack {
            deferral,
            reason: reason.map(str::to_owned),
            ..ack(1, state)
        };
        let actions = say(&mut courier, said.clone(), now(1));
        let Some(Action::Record(Record::Moved {
            why, by, at, ack, ..
        })) = actions.first()
        else {
            panic!("expected a move, got {actions:?}")
        };
        assert_eq!(why.as_deref(), expected);
        assert_eq!((by, *at), (&ship(1), now(1).wall));
        assert_eq!(ack.as_deref(), Some(&said), "the proof is kept");
    }
}

#[test]
fn a_nodes_fault_is_stored_as_it_was_said_and_confirmed_where_it_came_from() {
    let domain = "nginx".parse().expect("a domain");
    let subject = Subject::new(ship(1), Kind::Command, Method::Shellcommand, domain);
    let text = subject.to_string();
    for (subject, text, domain) in [(Some(subject), Some(text), "nginx"), (None, None, "agent")] {
        let mut courier = courier();
        greet(&mut courier, 1, 1, now(0));
        submit(&mut courier, 1, Options::standard());
        let actions = report(&mut courier, origin(1, 1), fault_event(subject), now(1));
        let expected = FaultRecord {
            id: Some(EventId(Uuid::from_u128(9))),
            at: now(1).wall,
            node: Some(ship(1)),
            kind: "panic".to_owned(),
            subject: text,
            detail: "it panicked".to_owned(),
            verdict: "restart".to_owned(),
        };
        assert_eq!(fault_records(&actions), [&expected]);
        let Some(Action::Confirm {
            node,
            instance,
            low,
            domain: answered,
            confirm,
        }) = actions.get(1)
        else {
            panic!("expected a confirmation, got {actions:?}")
        };
        assert_eq!(
            (node, *instance, *low, answered.as_str()),
            (&ship(1), origin(1, 1).instance, 1, domain)
        );
        let events = vec![EventId(Uuid::from_u128(9))];
        assert_eq!((confirm.orders.len(), &confirm.events), (0, &events));
    }
}

#[test]
fn whatever_is_not_believed_is_counted_by_what_was_wrong_with_it() {
    let mut courier = courier();
    greet(&mut courier, 1, 1, now(0));
    submit(&mut courier, 1, Options::standard());
    assert_eq!(courier.take_counted(), None, "all was well so far");
    let node = "central".parse().expect("a name");
    let own = Event::Hello {
        node,
        origin: origin(1, 1),
        hello: Box::new(hello_of(1)),
    };
    let stranger = |ack: Ack| Event::Ack {
        node: ship(1),
        origin: origin(2, 2),
        ack: Box::new(ack),
    };
    let forged = Ack {
        digest: Digest::of(b"other"),
        ..ack(1, State::Running)
    };
    let forged = Event::Ack {
        node: ship(1),
        origin: origin(1, 1),
        ack: Box::new(forged),
    };
    let fault = Event::Fault {
        node: ship(1),
        origin: origin(2, 2),
        fault: Box::new(fault_event(None)),
    };
    for (event, expected) in [
        (own, "hello_own_name"),
        (stranger(ack(1, State::Failed)), "ack_held_back"),
        (forged, "ack_digest"),
        (fault, "fault_held_back"),
    ] {
        assert!(courier.on(event, now(1)).is_empty(), "{expected}");
        assert_eq!(courier.take_counted(), Some(expected));
        assert_eq!(courier.take_counted(), None, "{expected}: told once");
        assert_eq!(courier.counters().get(expected), Some(&1));
    }
}
