//! The roster: every node, what is believed of it, since when and on whose word.
//!
//! Pure: times are handed in. It judges who is who (design section 4.4, *Who is who*) and knows
//! nothing of deliveries.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use steward_protocol::{
    Budget, Facts, Hello, InstanceId, JournalId, LedgerId, NodeName, Origin, ProcessView,
};

use crate::view::{NodeView, Presence};

/// Most nodes in the roster: at 2 KiB each a fifth of a GiB. A hello beyond it is counted and refused.
pub const MAX_NODES: usize = 100_000;

/// Heartbeats without word after which a node is late, in tenths.
const LATE_TENTHS: u32 = 25;

/// Heartbeats without word after which a node is offline, in tenths.
const OFFLINE_TENTHS: u32 = 35;

/// Heartbeats shorter or longer than this are taken as this.
const HEARTBEAT_BOUNDS: (Duration, Duration) =
    (Duration::from_millis(100), Duration::from_secs(24 * 3600));

/// Starts remembered per node of those that are over: a frame is not on its way for longer.
const MAX_SUPERSEDED: usize = 8;

/// One reading of the clocks, and a random number: everything a pure part may know of the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Monotonic time since some start.
    pub mono: Duration,
    /// Wall clock.
    pub wall: Timestamp,
    /// Random number for jitter.
    pub dice: u64,
}

/// What survives a restart of the station.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeRecord {
    /// The node.
    pub name: NodeName,
    /// Its journal.
    pub journal_id: Option<JournalId>,
    /// How often that journal has been opened.
    pub counter: u64,
    /// The start of the agent last heard.
    pub instance: Option<InstanceId>,
    /// Its kernel's boot id.
    pub boot_id: Option<String>,
    /// Its program version.
    pub version: Option<String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// When it was last heard.
    pub last_seen: Option<Timestamp>,
    /// Time between two of its hellos. Its silence is measured in these, also after our restart.
    pub heartbeat: Duration,
    /// Starts of the agent that a later one took over from, the latest last; a few at most.
    pub superseded: Vec<InstanceId>,
}

/// One node and what is believed of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// What survives a restart.
    pub record: NodeRecord,
    presence: Presence,
    since: Timestamp,
    reason: Option<String>,
    /// When it was last heard in this reign.
    heard: Option<Duration>,
    skew_ms: Option<i64>,
    round_trip_us: Option<u64>,
    conflict: Option<Conflict>,
    processes: Vec<ProcessView>,
    facts: Option<Facts>,
    budgets: BTreeMap<String, Budget>,
    /// Who may have taken its place.
    candidate: Option<Candidate>,
}

/// An agent whose word does not fit what is known of its node. A frame can be on its way for long, so
/// nobody is believed to have taken a node's place by one hello: whoever lives says another.
#[derive(Debug, Clone, PartialEq)]
struct Candidate {
    origin: (JournalId, InstanceId),
    /// When it spoke, by its own clock.
    said: Timestamp,
    seen: Duration,
}

impl Candidate {
    /// Whether it is the agent that speaks; that of another journal may have been restarted meanwhile.
    fn is_of(&self, origin: &Origin, same_journal: bool) -> bool {
        let (journal, instance) = self.origin;
        journal == origin.journal_id && (instance == origin.instance || !same_journal)
    }
}

#[derive(Debug, Clone, PartialEq)]
struct Conflict {
    text: String,
    other: InstanceId,
    seen: Duration,
}

/// Who a hello turned out to come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Greeting {
    /// The start of the agent already known.
    Same,
    /// A new start with the same journal, or the first ever.
    Started,
    /// Another journal in the place of one that is gone: what the old one knew is lost.
    Reimaged {
        /// Why it is taken for that.
        reason: String,
    },
    /// Held back until it is heard again: one hello may have been long on its way.
    Doubtful,
    /// Held back: somebody else is this node right now.
    Conflict {
        /// What is wrong, in words.
        reason: String,
        /// Whether this is the first time it is seen, so that it is raised once.
        first: bool,
    },
    /// The roster is full.
    Full,
}

/// Every node known.
#[derive(Debug, Clone)]
pub struct Roster {
    nodes: BTreeMap<NodeName, Node>,
    /// The nodes ever heard, by their names in lower case: no two may differ only in case.
    heard_names: BTreeMap<String, NodeName>,
    ledger_id: LedgerId,
    /// Since when word could have reached us; silence before it proves nothing.
    listening_since: Option<Duration>,
}

