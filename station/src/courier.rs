//! The courier's decisions: what to send to whom, when again, and what to believe of the answers.
//!
//! Pure: events and a [`Moment`] go in, actions come out. No broker, no ledger, no clock, no dice of
//! its own. The shell commits every [`Action::Record`] before it carries out any other action of
//! the same batch; that order is rules J4, J7 and J9. If a commit fails, the shell throws this
//! machine away and loads a new one from the ledger, as after a restart.

mod cancel;
mod heard;
mod link;
mod open;
mod outlook;
mod pump;
mod record;
mod replay;
mod unasked;

pub use cancel::{CancelAnswer, Cancellation};
pub(crate) use open::Schedule;
pub use open::{CancelRequest, LaneName, Open};
pub use outlook::{Ahead, Outlook};
pub use record::{
    Accepted, Action, Addressee, Dispatch, FaultRecord, FirstAttempt, Loaded, LoadedDelivery,
    LoadedLane, Record, ReportRecord, TextRecord, Withdrawal,
};
pub use replay::Replay;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use steward_protocol::{
    Ack, FaultEvent, Hello, LedgerId, MessageId, NodeName, Origin, Sealed, State, Target, TextEvent,
};

use crate::{
    courier::{cancel::Settled, link::Link},
    delivery::{self, Step},
    roster::{Moment, Roster},
    view::{NodeView, Presence},
};

/// Deliveries that may be open at once: about 500 bytes each, so about half a GiB.
pub const MAX_OPEN: usize = 1_000_000;

/// How often deadlines are looked at: they are no finer than a second to anybody.
const REVIEW_EVERY: Duration = Duration::from_secs(1);

/// What can happen to the courier, besides an operator's message.
#[derive(Debug, Clone)]
pub enum Event {
    /// The broker is there.
    Connected,
    /// The broker is gone.
    Disconnected,
    /// A node introduced itself.
    Hello {
        /// Who.
        node: NodeName,
        /// Which start, which journal.
        origin: Origin,
        /// What it said.
        hello: Box<Hello>,
    },
    /// A node said how an order stands.
    Ack {
        /// Who.
        node: NodeName,
        /// Which start, which journal.
        origin: Origin,
        /// What it said.
        ack: Box<Ack>,
    },
    /// A node reported a fault.
    Fault {
        /// Who.
        node: NodeName,
        /// Which start, which journal.
        origin: Origin,
        /// What it said.
        fault: Box<FaultEvent>,
    },
    /// A node has text for its log.
    Text {
        /// Who.
        node: NodeName,
        /// Which start, which journal.
        origin: Origin,
        /// What it said.
        text: Box<TextEvent>,
    },
    /// A node told what came of an order it gave itself.
    Report {
        /// Who.
        node: NodeName,
        /// Which start, which journal.
        origin: Origin,
        /// What it said, checked against itself.
        report: Box<Report>,
    },
    /// The broker says that nobody listens for this node.
    NoResponders {
        /// Who is not there.
        node: NodeName,
        /// When it was spoken to.
        sent: Duration,
    },
    /// Time has passed.
    Tick,
}

/// What came of an order that a node gave itself.
#[derive(Debug, Clone)]
pub struct Report {
    /// What gave the order.
    pub source: String,
    /// The order.
    pub order: Sealed,
    /// Its final state.
    pub ack: Ack,
    /// What the ledger knows of it.
    pub known: KnownReport,
}

/// What the ledger knows of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KnownReport {
    /// Nothing.
    New,
    /// It has it.
    Same,
    /// It has another message with this id.
    Other,
}

/// The courier's state: the roster and, per node, what is open.
#[derive(Debug)]
pub struct Courier {
    name: NodeName,
    ledger_id: LedgerId,
    epoch: u64,
    next_pos: u64,
    connected: bool,
    roster: Roster,
    links: BTreeMap<NodeName, Link>,
    /// Where to find every open message, for ACKs.
    places: HashMap<MessageId, Place>,
    open: usize,
    /// When deadlines were last looked at.
    reviewed: Duration,
    counters: BTreeMap<&'static str, u64>,
    /// What was counted last and not asked for yet.
    counted: Option<&'static str>,
}

