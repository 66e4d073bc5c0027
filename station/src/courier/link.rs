//! One node as the courier sees it: what is open, in which lanes, and when each is due.
//!
//! Pure, like its parent.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::Timestamp;
use steward_protocol::{
    Ack, Deferral, Digest, Domain, Hello, InstanceId, Kind, LedgerId, MessageId, MethodName,
    NodeName, Send, State, Subject, limits, retry::Backoff, version,
};

use crate::{
    courier::{
        record::{Accepted, Action, Addressee, Dispatch, FirstAttempt, Record},
        review_after_word,
    },
    roster::Moment,
};

/// Orders of one node on their way at once, over all lanes: its queue of 100 leaves room for them.
const NODE_WINDOW: usize = 96;

/// Lanes learned from a node's hello; lanes of our own messages are bounded by what is open.
const MAX_LANES: usize = 4096;

/// No answer while present: resend after three round trips, but within these bounds (design 4.4).
const RESEND: Backoff = Backoff {
    base: Duration::from_secs(5),
    cap: Duration::from_secs(300),
};

/// A node that asked to be tried later is tried after about this long.
const RETRY: Backoff = Backoff {
    base: Duration::from_secs(1),
    cap: Duration::from_secs(60),
};

/// Round trip assumed before one was measured.
const FIRST_ROUND_TRIP: Duration = Duration::from_millis(500);

/// Kind, method and domain: a subject without its node. Ordered messages of one lane run one at a time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LaneName {
    /// Command or event.
    pub kind: Kind,
    /// The functionality.
    pub method: MethodName,
    /// What it is for.
    pub domain: Domain,
}

impl std::fmt::Display for LaneName {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}.{}.{}", self.kind, self.method, self.domain)
    }
}

/// A delivery that is not final.
#[derive(Debug, Clone)]
pub struct Open {
    /// The message.
    pub id: MessageId,
    /// Its place in the ledger.
    pub pos: u64,
    /// Its lane.
    pub lane: LaneName,
    /// Whether its place in the lane matters.
    pub ordered: bool,
    /// Digest of the order for this node.
    pub digest: Digest,
    /// Exit codes the order calls success.
    pub success_codes: Vec<i32>,
    /// How long it may run.
    pub timeout: Duration,
    /// After this it must not be started.
    pub expires_at: Timestamp,
    /// How it stands.
    pub state: State,
    /// How often it was sent.
    pub attempts: u32,
    /// Its place in the lane, once it was sent.
    pub seq: Option<u64>,
    pub(crate) schedule: Schedule,
}

/// When a delivery wants attention. Lives in memory only: a restart looks at everything at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Schedule {
    /// When it is to be sent next; none while the node has it.
    due: Option<Duration>,
    /// When it was last sent.
    sent: Option<Duration>,
    /// Sendings since the node was last heard about it.
    tries: u32,
    /// Why the node put it off.
    deferral: Option<Deferral>,
    /// When silence about it becomes `expired` or `unknown`; none once it has.
    review: Option<Timestamp>,
}

impl Open {
    /// Returns the delivery of a message just accepted.
    pub(crate) fn accepted(accepted: &Accepted, target: &Addressee) -> Self {
        let message = &accepted.message;
        Self {
            id: accepted.id,
            pos: accepted.pos,
            lane: LaneName {
                kind: message.kind,
                method: message.method.clone(),
                domain: message.domain.clone(),
            },
            ordered: message.options.ordered,
            digest: target.digest,
            success_codes: message.options.success_codes.clone(),
            timeout: message.options.timeout,
            expires_at: accepted.expires_at,
            state: State::Accepted,
            attempts: 0,
            seq: None,
            schedule: Schedule::immediate(Some(accepted.expires_at)),
        }
    }
}

impl Open {
    /// Whether the node asked to be tried later, and that is not yet.
    fn is_put_off(&self, now: Moment) -> bool {
        self.schedule.deferral.is_some() && self.schedule.due.is_some_and(|due| due > now.mono)
    }
}

impl Schedule {
    /// Returns the schedule of something to be sent at the first opportunity.
    pub(crate) fn immediate(review: Option<Timestamp>) -> Self {
        Self {
            due: Some(Duration::ZERO),
            sent: None,
            tries: 0,
            deferral: None,
            review,
        }
    }
}

/// How a node turned up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Contact {
    /// The start of the agent that was there already.
    Same,
    /// Another start: what it knows may have changed.
    Started,
}

/// What an ACK means for the schedule.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Word {
    state: State,
    deferral: Option<Deferral>,
    expected_seq: Option<u64>,
}

