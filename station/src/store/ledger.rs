//! Writing: records become events, and what is derived from them, in one transaction.

use std::collections::BTreeMap;

use jiff::Timestamp;
use rusqlite::{OptionalExtension, Transaction, params};
use serde::{Deserialize, Serialize};
use steward_protocol::{Digest, MessageId, NodeName, Options, Reply};
use uuid::Uuid;

use super::{Store, StoreError, errands, retry, row::corrupt, sql, unasked};
use crate::{
    courier::{Accepted, FaultRecord, LaneName, Record},
    roster::NodeRecord,
};

/// Faults kept; older ones make room.
const MAX_FAULTS: i64 = 10_000;

/// A message the ledger has already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// Its id.
    pub id: MessageId,
    /// What the operator called it.
    pub name: Option<String>,
    /// Digest of what was asked.
    pub content: Digest,
    /// The nodes it goes to.
    pub nodes: Vec<NodeName>,
}

/// A message's options as the ledger keeps them.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct StoredOptions {
    pub(super) timeout_ms: u64,
    pub(super) expires_ms: u64,
    pub(super) ordered: bool,
    pub(super) idempotent: bool,
    pub(super) success_codes: Vec<i32>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) stream: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) reply: Option<Reply>,
}

impl From<&Options> for StoredOptions {
    fn from(options: &Options) -> Self {
        let milliseconds =
            |duration: std::time::Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Self {
            timeout_ms: milliseconds(options.timeout),
            expires_ms: milliseconds(options.expires),
            ordered: options.ordered,
            idempotent: options.idempotent,
            success_codes: options.success_codes.clone(),
            stream: options.stream,
            reply: options.reply.clone(),
        }
    }
}

impl Store {
    /// Makes `records` durable, all or none.
    ///
    /// # Errors
    ///
    /// Fails when the database or the disk does; then nothing was recorded.
    pub fn commit(&mut self, records: &[Record]) -> Result<(), StoreError> {
        if records.is_empty() {
            return Ok(());
        }
        let transaction = self
            .connection
            .transaction()
            .map_err(sql("begin a transaction"))?;
        for record in records {
            write(&transaction, record)?;
        }
        transaction.commit().map_err(sql("commit"))
    }

    /// Returns the message with this id, if the ledger has it.
    ///
    /// # Errors
    ///
    /// Fails when the database does.
    pub fn find(&self, id: MessageId) -> Result<Option<Known>, StoreError> {
        let found = self.known("WHERE id = ?1", &id.to_string())?;
        Ok(found.into_iter().next())
    }

    /// Returns the messages recorded with this claim of the inbox, in order.
    ///
    /// # Errors
    ///
    /// Fails when the database does.
    pub fn find_intake(&self, intake: Uuid) -> Result<Vec<Known>, StoreError> {
        self.known("WHERE intake = ?1 ORDER BY pos", &intake.to_string())
    }

    fn known(&self, filter: &str, argument: &str) -> Result<Vec<Known>, StoreError> {
        let query = format!("SELECT pos, id, name, content FROM message {filter}");
        let mut statement = self
            .connection
            .prepare_cached(&query)
            .map_err(sql("look up a message"))?;
        let rows = statement
            .query_map([argument], |row| {
                Ok((
                    row.get::<_, i64>(0)?,
                    row.get::<_, String>(1)?,
                    row.get(2)?,
                    row.get::<_, [u8; 32]>(3)?,
                ))
            })
            .map_err(sql("look up a message"))?;
        let mut found = Vec::new();
        for row in rows {
            let (pos, id, name, content) = row.map_err(sql("look up a message"))?;
            let id = id
                .parse()
                .map_err(|error: uuid::Error| corrupt("a message id", &error))?;
            found.push(Known {
                id,
                name,
                content: content.into(),
                nodes: self.nodes_of(pos)?,
            });
        }
        Ok(found)
    }

