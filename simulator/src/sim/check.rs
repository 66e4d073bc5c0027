//! The verdict: what the station claims against what really ran.

use steward_protocol::State;

use super::{
    book::Nature,
    ledger::Row,
    truth::{End, Run},
    world::World,
};

/// After the heal everything is final within this, in milliseconds, the commands' own time not counted.
pub const BOUND: u64 = 30_000;

/// Orders a node may keep waiting at least, for the bound to hold; as many as are configured by default.
const PLENTY: usize = 100;

/// Heartbeats of silence, in tenths, after which a station believes in another journal.
const PATIENCE_TENTHS: u64 = 35;

/// What went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrong {
    /// An accepted message is not in the ledger.
    Lost,
    /// A message is not final in time.
    NotFinal,
    /// A command was started twice on a node.
    Double,
    /// A success is shown that was none.
    FalseSuccess,
    /// Another state is shown than the truth allows.
    FalseState,
    /// An end is called unknown although a warden wrote it down.
    Withheld,
    /// Ordered messages did not run in their order.
    Order,
    /// The ledger changed what it must not change.
    Ledger,
    /// A node said something final that was not durable there (rule J4).
    Unwritten,
    /// An order was sent although its end was recorded.
    Resent,
}

impl Wrong {
    /// Returns the words it is shown with.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::NotFinal => "not final in time",
            Self::Double => "started twice",
            Self::FalseSuccess => "false success",
            Self::FalseState => "false state",
            Self::Withheld => "known end withheld",
            Self::Order => "out of order",
            Self::Ledger => "ledger",
            Self::Unwritten => "said before it was written",
            Self::Resent => "sent after its end",
        }
    }
}

/// The first thing that went wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// What kind.
    pub wrong: Wrong,
    /// When it was seen, in milliseconds.
    pub at: u64,
    /// What, in words.
    pub what: String,
}

impl World<'_> {
    /// How long everything may take to become final after the heal.
    pub(super) fn bound(&self) -> u64 {
        if self.plan.queue < PLENTY {
            // A node that may keep only a few orders waiting puts the others off, several times over.
            return BOUND * 4;
        }
        let journals = self.tally.of(super::faults::Kind::JournalLost)
            + self.tally.of(super::faults::Kind::Rival);
        if journals == 0 {
            return BOUND;
        }
        // Whoever has another journal is held back until the one known is silent for long enough.
        BOUND + self.plan.heartbeat * PATIENCE_TENTHS / 10
    }

    /// Returns how long a delivery accepted at `accepted` has been without excuse: since the faults
    /// ended, the last frame that was late then has come, and it was accepted; commands not counted.
    fn overdue(&self, accepted: u64, node: usize) -> u64 {
        let since = self.plan.heal.max(self.last_late).max(accepted);
        let busy = self.truth.busy(node, self.now) - self.busy_at_heal[node];
        self.now.saturating_sub(since).saturating_sub(busy)
    }

    /// Notes when a delivery became final after the heal.
    pub(super) fn note_settled(&mut self, pos: u64, node: usize) {
        if let Some(message) = self.station.ledger.message(pos).filter(|_| self.healed) {
            let took = self.overdue(message.at, node);
            self.settled = self.settled.max(took);
        }
    }

    /// Finds what should have become final by now.
    pub(super) fn check_patience(&mut self) {
        if !self.healed || self.now < self.plan.heal + self.bound() {
            return;
        }
        let mut late = None;
        for (pos, message) in (1_u64..).zip(&self.station.ledger.messages) {
            for row in message.rows.iter().filter(|row| !row.state.is_final()) {
                if self.overdue(message.at, row.node) > self.bound() {
                    late.get_or_insert((pos, row.node, row.state));
                }
            }
        }
        if let Some((pos, node, state)) = late {
            let after = (self.now - self.plan.heal) / 1000;
            let what = format!(
                "message {pos} for ship{} is {state} {after} s after the faults ended",
                node + 1
            );
            self.wrong(Wrong::NotFinal, what);
        } else if self.left > 0 && self.now > self.plan.heal + 10 * self.bound() {
            let what = "an operator cannot submit".to_owned();
            self.wrong(Wrong::NotFinal, what);
        }
    }

    /// Judges the whole schedule at its end.
    pub(super) fn judge(&mut self) {
        if self.violation.is_some() {
            return;
        }
        let found = self.find_lost().or_else(|| self.find_false());
        if let Some((wrong, what)) = found.or_else(|| self.find_disorder()) {
            self.wrong(wrong, what);
        }
    }

    fn find_lost(&self) -> Option<(Wrong, String)> {
        let kept = self.station.ledger.messages.len() as u64;
        if self.told > kept {
            let what = format!("message {} was accepted and is not in the ledger", kept + 1);
            return Some((Wrong::Lost, what));
        }
        if self.station.ledger.open > 0 || self.left > 0 {
            let what = format!(
                "{} deliveries are open and {} messages not submitted at the end of time",
                self.station.ledger.open, self.left
            );
            return Some((Wrong::NotFinal, what));
        }
        None
    }

    fn find_false(&self) -> Option<(Wrong, String)> {
        for (pos, message) in (1_u64..).zip(&self.station.ledger.messages) {
            for row in &message.rows {
                let runs: Vec<&Run> = self.truth.starts(pos, row.node).collect();
                let options = &message.page.accepted.message.options;
                let name = || format!("message {pos} for ship{}", row.node + 1);
                if runs.len() > 1 && !options.idempotent {
                    let times: Vec<u64> = runs.iter().map(|run| run.started).collect();
                    return Some((
                        Wrong::Double,
                        format!("{} started {} times, at {times:?} ms", name(), runs.len()),
                    ));
                }
                let claim = Claim {
                    row,
                    runs: &runs,
                    codes: &options.success_codes,
                    nature: message.page.nature,
                };
                if row.state == State::Interrupted && self.is_end_known(pos, row.node) {
                    let what = format!("{} is interrupted, but its warden wrote its end", name());
                    return Some((Wrong::Withheld, what));
                }
                if let Some((wrong, why)) = claim.contradiction() {
                    let what = format!("{} is {}, but {why}: {runs:?}", name(), row.state);
                    return Some((wrong, what));
                }
            }
        }
        None
    }

    /// Tells whether a warden wrote down how a command ended, for an agent that can know of it.
    fn is_end_known(&self, pos: u64, node: usize) -> bool {
        use super::faults::Kind;
        let strangers = self.tally.of(Kind::JournalLost) + self.tally.of(Kind::Rival);
        let mut children = self.truth.children.iter().enumerate();
        strangers == 0
            && children.any(|(number, child)| {
                child.pos == pos
                    && self.hosts[child.host].node == node
                    && self.written(number).is_some()
            })
    }

    /// Ordered messages of one lane start in the order of their places, unless one repeats another and was held.
    fn find_disorder(&self) -> Option<(Wrong, String)> {
        let mut last = [[(0_u64, 0_u64); super::book::DOMAINS]; super::book::NODES];
        for run in &self.truth.runs {
            let Some(page) = self.page(run.pos) else {
                continue;
            };
            let options = &page.accepted.message.options;
            if !options.ordered || options.idempotent || page.accepted.retry_of.is_some() {
                continue;
            }
            let (pos, end) = &mut last[run.node][page.domain];
            if run.pos < *pos {
                let what = format!(
                    "message {} of ship{} started after message {pos} of its lane",
                    run.pos,
                    run.node + 1
                );
                return Some((Wrong::Order, what));
            }
            let overlaps = run.started < *end && self.hosts.len() == self.plan.nodes;
            if overlaps && self.tally.of(super::faults::Kind::JournalLost) == 0 {
                let what = format!(
                    "message {} of ship{} started while message {pos} of its lane ran",
                    run.pos,
                    run.node + 1
                );
                return Some((Wrong::Order, what));
            }
            (*pos, *end) = (run.pos, run.end.map_or(u64::MAX, |(at, _)| at));
        }
        None
    }
}

