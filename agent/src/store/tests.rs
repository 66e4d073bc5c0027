//! The journal's file: created whole, opened again, refused when it is not ours to touch.

use std::fs;

use tempfile::TempDir;
use uuid::Uuid;

use super::*;
use crate::journal::{
    Deadline, Entry, Phase, Pinned, Revoked, Started,
    local::{LocalOrder, Source},
    schedule::{Progress, Schedule},
};

fn owner(node: &str) -> Owner {
    Owner {
        node: node.parse().expect("a name"),
        fresh: JournalId(Uuid::new_v4()),
    }
}

fn dir() -> TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

#[test]
fn a_journal_keeps_its_id_and_counts_its_starts() {
    let dir = dir();
    let first = owner("ship1");
    for start in 1..=3 {
        let store = Store::open(
            dir.path(),
            &if start == 1 {
                first.clone()
            } else {
                owner("ship1")
            },
        )
        .expect("it opens");
        let identity = store.image().expect("it reads").identity;
        assert_eq!((identity.journal_id, identity.starts), (first.fresh, start));
    }
    assert!(!dir.path().join(NEW_FILE).exists());
}

#[test]
fn a_creation_cut_short_is_begun_again() {
    let dir = dir();
    fs::write(dir.path().join(NEW_FILE), "half a database").expect("a leftover");
    fs::write(dir.path().join("journal.db.new-wal"), "half a log").expect("a leftover");
    let store = Store::open(dir.path(), &owner("ship1")).expect("it opens");
    assert_eq!(store.image().expect("it reads").identity.starts, 1);
}

#[test]
fn a_newer_file_another_nodes_file_and_a_file_in_use_are_refused() {
    let dir = dir();
    let store = Store::open(dir.path(), &owner("ship1")).expect("it opens");
    let used = Store::open(dir.path(), &owner("ship1"));
    assert!(matches!(used, Err(StoreError::Locked { .. })));
    drop(store);
    let other = Store::open(dir.path(), &owner("ship2"));
    assert!(matches!(other, Err(StoreError::OtherNode { found, .. }) if found == "ship1"));
    let connection = Connection::open(dir.path().join(FILE)).expect("the file opens");
    connection
        .pragma_update(None, "user_version", 99)
        .expect("a newer version");
    drop(connection);
    let newer = Store::open(dir.path(), &owner("ship1"));
    assert!(matches!(newer, Err(StoreError::Newer { .. })), "{newer:?}");
}

#[test]
fn a_file_that_is_no_database_is_an_error_and_is_left_alone() {
    let dir = dir();
    let path = dir.path().join(FILE);
    fs::write(
        &path,
        "this is no database, and long enough to be looked at as one",
    )
    .expect("a file");
    assert!(Store::open(dir.path(), &owner("ship1")).is_err());
    assert!(
        fs::read_to_string(&path)
            .expect("still there")
            .starts_with("this is no database")
    );
}

#[test]
fn the_pin_comes_back_and_a_failed_commit_changes_nothing() {
    let dir = dir();
    let mut store = Store::open(dir.path(), &owner("ship1")).expect("it opens");
    let mut identity = store.image().expect("it reads").identity;
    identity.pinned = Some(Pinned {
        ledger_id: steward_protocol::LedgerId(Uuid::new_v4()),
        epoch: 7,
        low: 9,
    });
    store
        .commit(&[Write::Identity(identity)])
        .expect("it writes");
    assert_eq!(store.image().expect("it reads").identity, identity);
    let moved = Identity {
        pinned: None,
        ..identity
    };
    let missing = Write::DropOutput(Ticket(77));
    assert!(store.commit(&[Write::Identity(moved), missing]).is_err());
    assert_eq!(store.image().expect("it reads").identity, identity);
}

fn started(revoked: Option<Revoked>) -> Entry {
    let at = "2026-01-01T00:00:00.123456789Z".parse().expect("a time");
    Entry {
        id: steward_protocol::MessageId(Uuid::from_u128(1)),
        digest: steward_protocol::Digest::of(b"an order"),
        subject: "ship1.command.shellcommand.x".parse().expect("a subject"),
        ledger_id: steward_protocol::LedgerId(Uuid::from_u128(2)),
        pos: 1,
        seq: Some(1),
        idempotent: true,
        timeout_ms: 1000,
        expires_at: at,
        deadline: Deadline {
            boot_id: "boot-1".into(),
            boot_ms: 5,
        },
        starts: 1,
        phase: Phase::Started(Started {
            at,
            boot_id: "boot-1".into(),
            boot_ms: 6,
            child: None,
            revoked,
        }),
        at,
    }
}

#[test]
fn who_wants_a_started_order_stopped_comes_back() {
    let dir = dir();
    let mut store = Store::open(dir.path(), &owner("ship1")).expect("it opens");
    let revoked = Revoked {
        by: "ann".to_owned(),
        at: "2026-01-01T00:00:01.5Z".parse().expect("a time"),
    };
    for entry in [started(None), started(Some(revoked))] {
        let write = Write::Entry(Ticket(1), Box::new(entry.clone()));
        store.commit(&[write]).expect("it writes");
        let entries = store.image().expect("it reads").entries;
        assert_eq!(entries, [(Ticket(1), entry)]);
    }
}

