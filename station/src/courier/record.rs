//! What the courier and the ledger tell each other: records to write, actions to carry out, and
//! what a restart finds.

use std::sync::Arc;

use jiff::Timestamp;
use steward_protocol::{
    Ack, Cancel, Confirm, Digest, Domain, EventId, InstanceId, LedgerId, Message, MessageId,
    NodeName, Sealed, Send, State, Subject,
};
use uuid::Uuid;

use crate::{
    courier::open::{LaneName, Open},
    roster::NodeRecord,
};

/// A message as the ledger keeps it: one record, with its target set.
#[derive(Debug, Clone)]
pub struct Accepted {
    /// Its place in the ledger.
    pub pos: u64,
    /// Its id.
    pub id: MessageId,
    /// What was asked.
    pub message: Message,
    /// Digest of what was asked, without the id: tells "the same again" from "another one with this id".
    pub content: Digest,
    /// The station that accepted it.
    pub station: NodeName,
    /// Where it came from.
    pub source: String,
    /// Who submitted it.
    pub submitted_by: String,
    /// When it was accepted, in whole milliseconds.
    pub accepted_at: Timestamp,
    /// After this it must not be started.
    pub expires_at: Timestamp,
    /// The inbox's claim it came with, so that a crash never makes it come twice.
    pub intake: Option<Uuid>,
    /// The message it repeats, if an operator asked for that.
    pub retry_of: Option<MessageId>,
    /// Where it must not be sent yet: the node, and the place of an earlier message that must be settled
    /// there first. If that one turns out to have succeeded, this one is cancelled there.
    pub holds: Vec<(NodeName, u64)>,
    /// Every node it goes to, with the digest of the order for that node.
    pub targets: Vec<Addressee>,
}

/// One node a message goes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addressee {
    /// The node.
    pub node: NodeName,
    /// Digest of the order's bytes for this node.
    pub digest: Digest,
}

/// A fault to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FaultRecord {
    /// The event it came with, when a node reported it.
    pub id: Option<EventId>,
    /// When the station learned of it.
    pub at: Timestamp,
    /// The node it concerns.
    pub node: Option<NodeName>,
    /// A short word.
    pub kind: String,
    /// The process it happened in.
    pub subject: Option<String>,
    /// What happened.
    pub detail: String,
    /// What was decided.
    pub verdict: String,
}

impl FaultRecord {
    /// Returns an empty fault of `node`, to be filled in.
    pub fn at(at: Timestamp, node: Option<NodeName>) -> Self {
        Self {
            id: None,
            at,
            node,
            kind: String::new(),
            subject: None,
            detail: String::new(),
            verdict: String::new(),
        }
    }
}

/// Something that must be durable before anything that follows from it is done.
#[derive(Debug, Clone)]
pub enum Record {
    /// A message was accepted.
    Accepted(Arc<Accepted>),
    /// A delivery is about to be sent (rule J9).
    Attempt {
        /// The message's place.
        pos: u64,
        /// To whom.
        node: NodeName,
        /// Which attempt, from 1.
        attempt: u32,
        /// What makes it `sent`, when this is the first attempt.
        first: Option<FirstAttempt>,
    },
    /// A delivery changed its state.
    Moved {
        /// The message's place.
        pos: u64,
        /// To whom.
        node: NodeName,
        /// The state entered.
        state: State,
        /// When, by the station's clock.
        at: Timestamp,
        /// On whose word.
        by: NodeName,
        /// Why.
        why: Option<String>,
        /// The ACK that said so.
        ack: Option<Box<Ack>>,
    },
    /// The reason of a state changed, but not the state.
    Reason {
        /// The message's place.
        pos: u64,
        /// To whom.
        node: NodeName,
        /// The reason now.
        why: String,
    },
    /// Somebody asked that a delivery be called off. Its state may not have changed yet.
    CancelRequested {
        /// The message's place.
        pos: u64,
        /// To whom.
        node: NodeName,
        /// When.
        at: Timestamp,
        /// Who asked, as the station knows it.
        by: String,
    },
    /// A delivery that was held may be sent.
    Released {
        /// The message's place.
        pos: u64,
        /// To whom.
        node: NodeName,
        /// When.
        at: Timestamp,
        /// On whose word: the station's name.
        by: NodeName,
        /// Why.
        why: String,
    },
    /// A node's sequence numbers start again.
    LanesReset {
        /// Which node.
        node: NodeName,
        /// When.
        at: Timestamp,
    },
    /// What is known of a node changed.
    Node(Box<NodeRecord>),
    /// A fault.
    Fault(FaultRecord),
    /// Text of a node for its log.
    Text(TextRecord),
    /// What came of an order that a node gave itself.
    Reported(Box<ReportRecord>),
}

