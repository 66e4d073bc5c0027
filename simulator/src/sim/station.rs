//! The station's shell: the real courier, its ledger, and the order in which things are done.
//!
//! It does what the real one does: everything that came together is decided, made durable in one
//! commit, and only then acted on. Where a bug is asked for, it does that wrong.

use std::time::Duration;

use steward_protocol::{Ack, State};
use steward_station::{
    courier::{Action, Courier, Event, Record},
    roster::Moment,
};

use super::{
    book::{node_of, wall},
    bug::Bug,
    check::Wrong,
    faults::Kind,
    ledger::Ledger,
    wire::{Up, Uplink},
    world::{Happening, Killed, Who, World},
};

/// Pause after the ledger could not be written, before it is read back; as in the real station.
const RELOAD_PAUSE: u64 = 1_000;

/// When everything is final and nobody asks for more, faults go on for a while; then, at a tick with
/// this chance in a thousand, they end before their time.
const TIRED: u64 = 120;

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
    pub(super) courier: Courier,
    /// What has come and is not taken yet.
    heard: Vec<Event>,
    /// Whether what comes has to wait: for others to come with it, or for the ledger.
    pub(super) waiting: bool,
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
    pub(super) fn load(&mut self, born: u64) -> Courier {
        let moment = self.station_moment(born);
        let loaded = self.station.ledger.load();
        Courier::load(self.book.station.clone(), loaded, moment)
    }

    pub(super) fn station_moment(&mut self, born: u64) -> Moment {
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
    pub(super) fn station_step(&mut self) -> Result<(), Killed> {
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
            self.station_does([Event::Tick]);
        }
        self.check_patience();
        let done = self.left == 0 && self.station.ledger.open == 0;
        if done && !self.healed && self.now > self.plan.last_call() && self.dice.chance(TIRED) {
            self.heal();
        }
        if done && self.healed && !self.quiet() {
            self.note(Who::Fate, || "everything is final".to_owned());
            self.quiet_since = Some(self.now);
        }
        if !self.quiet() {
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
    pub(super) fn match_by_subject(&self, node: usize, ack: &mut Ack) {
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

    pub(super) fn station_hears(&mut self, event: Event) {
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
            self.station_does([event]);
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
    pub(super) fn station_does(&mut self, events: impl IntoIterator<Item = Event>) {
        let mut actions = Vec::new();
        for event in events {
            self.decide(event, &mut actions);
        }
        self.carry_out(actions);
    }

    pub(super) fn decide(&mut self, event: Event, actions: &mut Vec<Action>) {
        if self.bug(Bug::DropOnReconnect) && matches!(event, Event::Connected) {
            self.give_up_what_was_sent();
        }
        let Some(born) = self.station.reign.as_ref().map(|it| it.born) else {
            return;
        };
        let moment = self.station_moment(born);
        self.note_event(&event);
        if let Some(running) = &mut self.station.reign {
            let mut more = running.courier.on(event, moment);
            if actions.is_empty() {
                *actions = more;
            } else {
                actions.append(&mut more);
            }
        }
    }

    pub(super) fn give_up_what_was_sent(&mut self) {
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
    pub(super) fn carry_out(&mut self, actions: Vec<Action>) -> bool {
        if actions.is_empty() {
            return true;
        }
        self.try_carry_out(actions).unwrap_or_else(|Killed| {
            self.station_crash();
            false
        })
    }

    pub(super) fn try_carry_out(&mut self, mut actions: Vec<Action>) -> Result<bool, Killed> {
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
    pub(super) fn record(&mut self, actions: &[Action]) -> bool {
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
        self.station.ledger.now = self.now;
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
            if let Record::Moved {
                pos, node, state, ..
            } = record
                && state.is_final()
            {
                self.note_settled(*pos, node_of(node));
            }
        }
        self.after_record(actions, fooled);
        true
    }

    /// Returns the record a bug writes in the place of this one.
    pub(super) fn with_bugs(&self, record: &Record) -> Option<Record> {
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

    pub(super) fn after_record(&mut self, actions: &[Action], fooled: bool) {
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
        let current = self.station.reign.as_ref().map(|it| it.life);
        if current != Some(life) {
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
}

pub(super) fn signed(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}