#[test]
fn a_file_of_the_first_version_is_brought_up_to_date_and_keeps_its_orders() {
    let dir = dir();
    let mut store = Store::open(dir.path(), &owner("ship1")).expect("it opens");
    let entry = started(None);
    let write = Write::Entry(Ticket(1), Box::new(entry.clone()));
    store.commit(&[write]).expect("it writes");
    drop(store);
    let connection = Connection::open(dir.path().join(FILE)).expect("the file opens");
    connection
        .execute_batch(
            "ALTER TABLE orders DROP COLUMN revoked_by;
             ALTER TABLE orders DROP COLUMN revoked_at;
             ALTER TABLE events DROP COLUMN kind;
             DROP TABLE spool; DROP TABLE local_orders; DROP TABLE schedules;
             PRAGMA user_version = 1;",
        )
        .expect("as the first version left it");
    drop(connection);
    let store = Store::open(dir.path(), &owner("ship1")).expect("it opens");
    let entries = store.image().expect("it reads").entries;
    assert_eq!(entries, [(Ticket(1), entry)]);
}

#[test]
fn a_file_of_the_second_version_keeps_its_faults_and_learns_to_keep_more() {
    let dir = dir();
    drop(Store::open(dir.path(), &owner("ship1")).expect("it opens"));
    let connection = Connection::open(dir.path().join(FILE)).expect("the file opens");
    connection
        .execute_batch(
            r#"ALTER TABLE events DROP COLUMN kind;
             DROP TABLE spool; DROP TABLE local_orders; DROP TABLE schedules;
             INSERT INTO events (rank, id, event) VALUES (3, zeroblob(16),
                 '{"id":"00000000-0000-0000-0000-000000000000","at":"1970-01-01T00:00:00Z",
                   "kind":"panic","detail":"it broke","verdict":"continue"}');
             PRAGMA user_version = 2;"#,
        )
        .expect("as the second version left it");
    drop(connection);
    let mut store = Store::open(dir.path(), &owner("ship1")).expect("it opens");
    let image = store.image().expect("it reads");
    assert_eq!((image.events.len(), image.dropped), (1, 0));
    let kept = store.event(3).expect("it reads").expect("it is there");
    assert!(matches!(kept, Notice::Fault(fault) if fault.detail == "it broke"));
    store.commit(&[Write::Dropped(5)]).expect("it writes");
    assert_eq!(store.image().expect("it reads").dropped, 5);
}

fn local() -> LocalOrder {
    let at: jiff::Timestamp = "2026-01-01T00:00:00Z".parse().expect("a time");
    let order = steward_protocol::Order {
        id: steward_protocol::MessageId(Uuid::from_u128(9)),
        from: "central".parse().expect("a name"),
        to: "ship1".parse().expect("a name"),
        subject: "ship1.command.shellcommand.x".parse().expect("a subject"),
        issued_at: at,
        expires_at: at,
        submitted_by: "node:ship1".to_owned(),
        retry_of: None,
        timeout_ms: 5,
        ordered: false,
        idempotent: false,
        success_codes: vec![0],
        stream: false,
        body: serde_json::value::RawValue::from_string(r#"{"data":["true"]}"#.to_owned())
            .expect("JSON"),
    };
    let order = steward_protocol::Sealed::seal(order).expect("an order");
    let mut entry = started(None);
    (entry.id, entry.digest) = (order.order().id, order.digest());
    LocalOrder {
        entry,
        source: Source::Startup("10:x.json".to_owned()),
        order,
    }
}

#[test]
fn a_local_order_and_a_schedule_come_back() {
    let dir = dir();
    let mut store = Store::open(dir.path(), &owner("ship1")).expect("it opens");
    let ticket = Ticket((1 << 62) | 7);
    let body: steward_protocol::body::ScheduleBody = serde_json::from_str(
        r#"{"schedule":"s","every":"1h","run":{"method":"ping","domain":"d"}}"#,
    )
    .expect("a body");
    let at = local().entry.at;
    let progress = Progress {
        set_at: at,
        nominal: at,
        due: at,
        runs: 3,
        skipped: 2,
        last: None,
    };
    let schedule = Schedule::restore(body, progress).expect("a schedule");
    let name: steward_protocol::Domain = "s".parse().expect("a name");
    let writes = [
        Write::Local(ticket, Box::new(local())),
        Write::Schedule(name.clone(), Box::new(schedule)),
    ];
    store.commit(&writes).expect("it writes");
    let image = store.image().expect("it reads");
    let [(found, kept)] = image.locals.as_slice() else {
        panic!("one order");
    };
    assert_eq!((*found, &kept.source), (ticket, &local().source));
    assert_eq!(kept.entry.phase, local().entry.phase);
    assert_eq!(kept.order.digest(), local().order.digest());
    assert_eq!(
        (image.schedules[0].1.runs, image.schedules[0].1.skipped),
        (3, 2)
    );
    let forgets = [Write::ForgetLocal(ticket), Write::ForgetSchedule(name)];
    store.commit(&forgets).expect("it writes");
    let image = store.image().expect("it reads");
    assert!(image.locals.is_empty() && image.schedules.is_empty());
}
