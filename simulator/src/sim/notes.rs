//! The words of a trace. Nothing here changes anything.

use steward_protocol::{Ack, Confirm, Deferral};
use steward_station::courier::{Event, Record};

use super::{
    book::BEGINNING,
    wire::Up,
    world::{Who, World},
};

impl World<'_> {
    pub(super) fn places(&self, confirm: &Confirm) -> Vec<u64> {
        let place = |id| {
            let pages = self.pages.iter();
            let mut pages = pages.filter(|page| page.accepted.id == id);
            pages.next().map_or(0, |page| page.accepted.pos)
        };
        if self.terms.traced {
            confirm.orders.iter().map(|id| place(*id)).collect()
        } else {
            Vec::new()
        }
    }

    pub(super) fn note_event(&mut self, event: &Event) {
        if !self.terms.traced {
            return;
        }
        let text = match event {
            Event::Tick => return,
            Event::Connected => "has the broker".to_owned(),
            Event::Disconnected => "has lost the broker".to_owned(),
            Event::Hello {
                node,
                origin,
                hello,
            } => {
                format!(
                    "hears hello of {node}, start {} of journal {:x}, open {}, unconfirmed {}",
                    hello.counter,
                    origin.journal_id.0.as_u128() & 0xFFFF,
                    hello.open.len(),
                    hello.unconfirmed.len()
                )
            }
            Event::Ack { node, ack, .. } => {
                let pages = self.pages.iter();
                let mut pages = pages.filter(|page| page.accepted.id == ack.id);
                let pos = pages.next().map_or(0, |page| page.accepted.pos);
                format!(
                    "hears of {node} that {pos} is {}{}",
                    ack.state,
                    deferral(ack)
                )
            }
            Event::Fault { node, fault, .. } => format!("hears of {node}: {}", fault.kind),
            Event::Text { node, .. } => format!("has text of {node}"),
            Event::Report { node, .. } => format!("has a report of {node}"),
            Event::NoResponders { node, .. } => format!("hears that nobody listens for {node}"),
        };
        self.note(Who::Station, || text);
    }

    pub(super) fn note_record(&mut self, record: &Record) {
        if !self.terms.traced {
            return;
        }
        let text = match record {
            Record::Accepted(accepted) => {
                let options = &accepted.message.options;
                let nodes: Vec<&str> = accepted.targets.iter().map(|it| it.node.as_str()).collect();
                format!(
                    "accepts {} for {} {}{}{}, expires at {}",
                    accepted.pos,
                    nodes.join(" "),
                    accepted.message.domain,
                    if options.ordered { "" } else { ", unordered" },
                    if options.idempotent {
                        ", idempotent"
                    } else {
                        ""
                    },
                    (accepted.expires_at.as_millisecond() - BEGINNING) / 1000,
                )
            }
            Record::Moved {
                pos,
                node,
                state,
                why,
                ..
            } => {
                let why = why.as_deref().unwrap_or("");
                format!("records {pos} for {node} as {state} {why}")
            }
            Record::LanesReset { node, .. } => format!("begins {node}'s numbers again"),
            Record::CancelRequested { pos, node, .. } => {
                format!("records that {pos} is to be called off at {node}")
            }
            Record::Released { pos, node, why, .. } => {
                format!("lets {pos} go to {node}: {why}")
            }
            Record::Attempt { .. }
            | Record::Reason { .. }
            | Record::Node(_)
            | Record::Fault(_)
            | Record::Text(_)
            | Record::Reported(_) => {
                return;
            }
        };
        self.note(Who::Station, || text);
    }

    pub(super) fn note_up(&mut self, host: usize, up: &Up) {
        if !self.terms.traced {
            return;
        }
        let text = match up {
            Up::Hello(hello) => format!(
                "says hello, open {}, unconfirmed {}",
                hello.open.len(),
                hello.unconfirmed.len()
            ),
            Up::Ack(ack) => {
                let pages = self.pages.iter();
                let mut pages = pages.filter(|page| page.accepted.id == ack.id);
                let pos = pages.next().map_or(0, |page| page.accepted.pos);
                let why = ack.deferral.map_or("", Deferral::as_str);
                format!("answers that {pos} is {} {why}", ack.state)
            }
            Up::Fault(fault) => format!("reports {}", fault.kind),
        };
        self.note(Who::Host(host), || text);
    }
}

fn deferral(ack: &Ack) -> String {
    let deferral = ack.deferral.map(|deferral| deferral.as_str());
    deferral.map_or(String::new(), |why| format!(" ({why})"))
}