/// Text of a node for its log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextRecord {
    /// The event it came with.
    pub id: EventId,
    /// When the station learned of it.
    pub at: Timestamp,
    /// Whose.
    pub node: NodeName,
    /// Which of its logs.
    pub domain: Domain,
    /// The lines.
    pub lines: Vec<String>,
}

/// What came of an order that a node gave itself: a message with one delivery in its final state.
#[derive(Debug, Clone)]
pub struct ReportRecord {
    /// Its place in the ledger.
    pub pos: u64,
    /// When the station learned of it.
    pub at: Timestamp,
    /// The node.
    pub node: NodeName,
    /// What gave the order.
    pub source: String,
    /// The order.
    pub order: Sealed,
    /// Its final state.
    pub ack: Ack,
}

/// The attempt that makes a delivery `sent`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirstAttempt {
    /// Its lane and its place there, when it is ordered.
    pub seq: Option<(LaneName, u64)>,
    /// When.
    pub at: Timestamp,
    /// On whose word: the station's name.
    pub by: NodeName,
}

/// One transmission of an order, to be filled with the order's bytes.
#[derive(Debug, Clone)]
pub struct Dispatch {
    /// To whom.
    pub node: NodeName,
    /// Digest the order's bytes must have.
    pub digest: Digest,
    /// The header.
    pub send: Send,
}

/// One transmission of a cancellation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Withdrawal {
    /// To whom.
    pub node: NodeName,
    /// Where it travels.
    pub subject: Subject,
    /// The header the order itself would have.
    pub send: Send,
    /// What is called off.
    pub cancel: Cancel,
}

/// What the shell is to do, in this order.
#[derive(Debug, Clone)]
pub enum Action {
    /// Make this durable first.
    Record(Record),
    /// Send an order.
    Order(Dispatch),
    /// Send a cancellation.
    Cancel(Box<Withdrawal>),
    /// Answer a hello.
    Welcome {
        /// To whom.
        node: NodeName,
        /// The start it answers.
        instance: InstanceId,
        /// As in [`Send::low`].
        low: u64,
        /// The hello's own time.
        hello_at: Timestamp,
    },
    /// Tell a node what it may forget.
    Confirm {
        /// To whom.
        node: NodeName,
        /// The start that reported it.
        instance: InstanceId,
        /// As in [`Send::low`].
        low: u64,
        /// Domain of the subject.
        domain: Domain,
        /// What.
        confirm: Confirm,
    },
    /// An ACK for something that is not open: confirm it if the ledger says it is settled.
    AskLedger {
        /// From whom.
        node: NodeName,
        /// The start that reported it.
        instance: InstanceId,
        /// As in [`Send::low`].
        low: u64,
        /// What it said.
        ack: Box<Ack>,
    },
}

/// What a restart finds in the ledger.
#[derive(Debug)]
pub struct Loaded {
    /// The ledger's id.
    pub ledger_id: LedgerId,
    /// This reign.
    pub epoch: u64,
    /// Place of the next message.
    pub next_pos: u64,
    /// Every node known.
    pub nodes: Vec<NodeRecord>,
    /// Every lane that has given out sequence numbers.
    pub lanes: Vec<LoadedLane>,
    /// Every delivery that is not final.
    pub deliveries: Vec<LoadedDelivery>,
}

/// A lane as a restart finds it.
#[derive(Debug)]
pub struct LoadedLane {
    /// Its node.
    pub node: NodeName,
    /// Which lane.
    pub lane: LaneName,
    /// The number given out last.
    pub last_seq: u64,
}

/// A delivery as a restart finds it.
#[derive(Debug)]
pub struct LoadedDelivery {
    /// Its node.
    pub node: NodeName,
    /// What is known of it.
    pub open: Open,
}

/// The domain of what concerns an agent as a whole.
pub(crate) fn agent_domain() -> Domain {
    "agent"
        .parse()
        .expect("the word is a token by the rule of design section 4.1")
}