impl Courier {
    /// Returns the machine as the ledger left it.
    pub fn load(name: NodeName, loaded: Loaded, now: Moment) -> Self {
        let mut courier = Self {
            name,
            ledger_id: loaded.ledger_id,
            epoch: loaded.epoch,
            next_pos: loaded.next_pos,
            connected: false,
            roster: Roster::new(loaded.ledger_id, loaded.nodes, now),
            links: BTreeMap::new(),
            places: HashMap::new(),
            open: 0,
            reviewed: Duration::ZERO,
            counters: BTreeMap::new(),
            counted: None,
        };
        for lane in loaded.lanes {
            courier
                .links
                .entry(lane.node)
                .or_default()
                .restore_lane(lane.lane, lane.last_seq);
        }
        for delivery in loaded.deliveries {
            courier.roster.mention(&delivery.node, now);
            courier.place(delivery.open.id, delivery.open.pos);
            courier
                .links
                .entry(delivery.node)
                .or_default()
                .insert(delivery.open);
            courier.open += 1;
        }
        for link in courier.links.values_mut() {
            link.let_go_of_settled();
        }
        courier
    }

    /// Returns the place the next accepted message gets.
    pub fn next_pos(&self) -> u64 {
        self.next_pos
    }

    /// Returns the number of deliveries that are not final.
    pub fn open(&self) -> usize {
        self.open
    }