impl Roster {
    /// Returns a roster of the nodes known before; none of them has been heard yet.
    pub fn new(ledger_id: LedgerId, records: Vec<NodeRecord>, now: Moment) -> Self {
        let heard = records.iter().filter(|record| record.journal_id.is_some());
        let heard_names = heard
            .map(|record| {
                (
                    record.name.as_str().to_ascii_lowercase(),
                    record.name.clone(),
                )
            })
            .collect();
        let nodes = records
            .into_iter()
            .map(|record| {
                let reason = Some("not heard since the station started".to_owned());
                (record.name.clone(), Node::unheard(record, reason, now))
            })
            .collect();
        Self {
            nodes,
            heard_names,
            ledger_id,
            listening_since: None,
        }
    }

    /// Notes that the station can hear from now on, or cannot any more.
    pub fn listening(&mut self, connected: Option<Duration>) {
        self.listening_since = connected;
    }

    /// Returns what is believed of `name`.
    pub fn get(&self, name: &NodeName) -> Option<&Node> {
        self.nodes.get(name)
    }

    /// Returns every node.
    pub fn iter(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }

    /// Returns the nodes that carry all of `labels`; none means all that were ever heard.
    pub fn labelled(&self, labels: &BTreeMap<String, String>) -> Vec<NodeName> {
        self.nodes
            .values()
            .filter(|node| node.was_ever_heard())
            .filter(|node| {
                labels
                    .iter()
                    .all(|(key, value)| node.record.labels.get(key) == Some(value))
            })
            .map(|node| node.record.name.clone())
            .collect()
    }

    /// Adds a node that was only ever named by a message. Returns whether it is new.
    pub fn mention(&mut self, name: &NodeName, now: Moment) -> bool {
        if self.nodes.contains_key(name) || self.nodes.len() >= MAX_NODES {
            return false;
        }
        let record = NodeRecord::named(name.clone());
        let reason = Some("nobody has heard of it yet".to_owned());
        self.nodes
            .insert(name.clone(), Node::unheard(record, reason, now));
        true
    }

    /// Judges a hello and, unless it is held back, believes it.
    pub fn hello(
        &mut self,
        name: &NodeName,
        origin: &Origin,
        hello: &Hello,
        now: Moment,
    ) -> Greeting {
        if let Some(twin) = self.twin_of(name).cloned() {
            return self.refuse_twin(name, &twin, origin.instance, now);
        }
        if !self.nodes.contains_key(name) {
            if self.nodes.len() >= MAX_NODES {
                return Greeting::Full;
            }
            let record = NodeRecord::named(name.clone());
            self.nodes
                .insert(name.clone(), Node::unheard(record, None, now));
        }
        let listening = self.listening_since;
        let Some(node) = self.nodes.get_mut(name) else {
            return Greeting::Full;
        };
        let greeting = node.judge(origin, hello, listening, now);
        match &greeting {
            Greeting::Conflict { reason, .. } => node.hold_back(reason, origin.instance, now),
            Greeting::Same | Greeting::Started | Greeting::Reimaged { .. } => {
                node.believe(origin, hello, now);
                node.check_ledger(origin, self.ledger_id, now);
                self.heard_names
                    .insert(name.as_str().to_ascii_lowercase(), name.clone());
            }
            Greeting::Doubtful | Greeting::Full => {}
        }
        node.note_candidate(&greeting, origin, hello, now);
        greeting
    }

    /// Notes word of a node that is not a hello. Returns whether it comes from the start we believe:
    /// a superseded one, a clone and another journal are held back.
    pub fn heard(&mut self, name: &NodeName, origin: &Origin, now: Moment) -> bool {
        let Some(node) = self.nodes.get_mut(name) else {
            return false;
        };
        let is_known = node.record.journal_id == Some(origin.journal_id)
            && node.record.instance == Some(origin.instance);
        if is_known && node.presence != Presence::Unknown {
            node.mark_heard(now);
        }
        is_known
    }

    /// Lets silence tell. Returns the nodes whose presence changed.
    pub fn tick(&mut self, now: Moment) -> Vec<NodeName> {
        let Some(listening) = self.listening_since else {
            return Vec::new();
        };
        let mut changed = Vec::new();
        for node in self.nodes.values_mut() {
            if node.let_silence_tell(listening, now) {
                changed.push(node.record.name.clone());
            }
        }
        changed
    }

    /// Returns the name of a node that was heard and differs from `name` only in case (design section 4.1).
    pub fn twin_of(&self, name: &NodeName) -> Option<&NodeName> {
        let known = self.heard_names.get(&name.as_str().to_ascii_lowercase())?;
        (known != name).then_some(known)
    }

