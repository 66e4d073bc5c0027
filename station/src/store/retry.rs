//! Cancellations, holds and lineage: how they are written, and read by the station itself.

use std::collections::BTreeSet;

use rusqlite::{Transaction, params};
use steward_protocol::NodeName;

use super::{
    Store, StoreError,
    ledger::{execute, integer},
    sql,
};
use crate::courier::{Accepted, Record};

/// Writes a request to cancel, or the end of a hold.
pub(super) fn write(transaction: &Transaction<'_>, record: &Record) -> Result<(), StoreError> {
    match record {
        Record::CancelRequested { pos, node, at, by } => {
            let (pos, at) = (integer(*pos), at.as_millisecond());
            execute(
                transaction,
                "record a cancellation",
                "INSERT INTO event (at, kind, pos, node, by_whom) VALUES (?1, 'cancel_requested', ?2, ?3, ?4)",
                params![at, pos, node.as_str(), by],
            )?;
            let version = transaction.last_insert_rowid();
            execute(
                transaction,
                "record a cancellation",
                "UPDATE delivery SET cancel_at = coalesce(cancel_at, ?3), cancel_by = coalesce(cancel_by, ?4),
                                     version = ?5
                 WHERE pos = ?1 AND node = ?2",
                params![pos, node.as_str(), at, by, version],
            )?;
        }
        Record::Released {
            pos,
            node,
            at,
            by,
            why,
        } => {
            let (pos, at) = (integer(*pos), at.as_millisecond());
            execute(
                transaction,
                "record a release",
                "INSERT INTO event (at, kind, pos, node, by_whom, why) VALUES (?1, 'released', ?2, ?3, ?4, ?5)",
                params![at, pos, node.as_str(), by.as_str(), why],
            )?;
            let version = transaction.last_insert_rowid();
            for (query, values) in [
                (
                    "DELETE FROM hold WHERE pos = ?1 AND node = ?2",
                    params![pos, node.as_str()],
                ),
                (
                    "UPDATE delivery SET version = ?3 WHERE pos = ?1 AND node = ?2",
                    params![pos, node.as_str(), version],
                ),
            ] {
                execute(transaction, "record a release", query, values)?;
            }
        }
        _ => {}
    }
    Ok(())
}

/// Writes what a message just accepted waits for.
pub(super) fn write_holds(
    transaction: &Transaction<'_>,
    accepted: &Accepted,
) -> Result<(), StoreError> {
    let pos = integer(accepted.pos);
    let at = accepted.accepted_at.as_millisecond();
    for (node, holder) in &accepted.holds {
        let holder = integer(*holder);
        execute(
            transaction,
            "record a hold",
            "INSERT INTO event (at, kind, pos, node, by_whom, why, other)
             SELECT ?1, 'held', ?2, ?3, ?4, 'held until message ' || id || ' is settled here', pos
             FROM message WHERE pos = ?5",
            params![at, pos, node.as_str(), accepted.station.as_str(), holder],
        )?;
        execute(
            transaction,
            "record a hold",
            "INSERT INTO hold (pos, node, holder) VALUES (?1, ?2, ?3)",
            params![pos, node.as_str(), holder],
        )?;
    }
    Ok(())
}

impl Store {
    /// Returns the places that hold `pos` on `node` and are not settled there.
    pub(super) fn holders(&self, pos: u64, node: &NodeName) -> Result<BTreeSet<u64>, StoreError> {
        let query =
            "SELECT holder FROM hold JOIN delivery d ON d.pos = holder AND d.node = hold.node
                     WHERE hold.pos = ?1 AND hold.node = ?2 AND d.final = 0";
        let mut statement = self
            .connection
            .prepare_cached(query)
            .map_err(sql("load a hold"))?;
        let rows = statement
            .query_map(params![integer(pos), node.as_str()], |row| {
                row.get::<_, i64>(0)
            })
            .map_err(sql("load a hold"))?;
        rows.map(|row| row.map(i64::unsigned_abs).map_err(sql("load a hold")))
            .collect()
    }
}
