//! When a schedule runs next: intervals by the clock of the boot, crontabs by the wall clock.
//!
//! Pure: the moment, the time zone and the dice are given. It knows nothing of orders.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use steward_protocol::{
    MessageId, State,
    body::{Missed, ScheduleBody},
    cron::Cron,
};

use super::spool::mix;
use crate::clock::Moment;

/// A wall clock that was set back by more than this takes the crontabs with it; by less, what has run
/// does not run again.
const STEP_BACK: SignedDuration = SignedDuration::from_hours(3);

/// Most passed runs of a crontab that are counted one by one.
const MAX_COUNT: u64 = 10_000;

/// The last run of a schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastRun {
    /// Its order.
    pub id: MessageId,
    /// When it was begun.
    pub at: Timestamp,
    /// How it ended; running when absent.
    pub state: Option<State>,
    /// Its exit code.
    pub exit_code: Option<i32>,
}

/// When something comes next.
#[derive(Debug, Clone)]
enum Rhythm {
    Every(Duration),
    Cron(Box<Cron>),
}

/// The clocks when a plan was made in this start of the agent.
#[derive(Debug, Clone, Copy)]
struct Anchor {
    /// When the next run is meant, on the clock of this boot; it may lie before the boot.
    nominal_ms: i64,
    /// When it comes.
    due_ms: i64,
    /// The wall clock when it was looked at last.
    looked: Timestamp,
}

/// A schedule and how far it has come.
#[derive(Debug, Clone)]
pub struct Schedule {
    /// As it was set.
    pub body: ScheduleBody,
    /// When it was set.
    pub set_at: Timestamp,
    /// When the next run is meant, by the wall clock.
    pub nominal: Timestamp,
    /// When it comes: the same and its jitter.
    pub due: Timestamp,
    /// How many there were.
    pub runs: u64,
    /// How many did not come: missed, or because the one before still ran.
    pub skipped: u64,
    /// The last one.
    pub last: Option<LastRun>,
    rhythm: Rhythm,
    anchor: Option<Anchor>,
}

/// What the clocks and the dice say.
#[derive(Debug, Clone, Copy)]
pub struct Instant<'a> {
    /// The clocks.
    pub now: &'a Moment,
    /// The node's time zone.
    pub zone: &'a TimeZone,
    /// A random number.
    pub dice: u64,
}

impl Instant<'_> {
    fn boot_ms(&self) -> i64 {
        i64::try_from(self.now.boot_ms).unwrap_or(i64::MAX)
    }
}

/// What a schedule's file keeps besides its body.
#[derive(Debug, Clone)]
pub struct Progress {
    /// As in [`Schedule`].
    pub set_at: Timestamp,
    /// As in [`Schedule`].
    pub nominal: Timestamp,
    /// As in [`Schedule`].
    pub due: Timestamp,
    /// As in [`Schedule`].
    pub runs: u64,
    /// As in [`Schedule`].
    pub skipped: u64,
    /// As in [`Schedule`].
    pub last: Option<LastRun>,
}

impl Schedule {
    /// Returns a new schedule; nothing, when the body says no time.
    pub fn set(body: ScheduleBody, instant: Instant<'_>) -> Option<Self> {
        let wall = instant.now.wall;
        let progress = Progress {
            set_at: wall,
            nominal: wall,
            due: wall,
            runs: 0,
            skipped: 0,
            last: None,
        };
        let mut schedule = Self::restore(body, progress)?;
        let nominal_ms = instant.boot_ms();
        schedule.anchor = Some(Anchor {
            nominal_ms,
            due_ms: nominal_ms,
            looked: wall,
        });
        if let Rhythm::Cron(cron) = &schedule.rhythm {
            schedule.nominal = next(cron, wall, instant.zone);
            schedule.due = later(schedule.nominal, schedule.jitter(instant));
        } else {
            schedule.plan(instant);
        }
        Some(schedule)
    }

    /// Returns a schedule as it was kept; nothing, when its body says no time.
    pub fn restore(body: ScheduleBody, progress: Progress) -> Option<Self> {
        let rhythm = match (body.every, &body.cron) {
            (Some(every), _) => Rhythm::Every(every.0.max(Duration::from_millis(1))),
            (None, Some(cron)) => Rhythm::Cron(Box::new(cron.parse().ok()?)),
            (None, None) => return None,
        };
        Some(Self {
            body,
            set_at: progress.set_at,
            nominal: progress.nominal,
            due: progress.due,
            runs: progress.runs,
            skipped: progress.skipped,
            last: progress.last,
            rhythm,
            anchor: None,
        })
    }

    /// Brings a schedule of an earlier start of the agent to the clocks of this one, and a crontab to
    /// a wall clock that was set back. Tells whether anything durable changed.
    pub fn look(&mut self, instant: Instant<'_>) -> bool {
        let wall = instant.now.wall;
        let Some(anchor) = &mut self.anchor else {
            return self.arrive(instant);
        };
        let stepped = anchor.looked.duration_since(wall) > STEP_BACK;
        anchor.looked = wall;
        if stepped && let Rhythm::Cron(cron) = &self.rhythm {
            self.nominal = next(cron, wall, instant.zone);
            self.due = later(self.nominal, self.jitter(instant));
            return true;
        }
        false
    }

