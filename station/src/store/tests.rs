//! Tests of the ledger: what is durable, what is derived, what is refused.

mod log;
mod retry;

use std::{sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use rusqlite::Connection;
use steward_protocol::{
    Ack, Body, Digest, InstanceId, JournalId, Kind, Message, MessageId, Method, NodeName, Options,
    Outcome, Output, Reply, ReplyTo, ShellBody, State, Target,
};

use super::*;
use crate::{
    courier::{Accepted, Addressee, FaultRecord, FirstAttempt, LaneName, Record},
    roster::NodeRecord,
};

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).expect("a time")
}

fn ship(number: u32) -> NodeName {
    format!("ship{number}").parse().expect("a name")
}

fn station() -> NodeName {
    "central".parse().expect("a name")
}

fn id(pos: u64) -> MessageId {
    MessageId(Uuid::from_u128(pos.into()))
}

fn message(nodes: &[NodeName]) -> Message {
    Message {
        id: None,
        name: Some("try".to_owned()),
        target: Target::Nodes(nodes.to_vec()),
        kind: Kind::Command,
        method: Method::Shellcommand.name(),
        domain: "operatingsystem".parse().expect("a domain"),
        options: Options::standard(),
        body: Body::Shell(ShellBody {
            data: vec!["true".to_owned()],
            ..ShellBody::default()
        }),
    }
}

fn accepted(pos: u64) -> Record {
    let nodes = [ship(1), ship(2)];
    let addressee = |node: &NodeName| Addressee {
        node: node.clone(),
        digest: Digest::of(b"order"),
    };
    Record::Accepted(Arc::new(Accepted {
        pos,
        id: id(pos),
        message: message(&nodes),
        content: Digest::of(b"content"),
        station: station(),
        source: "test".to_owned(),
        submitted_by: "uid:0".to_owned(),
        accepted_at: at(0),
        expires_at: at(0) + SignedDuration::from_hours(24),
        intake: None,
        retry_of: None,
        holds: Vec::new(),
        targets: nodes.iter().map(addressee).collect(),
    }))
}

fn lane() -> LaneName {
    LaneName {
        kind: Kind::Command,
        method: Method::Shellcommand.name(),
        domain: "operatingsystem".parse().expect("a domain"),
    }
}

fn attempt(pos: u64, number: u32) -> Record {
    Record::Attempt {
        pos,
        node: ship(1),
        attempt: number,
        first: (number == 1).then(|| FirstAttempt {
            seq: Some((lane(), pos)),
            at: at(1),
            by: station(),
        }),
    }
}

fn moved(pos: u64, node: u32, state: State) -> Record {
    let outcome = Outcome {
        exit_code: Some(0),
        signal: None,
        started_at: at(2),
        finished_at: at(3),
        stdout: Some(Output::whole(b"out")),
        stderr: None,
    };
    let ack = Ack {
        id: id(pos),
        digest: Digest::of(b"order"),
        state,
        at: at(3),
        reason: None,
        deferral: None,
        expected_seq: None,
        outcome: state.is_final().then_some(outcome),
    };
    Record::Moved {
        pos,
        node: ship(node),
        state,
        at: at(3),
        by: ship(node),
        why: None,
        ack: Some(Box::new(ack)),
    }
}

fn open(directory: &tempfile::TempDir) -> Store {
    Store::open(directory.path(), &station()).expect("opens")
}

#[test]
fn a_ledger_keeps_its_id_and_counts_its_reigns() {
    let directory = tempfile::tempdir().expect("a folder");
    let first = open(&directory);
    let (id, epoch) = (first.ledger_id(), first.epoch());
    drop(first);
    let second = open(&directory);
    assert_eq!(second.ledger_id(), id);
    assert!(second.epoch() > epoch, "{} after {epoch}", second.epoch());
    // A backup restored over a later ledger begins above what that one gave out.
    let now = Timestamp::now();
    assert!(epoch.cast_signed() >= now.as_second() - 60, "{epoch}");
    let next_pos = second.load().expect("loads").next_pos;
    assert!(
        next_pos.cast_signed() >= now.as_millisecond() - 60_000,
        "{next_pos}"
    );
}

