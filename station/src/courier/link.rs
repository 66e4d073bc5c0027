//! One node as the courier sees it: what is open, in which lanes, and when each is due.
//!
//! Pure, like its parent.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::Timestamp;
use steward_protocol::{
    Deferral, Hello, InstanceId, LedgerId, NodeName, State, Subject, limits, retry::Backoff,
};

use crate::{
    courier::open::{CancelRequest, LaneName, Open, Word, review_after_word},
    roster::Moment,
};

/// Lanes learned from a node's hello; lanes of our own messages are bounded by what is open.
const MAX_LANES: usize = 4096;

/// No answer while present: resend after three round trips, but within these bounds (design 4.4).
pub(super) const RESEND: Backoff = Backoff {
    base: Duration::from_secs(5),
    cap: Duration::from_secs(300),
};

/// A node that asked to be tried later is tried after about this long. The cap is what an order loses
/// at most when the reason has gone and nothing says so.
const RETRY: Backoff = Backoff {
    base: Duration::from_secs(1),
    cap: Duration::from_secs(15),
};

/// Round trip assumed before one was measured.
const FIRST_ROUND_TRIP: Duration = Duration::from_millis(500);

/// How a node turned up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Contact {
    /// The start of the agent that was there already.
    Same,
    /// Another start: what it knows may have changed.
    Started,
}

/// What every order of this reign carries.
pub(crate) struct Reigning<'a> {
    /// Which station.
    pub(crate) ledger_id: LedgerId,
    /// Which reign.
    pub(crate) epoch: u64,
    /// Place of the next message.
    pub(crate) next_pos: u64,
    /// The station's name.
    pub(crate) station: &'a NodeName,
}

#[derive(Debug, Default)]
pub(super) struct Lane {
    /// What may travel, by [`Open::turn`]: what was let go late comes after what overtook it.
    pub(super) queue: BTreeSet<(u64, u64)>,
    /// The number given out last.
    pub(super) last_seq: u64,
}

impl Lane {
    /// Returns the places that may be on their way, in the order of their turns.
    pub(super) fn window(&self) -> impl Iterator<Item = u64> + '_ {
        let front = self.queue.iter().take(limits::LANE_WINDOW);
        front.map(|(_, pos)| *pos)
    }
}

/// One node as the courier sees it.
#[derive(Debug, Default)]
pub(crate) struct Link {
    /// The start of the agent orders may be sent to; none while the node is away.
    pub(super) ready: Option<InstanceId>,
    /// When it last said hello.
    greeted: Duration,
    /// When the broker last said that nobody listens, if the node has not spoken since.
    pub(super) deaf: Option<Duration>,
    round_trip: Option<Duration>,
    /// Boxed: they come and go all the time, and a tree moves the neighbours.
    pub(super) open: BTreeMap<u64, Box<Open>>,
    pub(super) lanes: BTreeMap<LaneName, Lane>,
    /// What may travel and has no place in a lane.
    pub(super) unordered: BTreeSet<u64>,
    /// What is being called off.
    pub(super) cancels: BTreeSet<u64>,
    /// What waits for an earlier message to be settled, by that message's place. In no queue.
    held: BTreeMap<u64, BTreeSet<u64>>,
    /// When something may be due; none when nothing can become due by itself.
    pub(super) look_at: Option<Duration>,
}

impl Link {
    pub(crate) fn restore_lane(&mut self, name: LaneName, last_seq: u64) {
        self.lanes.entry(name).or_default().last_seq = last_seq;
    }

    pub(crate) fn insert(&mut self, open: Open) {
        let pos = open.pos;
        for holder in &open.held_by {
            self.held.entry(*holder).or_default().insert(pos);
        }
        let is_free = open.held_by.is_empty();
        self.open.insert(pos, Box::new(open));
        if is_free {
            self.enqueue(pos);
        }
    }

    /// Lets a delivery take part: in its lane, beside the lanes, or as a cancellation.
    fn enqueue(&mut self, pos: u64) {
        let Some(open) = self.open.get(&pos) else {
            return;
        };
        if open.cancel.is_some() {
            self.cancels.insert(pos);
        }
        if open.ordered {
            let lane = self.lanes.entry(open.lane.clone()).or_default();
            lane.queue.insert(open.turn());
        } else if open.cancel.is_none() {
            self.unordered.insert(pos);
        }
        self.look_at = Some(Duration::ZERO);
    }