    /// Decides about the runs whose time passed while no agent ran.
    fn arrive(&mut self, instant: Instant<'_>) -> bool {
        let wall = instant.now.wall;
        let missed = wall >= self.due;
        if missed {
            let (passed, last) = self.passed(instant);
            match self.body.missed.unwrap_or_default() {
                Missed::Skip => {
                    self.skipped += passed;
                    self.nominal = self.after(last, instant);
                    self.due = later(self.nominal, self.jitter(instant));
                }
                Missed::Once => {
                    self.skipped += passed - 1;
                    self.nominal = last;
                    self.due = wall;
                }
            }
        }
        // A clock that stood far ahead when the plan was made must not put the run off for years.
        let mut wait = self.due.duration_since(wall);
        if let Rhythm::Every(every) = &self.rhythm {
            let most = span(*every + self.body.jitter.map_or(Duration::ZERO, |jitter| jitter.0));
            wait = wait.min(most);
        }
        let due_ms = instant.boot_ms().saturating_add(millis(wait));
        let ahead = millis(self.due.duration_since(self.nominal));
        self.anchor = Some(Anchor {
            nominal_ms: due_ms.saturating_sub(ahead),
            due_ms,
            looked: wall,
        });
        missed
    }

    /// Returns how many runs were meant up to now, at least one, and when the last of them was.
    fn passed(&self, instant: Instant<'_>) -> (u64, Timestamp) {
        let wall = instant.now.wall;
        match &self.rhythm {
            Rhythm::Every(every) => {
                let since = wall.duration_since(self.nominal).max(SignedDuration::ZERO);
                let more = since.as_millis() / i128::from(millis(span(*every)).max(1));
                let more = i64::try_from(more).unwrap_or(0);
                let ahead = SignedDuration::from_millis(millis(span(*every)).saturating_mul(more));
                let last = self.nominal.checked_add(ahead).unwrap_or(wall);
                (more.unsigned_abs() + 1, last)
            }
            Rhythm::Cron(cron) => {
                let (mut count, mut last) = (1, self.nominal);
                while count < MAX_COUNT {
                    match cron.next_after(last, instant.zone) {
                        Some(next) if next <= wall => (count, last) = (count + 1, next),
                        Some(_) | None => break,
                    }
                }
                (count, last)
            }
        }
    }

    fn after(&self, last: Timestamp, instant: Instant<'_>) -> Timestamp {
        match &self.rhythm {
            Rhythm::Every(every) => later(last, *every),
            Rhythm::Cron(cron) => next(cron, last.max(instant.now.wall), instant.zone),
        }
    }

    /// Tells whether it is time.
    pub fn is_due(&self, now: &Moment) -> bool {
        match (&self.rhythm, &self.anchor) {
            (Rhythm::Every(_), Some(anchor)) => {
                i64::try_from(now.boot_ms).unwrap_or(i64::MAX) >= anchor.due_ms
            }
            (Rhythm::Cron(_), _) => now.wall >= self.due,
            (Rhythm::Every(_), None) => false,
        }
    }

    /// Returns when it is time, on the clock of this boot.
    pub fn due_ms(&self, now: &Moment) -> u64 {
        let wait = match (&self.rhythm, &self.anchor) {
            (Rhythm::Every(_), Some(anchor)) => {
                anchor.due_ms - i64::try_from(now.boot_ms).unwrap_or(i64::MAX)
            }
            (Rhythm::Cron(_), _) | (Rhythm::Every(_), None) => {
                millis(self.due.duration_since(now.wall))
            }
        };
        now.boot_ms.saturating_add(u64::try_from(wait).unwrap_or(0))
    }

    /// Plans the run after the one that is due; what passed besides that one is counted.
    pub fn plan(&mut self, instant: Instant<'_>) {
        let wall = instant.now.wall;
        let jitter = self.jitter(instant);
        match self.rhythm.clone() {
            Rhythm::Every(every) => {
                let every = millis(span(every)).max(1);
                let boot_ms = instant.boot_ms();
                let nominal = self.anchor.map_or(boot_ms, |anchor| anchor.nominal_ms);
                let extra = (boot_ms - nominal).max(0) / every;
                self.skipped += extra.unsigned_abs();
                let nominal_ms = nominal.saturating_add(every.saturating_mul(extra + 1));
                let due_ms = nominal_ms.saturating_add(millis(span(jitter)));
                let ahead = SignedDuration::from_millis(nominal_ms - boot_ms);
                self.nominal = wall.checked_add(ahead).unwrap_or(Timestamp::MAX);
                self.anchor = Some(Anchor {
                    nominal_ms,
                    due_ms,
                    looked: wall,
                });
            }
            Rhythm::Cron(cron) => {
                if self.nominal <= wall {
                    self.skipped += self.passed(instant).0 - 1;
                }
                // Not before what has just run: the clock may have been set back a little.
                self.nominal = next(&cron, wall.max(self.nominal), instant.zone);
            }
        }
        self.due = later(self.nominal, jitter);
    }

    /// Skips the run that is due.
    pub fn skip(&mut self, instant: Instant<'_>) {
        self.skipped += 1;
        self.plan(instant);
    }

    fn jitter(&self, instant: Instant<'_>) -> Duration {
        let Some(jitter) = self.body.jitter else {
            return Duration::ZERO;
        };
        let most = u64::try_from(jitter.0.as_millis()).unwrap_or(u64::MAX);
        let salt = self.body.schedule.as_ref().map_or(0, |name| {
            name.as_str().bytes().fold(self.runs, |salt, byte| {
                salt.rotate_left(8) ^ u64::from(byte)
            })
        });
        Duration::from_millis(mix(instant.dice, salt) % most.saturating_add(1).max(1))
    }
}

fn next(cron: &Cron, after: Timestamp, zone: &TimeZone) -> Timestamp {
    cron.next_after(after, zone).unwrap_or(Timestamp::MAX)
}

fn span(time: Duration) -> SignedDuration {
    SignedDuration::try_from(time).unwrap_or(SignedDuration::MAX)
}

fn millis(time: SignedDuration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

fn later(time: Timestamp, wait: Duration) -> Timestamp {
    time.checked_add(span(wait)).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests;