impl Word {
    /// Returns what `ack` means for the schedule.
    pub(crate) fn of(ack: &Ack) -> Self {
        Self {
            state: ack.state,
            deferral: ack.deferral,
            expected_seq: ack.expected_seq,
        }
    }
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
struct Lane {
    queue: BTreeSet<u64>,
    /// The number given out last.
    last_seq: u64,
}

/// One node as the courier sees it.
#[derive(Debug, Default)]
pub(crate) struct Link {
    /// The start of the agent orders may be sent to; none while the node is away.
    ready: Option<InstanceId>,
    /// When it last said hello.
    greeted: Duration,
    round_trip: Option<Duration>,
    open: BTreeMap<u64, Open>,
    lanes: BTreeMap<LaneName, Lane>,
    unordered: BTreeSet<u64>,
    /// When something may be due; none when nothing can become due by itself.
    look_at: Option<Duration>,
}

impl Link {
    pub(crate) fn restore_lane(&mut self, name: LaneName, last_seq: u64) {
        self.lanes.entry(name).or_default().last_seq = last_seq;
    }

    pub(crate) fn insert(&mut self, open: Open) {
        if open.ordered {
            self.lanes
                .entry(open.lane.clone())
                .or_default()
                .queue
                .insert(open.pos);
        } else {
            self.unordered.insert(open.pos);
        }
        self.open.insert(open.pos, open);
        self.look_at = Some(Duration::ZERO);
    }

    pub(crate) fn remove(&mut self, pos: u64) {
        if let Some(open) = self.open.remove(&pos) {
            self.unordered.remove(&pos);
            if let Some(lane) = self.lanes.get_mut(&open.lane) {
                lane.queue.remove(&pos);
            }
        }
    }

    pub(crate) fn get(&self, pos: u64) -> Option<&Open> {
        self.open.get(&pos)
    }

