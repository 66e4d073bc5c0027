//! The journal's file: created whole, opened again, refused when it is not ours to touch.

use std::fs;

use tempfile::TempDir;
use uuid::Uuid;

use super::*;
use crate::journal::Pinned;

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
