//! Reading for the outside: what the API shows, from a read-only connection of its own.

use std::collections::BTreeMap;

use jiff::Timestamp;
use rusqlite::{Connection, OpenFlags, Row, ToSql};
use steward_protocol::{Domain, Kind, MessageId, MethodName, NodeName, State};

use super::{
    BUSY, StoreError,
    deliveries::Wanted,
    ledger::{StoredOptions, integer},
    row::{Question, corrupt, get, parse, parse_optional, timestamp},
    sql,
};
use crate::view::{EventView, MessageLine, MessageView};

/// Which messages a list shows.
#[derive(Debug, Clone, Default)]
pub struct MessageFilter {
    /// At most this many; 0 means all.
    pub limit: u32,
    /// Only those with a delivery in this state.
    pub state: Option<State>,
    /// Only those for this node.
    pub node: Option<NodeName>,
    /// Only those accepted at or after this.
    pub since: Option<Timestamp>,
}

/// How much of a message is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// States and reasons only, for whoever looks often.
    Brief,
    /// With outputs and every change of state.
    Full,
}

/// What a text that should name one message names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Named {
    /// Exactly this one.
    One(MessageId),
    /// None.
    None,
    /// Several.
    Several,
}

/// A read-only connection to the ledger.
#[derive(Debug)]
pub struct Reader {
    connection: Connection,
}