    fn nodes_of(&self, pos: i64) -> Result<Vec<NodeName>, StoreError> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT node FROM delivery WHERE pos = ?1")
            .map_err(sql("look up targets"))?;
        let rows = statement
            .query_map([pos], |row| row.get::<_, String>(0))
            .map_err(sql("look up targets"))?;
        rows.map(|row| {
            row.map_err(sql("look up targets"))?
                .parse()
                .map_err(|error: steward_protocol::NameError| corrupt("a node name", &error))
        })
        .collect()
    }

    /// Tells whether the ledger has a settled delivery with this id, node and digest. One that has been
    /// forgotten is not found; the node lets go of it by [`steward_protocol::Send::low`].
    ///
    /// # Errors
    ///
    /// Fails when the database does.
    pub fn is_settled(
        &self,
        id: MessageId,
        node: &NodeName,
        digest: Digest,
    ) -> Result<bool, StoreError> {
        let found: Option<(bool, [u8; 32])> = self
            .connection
            .prepare_cached(
                "SELECT final, digest FROM delivery JOIN message USING (pos) WHERE id = ?1 AND node = ?2",
            )
            .and_then(|mut statement| {
                statement
                    .query_row(params![id.to_string(), node.as_str()], |row| Ok((row.get(0)?, row.get(1)?)))
                    .optional()
            })
            .map_err(sql("look up a delivery"))?;
        Ok(found.is_some_and(|(is_final, known)| is_final && Digest::from(known) == digest))
    }

    /// Forgets up to `limit` settled messages accepted before `before`, none whose result is still to be
    /// written. Returns how many.
    ///
    /// # Errors
    ///
    /// Fails when the database or the disk does.
    pub fn prune(&mut self, before: Timestamp, limit: u32) -> Result<usize, StoreError> {
        let transaction = self
            .connection
            .transaction()
            .map_err(sql("begin a transaction"))?;
        let positions: Vec<i64> = {
            let mut statement = transaction
                .prepare_cached(
                    "SELECT pos FROM message WHERE accepted_at < ?1
                     AND NOT EXISTS (SELECT 1 FROM delivery WHERE delivery.pos = message.pos AND final = 0)
                     AND NOT EXISTS (SELECT 1 FROM errand WHERE errand.pos = message.pos)
                     ORDER BY pos LIMIT ?2",
                )
                .map_err(sql("find old messages"))?;
            let rows = statement
                .query_map(params![before.as_millisecond(), limit], |row| row.get(0))
                .map_err(sql("find old messages"))?;
            rows.collect::<Result<_, _>>()
                .map_err(sql("find old messages"))?
        };
        for pos in &positions {
            for query in [
                "DELETE FROM event WHERE pos = ?1",
                "DELETE FROM message WHERE pos = ?1",
            ] {
                transaction
                    .prepare_cached(query)
                    .and_then(|mut statement| statement.execute([pos]))
                    .map_err(sql("forget an old message"))?;
            }
        }
        if let Some(last) = positions.last() {
            // A place is never given out twice, also when its message has been forgotten.
            execute(
                &transaction,
                "forget an old message",
                "INSERT INTO meta (key, value) VALUES ('forgotten_pos', ?1) ON CONFLICT (key)
                 DO UPDATE SET value = max(CAST(value AS INTEGER), CAST(excluded.value AS INTEGER))",
                params![last.to_string()],
            )?;
        }
        errands::forget_texts(&transaction, before)?;
        transaction.commit().map_err(sql("commit"))?;
        Ok(positions.len())
    }

    /// Returns the bytes the ledger's pages take, free ones not counted.
    ///
    /// # Errors
    ///
    /// Fails when the database does.
    pub fn bytes(&self) -> Result<u64, StoreError> {
        let read = |name: &str| {
            self.connection
                .pragma_query_value(None, name, |row| row.get::<_, i64>(0))
                .map_err(sql("measure the database"))
        };
        let pages = read("page_count")? - read("freelist_count")?;
        Ok(pages.unsigned_abs() * read("page_size")?.unsigned_abs())
    }
}

pub(super) fn integer(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn write(transaction: &Transaction<'_>, record: &Record) -> Result<(), StoreError> {
    match record {
        Record::Accepted(accepted) => write_accepted(transaction, accepted),
        Record::Attempt { .. } => write_attempt(transaction, record),
        Record::Moved { .. } => write_moved(transaction, record),
        Record::Reason { pos, node, why } => write_reason(transaction, *pos, node, why),
        Record::CancelRequested { .. } | Record::Released { .. } => {
            retry::write(transaction, record)
        }
        Record::LanesReset { node, at } => write_lanes_reset(transaction, node, *at),
        Record::Node(node) => write_node(transaction, node),
        Record::Fault(fault) => write_fault(transaction, fault),
        Record::Text(text) => errands::write_text(transaction, text),
        Record::Reported(report) => unasked::write(transaction, report),
    }
}

pub(super) fn execute(
    transaction: &Transaction<'_>,
    what: &'static str,
    query: &str,
    values: &[&dyn rusqlite::ToSql],
) -> Result<usize, StoreError> {
    transaction
        .prepare_cached(query)
        .and_then(|mut statement| statement.execute(values))
        .map_err(sql(what))
}

pub(super) fn json(value: &impl Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| corrupt("a value to be written", &error))
}