#[test]
fn a_second_station_in_the_same_directory_is_refused() {
    let directory = tempfile::tempdir().expect("a folder");
    let _first = open(&directory);
    assert!(matches!(
        Store::open(directory.path(), &station()),
        Err(StoreError::Locked { .. })
    ));
}

#[test]
fn a_ledger_is_not_opened_under_another_name() {
    let directory = tempfile::tempdir().expect("a folder");
    drop(open(&directory));
    let other = "central2".parse().expect("a name");
    let refused = Store::open(directory.path(), &other);
    assert!(
        matches!(refused, Err(StoreError::OtherName { .. })),
        "its orders are sealed with its name"
    );
}

#[test]
fn resends_are_counted_and_do_not_grow_the_ledger() {
    let directory = tempfile::tempdir().expect("a folder");
    let mut store = open(&directory);
    store
        .commit(&[accepted(1), attempt(1, 1)])
        .expect("commits");
    let reader = Reader::open(store.path()).expect("opens");
    let events = reader.last_event().expect("readable");
    for number in 2..=50 {
        store.commit(&[attempt(1, number)]).expect("commits");
    }
    assert_eq!(reader.last_event().expect("readable"), events);
    let view = reader
        .message(id(1), None, Depth::Brief)
        .expect("readable")
        .expect("there");
    assert_eq!(view.deliveries[0].attempts, 50);
}

#[test]
fn a_ledger_of_a_newer_program_is_refused() {
    let directory = tempfile::tempdir().expect("a folder");
    let path = open(&directory).path().to_owned();
    Connection::open(&path)
        .and_then(|connection| connection.pragma_update(None, "user_version", 99))
        .expect("marks it");
    assert!(matches!(
        Store::open(directory.path(), &station()),
        Err(StoreError::Newer { found: 99, .. })
    ));
}

#[test]
fn what_a_power_cut_left_of_a_creation_is_not_in_the_way() {
    let directory = tempfile::tempdir().expect("a folder");
    std::fs::write(directory.path().join(".ledger.new"), b"half a database").expect("written");
    open(&directory);
}

#[test]
fn records_are_committed_all_or_none() {
    let directory = tempfile::tempdir().expect("a folder");
    let mut store = open(&directory);
    let same_id_twice = [accepted(1), accepted(1)];
    assert!(store.commit(&same_id_twice).is_err());
    assert_eq!(store.find(id(1)).expect("readable"), None);
    store.commit(&[accepted(1)]).expect("commits");
    assert_eq!(
        store
            .find(id(1))
            .expect("readable")
            .map(|known| known.nodes),
        Some(vec![ship(1), ship(2)])
    );
}

#[test]
fn a_restart_finds_what_is_open_and_nothing_else() {
    let directory = tempfile::tempdir().expect("a folder");
    let mut store = open(&directory);
    let records = [
        accepted(1),
        accepted(2),
        attempt(1, 1),
        attempt(1, 2),
        attempt(2, 1),
        moved(1, 1, State::Succeeded),
    ];
    store.commit(&records).expect("commits");
    drop(store);
    let loaded = open(&directory).load().expect("loads");
    let open: Vec<_> = loaded
        .deliveries
        .iter()
        .map(|found| {
            (
                found.open.pos,
                found.node.clone(),
                found.open.state,
                found.open.seq,
            )
        })
        .collect();
    assert_eq!(
        open,
        [
            (1, ship(2), State::Accepted, None),
            (2, ship(1), State::Sent, Some(2)),
            (2, ship(2), State::Accepted, None),
        ]
    );
    assert_eq!(
        loaded
            .lanes
            .iter()
            .map(|lane| lane.last_seq)
            .collect::<Vec<_>>(),
        [2]
    );
    assert!(loaded.next_pos >= 3);
}

