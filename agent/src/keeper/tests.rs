//! The keeper on a real file, with a disk that is sometimes full.

use std::time::Duration;

use jiff::SignedDuration;
use steward_protocol::{
    JournalId, LedgerId, MessageId, Order, Outcome, Output, Reign, State, envelope::Send,
};
use tempfile::TempDir;
use uuid::Uuid;

use super::*;
use crate::{
    counters::Counter,
    journal::{Stance, What, Write},
};

const INSTANCE: InstanceId = InstanceId(Uuid::from_u128(1));
const LEDGER: LedgerId = LedgerId(Uuid::from_u128(2));

fn opening() -> Opening {
    Opening {
        owner: Owner {
            node: "ship1".parse().expect("a name"),
            fresh: JournalId(Uuid::new_v4()),
        },
        instance: INSTANCE,
        limits: Limits {
            queue: 10,
            results_budget: 1 << 20,
            accept_ledger: None,
        },
        clock: Clock::open().expect("the clocks are there"),
        counters: Arc::new(Counters::default()),
    }
}

fn open(dir: &TempDir) -> (Keeper, Identity, JoinHandle<()>) {
    Keeper::open(dir.path(), opening()).expect("it opens")
}

fn welcome(low: u64) -> Word {
    Word {
        reign: Reign {
            v: 1,
            ledger_id: LEDGER,
            epoch: 1,
            instance: INSTANCE,
            low,
        },
        what: What::Welcome {
            skew: Some(Duration::ZERO),
        },
    }
}

