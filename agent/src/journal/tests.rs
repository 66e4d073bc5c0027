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
mod cancel;
mod repeats;
mod time;
mod view;
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
fn a_deadline_is_kept_on_the_clock_that_does_not_jump() {
    let mut bench = Bench::welcomed();
    let ticket = bench.taken(&order(1));
    bench.word(What::Welcome { skew: None });
    bench.now.boot_ms += 59_999;
    bench.now.wall += SignedDuration::from_hours(100);
    // The wall clock is not trusted; the deadline has a millisecond left, and is refreshed.
    assert_eq!(bench.offer(&order(1)), Offered::Stands(ticket));
    bench.now.boot_ms += 59_999;
    assert_eq!(
        bench.ask(Ask::Due {
            all: false,
            dice: 0
        }),
        Answer::Due(Due {
            next_ms: Some(bench.now.boot_ms + 1),
            ..Due::default()
        })
    );
    bench.now.boot_ms += 1;
    assert_eq!(bench.begin(ticket), Begun::Over(ticket));
    assert_eq!(bench.state(ticket), Some(State::Expired));
}

#[test]
fn after_a_reboot_the_wall_clock_decides_if_it_is_trusted_and_the_station_otherwise() {
    let mut bench = Bench::welcomed();
    let ticket = bench.taken(&order(1));
    bench.now.boot_id = "boot-2".into();
    bench.now.boot_ms = 5;
    bench.word(What::Welcome {
        skew: Some(Duration::from_secs(31)),
    });
    assert_eq!(bench.begin(ticket), Begun::Wait);
    bench.welcome();
    assert!(matches!(bench.begin(ticket), Begun::Go { .. }));
}

#[test]
fn a_start_that_hears_another_one_welcomed_begins_nothing_until_it_is_welcomed_again() {
    let other = InstanceId(Uuid::from_u128(99));
    let foreign = LedgerId(Uuid::from_u128(98));
    for (ledger_id, epoch, waits) in [
        (LEDGER, 1, true),
        (LEDGER, 2, true),
        (LEDGER, 0, false),
        (foreign, 9, false),
    ] {
        let mut bench = Bench::welcomed();
        let ticket = bench.taken(&order(1));
        let reign = Reign {
            v: 1,
            ledger_id,
            epoch,
            instance: other,
            low: 0,
        };
        let what = What::Welcome { skew: None };
        bench.ask(Ask::Word(Word { reign, what }));
        assert_eq!(
            bench.begin(ticket) == Begun::Wait,
            waits,
            "{ledger_id} {epoch}"
        );
        bench.welcome();
        if waits {
            assert!(matches!(bench.begin(ticket), Begun::Go { .. }));
        }
    }
}