#[test]
fn every_derived_row_can_be_built_again_from_the_events() {
    let directory = tempfile::tempdir().expect("a folder");
    let mut store = open(&directory);
    let states = [State::Received, State::Running, State::Failed];
    let mut records = vec![accepted(1), attempt(1, 1), attempt(1, 2), attempt(1, 3)];
    records.extend(states.map(|state| moved(1, 1, state)));
    store.commit(&records).expect("commits");
    let derived =
        "SELECT node, state, 1, seq, since FROM delivery WHERE pos = 1 AND node = 'ship1'";
    let replayed = "SELECT 'ship1',
        (SELECT state FROM event WHERE pos = 1 AND (node = 'ship1' OR node IS NULL) AND state IS NOT NULL ORDER BY n DESC LIMIT 1),
        (SELECT count(*) FROM event WHERE kind = 'attempt' AND pos = 1 AND node = 'ship1'),
        (SELECT max(seq) FROM event WHERE pos = 1 AND node = 'ship1'),
        (SELECT at FROM event WHERE pos = 1 AND (node = 'ship1' OR node IS NULL) AND state IS NOT NULL ORDER BY n DESC LIMIT 1)";
    let row = |query: &str| -> (String, String, i64, i64, i64) {
        let read = |row: &rusqlite::Row<'_>| {
            Ok((
                row.get(0)?,
                row.get(1)?,
                row.get(2)?,
                row.get(3)?,
                row.get(4)?,
            ))
        };
        store
            .connection
            .query_row(query, [], read)
            .expect("one row")
    };
    assert_eq!(row(derived), row(replayed));
}

#[test]
fn retention_forgets_only_what_is_settled_and_never_gives_a_place_out_twice() {
    let directory = tempfile::tempdir().expect("a folder");
    let mut store = open(&directory);
    let settled = [
        accepted(1),
        moved(1, 1, State::Succeeded),
        moved(1, 2, State::Failed),
    ];
    store.commit(&settled).expect("commits");
    store
        .commit(&[accepted(2), moved(2, 1, State::Succeeded)])
        .expect("commits");
    assert_eq!(store.prune(at(-1), 10).expect("prunes"), 0, "too young");
    assert_eq!(store.prune(at(10), 10).expect("prunes"), 1);
    assert_eq!(store.find(id(1)).expect("readable"), None);
    assert!(
        store.find(id(2)).expect("readable").is_some(),
        "one delivery is open"
    );
    store
        .commit(&[moved(2, 2, State::Failed)])
        .expect("commits");
    assert_eq!(store.prune(at(10), 10).expect("prunes"), 1);
    assert!(store.load().expect("loads").next_pos >= 3);
}

#[test]
fn retention_waits_for_a_result_that_is_still_to_be_written() {
    let directory = tempfile::tempdir().expect("a folder");
    let mut store = open(&directory);
    let Record::Accepted(mut with_reply) = accepted(1) else {
        unreachable!("it is accepted")
    };
    Arc::make_mut(&mut with_reply).message.options.reply = Some(Reply {
        to: ReplyTo::File,
        directory: None,
        file_name: None,
    });
    let settled = [
        Record::Accepted(with_reply),
        moved(1, 1, State::Succeeded),
        moved(1, 2, State::Rejected),
    ];
    store.commit(&settled).expect("commits");
    let reader = Reader::open(store.path()).expect("opens");
    let waiting = reader.errand_paths().expect("readable");
    assert!(!waiting.is_empty(), "a result is to be written");
    assert_eq!(store.prune(at(10), 10).expect("prunes"), 0);
    for path in waiting {
        for errand in reader.errands(&path).expect("readable") {
            store
                .note_errands(&[Fact::Done(errand.n)], at(4), &station())
                .expect("commits");
        }
    }
    assert_eq!(store.prune(at(10), 10).expect("prunes"), 1);
}

#[test]
fn a_node_is_loaded_as_it_was_recorded() {
    let directory = tempfile::tempdir().expect("a folder");
    let mut store = open(&directory);
    let node = NodeRecord {
        name: ship(1),
        journal_id: Some(JournalId(Uuid::from_u128(1))),
        counter: 3,
        instance: Some(InstanceId(Uuid::from_u128(3))),
        boot_id: Some("boot".to_owned()),
        version: Some("0.1.0".to_owned()),
        labels: [("site".to_owned(), "bergen".to_owned())].into(),
        last_seen: Some(at(1)),
        heartbeat: Duration::from_secs(30),
        superseded: vec![
            InstanceId(Uuid::from_u128(1)),
            InstanceId(Uuid::from_u128(2)),
        ],
    };
    store
        .commit(&[Record::Node(Box::new(node.clone()))])
        .expect("commits");
    assert_eq!(store.load().expect("loads").nodes, [node]);
}

