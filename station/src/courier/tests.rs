//! Tests of the courier: single decisions, and seeded walks against simulated agents.

mod cancel;
mod doubt;
mod heard;
mod lanes;
mod outside;
mod reload;
mod resend;
mod timing;
mod walk;

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use steward_protocol::{
    Body, Deferral, Digest, EventId, InstanceId, JournalId, Kind, Message, Method, Options,
    Outcome, Output, ShellBody, Subject, limits, version,
};
use uuid::Uuid;

use super::*;

const LEDGER: LedgerId = LedgerId(Uuid::from_u128(0x1ed6e7));

fn now(seconds: u64) -> Moment {
    Moment {
        mono: Duration::from_secs(seconds),
        wall: Timestamp::from_second(1_800_000_000 + seconds.cast_signed()).expect("a time"),
        dice: 0x5eed,
    }
}

fn ship(number: u32) -> NodeName {
    format!("ship{number}").parse().expect("a name")
}

fn id(number: u128) -> MessageId {
    MessageId(Uuid::from_u128(number))
}

fn digest(number: u128, node: &NodeName) -> Digest {
    Digest::of(format!("{number} {node}").as_bytes())
}

fn courier() -> Courier {
    let loaded = Loaded {
        ledger_id: LEDGER,
        epoch: 1,
        next_pos: 1,
        nodes: Vec::new(),
        lanes: Vec::new(),
        deliveries: Vec::new(),
    };
    let mut courier = Courier::load("central".parse().expect("a name"), loaded, now(0));
    courier.on(Event::Connected, now(0));
    courier
}

fn accepted(
    courier: &Courier,
    number: u128,
    nodes: &[NodeName],
    options: Options,
) -> Arc<Accepted> {
    let method = Method::Shellcommand.name();
    let domain = "operatingsystem".parse().expect("a domain");
    let expires = SignedDuration::try_from(options.expires).expect("in range");
    let accepted_at = now(0).wall;
    Arc::new(Accepted {
        pos: courier.next_pos(),
        id: id(number),
        message: Message {
            id: None,
            name: None,
            target: Target::Nodes(nodes.to_vec()),
            kind: Kind::Command,
            method,
            domain,
            options,
            body: Body::Shell(ShellBody::default()),
        },
        content: Digest::of(b"content"),
        station: "central".parse().expect("a name"),
        source: "test".to_owned(),
        submitted_by: "uid:0".to_owned(),
        accepted_at,
        expires_at: accepted_at + expires,
        intake: None,
        retry_of: None,
        holds: Vec::new(),
        targets: nodes
            .iter()
            .map(|node| Addressee {
                node: node.clone(),
                digest: digest(number, node),
            })
            .collect(),
    })
}

fn submit(courier: &mut Courier, number: u128, options: Options) -> Vec<Action> {
    let accepted = accepted(courier, number, &[ship(1)], options);
    courier.accept(accepted, now(0))
}

fn origin(journal: u128, instance: u128) -> Origin {
    Origin {
        v: version::CURRENT,
        instance: InstanceId(Uuid::from_u128(instance)),
        journal_id: JournalId(Uuid::from_u128(journal)),
        ledger_id: Some(LEDGER),
    }
}

/// The node comes with another journal; nobody is believed to on one hello.
fn reimaged(courier: &mut Courier, at: Moment) -> Vec<Action> {
    let hello = |wall| Event::Hello {
        node: ship(1),
        origin: origin(2, 2),
        hello: Box::new(Hello {
            at: wall,
            ..hello_of(1)
        }),
    };
    let first = courier.on(hello(at.wall - jiff::SignedDuration::from_secs(1)), at);
    assert!(moves(&first).is_empty(), "{first:?}");
    courier.on(hello(at.wall), at)
}

fn hello_of(counter: u64) -> Hello {
    Hello {
        counter,
        boot_id: "boot".to_owned(),
        version: "0.1.0".to_owned(),
        at: now(0).wall,
        started_at: now(0).wall,
        interval_ms: 10_000,
        round_trip_us: None,
        labels: BTreeMap::new(),
        lanes: BTreeMap::new(),
        open: Vec::new(),
        unconfirmed: Vec::new(),
        processes: Vec::new(),
        counters: BTreeMap::new(),
        leaving: false,
        facts: None,
        budgets: BTreeMap::new(),
    }
}

fn greet(courier: &mut Courier, instance: u128, counter: u64, at: Moment) -> Vec<Action> {
    let hello = Box::new(hello_of(counter));
    courier.on(
        Event::Hello {
            node: ship(1),
            origin: origin(1, instance),
            hello,
        },
        at,
    )
}

fn ack(number: u128, state: State) -> Ack {
    let outcome = state.is_final().then(|| Outcome {
        exit_code: Some(i32::from(state != State::Succeeded)),
        signal: None,
        started_at: now(0).wall,
        finished_at: now(0).wall,
        stdout: Some(Output::whole(b"")),
        stderr: None,
    });
    Ack {
        id: id(number),
        digest: digest(number, &ship(1)),
        state,
        at: now(0).wall,
        reason: None,
        deferral: (state == State::Deferred).then_some(Deferral::Busy),
        expected_seq: None,
        outcome,
    }
}

