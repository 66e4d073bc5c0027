//! The station's disk: what its ledger has made durable, and nothing else.
//!
//! A commit is atomic. It derives the same rows as the real store does, is read back through the
//! same types, and says when a record breaks what the ledger promises.

use std::{rc::Rc, sync::Arc};

use jiff::Timestamp;
use steward_protocol::{Ack, Digest, LedgerId, MessageId, NodeName, Outcome, State};
use steward_station::{
    courier::{
        Accepted, Addressee, CancelRequest, FirstAttempt, LaneName, Loaded, LoadedDelivery,
        LoadedLane, Open, Record,
    },
    roster::NodeRecord,
};

use super::book::{Page, node_of};

/// One message's way to one node.
#[derive(Debug)]
pub struct Row {
    /// Which node.
    pub node: usize,
    /// Digest of its order.
    pub digest: Digest,
    /// How it stands.
    pub state: State,
    since: Timestamp,
    /// How often it was sent.
    pub attempts: u32,
    seq: Option<u64>,
    /// What came of it, as the ACK said that made it final.
    pub outcome: Option<Outcome>,
    /// In which commit it became final.
    settled_in: u64,
    /// Why it is in its final state, in words.
    pub reason: Option<String>,
    /// Who asked that it be called off.
    cancel: Option<CancelRequest>,
    /// Places of messages that must be settled before it is sent.
    held_by: Vec<u64>,
}

/// One message.
#[derive(Debug)]
pub struct Message {
    /// What was accepted.
    pub page: Rc<Page>,
    /// When it became durable, in milliseconds.
    pub at: u64,
    /// Its ways.
    pub rows: Vec<Row>,
}

/// The ledger's file.
#[derive(Debug)]
pub struct Ledger {
    /// Its id.
    pub id: LedgerId,
    /// The reign.
    pub epoch: u64,
    /// By place; places are contiguous from 1.
    pub messages: Vec<Message>,
    lanes: Vec<(NodeName, LaneName, u64)>,
    nodes: Vec<NodeRecord>,
    /// Deliveries that are not final.
    pub open: usize,
    /// Commits so far.
    pub commits: u64,
    /// When the commit at hand is made, in milliseconds.
    pub now: u64,
}

/// A record that breaks what the ledger promises.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken(pub String);

impl Ledger {
    /// Returns an empty ledger.
    pub fn new(id: LedgerId) -> Self {
        Self {
            id,
            epoch: 0,
            messages: Vec::new(),
            lanes: Vec::new(),
            nodes: Vec::new(),
            open: 0,
            commits: 0,
            now: 0,
        }
    }

    /// Begins another reign, as opening the ledger does.
    pub fn open(&mut self) {
        self.epoch += 1;
    }

    /// Returns the message at `pos`.
    pub fn message(&self, pos: u64) -> Option<&Message> {
        self.messages.get(index(pos))
    }

    /// Returns what is recorded of the message at `pos` for `node`.
    pub fn row(&self, pos: u64, node: usize) -> Option<&Row> {
        self.message(pos)?.rows.iter().find(|row| row.node == node)
    }

    fn row_mut(&mut self, pos: u64, node: &NodeName) -> Option<&mut Row> {
        let node = node_of(node);
        let message = self.messages.get_mut(index(pos))?;
        message.rows.iter_mut().find(|row| row.node == node)
    }

    /// Returns the final state a delivery has had since before the last commit: what is decided
    /// together with its end may still be sent behind it.
    pub fn ended_before(&self, pos: u64, node: usize) -> Option<State> {
        let row = self.row(pos, node)?;
        (row.state.is_final() && row.settled_in < self.commits).then_some(row.state)
    }

    /// Tells whether this delivery is final.
    pub fn is_settled(&self, id: MessageId, node: usize, digest: Digest) -> bool {
        let mut messages = self.messages.iter();
        let Some(message) = messages.find(|message| message.page.accepted.id == id) else {
            return false;
        };
        let row = message.rows.iter().find(|row| row.node == node);
        row.is_some_and(|row| row.state.is_final() && row.digest == digest)
    }

    /// Makes one record of a commit durable. The caller applies all of a commit or none.
    ///
    /// # Errors
    ///
    /// Says which promise of the ledger the record breaks.
    pub fn apply(&mut self, record: &Record, pages: &[Rc<Page>]) -> Result<(), Broken> {
        match record {
            Record::Accepted(accepted) => self.accept(accepted, pages),
            Record::Attempt {
                pos,
                node,
                attempt,
                first,
            } => self.attempt(*pos, node, *attempt, first.as_ref()),
            Record::Moved {
                pos,
                node,
                state,
                at,
                ack,
                why,
                ..
            } => self.moved(*pos, node, *state, *at, ack.as_deref(), why.as_deref()),
            Record::CancelRequested { pos, node, at, by } => {
                if let Some(row) = self.row_mut(*pos, node) {
                    let by = by.clone();
                    row.cancel = Some(CancelRequest { at: *at, by });
                }
                Ok(())
            }
            Record::Released { pos, node, .. } => {
                if let Some(row) = self.row_mut(*pos, node) {
                    row.held_by.clear();
                }
                Ok(())
            }
            Record::Reason { .. } | Record::Fault(_) | Record::Text(_) | Record::Reported(_) => {
                Ok(())
            }
            Record::LanesReset { node, .. } => {
                self.reset_lanes(node);
                Ok(())
            }
            Record::Node(record) => {
                self.note_node(record);
                Ok(())
            }
        }
    }

