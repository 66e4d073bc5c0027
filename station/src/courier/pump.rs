//! What is sent now: turns, windows, numbers and attempts of one node.
//!
//! Pure, like its parent. A window bounds orders; a cancellation travels past windows and past what
//! the node put off, because it is there to make room.

use std::{collections::BTreeSet, time::Duration};

use steward_protocol::{
    Cancel, InstanceId, Kind, Method, NodeName, Send, State, Subject, limits, retry::Backoff,
    version,
};

use crate::{
    courier::{
        link::{Link, RESEND, Reigning},
        open::{LaneName, Open},
        record::{Action, Dispatch, FirstAttempt, Record, Withdrawal},
    },
    roster::Moment,
};

/// Orders of one node on their way at once, over all lanes: its queue of 100 leaves room for them.
const NODE_WINDOW: usize = 96;

/// Cancellations sent to one node at a time; whoever called off thousands must not flood its link.
const CANCELS_AT_ONCE: usize = 96;

impl Link {
    /// Sends what is due, within the windows and never past something the node put off.
    pub(crate) fn pump(
        &mut self,
        node: &NodeName,
        reign: &Reigning<'_>,
        now: Moment,
        actions: &mut Vec<Action>,
    ) {
        let Some(instance) = self.ready else { return };
        let low = self.low(reign.next_pos);
        let round = Round {
            node,
            reign,
            instance,
            low,
            now,
        };
        let mut eligible = self.eligible(now);
        let due = self.due(&eligible, now);
        for pos in &due {
            let pos = *pos;
            match self.open.get(&pos).map(|open| open.cancel.is_some()) {
                Some(true) => self.send_cancel(pos, &round, actions),
                Some(false) => self.send_order(pos, &round, actions),
                None => {}
            }
        }
        if !due.is_empty() {
            eligible = self.eligible(now);
        }
        let due = |pos| self.open.get(&pos)?.schedule.due;
        let eligible = eligible.into_iter();
        let others = self.put_off(now).chain(self.cancels.iter().copied());
        self.look_at = eligible.chain(others).filter_map(due).min();
    }

    /// Places that are due, those of one lane in the order of their numbers.
    fn due(&self, eligible: &[u64], now: Moment) -> Vec<u64> {
        let due_at = |pos: u64| {
            self.open
                .get(&pos)?
                .schedule
                .due
                .filter(|due| *due <= now.mono)
        };
        let due = eligible.iter().filter(|pos| due_at(**pos).is_some());
        let mut places: Vec<u64> = due.copied().collect();
        if self.cancels.is_empty() {
            return places;
        }
        let known: BTreeSet<u64> = places.iter().copied().collect();
        let beyond = self.cancels.iter().filter(|pos| !known.contains(*pos));
        let mut beyond: Vec<(Duration, u64)> = beyond
            .filter_map(|pos| Some((due_at(*pos)?, *pos)))
            .collect();
        beyond.sort_unstable();
        let beyond = beyond.into_iter().take(CANCELS_AT_ONCE);
        places.extend(beyond.map(|(_, pos)| pos));
        places
    }

    fn send_order(&mut self, pos: u64, round: &Round<'_>, actions: &mut Vec<Action>) {
        let given = self.number(pos);
        let Some(attempt) = self.attempt(pos, round.now) else {
            return;
        };
        let Some(open) = self.open.get_mut(&pos) else {
            return;
        };
        let numbered = given.is_some();
        if numbered && attempt > 1 {
            // Under its new number it is as if it had never been sent.
            open.state = State::Sent;
            open.schedule.review.get_or_insert(open.expires_at);
        }
        let Some(open) = self.open.get(&pos) else {
            return;
        };
        let first = (attempt == 1 || numbered).then(|| FirstAttempt {
            seq: given,
            at: round.now.wall,
            by: round.reign.station.clone(),
        });
        actions.push(Action::Record(Record::Attempt {
            pos,
            node: round.node.clone(),
            attempt,
            first,
        }));
        actions.push(Action::Order(Dispatch {
            node: round.node.clone(),
            digest: open.digest,
            send: self.header(open, round),
        }));
    }

    /// Sends the tombstone in the order's place; that the order was sent is recorded already.
    fn send_cancel(&mut self, pos: u64, round: &Round<'_>, actions: &mut Vec<Action>) {
        self.tried(pos, round.now);
        let Some(open) = self.open.get(&pos) else {
            return;
        };
        let Some(request) = open.cancel.clone() else {
            return;
        };
        let node = round.node.clone();
        let domain = open.lane.domain.clone();
        actions.push(Action::Cancel(Box::new(Withdrawal {
            subject: Subject::new(node.clone(), Kind::Command, Method::Cancel, domain),
            cancel: Cancel {
                id: open.id,
                digest: open.digest,
                subject: open.lane.on(&node),
                at: request.at,
                by: request.by,
            },
            send: self.header(open, round),
            node,
        })));
    }