fn offer(pos: u64, bulk: usize) -> Offer {
    let now = Timestamp::now();
    let order = Order {
        id: MessageId(Uuid::from_u128(u128::from(pos))),
        from: "central".parse().expect("a name"),
        to: "ship1".parse().expect("a name"),
        subject: "ship1.command.shellcommand.x".parse().expect("a subject"),
        issued_at: now,
        expires_at: now + SignedDuration::from_secs(60),
        submitted_by: String::new(),
        retry_of: None,
        timeout_ms: 1000,
        ordered: true,
        idempotent: false,
        success_codes: vec![0],
        stream: false,
        body: serde_json::value::to_raw_value(&"x".repeat(bulk)).expect("a body"),
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

fn finish() -> Finish {
    let now = Timestamp::now();
    Finish {
        state: State::Succeeded,
        reason: None,
        outcome: Some(Outcome {
            exit_code: Some(0),
            signal: None,
            started_at: now,
            finished_at: now,
            stdout: Some(Output::whole(&[0xff, 0])),
            stderr: None,
        }),
    }
}

async fn take(keeper: &Keeper, offer: Offer) -> (Ticket, Ack) {
    let replies = keeper.offer(vec![offer]).await.expect("it can be written");
    let reply = replies.into_iter().next().expect("one answer each");
    match (reply.offered, reply.ack) {
        (Offered::Taken(ticket) | Offered::Stands(ticket), Some(ack)) => (ticket, ack),
        other => panic!("it was not taken: {other:?}"),
    }
}

#[tokio::test]
async fn what_was_answered_is_there_after_a_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    let (keeper, _, thread) = open(&dir);
    keeper.word(welcome(0)).await.expect("heard");
    let (first, _) = take(&keeper, offer(1, 1)).await;
    let later = offer(2, 1);
    let (second, _) = take(&keeper, later.clone()).await;
    let begun = keeper.begin(first).await.expect("it may");
    assert!(matches!(begun, BeginReply::Go { attempt: 1, .. }));
    let mark = ChildMark {
        pid: 42,
        start_time: 4242,
    };
    assert_eq!(
        keeper.spawned(first, mark).await.expect("noted").state,
        State::Running
    );
    drop(keeper);
    thread.join().expect("the thread ends with its last handle");

    let (keeper, identity, thread) = open(&dir);
    assert_eq!(identity.starts, 2);
    let subject: Subject = "ship1.command.shellcommand.x".parse().expect("a subject");
    let open_orders = keeper.open_orders(subject).await.expect("readable");
    let tickets: Vec<Ticket> = open_orders.iter().map(|order| order.ticket).collect();
    assert_eq!(tickets, [first, second]);
    let started = open_orders[0].started.clone().expect("it was started");
    assert_eq!(started.child, Some(mark));
    let lost = keeper.lost(first, "gone").await.expect("noted");
    assert!(matches!(lost, LostReply::Over(ack) if ack.state == State::Interrupted));
    keeper.word(welcome(0)).await.expect("heard");
    assert!(matches!(
        keeper.begin(second).await,
        Ok(BeginReply::Go { .. })
    ));
    let said = keeper.finish(second, finish()).await.expect("noted");
    drop(keeper);
    thread.join().expect("the thread ends");

    let (keeper, _, _thread) = open(&dir);
    keeper.word(welcome(0)).await.expect("heard");
    let (_, again) = take(&keeper, later).await;
    assert_eq!(again, said, "the same fact, to the byte");
}

#[tokio::test]
async fn a_full_disk_takes_nothing_starts_nothing_and_heals() {
    let dir = tempfile::tempdir().expect("a directory");
    let opening = opening();
    let counters = Arc::clone(&opening.counters);
    let mut store = Store::open(dir.path(), &opening.owner).expect("it opens");
    let identity = Identity {
        pinned: Some(crate::journal::Pinned {
            ledger_id: LEDGER,
            epoch: 1,
            low: 0,
        }),
        ..store.image().expect("readable").identity
    };
    store.commit(&[Write::Identity(identity)]).expect("pinned");
    store.cramp();
    let (keeper, _, _thread) = Keeper::start(store, opening).expect("it starts");
    keeper
        .word(welcome(0))
        .await
        .expect("there is nothing to write");
    let bulky = 100_000;
    let failed = keeper.offer(vec![offer(1, bulky)]).await;
    assert!(
        matches!(failed, Err(KeeperError::Storage { .. })),
        "{failed:?}"
    );
    assert_eq!(counters.get(Counter::Storage), 1);
    // Nothing is left of it, in memory either: the lane still expects the first one.
    let replies = keeper
        .offer(vec![offer(2, 1)])
        .await
        .expect("a gap is not written");
    let Offered::Deferred { expected_seq, .. } = replies[0].offered else {
        panic!("{:?}", replies[0]);
    };
    assert_eq!(expected_seq, Some(1));
    assert_eq!(keeper.snapshot().await.expect("readable").open, []);
}

#[test]
fn a_start_that_cannot_be_written_is_none_and_comes_later() {
    let dir = tempfile::tempdir().expect("a directory");
    let opening = opening();
    let store = Store::open(dir.path(), &opening.owner).expect("it opens");
    let journal = Journal::new(
        opening.instance,
        opening.limits,
        store.image().expect("readable"),
    );
    let mut desk = Desk {
        store,
        journal,
        clock: opening.clock,
        counters: opening.counters,
        failing: false,
        stale: false,
    };
    let settle = |desk: &mut Desk, ask: Ask| {
        let (reply, mut answer) = oneshot::channel();
        desk.settle(vec![Job {
            asks: vec![ask],
            reply,
        }]);
        answer
            .try_recv()
            .expect("an answer")
            .map(|told| format!("{told:?}"))
    };
    settle(&mut desk, Ask::Word(welcome(0))).expect("heard");
    settle(&mut desk, Ask::Offer(Box::new(offer(1, 1)))).expect("taken");
    let begin = |desk: &mut Desk| settle(desk, Ask::Begin(Ticket(1)));
    // Somebody else holds the file: the start cannot become durable.
    let other = rusqlite_holding(&dir);
    assert!(matches!(begin(&mut desk), Err(KeeperError::Storage { .. })));
    drop(other);
    let begun = begin(&mut desk).expect("the file is free again");
    assert!(begun.contains("Go"), "{begun}");
}

fn cancellation(offer: &Offer) -> Cancellation {
    let order = offer.order.order();
    Cancellation {
        send: offer.send.clone(),
        body: steward_protocol::Cancel {
            id: order.id,
            digest: offer.order.digest(),
            subject: order.subject.clone(),
            at: order.issued_at,
            by: "ann".to_owned(),
        },
    }
}

async fn cancel(keeper: &Keeper, offers: &[Offer]) -> Vec<Ack> {
    let calls = offers.iter().map(cancellation).collect();
    let replies = keeper.cancel(calls).await.expect("noted");
    let acks = replies.into_iter().map(|reply| reply.ack);
    acks.map(|ack| ack.expect("it is answered")).collect()
}

#[tokio::test]
async fn cancellations_are_answered_and_what_they_decided_is_there_after_a_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    let (keeper, _, thread) = open(&dir);
    keeper.word(welcome(0)).await.expect("heard");
    let offers = [1, 2, 3, 4, 6].map(|pos| offer(pos, 1));
    let (over, _) = take(&keeper, offers[0].clone()).await;
    keeper.begin(over).await.expect("it may");
    let end = keeper.finish(over, finish()).await.expect("noted");
    let (running, _) = take(&keeper, offers[1].clone()).await;
    keeper.begin(running).await.expect("it may");
    take(&keeper, offers[2].clone()).await;
    let told = cancel(&keeper, &offers).await;
    assert_eq!(told[0], end, "its outcome included");
    let expected = [
        State::Succeeded,
        State::Running,
        State::Cancelled,
        State::Cancelled,
        State::Deferred,
    ];
    let states = |told: &[Ack]| told.iter().map(|ack| ack.state).collect::<Vec<State>>();
    assert_eq!(states(&told), expected);
    assert_eq!(told[4].deferral, Some(steward_protocol::Deferral::Gap));
    assert_eq!(told[4].expected_seq, Some(5));
    drop(keeper);
    thread.join().expect("the thread ends");

    let (keeper, _, _thread) = open(&dir);
    keeper.word(welcome(0)).await.expect("heard");
    assert_eq!(states(&cancel(&keeper, &offers).await), expected);
    let (_, late) = take(&keeper, offers[3].clone()).await;
    assert_eq!(late.state, State::Cancelled);
    let subject: Subject = "ship1.command.shellcommand.x".parse().expect("a subject");
    let open_orders = keeper.open_orders(subject).await.expect("readable");
    let started = open_orders[0].started.clone().expect("it was started");
    assert_eq!((open_orders.len(), open_orders[0].ticket), (1, running));
    let by = started.revoked.map(|revoked| revoked.by);
    assert_eq!(by.as_deref(), Some("ann"));
}

