//! Cancellations, holds and lineage: how they are written, and read by the station itself.

use std::{collections::BTreeSet, time::Duration};

use rusqlite::{Row, Transaction, params};
use steward_protocol::{Body, Message, MessageId, MethodName, NodeName, Options, State, Target};

use super::{
    Store, StoreError,
    ledger::{StoredOptions, execute, integer},
    row::{corrupt, get, parse},
};
use crate::courier::{Accepted, Record};

/// Messages a repetition may go back to. More are not followed: by then the first is long settled.
const MAX_ANCESTORS: u32 = 1000;

/// A message as it can be asked for again, and how it stands on every node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// What was asked; its target is the nodes it went to.
    pub message: Message,
    /// Every node it went to.
    pub deliveries: Vec<(NodeName, State)>,
    /// Its place, and those of the messages it repeats, directly or not.
    pub lineage: Vec<u64>,
}

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
    /// Returns a message as it can be asked for again.
    ///
    /// # Errors
    ///
    /// Fails when the database does, or holds something that cannot be read.
    pub fn stored(&self, id: MessageId) -> Result<Option<Stored>, StoreError> {
        let query =
            "SELECT pos, name, kind, method, domain, options, body FROM message WHERE id = ?1";
        let found = self
            .ask("query", query)
            .collect(&[&id.to_string()], |row| {
                Ok((get::<i64>(row, 0)?, read_message(row)?))
            })?;
        let Some((pos, mut message)) = found.into_iter().next() else {
            return Ok(None);
        };
        let query = "SELECT node, state FROM delivery WHERE pos = ?1 ORDER BY node";
        let deliveries = self.ask("query", query).collect(&[&pos], |row| {
            Ok((parse(row, 0, "a node's name")?, parse(row, 1, "a state")?))
        })?;
        let nodes = deliveries.iter().map(|(node, _): &(NodeName, State)| node);
        message.target = Target::Nodes(nodes.cloned().collect());
        let query = "WITH RECURSIVE up (pos, retry_of) AS (
                         SELECT pos, retry_of FROM message WHERE pos = ?1
                         UNION SELECT message.pos, message.retry_of FROM message JOIN up ON message.id = up.retry_of
                     ) SELECT pos FROM up LIMIT ?2";
        let lineage = self
            .ask("query", query)
            .collect(&[&pos, &MAX_ANCESTORS], |row| {
                Ok(get::<i64>(row, 0)?.unsigned_abs())
            })?;
        Ok(Some(Stored {
            message,
            deliveries,
            lineage,
        }))
    }

    /// Returns the places that hold `pos` on `node` and are not settled there.
    pub(super) fn holders(&self, pos: u64, node: &NodeName) -> Result<BTreeSet<u64>, StoreError> {
        let query =
            "SELECT holder FROM hold JOIN delivery d ON d.pos = holder AND d.node = hold.node
                     WHERE hold.pos = ?1 AND hold.node = ?2 AND d.final = 0";
        let found = self
            .ask("query", query)
            .collect(params![integer(pos), node.as_str()], |row| {
                Ok(get::<i64>(row, 0)?.unsigned_abs())
            })?;
        Ok(found.into_iter().collect())
    }
}

fn read_message(row: &Row<'_>) -> Result<Message, StoreError> {
    let method: MethodName = parse(row, 3, "a method")?;
    let (options, body): (String, String) = (get(row, 5)?, get(row, 6)?);
    let options: StoredOptions =
        serde_json::from_str(&options).map_err(|error| corrupt("a message's options", &error))?;
    Ok(Message {
        id: None,
        name: get(row, 1)?,
        target: Target::Nodes(Vec::new()),
        kind: parse(row, 2, "a kind")?,
        body: Body::read(&method, &body).map_err(|error| corrupt("a message's body", &error))?,
        method,
        domain: parse(row, 4, "a domain")?,
        options: Options {
            timeout: Duration::from_millis(options.timeout_ms),
            expires: Duration::from_millis(options.expires_ms),
            ordered: options.ordered,
            idempotent: options.idempotent,
            success_codes: options.success_codes,
            stream: options.stream,
            reply: options.reply,
        },
    })
}