    /// Returns what was counted, by name.
    pub fn counters(&self) -> &BTreeMap<&'static str, u64> {
        &self.counters
    }

    /// Returns what the latest event was counted as, if it was not believed.
    pub fn take_counted(&mut self) -> Option<&'static str> {
        self.counted.take()
    }

    /// Returns what the outside sees of every node.
    pub fn nodes(&self) -> Vec<NodeView> {
        let open = |name: &NodeName| self.links.get(name).map_or(0, |link| link.len() as u64);
        self.roster
            .iter()
            .map(|node| node.view(open(&node.record.name)))
            .collect()
    }

    /// Returns what the outside sees of one node.
    pub fn node(&self, name: &NodeName) -> Option<NodeView> {
        let open = self.links.get(name).map_or(0, |link| link.len() as u64);
        self.roster.get(name).map(|node| node.view(open))
    }

    /// Returns why the delivery of `id` to `node`, not sent yet, is waiting, in words.
    pub fn waiting_for(&self, node: &NodeName, id: MessageId) -> String {
        let holders = self.holders(node, id);
        if !holders.is_empty() {
            return format!(
                "held until message {} is settled on {node}",
                holders.join(", ")
            );
        }
        match self.roster.get(node) {
            None => format!("waiting for the unknown node {node}: nobody has heard of it"),
            Some(known) if !known.was_ever_heard() => {
                format!("waiting for the unknown node {node}: nobody has heard of it")
            }
            Some(known) => {
                let conflict = known
                    .view(0)
                    .conflict
                    .map(|text| format!("; conflict: {text}"));
                let why = known
                    .reason()
                    .map(|reason| format!(" ({reason})"))
                    .unwrap_or_default();
                format!(
                    "waiting for its turn: {node} is {} since {:.0}{why}{}",
                    known.presence().as_str(),
                    known.since(),
                    conflict.unwrap_or_default()
                )
            }
        }
    }

    /// Returns the ids of what must be settled on `node` before `id` is sent there.
    fn holders(&self, node: &NodeName, id: MessageId) -> Vec<String> {
        let place = self.places.get(&id).map(|place| place.pos);
        let open = || {
            let link = self.links.get(node)?;
            Some((link, link.get(place?)?))
        };
        let Some((link, open)) = open() else {
            return Vec::new();
        };
        let holders = open.held_by.iter().filter_map(|pos| link.get(*pos));
        holders.map(|holder| holder.id.to_string()).collect()
    }

    /// Returns the nodes meant by `target`: the named ones, or those known that carry the labels.
    pub fn resolve(&self, target: &Target) -> Vec<NodeName> {
        match target {
            Target::Nodes(nodes) => nodes.clone(),
            Target::Labels(labels) => self.roster.labelled(labels),
        }
    }

    /// Returns a known node whose name differs from `name` only in case.
    pub fn twin_of(&self, name: &NodeName) -> Option<NodeName> {
        self.roster.twin_of(name).cloned()
    }

    /// Tells whether the message at `pos` is not final on `node`.
    pub fn is_open(&self, node: &NodeName, pos: u64) -> bool {
        let link = self.links.get(node);
        link.is_some_and(|link| link.get(pos).is_some())
    }

    /// Takes a message into the outbox. Its `pos` must be [`Self::next_pos`]. Of what it says to wait
    /// for, only what is still open holds it.
    pub fn accept(&mut self, mut accepted: Arc<Accepted>, now: Moment) -> Vec<Action> {
        debug_assert_eq!(accepted.pos, self.next_pos);
        let is_stale = |(node, pos): &(NodeName, u64)| !self.is_open(node, *pos);
        if accepted.holds.iter().any(is_stale) {
            let holds = accepted.holds.iter().filter(|hold| !is_stale(hold));
            let holds = holds.cloned().collect();
            Arc::make_mut(&mut accepted).holds = holds;
        }
        let mut actions = vec![Action::Record(Record::Accepted(Arc::clone(&accepted)))];
        self.next_pos = accepted.pos + 1;
        for target in &accepted.targets {
            if self.roster.mention(&target.node, now) {
                let fault = FaultRecord {
                    kind: "unknown node".to_owned(),
                    detail: format!(
                        "message {} is for {}, which nobody has heard of",
                        accepted.id, target.node
                    ),
                    verdict: "kept until the node speaks or the message expires".to_owned(),
                    ..FaultRecord::at(now.wall, Some(target.node.clone()))
                };
                actions.push(Action::Record(Record::Fault(fault)));
            }
            let link = self.links.entry(target.node.clone()).or_default();
            link.insert(Open::accepted(&accepted, target));
            self.place(accepted.id, accepted.pos);
            self.open += 1;
        }
        for target in &accepted.targets {
            self.pump(&target.node, now, &mut actions);
        }
        actions
    }

    /// Returns what is to be done about `event`.
    pub fn on(&mut self, event: Event, now: Moment) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::Connected => {
                self.connected = true;
                self.roster.listening(Some(now.mono));
                for link in self.links.values_mut() {
                    link.reconnected(now);
                }
                self.pump_all(now, &mut actions);
            }
            Event::Disconnected => {
                self.connected = false;
                self.roster.listening(None);
            }
            Event::Hello {
                node,
                origin,
                hello,
            } => {
                self.on_hello(&node, &origin, &hello, now, &mut actions);
            }
            Event::Ack { node, origin, ack } => {
                self.on_ack(&node, &origin, *ack, now, &mut actions)
            }
            Event::Fault {
                node,
                origin,
                fault,
            } => {
                self.on_fault(&node, &origin, *fault, now, &mut actions);
            }
            Event::Text { node, origin, text } => {
                self.on_text(&node, &origin, *text, now, &mut actions);
            }
            Event::Report {
                node,
                origin,
                report,
            } => {
                self.on_report(&node, &origin, *report, now, &mut actions);
            }
            Event::NoResponders { node, sent } => {
                if let Some(link) = self.links.get_mut(&node) {
                    link.nobody_there(sent, now);
                }
            }
            Event::Tick => self.on_tick(now, &mut actions),
        }
        actions
    }

    fn on_tick(&mut self, now: Moment, actions: &mut Vec<Action>) {
        for node in self.roster.tick(now) {
            let offline = self
                .roster
                .get(&node)
                .is_some_and(|known| known.presence() == Presence::Offline);
            if offline {
                if let Some(link) = self.links.get_mut(&node) {
                    link.absent();
                }
                self.record_node(&node, actions);
            }
        }
        if now.mono.saturating_sub(self.reviewed) >= REVIEW_EVERY {
            self.reviewed = now.mono;
            self.review(now, actions);
        }
        self.pump_all(now, actions);
    }

    /// Lets deadlines pass.
    fn review(&mut self, now: Moment, actions: &mut Vec<Action>) {
        let overdue: Vec<(NodeName, Vec<u64>)> = self
            .links
            .iter()
            .map(|(node, link)| (node.clone(), link.overdue(now.wall)))
            .filter(|(_, places)| !places.is_empty())
            .collect();
        for (node, places) in overdue {
            for pos in places {
                let why = Some("the deadline passed".to_owned());
                let mover = Mover {
                    event: delivery::Event::Deadline,
                    by: self.name.clone(),
                    why,
                    ack: None,
                };
                self.advance(&node, pos, mover, now, actions);
                if let Some(link) = self.links.get_mut(&node) {
                    link.reviewed(pos);
                }
            }
        }
    }

    /// Applies one event to one delivery and records what changed.
    fn advance(
        &mut self,
        node: &NodeName,
        pos: u64,
        mover: Mover,
        now: Moment,
        actions: &mut Vec<Action>,
    ) {
        let Some(open) = self.links.get_mut(node).and_then(|link| link.get_mut(pos)) else {
            return;
        };
        let state = match delivery::next(open.state, mover.event) {
            Ok(Step::Stay) => {
                if let (State::Deferred, Some(why)) = (open.state, mover.why) {
                    let node = node.clone();
                    actions.push(Action::Record(Record::Reason { pos, node, why }));
                }
                return;
            }
            Ok(Step::To(state)) => state,
            Err(_) => return self.count("impossible_step"),
        };
        open.state = state;
        let id = open.id;
        actions.push(Action::Record(Record::Moved {
            pos,
            node: node.clone(),
            state,
            at: now.wall,
            by: mover.by,
            why: mover.why,
            ack: mover.ack,
        }));
        if state.is_final() {
            self.settle(node, pos, id);
            self.release(node, Settled { id, pos, state }, now, actions);
        }
    }

    fn settle(&mut self, node: &NodeName, pos: u64, id: MessageId) {
        if let Some(link) = self.links.get_mut(node) {
            link.remove(pos);
            self.open -= 1;
        }
        if let Some(place) = self.places.get_mut(&id) {
            place.open -= 1;
            if place.open == 0 {
                self.places.remove(&id);
            }
        }
    }

    fn place(&mut self, id: MessageId, pos: u64) {
        self.places.entry(id).or_insert(Place { pos, open: 0 }).open += 1;
    }

    fn pump_all(&mut self, now: Moment, actions: &mut Vec<Action>) {
        let due = |link: &Link| link.look_at().is_some_and(|at| at <= now.mono);
        let nodes: Vec<NodeName> = self
            .links
            .iter()
            .filter(|(_, link)| due(link))
            .map(|(node, _)| node.clone())
            .collect();
        for node in nodes {
            self.pump(&node, now, actions);
        }
    }

    /// Sends what is due to one node.
    fn pump(&mut self, node: &NodeName, now: Moment, actions: &mut Vec<Action>) {
        if !self.connected {
            return;
        }
        let reign = link::Reigning {
            ledger_id: self.ledger_id,
            epoch: self.epoch,
            next_pos: self.next_pos,
            station: &self.name,
        };
        if let Some(link) = self.links.get_mut(node) {
            link.pump(node, &reign, now, actions);
        }
    }

    fn low(&self, node: &NodeName) -> u64 {
        self.links
            .get(node)
            .map_or(self.next_pos, |link| link.low(self.next_pos))
    }

    fn record_node(&self, node: &NodeName, actions: &mut Vec<Action>) {
        if let Some(known) = self.roster.get(node) {
            actions.push(Action::Record(Record::Node(Box::new(known.record.clone()))));
        }
    }

    fn count(&mut self, what: &'static str) {
        *self.counters.entry(what).or_default() += 1;
        self.counted = Some(what);
    }
}

/// Where an open message stands, and to how many nodes it is still open.
#[derive(Debug)]
struct Place {
    pos: u64,
    open: usize,
}

/// One event on its way into the delivery machine, with whose word it is.
struct Mover {
    event: delivery::Event,
    by: NodeName,
    why: Option<String>,
    ack: Option<Box<Ack>>,
}

#[cfg(test)]
mod tests;