/// What the ledger says of one delivery, beside what really happened.
struct Claim<'a> {
    row: &'a Row,
    runs: &'a [&'a Run],
    codes: &'a [i32],
    nature: Nature,
}

impl Claim<'_> {
    /// Returns what contradicts the claim, if anything does.
    fn contradiction(&self) -> Option<(Wrong, &'static str)> {
        let exit = self
            .row
            .outcome
            .as_ref()
            .and_then(|outcome| outcome.exit_code);
        let ended_with = |code| {
            let how = Some(End::Exit(code));
            self.runs
                .iter()
                .any(|run| run.end.map(|(_, how)| how) == how)
        };
        let started = !self.runs.is_empty();
        let killed = || {
            let mut ends = self.runs.iter().filter_map(|run| run.end);
            ends.any(|(_, how)| how == End::Killed)
        };
        match self.row.state {
            State::Succeeded => {
                let proven =
                    exit.is_some_and(|code| self.codes.contains(&code) && ended_with(code));
                (!proven).then_some((Wrong::FalseSuccess, "it did not end so"))
            }
            State::Failed if self.nature == Nature::Missing => {
                started.then_some((Wrong::FalseState, "there is no such program"))
            }
            State::Failed => {
                let signal = self.row.outcome.as_ref().and_then(|outcome| outcome.signal);
                let proven = match exit {
                    Some(code) => ended_with(code),
                    None => signal.is_some() && killed(),
                };
                (!proven).then_some((Wrong::FalseState, "it did not end so"))
            }
            State::TimedOut => (!killed()).then_some((Wrong::FalseState, "it was not stopped")),
            State::Rejected | State::Expired => {
                started.then_some((Wrong::FalseState, "it started"))
            }
            State::Cancelled => self.cancelled(started),
            State::Interrupted => {
                // The station may have been killed between its record and the sending; it cannot tell.
                let sent = self.row.attempts > 0 || started;
                (!sent).then_some((Wrong::FalseState, "it was never sent"))
            }
            _ => Some((Wrong::NotFinal, "that is not an end")),
        }
    }

    /// Cancelled means that it never ran, or that it was stopped and that was confirmed.
    fn cancelled(&self, started: bool) -> Option<(Wrong, &'static str)> {
        if self.row.outcome.is_some() {
            let alive = self.runs.iter().any(|run| run.end.is_none());
            (!started || alive).then_some((Wrong::FalseState, "it was not stopped"))
        } else {
            started.then_some((Wrong::FalseState, "it started"))
        }
    }
}
