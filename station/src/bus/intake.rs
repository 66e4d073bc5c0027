//! What was heard and not yet taken: a short queue for every sender, served in turn.
//!
//! Pure: the time is handed in. Nobody who says much is heard at the cost of the others: each
//! sender has its own allowance, its own queue and its turn, and what exceeds them is dropped and
//! counted under its name. Nodes say again what was not confirmed, so what is dropped costs time,
//! not facts. It does not know what the frames mean.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    mem,
    time::Duration,
};

use steward_protocol::NodeName;

/// How much is taken of a sender, and of all.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// What one sender may say per second, in units: a frame costs one, and one more for every
    /// [`UNIT`] of it.
    allowance: f64,
    /// What one sender may say at once, after a silence.
    burst: f64,
    /// Frames of one sender that wait.
    frames: usize,
    /// Bytes of one sender that wait.
    bytes: usize,
    /// Bytes that wait in all. Beyond it the sender with most of them loses its oldest frame.
    total: usize,
}

impl Limits {
    /// Of words. An agent writes every word down before it says it, which is slower than the allowance;
    /// the burst is all that it kept while it was away. The loop takes some at every turn, hundreds of
    /// turns a second. Eight of the largest frames may wait.
    const WORDS: Self = Self {
        allowance: 5_000.0,
        burst: 10_000.0,
        frames: 1024,
        bytes: 4 * 1024 * 1024,
        total: 64 * 1024 * 1024,
    };

    /// Of batches of logs: 256 MiB a second, which is more than a disk takes, and the window of a node
    /// that drains what it kept. What is dropped is sent again.
    pub(super) const LOGS: Self = Self {
        allowance: 65_536.0,
        burst: 131_072.0,
        frames: 4096,
        bytes: 16 * 1024 * 1024,
        total: 64 * 1024 * 1024,
    };
}

/// Bytes that cost as much as a frame.
const UNIT: usize = 4096;

/// What a frame costs beside its payload, so that small ones are bounded too.
const FRAME_COST: usize = 512;

/// Senders told apart at once. Those beyond share one queue, as do frames that name nobody.
const MAX_SENDERS: usize = 4096;

/// How often senders that have nothing here are forgotten, at most.
const FORGET_EVERY: Duration = Duration::from_millis(100);

/// Senders and kinds whose offences are counted apart until they are taken.
const MAX_OFFENCES: usize = 1024;

/// Counts a frame beyond its sender's allowance.
pub(super) const FLOOD: &str = "flood";

/// Counts a frame for which there was no room.
pub(super) const OVERFLOW: &str = "overflow";

/// Who a frame names as its sender; nobody, if it names none that can be.
pub(super) type Sender = Option<NodeName>;

/// A frame that keeps to the rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frame {
    /// Where it arrived.
    pub(super) subject: String,
    /// What it says.
    pub(super) payload: Vec<u8>,
}

impl Frame {
    fn bytes(&self) -> usize {
        self.subject.len() + self.payload.len() + FRAME_COST
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "frames are far below 2^52 bytes"
    )]
    fn units(&self) -> f64 {
        1.0 + (self.payload.len() / UNIT) as f64
    }
}

/// Frames of one sender that were not welcome, of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Offence {
    /// Who sent them, as far as they say.
    pub(super) sender: Sender,
    /// What was wrong.
    pub(super) kind: &'static str,
    /// How many there were.
    pub(super) count: u64,
}

/// What one sender has here.
#[derive(Debug)]
struct Lane {
    frames: VecDeque<Frame>,
    bytes: usize,
    units: f64,
    filled: Duration,
}

impl Lane {
    fn new(limits: &Limits, now: Duration) -> Self {
        Self {
            frames: VecDeque::new(),
            bytes: 0,
            units: limits.burst,
            filled: now,
        }
    }

    fn refill(&mut self, limits: &Limits, now: Duration) {
        let passed = now.saturating_sub(self.filled).as_secs_f64();
        self.units = (self.units + passed * limits.allowance).min(limits.burst);
        self.filled = now;
    }

    fn pop(&mut self) -> Option<Frame> {
        let frame = self.frames.pop_front()?;
        self.bytes -= frame.bytes();
        Some(frame)
    }
}

