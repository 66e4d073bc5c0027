//! The ledger's schema: numbered, append-only migrations. A file newer than this program is refused.

use std::{path::Path, sync::LazyLock};

use rusqlite::Connection;
use rusqlite_migration::{M, Migrations};

use super::{StoreError, sql};

/// Every migration there ever was, oldest first. A published one is never edited.
const STEPS: &[&str] = &[
    "
CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;

-- One record per accepted message, with its target set in `delivery`.
CREATE TABLE message (
    pos          INTEGER PRIMARY KEY,
    id           TEXT NOT NULL UNIQUE,
    name         TEXT,
    source       TEXT NOT NULL,
    submitted_by TEXT NOT NULL,
    accepted_at  INTEGER NOT NULL,      -- milliseconds since 1970, UTC; so are all times here
    expires_at   INTEGER NOT NULL,
    kind         TEXT NOT NULL,
    method       TEXT NOT NULL,
    domain       TEXT NOT NULL,
    options      TEXT NOT NULL,         -- JSON
    body         TEXT NOT NULL,         -- JSON
    content      BLOB NOT NULL,         -- BLAKE3 of what was asked, without the id
    retry_of     TEXT,
    intake       TEXT                   -- the inbox's claim it came with
) STRICT;
CREATE INDEX message_by_intake ON message (intake) WHERE intake IS NOT NULL;
CREATE INDEX message_by_time ON message (accepted_at);

-- The append-only truth.
CREATE TABLE event (
    n       INTEGER PRIMARY KEY AUTOINCREMENT,
    at      INTEGER NOT NULL,
    kind    TEXT NOT NULL,              -- accepted, attempt, moved, lanes_reset
    pos     INTEGER,
    node    TEXT,
    state   TEXT,                       -- the state entered, where one was
    by_whom TEXT,
    why     TEXT,
    attempt INTEGER,
    lane    TEXT,
    seq     INTEGER,
    ack     TEXT                        -- JSON, as the node said it
) STRICT;
CREATE INDEX event_of_delivery ON event (pos, node);

-- Derived from here on.
CREATE TABLE delivery (
    pos         INTEGER NOT NULL REFERENCES message (pos) ON DELETE CASCADE,
    node        TEXT NOT NULL,
    digest      BLOB NOT NULL,          -- BLAKE3 of the order's bytes for this node
    state       TEXT NOT NULL,
    final       INTEGER NOT NULL,
    since       INTEGER NOT NULL,
    by_whom     TEXT NOT NULL,
    why         TEXT,
    attempts    INTEGER NOT NULL,       -- a counter: only the first attempt is an event
    seq         INTEGER,
    version     INTEGER NOT NULL,       -- n of its last event
    result      INTEGER,                -- n of the event whose ACK carries the outcome
    PRIMARY KEY (pos, node)
) STRICT, WITHOUT ROWID;
CREATE INDEX delivery_open ON delivery (node, pos) WHERE final = 0;
CREATE INDEX delivery_by_state ON delivery (state, pos);

CREATE TABLE lane (
    node     TEXT NOT NULL,
    lane     TEXT NOT NULL,
    last_seq INTEGER NOT NULL,          -- the last number given out
    PRIMARY KEY (node, lane)
) STRICT, WITHOUT ROWID;

CREATE TABLE node (
    name       TEXT PRIMARY KEY,
    journal_id TEXT,
    counter    INTEGER NOT NULL,
    instance   TEXT,
    boot_id    TEXT,
    version    TEXT,
    labels     TEXT NOT NULL,           -- JSON
    heartbeat  INTEGER NOT NULL,        -- milliseconds
    last_seen  INTEGER
) STRICT;

CREATE TABLE fault (
    n       INTEGER PRIMARY KEY AUTOINCREMENT,
    id      TEXT UNIQUE,
    at      INTEGER NOT NULL,
    node    TEXT,
    kind    TEXT NOT NULL,
    subject TEXT,
    detail  TEXT NOT NULL,
    verdict TEXT NOT NULL
) STRICT;
",
    "
-- Cancellation: who asked first, and when. Kinds of event added: cancel_requested, held, released.
ALTER TABLE delivery ADD COLUMN cancel_at INTEGER;
ALTER TABLE delivery ADD COLUMN cancel_by TEXT;
ALTER TABLE event ADD COLUMN other INTEGER; -- the place of the message it is held for

-- Repetition: what must be settled on the node before this is sent. Rows go when it is let go; one
-- whose holder is final has no meaning any more.
CREATE TABLE hold (
    pos    INTEGER NOT NULL,
    node   TEXT NOT NULL,
    holder INTEGER NOT NULL,
    PRIMARY KEY (pos, node, holder),
    FOREIGN KEY (pos, node) REFERENCES delivery (pos, node) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
CREATE INDEX hold_by_holder ON hold (holder, node);
CREATE INDEX message_by_retry ON message (retry_of) WHERE retry_of IS NOT NULL;
",
    "
-- What is still to be written below results/, in this order. Kinds of event added: reply.
CREATE TABLE errand (
    n       INTEGER PRIMARY KEY AUTOINCREMENT,
    path    TEXT NOT NULL,             -- below results/
    how     TEXT NOT NULL,             -- file, append
    content BLOB,                      -- without it: the standard output of the delivery
    pos     INTEGER,
    node    TEXT,
    inode   INTEGER,                   -- of an append that was begun: which file,
    base    INTEGER,                   -- and where in it
    tries   INTEGER NOT NULL DEFAULT 0,
    why     TEXT,
    FOREIGN KEY (pos, node) REFERENCES delivery (pos, node) ON DELETE CASCADE
) STRICT;
CREATE INDEX errand_by_path ON errand (path, n);
CREATE INDEX errand_of_delivery ON errand (pos, node);

-- Texts that are stored, so that none is stored twice.
CREATE TABLE text_event (
    id TEXT PRIMARY KEY,
    at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX text_event_by_time ON text_event (at);
",
    "
-- Starts of the agent that a later one took over from, as JSON: a hello of theirs that was long on its
-- way is known again after a restart.
ALTER TABLE node ADD COLUMN superseded TEXT NOT NULL DEFAULT '[]';
",
];

static MIGRATIONS: LazyLock<Migrations<'static>> =
    LazyLock::new(|| Migrations::new(STEPS.iter().map(|step| M::up(step)).collect()));

/// Brings the schema up to date.
pub(super) fn migrate(connection: &mut Connection, path: &Path) -> Result<(), StoreError> {
    let found: i64 = connection
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(sql("read the schema version"))?;
    let known = i64::try_from(STEPS.len()).unwrap_or(i64::MAX);
    if found > known {
        return Err(StoreError::Newer {
            path: path.to_owned(),
            found,
            known,
        });
    }
    MIGRATIONS
        .to_latest(connection)
        .map_err(|source| StoreError::Migrate {
            path: path.to_owned(),
            source: Box::new(source),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_migrations_are_valid() {
        MIGRATIONS
            .validate()
            .expect("every step applies to the one before");
    }
}
