//! The journal against tables, and against a simple model on random walks.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use steward_protocol::{
    Cancel, EventId, JournalId, LedgerId, MessageId, Order, Sealed,
    envelope::{Reign, Send},
};
use uuid::Uuid;

use super::{lanes::Lane, *};

mod again;
mod bounds;
mod cancel;
mod clock;
mod repeats;
mod time;
mod view;
mod walk;
mod words;

const INSTANCE: InstanceId = InstanceId(Uuid::from_u128(1));
const LEDGER: LedgerId = LedgerId(Uuid::from_u128(2));
const BUDGET: u64 = 1000;

fn image() -> Image {
    Image {
        identity: Identity {
            journal_id: JournalId(Uuid::from_u128(3)),
            starts: 1,
            pinned: None,
        },
        entries: Vec::new(),
        lanes: Vec::new(),
        events: Vec::new(),
        dropped: 0,
        locals: Vec::new(),
        schedules: Vec::new(),
    }
}

fn limits() -> Limits {
    Limits {
        queue: 3,
        results_budget: BUDGET,
        accept_ledger: None,
    }
}

/// A journal, a clock, and a disk that can fail.
struct Bench {
    journal: Journal,
    disk: BTreeMap<Ticket, Entry>,
    now: Moment,
    low: u64,
}

impl Bench {
    fn new() -> Self {
        Self {
            journal: Journal::new(INSTANCE, limits(), image()),
            disk: BTreeMap::new(),
            now: Moment {
                wall: "2026-01-01T00:00:00Z".parse().expect("a time"),
                boot_ms: 1_000_000,
                boot_id: "boot-1".into(),
            },
            low: 0,
        }
    }

    fn welcomed() -> Self {
        let mut bench = Self::new();
        bench.welcome();
        bench
    }

    fn ask(&mut self, ask: Ask) -> Answer {
        let (answer, writes) = self.journal.next(ask, &self.now.clone());
        for write in writes {
            match write {
                Write::Entry(ticket, entry) => drop(self.disk.insert(ticket, *entry)),
                Write::Forget(ticket) => drop(self.disk.remove(&ticket)),
                _ => {}
            }
        }
        answer
    }

    fn word(&mut self, what: What) -> Answer {
        let reign = Reign {
            v: 1,
            ledger_id: LEDGER,
            epoch: 1,
            instance: INSTANCE,
            low: self.low,
        };
        self.ask(Ask::Word(Word { reign, what }))
    }

    fn welcome(&mut self) {
        let skew = Some(Duration::ZERO);
        self.word(What::Welcome { skew });
    }

    fn offer(&mut self, offer: &Offer) -> Offered {
        match self.ask(Ask::Offer(Box::new(offer.clone()))) {
            Answer::Offered(offered) => offered,
            other => panic!("an offer was answered with {other:?}"),
        }
    }

    fn cancel(&mut self, cancellation: &Cancellation) -> Cancelled {
        match self.ask(Ask::Cancel(Box::new(cancellation.clone()))) {
            Answer::Cancelled(cancelled) => cancelled,
            other => panic!("a cancellation was answered with {other:?}"),
        }
    }

    fn halt(&mut self, cancellation: &Cancellation) -> Cancelled {
        match self.ask(Ask::Halt(Box::new(cancellation.clone()))) {
            Answer::Cancelled(cancelled) => cancelled,
            other => panic!("a cancellation was answered with {other:?}"),
        }
    }

    /// Has a cancellation decided, and fails to write down what was decided.
    fn cancel_in_vain(&mut self, cancellation: &Cancellation) {
        let ask = Ask::Cancel(Box::new(cancellation.clone()));
        let kept = self.kept();
        let (_, writes) = self.journal.next(ask, &self.now.clone());
        if !writes.is_empty() {
            self.journal.reload(kept);
        }
    }

    fn begin(&mut self, ticket: Ticket) -> Begun {
        match self.ask(Ask::Begin(ticket)) {
            Answer::Begun(begun) => begun,
            other => panic!("a begin was answered with {other:?}"),
        }
    }

    fn finish(&mut self, ticket: Ticket, bytes: usize) -> Answer {
        let finish = Finish {
            state: State::Succeeded,
            reason: None,
            outcome: Some(Outcome {
                exit_code: Some(0),
                signal: None,
                started_at: self.now.wall,
                finished_at: self.now.wall,
                stdout: Some(steward_protocol::Output::whole(&vec![b'x'; bytes])),
                stderr: None,
            }),
        };
        self.ask(Ask::Finish(ticket, Box::new(finish)))
    }

    fn state(&self, ticket: Ticket) -> Option<State> {
        self.journal.entry(ticket).map(|entry| entry.phase.state())
    }

