//! The numbered migrations of the journal's file. Append only; never change one that was released.

use rusqlite_migration::{M, Migrations};

/// Version 1.
const FIRST: &str = "
CREATE TABLE identity (
    one         INTEGER PRIMARY KEY CHECK (one = 1),
    node        TEXT NOT NULL,
    journal_id  BLOB NOT NULL,
    starts      INTEGER NOT NULL,
    ledger_id   BLOB,
    epoch       INTEGER,
    low         INTEGER
) STRICT;

CREATE TABLE orders (
    ticket            INTEGER PRIMARY KEY,
    id                BLOB NOT NULL,
    digest            BLOB NOT NULL,
    subject           TEXT NOT NULL,
    ledger_id         BLOB NOT NULL,
    pos               INTEGER NOT NULL,
    seq               INTEGER,
    idempotent        INTEGER NOT NULL,
    timeout_ms        INTEGER NOT NULL,
    expires_at        TEXT NOT NULL,
    deadline_boot_id  TEXT NOT NULL,
    deadline_boot_ms  INTEGER NOT NULL,
    starts            INTEGER NOT NULL,
    state             TEXT NOT NULL,
    at                TEXT NOT NULL,
    started_at        TEXT,
    started_boot_id   TEXT,
    started_boot_ms   INTEGER,
    pid               INTEGER,
    pid_start_time    INTEGER,
    reason            TEXT,
    confirmed         INTEGER NOT NULL,
    output_bytes      INTEGER NOT NULL,
    text              TEXT,
    outcome           TEXT,
    UNIQUE (id, digest)
) STRICT;

CREATE TABLE lanes (
    subject  TEXT PRIMARY KEY,
    next     INTEGER NOT NULL,
    used     INTEGER NOT NULL
) STRICT;

CREATE TABLE events (
    rank   INTEGER PRIMARY KEY,
    id     BLOB NOT NULL,
    event  TEXT NOT NULL
) STRICT;
";

/// Version 2: who wants a started order stopped.
const REVOKED: &str = "
ALTER TABLE orders ADD COLUMN revoked_by TEXT;
ALTER TABLE orders ADD COLUMN revoked_at TEXT;
";

/// Version 3: events of several kinds, orders this node gives itself, schedules.
const LOCAL: &str = "
ALTER TABLE events ADD COLUMN kind TEXT NOT NULL DEFAULT 'fault';

CREATE TABLE spool (
    one      INTEGER PRIMARY KEY CHECK (one = 1),
    dropped  INTEGER NOT NULL
) STRICT;

CREATE TABLE local_orders (
    ticket           INTEGER PRIMARY KEY,
    source           TEXT NOT NULL,
    text             TEXT NOT NULL,
    starts           INTEGER NOT NULL,
    state            TEXT NOT NULL,
    at               TEXT NOT NULL,
    started_at       TEXT,
    started_boot_id  TEXT,
    started_boot_ms  INTEGER,
    pid              INTEGER,
    pid_start_time   INTEGER
) STRICT;

CREATE TABLE schedules (
    name            TEXT PRIMARY KEY,
    body            TEXT NOT NULL,
    set_at          TEXT NOT NULL,
    nominal         TEXT NOT NULL,
    due             TEXT NOT NULL,
    runs            INTEGER NOT NULL,
    skipped         INTEGER NOT NULL,
    last_id         BLOB,
    last_at         TEXT,
    last_state      TEXT,
    last_exit_code  INTEGER
) STRICT;
";

/// Returns every migration, in order.
pub(super) fn migrations() -> Migrations<'static> {
    Migrations::new(vec![M::up(FIRST), M::up(REVOKED), M::up(LOCAL)])
}
