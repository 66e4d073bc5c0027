//! The station's shell: the real courier, its ledger, and the order in which things are done.
//!
//! It does what the real one does: everything that came together is decided, made durable in one
//! commit, and only then acted on. Where a bug is asked for, it does that wrong.

use std::{rc::Rc, sync::Arc, time::Duration};

use steward_protocol::{Ack, Confirm, InstanceId, MessageId, Reign, State, Welcome, version};
use steward_station::{
    courier::{Action, Cancellation, Courier, Dispatch, Event, Record, Withdrawal},
    roster::Moment,
};
use uuid::Uuid;

use super::{
    book::{Request, node_of, wall},
    bug::Bug,
    check::Wrong,
    faults::Kind,
    ledger::Ledger,
    wire::{Down, Up, Uplink},
    world::{Happening, Killed, Who, World},
};

/// Pause after the ledger could not be written, before it is read back; as in the real station.
const RELOAD_PAUSE: u64 = 1_000;

/// An operator whose submission was not taken tries again after this.
const RESUBMIT: u64 = 500;

/// The station's machine.
#[derive(Debug)]
pub struct Station {
    /// What is durable.
    pub ledger: Ledger,
    /// What is not: one start of the station.
    pub reign: Option<Running>,
    /// Whether the broker is there.
    pub connected: bool,
    /// What its wall clock is ahead, in milliseconds.
    pub wall: i64,
    /// Steps until it is killed, and for how long.
    pub fuse: Option<(u32, u64)>,
    /// Until when no write of the ledger works.
    pub full_until: u64,
}

/// One start of the station.
#[derive(Debug)]
pub struct Running {
    /// Which.
    pub life: u32,
    /// When it began.
    pub born: u64,
    courier: Courier,
    /// What has come and is not taken yet.
    heard: Vec<Event>,
    /// Whether what comes has to wait: for others to come with it, or for the ledger.
    waiting: bool,
}

impl Station {
    /// Returns a station that has not been started.
    pub fn new(ledger: Ledger) -> Self {
        Self {
            ledger,
            reign: None,
            connected: true,
            wall: 0,
            fuse: None,
            full_until: 0,
        }
    }
}