    fn taken(&mut self, offer: &Offer) -> Ticket {
        match self.offer(offer) {
            Offered::Taken(ticket) => ticket,
            other => panic!("it was not taken: {other:?}"),
        }
    }

    /// Returns what is durable; only lanes and identity never fail here.
    fn kept(&self) -> Image {
        Image {
            identity: self.journal.identity(),
            entries: self.disk.clone().into_iter().collect(),
            lanes: self
                .journal
                .lanes
                .recent(usize::MAX)
                .into_iter()
                .map(|(subject, last)| {
                    (
                        subject,
                        Lane {
                            next: last + 1,
                            used: 1,
                        },
                    )
                })
                .collect(),
            events: Vec::new(),
            dropped: 0,
            locals: Vec::new(),
            schedules: Vec::new(),
        }
    }

    /// Ends the agent and starts it again on what is durable; what ran is lost.
    fn crash(&mut self) {
        let kept = self.kept();
        self.journal = Journal::new(INSTANCE, limits(), kept);
        self.welcome();
        let started: Vec<Ticket> = self.journal.shelf.started().iter().copied().collect();
        for ticket in started {
            self.ask(Ask::Lost(ticket, "lost".to_owned()));
        }
    }
}

/// The order at place `pos`, ordered in one lane with the same number.
fn order(pos: u64) -> Offer {
    let subject: Subject = "ship1.command.shellcommand.x".parse().expect("a subject");
    let issued_at: Timestamp = "2026-01-01T00:00:00Z".parse().expect("a time");
    let order = Order {
        id: MessageId(Uuid::from_u128(u128::from(pos))),
        from: "central".parse().expect("a name"),
        to: "ship1".parse().expect("a name"),
        subject,
        issued_at,
        expires_at: issued_at + SignedDuration::from_secs(3600),
        submitted_by: String::new(),
        retry_of: None,
        timeout_ms: 1000,
        ordered: true,
        idempotent: false,
        success_codes: vec![0],
        stream: false,
        body: serde_json::value::to_raw_value(&1).expect("a body"),
    };
    Offer {
        send: Send {
            v: 1,
            ledger_id: LEDGER,
            epoch: 1,
            instance: INSTANCE,
            pos,
            low: 0,
            seq: Some(pos),
            seq_low: Some(1),
            attempt: 1,
            ttl_left_ms: 60_000,
        },
        order: Sealed::seal(order).expect("an order"),
        stance: Stance::Serve,
    }
}

fn reseal(offer: &mut Offer, change: impl FnOnce(&mut Order)) {
    let mut order = offer.order.order().clone();
    change(&mut order);
    offer.order = Sealed::seal(order).expect("an order");
}

/// Returns what is said to order 1, changed in one way, by a journal that is welcome and new.
fn first_answer(change: impl FnOnce(&mut Offer)) -> (Offered, Option<State>) {
    let mut bench = Bench::welcomed();
    let mut offer = order(1);
    change(&mut offer);
    let offered = bench.offer(&offer);
    let state = match offered {
        Offered::Taken(ticket) | Offered::Stands(ticket) => bench.state(ticket),
        Offered::Deferred { .. } | Offered::Ignored(_) => None,
    };
    (offered, state)
}

