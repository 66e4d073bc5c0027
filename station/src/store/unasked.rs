//! What nodes did unasked: an order of a node to itself, stored as a message with one final delivery.

use rusqlite::{OptionalExtension, Transaction, params};
use serde_json::value::RawValue;
use steward_protocol::{Digest, MessageId};

use super::{
    Store, StoreError,
    ledger::{StoredOptions, execute, integer, json},
    sql,
};
use crate::courier::{KnownReport, ReportRecord};

impl Store {
    /// Tells what the ledger knows of a report about the order of this id and digest.
    ///
    /// # Errors
    ///
    /// Fails when the database does.
    pub fn find_report(&self, id: MessageId, digest: Digest) -> Result<KnownReport, StoreError> {
        let found: Option<[u8; 32]> = self
            .connection
            .prepare_cached("SELECT content FROM message WHERE id = ?1")
            .and_then(|mut statement| {
                statement
                    .query_row([id.to_string()], |row| row.get(0))
                    .optional()
            })
            .map_err(sql("look up a report"))?;
        Ok(match found {
            None => KnownReport::New,
            Some(known) if Digest::from(known) == digest => KnownReport::Same,
            Some(_) => KnownReport::Other,
        })
    }
}

/// Stores a report. What was asked is kept as the node wrote it: it may know more than this program.
pub(super) fn write(
    transaction: &Transaction<'_>,
    report: &ReportRecord,
) -> Result<(), StoreError> {
    let order = report.order.order();
    let (pos, at) = (integer(report.pos), report.at.as_millisecond());
    let expires = order.expires_at.duration_since(order.issued_at);
    let options = StoredOptions {
        timeout_ms: order.timeout_ms,
        expires_ms: u64::try_from(expires.as_millis()).unwrap_or(0),
        ordered: order.ordered,
        idempotent: order.idempotent,
        success_codes: order.success_codes.clone(),
        stream: order.stream,
        reply: None,
    };
    let body: &RawValue = &order.body;
    execute(
        transaction,
        "record a report",
        "INSERT INTO message (pos, id, source, submitted_by, accepted_at, expires_at, kind, method, domain,
                              options, body, content)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
        params![
            pos,
            order.id.to_string(),
            report.source,
            format!("node:{}", report.node),
            at,
            order.expires_at.as_millisecond(),
            order.subject.kind.as_str(),
            order.subject.method.as_str(),
            order.subject.domain.as_str(),
            json(&options)?,
            body.get(),
            report.order.digest().as_bytes(),
        ],
    )?;
    write_delivery(transaction, report)
}

fn write_delivery(transaction: &Transaction<'_>, report: &ReportRecord) -> Result<(), StoreError> {
    let (pos, at) = (integer(report.pos), report.at.as_millisecond());
    let (node, state) = (report.node.as_str(), report.ack.state.as_str());
    execute(
        transaction,
        "record a report",
        "INSERT INTO event (at, kind, pos, node, state, by_whom, why, ack)
         VALUES (?1, 'moved', ?2, ?3, ?4, ?3, ?5, ?6)",
        params![at, pos, node, state, report.ack.reason, json(&report.ack)?],
    )?;
    let version = transaction.last_insert_rowid();
    execute(
        transaction,
        "record a report",
        "INSERT INTO delivery (pos, node, digest, state, final, since, by_whom, why, attempts, version, result)
         VALUES (?1, ?2, ?3, ?4, 1, ?5, ?2, ?6, 0, ?7, ?8)",
        params![
            pos,
            node,
            report.order.digest().as_bytes(),
            state,
            at,
            report.ack.reason,
            version,
            report.ack.outcome.is_some().then_some(version),
        ],
    )?;
    Ok(())
}
