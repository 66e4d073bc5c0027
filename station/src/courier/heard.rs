//! What nodes say: hellos, ACKs and faults, judged and merged.

use std::collections::BTreeMap;

use steward_protocol::{Ack, Confirm, EventId, FaultEvent, Hello, NodeName, Origin};

use super::{
    Action, Courier, FaultRecord, Mover, Record,
    link::{Contact, Link},
    open::Word,
    record,
};
use crate::{
    delivery,
    roster::{Greeting, Moment},
};

impl Courier {
    pub(super) fn on_hello(
        &mut self,
        node: &NodeName,
        origin: &Origin,
        hello: &Hello,
        now: Moment,
        actions: &mut Vec<Action>,
    ) {
        if *node == self.name {
            return self.count("hello_own_name");
        }
        let greeting = self.roster.hello(node, origin, hello, now);
        let contact = match greeting {
            Greeting::Full => return self.count("hello_roster_full"),
            Greeting::Doubtful => return self.count("hello_doubtful"),
            Greeting::Conflict { reason, first } => {
                self.count("hello_conflict");
                if first {
                    let fault = FaultRecord {
                        kind: "conflict".to_owned(),
                        detail: reason,
                        verdict: "held back; the agent heard first is unaffected".to_owned(),
                        ..FaultRecord::at(now.wall, Some(node.clone()))
                    };
                    actions.push(Action::Record(Record::Fault(fault)));
                }
                return;
            }
            Greeting::Same => Contact::Same,
            Greeting::Started => Contact::Started,
            Greeting::Reimaged { reason } => {
                self.lose_journal(node, &reason, now, actions);
                Contact::Started
            }
        };
        if contact == Contact::Started || hello.leaving {
            self.record_node(node, actions);
        }
        let ours = origin
            .ledger_id
            .is_none_or(|ledger| ledger == self.ledger_id);
        let link = self.links.entry(node.clone()).or_default();
        if hello.leaving || !ours {
            link.absent();
        } else {
            link.present(origin.instance, contact, hello, now);
        }
        if !hello.leaving {
            actions.push(Action::Welcome {
                node: node.clone(),
                instance: origin.instance,
                low: link.low(self.next_pos),
                hello_at: hello.at,
            });
        }
        self.pump(node, now, actions);
    }

    /// The node's journal is gone: nothing ever sent can be reconciled any more.
    fn lose_journal(
        &mut self,
        node: &NodeName,
        reason: &str,
        now: Moment,
        actions: &mut Vec<Action>,
    ) {
        let fault = FaultRecord {
            kind: "journal lost".to_owned(),
            detail: reason.to_owned(),
            verdict: "open deliveries ever sent are interrupted; sequence numbers start again"
                .to_owned(),
            ..FaultRecord::at(now.wall, Some(node.clone()))
        };
        actions.push(Action::Record(Record::Fault(fault)));
        actions.push(Action::Record(Record::LanesReset {
            node: node.clone(),
            at: now.wall,
        }));
        let places = self.links.get(node).map(Link::places).unwrap_or_default();
        for pos in places {
            let why = Some(format!("journal lost: {reason}"));
            let mover = Mover {
                event: delivery::Event::JournalLost,
                by: self.name.clone(),
                why,
                ack: None,
            };
            self.advance(node, pos, mover, now, actions);
        }
        if let Some(link) = self.links.get_mut(node) {
            link.reset_lanes();
        }
    }

    pub(super) fn on_ack(
        &mut self,
        node: &NodeName,
        origin: &Origin,
        ack: Ack,
        now: Moment,
        actions: &mut Vec<Action>,
    ) {
        if !self.roster.heard(node, origin, now) {
            return self.count("ack_held_back");
        }
        let place = self.places.get(&ack.id).map(|place| place.pos);
        let Some((pos, open)) = place.and_then(|pos| Some((pos, self.links.get(node)?.get(pos)?)))
        else {
            // Settled or never ours: only the ledger can tell.
            actions.push(Action::AskLedger {
                node: node.clone(),
                instance: origin.instance,
                low: self.low(node),
                ack: Box::new(ack),
            });
            return;
        };
        if open.digest != ack.digest {
            return self.count("ack_digest");
        }
        if let Err(error) = ack.check(&open.success_codes) {
            self.count("ack_contradiction");
            let fault = FaultRecord {
                kind: "contradiction".to_owned(),
                detail: format!("the ACK for {} {error}", ack.id),
                verdict: "not believed".to_owned(),
                ..FaultRecord::at(now.wall, Some(node.clone()))
            };
            return actions.push(Action::Record(Record::Fault(fault)));
        }
        if let Some(link) = self.links.get_mut(node) {
            link.word(pos, Word::of(&ack), now);
        }
        let (id, state, domain) = (ack.id, ack.state, open_domain(&self.links, node, pos));
        let why = ack_reason(&ack);
        let mover = Mover {
            event: delivery::Event::Says(state),
            by: node.clone(),
            why,
            ack: Some(Box::new(ack)),
        };
        self.advance(node, pos, mover, now, actions);
        if let (true, Some(domain)) = (state.is_final(), domain) {
            actions.push(Action::Confirm {
                node: node.clone(),
                instance: origin.instance,
                low: self.low(node),
                domain,
                confirm: Confirm {
                    orders: vec![id],
                    events: Vec::new(),
                },
            });
        }
        self.pump(node, now, actions);
    }

    pub(super) fn on_fault(
        &mut self,
        node: &NodeName,
        origin: &Origin,
        fault: FaultEvent,
        now: Moment,
        actions: &mut Vec<Action>,
    ) {
        if !self.roster.heard(node, origin, now) {
            return self.count("fault_held_back");
        }
        let id: EventId = fault.id;
        let domain = fault.subject.as_ref().map(|subject| subject.domain.clone());
        actions.push(Action::Record(Record::Fault(FaultRecord {
            id: Some(id),
            kind: fault.kind,
            subject: fault.subject.map(|subject| subject.to_string()),
            detail: fault.detail,
            verdict: fault.verdict,
            ..FaultRecord::at(now.wall, Some(node.clone()))
        })));
        actions.push(Action::Confirm {
            node: node.clone(),
            instance: origin.instance,
            low: self.low(node),
            domain: domain.unwrap_or_else(record::agent_domain),
            confirm: Confirm {
                orders: Vec::new(),
                events: vec![id],
            },
        });
    }
}

fn open_domain(
    links: &BTreeMap<NodeName, Link>,
    node: &NodeName,
    pos: u64,
) -> Option<steward_protocol::Domain> {
    Some(links.get(node)?.get(pos)?.lane.domain.clone())
}

fn ack_reason(ack: &Ack) -> Option<String> {
    match (ack.deferral, &ack.reason) {
        (Some(deferral), Some(reason)) => Some(format!("{}: {reason}", deferral.as_str())),
        (Some(deferral), None) => Some(deferral.as_str().to_owned()),
        (None, reason) => reason.clone(),
    }
}