#[test]
fn a_wall_clock_set_since_the_welcome_expires_nothing_until_the_station_has_measured_it() {
    for (step, passed_ms, expected) in [
        (31, 0, State::Received),
        (-31, 0, State::Received),
        (86_400, 1_000, State::Received),
        (7_200, 59_000, State::Received),
        // It was not set: an hour passed, and with it the deadline of both clocks.
        (0, 3_601_000, State::Expired),
    ] {
        let mut bench = Bench::welcomed();
        let ticket = bench.taken(&order(1));
        bench.now.boot_ms += passed_ms;
        let passed = i64::try_from(passed_ms).expect("small");
        bench.now.wall += SignedDuration::from_millis(passed) + SignedDuration::from_secs(step);
        bench.ask(Ask::Due {
            all: false,
            dice: 0,
        });
        assert_eq!(
            bench.state(ticket),
            Some(expected),
            "{step} s, {passed_ms} ms"
        );
    }
    // A clock found right by the station counts, also after it was set.
    let mut bench = Bench::welcomed();
    let ticket = bench.taken(&order(1));
    bench.now.wall += SignedDuration::from_secs(7_200);
    bench.welcome();
    bench.ask(Ask::Due {
        all: false,
        dice: 0,
    });
    assert_eq!(bench.state(ticket), Some(State::Expired));
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
fn output_goes_oldest_first_when_space_is_short_and_confirmed_output_before_that() {
    let mut bench = Bench::welcomed();
    let tickets: Vec<Ticket> = (1..=4)
        .map(|pos| {
            let ticket = bench.taken(&order(pos));
            bench.begin(ticket);
            ticket
        })
        .collect();
    bench.finish(tickets[0], 400);
    bench.finish(tickets[1], 400);
    let orders = vec![MessageId(Uuid::from_u128(2))];
    bench.word(What::Confirm {
        orders,
        events: Vec::new(),
    });
    bench.finish(tickets[2], 400);
    let bytes = |bench: &Bench, index: usize| match &bench.disk[&tickets[index]].phase {
        Phase::Final(ending) => ending.output_bytes,
        _ => panic!("it is not over"),
    };
    assert_eq!([0, 1, 2].map(|index| bytes(&bench, index)), [400, 0, 400]);
    bench.finish(tickets[3], 400);
    assert_eq!(
        [0, 1, 2, 3].map(|index| bytes(&bench, index)),
        [0, 0, 400, 400]
    );
    assert_eq!(bench.state(tickets[0]), Some(State::Succeeded));
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
fn the_spool_is_bounded_and_the_oldest_event_goes_first() {
    let mut bench = Bench::new();
    let event = |number: u128| {
        Ask::Report(Box::new(spool::Notice::Fault(
            steward_protocol::FaultEvent {
                id: EventId(Uuid::from_u128(number)),
                at: Timestamp::UNIX_EPOCH,
                kind: String::new(),
                subject: None,
                detail: String::new(),
                verdict: String::new(),
            },
        )))
    };
    for number in 0..spool::MAX_EVENTS as u128 {
        bench.ask(event(number));
        assert_eq!(bench.journal.snapshot().dropped, 0);
    }
    let (answer, writes) = bench.journal.next(event(99_999), &bench.now.clone());
    assert_eq!(answer, Answer::Reported);
    assert_eq!(bench.journal.snapshot().dropped, 1);
    assert!(matches!(
        writes.as_slice(),
        [Write::Event(..), Write::Dropped(1), Write::ForgetEvent(1)]
    ));
}

#[test]
fn lanes_are_bounded_and_a_forgotten_one_is_found_again_by_what_is_known() {
    let mut lanes = Lanes::default();
    let subject = |number: usize| -> Subject {
        format!("ship1.command.shellcommand.d{number}")
            .parse()
            .expect("a subject")
    };
    let mut evicted = Vec::new();
    for number in 0..=lanes::MAX_LANES {
        lanes.advance(&subject(number), 1);
        evicted.extend(lanes.evict());
    }
    assert_eq!(evicted, [subject(0)]);
    assert_eq!(lanes.turn(&subject(0), 7, 7), Turn::Next);
    assert_eq!(lanes.turn(&subject(1), 1, 1), Turn::Past);
    lanes.advance(&subject(0), 7);
    assert_eq!(lanes.turn(&subject(0), 8, 1), Turn::Next);
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

/// Tells which orders of a random walk may be started again.
fn is_idempotent(pos: u64) -> bool {
    pos.is_multiple_of(4)
}

/// The order at place `pos` of a random walk.
fn walked(pos: u64) -> Offer {
    let mut offer = order(pos);
    reseal(&mut offer, |order| order.idempotent = is_idempotent(pos));
    offer
}

/// One step of a random walk.
#[derive(Debug, Clone)]
enum Step {
    Offer(u64),
    Tombstone(u64),
    Cancel(u64),
    CancelInVain(u64),
    Begin(u64),
    Finish(u64),
    Confirm(u64),
    Low(u64),
    Crash,
    Time(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let pos = 1..12_u64;
    prop_oneof![
        4 => pos.clone().prop_map(Step::Offer),
        1 => pos.clone().prop_map(Step::Tombstone),
        2 => pos.clone().prop_map(Step::Cancel),
        1 => pos.clone().prop_map(Step::CancelInVain),
        4 => pos.clone().prop_map(Step::Begin),
        3 => pos.clone().prop_map(Step::Finish),
        3 => pos.clone().prop_map(Step::Confirm),
        1 => pos.prop_map(Step::Low),
        1 => Just(Step::Crash),
        1 => (1..70_000_u64).prop_map(Step::Time),
    ]
}

/// What a bystander knows for certain.
#[derive(Default)]
struct Model {
    started: BTreeSet<u64>,
    /// Those of them that still are, as far as their processes know.
    at_work: BTreeSet<u64>,
    /// Cancelled, durably.
    cancelled: BTreeSet<u64>,
    ended: BTreeMap<u64, State>,
    confirmed: BTreeSet<u64>,
    tickets: BTreeMap<u64, Ticket>,
}

impl Model {
    fn walk(&mut self, bench: &mut Bench, step: &Step) {
        match step {
            Step::Offer(pos) => self.offer(bench, *pos, 60_000),
            Step::Tombstone(pos) => self.offer(bench, *pos, 0),
            Step::Cancel(pos) => self.cancel(bench, *pos),
            Step::CancelInVain(pos) => {
                let mut cancellation = cancellation(&walked(*pos));
                cancellation.send.low = bench.low;
                bench.cancel_in_vain(&cancellation);
                let told = bench.halt(&cancellation);
                match told {
                    Cancelled::Stop(_) => assert!(self.at_work.contains(pos)),
                    Cancelled::Over(ticket) => {
                        let state = bench.disk[&ticket].phase.state();
                        assert!(state.is_final(), "J4: {state} is not over");
                    }
                    Cancelled::Deferred { .. } | Cancelled::Ignored(_) => {}
                }
            }
            Step::Begin(pos) => {
                let Some(ticket) = self.tickets.get(pos).copied() else {
                    return;
                };
                if let Begun::Go { .. } = bench.begin(ticket) {
                    let again = !self.started.insert(*pos);
                    let may = is_idempotent(*pos) && !self.at_work.contains(pos);
                    assert!(!again || may, "order {pos} was started twice");
                    self.at_work.insert(*pos);
                    assert!(
                        !self.cancelled.contains(pos),
                        "order {pos} was started after it was cancelled"
                    );
                    assert!(
                        !self.ended.contains_key(pos),
                        "order {pos} was started after its end"
                    );
                    assert_eq!(bench.disk[&ticket].phase.state(), State::Running, "J1");
                }
            }
            Step::Finish(pos) => {
                let Some(ticket) = self.tickets.get(pos).copied() else {
                    return;
                };
                // Only who started it can say how it ended.
                if self.at_work.remove(pos) {
                    bench.finish(ticket, 300);
                }
            }
            Step::Confirm(pos) => {
                let over = self.ended.contains_key(pos);
                let orders = vec![MessageId(Uuid::from_u128(u128::from(*pos)))];
                bench.word(What::Confirm {
                    orders,
                    events: Vec::new(),
                });
                if over {
                    self.confirmed.insert(*pos);
                }
            }
            Step::Low(low) => {
                // A station only calls settled what it has confirmed.
                let open = (1..12)
                    .find(|pos| !self.confirmed.contains(pos))
                    .unwrap_or(12);
                bench.low = bench.low.max((*low).min(open));
                bench.welcome();
            }
            Step::Crash => {
                bench.crash();
                self.at_work.clear();
                // Nobody holds a ticket across a restart.
                self.tickets
                    .retain(|_, ticket| bench.state(*ticket).is_some());
            }
            Step::Time(millis) => {
                bench.now.boot_ms += millis;
                bench.ask(Ask::Due {
                    all: false,
                    dice: *millis,
                });
            }
        }
    }

    fn offer(&mut self, bench: &mut Bench, pos: u64, ttl_left_ms: u64) {
        let mut offer = walked(pos);
        offer.send.low = bench.low;
        offer.send.ttl_left_ms = ttl_left_ms;
        match bench.offer(&offer) {
            Offered::Taken(ticket) => {
                assert!(
                    !self.started.contains(&pos),
                    "order {pos} was forgotten and taken again"
                );
                assert!(
                    !self.ended.contains_key(&pos),
                    "order {pos} was taken after its end"
                );
                self.tickets.insert(pos, ticket);
            }
            Offered::Stands(ticket) => {
                let told = bench.state(ticket).expect("it is there");
                assert_eq!(
                    bench.disk[&ticket].phase.state(),
                    told,
                    "J4: told before durable"
                );
                if let Some(state) = self.ended.get(&pos) {
                    assert_eq!(told, *state, "the end of order {pos} changed");
                }
                self.tickets.insert(pos, ticket);
            }
            Offered::Ignored(_) => {
                assert!(
                    self.confirmed.contains(&pos) && pos < bench.low,
                    "order {pos} was lost"
                );
            }
            Offered::Deferred { .. } => {}
        }
    }

    fn cancel(&mut self, bench: &mut Bench, pos: u64) {
        let mut cancellation = cancellation(&walked(pos));
        cancellation.send.low = bench.low;
        match bench.cancel(&cancellation) {
            Cancelled::Over(ticket) => {
                let told = bench.disk[&ticket].phase.state();
                assert!(
                    told.is_final(),
                    "J4: order {pos} is {told}, and called over"
                );
                self.tickets.insert(pos, ticket);
                self.cancelled.insert(pos);
            }
            Cancelled::Stop(ticket) => {
                assert!(self.at_work.contains(&pos), "nobody is there to stop {pos}");
                assert_eq!(bench.state(ticket), Some(State::Running));
                self.cancelled.insert(pos);
            }
            Cancelled::Ignored(_) => {
                assert!(
                    self.confirmed.contains(&pos) && pos < bench.low,
                    "the cancellation of order {pos} was lost"
                );
            }
            Cancelled::Deferred { .. } => {
                assert!(!self.tickets.contains_key(&pos), "order {pos} is known");
            }
        }
    }

    /// Learns ends, and compares what is forgotten.
    fn look(&mut self, bench: &Bench) {
        for (pos, ticket) in &self.tickets {
            match bench.state(*ticket) {
                Some(state) if state.is_final() => {
                    let known = self.ended.entry(*pos).or_insert(state);
                    assert_eq!(*known, state, "the end of order {pos} changed");
                    if matches!(state, State::Expired | State::Cancelled) {
                        assert!(
                            !self.started.contains(pos),
                            "order {pos} ran and is {state}"
                        );
                    }
                }
                Some(state) => {
                    assert!(
                        !self.ended.contains_key(pos),
                        "order {pos} is {state} after its end"
                    );
                }
                None => {
                    assert!(
                        self.confirmed.contains(pos),
                        "order {pos} was forgotten unconfirmed"
                    );
                    assert!(*pos < bench.low, "order {pos} was forgotten above low");
                }
            }
        }
        let live: BTreeSet<Ticket> = bench.journal.shelf.tickets().into_iter().collect();
        let durable: BTreeSet<Ticket> = bench.disk.keys().copied().collect();
        assert_eq!(live, durable);
        let waiting = bench.journal.shelf.received().len();
        assert!(waiting <= limits().queue, "{waiting} orders wait");
    }
}

impl Bench {
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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_walk_starts_twice_tells_before_it_is_durable_or_forgets_too_soon(
        steps in prop::collection::vec(step(), 1..80)
    ) {
        let mut bench = Bench::welcomed();
        let mut model = Model::default();
        for step in &steps {
            model.walk(&mut bench, step);
            model.look(&bench);
        }
    }
}

#[test]
fn a_reason_is_cut_so_that_every_answer_fits_a_frame() {
    use super::entry::{MAX_REASON, brief};
    for length in [MAX_REASON - 1, MAX_REASON] {
        let whole = "x".repeat(length);
        assert_eq!(brief(whole.clone()), whole);
    }
    for text in ["x", "æ", "…"] {
        let cut = brief(text.repeat(MAX_REASON + 1));
        let no_shorter_than_needed = MAX_REASON - text.len() < cut.len();
        assert!(
            cut.len() <= MAX_REASON && no_shorter_than_needed && cut.ends_with(" …"),
            "{text}: {} bytes",
            cut.len()
        );
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
