//! Carrying out what the courier decided, after it is durable; as the station's shell does.

use steward_protocol::{Confirm, InstanceId, Reign, Sealed, Welcome, version};
use steward_station::courier::{Action, Dispatch, Withdrawal};

use super::{
    book::{node_of, wall},
    bug::Bug,
    check::Wrong,
    station::signed,
    wire::Down,
    world::{Killed, Who, World},
};

impl World<'_> {
    pub(super) fn act(&mut self, actions: Vec<Action>) -> Result<(), Killed> {
        for action in actions {
            match action {
                Action::Record(_) => {}
                Action::Order(dispatch) => {
                    self.station_step()?;
                    self.send_order(dispatch);
                }
                Action::Welcome {
                    node,
                    instance,
                    low,
                    hello_at,
                } => {
                    self.station_step()?;
                    let reign = self.reign(instance, low);
                    let at = wall(signed(self.now) + self.station.wall);
                    self.note(Who::Station, || format!("welcomes {node}, low {low}"));
                    self.publish(
                        node_of(&node),
                        Down::Welcome(reign, Welcome { at, hello_at }),
                    );
                }
                Action::Confirm {
                    node,
                    instance,
                    low,
                    confirm,
                    ..
                } => {
                    self.station_step()?;
                    self.send_confirm(node_of(&node), self.reign(instance, low), confirm);
                }
                Action::Cancel(withdrawal) => {
                    self.station_step()?;
                    self.send_cancel(*withdrawal);
                }
                Action::AskLedger {
                    node,
                    instance,
                    low,
                    ack,
                } => {
                    self.station_step()?;
                    let node = node_of(&node);
                    if self.station.ledger.is_settled(ack.id, node, ack.digest) {
                        let confirm = Confirm {
                            orders: vec![ack.id],
                            events: Vec::new(),
                        };
                        self.send_confirm(node, self.reign(instance, low), confirm);
                    }
                }
            }
        }
        Ok(())
    }

    pub(super) fn reign(&self, instance: InstanceId, low: u64) -> Reign {
        Reign {
            v: version::CURRENT,
            ledger_id: self.station.ledger.id,
            epoch: self.station.ledger.epoch,
            instance,
            low,
        }
    }

    pub(super) fn send_confirm(&mut self, node: usize, reign: Reign, confirm: Confirm) {
        let places = self.places(&confirm);
        self.note(Who::Station, || {
            format!("confirms {places:?} to ship{}, low {}", node + 1, reign.low)
        });
        self.publish(node, Down::Confirm(reign, confirm));
    }

    pub(super) fn send_order(&mut self, dispatch: Dispatch) {
        let Dispatch { node, digest, send } = dispatch;
        let node = node_of(&node);
        let Some(page) = self.page(send.pos).cloned() else {
            return;
        };
        // The real one composes the bytes again and compares them with what was accepted.
        if page.order(node).map(Sealed::digest) != Some(digest) {
            let what = format!("the order of message {} has other bytes", send.pos);
            return self.wrong(Wrong::Ledger, what);
        }
        if let Some(state) = self.station.ledger.ended_before(send.pos, node) {
            let what = format!("message {} is sent although it is {state}", send.pos);
            return self.wrong(Wrong::Resent, what);
        }
        self.note(Who::Station, || {
            let seq = send.seq.map_or(String::new(), |seq| format!(", seq {seq}"));
            format!(
                "sends {} to ship{}, attempt {}, low {}{seq}, {} ms left",
                send.pos,
                node + 1,
                send.attempt,
                send.low,
                send.ttl_left_ms
            )
        });
        let renamed = self.bug(Bug::NewIdOnResend) && send.attempt > 1;
        self.publish(
            node,
            Down::Order {
                send,
                page,
                renamed,
            },
        );
    }

    pub(super) fn send_cancel(&mut self, withdrawal: Withdrawal) {
        let Withdrawal {
            node, send, cancel, ..
        } = withdrawal;
        if let Some(state) = self.station.ledger.ended_before(send.pos, node_of(&node)) {
            let what = format!("message {} is called off although it is {state}", send.pos);
            return self.wrong(Wrong::Resent, what);
        }
        self.note(Who::Station, || {
            format!("calls {} off at {node}, low {}", send.pos, send.low)
        });
        self.publish(node_of(&node), Down::Cancel(send, cancel));
    }

    pub(super) fn resend_after_final(&mut self, pos: u64, node: usize) {
        let row = self.station.ledger.row(pos, node);
        if let Some(row) = row {
            let what = format!("message {pos} is sent although it is {}", row.state);
            self.wrong(Wrong::Resent, what);
        }
    }
}
