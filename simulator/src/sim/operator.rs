//! What operators do: submit, cancel, repeat. They try again until they are told that it is stored.

use std::{rc::Rc, sync::Arc};

use steward_protocol::{MessageId, State};
use steward_station::courier::{Action, Cancellation, Record};
use uuid::Uuid;

use super::{
    book::{Page, Request, wall},
    bug::Bug,
    check::Wrong,
    station::signed,
    world::{Happening, Who, World},
};

/// An operator whose submission was not taken tries again after this.
const RESUBMIT: u64 = 500;

impl World<'_> {
    pub(super) fn submit(&mut self) {
        if self.left == 0 {
            return;
        }
        if let Some((first, count)) = self.pending.take() {
            // Whoever submitted and heard nothing asks whether it was stored, as the inbox does.
            if self.station.ledger.messages.len() as u64 >= first + count - 1 {
                self.submitted(first, count);
            }
        }
        let ready = self.station.reign.as_ref().is_some_and(|it| !it.waiting);
        if self.left == 0 || !ready {
            if self.left > 0 {
                self.queue.plan(self.now + RESUBMIT, Happening::Submit);
            }
            return;
        }
        let count = self.dice.pick(&[1, 1, 1, 2, 5]).min(self.left);
        let mut actions = Vec::new();
        let first = self.station.ledger.messages.len() as u64 + 1;
        for pos in first..first + count {
            let page = self.book.pick(self.plan.nodes, pos, &mut self.dice);
            self.hand_over(page, &mut actions);
        }
        self.pending = Some((first, count));
        let again = if self.carry_out(actions) {
            self.pending = None;
            self.submitted(first, count);
            let most = (self.plan.submitting * 2 / self.terms.messages).max(1);
            self.now + self.dice.below(most * count)
        } else {
            self.now + RESUBMIT
        };
        self.queue.plan(again, Happening::Submit);
    }

    pub(super) fn submitted(&mut self, first: u64, count: u64) {
        self.told = self.told.max(first + count - 1);
        self.left -= count;
    }

    /// Hands a message to the courier.
    pub(super) fn hand_over(&mut self, page: Rc<Page>, actions: &mut Vec<Action>) {
        let Some(born) = self.station.reign.as_ref().map(|it| it.born) else {
            return;
        };
        let moment = self.station_moment(born);
        let place = usize::try_from(page.accepted.pos).unwrap_or(1) - 1;
        self.pages.truncate(place);
        self.pages.push(Rc::clone(&page));
        if let Some(running) = &mut self.station.reign {
            let accepted = Arc::clone(&page.accepted);
            actions.append(&mut running.courier.accept(accepted, moment));
        }
    }

    /// An operator calls a message off, on one of its nodes or on all of them.
    pub(super) fn cancel_something(&mut self) {
        let kept = self.station.ledger.messages.len();
        if kept == 0 || !self.is_ready() {
            return;
        }
        let pos = self.dice.index(kept) as u64 + 1;
        let one = self.dice.chance(300);
        let nodes: Vec<usize> = self.nodes_of(pos, |_| true);
        let nodes = if one { &nodes[..1] } else { &nodes[..] };
        self.note(Who::Fate, || format!("an operator cancels {pos}"));
        let actions = self.call_off(pos, nodes);
        self.carry_out(actions);
        if self.bug(Bug::CancelWithoutProof) {
            self.cancel_without_proof(pos);
        }
    }

    pub(super) fn is_ready(&self) -> bool {
        self.station.reign.as_ref().is_some_and(|it| !it.waiting)
    }

    pub(super) fn nodes_of(&self, pos: u64, which: impl Fn(State) -> bool) -> Vec<usize> {
        let rows = self.station.ledger.message(pos).map(|it| &it.rows);
        let rows = rows.into_iter().flatten().filter(|row| which(row.state));
        rows.map(|row| row.node).collect()
    }

    pub(super) fn call_off(&mut self, pos: u64, nodes: &[usize]) -> Vec<Action> {
        let Some(message) = self.station.ledger.message(pos) else {
            return Vec::new();
        };
        let cancellation = Cancellation {
            id: message.page.accepted.id,
            nodes: nodes
                .iter()
                .map(|it| self.book.names[*it].clone())
                .collect(),
            by: "operator".to_owned(),
        };
        let Some(born) = self.station.reign.as_ref().map(|it| it.born) else {
            return Vec::new();
        };
        let moment = self.station_moment(born);
        match &mut self.station.reign {
            Some(running) => running.courier.cancel(&cancellation, moment).1,
            None => Vec::new(),
        }
    }

    /// Records as cancelled what the nodes have not spoken about.
    pub(super) fn cancel_without_proof(&mut self, pos: u64) {
        for node in self.nodes_of(pos, |state| !state.is_final()) {
            let record = Record::Moved {
                pos,
                node: self.book.names[node].clone(),
                state: State::Cancelled,
                at: wall(signed(self.now)),
                by: self.book.station.clone(),
                why: None,
                ack: None,
            };
            let applied = self.station.ledger.apply(&record, &self.pages);
            if let Err(broken) = applied {
                self.wrong(Wrong::Ledger, broken.0);
            }
        }
        self.after_record(&[], true);
    }

    /// An operator repeats a message on the nodes where it did not succeed; where its end is not known
    /// it is called off first, and the new one waits for that unless it is forced.
    pub(super) fn retry_something(&mut self, force: bool) {
        let kept = self.station.ledger.messages.len();
        if kept == 0 || !self.is_ready() || self.retries == 0 {
            return;
        }
        let old = self.dice.index(kept) as u64 + 1;
        let nodes = self.nodes_of(old, |state| state != State::Succeeded);
        let Some(message) = self
            .station
            .ledger
            .message(old)
            .filter(|_| !nodes.is_empty())
        else {
            return;
        };
        let page = Rc::clone(&message.page);
        let open = self.nodes_of(old, |state| !state.is_final());
        let pos = kept as u64 + 1;
        self.note(Who::Fate, || {
            let force = if force { ", by force" } else { "" };
            format!("an operator repeats {old} as {pos}{force}")
        });
        let mut actions = self.call_off(old, &open);
        let holds = open.iter().map(|node| (*node, old));
        let request = Request {
            id: MessageId(Uuid::from_u64_pair(0x4E7, self.id())),
            pos,
            nodes,
            domain: page.domain,
            options: page.accepted.message.options.clone(),
            nature: page.nature,
            retry_of: Some(page.accepted.id),
            holds: if force { Vec::new() } else { holds.collect() },
            at: self.now,
        };
        let page = Rc::new(self.book.page(request));
        self.hand_over(page, &mut actions);
        if self.carry_out(actions) {
            self.retries -= 1;
            self.told = self.told.max(pos);
        }
    }
}
