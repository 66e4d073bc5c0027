//! Tests of what the ledger keeps of cancellations, holds and lineage.

use super::*;
use crate::courier::Replay;

/// A message that repeats `old` and waits for it on ship 1.
fn repeating(pos: u64, old: u64) -> Record {
    let Record::Accepted(accepted) = accepted(pos) else {
        unreachable!("it is one")
    };
    let mut accepted = (*accepted).clone();
    accepted.retry_of = Some(id(old));
    accepted.holds = vec![(ship(1), old)];
    Record::Accepted(Arc::new(accepted))
}

fn requested(pos: u64) -> Record {
    Record::CancelRequested {
        pos,
        node: ship(1),
        at: at(4),
        by: "uid:7".to_owned(),
    }
}

fn released(pos: u64) -> Record {
    Record::Released {
        pos,
        node: ship(1),
        at: at(5),
        by: station(),
        why: "released: settled".to_owned(),
    }
}

/// Makes the records durable and returns what a restart finds: by this ledger, and by the one in memory.
fn both(records: &[Record]) -> (String, String) {
    let directory = tempfile::tempdir().expect("a folder");
    let mut store = open(&directory);
    let mut replay = Replay::new(store.ledger_id());
    for record in records {
        store.commit(std::slice::from_ref(record)).expect("commits");
        replay.record(record);
    }
    drop(store);
    let store = open(&directory);
    let mut kept = store.load().expect("loads");
    let remembered = replay.load(store.epoch());
    // A reign skips places, so that those of a lost one are not given out twice.
    assert!(kept.next_pos >= remembered.next_pos);
    kept.next_pos = remembered.next_pos;
    (format!("{kept:#?}"), format!("{remembered:#?}"))
}

#[test]
fn the_ledger_in_memory_finds_what_the_ledger_finds() {
    let records = [
        accepted(1),
        attempt(1, 1),
        attempt(1, 2),
        requested(1),
        repeating(2, 1),
        accepted(3),
        attempt(3, 1),
        moved(3, 1, State::Received),
        moved(3, 1, State::Running),
        moved(1, 1, State::Cancelled),
        released(2),
        attempt(2, 1),
        Record::LanesReset {
            node: ship(1),
            at: at(6),
        },
        moved(3, 1, State::Interrupted),
        moved(3, 2, State::Cancelled),
    ];
    for length in 0..=records.len() {
        let (kept, remembered) = both(&records[..length]);
        assert_eq!(kept, remembered, "after {length} records");
    }
}

#[test]
fn a_cancellation_is_kept_with_who_asked_first() {
    let directory = tempfile::tempdir().expect("a folder");
    let mut store = open(&directory);
    store
        .commit(&[accepted(1), attempt(1, 1)])
        .expect("commits");
    let reader = Reader::open(store.path()).expect("opens");
    let before = reader.version(id(1)).expect("readable");
    let later = Record::CancelRequested {
        pos: 1,
        node: ship(1),
        at: at(9),
        by: "uid:8".to_owned(),
    };
    store.commit(&[requested(1), later]).expect("commits");
    let view = reader
        .message(id(1), None, Depth::Full)
        .expect("readable")
        .expect("there");
    let delivery = &view.deliveries[0];
    let cancel = delivery.cancel.as_ref().expect("asked for");
    assert_eq!((cancel.at, cancel.by.as_str()), (at(4), "uid:7"));
    assert_eq!(delivery.state, State::Sent, "a request is no proof");
    assert_eq!(delivery.notes.len(), 2);
    assert!(Some(view.version) > before, "whoever watches is told");
    assert_eq!(view.deliveries[1].cancel, None, "only there");
}

#[test]
fn messages_know_what_they_repeat_and_what_repeats_them() {
    let directory = tempfile::tempdir().expect("a folder");
    let mut store = open(&directory);
    let records = [accepted(1), attempt(1, 1), repeating(2, 1), repeating(3, 2)];
    store.commit(&records).expect("commits");
    let reader = Reader::open(store.path()).expect("opens");
    let view = |number| {
        reader
            .message(id(number), None, Depth::Full)
            .expect("readable")
            .expect("there")
    };
    assert_eq!((view(1).retry_of, view(1).retried_by), (None, vec![id(2)]));
    assert_eq!(
        (view(2).retry_of, view(2).retried_by),
        (Some(id(1)), vec![id(3)])
    );
    assert_eq!(view(2).deliveries[0].held_by, [id(1)]);
    assert!(
        view(2).deliveries[1].held_by.is_empty(),
        "only where it says so"
    );
    assert_eq!(
        view(2).deliveries[0].notes[0].text,
        format!("held until message {} is settled here", id(1))
    );
    let stored = store.stored(id(3)).expect("readable").expect("there");
    let mut lineage = stored.lineage.clone();
    lineage.sort_unstable();
    assert_eq!(lineage, [1, 2, 3]);
    assert_eq!(
        stored.message,
        message(&[ship(1), ship(2)]),
        "as it was asked for"
    );
    assert_eq!(
        store
            .order(&station(), 2, &ship(1))
            .expect("readable")
            .retry_of,
        Some(id(1))
    );
    store
        .commit(&[moved(1, 1, State::Failed)])
        .expect("commits");
    assert!(
        view(2).deliveries[0].held_by.is_empty(),
        "what is settled holds nothing"
    );
    store.commit(&[released(2)]).expect("commits");
    assert_eq!(view(2).deliveries[0].notes[1].text, "released: settled");
    assert_eq!(store.stored(id(9)).expect("readable"), None);
}

/// Makes the one message of the first program's ledger ours, on its way to ship 1.
const SENT_V1: &str = "
UPDATE message SET id = '00000000-0000-0000-0000-000000000001';
INSERT INTO event (at, kind, pos, node, state, by_whom, attempt, lane, seq)
VALUES (1800000001000, 'attempt', 1, 'ship1', 'sent', 'central', 1, 'command.shellcommand.operatingsystem', 1);
UPDATE delivery SET node = 'ship1', state = 'sent', final = 0, attempts = 3, seq = 1, version = 2;
INSERT INTO lane (node, lane, last_seq) VALUES ('ship1', 'command.shellcommand.operatingsystem', 1);
";

#[test]
fn a_ledger_of_the_first_schema_goes_on_where_it_was() {
    let directory = tempfile::tempdir().expect("a folder");
    let path = directory.path().join(FILE);
    let first = Connection::open(&path).expect("a database");
    first
        .execute_batch(include_str!("../../../tests/data/ledger_v1.sql"))
        .expect("the first program's ledger");
    first.execute_batch(SENT_V1).expect("a delivery on its way");
    drop(first);
    let mut store = open(&directory);
    let loaded = store.load().expect("loads");
    assert!(loaded.epoch >= 8 && loaded.next_pos >= 2);
    let open = &loaded.deliveries[0].open;
    assert_eq!(
        (
            open.state,
            open.seq,
            open.attempts,
            open.cancel.clone(),
            open.held_by.len()
        ),
        (State::Sent, Some(1), 3, None, 0)
    );
    store
        .commit(&[
            requested(1),
            repeating(2, 1),
            moved(1, 1, State::Cancelled),
            released(2),
        ])
        .expect("goes on");
    let reader = Reader::open(store.path()).expect("opens");
    let view = reader
        .message(id(1), None, Depth::Full)
        .expect("readable")
        .expect("there");
    assert_eq!(
        (view.deliveries[0].state, view.retried_by),
        (State::Cancelled, vec![id(2)])
    );
}
