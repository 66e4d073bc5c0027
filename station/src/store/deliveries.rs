//! Reading the deliveries of one message: states, outcomes, history, and what they wait for.

use jiff::Timestamp;
use steward_protocol::{
    Ack, Digest, Domain, Kind, MessageId, MethodName, NodeName, State, Subject,
};

use super::{
    Depth, Reader, StoreError,
    row::{corrupt, get, parse, timestamp},
};
use crate::view::{CancelView, DeliveryView, NoteView, TransitionView};

/// Which deliveries of a message are read, and how much of them.
pub(super) struct Wanted<'a> {
    pub(super) pos: i64,
    pub(super) lane: (Kind, MethodName, Domain),
    pub(super) node: Option<&'a NodeName>,
    pub(super) depth: Depth,
}

impl Reader {
    pub(super) fn deliveries(&self, wanted: &Wanted<'_>) -> Result<Vec<DeliveryView>, StoreError> {
        let query = "SELECT delivery.node, delivery.state, delivery.since, delivery.by_whom, delivery.why, attempts,
                            digest, CASE WHEN ?3 THEN event.ack END, cancel_at, cancel_by
                     FROM delivery LEFT JOIN event ON event.n = delivery.result
                     WHERE delivery.pos = ?1 AND (?2 IS NULL OR delivery.node = ?2) ORDER BY delivery.node";
        let node = wanted.node.map(NodeName::as_str);
        let outcomes = wanted.depth == Depth::Full;
        self.collect(query, &[&wanted.pos, &node, &outcomes], |row| {
            let (digest, ack): ([u8; 32], Option<String>) = (get(row, 6)?, get(row, 7)?);
            let cancel_at: Option<i64> = get(row, 8)?;
            let cancel_by: Option<String> = get(row, 9)?;
            let node: NodeName = parse(row, 0, "a node's name")?;
            let (kind, method, domain) = wanted.lane.clone();
            let mut view = DeliveryView {
                subject: Subject {
                    node: node.clone(),
                    kind,
                    method,
                    domain,
                },
                node,
                state: parse(row, 1, "a state")?,
                since: timestamp(get(row, 2)?)?,
                observed_by: get(row, 3)?,
                reason: get(row, 4)?,
                attempts: get(row, 5)?,
                exit_code: None,
                signal: None,
                stdout: None,
                stderr: None,
                started_at: None,
                finished_at: None,
                digest: Some(Digest::from(digest)),
                cancel: cancel_at.map(timestamp).transpose()?.map(|at| CancelView {
                    at,
                    by: cancel_by.unwrap_or_default(),
                }),
                held_by: Vec::new(),
                transitions: Vec::new(),
                notes: Vec::new(),
            };
            if view.state == State::Accepted {
                view.held_by = self.held_by(wanted.pos, &view.node)?;
            }
            if let Some(ack) = ack {
                let ack: Ack =
                    serde_json::from_str(&ack).map_err(|error| corrupt("an ACK", &error))?;
                take_outcome(&mut view, ack);
            }
            Ok(view)
        })
    }

    /// Adds every change of state.
    pub(super) fn fill(
        &self,
        pos: i64,
        accepted_at: Timestamp,
        view: &mut DeliveryView,
    ) -> Result<(), StoreError> {
        let query = "SELECT at, state, by_whom, why FROM event
                     WHERE pos = ?1 AND (node = ?2 OR node IS NULL) AND state IS NOT NULL ORDER BY n";
        view.transitions = self.collect(query, &[&pos, &view.node.as_str()], |row| {
            Ok(TransitionView {
                at: timestamp(get(row, 0)?)?,
                state: parse(row, 1, "a state")?,
                observed_by: get(row, 2)?,
                reason: get(row, 3)?,
            })
        })?;
        if let Some(first) = view
            .transitions
            .first_mut()
            .filter(|first| first.state == State::Accepted)
        {
            first.at = accepted_at;
        }
        view.notes = self.notes(pos, &view.node)?;
        Ok(())
    }

    /// Returns what must be settled on `node` before `pos` is sent there.
    fn held_by(&self, pos: i64, node: &NodeName) -> Result<Vec<MessageId>, StoreError> {
        let query = "SELECT message.id FROM hold
                     JOIN delivery ON delivery.pos = holder AND delivery.node = hold.node AND final = 0
                     JOIN message ON message.pos = holder
                     WHERE hold.pos = ?1 AND hold.node = ?2 ORDER BY holder";
        self.collect(query, &[&pos, &node.as_str()], |row| {
            parse(row, 0, "a message id")
        })
    }

    /// Returns the messages that repeat `id`, oldest first.
    pub(super) fn retried_by(&self, id: MessageId) -> Result<Vec<MessageId>, StoreError> {
        let query = "SELECT id FROM message WHERE retry_of = ?1 ORDER BY pos";
        self.collect(query, &[&id.to_string()], |row| {
            parse(row, 0, "a message id")
        })
    }

    fn notes(&self, pos: i64, node: &NodeName) -> Result<Vec<NoteView>, StoreError> {
        let query = "SELECT at, by_whom, coalesce(why, 'cancel requested') FROM event
                     WHERE pos = ?1 AND node = ?2 AND kind IN ('cancel_requested', 'held', 'released', 'reply') ORDER BY n";
        self.collect(query, &[&pos, &node.as_str()], |row| {
            Ok(NoteView {
                at: timestamp(get(row, 0)?)?,
                by: get(row, 1)?,
                text: get(row, 2)?,
            })
        })
    }
}

fn take_outcome(view: &mut DeliveryView, ack: Ack) {
    let Some(outcome) = ack.outcome else { return };
    view.exit_code = outcome.exit_code;
    view.signal = outcome.signal;
    view.started_at = Some(outcome.started_at);
    view.finished_at = Some(outcome.finished_at);
    view.stdout = outcome.stdout;
    view.stderr = outcome.stderr;
}
