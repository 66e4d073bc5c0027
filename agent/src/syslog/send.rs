//! Delivery of batches to the station: what is to be read and sent next, and what may be released.
//!
//! Pure: an event and a moment go in, actions come out. A window of batches is on its way per domain, always of one
//! generation; the station's word releases from its beginning, and a hole or a silence sends it again from there. It
//! never sees a batch, only where it begins and how large it is, so a lost message costs a read from the disk and no
//! memory. It knows no disk, no clock and no broker.
//!
//! ```text
//! next ─▶ (the shell reads it and publishes it) ─▶ Sent | Empty | Ended | Unread ─▶ next …
//! Kept (from the station) ─▶ Release
//! ```

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use steward_protocol::{Domain, LedgerId, Reign, logs::Kept, retry::Backoff, transfer::Moment};

use super::spool::Place;

/// How long the station may be silent before everything it has not confirmed is sent again.
const SILENCE: Backoff = Backoff {
    base: Duration::from_secs(5),
    cap: Duration::from_secs(60),
};

/// The least silence that counts: a station that makes durable what it takes answers in far less.
const FLOOR: Duration = Duration::from_secs(5);

/// How long a batch that could not be read is left alone.
const UNREAD: Duration = Duration::from_secs(1);

/// How long the same hole is not answered again: what was on its way behind it is still arriving there.
const HOLE: Duration = Duration::from_secs(1);

/// How far sending may run ahead of its rate after it had nothing to send.
const BURST: Duration = Duration::from_millis(100);

/// Bytes a domain may send before it is the next one's turn: a few batches.
const QUANTUM: u64 = 256 << 10;

/// How much may be on its way at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Bytes, of each domain.
    pub bytes: u64,
    /// Batches, of each domain.
    pub batches: usize,
    /// Bytes per second, of all domains.
    pub rate: Option<u64>,
}

impl Default for Window {
    /// Wide enough that a link of 100 Mbit/s and half a second round trip is full.
    fn default() -> Self {
        Self {
            bytes: 8 << 20,
            batches: 64,
            rate: None,
        }
    }
}

