//! Reading back what a restart needs, and the bodies of orders about to be sent.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use rusqlite::Row;
use steward_protocol::{Digest, NodeName, Order, Subject};

use super::{
    Store, StoreError,
    ledger::{StoredOptions, integer, lane_name},
    row::{Question, corrupt, get, parse, parse_optional, timestamp},
    sql,
};
use crate::{
    courier::{CancelRequest, LaneName, Loaded, LoadedDelivery, LoadedLane, Open, Schedule},
    roster::NodeRecord,
};

impl Store {
    /// Returns what the courier needs to go on.
    ///
    /// # Errors
    ///
    /// Fails when the database does, or holds something that cannot be read.
    pub fn load(&self) -> Result<Loaded, StoreError> {
        Ok(Loaded {
            ledger_id: self.ledger_id,
            epoch: self.epoch,
            next_pos: self.next_pos()?,
            nodes: self.load_nodes()?,
            lanes: self.load_lanes()?,
            deliveries: self.load_open()?,
        })
    }

    /// One more than the highest place ever given out, also when that message has been forgotten.
    fn next_pos(&self) -> Result<u64, StoreError> {
        let last: i64 = self
            .connection
            .query_row(
                "SELECT max(coalesce((SELECT max(pos) FROM message), 0),
                            coalesce((SELECT CAST(value AS INTEGER) FROM meta WHERE key = 'forgotten_pos'), 0))",
                [],
                |row| row.get(0),
            )
            .map_err(sql("find the next place"))?;
        Ok(last.unsigned_abs() + 1)
    }

    fn load_nodes(&self) -> Result<Vec<NodeRecord>, StoreError> {
        let query = "SELECT name, journal_id, counter, instance, boot_id, version, labels, last_seen, heartbeat, superseded FROM node";
        self.ask("load the nodes", query).collect(&[], |row| {
            let (labels, superseded): (String, String) = (get(row, 6)?, get(row, 9)?);
            let last_seen: Option<i64> = get(row, 7)?;
            let (counter, heartbeat): (i64, i64) = (get(row, 2)?, get(row, 8)?);
            Ok(NodeRecord {
                heartbeat: Duration::from_millis(heartbeat.unsigned_abs()),
                name: parse(row, 0, "a node's name")?,
                journal_id: parse_optional(row, 1, "a journal id")?,
                counter: counter.unsigned_abs(),
                instance: parse_optional(row, 3, "an instance id")?,
                boot_id: get(row, 4)?,
                version: get(row, 5)?,
                labels: serde_json::from_str::<BTreeMap<String, String>>(&labels)
                    .map_err(|error| corrupt("a node's labels", &error))?,
                last_seen: last_seen.map(timestamp).transpose()?,
                superseded: serde_json::from_str(&superseded)
                    .map_err(|error| corrupt("a node's earlier starts", &error))?,
            })
        })
    }

    fn load_lanes(&self) -> Result<Vec<LoadedLane>, StoreError> {
        let query = "SELECT node, lane, last_seq FROM lane";
        self.ask("load the lanes", query).collect(&[], |row| {
            let lane: String = get(row, 1)?;
            let last_seq: i64 = get(row, 2)?;
            Ok(LoadedLane {
                node: parse(row, 0, "a lane's node")?,
                lane: lane_name(&lane)?,
                last_seq: last_seq.unsigned_abs(),
            })
        })
    }

    fn load_open(&self) -> Result<Vec<LoadedDelivery>, StoreError> {
        let query = "SELECT node, pos, id, kind, method, domain, options, expires_at, digest, delivery.state,
                            attempts, seq, delivery.since, cancel_at, cancel_by,
                            EXISTS (SELECT 1 FROM hold WHERE hold.pos = delivery.pos AND hold.node = delivery.node)
                     FROM delivery JOIN message USING (pos) WHERE final = 0 ORDER BY pos";
        self.ask("load the open deliveries", query)
            .collect(&[], |row| {
                let (pos, options, digest): (i64, String, [u8; 32]) =
                    (get(row, 1)?, get(row, 6)?, get(row, 8)?);
                let options: StoredOptions = serde_json::from_str(&options)
                    .map_err(|error| corrupt("a message's options", &error))?;
                let expires_at = timestamp(get(row, 7)?)?;
                let seq: Option<i64> = get(row, 11)?;
                let since = timestamp(get(row, 12)?)?;
                let cancel_at: Option<i64> = get(row, 13)?;
                let cancel_by: Option<String> = get(row, 14)?;
                let cancel = cancel_at
                    .map(timestamp)
                    .transpose()?
                    .map(|at| CancelRequest {
                        at,
                        by: cancel_by.unwrap_or_default(),
                    });
                let node: NodeName = parse(row, 0, "a node's name")?;
                let held_by = match get(row, 15)? {
                    true => self.holders(pos.unsigned_abs(), &node)?,
                    false => BTreeSet::new(),
                };
                Ok(LoadedDelivery {
                    node,
                    open: Open {
                        id: parse(row, 2, "a message id")?,
                        pos: pos.unsigned_abs(),
                        lane: LaneName {
                            kind: parse(row, 3, "a kind")?,
                            method: parse(row, 4, "a method")?,
                            domain: parse(row, 5, "a domain")?,
                        },
                        ordered: options.ordered,
                        digest: Digest::from(digest),
                        success_codes: options.success_codes,
                        timeout: Duration::from_millis(options.timeout_ms),
                        expires_at,
                        state: parse(row, 9, "a state")?,
                        attempts: get(row, 10)?,
                        seq: seq.map(i64::unsigned_abs),
                        cancel,
                        held_by,
                        schedule: Schedule::immediate(None),
                    }
                    .after_restart(since),
                })
            })
    }

    /// Returns the order of message `pos` for `node`: the same bytes every time.
    ///
    /// # Errors
    ///
    /// Fails when the database does, or holds something that cannot be read.
    pub fn order(
        &self,
        station: &NodeName,
        pos: u64,
        node: &NodeName,
    ) -> Result<Order, StoreError> {
        let query = "SELECT id, kind, method, domain, accepted_at, expires_at, submitted_by, retry_of, options, body
                     FROM message WHERE pos = ?1";
        let mut statement = self
            .connection
            .prepare_cached(query)
            .map_err(sql("load an order"))?;
        let mut rows = statement
            .query([integer(pos)])
            .map_err(sql("load an order"))?;
        let row = rows
            .next()
            .map_err(sql("load an order"))?
            .ok_or_else(|| corrupt("an order", &format!("no message at place {pos}")))?;
        order_for(row, station, node)
    }

    pub(super) fn ask<'a>(&'a self, what: &'static str, query: &'a str) -> Question<'a> {
        Question {
            connection: &self.connection,
            what,
            query,
        }
    }
}

fn order_for(row: &Row<'_>, station: &NodeName, node: &NodeName) -> Result<Order, StoreError> {
    let (options, body): (String, String) = (get(row, 8)?, get(row, 9)?);
    let options: StoredOptions =
        serde_json::from_str(&options).map_err(|error| corrupt("a message's options", &error))?;
    let subject = Subject {
        node: node.clone(),
        kind: parse(row, 1, "a kind")?,
        method: parse(row, 2, "a method")?,
        domain: parse(row, 3, "a domain")?,
    };
    Ok(Order {
        id: parse(row, 0, "a message id")?,
        from: station.clone(),
        to: node.clone(),
        subject,
        issued_at: timestamp(get(row, 4)?)?,
        expires_at: timestamp(get(row, 5)?)?,
        submitted_by: get(row, 6)?,
        retry_of: parse_optional(row, 7, "a message id")?,
        timeout_ms: options.timeout_ms,
        ordered: options.ordered,
        idempotent: options.idempotent,
        success_codes: options.success_codes,
        stream: options.stream,
        body: serde_json::value::RawValue::from_string(body)
            .map_err(|error| corrupt("a message's body", &error))?,
    })
}
