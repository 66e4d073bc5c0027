//! Who sends what is not believed: counted by sender and kind, told to the operator now and then.
//!
//! Pure: the time is handed in. A sender is who the subject says; that this is true is the broker's
//! to enforce. It does not know what made a frame unwelcome.

use std::{collections::BTreeMap, mem, time::Duration};

use jiff::Timestamp;
use steward_protocol::NodeName;

use crate::{courier::FaultRecord, roster::Moment, view::OffenderView};

/// Senders that are told apart. The one quiet for longest makes room for a new one.
const MAX_SENDERS: usize = 256;

/// A sender becomes a fault once in so long, with all that came meanwhile.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// Faults about offenders in [`TELL_EVERY`], whatever names they invent: the table of faults has
/// room for 10,000, and others have some to report as well.
const MAX_TOLD: usize = 20;

/// Offenders shown in the status.
const SHOWN: usize = 20;

/// Faults a node may report at once, and how long until it may report one more. What exceeds it is
/// not confirmed, so that the node keeps it and says it again.
const REPORTS: u32 = 200;
const REPORT_EVERY: Duration = Duration::from_secs(1);

/// What is not the sender's doing, or has a fault of its own already.
const NOT_TOLD: &[&str] = &[
    "hello_conflict",
    "ack_held_back",
    "fault_held_back",
    "hello_roster_full",
    "ack_contradiction",
];

/// One sender.
#[derive(Debug, Default)]
struct Tally {
    kinds: BTreeMap<&'static str, u64>,
    since: Timestamp,
    last: Timestamp,
    quiet_since: Duration,
    told: Option<Duration>,
    untold: BTreeMap<&'static str, u64>,
}

impl Tally {
    fn total(&self) -> u64 {
        self.kinds.values().sum()
    }
}

/// Every sender that gave cause for it.
#[derive(Debug, Default)]
pub(super) struct Offenders {
    known: BTreeMap<Option<NodeName>, Tally>,
    reports: BTreeMap<NodeName, Reports>,
    told: Vec<Duration>,
    faults: Vec<FaultRecord>,
}

/// How many more faults a node may report.
#[derive(Debug)]
struct Reports {
    left: u32,
    filled: Duration,
}

impl Offenders {
    /// Counts frames that were not believed.
    pub(super) fn note(
        &mut self,
        sender: Option<&NodeName>,
        kind: &'static str,
        count: u64,
        now: Moment,
    ) {
        self.make_room(sender);
        let tally = self.known.entry(sender.cloned()).or_insert_with(|| Tally {
            since: now.wall,
            ..Tally::default()
        });
        *tally.kinds.entry(kind).or_default() += count;
        tally.last = now.wall;
        tally.quiet_since = now.mono;
        if !NOT_TOLD.contains(&kind) {
            *tally.untold.entry(kind).or_default() += count;
            self.tell(sender, now);
        }
    }

    /// Returns the faults to be recorded since the last call.
    pub(super) fn take_faults(&mut self) -> Vec<FaultRecord> {
        mem::take(&mut self.faults)
    }

    /// Returns whether `node` may report one more fault now.
    pub(super) fn may_report(&mut self, node: &NodeName, now: Duration) -> bool {
        if self.reports.len() >= MAX_SENDERS && !self.reports.contains_key(node) {
            let full = |reports: &Reports| {
                now.saturating_sub(reports.filled) >= REPORT_EVERY * (REPORTS - reports.left)
            };
            self.reports.retain(|_, reports| !full(reports));
        }
        let reports = self.reports.entry(node.clone()).or_insert(Reports {
            left: REPORTS,
            filled: now,
        });
        let passed = now.saturating_sub(reports.filled).as_secs() / REPORT_EVERY.as_secs();
        if passed > 0 {
            let more = u32::try_from(passed).unwrap_or(u32::MAX);
            reports.left = reports.left.saturating_add(more).min(REPORTS);
            reports.filled = now;
        }
        let may = reports.left > 0;
        reports.left = reports.left.saturating_sub(1);
        may
    }

    /// Returns what was not believed of one sender, by kind.
    pub(super) fn of(&self, sender: &NodeName) -> BTreeMap<String, u64> {
        let tally = self.known.get(&Some(sender.clone()));
        tally.map(|tally| named(&tally.kinds)).unwrap_or_default()
    }

    /// Returns the senders with most to their name, worst first.
    pub(super) fn view(&self) -> Vec<OffenderView> {
        let mut view: Vec<OffenderView> = self
            .known
            .iter()
            .map(|(sender, tally)| OffenderView {
                sender: sender.clone(),
                frames: tally.total(),
                kinds: named(&tally.kinds),
                since: tally.since,
                last: tally.last,
            })
            .collect();
        view.sort_by_key(|offender| std::cmp::Reverse(offender.frames));
        view.truncate(SHOWN);
        view
    }

