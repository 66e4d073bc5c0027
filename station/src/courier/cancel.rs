//! Calling off, and what waits for it: cancellations, and repetitions held until the old order is settled.
//!
//! Pure, like its parent.

use jiff::Timestamp;
use steward_protocol::{MessageId, NodeName, State};

use super::{Action, Courier, Mover, Record, open::CancelRequest};
use crate::{delivery, roster::Moment};

/// What an operator wants called off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cancellation {
    /// The message.
    pub id: MessageId,
    /// On which nodes.
    pub nodes: Vec<NodeName>,
    /// Who asks, as the station knows it.
    pub by: String,
}

/// What became of a cancellation on one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CancelAnswer {
    /// It was never sent, and now never will be: final.
    Cancelled,
    /// It may have reached the node, so the node is asked; the state stays until the node has spoken.
    Requested {
        /// How it stands.
        state: State,
    },
    /// Somebody asked before; the node is asked again at once.
    Repeated {
        /// How it stands.
        state: State,
        /// When it was asked for first.
        since: Timestamp,
    },
    /// Nothing is open there: it is settled, or was never meant for this node. Only the ledger can tell.
    NotOpen,
}

impl Courier {
    /// Calls a message off on some nodes. What was never sent is cancelled at once (rule J9); from
    /// whatever may have reached its node only the cancellation travels from now on.
    pub fn cancel(
        &mut self,
        cancellation: &Cancellation,
        now: Moment,
    ) -> (Vec<(NodeName, CancelAnswer)>, Vec<Action>) {
        let mut actions = Vec::new();
        let place = self.places.get(&cancellation.id).map(|place| place.pos);
        let mut answers = Vec::with_capacity(cancellation.nodes.len());
        for node in &cancellation.nodes {
            let answer = place.map_or(CancelAnswer::NotOpen, |pos| {
                self.call_off(node, pos, &cancellation.by, now, &mut actions)
            });
            answers.push((node.clone(), answer));
        }
        for node in &cancellation.nodes {
            self.pump(node, now, &mut actions);
        }
        (answers, actions)
    }

    fn call_off(
        &mut self,
        node: &NodeName,
        pos: u64,
        by: &str,
        now: Moment,
        actions: &mut Vec<Action>,
    ) -> CancelAnswer {
        let Some(open) = self.links.get(node).and_then(|link| link.get(pos)) else {
            return CancelAnswer::NotOpen;
        };
        let (state, earlier) = (open.state, open.cancel.clone());
        let request = CancelRequest {
            at: now.wall,
            by: by.to_owned(),
        };
        if earlier.is_none() {
            actions.push(Action::Record(Record::CancelRequested {
                pos,
                node: node.clone(),
                at: request.at,
                by: request.by.clone(),
            }));
        }
        let why = format!("cancelled by {by} before it was ever sent");
        let mover = Mover {
            event: delivery::Event::Cancel,
            by: self.name.clone(),
            why: (state == State::Accepted).then_some(why),
            ack: None,
        };
        self.advance(node, pos, mover, now, actions);
        let Some(link) = self.links.get_mut(node) else {
            return CancelAnswer::NotOpen;
        };
        if link.get(pos).is_none() {
            return CancelAnswer::Cancelled;
        }
        link.call_off(pos, request, now);
        match earlier {
            Some(earlier) => CancelAnswer::Repeated {
                state,
                since: earlier.at,
            },
            None => CancelAnswer::Requested { state },
        }
    }

    /// `settled` is final on `node`: what was held for it is sent now or, if it succeeded after all, never.
    pub(super) fn release(
        &mut self,
        node: &NodeName,
        settled: Settled,
        now: Moment,
        actions: &mut Vec<Action>,
    ) {
        let Settled { id, pos, state } = settled;
        let waiting = self.links.get(node).map(|link| link.held_by(pos));
        for waiter in waiting.unwrap_or_default() {
            if state == State::Succeeded {
                let why = format!(
                    "message {id}, which it repeats, succeeded after all; this one was never sent"
                );
                let mover = Mover {
                    event: delivery::Event::Cancel,
                    by: self.name.clone(),
                    why: Some(why),
                    ack: None,
                };
                self.advance(node, waiter, mover, now, actions);
                continue;
            }
            let is_free = self
                .links
                .get_mut(node)
                .is_some_and(|link| link.let_go(waiter, pos));
            if is_free {
                actions.push(Action::Record(Record::Released {
                    pos: waiter,
                    node: node.clone(),
                    at: now.wall,
                    by: self.name.clone(),
                    why: format!("released: message {id} is settled here as {state}"),
                }));
            }
        }
    }
}

/// A delivery that has just become final.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settled {
    pub(super) id: MessageId,
    pub(super) pos: u64,
    pub(super) state: State,
}