    /// Holds back an agent whose name is another's but for the case, and shows that on the other.
    fn refuse_twin(
        &mut self,
        name: &NodeName,
        twin: &NodeName,
        instance: InstanceId,
        now: Moment,
    ) -> Greeting {
        let reason =
            format!("an agent calls itself {name}, which differs only in case from {twin}");
        let first = self.nodes.get_mut(twin).is_some_and(|known| {
            let first = known.is_new_conflict(instance);
            known.hold_back(&reason, instance, now);
            first
        });
        Greeting::Conflict { reason, first }
    }
}

impl NodeRecord {
    fn named(name: NodeName) -> Self {
        Self {
            name,
            journal_id: None,
            counter: 0,
            instance: None,
            boot_id: None,
            version: None,
            labels: BTreeMap::new(),
            last_seen: None,
            heartbeat: steward_protocol::limits::HEARTBEAT,
            superseded: Vec::new(),
        }
    }
}

impl Node {
    fn unheard(record: NodeRecord, reason: Option<String>, now: Moment) -> Self {
        Self {
            record,
            presence: Presence::Unknown,
            since: now.wall,
            reason,
            heard: None,
            skew_ms: None,
            round_trip_us: None,
            conflict: None,
            processes: Vec::new(),
            facts: None,
            budgets: BTreeMap::new(),
            candidate: None,
        }
    }

    /// Returns what is believed.
    pub fn presence(&self) -> Presence {
        self.presence
    }

    /// Tells whether an agent of this name ever spoke.
    pub fn was_ever_heard(&self) -> bool {
        self.record.journal_id.is_some()
    }

    /// Returns why it is in this state, in words.
    pub fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    /// Returns since when it is in this state.
    pub fn since(&self) -> Timestamp {
        self.since
    }

    /// Returns the struct the outside sees; `open` deliveries are counted elsewhere.
    pub fn view(&self, open: u64) -> NodeView {
        let record = &self.record;
        NodeView {
            name: record.name.clone(),
            state: self.presence,
            since: self.since,
            reason: self.reason.clone(),
            last_seen: record.last_seen,
            instance: record.instance,
            journal_id: record.journal_id,
            version: record.version.clone(),
            boot_id: record.boot_id.clone(),
            labels: record.labels.clone(),
            skew_ms: self.skew_ms,
            round_trip_us: self.round_trip_us,
            conflict: self.conflict.as_ref().map(|conflict| conflict.text.clone()),
            open,
            processes: self.processes.clone(),
            facts: self.facts.clone(),
            budgets: self.budgets.clone(),
            garbage: BTreeMap::new(),
            fault_count: 0,
            faults: Vec::new(),
        }
    }

    fn judge(
        &self,
        origin: &Origin,
        hello: &Hello,
        listening: Option<Duration>,
        now: Moment,
    ) -> Greeting {
        let Some(known) = self.record.journal_id else {
            return Greeting::Started;
        };
        let same_journal = known == origin.journal_id;
        let same_instance = self.record.instance == Some(origin.instance);
        if same_journal && same_instance {
            return Greeting::Same;
        }
        if same_journal && hello.counter > self.record.counter {
            return Greeting::Started;
        }
        let reason = if same_journal {
            format!(
                "instance {} shows the journal's start {}, but start {} has been heard: a clone, a restored backup or a superseded agent",
                origin.instance, hello.counter, self.record.counter
            )
        } else {
            format!(
                "instance {} has the journal {}, but {known} is known",
                origin.instance, origin.journal_id
            )
        };
        // A hello that was long on its way is no backup: its start is known to be over.
        let over = same_journal && self.record.superseded.contains(&origin.instance);
        if over || self.may_be_alive(listening, now) {
            let first = self.is_new_conflict(origin.instance);
            return Greeting::Conflict { reason, first };
        }
        if !self.is_heard_again(origin, hello, same_journal) {
            return Greeting::Doubtful;
        }
        Greeting::Reimaged { reason }
    }

    /// Whether a candidate has said more than the one hello that can have been long on its way.
    fn is_heard_again(&self, origin: &Origin, hello: &Hello, same_journal: bool) -> bool {
        let candidate = self.candidate.as_ref();
        candidate.is_some_and(|it| it.is_of(origin, same_journal) && it.said < hello.at)
    }

    /// Notes who may have taken this node's place. The first keeps its turn, or two would take it from
    /// each other for ever.
    fn note_candidate(&mut self, greeting: &Greeting, origin: &Origin, hello: &Hello, now: Moment) {
        match greeting {
            Greeting::Doubtful | Greeting::Conflict { .. } => {}
            Greeting::Reimaged { .. } => return self.candidate = None,
            Greeting::Same | Greeting::Started | Greeting::Full => return,
        }
        let same_journal = self.record.journal_id == Some(origin.journal_id);
        let patience = self.record.heartbeat * OFFLINE_TENTHS / 10;
        let turn = self.candidate.as_ref().is_none_or(|it| {
            it.is_of(origin, same_journal) || now.mono.saturating_sub(it.seen) > patience
        });
        if turn {
            self.candidate = Some(Candidate {
                origin: (origin.journal_id, origin.instance),
                said: hello.at,
                seen: now.mono,
            });
        }
    }