    fn make_room(&mut self, sender: Option<&NodeName>) {
        if self.known.len() < MAX_SENDERS || self.known.contains_key(&sender.cloned()) {
            return;
        }
        let quietest = self.known.iter().min_by_key(|(_, tally)| tally.quiet_since);
        if let Some(quietest) = quietest.map(|(sender, _)| sender.clone()) {
            self.known.remove(&quietest);
        }
    }

    /// Makes a fault of what `sender` did, unless that was done lately.
    fn tell(&mut self, sender: Option<&NodeName>, now: Moment) {
        let is_old = |told: &Duration| now.mono.saturating_sub(*told) >= TELL_EVERY;
        self.told.retain(|told| !is_old(told));
        let Some(tally) = self.known.get_mut(&sender.cloned()) else {
            return;
        };
        if self.told.len() >= MAX_TOLD || !tally.told.as_ref().is_none_or(is_old) {
            return;
        }
        tally.told = Some(now.mono);
        self.told.push(now.mono);
        let kinds = mem::take(&mut tally.untold);
        let words: Vec<String> = kinds
            .iter()
            .map(|(kind, count)| format!("{kind} {count}"))
            .collect();
        let who = sender.map_or("somebody who names no sender", NodeName::as_str);
        self.faults.push(FaultRecord {
            kind: "garbage".to_owned(),
            detail: format!("{who} sends what cannot be believed: {}", words.join(", ")),
            verdict: "dropped and counted; other nodes are not affected".to_owned(),
            ..FaultRecord::at(now.wall, sender.cloned())
        });
    }
}

