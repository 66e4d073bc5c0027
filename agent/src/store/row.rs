//! Between the journal's types and the rows of its tables.

use std::sync::Arc;

use jiff::Timestamp;
use rusqlite::{Connection, Row, params};
use serde::de::DeserializeOwned;
use steward_protocol::{
    Digest, EventId, JournalId, LedgerId, MessageId, NodeName, Outcome, Output, State, Subject,
};
use uuid::Uuid;

use super::{StoreError, local, sql};
use crate::journal::{
    ChildMark, Deadline, Ending, Entry, Identity, Phase, Pinned, Revoked, Started, Ticket, Write,
    lanes::Lane, spool::Kept,
};

/// Returns a number as the database keeps it. Ours stay far below its limit of 2^63.
pub(super) fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub(super) fn count(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

pub(super) fn blob(id: Uuid) -> [u8; 16] {
    id.into_bytes()
}

pub(super) fn json<T: DeserializeOwned>(
    what: &'static str,
    row: i64,
    text: &str,
) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|error| StoreError::Damaged {
        what,
        row,
        detail: error.to_string(),
    })
}

/// One row being read, with its number for the message about what is wrong with it.
pub(super) struct Reading<'a> {
    row: &'a Row<'a>,
    pub(super) number: i64,
}

impl Reading<'_> {
    pub(super) fn get<T: rusqlite::types::FromSql>(
        &self,
        what: &'static str,
    ) -> Result<T, StoreError> {
        self.row
            .get(what)
            .map_err(|error| self.damaged(what, &error.to_string()))
    }

    pub(super) fn count(&self, what: &'static str) -> Result<u64, StoreError> {
        self.get(what).map(count)
    }

    pub(super) fn text<T: std::str::FromStr>(&self, what: &'static str) -> Result<T, StoreError> {
        let text: String = self.get(what)?;
        text.parse()
            .map_err(|_| self.damaged(what, &format!("{text:?}")))
    }

    pub(super) fn uuid(&self, what: &'static str) -> Result<Uuid, StoreError> {
        self.get(what).map(Uuid::from_bytes)
    }

    pub(super) fn damaged(&self, what: &'static str, detail: &str) -> StoreError {
        StoreError::Damaged {
            what,
            row: self.number,
            detail: detail.to_owned(),
        }
    }

    pub(super) fn started(&self) -> Result<Started, StoreError> {
        let pid: Option<i32> = self.get("pid")?;
        let start_time: Option<i64> = self.get("pid_start_time")?;
        let boot_id: String = self.get("started_boot_id")?;
        Ok(Started {
            at: self.text("started_at")?,
            boot_id: boot_id.into(),
            boot_ms: self.count("started_boot_ms")?,
            child: pid.zip(start_time).map(|(pid, start_time)| ChildMark {
                pid,
                start_time: count(start_time),
            }),
            revoked: self.revoked()?,
        })
    }

    fn revoked(&self) -> Result<Option<Revoked>, StoreError> {
        let by: Option<String> = self.get("revoked_by")?;
        by.map(|by| {
            let at = self.text("revoked_at")?;
            Ok(Revoked { by, at })
        })
        .transpose()
    }

    fn phase(&self) -> Result<Phase, StoreError> {
        let state: State = self.text("state")?;
        match state {
            State::Received => Ok(Phase::Received),
            State::Running => self.started().map(Phase::Started),
            state if state.is_final() => Ok(Phase::Final(Ending {
                state,
                reason: self.get("reason")?,
                confirmed: self.get("confirmed")?,
                output_bytes: self.count("output_bytes")?,
            })),
            state => Err(self.damaged("state", state.as_str())),
        }
    }

    fn entry(&self) -> Result<Entry, StoreError> {
        let deadline_boot_id: String = self.get("deadline_boot_id")?;
        let digest: [u8; 32] = self.get("digest")?;
        Ok(Entry {
            id: MessageId(self.uuid("id")?),
            digest: Digest::from(digest),
            subject: self.text::<Subject>("subject")?,
            ledger_id: LedgerId(self.uuid("ledger_id")?),
            pos: self.count("pos")?,
            seq: self.get::<Option<i64>>("seq")?.map(count),
            idempotent: self.get("idempotent")?,
            timeout_ms: self.count("timeout_ms")?,
            expires_at: self.text::<Timestamp>("expires_at")?,
            deadline: Deadline {
                boot_id: Arc::from(deadline_boot_id),
                boot_ms: self.count("deadline_boot_ms")?,
            },
            starts: self.get("starts")?,
            phase: self.phase()?,
            at: self.text::<Timestamp>("at")?,
        })
    }
}

