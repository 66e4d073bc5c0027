//! The rows of what this node gives itself: its orders, its schedules, and the events of the spool.

use std::sync::Arc;

use rusqlite::{Connection, params};
use steward_protocol::{Domain, LedgerId, MessageId, Sealed, State, body::ScheduleBody};
use uuid::Uuid;

use super::{
    StoreError,
    row::{Reading, all, blob, json, number, run, written},
};
use crate::journal::{
    Deadline, Entry, Phase, Ticket, Write,
    local::{LocalOrder, Source},
    schedule::{LastRun, Progress, Schedule},
    spool::Notice,
};

/// Reads an event of a kind.
pub(super) fn notice(row: i64, kind: &str, text: &str) -> Result<Notice, StoreError> {
    match kind {
        "fault" => json("an event", row, text).map(Notice::Fault),
        "text" => json("an event", row, text).map(Notice::Text),
        "report" => json("an event", row, text).map(Notice::Report),
        kind => Err(StoreError::Damaged {
            what: "the kind of an event",
            row,
            detail: format!("{kind:?}"),
        }),
    }
}

/// Returns how many events had to go so far.
pub(super) fn dropped(connection: &Connection) -> Result<u64, StoreError> {
    let found = all(connection, "SELECT one, dropped FROM spool", |row| {
        row.count("dropped")
    })?;
    Ok(found.first().copied().unwrap_or(0))
}

/// Returns the orders this node gave itself that are not over.
pub(super) fn orders(connection: &Connection) -> Result<Vec<(Ticket, LocalOrder)>, StoreError> {
    let query = "SELECT ticket, source, text, starts, state, at, started_at, started_boot_id,
        started_boot_ms, pid, pid_start_time, NULL AS revoked_by FROM local_orders ORDER BY ticket";
    all(connection, query, |row| {
        Ok((Ticket(row.number.unsigned_abs()), order(row)?))
    })
}

fn order(row: &Reading<'_>) -> Result<LocalOrder, StoreError> {
    let text: String = row.get("text")?;
    let order = Sealed::open(&text).map_err(|error| row.damaged("text", &error.to_string()))?;
    let phase = match row.text::<State>("state")? {
        State::Received => Phase::Received,
        State::Running => Phase::Started(row.started()?),
        state => return Err(row.damaged("state", state.as_str())),
    };
    let entry = Entry {
        id: order.order().id,
        digest: order.digest(),
        subject: order.order().subject.clone(),
        ledger_id: LedgerId(Uuid::nil()),
        pos: 0,
        seq: None,
        idempotent: false,
        timeout_ms: order.order().timeout_ms,
        expires_at: order.order().expires_at,
        deadline: Deadline {
            boot_id: Arc::from(""),
            boot_ms: 0,
        },
        starts: row.get("starts")?,
        phase,
        at: row.text("at")?,
    };
    Ok(LocalOrder {
        entry,
        source: row.text::<Source>("source")?,
        order,
    })
}

/// Returns the schedules.
pub(super) fn schedules(connection: &Connection) -> Result<Vec<(Domain, Schedule)>, StoreError> {
    let query = "SELECT rowid, name, body, set_at, nominal, due, runs, skipped, last_id, last_at,
        last_state, last_exit_code FROM schedules";
    all(connection, query, |row| {
        let body: String = row.get("body")?;
        let body: ScheduleBody = json("a schedule", row.number, &body)?;
        let progress = Progress {
            set_at: row.text("set_at")?,
            nominal: row.text("nominal")?,
            due: row.text("due")?,
            runs: row.count("runs")?,
            skipped: row.count("skipped")?,
            last: last(row)?,
        };
        let schedule = Schedule::restore(body, progress)
            .ok_or_else(|| row.damaged("body", "it says no time"))?;
        Ok((row.text("name")?, schedule))
    })
}

fn last(row: &Reading<'_>) -> Result<Option<LastRun>, StoreError> {
    let id: Option<[u8; 16]> = row.get("last_id")?;
    let state: Option<String> = row.get("last_state")?;
    id.map(|id| {
        Ok(LastRun {
            id: MessageId(Uuid::from_bytes(id)),
            at: row.text("last_at")?,
            state: state
                .is_some()
                .then(|| row.text("last_state"))
                .transpose()?,
            exit_code: row.get("last_exit_code")?,
        })
    })
    .transpose()
}

/// Carries out a write to these tables.
pub(super) fn apply(connection: &Connection, write: &Write) -> Result<(), StoreError> {
    match write {
        Write::Dropped(dropped) => run(
            connection,
            "INSERT INTO spool (one, dropped) VALUES (1, ?1)
             ON CONFLICT (one) DO UPDATE SET dropped = excluded.dropped",
            params![number(*dropped)],
        ),
        Write::Local(ticket, local) => put_order(connection, *ticket, local),
        Write::ForgetLocal(ticket) => run(
            connection,
            "DELETE FROM local_orders WHERE ticket = ?1",
            params![number(ticket.0)],
        ),
        Write::Schedule(name, schedule) => put_schedule(connection, name, schedule),
        Write::ForgetSchedule(name) => run(
            connection,
            "DELETE FROM schedules WHERE name = ?1",
            params![name.as_str()],
        ),
        _ => Ok(()),
    }
}

fn put_order(
    connection: &Connection,
    ticket: Ticket,
    local: &LocalOrder,
) -> Result<(), StoreError> {
    let entry = &local.entry;
    let started = match &entry.phase {
        Phase::Started(started) => Some(started),
        Phase::Received | Phase::Final(_) => None,
    };
    let child = started.and_then(|started| started.child);
    run(
        connection,
        "INSERT INTO local_orders (ticket, source, text, starts, state, at, started_at,
             started_boot_id, started_boot_ms, pid, pid_start_time)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)
         ON CONFLICT (ticket) DO UPDATE SET starts = excluded.starts, state = excluded.state,
             at = excluded.at, started_at = excluded.started_at,
             started_boot_id = excluded.started_boot_id,
             started_boot_ms = excluded.started_boot_ms, pid = excluded.pid,
             pid_start_time = excluded.pid_start_time",
        params![
            number(ticket.0),
            local.source.to_string(),
            local.order.text(),
            entry.starts,
            entry.phase.state().as_str(),
            entry.at.to_string(),
            started.map(|started| started.at.to_string()),
            started.map(|started| &*started.boot_id),
            started.map(|started| number(started.boot_ms)),
            child.map(|child| child.pid),
            child.map(|child| number(child.start_time)),
        ],
    )
}

fn put_schedule(
    connection: &Connection,
    name: &Domain,
    schedule: &Schedule,
) -> Result<(), StoreError> {
    let last = schedule.last.as_ref();
    run(
        connection,
        "INSERT OR REPLACE INTO schedules (name, body, set_at, nominal, due, runs, skipped, last_id,
             last_at, last_state, last_exit_code)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
        params![
            name.as_str(),
            written(&schedule.body)?,
            schedule.set_at.to_string(),
            schedule.nominal.to_string(),
            schedule.due.to_string(),
            number(schedule.runs),
            number(schedule.skipped),
            last.map(|last| blob(last.id.0)),
            last.map(|last| last.at.to_string()),
            last.and_then(|last| last.state).map(State::as_str),
            last.and_then(|last| last.exit_code),
        ],
    )
}