fn named(kinds: &BTreeMap<&'static str, u64>) -> BTreeMap<String, u64> {
    let named = kinds
        .iter()
        .map(|(kind, count)| ((*kind).to_owned(), *count));
    named.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        let mono = Duration::from_secs(seconds);
        Moment {
            mono,
            wall: Timestamp::UNIX_EPOCH + mono,
            dice: 0,
        }
    }

    fn name(text: &str) -> NodeName {
        text.parse().expect("a name")
    }

    #[test]
    fn an_offender_is_told_once_a_minute_with_all_that_came_meanwhile() {
        let evil = name("evil");
        let mut offenders = Offenders::default();
        for second in 0..=60 {
            offenders.note(Some(&evil), "poison_reply", 20, at(second));
            offenders.note(Some(&evil), "flood", 1, at(second));
        }
        let told: Vec<String> = offenders
            .take_faults()
            .into_iter()
            .map(|fault| fault.detail)
            .collect();
        assert_eq!(
            told,
            [
                "evil sends what cannot be believed: poison_reply 20",
                "evil sends what cannot be believed: flood 60, poison_reply 1200",
            ]
        );
        assert_eq!(offenders.of(&evil)["poison_reply"], 61 * 20);
        let view = offenders.view();
        assert_eq!((view.len(), view[0].frames), (1, 61 * 21));
    }

    #[test]
    fn invented_names_fill_neither_the_table_nor_the_faults() {
        let mut offenders = Offenders::default();
        for number in 0..2000 {
            let invented = name(&format!("n{number}"));
            offenders.note(Some(&invented), "flood", 1, at(number / 1000));
        }
        assert!(offenders.known.len() <= MAX_SENDERS);
        assert_eq!(offenders.take_faults().len(), MAX_TOLD);
        assert_eq!(offenders.view().len(), SHOWN);
        offenders.note(None, "flood", 1, at(100));
        assert!(offenders.known.contains_key(&None), "the latest is known");
        assert_eq!(offenders.take_faults().len(), 1);
    }

    #[test]
    fn what_has_a_fault_of_its_own_is_counted_and_not_told() {
        let mut offenders = Offenders::default();
        offenders.note(Some(&name("ship1")), "hello_conflict", 1, at(0));
        assert!(offenders.take_faults().is_empty());
        assert_eq!(offenders.of(&name("ship1")).len(), 1);
    }

    #[test]
    fn faults_of_one_node_are_taken_up_to_a_measure() {
        let mut offenders = Offenders::default();
        let (loud, calm) = (name("loud"), name("calm"));
        let now = Duration::from_secs(1);
        let taken = (0..1000)
            .filter(|_| offenders.may_report(&loud, now))
            .count();
        assert_eq!(taken, 200);
        assert!(offenders.may_report(&calm, now));
        let later = now + REPORT_EVERY * 3;
        let taken = (0..1000)
            .filter(|_| offenders.may_report(&loud, later))
            .count();
        assert_eq!(taken, 3);
        for second in 10_000..11_000 {
            let invented = name(&format!("n{second}"));
            assert!(offenders.may_report(&invented, Duration::from_secs(second)));
        }
        assert!(offenders.reports.len() <= MAX_SENDERS);
    }

    #[test]
    fn the_worst_is_shown_first_with_when_it_began_and_when_it_was_last() {
        let mut offenders = Offenders::default();
        offenders.note(Some(&name("a")), "flood", 1, at(5));
        offenders.note(Some(&name("b")), "flood", 3, at(6));
        offenders.note(Some(&name("a")), "overflow", 1, at(9));
        let view = offenders.view();
        let shown: Vec<_> = view
            .iter()
            .map(|offender| {
                (
                    offender.sender.clone(),
                    offender.frames,
                    offender.since,
                    offender.last,
                )
            })
            .collect();
        assert_eq!(
            shown,
            [
                (Some(name("b")), 3, at(6).wall, at(6).wall),
                (Some(name("a")), 2, at(5).wall, at(9).wall),
            ]
        );
        let kinds = [("flood".to_owned(), 1), ("overflow".to_owned(), 1)];
        assert_eq!(view[1].kinds, BTreeMap::from(kinds));
        assert!(offenders.of(&name("c")).is_empty());
    }

    #[test]
    fn a_fault_about_garbage_says_of_whom_and_what_is_done() {
        for (sender, who) in [
            (Some(name("evil")), "evil"),
            (None, "somebody who names no sender"),
        ] {
            let mut offenders = Offenders::default();
            offenders.note(sender.as_ref(), "flood", 7, at(3));
            let expected = FaultRecord {
                kind: "garbage".to_owned(),
                detail: format!("{who} sends what cannot be believed: flood 7"),
                verdict: "dropped and counted; other nodes are not affected".to_owned(),
                ..FaultRecord::at(at(3).wall, sender)
            };
            assert_eq!(offenders.take_faults(), [expected]);
        }
    }

    #[test]
    fn the_sender_quiet_for_longest_makes_room_for_a_new_one_only() {
        let mut offenders = Offenders::default();
        let note = |offenders: &mut Offenders, number: usize, second| {
            offenders.note(Some(&name(&format!("n{number}"))), "flood", 1, at(second));
        };
        (0..MAX_SENDERS).for_each(|number| note(&mut offenders, number, number as u64));
        note(&mut offenders, 0, 1000);
        assert_eq!(
            offenders.known.len(),
            MAX_SENDERS,
            "known ones need no room"
        );
        note(&mut offenders, MAX_SENDERS, 1001);
        assert_eq!(offenders.known.len(), MAX_SENDERS);
        for (number, is_known) in [(0, true), (1, false), (2, true), (MAX_SENDERS, true)] {
            let sender = Some(name(&format!("n{number}")));
            assert_eq!(offenders.known.contains_key(&sender), is_known, "{number}");
        }
    }

    #[test]
    fn a_node_may_report_one_more_fault_every_second_up_to_its_measure() {
        let mut offenders = Offenders::default();
        let node = name("a");
        let mut taken = |millis, asked: usize| {
            let now = Duration::from_millis(millis);
            let may = (0..asked).filter(|_| offenders.may_report(&node, now));
            may.count()
        };
        for (millis, asked, expected) in [
            (0, 300, 200),
            (600, 5, 0),
            (1_000, 5, 1),
            (1_999, 5, 0),
            (4_500, 5, 3),
            (1_000_000, 300, 200),
        ] {
            assert_eq!(taken(millis, asked), expected, "after {millis} ms");
        }
    }

    #[test]
    fn nodes_with_nothing_to_their_account_are_forgotten_when_there_are_many() {
        let mut offenders = Offenders::default();
        let report = |offenders: &mut Offenders, sender: &str, millis| {
            offenders.may_report(&name(sender), Duration::from_millis(millis))
        };
        for number in 1..MAX_SENDERS {
            report(&mut offenders, &format!("n{number}"), 0);
        }
        for _ in 0..3 {
            report(&mut offenders, "loud", 0);
        }
        for (sender, millis, kept) in [
            ("early", 999, MAX_SENDERS + 1),
            ("n5", 1_000, MAX_SENDERS + 1),
            // What is left: the loud one, and those that have just reported.
            ("late", 1_001, 4),
        ] {
            report(&mut offenders, sender, millis);
            assert_eq!(offenders.reports.len(), kept, "{sender}");
        }
    }
}
