-- The ledger as the first program left it: its schema, and one message on its way to one node.
-- Frozen, as a published migration is.
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

INSERT INTO meta (key, value) VALUES ('ledger_id', '0190f000-0000-4000-8000-000000000001'), ('epoch', '3'), ('station', 'central');
INSERT INTO message (pos, id, source, submitted_by, accepted_at, expires_at, kind, method, domain, options, body, content)
VALUES (1, '00000000-0000-0000-0000-000000000001', 'test', 'uid:0', 1800000000000, 1800086400000, 'command', 'shellcommand', 'operatingsystem',
        '{"timeout_ms":300000,"expires_ms":86400000,"ordered":true,"idempotent":false,"success_codes":[0]}',
        '{"data":["true"]}', zeroblob(32));
INSERT INTO event (at, kind, pos, state, by_whom) VALUES (1800000000000, 'accepted', 1, 'accepted', 'central');
INSERT INTO event (at, kind, pos, node, state, by_whom, attempt, lane, seq)
VALUES (1800000001000, 'attempt', 1, 'ship1', 'sent', 'central', 1, 'command.shellcommand.operatingsystem', 1);
INSERT INTO delivery (pos, node, digest, state, final, since, by_whom, attempts, seq, version)
VALUES (1, 'ship1', zeroblob(32), 'sent', 0, 1800000001000, 'central', 3, 1, 2);
INSERT INTO lane (node, lane, last_seq) VALUES ('ship1', 'command.shellcommand.operatingsystem', 1);
PRAGMA user_version = 1;