fn say(courier: &mut Courier, ack: Ack, at: Moment) -> Vec<Action> {
    courier.on(
        Event::Ack {
            node: ship(1),
            origin: origin(1, 1),
            ack: Box::new(ack),
        },
        at,
    )
}

fn orders(actions: &[Action]) -> Vec<&Dispatch> {
    actions
        .iter()
        .filter_map(|action| match action {
            Action::Order(dispatch) => Some(dispatch),
            _ => None,
        })
        .collect()
}

fn moves(actions: &[Action]) -> Vec<State> {
    actions
        .iter()
        .filter_map(|action| match action {
            Action::Record(Record::Moved { state, .. }) => Some(*state),
            _ => None,
        })
        .collect()
}

fn faults(actions: &[Action]) -> Vec<&str> {
    actions
        .iter()
        .filter_map(|action| match action {
            Action::Record(Record::Fault(fault)) => Some(fault.kind.as_str()),
            _ => None,
        })
        .collect()
}

#[test]
fn an_attempt_is_recorded_before_it_is_sent() {
    let mut courier = courier();
    greet(&mut courier, 1, 1, now(0));
    let actions = submit(&mut courier, 1, Options::standard());
    let attempt = actions
        .iter()
        .position(|action| matches!(action, Action::Record(Record::Attempt { .. })));
    let order = actions
        .iter()
        .position(|action| matches!(action, Action::Order(_)));
    assert!(attempt.expect("recorded") < order.expect("sent"));
}

#[test]
fn a_message_for_a_node_nobody_has_heard_of_is_kept_raised_and_sent_when_it_speaks() {
    let mut courier = courier();
    let actions = submit(&mut courier, 1, Options::standard());
    assert_eq!(
        (orders(&actions).len(), faults(&actions)),
        (0, vec!["unknown node"])
    );
    assert!(
        courier
            .waiting_for(&ship(1), id(1))
            .contains("unknown node")
    );
    assert!(
        faults(&submit(&mut courier, 2, Options::standard())).is_empty(),
        "raised once per node"
    );
    let actions = greet(&mut courier, 1, 1, now(1));
    assert_eq!(
        orders(&actions)
            .iter()
            .map(|order| order.send.seq)
            .collect::<Vec<_>>(),
        [Some(1), Some(2)]
    );
}

#[test]
fn nothing_is_sent_while_the_broker_or_the_node_is_away() {
    let mut courier = courier();
    greet(&mut courier, 1, 1, now(0));
    courier.on(Event::Disconnected, now(1));
    assert!(orders(&submit(&mut courier, 1, Options::standard())).is_empty());
    assert_eq!(orders(&courier.on(Event::Connected, now(2))).len(), 1);
    courier.on(
        Event::NoResponders {
            node: ship(1),
            sent: now(2).mono,
        },
        now(3),
    );
    assert!(
        orders(&courier.on(Event::Tick, now(1000))).is_empty(),
        "an absent node is not polled"
    );
    assert_eq!(
        orders(&greet(&mut courier, 1, 1, now(1001))).len(),
        1,
        "its hello wakes the outbox"
    );
}

#[test]
fn late_word_that_nobody_listened_does_not_silence_a_node_that_has_spoken_since() {
    let mut courier = courier();
    greet(&mut courier, 1, 1, now(10));
    courier.on(
        Event::NoResponders {
            node: ship(1),
            sent: now(9).mono,
        },
        now(11),
    );
    assert_eq!(
        orders(&submit(&mut courier, 1, Options::standard())).len(),
        1
    );
}

#[test]
fn a_hello_after_a_silence_resets_the_back_off() {
    let mut courier = courier();
    greet(&mut courier, 1, 1, now(0));
    submit(&mut courier, 1, Options::standard());
    for second in [6, 20, 60, 120] {
        courier.on(Event::Tick, now(second));
    }
    assert!(
        orders(&courier.on(Event::Tick, now(121))).is_empty(),
        "the back-off has grown"
    );
    assert_eq!(orders(&greet(&mut courier, 1, 1, now(122))).len(), 1);
}