/// Reads every row a query returns; the first column is the row's number.
pub(super) fn all<T>(
    connection: &Connection,
    query: &str,
    read: impl Fn(&Reading<'_>) -> Result<T, StoreError>,
) -> Result<Vec<T>, StoreError> {
    let doing = "read the journal";
    let mut statement = connection.prepare(query).map_err(sql(doing))?;
    let mut rows = statement.query([]).map_err(sql(doing))?;
    let mut found = Vec::new();
    while let Some(row) = rows.next().map_err(sql(doing))? {
        let number = row.get(0).map_err(sql(doing))?;
        found.push(read(&Reading { row, number })?);
    }
    Ok(found)
}

pub(super) fn identity(connection: &Connection) -> Result<Identity, StoreError> {
    let found = all(connection, "SELECT * FROM identity", |row| {
        let ledger_id: Option<[u8; 16]> = row.get("ledger_id")?;
        let pinned = match ledger_id {
            Some(ledger_id) => Some(Pinned {
                ledger_id: LedgerId(Uuid::from_bytes(ledger_id)),
                epoch: row.count("epoch")?,
                low: row.count("low")?,
            }),
            None => None,
        };
        Ok(Identity {
            journal_id: JournalId(row.uuid("journal_id")?),
            starts: row.count("starts")?,
            pinned,
        })
    })?;
    found.into_iter().next().ok_or(StoreError::Damaged {
        what: "identity",
        row: 1,
        detail: "it is missing".to_owned(),
    })
}

pub(super) fn entries(connection: &Connection) -> Result<Vec<(Ticket, Entry)>, StoreError> {
    let query = "SELECT ticket, id, digest, subject, ledger_id, pos, seq, idempotent, timeout_ms,
        expires_at, deadline_boot_id, deadline_boot_ms, starts, state, at, started_at,
        started_boot_id, started_boot_ms, pid, pid_start_time, reason, confirmed, output_bytes,
        revoked_by, revoked_at FROM orders ORDER BY ticket";
    all(connection, query, |row| {
        Ok((Ticket(count(row.number)), row.entry()?))
    })
}

pub(super) fn lanes(connection: &Connection) -> Result<Vec<(Subject, Lane)>, StoreError> {
    let query = "SELECT rowid, subject, next, used FROM lanes";
    all(connection, query, |row| {
        let lane = Lane {
            next: row.count("next")?,
            used: row.count("used")?,
        };
        Ok((row.text("subject")?, lane))
    })
}

pub(super) fn events(connection: &Connection) -> Result<Vec<Kept>, StoreError> {
    let query = "SELECT rank, id, length(CAST(event AS BLOB)) AS bytes,
        kind = 'text' AS is_text FROM events";
    all(connection, query, |row| {
        Ok(Kept {
            rank: count(row.number),
            id: EventId(row.uuid("id")?),
            bytes: row.count("bytes")?,
            is_text: row.get("is_text")?,
        })
    })
}

pub(super) fn insert_identity(
    connection: &Connection,
    node: &NodeName,
    identity: &Identity,
) -> Result<(), StoreError> {
    let journal_id = blob(identity.journal_id.0);
    connection
        .execute(
            "INSERT INTO identity (one, node, journal_id, starts) VALUES (1, ?1, ?2, ?3)",
            params![node.as_str(), journal_id, number(identity.starts)],
        )
        .map(drop)
        .map_err(sql("write whose journal this is"))
}

/// Carries out one write.
pub(super) fn apply(connection: &Connection, write: &Write) -> Result<(), StoreError> {
    match write {
        Write::Identity(identity) => update_identity(connection, identity),
        Write::Entry(ticket, entry) => upsert(connection, *ticket, entry),
        Write::Text(ticket, text) => run(
            connection,
            "UPDATE orders SET text = ?2 WHERE ticket = ?1",
            params![number(ticket.0), text],
        ),
        Write::DropText(ticket) => run(
            connection,
            "UPDATE orders SET text = NULL WHERE ticket = ?1",
            params![number(ticket.0)],
        ),
        Write::Outcome(ticket, outcome) => set_outcome(connection, *ticket, outcome),
        Write::DropOutput(ticket) => drop_output(connection, *ticket),
        Write::Forget(ticket) => run(
            connection,
            "DELETE FROM orders WHERE ticket = ?1",
            params![number(ticket.0)],
        ),
        Write::Lane(subject, lane) => run(
            connection,
            "INSERT INTO lanes (subject, next, used) VALUES (?1, ?2, ?3)
             ON CONFLICT (subject) DO UPDATE SET next = excluded.next, used = excluded.used",
            params![subject.to_string(), number(lane.next), number(lane.used)],
        ),
        Write::ForgetLane(subject) => run(
            connection,
            "DELETE FROM lanes WHERE subject = ?1",
            params![subject.to_string()],
        ),
        Write::Event(rank, event) => run(
            connection,
            "INSERT INTO events (rank, id, event, kind) VALUES (?1, ?2, ?3, ?4)",
            params![
                number(*rank),
                blob(event.id().0),
                written(&**event)?,
                event.kind()
            ],
        ),
        Write::ForgetEvent(rank) => run(
            connection,
            "DELETE FROM events WHERE rank = ?1",
            params![number(*rank)],
        ),
        Write::Dropped(_)
        | Write::Local(..)
        | Write::ForgetLocal(_)
        | Write::Schedule(..)
        | Write::ForgetSchedule(_) => local::apply(connection, write),
    }
}

pub(super) fn run(
    connection: &Connection,
    query: &str,
    values: impl rusqlite::Params,
) -> Result<(), StoreError> {
    connection
        .prepare_cached(query)
        .and_then(|mut statement| statement.execute(values))
        .map(drop)
        .map_err(sql("write the journal"))
}

pub(super) fn written<T: serde::Serialize>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Damaged {
        what: "a value to be written",
        row: 0,
        detail: error.to_string(),
    })
}