#[tokio::test]
async fn a_cancellation_that_cannot_be_written_still_stops_what_runs() {
    let dir = tempfile::tempdir().expect("a directory");
    let (keeper, _, _thread) = open(&dir);
    keeper.word(welcome(0)).await.expect("heard");
    let offers = [1, 2].map(|pos| offer(pos, 1));
    let (running, _) = take(&keeper, offers[0].clone()).await;
    take(&keeper, offers[1].clone()).await;
    keeper.begin(running).await.expect("it may");
    let calls: Vec<Cancellation> = offers.iter().map(cancellation).collect();
    let other = rusqlite_holding(&dir);
    let failed = keeper.cancel(calls.clone()).await;
    assert!(matches!(failed, Err(KeeperError::Storage { .. })));
    let halted = keeper.halt(calls.clone()).await.expect("it can be read");
    assert_eq!(halted[0].cancelled, Cancelled::Stop(running));
    let deferral = halted[1].ack.as_ref().and_then(|ack| ack.deferral);
    assert_eq!(deferral, Some(steward_protocol::Deferral::Storage));
    drop(other);
    let replies = keeper.cancel(calls).await.expect("the file is free again");
    assert_eq!(replies[0].cancelled, Cancelled::Stop(running));
    assert!(matches!(replies[1].cancelled, Cancelled::Over(_)));
}

#[test]
fn what_needs_no_disk_is_answered_though_its_neighbours_cannot_be_written() {
    let dir = tempfile::tempdir().expect("a directory");
    let opening = opening();
    let store = Store::open(dir.path(), &opening.owner).expect("it opens");
    let image = store.image().expect("readable");
    let mut desk = Desk {
        store,
        journal: Journal::new(opening.instance, opening.limits, image),
        clock: opening.clock,
        counters: opening.counters,
        failing: false,
        stale: false,
    };
    let job = |ask: Ask| {
        let (reply, answer) = oneshot::channel();
        let asks = vec![ask];
        (Job { asks, reply }, answer)
    };
    let order = offer(1, 1);
    for ask in [
        Ask::Word(welcome(0)),
        Ask::Offer(Box::new(order.clone())),
        Ask::Begin(Ticket(1)),
    ] {
        desk.settle(vec![job(ask).0]);
    }
    let other = rusqlite_holding(&dir);
    let (finish, mut finished) = job(Ask::Finish(Ticket(1), Box::new(finish())));
    let (halt, mut halted) = job(Ask::Halt(Box::new(cancellation(&order))));
    desk.settle(vec![finish, halt]);
    drop(other);
    let finished = finished.try_recv().expect("an answer");
    assert!(matches!(finished, Err(KeeperError::Storage { .. })));
    let halted = halted.try_recv().expect("an answer").expect("told");
    let Some(Told::Cancel(reply)) = halted.first() else {
        panic!("{halted:?}");
    };
    // Not over: that it ended is not durable.
    assert_eq!(reply.cancelled, Cancelled::Stop(Ticket(1)));
}

/// Keeps the journal's file locked for writing until dropped.
fn rusqlite_holding(dir: &TempDir) -> rusqlite::Connection {
    let path = dir.path().join(crate::store::FILE);
    let connection = rusqlite::Connection::open(path).expect("the file opens");
    connection
        .execute_batch("BEGIN IMMEDIATE")
        .expect("it is free");
    connection
}