#[test]
fn a_new_order_is_answered_by_the_first_check_it_fails() {
    let defer = |deferral, expected_seq| Offered::Deferred {
        deferral,
        expected_seq,
    };
    let stands = Offered::Stands(Ticket(1));
    type Row = (&'static str, fn(&mut Offer), Offered, Option<State>);
    let rows: Vec<Row> = vec![
        (
            "plain",
            |_| {},
            Offered::Taken(Ticket(1)),
            Some(State::Received),
        ),
        (
            "another instance",
            |offer| offer.send.instance = InstanceId(Uuid::nil()),
            defer(Deferral::StaleInstance, None),
            None,
        ),
        (
            "another ledger",
            |offer| offer.send.ledger_id = LedgerId(Uuid::nil()),
            defer(Deferral::ForeignLedger, None),
            None,
        ),
        (
            "an old epoch",
            |offer| offer.send.epoch = 0,
            defer(Deferral::StaleEpoch, None),
            None,
        ),
        (
            "a gap",
            |offer| offer.send.seq = Some(3),
            defer(Deferral::Gap, Some(1)),
            None,
        ),
        (
            "no gap, the missing ones are settled",
            |offer| (offer.send.seq, offer.send.seq_low) = (Some(3), Some(3)),
            Offered::Taken(Ticket(1)),
            Some(State::Received),
        ),
        (
            "settled",
            |offer| offer.send.low = 2,
            Offered::Ignored(Counter::Settled),
            None,
        ),
        (
            "settled in its lane",
            |offer| offer.send.seq_low = Some(2),
            Offered::Ignored(Counter::Settled),
            None,
        ),
        (
            "a tombstone",
            |offer| offer.send.ttl_left_ms = 0,
            stands.clone(),
            Some(State::Expired),
        ),
        (
            "late by a wall clock that is trusted",
            |offer| {
                reseal(offer, |order| {
                    order.expires_at = order.issued_at - SignedDuration::from_secs(1)
                })
            },
            stands.clone(),
            Some(State::Expired),
        ),
        (
            "refused",
            |offer| offer.stance = Stance::Refuse("no".to_owned()),
            stands.clone(),
            Some(State::Rejected),
        ),
        (
            "late before refused",
            |offer| {
                offer.send.ttl_left_ms = 0;
                offer.stance = Stance::Refuse("no".to_owned());
            },
            stands,
            Some(State::Expired),
        ),
        (
            "held",
            |offer| offer.stance = Stance::Hold(Deferral::Stopped),
            defer(Deferral::Stopped, None),
            None,
        ),
    ];
    for (name, change, offered, state) in rows {
        assert_eq!(first_answer(change), (offered, state), "{name}");
    }
}

#[test]
fn nothing_is_taken_or_begun_before_the_welcome() {
    let mut bench = Bench::new();
    assert_eq!(
        bench.offer(&order(1)),
        Offered::Ignored(Counter::BeforeWelcome)
    );
    bench.welcome();
    let ticket = bench.taken(&order(1));
    let entry = bench.journal.entry(ticket).cloned().expect("it was taken");
    let identity = bench.journal.identity();
    let kept = Image {
        identity,
        entries: vec![(ticket, entry)],
        ..image()
    };
    bench.journal = Journal::new(INSTANCE, limits(), kept);
    assert_eq!(bench.begin(ticket), Begun::Wait);
    bench.welcome();
    assert!(matches!(bench.begin(ticket), Begun::Go { attempt: 1, .. }));
}

#[test]
fn an_order_begins_once_and_ends_once() {
    let mut bench = Bench::welcomed();
    let ticket = bench.taken(&order(1));
    assert!(matches!(bench.begin(ticket), Begun::Go { .. }));
    assert_eq!(bench.begin(ticket), Begun::Gone);
    assert_eq!(bench.finish(ticket, 1), Answer::Stands(ticket));
    assert!(matches!(bench.finish(ticket, 1), Answer::Contradiction(_)));
    assert_eq!(bench.begin(ticket), Begun::Gone);
    assert_eq!(bench.offer(&order(1)), Offered::Stands(ticket));
}

#[test]
fn the_queue_counts_only_what_waits() {
    let mut bench = Bench::welcomed();
    let first = bench.taken(&order(1));
    bench.taken(&order(2));
    bench.taken(&order(3));
    let busy = deferred(Deferral::Busy);
    assert_eq!(bench.offer(&order(4)), busy);
    bench.begin(first);
    assert!(matches!(bench.offer(&order(4)), Offered::Taken(_)));
    assert_eq!(bench.offer(&order(5)), busy);
    let mut tombstone = order(5);
    tombstone.send.ttl_left_ms = 0;
    assert!(matches!(bench.offer(&tombstone), Offered::Stands(_)));
}

#[test]
fn another_order_with_a_known_id_is_rejected_and_the_first_goes_on() {
    let mut bench = Bench::welcomed();
    let first = bench.taken(&order(1));
    let mut other = order(1);
    reseal(&mut other, |order| order.timeout_ms = 7);
    let Offered::Stands(second) = bench.offer(&other) else {
        panic!("the other one was not refused");
    };
    assert_ne!(first, second);
    assert_eq!(bench.state(second), Some(State::Rejected));
    assert!(matches!(bench.begin(first), Begun::Go { .. }));
    assert_eq!(bench.offer(&other), Offered::Stands(second));
}

#[test]
fn an_unknown_end_is_interrupted_and_only_an_idempotent_order_begins_again() {
    let mut bench = Bench::welcomed();
    let ticket = bench.taken(&order(1));
    bench.begin(ticket);
    bench.ask(Ask::Lost(ticket, "gone".to_owned()));
    assert_eq!(bench.state(ticket), Some(State::Interrupted));
    let mut again = order(2);
    reseal(&mut again, |order| order.idempotent = true);
    let ticket = bench.taken(&again);
    bench.begin(ticket);
    assert_eq!(
        bench.ask(Ask::Lost(ticket, "gone".to_owned())),
        Answer::Again
    );
    assert!(matches!(bench.begin(ticket), Begun::Go { attempt: 2, .. }));
    assert_eq!(
        bench.ask(Ask::Lost(ticket, "gone".to_owned())),
        Answer::Again
    );
    // It was started: its end is unknown, whatever the deadline.
    bench.now.boot_ms += 60_000;
    assert_eq!(bench.begin(ticket), Begun::Over(ticket));
    assert_eq!(bench.state(ticket), Some(State::Interrupted));
}

#[test]
fn unconfirmed_answers_are_due_with_growing_waits_and_at_once_when_the_station_is_back() {
    let mut bench = Bench::welcomed();
    let ticket = bench.taken(&order(1));
    bench.begin(ticket);
    bench.finish(ticket, 1);
    let due = |bench: &mut Bench, all| match bench.ask(Ask::Due {
        all,
        dice: u64::MAX,
    }) {
        Answer::Due(due) => due,
        other => panic!("due was answered with {other:?}"),
    };
    let first = due(&mut bench, false);
    assert_eq!(first.answers, []);
    assert!(first.next_ms.expect("a plan") >= bench.now.boot_ms + 5000);
    assert_eq!(due(&mut bench, true).answers, [ticket]);
    bench.now.boot_ms += 300_000;
    assert_eq!(due(&mut bench, false).answers, [ticket]);
    let orders = vec![MessageId(Uuid::from_u128(1))];
    bench.word(What::Confirm {
        orders,
        events: Vec::new(),
    });
    assert_eq!(due(&mut bench, true), Due::default());
}

#[test]
fn what_the_station_calls_settled_is_forgotten_though_its_confirmation_was_lost() {
    let mut bench = Bench::welcomed();
    let over = bench.taken(&order(1));
    bench.begin(over);
    bench.finish(over, 10);
    let waiting = bench.taken(&order(2));
    bench.low = 2;
    bench.welcome();
    assert_eq!(
        (bench.state(over), bench.state(waiting)),
        (None, Some(State::Received))
    );
    assert!(!bench.disk.contains_key(&over));
    assert_eq!(
        bench.offer(&order(1)),
        Offered::Ignored(Counter::Settled),
        "and never run again"
    );
}

#[test]
fn another_ledger_is_foreign_until_it_may_take_over_and_then_starts_clean() {
    let mut bench = Bench::welcomed();
    let waiting = bench.taken(&order(1));
    let running = bench.taken(&order(2));
    bench.begin(running);
    let other = LedgerId(Uuid::from_u128(77));
    let word = |what| {
        Ask::Word(Word {
            reign: Reign {
                v: 1,
                ledger_id: other,
                epoch: 1,
                instance: INSTANCE,
                low: 0,
            },
            what,
        })
    };
    let welcome = || word(What::Welcome { skew: None });
    assert_eq!(bench.ask(welcome()), Answer::Word(Welcomed::Foreign(other)));
    bench.journal.limits.accept_ledger = Some(other);
    assert_eq!(
        bench.ask(welcome()),
        Answer::Word(Welcomed::TakenOver(other))
    );
    assert_eq!(
        bench.state(waiting),
        None,
        "never started, and nobody waits for it"
    );
    assert_eq!(bench.finish(running, 1), Answer::Stands(running));
    let due = bench.ask(Ask::Due { all: true, dice: 0 });
    assert_eq!(
        due,
        Answer::Due(Due::default()),
        "the new ledger does not know it"
    );
    let mut first = order(5);
    (first.send.ledger_id, first.send.seq) = (other, Some(1));
    assert!(matches!(bench.offer(&first), Offered::Taken(_)));
}

/// The cancellation of an order, as its station would send it.
fn cancellation(offer: &Offer) -> Cancellation {
    let order = offer.order.order();
    Cancellation {
        send: offer.send.clone(),
        body: Cancel {
            id: order.id,
            digest: offer.order.digest(),
            subject: order.subject.clone(),
            at: order.issued_at,
            by: "ann".to_owned(),
        },
    }
}

#[test]
fn the_fate_of_an_order_is_told_by_its_id() {
    let mut bench = Bench::welcomed();
    let orders = [order(1), order(2), order(3)];
    let tickets: Vec<Ticket> = orders.iter().map(|order| bench.taken(order)).collect();
    let ids: Vec<MessageId> = (1..=4)
        .map(|number| order(number).order.order().id)
        .collect();
    let fates = |bench: &mut Bench| match bench.ask(Ask::Fates(ids.clone())) {
        Answer::Fates(fates) => fates,
        other => panic!("{other:?}"),
    };
    let open = Fate::Open;
    assert_eq!(fates(&mut bench), [open, open, open, Fate::Forgotten]);
    for ticket in &tickets[..2] {
        assert!(matches!(bench.begin(*ticket), Begun::Go { .. }));
        bench.finish(*ticket, 0);
    }
    bench.word(What::Confirm {
        orders: vec![ids[0]],
        events: Vec::new(),
    });
    let expected = [Fate::Confirmed, Fate::Over, open, Fate::Forgotten];
    assert_eq!(fates(&mut bench), expected);
}