    pub(crate) fn remove(&mut self, pos: u64) {
        let Some(open) = self.open.remove(&pos) else {
            return;
        };
        self.unordered.remove(&pos);
        self.cancels.remove(&pos);
        if let Some(lane) = self.lanes.get_mut(&open.lane) {
            lane.queue.remove(&open.turn());
        }
        for holder in &open.held_by {
            if let Some(waiting) = self.held.get_mut(holder) {
                waiting.remove(&pos);
            }
        }
    }

    /// Returns what waits for `pos`.
    pub(crate) fn held_by(&self, pos: u64) -> Vec<u64> {
        let waiting = self.held.get(&pos);
        waiting
            .map(|waiting| waiting.iter().copied().collect())
            .unwrap_or_default()
    }

    /// `pos` waits for `holder` no more. Returns whether it is free now.
    pub(crate) fn let_go(&mut self, pos: u64, holder: u64) -> bool {
        if let Some(waiting) = self.held.get_mut(&holder) {
            waiting.remove(&pos);
            if waiting.is_empty() {
                self.held.remove(&holder);
            }
        }
        let Some(open) = self.open.get_mut(&pos) else {
            return false;
        };
        if !open.held_by.remove(&holder) || !open.held_by.is_empty() {
            return false;
        }
        self.enqueue(pos);
        true
    }

    /// Lets go of what waits for something that is settled already.
    pub(crate) fn let_go_of_settled(&mut self) {
        let settled = |holder: &u64| !self.open.contains_key(holder);
        let holders: Vec<u64> = self.held.keys().copied().filter(settled).collect();
        for holder in holders {
            for pos in self.held_by(holder) {
                self.let_go(pos, holder);
            }
        }
    }

    /// From now on only the cancellation travels, at once and whatever the windows say.
    pub(crate) fn call_off(&mut self, pos: u64, request: CancelRequest, now: Moment) {
        let Some(open) = self.open.get_mut(&pos) else {
            return;
        };
        open.cancel.get_or_insert(request);
        open.schedule.deferral = None;
        open.schedule.wake(now);
        self.unordered.remove(&pos);
        self.cancels.insert(pos);
        self.look_at = Some(now.mono);
    }

    pub(crate) fn get(&self, pos: u64) -> Option<&Open> {
        self.open.get(&pos).map(Box::as_ref)
    }

    pub(crate) fn get_mut(&mut self, pos: u64) -> Option<&mut Open> {
        self.open.get_mut(&pos).map(Box::as_mut)
    }

    pub(crate) fn places(&self) -> Vec<u64> {
        self.open.keys().copied().collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.open.len()
    }

    /// Everything of this node with a smaller place is settled.
    pub(crate) fn low(&self, next_pos: u64) -> u64 {
        self.open
            .first_key_value()
            .map_or(next_pos, |(pos, _)| *pos)
    }

    pub(crate) fn look_at(&self) -> Option<Duration> {
        self.ready.and(self.look_at)
    }

    /// The node is away: nothing is sent until it speaks.
    pub(crate) fn absent(&mut self) {
        self.ready = None;
    }

    /// Nobody listened at `sent`. If the node has said hello since, it listens now.
    pub(crate) fn nobody_there(&mut self, sent: Duration, now: Moment) {
        // What was sent is known in whole milliseconds.
        if sent + Duration::from_millis(1) > self.greeted {
            self.ready = None;
            self.deaf = Some(now.mono);
        }
    }