impl World<'_> {
    pub(super) fn station_up(&mut self) {
        if self.station.reign.is_some() {
            return;
        }
        self.station.ledger.open();
        let life = self.life();
        let epoch = self.station.ledger.epoch;
        self.note(Who::Station, || format!("starts reign {epoch}"));
        self.station.reign = Some(Running {
            life,
            born: self.now,
            courier: self.load(self.now),
            heard: Vec::new(),
            waiting: false,
        });
        self.queue.plan(self.now, Happening::Tick(life));
        if self.station.connected {
            self.station_hears(Event::Connected);
        }
    }

    /// Reads the ledger as the station does at its start.
    fn load(&mut self, born: u64) -> Courier {
        let moment = self.station_moment(born);
        let loaded = self.station.ledger.load();
        Courier::load(self.book.station.clone(), loaded, moment)
    }

    fn station_moment(&mut self, born: u64) -> Moment {
        Moment {
            mono: Duration::from_millis(self.now - born),
            wall: wall(signed(self.now) + self.station.wall),
            dice: self.dice.roll(),
        }
    }

    pub(super) fn station_crash(&mut self) {
        let away = self.station.fuse.take().map_or(0, |(_, away)| away);
        if self.station.reign.take().is_none() {
            return;
        }
        self.count(Kind::StationCrash);
        self.note(Who::Station, || "IS KILLED".to_owned());
        self.queue.plan(self.now + away, Happening::StationUp);
    }

    /// One step: here the station may be killed.
    fn station_step(&mut self) -> Result<(), Killed> {
        match &mut self.station.fuse {
            None => Ok(()),
            Some((0, _)) => Err(Killed),
            Some((steps, _)) => {
                *steps -= 1;
                Ok(())
            }
        }
    }

    pub(super) fn station_line(&mut self, connected: bool) {
        if self.station.connected == connected {
            return;
        }
        self.station.connected = connected;
        self.station_hears(if connected {
            Event::Connected
        } else {
            Event::Disconnected
        });
    }

    pub(super) fn tick(&mut self, life: u32) {
        let Some(running) = self.station.reign.as_ref().filter(|it| it.life == life) else {
            return;
        };
        if !running.waiting {
            self.station_does(vec![Event::Tick]);
        }
        self.check_patience();
        let done = self.healed && self.left == 0 && self.station.ledger.open == 0;
        if done && !self.quiet {
            self.note(Who::Fate, || "everything is final".to_owned());
            self.quiet = true;
        }
        if !self.quiet {
            let at = self.now + self.plan.tick;
            self.queue.plan(at, Happening::Tick(life));
        }
    }

    pub(super) fn nobody(&mut self, node: usize, sent: u64, life: u32) {
        if self
            .station
            .reign
            .as_ref()
            .is_some_and(|it| it.life == life)
        {
            self.station_hears(Event::NoResponders {
                node: self.book.names[node].clone(),
                sent: Duration::from_millis(sent),
            });
        }
    }

    pub(super) fn hear_up(&mut self, uplink: Uplink) {
        if self.station.reign.is_none() || !self.station.connected {
            self.count(Kind::Nobody);
            return;
        }
        let Uplink { node, origin, up } = uplink;
        let name = self.book.names[node].clone();
        let event = match up {
            Up::Hello(hello) => Event::Hello {
                node: name,
                origin,
                hello,
            },
            Up::Ack(mut ack) => {
                if self.bug(Bug::AckMatchedBySubject) {
                    self.match_by_subject(node, &mut ack);
                }
                Event::Ack {
                    node: name,
                    origin,
                    ack,
                }
            }
            Up::Fault(fault) => Event::Fault {
                node: name,
                origin,
                fault,
            },
        };
        self.station_hears(event);
    }

    /// Takes the answer for the oldest open order of the same subject.
    fn match_by_subject(&self, node: usize, ack: &mut Ack) {
        let messages = &self.station.ledger.messages;
        let Some(of) = messages.iter().find(|it| it.page.accepted.id == ack.id) else {
            return;
        };
        let same = messages
            .iter()
            .filter(|it| it.page.domain == of.page.domain);
        let open = same.filter_map(|it| {
            let mut rows = it.rows.iter();
            let row = rows.find(|row| row.node == node && !row.state.is_final())?;
            Some((it.page.accepted.id, row.digest))
        });
        if let Some((id, digest)) = open.into_iter().next() {
            (ack.id, ack.digest) = (id, digest);
        }
    }

    fn station_hears(&mut self, event: Event) {
        let batched = self.faulty() && self.dice.chance(self.plan.batch);
        let Some(running) = &mut self.station.reign else {
            return;
        };
        if running.waiting {
            running.heard.push(event);
        } else if batched {
            running.heard.push(event);
            running.waiting = true;
            let life = running.life;
            let at = self.now + self.dice.between(1, 40);
            self.queue.plan(at, Happening::Drain(life));
        } else {
            self.station_does(vec![event]);
        }
    }

    pub(super) fn drain(&mut self, life: u32) {
        let Some(running) = self.station.reign.as_mut().filter(|it| it.life == life) else {
            return;
        };
        running.waiting = false;
        let heard = std::mem::take(&mut running.heard);
        self.station_does(heard);
    }

    /// Decides about what has come together, makes that durable with one commit, acts.
    fn station_does(&mut self, events: Vec<Event>) {
        let mut actions = Vec::new();
        for event in events {
            if self.bug(Bug::DropOnReconnect) && matches!(event, Event::Connected) {
                self.give_up_what_was_sent();
            }
            let Some(born) = self.station.reign.as_ref().map(|it| it.born) else {
                return;
            };
            let moment = self.station_moment(born);
            self.note_event(&event);
            if let Some(running) = &mut self.station.reign {
                actions.append(&mut running.courier.on(event, moment));
            }
        }
        self.carry_out(actions);
    }

    fn give_up_what_was_sent(&mut self) {
        let Some(born) = self.station.reign.as_ref().map(|it| it.born) else {
            return;
        };
        let moment = self.station_moment(born);
        let mut loaded = self.station.ledger.load();
        loaded.deliveries.retain(|it| it.open.state != State::Sent);
        let courier = Courier::load(self.book.station.clone(), loaded, moment);
        if let Some(running) = &mut self.station.reign {
            running.courier = courier;
        }
    }

    /// Returns whether the records are durable.
    fn carry_out(&mut self, actions: Vec<Action>) -> bool {
        if actions.is_empty() {
            return true;
        }
        self.try_carry_out(actions).unwrap_or_else(|Killed| {
            self.station_crash();
            false
        })
    }

    fn try_carry_out(&mut self, mut actions: Vec<Action>) -> Result<bool, Killed> {
        let early = |action: &Action, world: &Self| match action {
            Action::Confirm { .. } => world.bug(Bug::ConfirmBeforeRecord),
            Action::Order(_) => world.bug(Bug::PublishBeforeRecord),
            _ => false,
        };
        if self.terms.bug.is_some() {
            let (first, rest) = actions.into_iter().partition(|it| early(it, self));
            actions = rest;
            self.act(first)?;
        }
        if actions.iter().any(|it| matches!(it, Action::Record(_))) {
            self.station_step()?;
            if !self.record(&actions) {
                return Ok(false);
            }
            self.station_step()?;
        }
        self.act(actions)?;
        Ok(true)
    }

    /// Makes the records among `actions` durable, all of them or none.
    fn record(&mut self, actions: &[Action]) -> bool {
        let faulty = self.faulty();
        let full = self.now < self.station.full_until;
        if full || (faulty && self.dice.chance(self.plan.write_error.0)) {
            self.count(Kind::LedgerError);
            self.note(Who::Station, || "CANNOT WRITE the ledger".to_owned());
            if let Some(running) = &mut self.station.reign {
                running.waiting = true;
                let at = self.now + RELOAD_PAUSE;
                self.queue.plan(at, Happening::Reload(running.life));
            }
            return false;
        }
        let mut fooled = false;
        self.station.ledger.commits += 1;
        for action in actions {
            let Action::Record(record) = action else {
                continue;
            };
            self.note_record(record);
            let record = self.with_bugs(record);
            fooled |= record.is_some();
            let record = match (&record, action) {
                (Some(record), _) | (None, Action::Record(record)) => record,
                (None, _) => continue,
            };
            if let Err(broken) = self.station.ledger.apply(record, &self.pages) {
                self.wrong(Wrong::Ledger, broken.0);
            }
            if let Record::Moved { node, state, .. } = record
                && state.is_final()
            {
                self.note_settled(node_of(node));
            }
        }
        self.after_record(actions, fooled);
        true
    }

    /// Returns the record a bug writes in the place of this one.
    fn with_bugs(&self, record: &Record) -> Option<Record> {
        match record {
            Record::Moved {
                state: State::Unknown,
                ..
            } if self.bug(Bug::ExpiryWithoutProof) => {
                let mut record = record.clone();
                if let Record::Moved { state, .. } = &mut record {
                    *state = State::Expired;
                }
                Some(record)
            }
            _ => None,
        }
    }

    fn after_record(&mut self, actions: &[Action], fooled: bool) {
        if fooled && let Some(born) = self.station.reign.as_ref().map(|it| it.born) {
            let mut courier = self.load(born);
            let moment = self.station_moment(born);
            if self.station.connected {
                courier.on(Event::Connected, moment);
            }
            if let Some(running) = &mut self.station.reign {
                running.courier = courier;
            }
        }
        if !self.bug(Bug::ResendAfterFinal) {
            return;
        }
        for action in actions {
            if let Action::Record(Record::Moved {
                pos, node, state, ..
            }) = action
                && state.is_final()
            {
                let at = self.now + self.dice.between(1_000, 5_000);
                self.queue.plan(at, Happening::Again(*pos, node_of(node)));
            }
        }
    }

    pub(super) fn reload(&mut self, life: u32) {
        if !self
            .station
            .reign
            .as_ref()
            .is_some_and(|it| it.life == life)
        {
            return;
        }
        if self.now < self.station.full_until {
            let at = self.now + RELOAD_PAUSE;
            self.queue.plan(at, Happening::Reload(life));
            return;
        }
        self.note(Who::Station, || "reads its ledger back".to_owned());
        let Some(born) = self.station.reign.as_ref().map(|it| it.born) else {
            return;
        };
        let mut courier = self.load(born);
        if self.station.connected {
            let moment = self.station_moment(born);
            courier.on(Event::Connected, moment);
        }
        if let Some(running) = &mut self.station.reign {
            running.courier = courier;
        }
        self.drain(life);
    }

    fn act(&mut self, actions: Vec<Action>) -> Result<(), Killed> {
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

    fn reign(&self, instance: InstanceId, low: u64) -> Reign {
        Reign {
            v: version::CURRENT,
            ledger_id: self.station.ledger.id,
            epoch: self.station.ledger.epoch,
            instance,
            low,
        }
    }

    fn send_confirm(&mut self, node: usize, reign: Reign, confirm: Confirm) {
        let places = self.places(&confirm);
        self.note(Who::Station, || {
            format!("confirms {places:?} to ship{}, low {}", node + 1, reign.low)
        });
        self.publish(node, Down::Confirm(reign, confirm));
    }

    fn send_order(&mut self, dispatch: Dispatch) {
        let Dispatch { node, digest, send } = dispatch;
        let node = node_of(&node);
        let Some(page) = self.page(send.pos).cloned() else {
            return;
        };
        // The real one composes the bytes again and compares them with what was accepted.
        if page.order(node).map(steward_protocol::Sealed::digest) != Some(digest) {
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

    fn send_cancel(&mut self, withdrawal: Withdrawal) {
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

    fn submitted(&mut self, first: u64, count: u64) {
        self.told = self.told.max(first + count - 1);
        self.left -= count;
    }

    /// Hands a message to the courier.
    fn hand_over(&mut self, page: Rc<super::book::Page>, actions: &mut Vec<Action>) {
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

    fn is_ready(&self) -> bool {
        self.station.reign.as_ref().is_some_and(|it| !it.waiting)
    }

    fn nodes_of(&self, pos: u64, which: impl Fn(State) -> bool) -> Vec<usize> {
        let rows = self.station.ledger.message(pos).map(|it| &it.rows);
        let rows = rows.into_iter().flatten().filter(|row| which(row.state));
        rows.map(|row| row.node).collect()
    }

    fn call_off(&mut self, pos: u64, nodes: &[usize]) -> Vec<Action> {
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
    fn cancel_without_proof(&mut self, pos: u64) {
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

    fn places(&self, confirm: &Confirm) -> Vec<u64> {
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

    fn note_event(&mut self, event: &Event) {
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
            Event::NoResponders { node, .. } => format!("hears that nobody listens for {node}"),
        };
        self.note(Who::Station, || text);
    }

    fn note_record(&mut self, record: &Record) {
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
                    (accepted.expires_at.as_millisecond() - super::book::BEGINNING) / 1000,
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
            Record::Attempt { .. } | Record::Reason { .. } | Record::Node(_) | Record::Fault(_) => {
                return;
            }
        };
        self.note(Who::Station, || text);
    }
}

fn deferral(ack: &Ack) -> String {
    let deferral = ack.deferral.map(|deferral| deferral.as_str());
    deferral.map_or(String::new(), |why| format!(" ({why})"))
}

pub(super) fn signed(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}
