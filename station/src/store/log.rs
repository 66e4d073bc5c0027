//! Reading faults, alone and among what happened to messages, in the order it was stored.

use jiff::Timestamp;
use rusqlite::{Row, ToSql};
use steward_protocol::NodeName;

use super::{
    Reader, StoreError,
    ledger::integer,
    row::{corrupt, get, parse_optional, timestamp},
};
use crate::view::{FaultView, LogEntry, LogPage};

/// Which part of the log is wanted.
#[derive(Debug, Clone, Default)]
pub struct LogFilter {
    /// At most this many of each sort.
    pub limit: u32,
    /// Only what concerns this node.
    pub node: Option<NodeName>,
    /// Only these kinds; all, when empty.
    pub kinds: Vec<String>,
    /// Only what was stored at or after this.
    pub since: Option<Timestamp>,
    /// What is in it.
    pub scope: LogScope,
    /// Only what comes after these numbers of a fault and an event, the oldest first; otherwise the newest.
    pub after: Option<(u64, u64)>,
}

/// What is in a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogScope {
    /// Faults.
    #[default]
    Faults,
    /// Faults, and what happened to messages.
    Everything,
}

/// The faults that fit, as columns of an entry. Parameters: after, limit, node, kinds, since.
const FAULTS: &str = "SELECT n, at, node, kind, subject, NULL, NULL, detail, verdict, NULL
    FROM fault
    WHERE n > ?1 AND (?3 IS NULL OR node = ?3) AND (?4 IS NULL OR kind IN (SELECT value FROM json_each(?4)))
      AND (?5 IS NULL OR at >= ?5)";

/// The events that fit. That a message was accepted is one event for all its nodes.
const EVENTS: &str =
    "SELECT event.n, event.at, coalesce(event.node, ?3), coalesce(event.state, event.kind), NULL,
           message.id, message.name, event.why, NULL, event.by_whom
    FROM event LEFT JOIN message USING (pos)
    WHERE event.n > ?1
      AND (?3 IS NULL OR event.node = ?3 OR (event.node IS NULL AND EXISTS
           (SELECT 1 FROM delivery WHERE delivery.pos = event.pos AND delivery.node = ?3)))
      AND (?4 IS NULL OR coalesce(event.state, event.kind) IN (SELECT value FROM json_each(?4)))
      AND (?5 IS NULL OR event.at >= ?5)";

/// One of the two sources of a log.
struct Source {
    select: &'static str,
    /// Its number, with its table.
    number: &'static str,
    last: &'static str,
    name: &'static str,
}

const FAULT: Source = Source {
    select: FAULTS,
    number: "n",
    last: "SELECT coalesce(max(n), 0) FROM fault",
    name: "fault",
};

const EVENT: Source = Source {
    select: EVENTS,
    number: "event.n",
    last: "SELECT coalesce(max(n), 0) FROM event",
    name: "event",
};

impl Reader {
    /// Returns the latest faults, newest first; of one node, or all.
    ///
    /// # Errors
    ///
    /// Fails when the database does.
    pub fn faults(
        &self,
        node: Option<&NodeName>,
        limit: u32,
    ) -> Result<Vec<FaultView>, StoreError> {
        let query = "SELECT n, at, node, kind, subject, detail, verdict FROM fault
                     WHERE ?1 IS NULL OR node = ?1 ORDER BY n DESC LIMIT ?2";
        let node = node.map(NodeName::as_str);
        self.collect(query, &[&node, &limit], |row| {
            let n: i64 = get(row, 0)?;
            Ok(FaultView {
                n: n.unsigned_abs(),
                at: timestamp(get(row, 1)?)?,
                node: parse_optional(row, 2, "a node's name")?,
                kind: get(row, 3)?,
                subject: get(row, 4)?,
                detail: get(row, 5)?,
                verdict: get(row, 6)?,
            })
        })
    }