    /// The node spoke: whatever it may not have is due.
    pub(crate) fn present(
        &mut self,
        instance: InstanceId,
        contact: Contact,
        hello: &Hello,
        now: Moment,
    ) {
        let heartbeat = Duration::from_millis(hello.interval_ms);
        // A hello that should have come and did not means that the link was down, seen or not.
        let missed = now.mono.saturating_sub(self.greeted) > heartbeat * 3 / 2;
        let returned = self.ready.is_none() || missed;
        self.ready = Some(instance);
        self.greeted = now.mono;
        self.deaf = None;
        let complete =
            hello.open.len() < limits::MAX_IDS && hello.unconfirmed.len() < limits::MAX_IDS;
        let round_trip = self.round_trip();
        for open in self.open.values_mut() {
            let has_it = matches!(open.state, State::Received | State::Running);
            let ended = || hello.unconfirmed.contains(&open.id);
            let listed = || hello.open.contains(&open.id) || ended();
            let settled_in = open.schedule.sent.is_none_or(|sent| {
                now.mono.saturating_sub(sent) > round_trip * 2 + Duration::from_secs(1)
            });
            // What it does not know of did not arrive, however long the wait for an answer has grown.
            let missing = open.schedule.sent.is_some() && !open.asked_to_wait();
            let due = match contact {
                Contact::Started => true,
                // What it should have and does not know may have been lost with its answer; and what has
                // ended there without our knowing is asked for, the node's own wait may be long.
                Contact::Same if has_it => {
                    (returned && open.cancel.is_some())
                        || (settled_in && (ended() || (complete && !listed())))
                }
                Contact::Same => {
                    returned || (missing && settled_in && (ended() || (complete && !listed())))
                }
            };
            if due {
                open.schedule.wake(now);
            }
        }
        self.catch_up(hello);
        if contact == Contact::Started && complete {
            self.renumber(hello);
        }
        self.look_at = Some(now.mono);
    }

    /// A journal that has taken higher numbers than this ledger remembers keeps them: lower ones would
    /// look like something settled.
    fn catch_up(&mut self, hello: &Hello) {
        for (subject, last) in &hello.lanes {
            let Some(name) = lane_of(subject) else {
                continue;
            };
            if self.lanes.len() < MAX_LANES || self.lanes.contains_key(&name) {
                let lane = self.lanes.entry(name).or_default();
                lane.last_seq = lane.last_seq.max(*last);
            }
        }
    }

    /// Takes back the numbers of a lane in which the node has passed one without knowing its order: it
    /// would never take that, and never answer. Numbers are given anew when they are sent again.
    fn renumber(&mut self, hello: &Hello) {
        let known = |open: &Open| {
            let has_it = matches!(open.state, State::Received | State::Running);
            has_it || hello.open.contains(&open.id) || hello.unconfirmed.contains(&open.id)
        };
        for (subject, last) in &hello.lanes {
            let Some(lane) = lane_of(subject).and_then(|name| self.lanes.get_mut(&name)) else {
                continue;
            };
            let numbered = lane.queue.iter().take_while(|(turn, _)| *turn < u64::MAX);
            let unknown: Vec<u64> = numbered
                .map(|(_, pos)| *pos)
                .filter(|pos| self.open.get(pos).is_some_and(|open| !known(open)))
                .collect();
            let passed = |pos: &u64| self.open.get(pos).and_then(|open| open.seq) <= Some(*last);
            if !unknown.iter().any(passed) {
                continue;
            }
            for pos in unknown {
                if let Some(open) = self.open.get_mut(&pos) {
                    lane.queue.remove(&open.turn());
                    open.seq = None;
                    lane.queue.insert(open.turn());
                }
            }
        }
    }

    /// The broker is back: what was on its way may have been lost with it.
    pub(crate) fn reconnected(&mut self, now: Moment) {
        for open in self.open.values_mut() {
            let unsettled = matches!(open.state, State::Sent | State::Unknown | State::Deferred);
            if (unsettled && !open.asked_to_wait()) || open.cancel.is_some() {
                open.schedule.due = Some(now.mono);
            }
        }
        self.look_at = Some(now.mono);
    }

    /// Sequence numbers start again.
    pub(crate) fn reset_lanes(&mut self) {
        for lane in self.lanes.values_mut() {
            lane.last_seq = 0;
            lane.queue = lane.queue.iter().map(|(_, pos)| (u64::MAX, *pos)).collect();
        }
        for open in self.open.values_mut() {
            open.seq = None;
        }
    }

    /// Places of the deliveries about which word should have come by now.
    pub(crate) fn overdue(&self, now: Timestamp) -> Vec<u64> {
        let late = |open: &&Open| open.schedule.review.is_some_and(|review| review <= now);
        self.open
            .values()
            .map(Box::as_ref)
            .filter(late)
            .map(|open| open.pos)
            .collect()
    }