#[test]
fn a_reason_that_changes_is_kept_though_the_state_stays() {
    let mut courier = courier();
    greet(&mut courier, 1, 1, now(0));
    submit(&mut courier, 1, Options::standard());
    assert_eq!(
        moves(&say(&mut courier, ack(1, State::Deferred), now(1))),
        [State::Deferred]
    );
    let storage = Ack {
        deferral: Some(Deferral::Storage),
        ..ack(1, State::Deferred)
    };
    let actions = say(&mut courier, storage, now(2));
    let reasons: Vec<_> = actions
        .iter()
        .filter_map(|action| match action {
            Action::Record(Record::Reason { why, .. }) => Some(why.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!((moves(&actions), reasons), (vec![], vec!["storage"]));
}

#[test]
fn what_a_node_put_off_takes_no_room_from_the_rest() {
    let mut courier = courier();
    greet(&mut courier, 1, 1, now(0));
    let options = Options {
        ordered: false,
        ..Options::standard()
    };
    for number in 1..=64 {
        submit(&mut courier, number, options.clone());
        say(&mut courier, ack(number, State::Deferred), now(0));
    }
    assert_eq!(orders(&submit(&mut courier, 65, options)).len(), 1);
}

#[test]
fn a_journal_ahead_of_the_ledger_keeps_its_numbers() {
    let mut courier = courier();
    let mut hello = hello_of(1);
    hello
        .lanes
        .insert("ship1.command.shellcommand.operatingsystem".to_owned(), 40);
    let hello = Box::new(hello);
    courier.on(
        Event::Hello {
            node: ship(1),
            origin: origin(1, 1),
            hello,
        },
        now(0),
    );
    let actions = submit(&mut courier, 1, Options::standard());
    assert_eq!(orders(&actions)[0].send.seq, Some(41));
}

#[test]
fn an_agent_under_the_stations_own_name_is_not_heard() {
    let mut courier = courier();
    let node = "central".parse().expect("a name");
    let hello = Box::new(hello_of(1));
    assert!(
        courier
            .on(
                Event::Hello {
                    node,
                    origin: origin(1, 1),
                    hello
                },
                now(0)
            )
            .is_empty()
    );
    assert!(courier.nodes().is_empty());
}

#[test]
fn a_final_state_is_recorded_before_it_is_confirmed_and_never_sent_again() {
    let mut courier = courier();
    greet(&mut courier, 1, 1, now(0));
    submit(&mut courier, 1, Options::standard());
    let actions = say(&mut courier, ack(1, State::Succeeded), now(1));
    assert!(matches!(
        actions.as_slice(),
        [
            Action::Record(Record::Moved {
                state: State::Succeeded,
                ..
            }),
            Action::Confirm { .. }
        ]
    ));
    assert!(orders(&courier.on(Event::Tick, now(10_000))).is_empty());
    let again = say(&mut courier, ack(1, State::Succeeded), now(2));
    assert!(
        matches!(again.as_slice(), [Action::AskLedger { .. }]),
        "the ledger confirms it again"
    );
    assert_eq!(courier.open(), 0);
}

#[test]
fn an_ack_with_another_digest_proves_nothing() {
    let mut courier = courier();
    greet(&mut courier, 1, 1, now(0));
    submit(&mut courier, 1, Options::standard());
    let forged = Ack {
        digest: Digest::of(b"other"),
        ..ack(1, State::Succeeded)
    };
    assert!(say(&mut courier, forged, now(1)).is_empty());
    assert_eq!(courier.counters().get("ack_digest"), Some(&1));
}

#[test]
fn a_success_without_a_successful_exit_code_is_raised_and_not_believed() {
    let mut courier = courier();
    greet(&mut courier, 1, 1, now(0));
    submit(&mut courier, 1, Options::standard());
    let mut lie = ack(1, State::Succeeded);
    lie.outcome = ack(1, State::Failed).outcome;
    let actions = say(&mut courier, lie, now(1));
    assert_eq!(
        (moves(&actions), faults(&actions)),
        (vec![], vec!["contradiction"])
    );
}

#[test]
fn silence_while_present_is_answered_with_a_resend_after_five_seconds_at_the_earliest() {
    let mut courier = courier();
    greet(&mut courier, 1, 1, now(0));
    submit(&mut courier, 1, Options::standard());
    assert!(orders(&courier.on(Event::Tick, now(4))).is_empty());
    let actions = courier.on(Event::Tick, now(301));
    let sent = orders(&actions);
    assert_eq!(
        sent.iter()
            .map(|order| order.send.attempt)
            .collect::<Vec<_>>(),
        [2]
    );
    assert_eq!(sent[0].send.seq, Some(1), "the same number for ever");
}

#[test]
fn a_fault_is_stored_before_it_is_confirmed() {
    let mut courier = courier();
    greet(&mut courier, 1, 1, now(0));
    let fault = FaultEvent {
        id: EventId(Uuid::from_u128(9)),
        at: now(0).wall,
        kind: "panic".to_owned(),
        subject: Some(Subject::new(
            ship(1),
            Kind::Command,
            Method::Shellcommand,
            "nginx".parse().expect("a domain"),
        )),
        detail: "it panicked".to_owned(),
        verdict: "restart".to_owned(),
    };
    let event = Event::Fault {
        node: ship(1),
        origin: origin(1, 1),
        fault: Box::new(fault),
    };
    let actions = courier.on(event, now(1));
    assert!(matches!(
        actions.as_slice(),
        [Action::Record(Record::Fault(_)), Action::Confirm { .. }]
    ));
}