    fn header(&self, open: &Open, round: &Round<'_>) -> Send {
        let left = round.now.wall.duration_until(open.expires_at).as_millis();
        Send {
            v: version::CURRENT,
            ledger_id: round.reign.ledger_id,
            epoch: round.reign.epoch,
            instance: round.instance,
            pos: open.pos,
            low: round.low,
            seq: open.seq,
            seq_low: open.seq.and_then(|_| self.seq_low(&open.lane)),
            attempt: open.attempts,
            ttl_left_ms: u64::try_from(left).unwrap_or(0),
        }
    }

    /// Gives an ordered delivery its place in its lane, once.
    fn number(&mut self, pos: u64) -> Option<(LaneName, u64)> {
        let open = self
            .open
            .get_mut(&pos)
            .filter(|open| open.ordered && open.seq.is_none())?;
        let lane = self.lanes.get_mut(&open.lane)?;
        lane.queue.remove(&open.turn());
        lane.last_seq += 1;
        open.seq = Some(lane.last_seq);
        lane.queue.insert(open.turn());
        Some((open.lane.clone(), lane.last_seq))
    }

    /// Notes that an order is being sent. Returns which attempt this is.
    fn attempt(&mut self, pos: u64, now: Moment) -> Option<u32> {
        let open = self.open.get_mut(&pos)?;
        open.attempts += 1;
        if open.state == State::Accepted {
            open.state = State::Sent;
        }
        let attempts = open.attempts;
        self.tried(pos, now);
        Some(attempts)
    }

    /// Notes that something is being sent, and when it is due again.
    fn tried(&mut self, pos: u64, now: Moment) {
        let floor = (self.round_trip() * 3).clamp(RESEND.base, RESEND.cap);
        let Some(open) = self.open.get_mut(&pos) else {
            return;
        };
        let wait = Backoff {
            base: floor,
            cap: RESEND.cap,
        };
        let schedule = &mut open.schedule;
        let dice = now
            .dice
            .wrapping_mul(pos.wrapping_mul(2) + 1)
            .wrapping_add(u64::from(open.attempts) + u64::from(schedule.tries));
        schedule.sent = Some(now.mono);
        schedule.deferral = None;
        schedule.due = Some(now.mono + wait.above(floor, schedule.tries, dice));
        schedule.tries += 1;
    }

    /// The smallest sequence number of a lane that is not settled.
    fn seq_low(&self, lane: &LaneName) -> Option<u64> {
        let (first, _) = self.lanes.get(lane)?.queue.first()?;
        (*first < u64::MAX).then_some(*first)
    }

    /// Places that may be on their way now: the front of every lane, lanes taking turns. What the node
    /// put off takes no room, and in its lane nothing that comes after it: that would only be a gap.
    fn eligible(&self, now: Moment) -> Vec<u64> {
        let is_put_off = |pos: &u64| self.open.get(pos).is_some_and(|open| open.is_put_off(now));
        let most = self.open.len().min(NODE_WINDOW);
        let mut ranked: Vec<(usize, u64)> = Vec::with_capacity(most);
        for lane in self.lanes.values() {
            let free = lane.window().take_while(|pos| !is_put_off(pos));
            ranked.extend(free.enumerate());
        }
        let free = self.unordered.iter().filter(|pos| !is_put_off(pos));
        let window = free.take(limits::UNORDERED_WINDOW);
        ranked.extend(window.enumerate().map(|(rank, pos)| (rank, *pos)));
        ranked.sort_unstable();
        ranked
            .into_iter()
            .take(NODE_WINDOW)
            .map(|(_, pos)| pos)
            .collect()
    }

    /// Places the node put off: they become due by themselves.
    fn put_off(&self, now: Moment) -> impl Iterator<Item = u64> + '_ {
        let fronts = self.lanes.values().filter_map(|lane| lane.queue.first());
        let fronts = fronts.map(|(_, pos)| *pos);
        let candidates = fronts.chain(self.unordered.iter().copied());
        candidates.filter(move |pos| self.open.get(pos).is_some_and(|open| open.is_put_off(now)))
    }
}

/// What everything sent in one go has in common.
struct Round<'a> {
    node: &'a NodeName,
    reign: &'a Reigning<'a>,
    instance: InstanceId,
    low: u64,
    now: Moment,
}
