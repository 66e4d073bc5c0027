//! What a ledger holds after some records, in memory: for simulators and tests, which have no disk.
//!
//! Pure. It derives from records exactly what the station's ledger derives from them; a test of the
//! ledger compares the two.

use std::collections::BTreeMap;

use steward_protocol::{LedgerId, NodeName, State};

use super::{Loaded, LoadedDelivery, LoadedLane, Open, Record, open::CancelRequest};
use crate::roster::NodeRecord;

/// A ledger without a disk: records go in, what a restart finds comes out.
#[derive(Debug, Clone)]
pub struct Replay {
    ledger_id: LedgerId,
    next_pos: u64,
    nodes: BTreeMap<NodeName, NodeRecord>,
    lanes: BTreeMap<(NodeName, super::LaneName), u64>,
    open: BTreeMap<(u64, NodeName), (Open, jiff::Timestamp)>,
    settled: BTreeMap<(u64, NodeName), State>,
}

impl Replay {
    /// Returns an empty ledger.
    pub fn new(ledger_id: LedgerId) -> Self {
        Self {
            ledger_id,
            next_pos: 1,
            nodes: BTreeMap::new(),
            lanes: BTreeMap::new(),
            open: BTreeMap::new(),
            settled: BTreeMap::new(),
        }
    }

    /// Returns the final state of a delivery, if it has one.
    pub fn settled(&self, pos: u64, node: &NodeName) -> Option<State> {
        self.settled.get(&(pos, node.clone())).copied()
    }

    /// Applies one record.
    pub fn record(&mut self, record: &Record) {
        match record {
            Record::Accepted(accepted) => {
                self.next_pos = accepted.pos + 1;
                for target in &accepted.targets {
                    let open = Open::accepted(accepted, target);
                    let key = (accepted.pos, target.node.clone());
                    self.open.insert(key, (open, accepted.accepted_at));
                }
            }
            Record::Reported(report) => {
                self.next_pos = report.pos + 1;
                let key = (report.pos, report.node.clone());
                self.settled.insert(key, report.ack.state);
            }
            Record::Attempt {
                pos,
                node,
                attempt,
                first,
            } => {
                let Some((open, since)) = self.open.get_mut(&(*pos, node.clone())) else {
                    return;
                };
                open.attempts = *attempt;
                if let Some(first) = first {
                    (open.state, *since) = (State::Sent, first.at);
                    if let Some((lane, seq)) = &first.seq {
                        open.seq = Some(*seq);
                        self.lanes.insert((node.clone(), lane.clone()), *seq);
                    }
                }
            }
            Record::Moved {
                pos,
                node,
                state,
                at,
                ..
            } => self.moved((*pos, node.clone()), *state, *at),
            Record::CancelRequested { pos, node, at, by } => {
                let by = by.clone();
                if let Some((open, _)) = self.open.get_mut(&(*pos, node.clone())) {
                    open.cancel = Some(CancelRequest { at: *at, by });
                }
            }
            Record::Released { pos, node, .. } => {
                if let Some((open, _)) = self.open.get_mut(&(*pos, node.clone())) {
                    open.held_by.clear();
                }
            }
            Record::LanesReset { node, .. } => self.reset_lanes(node),
            Record::Node(node) => {
                self.nodes.insert(node.name.clone(), (**node).clone());
            }
            Record::Reason { .. } | Record::Fault(_) | Record::Text(_) => {}
        }
    }

    fn moved(&mut self, key: (u64, NodeName), state: State, at: jiff::Timestamp) {
        if state.is_final() {
            self.open.remove(&key);
            self.settled.insert(key, state);
        } else if let Some((open, since)) = self.open.get_mut(&key) {
            (open.state, *since) = (state, at);
        }
    }

    fn reset_lanes(&mut self, node: &NodeName) {
        self.lanes.retain(|(of, _), _| of != node);
        for ((_, of), (open, _)) in &mut self.open {
            if of == node {
                open.seq = None;
            }
        }
    }

    /// Returns what a restart finds, as the reign `epoch`.
    pub fn load(&self, epoch: u64) -> Loaded {
        let lanes = self
            .lanes
            .iter()
            .map(|((node, lane), last_seq)| LoadedLane {
                node: node.clone(),
                lane: lane.clone(),
                last_seq: *last_seq,
            });
        let deliveries = self.open.iter().map(|((_, node), (open, since))| {
            let mut open = open.clone().after_restart(*since);
            open.held_by
                .retain(|holder| self.open.contains_key(&(*holder, node.clone())));
            LoadedDelivery {
                node: node.clone(),
                open,
            }
        });
        Loaded {
            ledger_id: self.ledger_id,
            epoch,
            next_pos: self.next_pos,
            nodes: self.nodes.values().cloned().collect(),
            lanes: lanes.collect(),
            deliveries: deliveries.collect(),
        }
    }
}