fn write_accepted(transaction: &Transaction<'_>, accepted: &Accepted) -> Result<(), StoreError> {
    let Accepted { message, .. } = accepted;
    let station = accepted.station.as_str();
    let pos = integer(accepted.pos);
    let at = accepted.accepted_at.as_millisecond();
    execute(
        transaction,
        "record a message",
        "INSERT INTO message (pos, id, name, source, submitted_by, accepted_at, expires_at, kind, method,
                              domain, options, body, content, intake, retry_of)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)",
        params![
            pos,
            accepted.id.to_string(),
            message.name,
            accepted.source,
            accepted.submitted_by,
            at,
            accepted.expires_at.as_millisecond(),
            message.kind.as_str(),
            message.method.as_str(),
            message.domain.as_str(),
            json(&StoredOptions::from(&message.options))?,
            json(&message.body)?,
            accepted.content.as_bytes(),
            accepted.intake.map(|intake| intake.to_string()),
            accepted.retry_of.map(|id| id.to_string()),
        ],
    )?;
    execute(
        transaction,
        "record a message",
        "INSERT INTO event (at, kind, pos, state, by_whom) VALUES (?1, 'accepted', ?2, 'accepted', ?3)",
        params![at, pos, station],
    )?;
    let version = transaction.last_insert_rowid();
    for target in &accepted.targets {
        execute(
            transaction,
            "record a target",
            "INSERT INTO delivery (pos, node, digest, state, final, since, by_whom, attempts, version)
             VALUES (?1, ?2, ?3, 'accepted', 0, ?4, ?5, 0, ?6)",
            params![pos, target.node.as_str(), target.digest.as_bytes(), at, station, version],
        )?;
    }
    retry::write_holds(transaction, accepted)
}

fn write_attempt(transaction: &Transaction<'_>, record: &Record) -> Result<(), StoreError> {
    let Record::Attempt {
        pos,
        node,
        attempt,
        first,
    } = record
    else {
        return Ok(());
    };
    let pos = integer(*pos);
    let Some(first) = first else {
        // A mute node is tried for as long as it takes; that must not grow the ledger.
        execute(
            transaction,
            "count an attempt",
            "UPDATE delivery SET attempts = ?3 WHERE pos = ?1 AND node = ?2",
            params![pos, node.as_str(), attempt],
        )?;
        return Ok(());
    };
    let (at, by) = (first.at.as_millisecond(), first.by.as_str());
    let lane = first.seq.as_ref().map(|(lane, _)| lane.to_string());
    let seq = first.seq.as_ref().map(|(_, seq)| integer(*seq));
    execute(
        transaction,
        "record an attempt",
        "INSERT INTO event (at, kind, pos, node, state, by_whom, attempt, lane, seq)
         VALUES (?1, 'attempt', ?2, ?3, 'sent', ?4, ?5, ?6, ?7)",
        params![at, pos, node.as_str(), by, attempt, lane, seq],
    )?;
    let version = transaction.last_insert_rowid();
    execute(
        transaction,
        "record an attempt",
        "UPDATE delivery SET state = 'sent', since = ?3, by_whom = ?4, attempts = ?5, seq = ?6, version = ?7
         WHERE pos = ?1 AND node = ?2",
        params![pos, node.as_str(), at, by, attempt, seq, version],
    )?;
    if let (Some(lane), Some(seq)) = (lane, seq) {
        execute(
            transaction,
            "record a sequence number",
            "INSERT INTO lane (node, lane, last_seq) VALUES (?1, ?2, ?3)
             ON CONFLICT (node, lane) DO UPDATE SET last_seq = excluded.last_seq",
            params![node.as_str(), lane, seq],
        )?;
    }
    Ok(())
}

fn write_moved(transaction: &Transaction<'_>, record: &Record) -> Result<(), StoreError> {
    let Record::Moved {
        pos,
        node,
        state,
        at,
        by,
        why,
        ack,
    } = record
    else {
        return Ok(());
    };
    let (pos, at) = (integer(*pos), at.as_millisecond());
    let ack_json = ack.as_ref().map(json).transpose()?;
    let has_outcome = ack.as_ref().is_some_and(|ack| ack.outcome.is_some());
    execute(
        transaction,
        "record a state",
        "INSERT INTO event (at, kind, pos, node, state, by_whom, why, ack)
         VALUES (?1, 'moved', ?2, ?3, ?4, ?5, ?6, ?7)",
        params![
            at,
            pos,
            node.as_str(),
            state.as_str(),
            by.as_str(),
            why,
            ack_json
        ],
    )?;
    let version = transaction.last_insert_rowid();
    let result = has_outcome.then_some(version);
    execute(
        transaction,
        "record a state",
        "UPDATE delivery SET state = ?3, final = ?4, since = ?5, by_whom = ?6, why = ?7, version = ?8,
                             result = coalesce(?9, result)
         WHERE pos = ?1 AND node = ?2",
        params![pos, node.as_str(), state.as_str(), state.is_final(), at, by.as_str(), why, version, result],
    )?;
    match ack.as_ref().filter(|_| state.is_final()) {
        Some(ack) => errands::write_reply(transaction, pos, node, ack),
        None => Ok(()),
    }
}

