//! What nodes say unasked besides faults: text for their logs, and what they gave themselves to do.

use steward_protocol::{Confirm, Domain, EventId, NodeName, Origin, TextEvent};

use super::{Action, Courier, KnownReport, Record, Report, ReportRecord, TextRecord};
use crate::roster::Moment;

impl Courier {
    pub(super) fn on_text(
        &mut self,
        node: &NodeName,
        origin: &Origin,
        text: TextEvent,
        now: Moment,
        actions: &mut Vec<Action>,
    ) {
        if !self.roster.heard(node, origin, now) {
            return self.count("text_held_back");
        }
        let domain = text.domain.clone();
        actions.push(Action::Record(Record::Text(TextRecord {
            id: text.id,
            at: now.wall,
            node: node.clone(),
            domain: text.domain,
            lines: text.data,
        })));
        actions.push(self.stored(node, origin, domain, text.id));
    }

    pub(super) fn on_report(
        &mut self,
        node: &NodeName,
        origin: &Origin,
        report: Report,
        now: Moment,
        actions: &mut Vec<Action>,
    ) {
        if !self.roster.heard(node, origin, now) {
            return self.count("report_held_back");
        }
        let id = report.order.order().id;
        let domain = report.order.order().subject.domain.clone();
        match report.known {
            KnownReport::Other => return self.count("report_conflict"),
            KnownReport::Same => {}
            KnownReport::New => {
                actions.push(Action::Record(Record::Reported(Box::new(ReportRecord {
                    pos: self.next_pos,
                    at: now.wall,
                    node: node.clone(),
                    source: report.source,
                    order: report.order,
                    ack: report.ack,
                }))));
                self.next_pos += 1;
            }
        }
        actions.push(self.stored(node, origin, domain, EventId(id.0)));
    }

    /// Tells a node that an event is stored.
    fn stored(&self, node: &NodeName, origin: &Origin, domain: Domain, id: EventId) -> Action {
        Action::Confirm {
            node: node.clone(),
            instance: origin.instance,
            low: self.low(node),
            domain,
            confirm: Confirm {
                orders: Vec::new(),
                events: vec![id],
            },
        }
    }
}