    fn accept(&mut self, accepted: &Arc<Accepted>, pages: &[Rc<Page>]) -> Result<(), Broken> {
        let page = pages.get(index(accepted.pos));
        let Some(page) = page.filter(|_| accepted.pos == self.messages.len() as u64 + 1) else {
            return Err(Broken(format!("place {} is given out twice", accepted.pos)));
        };
        let rows = accepted.targets.iter().map(|target| Row {
            node: node_of(&target.node),
            digest: target.digest,
            state: State::Accepted,
            since: accepted.accepted_at,
            attempts: 0,
            seq: None,
            outcome: None,
            settled_in: 0,
            reason: None,
            cancel: None,
            held_by: holds_of(accepted, &target.node),
        });
        let rows: Vec<Row> = rows.collect();
        self.open += rows.len();
        self.messages.push(Message {
            page: Rc::clone(page),
            at: self.now,
            rows,
        });
        Ok(())
    }

    fn attempt(
        &mut self,
        pos: u64,
        node: &NodeName,
        attempt: u32,
        first: Option<&FirstAttempt>,
    ) -> Result<(), Broken> {
        let Some(row) = self.row_mut(pos, node) else {
            return Err(Broken(format!("message {pos} was never accepted")));
        };
        if row.state.is_final() {
            return Err(Broken(format!(
                "message {pos} is sent to {node} although it is {}",
                row.state
            )));
        }
        row.attempts = attempt;
        let Some(first) = first else { return Ok(()) };
        row.state = State::Sent;
        row.since = first.at;
        row.seq = first.seq.as_ref().map(|(_, seq)| *seq);
        if let Some((lane, seq)) = &first.seq {
            let mut lanes = self.lanes.iter_mut();
            match lanes.find(|(known, name, _)| known == node && name == lane) {
                Some((_, _, last)) => *last = *seq,
                None => self.lanes.push((node.clone(), lane.clone(), *seq)),
            }
        }
        Ok(())
    }

    fn moved(
        &mut self,
        pos: u64,
        node: &NodeName,
        state: State,
        at: Timestamp,
        ack: Option<&Ack>,
        why: Option<&str>,
    ) -> Result<(), Broken> {
        let commits = self.commits;
        let Some(row) = self.row_mut(pos, node) else {
            return Err(Broken(format!("message {pos} was never accepted")));
        };
        if row.state.is_final() {
            return Err(Broken(format!(
                "message {pos} for {node} was {} and becomes {state}",
                row.state
            )));
        }
        if state != State::Unknown && rank(state) < rank(row.state) {
            return Err(Broken(format!(
                "message {pos} for {node} falls back from {} to {state}",
                row.state
            )));
        }
        row.state = state;
        row.since = at;
        if state.is_final() {
            row.settled_in = commits;
            row.outcome = ack.and_then(|ack| ack.outcome.clone());
            row.reason = why.map(str::to_owned);
            self.open -= 1;
        }
        Ok(())
    }

    fn reset_lanes(&mut self, node: &NodeName) {
        self.lanes.retain(|(known, ..)| known != node);
        let number = node_of(node);
        for message in &mut self.messages {
            for row in &mut message.rows {
                if row.node == number && !row.state.is_final() {
                    row.seq = None;
                }
            }
        }
    }

    fn note_node(&mut self, record: &NodeRecord) {
        let mut nodes = self.nodes.iter_mut();
        match nodes.find(|known| known.name == record.name) {
            Some(known) => known.clone_from(record),
            None => self.nodes.push(record.clone()),
        }
    }

    /// Returns what a start of the station finds.
    pub fn load(&self) -> Loaded {
        let mut deliveries = Vec::with_capacity(self.open);
        for message in &self.messages {
            let targets = &message.page.accepted.targets;
            for (row, target) in message.rows.iter().zip(targets) {
                if !row.state.is_final() {
                    // Whatever held it and is settled holds it no more; the courier sees to that.
                    deliveries.push(LoadedDelivery {
                        node: target.node.clone(),
                        open: restored(&message.page, row, target),
                    });
                }
            }
        }
        let lanes = self.lanes.iter().map(|(node, lane, last_seq)| LoadedLane {
            node: node.clone(),
            lane: lane.clone(),
            last_seq: *last_seq,
        });
        Loaded {
            ledger_id: self.id,
            epoch: self.epoch,
            next_pos: self.messages.len() as u64 + 1,
            nodes: self.nodes.clone(),
            lanes: lanes.collect(),
            deliveries,
        }
    }
}

/// Returns an open delivery as the real store reads it back.
fn restored(page: &Page, row: &Row, target: &Addressee) -> Open {
    let mut open = Open::accepted(&page.accepted, target);
    open.state = row.state;
    open.attempts = row.attempts;
    open.seq = row.seq;
    open.cancel.clone_from(&row.cancel);
    open.held_by = row.held_by.iter().copied().collect();
    open.after_restart(row.since)
}

fn holds_of(accepted: &Accepted, node: &NodeName) -> Vec<u64> {
    let holds = accepted.holds.iter().filter(|(of, _)| of == node);
    holds.map(|(_, pos)| *pos).collect()
}

fn index(pos: u64) -> usize {
    usize::try_from(pos).map_or(usize::MAX, |pos| pos.wrapping_sub(1))
}

/// How far a state has come; word that comes late never leads back.
fn rank(state: State) -> u8 {
    match state {
        State::Accepted => 0,
        // These say little about each other: a node may be made anew, and take it again.
        State::Sent | State::Deferred | State::Unknown | State::Received => 1,
        State::Running => 2,
        _ => 3,
    }
}