    /// The deadline has had its effect. What may be on the node goes on travelling as a tombstone.
    pub(crate) fn reviewed(&mut self, pos: u64) {
        if let Some(open) = self.open.get_mut(&pos) {
            open.schedule.review = None;
            open.schedule.due.get_or_insert(Duration::ZERO);
            self.look_at = Some(Duration::ZERO);
        }
    }

    /// The node said something about `pos`.
    pub(crate) fn word(&mut self, pos: u64, word: Word, now: Moment) {
        let round_trip = self.round_trip();
        let Some(open) = self.open.get_mut(&pos) else {
            return;
        };
        // Of an order and its cancellation it cannot be told which one is answered.
        let sample = open.schedule.sent.filter(|_| open.cancel.is_none());
        if let (Some(sent), 1) = (sample, open.schedule.tries) {
            // A link that was down for a while says nothing about the round trip of one that is up.
            let sample = now.mono.saturating_sub(sent).min(RESEND.base);
            // RFC 6298 smooths with one eighth.
            self.round_trip = Some(
                self.round_trip
                    .map_or(sample, |known| (known * 7 + sample) / 8),
            );
        }
        open.schedule.deferral = word.deferral;
        let lane = open.lane.clone();
        match word.deferral {
            None => {
                // A cancellation goes on until the delivery is final, whatever else is said.
                if open.cancel.is_none() {
                    open.schedule.due = None;
                    open.schedule.tries = 0;
                }
                open.schedule.put_offs = 0;
                let review = review_after_word(word.state, open.expires_at, open.timeout, now.wall);
                open.schedule.review = Some(review);
                self.unblock(&lane, now);
            }
            Some(Deferral::Gap) => {
                open.schedule.due = Some(now.mono + RESEND.base);
                self.resend_from(&lane, word.expected_seq.unwrap_or(0), round_trip, now);
            }
            Some(_) => {
                // Counted apart from the sendings: those that a gap or a loss cost say nothing about
                // how long the node is going to be busy.
                let wait = RETRY.above(RETRY.base, open.schedule.put_offs, now.dice);
                open.schedule.put_offs = open.schedule.put_offs.saturating_add(1);
                open.schedule.due = Some(now.mono + wait);
            }
        }
        self.look_at = Some(now.mono);
    }

    /// What waited for an earlier sequence number need not wait any more.
    fn unblock(&mut self, lane: &LaneName, now: Moment) {
        let Some(lane) = self.lanes.get(lane) else {
            return;
        };
        for pos in lane.window() {
            if let Some(open) = self.open.get_mut(&pos)
                && open.schedule.deferral == Some(Deferral::Gap)
            {
                open.schedule.due = Some(now.mono);
            }
        }
    }

    /// A gap was seen: what was lost goes out again, once per round trip.
    fn resend_from(&mut self, lane: &LaneName, expected: u64, round_trip: Duration, now: Moment) {
        let Some(lane) = self.lanes.get(lane) else {
            return;
        };
        for pos in lane.window() {
            let Some(open) = self.open.get_mut(&pos) else {
                continue;
            };
            let stale = open
                .schedule
                .sent
                .is_none_or(|sent| now.mono.saturating_sub(sent) > round_trip);
            let missing = matches!(open.state, State::Sent | State::Deferred | State::Unknown);
            // Only a cancellation overtakes what the node itself asked to have later.
            let asked_for_later =
                open.is_put_off(now) && open.schedule.deferral != Some(Deferral::Gap);
            if missing && stale && !asked_for_later && open.seq.is_some_and(|seq| seq >= expected) {
                open.schedule.due = Some(now.mono);
            }
        }
    }

    pub(super) fn round_trip(&self) -> Duration {
        self.round_trip.unwrap_or(FIRST_ROUND_TRIP)
    }
}

/// Returns the lane of a subject as a node writes it.
fn lane_of(subject: &str) -> Option<LaneName> {
    let subject: Subject = subject.parse().ok()?;
    Some(LaneName {
        kind: subject.kind,
        method: subject.method,
        domain: subject.domain,
    })
}