/// What happens to the delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event<'a> {
    /// A station has welcomed this agent.
    Welcomed(&'a Reign),
    /// The link is gone, or the welcome is void.
    Parted,
    /// A domain has something durable; where it begins, if it was not known.
    Filled(&'a Domain, Place),
    /// The station's word on a domain.
    Kept(&'a Domain, &'a Reign, Kept),
    /// What [`Delivery::next`] asked for was read and is published.
    Sent(&'a Domain, Sent),
    /// There is nothing there yet; [`Event::Filled`] tells when there is.
    Empty(&'a Domain),
    /// The generation ends there, and another may follow.
    Ended(&'a Domain, Ended),
    /// It could not be read or published for now.
    Unread(&'a Domain),
}

/// A batch that is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    /// The place it was read from.
    pub place: Place,
    /// The position behind its last record.
    pub next: u64,
    /// Bytes of its payload.
    pub bytes: u64,
}

/// Where a generation ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// The place that was asked for.
    pub place: Place,
    /// The position behind its last record.
    pub next: u64,
    /// Where to go on.
    pub follows: Option<Place>,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// The station has everything of this generation below this place.
    Release(Domain, Place),
    /// The station has all of a generation that is not added to any more, which ends at this place.
    Finish(Domain, Place),
}

/// The delivery of one domain.
#[derive(Debug, Clone)]
struct Flow {
    /// Everything below it the station has, as far as is known.
    base: Place,
    /// The next position that is to be sent.
    position: u64,
    /// What is on its way: the position behind each batch, and its bytes.
    flying: VecDeque<(u64, u64)>,
    flying_bytes: u64,
    /// The end of the generation, once it was seen.
    end: Option<(u64, Option<Place>)>,
    is_empty: bool,
    /// Only one batch is sent until the station has answered, because it was silent.
    is_probing: bool,
    /// When what is on its way is sent again.
    due: Option<Duration>,
    /// When it may be read again.
    paused_until: Duration,
    tries: u32,
    /// The hole that was answered last, and when.
    hole: Option<(u64, Duration)>,
    /// Bytes it may still send in this turn.
    quantum: u64,
}

impl Flow {
    fn at(place: Place) -> Self {
        Self {
            base: place,
            position: place.position,
            flying: VecDeque::new(),
            flying_bytes: 0,
            end: None,
            is_empty: false,
            is_probing: false,
            due: None,
            paused_until: Duration::ZERO,
            tries: 0,
            hole: None,
            quantum: QUANTUM,
        }
    }

    fn place(&self) -> Place {
        Place {
            generation: self.base.generation,
            position: self.position,
        }
    }

    fn has_room(&self, window: &Window, now: Moment) -> bool {
        let batches = if self.is_probing { 1 } else { window.batches };
        !self.is_empty
            && self.end.is_none()
            && self.paused_until <= now.at
            && self.flying.len() < batches
            && self.flying_bytes < window.bytes
    }

    fn go_back(&mut self, position: u64) {
        self.base.position = position;
        self.position = position;
        self.flying.clear();
        self.flying_bytes = 0;
        self.end = None;
        self.is_empty = false;
        self.due = None;
    }

    fn wait(&mut self, now: Moment) {
        self.due =
            (!self.flying.is_empty()).then(|| now.at + SILENCE.above(FLOOR, self.tries, now.dice));
    }

    /// Takes note that the station has everything below `next`; tells whether that is new.
    fn confirm(&mut self, next: u64, now: Moment) -> bool {
        self.tries = 0;
        self.is_probing = false;
        if next <= self.base.position {
            self.wait(now);
            return false;
        }
        self.base.position = next;
        while let Some((until, bytes)) = self.flying.front().copied()
            && until <= next
        {
            self.flying.pop_front();
            self.flying_bytes -= bytes;
        }
        if self.position < next {
            // It has more than this start has sent: what an earlier one did.
            self.position = next;
            self.is_empty = false;
        }
        self.hole = None;
        self.wait(now);
        true
    }
}

/// The delivery of all domains.
#[derive(Debug)]
pub struct Delivery {
    window: Window,
    /// Whose word counts.
    reign: Option<(LedgerId, u64)>,
    flows: BTreeMap<Domain, Flow>,
    /// Whose turn it is.
    turn: Option<Domain>,
    /// When the next byte may leave.
    free_at: Duration,
}

impl Delivery {
    /// Returns the delivery of the domains that have something to send from the start.
    pub fn new(window: Window, starts: impl IntoIterator<Item = (Domain, Place)>) -> Self {
        let flow = |(domain, place)| (domain, Flow::at(place));
        Self {
            window,
            reign: None,
            flows: starts.into_iter().map(flow).collect(),
            turn: None,
            free_at: Duration::ZERO,
        }
    }

    /// Returns what of a domain the station has, and in which generation.
    pub fn base(&self, domain: &Domain) -> Option<Place> {
        Some(self.flows.get(domain)?.base)
    }

    /// Returns when to ask [`Self::next`] again although nothing happens until then.
    pub fn wake_at(&self, now: Moment) -> Option<Duration> {
        self.reign?;
        let due = self.flows.values().filter_map(|flow| flow.due);
        let paused = self.flows.values().map(|flow| flow.paused_until);
        let later = |at: &Duration| *at > now.at;
        due.chain(paused.chain([self.free_at]).filter(later)).min()
    }

    /// Takes note of an event and returns what is to be done.
    pub fn on(&mut self, event: Event<'_>, now: Moment) -> Vec<Action> {
        match event {
            Event::Welcomed(reign) => self.welcomed(reign),
            Event::Parted => self.reign = None,
            Event::Filled(domain, place) => {
                let flow = self.flows.entry(domain.clone());
                let flow = flow.or_insert_with(|| Flow::at(place));
                flow.is_empty = false;
                if flow.end.is_some_and(|(_, follows)| follows.is_none()) {
                    // The generation that follows its end may be there now.
                    flow.end = None;
                }
            }
            Event::Kept(domain, reign, kept) => {
                if self.reign == Some((reign.ledger_id, reign.epoch)) {
                    return self.kept(domain, kept, now);
                }
            }
            Event::Sent(domain, sent) => self.sent(domain, sent, now),
            Event::Empty(domain) => {
                if let Some(flow) = self.flows.get_mut(domain) {
                    flow.is_empty = true;
                }
            }
            Event::Ended(domain, ended) => return self.ended(domain, ended),
            Event::Unread(domain) => {
                if let Some(flow) = self.flows.get_mut(domain) {
                    flow.paused_until = now.at + UNREAD;
                }
            }
        }
        Vec::new()
    }

    /// Returns what is to be read and published now. Its outcome is to be told before the next one is asked for.
    pub fn next(&mut self, now: Moment) -> Option<(Domain, Place)> {
        self.reign?;
        for flow in self.flows.values_mut() {
            if flow.due.is_some_and(|due| due <= now.at) {
                flow.tries = flow.tries.saturating_add(1);
                flow.is_probing = true;
                flow.go_back(flow.base.position);
            }
        }
        if self.free_at > now.at {
            return None;
        }
        let domain = self.whose_turn(now)?;
        let place = self.flows.get(&domain)?.place();
        self.turn = Some(domain.clone());
        Some((domain, place))
    }

    /// The one whose turn it is goes on until its quantum is used or it has nothing; then the next one by name.
    fn whose_turn(&mut self, now: Moment) -> Option<Domain> {
        if let Some(domain) = &self.turn
            && let Some(flow) = self.flows.get_mut(domain)
        {
            if flow.quantum > 0 && flow.has_room(&self.window, now) {
                return Some(domain.clone());
            }
            flow.quantum = QUANTUM;
        }
        let ready = |(domain, flow): (&Domain, &Flow)| {
            flow.has_room(&self.window, now).then(|| domain.clone())
        };
        let behind = |domain: &Domain| self.turn.as_ref().is_none_or(|turn| domain > turn);
        let mut ready: VecDeque<Domain> = self.flows.iter().filter_map(ready).collect();
        let next = ready.iter().position(behind).unwrap_or(0);
        ready.remove(next)
    }

    fn welcomed(&mut self, reign: &Reign) {
        let before = self.reign.replace((reign.ledger_id, reign.epoch));
        if before == self.reign {
            return;
        }
        // What was on its way before may have gone nowhere.
        for flow in self.flows.values_mut() {
            flow.tries = 0;
            flow.is_probing = false;
            flow.hole = None;
            flow.go_back(flow.base.position);
        }
    }

    fn kept(&mut self, domain: &Domain, kept: Kept, now: Moment) -> Vec<Action> {
        let Some(flow) = self.flows.get_mut(domain) else {
            return Vec::new();
        };
        if kept.generation != flow.base.generation {
            return Vec::new();
        }
        let is_new = flow.confirm(kept.next, now);
        if kept.again {
            let is_answered = flow
                .hole
                .is_some_and(|(next, at)| next == kept.next && now.at < at + HOLE);
            if !is_answered {
                flow.hole = Some((kept.next, now.at));
                flow.go_back(kept.next);
            }
        }
        let mut actions = Vec::new();
        if is_new {
            actions.push(Action::Release(domain.clone(), flow.base));
        }
        actions.extend(finish(domain, flow));
        actions
    }

    fn sent(&mut self, domain: &Domain, sent: Sent, now: Moment) {
        if let Some(rate) = self.window.rate {
            let from = self.free_at.max(now.at.saturating_sub(BURST));
            let seconds = sent.bytes as f64 / rate.max(1) as f64;
            self.free_at = from + Duration::from_secs_f64(seconds);
        }
        let Some(flow) = self.flows.get_mut(domain) else {
            return;
        };
        flow.quantum = flow.quantum.saturating_sub(sent.bytes);
        if flow.place() != sent.place {
            // The station's word came meanwhile.
            return;
        }
        flow.position = sent.next;
        flow.flying.push_back((sent.next, sent.bytes));
        flow.flying_bytes += sent.bytes;
        if flow.due.is_none() {
            flow.wait(now);
        }
    }

    fn ended(&mut self, domain: &Domain, ended: Ended) -> Vec<Action> {
        let Some(flow) = self.flows.get_mut(domain) else {
            return Vec::new();
        };
        if flow.place() != ended.place {
            return Vec::new();
        }
        flow.end = Some((ended.next, ended.follows));
        finish(domain, flow).into_iter().collect()
    }
}

/// Goes on with the generation that follows, when the station has all of this one.
fn finish(domain: &Domain, flow: &mut Flow) -> Option<Action> {
    let (next, follows) = flow.end?;
    if flow.base.position < next {
        return None;
    }
    let end = Place {
        generation: flow.base.generation,
        position: next,
    };
    match follows {
        Some(follows) => *flow = Flow::at(follows),
        // It is asked for again when there is something.
        None => flow.base.position = next,
    }
    Some(Action::Finish(domain.clone(), end))
}

#[cfg(test)]
mod tests;