#[test]
fn a_settled_delivery_is_told_from_an_open_and_from_another_one() {
    let directory = tempfile::tempdir().expect("a folder");
    let mut store = open(&directory);
    store
        .commit(&[accepted(1), moved(1, 1, State::Succeeded)])
        .expect("commits");
    let settled = |node: u32, bytes: &[u8]| {
        store
            .is_settled(id(1), &ship(node), Digest::of(bytes))
            .expect("readable")
    };
    assert!(settled(1, b"order"));
    assert!(!settled(1, b"another"));
    assert!(!settled(2, b"order"));
}

#[test]
fn the_same_fault_is_stored_once_and_old_ones_make_room() {
    let directory = tempfile::tempdir().expect("a folder");
    let mut store = open(&directory);
    let fault = FaultRecord {
        id: Some(steward_protocol::EventId(Uuid::from_u128(7))),
        ..FaultRecord::at(at(0), None)
    };
    store
        .commit(&[Record::Fault(fault.clone()), Record::Fault(fault)])
        .expect("commits");
    let reader = Reader::open(store.path()).expect("opens");
    assert_eq!(reader.faults(None, 100).expect("readable").len(), 1);
    let many: Vec<Record> = (0..10_100)
        .map(|_| Record::Fault(FaultRecord::at(at(0), None)))
        .collect();
    store.commit(&many).expect("commits");
    assert_eq!(
        reader.faults(None, 100_000).expect("readable").len(),
        10_000
    );
}

#[test]
fn a_reader_shows_a_message_with_who_said_what_when() {
    let directory = tempfile::tempdir().expect("a folder");
    let mut store = open(&directory);
    store
        .commit(&[accepted(1), attempt(1, 1), moved(1, 1, State::Succeeded)])
        .expect("commits");
    let reader = Reader::open(store.path()).expect("opens");
    let view = reader
        .message(id(1), None, Depth::Full)
        .expect("readable")
        .expect("there");
    let delivery = &view.deliveries[0];
    assert_eq!(
        (delivery.state, delivery.attempts, delivery.exit_code),
        (State::Succeeded, 1, Some(0))
    );
    assert_eq!(delivery.stdout, Some(Output::whole(b"out")));
    let steps: Vec<_> = delivery
        .transitions
        .iter()
        .map(|step| (step.state, step.observed_by.as_str()))
        .collect();
    assert_eq!(
        steps,
        [
            (State::Accepted, "central"),
            (State::Sent, "central"),
            (State::Succeeded, "ship1")
        ]
    );
    assert!(view.version > 0);
    assert_eq!(
        reader.events(0, 100).expect("readable").len(),
        4,
        "accepted counts for both nodes"
    );
}

#[test]
fn lists_are_filtered_and_newest_first() {
    let directory = tempfile::tempdir().expect("a folder");
    let mut store = open(&directory);
    store
        .commit(&[accepted(1), accepted(2), moved(1, 1, State::Failed)])
        .expect("commits");
    let reader = Reader::open(store.path()).expect("opens");
    let list = |filter: &MessageFilter| -> Vec<MessageId> {
        reader
            .messages(filter)
            .expect("readable")
            .into_iter()
            .map(|line| line.id)
            .collect()
    };
    assert_eq!(list(&MessageFilter::default()), [id(2), id(1)]);
    assert_eq!(
        list(&MessageFilter {
            limit: 1,
            ..MessageFilter::default()
        }),
        [id(2)]
    );
    assert_eq!(
        list(&MessageFilter {
            state: Some(State::Failed),
            ..MessageFilter::default()
        }),
        [id(1)]
    );
    assert_eq!(
        list(&MessageFilter {
            node: Some(ship(9)),
            ..MessageFilter::default()
        }),
        []
    );
    assert_eq!(
        list(&MessageFilter {
            since: Some(at(1)),
            ..MessageFilter::default()
        }),
        []
    );
    assert_eq!(
        reader
            .name("00000000-0000-0000-0000-000000000001")
            .expect("readable"),
        Named::One(id(1))
    );
    assert_eq!(reader.name("0000").expect("readable"), Named::Several);
    assert_eq!(reader.name("ff").expect("readable"), Named::None);
    assert_eq!(reader.name("'; DROP").expect("readable"), Named::None);
}