impl Reader {
    /// Opens the ledger for reading.
    ///
    /// # Errors
    ///
    /// Fails when the database does.
    pub fn open(path: &std::path::Path) -> Result<Self, StoreError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags).map_err(sql("open a reader"))?;
        connection
            .busy_timeout(BUSY)
            .map_err(sql("set a timeout"))?;
        Ok(Self { connection })
    }

    /// Finds the message whose id begins with `prefix`.
    ///
    /// # Errors
    ///
    /// Fails when the database does.
    pub fn name(&self, prefix: &str) -> Result<Named, StoreError> {
        let prefix = prefix.to_ascii_lowercase();
        if prefix.is_empty()
            || !prefix
                .bytes()
                .all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
        {
            return Ok(Named::None);
        }
        let query = "SELECT id FROM message WHERE id >= ?1 AND id < ?1 || 'g' LIMIT 2";
        let ids: Vec<MessageId> =
            self.collect(query, &[&prefix], |row| parse(row, 0, "a message id"))?;
        Ok(match ids.as_slice() {
            [] => Named::None,
            [one] => Named::One(*one),
            _ => Named::Several,
        })
    }

    /// Returns the messages that pass `filter`, newest first.
    ///
    /// # Errors
    ///
    /// Fails when the database does.
    pub fn messages(&self, filter: &MessageFilter) -> Result<Vec<MessageLine>, StoreError> {
        let limit = if filter.limit == 0 {
            -1
        } else {
            i64::from(filter.limit)
        };
        let state = filter.state.map(State::as_str);
        let node = filter.node.as_ref().map(NodeName::as_str);
        let since = filter.since.map(Timestamp::as_millisecond);
        let query = "SELECT pos, id, name, accepted_at, source, submitted_by, kind, method, domain FROM message
             WHERE (?1 IS NULL OR accepted_at >= ?1)
               AND (?2 IS NULL OR EXISTS (SELECT 1 FROM delivery d WHERE d.pos = message.pos AND d.state = ?2
                                          AND (?3 IS NULL OR d.node = ?3)))
               AND (?3 IS NULL OR EXISTS (SELECT 1 FROM delivery d WHERE d.pos = message.pos AND d.node = ?3))
             ORDER BY pos DESC LIMIT ?4";
        self.collect(query, &[&since, &state, &node, &limit], |row| {
            let (kind, method, domain): (String, String, String) =
                (get(row, 6)?, get(row, 7)?, get(row, 8)?);
            Ok(MessageLine {
                id: parse(row, 1, "a message id")?,
                name: get(row, 2)?,
                accepted_at: timestamp(get(row, 3)?)?,
                source: get(row, 4)?,
                submitted_by: get(row, 5)?,
                what: format!("{kind}.{method}.{domain}"),
                counts: self.counts(get(row, 0)?)?,
            })
        })
    }

    fn counts(&self, pos: i64) -> Result<BTreeMap<State, u64>, StoreError> {
        let query = "SELECT state, count(*) FROM delivery WHERE pos = ?1 GROUP BY state";
        let counts = self.collect(query, &[&pos], |row| {
            let count: i64 = get(row, 1)?;
            Ok((parse(row, 0, "a state")?, count.unsigned_abs()))
        })?;
        Ok(counts.into_iter().collect())
    }

    /// Returns the number of deliveries that are not final, by state.
    ///
    /// # Errors
    ///
    /// Fails when the database does.
    pub fn open_by_state(&self) -> Result<BTreeMap<State, u64>, StoreError> {
        let query = "SELECT state, count(*) FROM delivery WHERE final = 0 GROUP BY state";
        let counts = self.collect(query, &[], |row| {
            let count: i64 = get(row, 1)?;
            Ok((parse(row, 0, "a state")?, count.unsigned_abs()))
        })?;
        Ok(counts.into_iter().collect())
    }

    /// Returns one message, with its deliveries to `node` or to all.
    ///
    /// # Errors
    ///
    /// Fails when the database does.
    pub fn message(
        &self,
        id: MessageId,
        node: Option<&NodeName>,
        depth: Depth,
    ) -> Result<Option<MessageView>, StoreError> {
        let query = "SELECT pos, id, name, source, submitted_by, accepted_at, expires_at, retry_of, kind, method, domain,
                            options
                     FROM message WHERE id = ?1";
        let heads = self.collect(query, &[&id.to_string()], |row| {
            let lane: (Kind, MethodName, Domain) = (
                parse(row, 8, "a kind")?,
                parse(row, 9, "a method")?,
                parse(row, 10, "a domain")?,
            );
            let options: String = get(row, 11)?;
            let options: StoredOptions = serde_json::from_str(&options)
                .map_err(|error| corrupt("a message's options", &error))?;
            let view = MessageView {
                id: parse(row, 1, "a message id")?,
                name: get(row, 2)?,
                source: get(row, 3)?,
                submitted_by: get(row, 4)?,
                accepted_at: timestamp(get(row, 5)?)?,
                expires_at: timestamp(get(row, 6)?)?,
                retry_of: parse_optional(row, 7, "a message id")?,
                retried_by: self.retried_by(id)?,
                timeout_ms: Some(options.timeout_ms),
                version: 0,
                deliveries: Vec::new(),
            };
            Ok((get::<i64>(row, 0)?, lane, view))
        })?;
        let Some((pos, lane, mut view)) = heads.into_iter().next() else {
            return Ok(None);
        };
        let wanted = Wanted {
            pos,
            lane,
            node,
            depth,
        };
        view.deliveries = self.deliveries(&wanted)?;
        view.version = self.version(id)?.unwrap_or_default();
        if depth == Depth::Full {
            for delivery in &mut view.deliveries {
                self.fill(pos, view.accepted_at, delivery)?;
            }
        }
        Ok(Some(view))
    }

    /// Returns the number of the last event of one message: what changes when anything about it does.
    ///
    /// # Errors
    ///
    /// Fails when the database does.
    pub fn version(&self, id: MessageId) -> Result<Option<u64>, StoreError> {
        let query = "SELECT max(version) FROM delivery JOIN message USING (pos) WHERE id = ?1";
        let found = self.collect(query, &[&id.to_string()], |row| get::<Option<i64>>(row, 0))?;
        Ok(found.into_iter().flatten().next().map(i64::unsigned_abs))
    }

    /// Returns the ledger's events after number `after`, oldest first.
    ///
    /// # Errors
    ///
    /// Fails when the database does.
    pub fn events(&self, after: u64, limit: u32) -> Result<Vec<EventView>, StoreError> {
        let query = "SELECT event.n, event.at, message.id, message.name, coalesce(event.node, delivery.node),
                            event.state, event.by_whom, event.why
                     FROM event JOIN message USING (pos)
                     LEFT JOIN delivery ON event.node IS NULL AND delivery.pos = event.pos
                     WHERE event.n IN (SELECT n FROM event WHERE n > ?1 AND state IS NOT NULL ORDER BY n LIMIT ?2)
                     ORDER BY event.n";
        self.collect(query, &[&integer(after), &limit], |row| {
            let n: i64 = get(row, 0)?;
            Ok(EventView {
                n: n.unsigned_abs(),
                at: timestamp(get(row, 1)?)?,
                id: parse(row, 2, "a message id")?,
                name: get(row, 3)?,
                node: parse(row, 4, "a node's name")?,
                state: parse(row, 5, "a state")?,
                observed_by: get(row, 6)?,
                reason: get(row, 7)?,
            })
        })
    }

    /// Returns the number of the last event.
    ///
    /// # Errors
    ///
    /// Fails when the database does.
    pub fn last_event(&self) -> Result<u64, StoreError> {
        let last = self.collect("SELECT coalesce(max(n), 0) FROM event", &[], |row| {
            get::<i64>(row, 0)
        })?;
        Ok(last.first().map_or(0, |n| n.unsigned_abs()))
    }

    pub(super) fn collect<T>(
        &self,
        query: &str,
        values: &[&dyn ToSql],
        read: impl FnMut(&Row<'_>) -> Result<T, StoreError>,
    ) -> Result<Vec<T>, StoreError> {
        let question = Question {
            connection: &self.connection,
            what: "query",
            query,
        };
        question.collect(values, read)
    }
}