    pub(crate) fn get_mut(&mut self, pos: u64) -> Option<&mut Open> {
        self.open.get_mut(&pos)
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
    pub(crate) fn nobody_there(&mut self, sent: Duration) {
        // What was sent is known in whole milliseconds.
        if sent + Duration::from_millis(1) > self.greeted {
            self.ready = None;
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
        let returned = self.ready.is_none() || missed || contact == Contact::Started;
        self.ready = Some(instance);
        self.greeted = now.mono;
        let complete =
            hello.open.len() < limits::MAX_IDS && hello.unconfirmed.len() < limits::MAX_IDS;
        let round_trip = self.round_trip();
        for open in self.open.values_mut() {
            let has_it = matches!(open.state, State::Received | State::Running);
            let listed = || hello.open.contains(&open.id) || hello.unconfirmed.contains(&open.id);
            let settled_in = open.schedule.sent.is_none_or(|sent| {
                now.mono.saturating_sub(sent) > round_trip * 2 + Duration::from_secs(1)
            });
            let due = match contact {
                Contact::Started => true,
                // What it should have and does not know may have been lost with its answer.
                Contact::Same if has_it => complete && settled_in && !listed(),
                Contact::Same => returned,
            };
            if due {
                open.schedule.due = Some(now.mono);
                open.schedule.tries = 0;
            }
        }
        self.catch_up(hello);
        self.look_at = Some(now.mono);
    }

    /// A journal that has taken higher numbers than this ledger remembers keeps them: lower ones would
    /// look like something settled.
    fn catch_up(&mut self, hello: &Hello) {
        for (subject, last) in &hello.lanes {
            let Ok(subject) = subject.parse::<Subject>() else {
                continue;
            };
            let name = LaneName {
                kind: subject.kind,
                method: subject.method,
                domain: subject.domain,
            };
            if self.lanes.len() < MAX_LANES || self.lanes.contains_key(&name) {
                let lane = self.lanes.entry(name).or_default();
                lane.last_seq = lane.last_seq.max(*last);
            }
        }
    }

    /// The broker is back: what was on its way may have been lost with it.
    pub(crate) fn reconnected(&mut self, now: Moment) {
        for open in self.open.values_mut() {
            if matches!(open.state, State::Sent | State::Unknown) {
                open.schedule.due = Some(now.mono);
            }
        }
        self.look_at = Some(now.mono);
    }

    /// Sequence numbers start again.
    pub(crate) fn reset_lanes(&mut self) {
        for lane in self.lanes.values_mut() {
            lane.last_seq = 0;
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
        if let (Some(sent), 1) = (open.schedule.sent, open.schedule.tries) {
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
                open.schedule.due = None;
                open.schedule.tries = 0;
                let review = review_after_word(word.state, open.expires_at, open.timeout, now.wall);
                open.schedule.review = Some(review);
                self.unblock(&lane, now);
            }
            Some(Deferral::Gap) => {
                open.schedule.due = Some(now.mono + RESEND.base);
                self.resend_from(&lane, word.expected_seq.unwrap_or(0), round_trip, now);
            }
            Some(_) => {
                let wait = RETRY.above(RETRY.base, open.schedule.tries.saturating_sub(1), now.dice);
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
        for pos in lane.queue.iter().take(limits::LANE_WINDOW) {
            if let Some(open) = self.open.get_mut(pos)
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
        for pos in lane.queue.iter().take(limits::LANE_WINDOW) {
            let Some(open) = self.open.get_mut(pos) else {
                continue;
            };
            let stale = open
                .schedule
                .sent
                .is_none_or(|sent| now.mono.saturating_sub(sent) > round_trip);
            let missing = matches!(open.state, State::Sent | State::Deferred | State::Unknown);
            if missing && stale && open.seq.is_some_and(|seq| seq >= expected) {
                open.schedule.due = Some(now.mono);
            }
        }
    }

    fn round_trip(&self) -> Duration {
        self.round_trip.unwrap_or(FIRST_ROUND_TRIP)
    }

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
        for pos in self.eligible(now) {
            let due = self.open.get(&pos).and_then(|open| open.schedule.due);
            if due.is_none_or(|due| due > now.mono) {
                continue;
            }
            let given = self.number(pos);
            let Some(attempt) = self.attempt(pos, now) else {
                continue;
            };
            let Some(open) = self.open.get(&pos) else {
                continue;
            };
            let first = (attempt == 1).then(|| FirstAttempt {
                seq: given,
                at: now.wall,
                by: reign.station.clone(),
            });
            actions.push(Action::Record(Record::Attempt {
                pos,
                node: node.clone(),
                attempt,
                first,
            }));
            let left = now.wall.duration_until(open.expires_at).as_millis();
            let send = Send {
                v: version::CURRENT,
                ledger_id: reign.ledger_id,
                epoch: reign.epoch,
                instance,
                pos,
                low,
                seq: open.seq,
                seq_low: open.seq.and_then(|_| self.seq_low(&open.lane)),
                attempt,
                ttl_left_ms: u64::try_from(left).unwrap_or(0),
            };
            actions.push(Action::Order(Dispatch {
                node: node.clone(),
                digest: open.digest,
                send,
            }));
        }
        let due = |pos| self.open.get(&pos)?.schedule.due;
        let eligible = self.eligible(now).into_iter();
        self.look_at = eligible.chain(self.put_off(now)).filter_map(due).min();
    }

    /// Gives an ordered delivery its place in its lane, once.
    fn number(&mut self, pos: u64) -> Option<(LaneName, u64)> {
        let open = self
            .open
            .get_mut(&pos)
            .filter(|open| open.ordered && open.seq.is_none())?;
        let lane = self.lanes.get_mut(&open.lane)?;
        lane.last_seq += 1;
        open.seq = Some(lane.last_seq);
        Some((open.lane.clone(), lane.last_seq))
    }

    /// Notes that a delivery is being sent and when it is due again. Returns which attempt this is.
    fn attempt(&mut self, pos: u64, now: Moment) -> Option<u32> {
        let floor = (self.round_trip() * 3).clamp(RESEND.base, RESEND.cap);
        let open = self.open.get_mut(&pos)?;
        open.attempts += 1;
        if open.state == State::Accepted {
            open.state = State::Sent;
        }
        let wait = Backoff {
            base: floor,
            cap: RESEND.cap,
        };
        let dice = now
            .dice
            .wrapping_mul(pos | 1)
            .wrapping_add(u64::from(open.attempts));
        let schedule = &mut open.schedule;
        schedule.sent = Some(now.mono);
        schedule.deferral = None;
        schedule.due = Some(now.mono + wait.above(floor, schedule.tries, dice));
        schedule.tries += 1;
        Some(open.attempts)
    }

    /// The smallest sequence number of a lane that is not settled.
    fn seq_low(&self, lane: &LaneName) -> Option<u64> {
        let lane = self.lanes.get(lane)?;
        lane.queue.iter().find_map(|pos| self.open.get(pos)?.seq)
    }

    /// Places that may be on their way now: the front of every lane, lanes taking turns. What the node
    /// put off takes no room, and in its lane nothing that comes after it: that would only be a gap.
    fn eligible(&self, now: Moment) -> Vec<u64> {
        let is_put_off = |pos: &u64| self.open.get(pos).is_some_and(|open| open.is_put_off(now));
        let mut ranked: Vec<(usize, u64)> = Vec::new();
        for lane in self.lanes.values() {
            let front = lane.queue.iter().take(limits::LANE_WINDOW);
            let free = front.take_while(|pos| !is_put_off(pos));
            ranked.extend(free.enumerate().map(|(rank, pos)| (rank, *pos)));
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
        let candidates = fronts.chain(&self.unordered).copied();
        candidates.filter(move |pos| self.open.get(pos).is_some_and(|open| open.is_put_off(now)))
    }
}