fn update_identity(connection: &Connection, identity: &Identity) -> Result<(), StoreError> {
    let pinned = identity.pinned;
    run(
        connection,
        "UPDATE identity SET ledger_id = ?1, epoch = ?2, low = ?3",
        params![
            pinned.map(|pinned| blob(pinned.ledger_id.0)),
            pinned.map(|pinned| number(pinned.epoch)),
            pinned.map(|pinned| number(pinned.low)),
        ],
    )
}

/// The columns of an entry, in the order of the values below.
const UPSERT: &str = "
INSERT INTO orders (ticket, id, digest, subject, ledger_id, pos, seq, idempotent, timeout_ms,
    expires_at, deadline_boot_id, deadline_boot_ms, starts, state, at, started_at, started_boot_id,
    started_boot_ms, pid, pid_start_time, reason, confirmed, output_bytes, revoked_by, revoked_at)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20,
    ?21, ?22, ?23, ?24, ?25)
ON CONFLICT (ticket) DO UPDATE SET
    deadline_boot_id = excluded.deadline_boot_id, deadline_boot_ms = excluded.deadline_boot_ms,
    starts = excluded.starts, state = excluded.state, at = excluded.at,
    started_at = excluded.started_at, started_boot_id = excluded.started_boot_id,
    started_boot_ms = excluded.started_boot_ms, pid = excluded.pid,
    pid_start_time = excluded.pid_start_time, reason = excluded.reason,
    confirmed = excluded.confirmed, output_bytes = excluded.output_bytes,
    revoked_by = excluded.revoked_by, revoked_at = excluded.revoked_at";

fn upsert(connection: &Connection, ticket: Ticket, entry: &Entry) -> Result<(), StoreError> {
    let started = match &entry.phase {
        Phase::Started(started) => Some(started),
        Phase::Received | Phase::Final(_) => None,
    };
    let ending = match &entry.phase {
        Phase::Final(ending) => Some(ending),
        Phase::Received | Phase::Started(_) => None,
    };
    let child = started.and_then(|started| started.child);
    let revoked = started.and_then(|started| started.revoked.as_ref());
    run(
        connection,
        UPSERT,
        params![
            number(ticket.0),
            blob(entry.id.0),
            entry.digest.as_bytes(),
            entry.subject.to_string(),
            blob(entry.ledger_id.0),
            number(entry.pos),
            entry.seq.map(number),
            entry.idempotent,
            number(entry.timeout_ms),
            entry.expires_at.to_string(),
            &*entry.deadline.boot_id,
            number(entry.deadline.boot_ms),
            entry.starts,
            entry.phase.state().as_str(),
            entry.at.to_string(),
            started.map(|started| started.at.to_string()),
            started.map(|started| &*started.boot_id),
            started.map(|started| number(started.boot_ms)),
            child.map(|child| child.pid),
            child.map(|child| number(child.start_time)),
            ending.and_then(|ending| ending.reason.as_deref()),
            ending.is_some_and(|ending| ending.confirmed),
            ending.map_or(0, |ending| number(ending.output_bytes)),
            revoked.map(|revoked| &*revoked.by),
            revoked.map(|revoked| revoked.at.to_string()),
        ],
    )
}

fn set_outcome(
    connection: &Connection,
    ticket: Ticket,
    outcome: &Outcome,
) -> Result<(), StoreError> {
    run(
        connection,
        "UPDATE orders SET outcome = ?2 WHERE ticket = ?1",
        params![number(ticket.0), written(outcome)?],
    )
}

/// Keeps an outcome's lengths and digests, and lets its bytes go.
fn drop_output(connection: &Connection, ticket: Ticket) -> Result<(), StoreError> {
    let text: Option<String> = connection
        .query_row(
            "SELECT outcome FROM orders WHERE ticket = ?1",
            params![number(ticket.0)],
            |row| row.get(0),
        )
        .map_err(sql("read an outcome from the journal"))?;
    let Some(text) = text else { return Ok(()) };
    let mut outcome: Outcome = json("an outcome", number(ticket.0), &text)?;
    let streams = [&mut outcome.stdout, &mut outcome.stderr];
    for output in streams.into_iter().flatten() {
        Output::shrink(output, 0);
    }
    set_outcome(connection, ticket, &outcome)
}