/// The queues.
#[derive(Debug)]
pub(super) struct Intake {
    limits: Limits,
    lanes: HashMap<Sender, Lane>,
    /// The senders that have something, in the order of their turns.
    turns: VecDeque<Sender>,
    bytes: usize,
    forgot: Duration,
    offences: BTreeMap<(Sender, &'static str), u64>,
}

impl Default for Intake {
    fn default() -> Self {
        Self::new(Limits::WORDS)
    }
}

impl Intake {
    /// Returns queues with nothing in them.
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            lanes: HashMap::new(),
            turns: VecDeque::new(),
            bytes: 0,
            forgot: Duration::ZERO,
            offences: BTreeMap::new(),
        }
    }

    /// Takes a frame, or drops it and counts that against its sender.
    pub(super) fn offer(&mut self, sender: Sender, frame: Frame, now: Duration) {
        let key = self.lane_of(sender.clone(), now);
        let lane = self
            .lanes
            .entry(key.clone())
            .or_insert_with(|| Lane::new(&self.limits, now));
        lane.refill(&self.limits, now);
        let (bytes, units) = (frame.bytes(), frame.units());
        if lane.units < units {
            return self.offend(sender, FLOOD, 1);
        }
        if lane.frames.len() == self.limits.frames || lane.bytes + bytes > self.limits.bytes {
            return self.offend(sender, OVERFLOW, 1);
        }
        lane.units -= units;
        if lane.frames.is_empty() {
            self.turns.push_back(key);
        }
        lane.bytes += bytes;
        lane.frames.push_back(frame);
        self.bytes += bytes;
        while self.bytes > self.limits.total {
            self.drop_from_the_largest();
        }
    }

    /// Counts something that is not welcome.
    pub(super) fn offend(&mut self, sender: Sender, kind: &'static str, count: u64) {
        let full = self.offences.len() >= MAX_OFFENCES;
        let key = match full && !self.offences.contains_key(&(sender.clone(), kind)) {
            true => (None, kind),
            false => (sender, kind),
        };
        *self.offences.entry(key).or_default() += count;
    }

    /// Returns up to `most` frames: one of each sender, then another of each, and so on.
    pub(super) fn take(&mut self, most: usize) -> Vec<Frame> {
        let mut taken = Vec::new();
        while taken.len() < most
            && let Some(sender) = self.turns.pop_front()
        {
            let Some(lane) = self.lanes.get_mut(&sender) else {
                continue;
            };
            if let Some(frame) = lane.pop() {
                self.bytes -= frame.bytes();
                taken.push(frame);
            }
            if !lane.frames.is_empty() {
                self.turns.push_back(sender);
            }
        }
        taken
    }

    /// Returns what was counted since the last call.
    pub(super) fn take_offences(&mut self) -> Vec<Offence> {
        let offences = mem::take(&mut self.offences);
        offences
            .into_iter()
            .map(|((sender, kind), count)| Offence {
                sender,
                kind,
                count,
            })
            .collect()
    }

    /// Returns whether there is anything to take.
    pub(super) fn is_empty(&self) -> bool {
        self.turns.is_empty() && self.offences.is_empty()
    }

    /// Returns whether something was counted since that was taken.
    pub(super) fn has_offences(&self) -> bool {
        !self.offences.is_empty()
    }

    /// Returns which queue is `sender`'s: its own, or the shared one when there are too many.
    fn lane_of(&mut self, sender: Sender, now: Duration) -> Sender {
        if self.lanes.len() < MAX_SENDERS || self.lanes.contains_key(&sender) {
            return sender;
        }
        if now.saturating_sub(self.forgot) >= FORGET_EVERY {
            self.forgot = now;
            let limits = self.limits;
            self.lanes.retain(|_, lane| {
                lane.refill(&limits, now);
                !lane.frames.is_empty() || lane.units < limits.burst
            });
        }
        match self.lanes.len() < MAX_SENDERS {
            true => sender,
            false => None,
        }
    }

    fn drop_from_the_largest(&mut self) {
        let largest = self.lanes.iter_mut().max_by_key(|(_, lane)| lane.bytes);
        let Some((sender, frame)) =
            largest.and_then(|(sender, lane)| Some((sender.clone(), lane.pop()?)))
        else {
            return;
        };
        self.bytes -= frame.bytes();
        self.offend(sender, OVERFLOW, 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Duration = Duration::from_secs(1);

    fn name(text: &str) -> Sender {
        Some(text.parse().expect("a name"))
    }

    fn frame(subject: &str, bytes: usize) -> Frame {
        Frame {
            subject: subject.to_owned(),
            payload: vec![0; bytes],
        }
    }

    fn subjects(frames: &[Frame]) -> Vec<&str> {
        frames.iter().map(|frame| frame.subject.as_str()).collect()
    }

    fn counted(intake: &mut Intake, sender: &Sender, kind: &str) -> u64 {
        let offences = intake.take_offences();
        let of = |offence: &&Offence| offence.sender == *sender && offence.kind == kind;
        offences
            .iter()
            .filter(of)
            .map(|offence| offence.count)
            .sum()
    }

    #[test]
    fn senders_are_served_in_turn_and_each_in_order() {
        let mut intake = Intake::default();
        for number in 0..500 {
            intake.offer(name("loud"), frame(&format!("l{number}"), 0), START);
        }
        for subject in ["a0", "a1"] {
            intake.offer(name("a"), frame(subject, 0), START);
        }
        intake.offer(name("b"), frame("b0", 0), START);
        assert_eq!(
            subjects(&intake.take(6)),
            ["l0", "a0", "b0", "l1", "a1", "l2"]
        );
        assert_eq!(intake.take(1000).len(), 497);
        assert!(intake.take(1).is_empty());
        assert_eq!(intake.bytes, 0);
    }

    #[test]
    fn what_exceeds_an_allowance_is_dropped_under_its_senders_name_alone() {
        let mut intake = Intake::default();
        for _ in 0..20_000 {
            intake.offer(name("loud"), frame("l", 0), START);
            intake.take(1);
        }
        assert_eq!(counted(&mut intake, &name("loud"), FLOOD), 10_000);
        intake.offer(name("calm"), frame("c", 0), START);
        assert_eq!(subjects(&intake.take(9)), ["c"]);
        // A second later it may speak again, at the pace that is left to it.
        for _ in 0..20_000 {
            intake.offer(name("loud"), frame("l", 0), START * 2);
            intake.take(1);
        }
        assert_eq!(counted(&mut intake, &name("loud"), FLOOD), 15_000);
        assert!(intake.is_empty());
    }

    #[test]
    fn large_frames_cost_more() {
        let mut intake = Intake::default();
        let most = 10_000 / (1 + 100);
        for _ in 0..most + 7 {
            intake.offer(name("large"), frame("l", 100 * UNIT), START);
            intake.take(1);
        }
        assert_eq!(counted(&mut intake, &name("large"), FLOOD), 7);
    }

    #[test]
    fn what_waits_is_bounded_for_each_and_in_all() {
        let mut intake = Intake::default();
        for _ in 0..Limits::WORDS.frames + 3 {
            intake.offer(name("many"), frame("m", 0), START);
        }
        assert_eq!(counted(&mut intake, &name("many"), OVERFLOW), 3);
        let large = 512 * 1024;
        for _ in 0..9 {
            intake.offer(name("big"), frame("b", large), START);
        }
        assert_eq!(counted(&mut intake, &name("big"), OVERFLOW), 2);
        for number in 0..20 {
            for _ in 0..7 {
                intake.offer(name(&format!("n{number}")), frame("n", large), START);
            }
        }
        assert!(intake.bytes <= Limits::WORDS.total, "{}", intake.bytes);
        intake.take_offences();
        // Room is made at the cost of those who have most.
        intake.offer(name("calm"), frame("calm", large), START);
        let heard = intake.take(1 << 20);
        assert!(subjects(&heard).contains(&"calm"));
        assert_eq!(intake.bytes, 0);
    }

    #[test]
    fn senders_and_offences_are_bounded() {
        let mut intake = Intake::default();
        for number in 0..3 * MAX_SENDERS {
            intake.offer(name(&format!("n{number}")), frame("n", 0), START);
            intake.offend(name(&format!("n{number}")), FLOOD, 1);
        }
        assert!(intake.lanes.len() <= MAX_SENDERS + 1);
        assert!(intake.offences.len() <= MAX_OFFENCES + 2);
        let all: u64 = intake.offences.values().sum();
        assert!(all >= 3 * MAX_SENDERS as u64, "none is left uncounted");
        intake.take(1 << 20);
        let later = START * 60;
        intake.offer(name("new"), frame("new", 0), later);
        assert_eq!(
            intake.lanes.len(),
            1,
            "those that have nothing are forgotten"
        );
    }

    #[test]
    fn a_frame_costs_one_and_one_more_for_every_four_kibibytes() {
        for (bytes, most) in [(0, 10_000), (UNIT - 1, 10_000), (UNIT, 5_000)] {
            let mut intake = Intake::default();
            for _ in 0..most + 3 {
                intake.offer(name("a"), frame("a", bytes), START);
                intake.take(1);
            }
            assert_eq!(counted(&mut intake, &name("a"), FLOOD), 3, "{bytes}");
        }
    }

    #[test]
    fn an_allowance_grows_with_time_up_to_the_burst() {
        let mut intake = Intake::default();
        let mut flooded = |after: Duration| {
            for _ in 0..11_000 {
                intake.offer(name("a"), frame("a", 0), after);
                intake.take(1);
            }
            counted(&mut intake, &name("a"), FLOOD)
        };
        assert_eq!(flooded(START), 1_000);
        assert_eq!(flooded(START + Duration::from_millis(500)), 8_500);
        assert_eq!(flooded(START * 1000), 1_000, "however long the silence");
    }

    #[test]
    fn bytes_of_one_sender_and_of_all_are_taken_up_to_their_limits() {
        let eighth = |more: usize| frame("b", Limits::WORDS.bytes / 8 - FRAME_COST - 1 + more);
        let mut intake = Intake::default();
        for number in 0..16 {
            for _ in 0..8 {
                intake.offer(name(&format!("n{number}")), eighth(0), START);
            }
        }
        assert_eq!(intake.bytes, Limits::WORDS.total);
        assert!(intake.offences.is_empty(), "all of it has room");
        intake.offer(name("n3"), frame("b", 0), START);
        assert_eq!(counted(&mut intake, &name("n3"), OVERFLOW), 1);
        intake.offer(name("new"), frame("new", 0), START);
        let offences = intake.take_offences();
        let dropped: u64 = offences.iter().map(|offence| offence.count).sum();
        assert_eq!((offences.len(), dropped), (1, 1), "{offences:?}");
        assert!(offences[0].sender != name("new") && offences[0].kind == OVERFLOW);
        assert_eq!(intake.take(1 << 20).len(), 16 * 8);
        assert!(intake.is_empty());

        for number in 0..8 {
            let more = usize::from(number == 7);
            intake.offer(name("a"), eighth(more), START);
        }
        assert_eq!(
            counted(&mut intake, &name("a"), OVERFLOW),
            1,
            "a byte too many"
        );
    }

    #[test]
    fn offences_beyond_the_table_are_nobodys_and_known_ones_go_on() {
        let mut intake = Intake::default();
        assert!(intake.is_empty());
        for number in 0..MAX_OFFENCES {
            intake.offend(name(&format!("n{number}")), FLOOD, 2);
        }
        assert!(!intake.is_empty(), "there is something to tell");
        for (sender, kind) in [("n7", FLOOD), ("n7", OVERFLOW), ("new", FLOOD)] {
            intake.offend(name(sender), kind, 3);
        }
        let offences = intake.take_offences();
        let count = |sender: Sender, kind| {
            let of = |offence: &&Offence| offence.sender == sender && offence.kind == kind;
            offences.iter().find(of).map_or(0, |offence| offence.count)
        };
        assert_eq!(count(name("n7"), FLOOD), 5);
        assert_eq!((count(None, OVERFLOW), count(None, FLOOD)), (3, 3));
        assert_eq!(offences.len(), MAX_OFFENCES + 2);
        assert!(intake.is_empty());
    }

    #[test]
    fn senders_beyond_the_table_share_a_queue_until_others_are_forgotten() {
        let mut intake = Intake::default();
        let fill = |intake: &mut Intake, number| {
            intake.offer(name(&format!("n{number}")), frame("n", 0), START);
        };
        (0..MAX_SENDERS).for_each(|number| fill(&mut intake, number));
        assert_eq!(intake.lanes.len(), MAX_SENDERS);
        fill(&mut intake, MAX_SENDERS);
        assert!(intake.lanes.contains_key(&None), "it shares");
        fill(&mut intake, 5);
        assert_eq!(intake.lanes[&name("n5")].frames.len(), 2, "it is known");
        intake.take(MAX_SENDERS);
        for (sender, millis, has_its_own) in [("early", 99, false), ("late", 100, true)] {
            let now = START + Duration::from_millis(millis);
            intake.offer(name(sender), frame("x", 0), now);
            assert_eq!(
                intake.lanes.contains_key(&name(sender)),
                has_its_own,
                "{sender}"
            );
        }
        assert!(
            intake.lanes.contains_key(&name("n5")),
            "it has a frame here"
        );
        assert_eq!(intake.lanes.len(), 3);
    }
}
