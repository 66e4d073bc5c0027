//! What an agent's shell does with what its station says: orders, cancellations, welcomes, confirmations.

use std::rc::Rc;

use steward_agent::{
    dispatch::Event,
    journal::{Answer, Ask, Cancellation, Cancelled, Offer, Offered, Stance, Welcomed, What, Word},
};
use steward_protocol::{
    Ack, Cancel, Confirm, Deferral, Digest, MessageId, Reign, Sealed, Send, State, Welcome,
};
use uuid::Uuid;

use super::{
    book::{DOMAINS, Page},
    bug::Bug,
    faults::Kind,
    host::{Footing, Trouble},
    wire::{Down, Up},
    world::{Killed, Who, World},
};

/// How long orders wait for the welcome they came right behind.
const WELCOME_PATIENCE: u64 = 2_000;

impl World<'_> {
    pub(super) fn hear_down(&mut self, host: usize, frame: Down) {
        if self.hosts[host].agent.is_none() || !self.hosts[host].line.connected {
            self.count(Kind::Nobody);
            return;
        }
        self.guard(host, |world, host| world.take(host, frame));
    }

    pub(super) fn take(&mut self, host: usize, frame: Down) -> Result<(), Killed> {
        match frame {
            Down::Order {
                send,
                page,
                renamed,
            } => {
                let Some(agent) = &mut self.hosts[host].agent else {
                    return Ok(());
                };
                if agent.footing.welcomed.is_none() {
                    let until = self.now + WELCOME_PATIENCE;
                    let order = Down::Order {
                        send,
                        page,
                        renamed,
                    };
                    agent.early.push((until, order));
                    return Ok(());
                }
                self.take_order(host, send, &page, renamed)
            }
            Down::Cancel(send, cancel) => self.take_cancel(host, send, cancel),
            Down::Welcome(reign, welcome) => self.take_welcome(host, reign, &welcome),
            Down::Confirm(reign, confirm) => self.take_confirm(host, reign, confirm),
        }
    }

    pub(super) fn take_order(
        &mut self,
        host: usize,
        send: Send,
        page: &Rc<Page>,
        renamed: bool,
    ) -> Result<(), Killed> {
        let Some(order) = page.order(self.hosts[host].node) else {
            return Ok(());
        };
        let mut order = order.clone();
        if renamed {
            let mut changed = order.order().clone();
            changed.id = MessageId(Uuid::from_u64_pair(u64::from(send.attempt), send.pos));
            if let Ok(sealed) = Sealed::seal(changed) {
                order = sealed;
            }
        }
        let stance = if self.hosts[host].refuses == Some(page.domain) {
            Stance::Refuse("policy: this domain is not one of this node's".to_owned())
        } else {
            Stance::Serve
        };
        let ordered = order.order().ordered && send.seq.is_some();
        let (pos, name) = (send.pos, (order.order().id, order.digest()));
        let refused = stance != Stance::Serve;
        self.tell(host, page.domain, Event::Arrived)?;
        let offer = Offer {
            send,
            order,
            stance,
        };
        if refused && self.bug(Bug::RefusalNotJournaled) {
            return self.refuse_unwritten(host, offer);
        }
        let offered = match self.ask(host, Ask::Offer(Box::new(offer))) {
            Ok(Answer::Offered(offered)) => offered,
            Ok(_) | Err(Trouble::Storage) => {
                return self.defer(host, name, Deferral::Storage, None);
            }
            Err(Trouble::Killed) => return Err(Killed),
        };
        self.note(Who::Host(host), || format!("takes {pos}: {offered:?}"));
        match offered {
            Offered::Taken(ticket) => {
                self.tell(host, page.domain, Event::Taken { ticket, ordered })?;
                self.say_ack(host, ticket)
            }
            Offered::Stands(ticket) => {
                self.tell(host, page.domain, Event::Repeated)?;
                self.say_ack(host, ticket)
            }
            Offered::Deferred {
                deferral,
                expected_seq,
            } => self.defer(host, name, deferral, expected_seq),
            Offered::Ignored(_) => Ok(()),
        }
    }

    /// Says that an order is refused, and writes nothing down.
    pub(super) fn refuse_unwritten(&mut self, host: usize, offer: Offer) -> Result<(), Killed> {
        let now = self.moment(host);
        let Some(agent) = &mut self.hosts[host].agent else {
            return Ok(());
        };
        let (answer, _) = agent.journal.next(Ask::Offer(Box::new(offer)), &now);
        if let Answer::Offered(Offered::Stands(ticket)) = answer {
            let ack = self.ack(host, ticket);
            if let Some(agent) = &mut self.hosts[host].agent {
                agent.stale = true;
            }
            if let Some(ack) = ack {
                return self.say(host, Up::Ack(Box::new(ack)));
            }
        }
        Ok(())
    }

    /// Takes a cancellation in; what runs is stopped even when nothing can be written.
    pub(super) fn take_cancel(
        &mut self,
        host: usize,
        send: Send,
        cancel: Cancel,
    ) -> Result<(), Killed> {
        let (pos, name) = (send.pos, (cancel.id, cancel.digest));
        let cancellation = Box::new(Cancellation { send, body: cancel });
        let mut answer = self.ask(host, Ask::Cancel(cancellation.clone()));
        if answer == Err(Trouble::Storage) {
            answer = self.ask(host, Ask::Halt(cancellation));
        }
        let cancelled = match answer {
            Ok(Answer::Cancelled(cancelled)) => cancelled,
            Ok(_) | Err(Trouble::Storage) => {
                return self.defer(host, name, Deferral::Storage, None);
            }
            Err(Trouble::Killed) => return Err(Killed),
        };
        self.note(Who::Host(host), || {
            format!("calls {pos} off: {cancelled:?}")
        });
        match cancelled {
            Cancelled::Over(ticket) => self.say_ack(host, ticket),
            Cancelled::Stop(ticket) => {
                self.say_ack(host, ticket)?;
                self.revoke(host, ticket)
            }
            Cancelled::Deferred {
                deferral,
                expected_seq,
            } => self.defer(host, name, deferral, expected_seq),
            Cancelled::Ignored(_) => Ok(()),
        }
    }

    pub(super) fn defer(
        &mut self,
        host: usize,
        (id, digest): (MessageId, Digest),
        deferral: Deferral,
        expected_seq: Option<u64>,
    ) -> Result<(), Killed> {
        let ack = Ack {
            id,
            digest,
            state: State::Deferred,
            at: self.moment(host).wall,
            reason: None,
            deferral: Some(deferral),
            expected_seq,
            outcome: None,
        };
        self.say(host, Up::Ack(Box::new(ack)))
    }

    pub(super) fn take_welcome(
        &mut self,
        host: usize,
        reign: Reign,
        welcome: &Welcome,
    ) -> Result<(), Killed> {
        let here = self.moment(host).wall;
        let skew = here.duration_since(welcome.at).unsigned_abs();
        let word = Word {
            reign,
            what: What::Welcome { skew: Some(skew) },
        };
        let welcomed = match self.ask(host, Ask::Word(word)) {
            Ok(Answer::Word(welcomed)) => welcomed,
            Ok(_) | Err(Trouble::Storage) => return Ok(()),
            Err(Trouble::Killed) => return Err(Killed),
        };
        self.note(Who::Host(host), || format!("hears a welcome: {welcomed:?}"));
        match welcomed {
            Welcomed::Heard | Welcomed::Pinned(_) | Welcomed::TakenOver(_) => {}
            Welcomed::Superseded => {
                if let Some(agent) = &mut self.hosts[host].agent {
                    agent.footing.welcomed = None;
                }
                return Ok(());
            }
            Welcomed::Foreign(_) | Welcomed::Stale | Welcomed::OtherInstance => return Ok(()),
        }
        let generation = self.hosts[host].line.generation;
        let Some(agent) = &mut self.hosts[host].agent else {
            return Ok(());
        };
        let pinned = agent.journal.identity().pinned;
        let footing = Footing {
            welcomed: pinned.map(|pinned| (pinned.ledger_id, pinned.epoch)),
            generation,
        };
        if agent.footing == footing {
            return Ok(());
        }
        agent.footing = footing;
        let early = std::mem::take(&mut agent.early);
        for domain in 0..DOMAINS {
            if self.dispatch(host, domain).is_some() {
                self.tell(host, domain, Event::Welcomed)?;
            }
        }
        for (_, frame) in early {
            self.take(host, frame)?;
        }
        self.round(host)
    }

    pub(super) fn take_confirm(
        &mut self,
        host: usize,
        reign: Reign,
        confirm: Confirm,
    ) -> Result<(), Killed> {
        let what = What::Confirm {
            orders: confirm.orders,
            events: confirm.events,
        };
        match self.ask(host, Ask::Word(Word { reign, what })) {
            Err(Trouble::Killed) => Err(Killed),
            _ => Ok(()),
        }
    }
}