    /// Returns how many faults of each node are kept.
    ///
    /// # Errors
    ///
    /// Fails when the database does.
    pub fn fault_counts(&self) -> Result<Vec<(NodeName, u64)>, StoreError> {
        let query = "SELECT node, count(*) FROM fault WHERE node IS NOT NULL GROUP BY node";
        let counts = self.collect(query, &[], |row| {
            let node: Option<NodeName> = parse_optional(row, 0, "a node's name")?;
            let count: i64 = get(row, 1)?;
            Ok(node.map(|node| (node, count.unsigned_abs())))
        })?;
        Ok(counts.into_iter().flatten().collect())
    }

    /// Returns a part of the log, oldest first.
    ///
    /// # Errors
    ///
    /// Fails when the database does.
    pub fn log(&self, filter: &LogFilter) -> Result<LogPage, StoreError> {
        let after = filter.after.map(|(fault, event)| [fault, event]);
        let [fault, event] = after.map_or([None; 2], |after| after.map(Some));
        let (mut entries, after_fault) = self.part(&FAULT, fault, filter)?;
        let after_event = match filter.scope {
            LogScope::Faults => event.map_or_else(|| self.last(&EVENT), Ok)?,
            LogScope::Everything => {
                let (events, last) = self.part(&EVENT, event, filter)?;
                entries.extend(events);
                last
            }
        };
        // The sort is stable: what was stored at the same moment stays in its order.
        entries.sort_by_key(|entry| entry.at);
        if filter.after.is_none() {
            let most = usize::try_from(filter.limit).unwrap_or(usize::MAX);
            entries.drain(..entries.len().saturating_sub(most));
        }
        Ok(LogPage {
            entries,
            after_fault,
            after_event,
        })
    }

    /// Returns what fits of one source, oldest first, and the number of the last one looked at.
    fn part(
        &self,
        source: &Source,
        after: Option<u64>,
        filter: &LogFilter,
    ) -> Result<(Vec<LogEntry>, u64), StoreError> {
        // Whatever is stored after this look comes with the next one.
        let last = self.last(source)?;
        let direction = if after.is_some() { "ASC" } else { "DESC" };
        let Source { select, number, .. } = source;
        let query = format!("{select} AND {number} <= ?6 ORDER BY {number} {direction} LIMIT ?2");
        let kinds = match filter.kinds.as_slice() {
            [] => None,
            kinds => Some(serde_json::to_string(kinds).map_err(|error| corrupt("kinds", &error))?),
        };
        let values: [&dyn ToSql; 6] = [
            &integer(after.unwrap_or(0)),
            &filter.limit,
            &filter.node.as_ref().map(NodeName::as_str),
            &kinds,
            &filter.since.map(Timestamp::as_millisecond),
            &integer(last),
        ];
        let mut found = self.collect(&query, &values, |row| entry(source, row))?;
        let full = found.len() as u64 >= u64::from(filter.limit);
        let reached = match found.last() {
            Some((n, _)) if after.is_some() && full => *n,
            Some(_) | None => last,
        };
        if after.is_none() {
            found.reverse();
        }
        Ok((found.into_iter().map(|(_, entry)| entry).collect(), reached))
    }

    fn last(&self, source: &Source) -> Result<u64, StoreError> {
        let last = self.collect(source.last, &[], |row| get::<i64>(row, 0))?;
        Ok(last.first().map_or(0, |n| n.unsigned_abs()))
    }
}

fn entry(source: &Source, row: &Row<'_>) -> Result<(u64, LogEntry), StoreError> {
    let n: i64 = get(row, 0)?;
    let entry = LogEntry {
        key: format!("{}-{n}", source.name),
        at: timestamp(get(row, 1)?)?,
        node: parse_optional(row, 2, "a node's name")?,
        kind: get(row, 3)?,
        subject: get(row, 4)?,
        id: parse_optional(row, 5, "a message id")?,
        name: get(row, 6)?,
        detail: get(row, 7)?,
        verdict: get(row, 8)?,
        by: get(row, 9)?,
    };
    Ok((n.unsigned_abs(), entry))
}