    /// Whether the agent we know could still be there: heard lately, or we have not listened long enough.
    fn may_be_alive(&self, listening: Option<Duration>, now: Moment) -> bool {
        let patience = self.record.heartbeat * OFFLINE_TENTHS / 10;
        match (self.presence, listening) {
            (Presence::Online | Presence::Late, _) | (Presence::Unknown, None) => true,
            (Presence::Offline, _) => false,
            (Presence::Unknown, Some(since)) => now.mono.saturating_sub(since) < patience,
        }
    }

    fn is_new_conflict(&self, instance: InstanceId) -> bool {
        self.conflict
            .as_ref()
            .is_none_or(|conflict| conflict.other != instance)
    }

    fn hold_back(&mut self, reason: &str, other: InstanceId, now: Moment) {
        self.conflict = Some(Conflict {
            text: reason.to_owned(),
            other,
            seen: now.mono,
        });
    }

    fn believe(&mut self, origin: &Origin, hello: &Hello, now: Moment) {
        let earlier = self.record.instance.filter(|it| *it != origin.instance);
        if let Some(earlier) = earlier {
            let superseded = &mut self.record.superseded;
            if superseded.len() == MAX_SUPERSEDED {
                superseded.remove(0);
            }
            superseded.push(earlier);
        }
        let record = &mut self.record;
        record.journal_id = Some(origin.journal_id);
        record.counter = hello.counter;
        record.instance = Some(origin.instance);
        record.boot_id = Some(hello.boot_id.clone());
        record.version = Some(hello.version.clone());
        record.labels.clone_from(&hello.labels);
        self.record.heartbeat =
            Duration::from_millis(hello.interval_ms).clamp(HEARTBEAT_BOUNDS.0, HEARTBEAT_BOUNDS.1);
        self.skew_ms = Some(hello.at.as_millisecond() - now.wall.as_millisecond());
        self.round_trip_us = hello.round_trip_us.or(self.round_trip_us);
        self.processes.clone_from(&hello.processes);
        self.facts.clone_from(&hello.facts);
        self.budgets.clone_from(&hello.budgets);
        self.mark_heard(now);
        if hello.leaving {
            self.enter(
                Presence::Offline,
                Some("the agent said it was ending".to_owned()),
                now,
            );
        }
    }

    fn check_ledger(&mut self, origin: &Origin, ours: LedgerId, now: Moment) {
        if let Some(theirs) = origin.ledger_id.filter(|theirs| *theirs != ours) {
            let text = format!(
                "belongs to the ledger {theirs}, not to this station's {ours}: approve the takeover at the agent with --accept-ledger {ours}"
            );
            self.hold_back(&text, origin.instance, now);
        }
    }

    fn mark_heard(&mut self, now: Moment) {
        self.heard = Some(now.mono);
        self.record.last_seen = Some(now.wall);
        self.enter(Presence::Online, None, now);
    }

    fn enter(&mut self, presence: Presence, reason: Option<String>, now: Moment) {
        if self.presence != presence {
            self.presence = presence;
            self.since = now.wall;
        }
        self.reason = reason;
    }

    fn let_silence_tell(&mut self, listening: Duration, now: Moment) -> bool {
        let patience = |tenths| self.record.heartbeat * tenths / 10;
        let (late, offline) = (patience(LATE_TENTHS), patience(OFFLINE_TENTHS));
        if self
            .conflict
            .as_ref()
            .is_some_and(|conflict| now.mono.saturating_sub(conflict.seen) > offline)
        {
            self.conflict = None;
        }
        let Some(heard) = self.heard else {
            return false;
        };
        // While we could not hear, silence proves nothing: count from when we could again.
        let silent = now.mono.saturating_sub(heard.max(listening));
        let presence = match self.presence {
            Presence::Online if silent > late => Presence::Late,
            Presence::Late if silent > offline => Presence::Offline,
            Presence::Online | Presence::Late | Presence::Offline | Presence::Unknown => {
                return false;
            }
        };
        let reason = format!(
            "silent for {:.1} s, heartbeat {:.1} s",
            silent.as_secs_f64(),
            self.record.heartbeat.as_secs_f64()
        );
        self.enter(presence, Some(reason), now);
        true
    }
}

#[cfg(test)]
mod tests;
