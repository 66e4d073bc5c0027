//! Carrying out what the courier decided, after it is durable: frames are composed and published.

use jiff::Timestamp;
use steward_protocol::{
    Ack, Confirm, Domain, Envelope, Frame, InstanceId, Kind, Method, NodeName, Reign, Sealed,
    Subject, Welcome, checksum, envelope::EncodeError, version,
};

use super::{Station, chain};
use crate::{
    bus::Outgoing,
    courier::{Action, Dispatch, Withdrawal},
};

impl Station {
    /// Does everything among `actions` that is not a record; those are durable by now.
    pub(super) fn act(&mut self, actions: Vec<Action>) {
        // Reading the orders takes a while for a large fan-out.
        tokio::task::block_in_place(|| self.act_on(actions));
    }

    fn act_on(&mut self, actions: Vec<Action>) {
        for action in actions {
            let outgoing = match action {
                Action::Record(_) => None,
                Action::Order(dispatch) => self.order(dispatch),
                Action::Cancel(withdrawal) => self.withdraw(*withdrawal),
                Action::Welcome {
                    node,
                    instance,
                    low,
                    hello_at,
                } => {
                    self.settings.logs.welcome(&node, instance, low);
                    self.welcome(node, self.reign(instance, low), hello_at)
                }
                Action::Confirm {
                    node,
                    instance,
                    low,
                    domain,
                    confirm,
                } => self.confirm(node, self.reign(instance, low), domain, confirm),
                Action::AskLedger {
                    node,
                    instance,
                    low,
                    ack,
                } => self.answer_from_ledger(node, self.reign(instance, low), &ack),
            };
            if let Some(outgoing) = outgoing
                && !self.bus.publish(outgoing)
            {
                *self.counters.entry("publish_no_room").or_default() += 1;
            }
        }
    }

    /// Confirms once more what the ledger says is settled.
    fn answer_from_ledger(&mut self, node: NodeName, send: Reign, ack: &Ack) -> Option<Outgoing> {
        let settled = self.store.is_settled(ack.id, &node, ack.digest);
        match settled {
            Ok(true) => {
                let confirm = Confirm {
                    orders: vec![ack.id],
                    events: Vec::new(),
                };
                self.confirm(node, send, operating_system(), confirm)
            }
            Ok(false) => {
                let kind = "ack_unknown_order";
                *self.counters.entry(kind).or_default() += 1;
                let now = super::moment(self.born);
                self.offenders.note(Some(&node), kind, 1, now);
                None
            }
            Err(error) => {
                tracing::error!(error = chain(&error), "the ledger cannot be read");
                None
            }
        }
    }

    fn reign(&self, instance: InstanceId, low: u64) -> Reign {
        Reign {
            v: version::CURRENT,
            ledger_id: self.store.ledger_id(),
            epoch: self.store.epoch(),
            instance,
            low,
        }
    }

    /// Composes the order's bytes again and makes sure they are the ones that were accepted.
    fn order(&mut self, dispatch: Dispatch) -> Option<Outgoing> {
        let Dispatch { node, digest, send } = dispatch;
        let order = self.store.order(&self.settings.name, send.pos, &node);
        let order = match order {
            Ok(order) => order,
            Err(error) => {
                tracing::error!(error = chain(&error), node = %node, "an order cannot be read from the ledger");
                return None;
            }
        };
        let subject = order.subject.to_string();
        let sealed = match Sealed::seal(order) {
            Ok(sealed) if sealed.digest() == digest => sealed,
            Ok(_) => {
                *self.counters.entry("order_digest").or_default() += 1;
                tracing::error!(node = %node, pos = send.pos, "an order's bytes differ from what was accepted; it is not sent");
                return None;
            }
            Err(error) => {
                tracing::error!(node = %node, pos = send.pos, %error, "an order cannot be written");
                return None;
            }
        };
        self.outgoing(node, subject, Envelope { send, body: sealed }.encode())
    }

    fn withdraw(&self, withdrawal: Withdrawal) -> Option<Outgoing> {
        let Withdrawal {
            node,
            subject,
            send,
            cancel: body,
        } = withdrawal;
        self.outgoing(node, subject.to_string(), Frame { send, body }.encode())
    }

    fn welcome(&self, node: NodeName, send: Reign, hello_at: Timestamp) -> Option<Outgoing> {
        let subject = event(node.clone(), Method::Welcome, the_node());
        let body = Welcome {
            at: super::wall(),
            hello_at,
        };
        self.outgoing(node, subject, Frame { send, body }.encode())
    }

    fn confirm(
        &self,
        node: NodeName,
        send: Reign,
        domain: Domain,
        body: Confirm,
    ) -> Option<Outgoing> {
        let subject = event(node.clone(), Method::Confirm, domain);
        self.outgoing(node, subject, Frame { send, body }.encode())
    }

    fn outgoing(
        &self,
        node: NodeName,
        subject: String,
        payload: Result<Vec<u8>, EncodeError>,
    ) -> Option<Outgoing> {
        let sent_ms = u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX);
        match payload {
            Ok(payload) => Some(Outgoing {
                node,
                sent_ms,
                subject,
                payload: checksum::append(payload),
            }),
            Err(error) => {
                tracing::error!(node = %node, %error, "a frame cannot be written");
                None
            }
        }
    }
}

fn event(node: NodeName, method: Method, domain: Domain) -> String {
    Subject::new(node, Kind::Event, method, domain).to_string()
}

fn the_node() -> Domain {
    "node"
        .parse()
        .expect("the word is a token by the rule of design section 4.1")
}

fn operating_system() -> Domain {
    "operatingsystem"
        .parse()
        .expect("the word is a token by the rule of design section 4.1")
}