/// Only the latest reason is kept: a node that is busy for days says so again and again.
fn write_reason(
    transaction: &Transaction<'_>,
    pos: u64,
    node: &NodeName,
    why: &str,
) -> Result<(), StoreError> {
    execute(
        transaction,
        "record a reason",
        "UPDATE delivery SET why = ?3 WHERE pos = ?1 AND node = ?2",
        params![integer(pos), node.as_str(), why],
    )?;
    Ok(())
}

fn write_lanes_reset(
    transaction: &Transaction<'_>,
    node: &NodeName,
    at: Timestamp,
) -> Result<(), StoreError> {
    execute(
        transaction,
        "reset sequence numbers",
        "INSERT INTO event (at, kind, node) VALUES (?1, 'lanes_reset', ?2)",
        params![at.as_millisecond(), node.as_str()],
    )?;
    for query in [
        "DELETE FROM lane WHERE node = ?1",
        "UPDATE delivery SET seq = NULL WHERE node = ?1 AND final = 0",
    ] {
        execute(
            transaction,
            "reset sequence numbers",
            query,
            params![node.as_str()],
        )?;
    }
    Ok(())
}

fn write_node(transaction: &Transaction<'_>, node: &NodeRecord) -> Result<(), StoreError> {
    let labels: &BTreeMap<String, String> = &node.labels;
    execute(
        transaction,
        "record a node",
        "INSERT INTO node (name, journal_id, counter, instance, boot_id, version, labels, last_seen, heartbeat, superseded)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
         ON CONFLICT (name) DO UPDATE SET journal_id = excluded.journal_id, counter = excluded.counter,
             instance = excluded.instance, boot_id = excluded.boot_id, version = excluded.version,
             labels = excluded.labels, last_seen = excluded.last_seen, heartbeat = excluded.heartbeat,
             superseded = excluded.superseded",
        params![
            node.name.as_str(),
            node.journal_id.map(|id| id.to_string()),
            integer(node.counter),
            node.instance.map(|id| id.to_string()),
            node.boot_id,
            node.version,
            json(labels)?,
            node.last_seen.map(Timestamp::as_millisecond),
            i64::try_from(node.heartbeat.as_millis()).unwrap_or(i64::MAX),
            json(&node.superseded)?,
        ],
    )?;
    Ok(())
}

pub(super) fn write_fault(
    transaction: &Transaction<'_>,
    fault: &FaultRecord,
) -> Result<(), StoreError> {
    let written = execute(
        transaction,
        "record a fault",
        "INSERT INTO fault (id, at, node, kind, subject, detail, verdict)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (id) DO NOTHING",
        params![
            fault.id.map(|id| id.to_string()),
            fault.at.as_millisecond(),
            fault.node.as_ref().map(NodeName::as_str),
            fault.kind,
            fault.subject,
            fault.detail,
            fault.verdict,
        ],
    )?;
    if written > 0 {
        let oldest = transaction.last_insert_rowid() - MAX_FAULTS;
        execute(
            transaction,
            "forget old faults",
            "DELETE FROM fault WHERE n <= ?1",
            params![oldest],
        )?;
    }
    Ok(())
}

/// Reads a lane's name back.
pub(super) fn lane_name(text: &str) -> Result<LaneName, StoreError> {
    let bad = |detail: &dyn std::fmt::Display| corrupt("a lane", detail);
    let mut tokens = text.splitn(3, '.');
    let mut token = || {
        tokens
            .next()
            .ok_or_else(|| bad(&format!("{text:?} is too short")))
    };
    Ok(LaneName {
        kind: token()?
            .parse()
            .map_err(|error: steward_protocol::SubjectError| bad(&error))?,
        method: token()?
            .parse()
            .map_err(|error: steward_protocol::NameError| bad(&error))?,
        domain: token()?
            .parse()
            .map_err(|error: steward_protocol::NameError| bad(&error))?,
    })
}
