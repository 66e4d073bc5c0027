//! The error kernel: judges faults. Pure: fault, history, policy and time in, verdict out.

use std::{collections::VecDeque, fmt, time::Duration};

use crate::config::{GiveUp, Restart, Tolerance};

/// Something that went wrong in us; a failed command is an outcome and never comes here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// A process panicked.
    Panicked(String),
    /// A process ended with an error.
    Failed(String),
    /// A process made no progress for too long.
    Wedged(String),
    /// The journal could not be written; whoever saw it goes on and tries again.
    Storage(String),
    /// The node could not start a command for want of something.
    NotStartable(String),
    /// The subscription on the broker is lost.
    Subscription(String),
    /// A config that was read again is wrong; what was there before stays.
    Config(String),
}

impl Fault {
    /// Returns the word for it in an event.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Panicked(_) => "panic",
            Self::Failed(_) => "failed",
            Self::Wedged(_) => "wedged",
            Self::Storage(_) => "storage",
            Self::NotStartable(_) => "not_startable",
            Self::Subscription(_) => "subscription",
            Self::Config(_) => "config",
        }
    }

    /// Returns what happened.
    pub fn detail(&self) -> &str {
        match self {
            Self::Panicked(detail)
            | Self::Failed(detail)
            | Self::Wedged(detail)
            | Self::Storage(detail)
            | Self::NotStartable(detail)
            | Self::Subscription(detail)
            | Self::Config(detail) => detail,
        }
    }
}

/// What is decided about a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing more: it was survived.
    Continue,
    /// The process starts again after this long.
    RestartAfter(Duration),
    /// The process is given up; the others go on.
    Stop,
    /// The agent ends, so that its service manager starts it anew.
    Escalate,
}

impl fmt::Display for Verdict {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Continue => formatter.write_str("continue"),
            Self::RestartAfter(wait) => {
                write!(formatter, "restart after {} ms", wait.as_millis())
            }
            Self::Stop => formatter.write_str("stop this process, the others go on"),
            Self::Escalate => formatter.write_str("end the agent"),
        }
    }
}

/// Whether the agent can do without a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weight {
    /// It serves one subject; the others do not need it.
    Ordinary,
    /// Nothing works without it.
    Vital,
}

/// What a process's config says about its faults, and what the process is to the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// How often and how soon it is restarted, and what is borne.
    pub restart: Restart,
    /// What giving up on it means.
    pub weight: Weight,
}

/// When a process was restarted before, and bore what can be survived; on one clock.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct History {
    restarts: Past,
    storage: Past,
    not_startable: Past,
}

/// Times of one kind, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Past(VecDeque<u64>);

impl Past {
    /// Notes a time and forgets those that no longer count: too old, or more than are asked for.
    fn note(&mut self, now_ms: u64, window: Duration, intensity: u32) {
        self.0.push_back(now_ms);
        let most = usize::try_from(intensity).unwrap_or(usize::MAX).max(1);
        while self.0.len() > most
            || self
                .0
                .front()
                .is_some_and(|at| !within(*at, now_ms, window))
        {
            self.0.pop_front();
        }
    }

    fn recent(&self, now_ms: u64, window: Duration) -> u32 {
        let recent = self
            .0
            .iter()
            .filter(|at| within(**at, now_ms, window))
            .count();
        u32::try_from(recent).unwrap_or(u32::MAX)
    }
}

impl History {
    /// Judges a fault and notes what has to be known for the next one.
    pub fn suffer(&mut self, fault: &Fault, policy: &Policy, now_ms: u64) -> Verdict {
        let verdict = judge(fault, self, policy, now_ms);
        let restart = &policy.restart;
        if matches!(verdict, Verdict::RestartAfter(_)) {
            self.restarts
                .note(now_ms, restart.window, restart.intensity);
        }
        match fault {
            Fault::Storage(_) => self.storage.bear(now_ms, restart.storage),
            Fault::NotStartable(_) => self.not_startable.bear(now_ms, restart.not_startable),
            Fault::Panicked(_)
            | Fault::Failed(_)
            | Fault::Wedged(_)
            | Fault::Subscription(_)
            | Fault::Config(_) => {}
        }
        verdict
    }
}

impl Past {
    fn bear(&mut self, now_ms: u64, tolerance: Tolerance) {
        // What is always borne need not be remembered.
        if tolerance.give_up != GiveUp::Continue {
            self.note(now_ms, tolerance.window, tolerance.intensity);
        }
    }
}

fn within(at: u64, now_ms: u64, window: Duration) -> bool {
    u128::from(now_ms.saturating_sub(at)) < window.as_millis()
}

/// Judges a fault of a process.
pub fn judge(fault: &Fault, history: &History, policy: &Policy, now_ms: u64) -> Verdict {
    let restart = &policy.restart;
    let crashed = || crashed(&history.restarts, policy, now_ms);
    let (past, tolerance) = match fault {
        // Without it the agent hears nothing; no policy can help that.
        Fault::Subscription(_) => return Verdict::Escalate,
        // A person has to mend it, and meanwhile nothing is worse than before.
        Fault::Config(_) => return Verdict::Continue,
        Fault::Panicked(_) | Fault::Failed(_) | Fault::Wedged(_) => return crashed(),
        Fault::Storage(_) => (&history.storage, restart.storage),
        Fault::NotStartable(_) => (&history.not_startable, restart.not_startable),
    };
    if past.recent(now_ms, tolerance.window) < tolerance.intensity {
        return Verdict::Continue;
    }
    match tolerance.give_up {
        GiveUp::Restart => crashed(),
        last => given_up(last, policy),
    }
}

/// The verdict on a process that cannot go on: it is restarted until the intensity is used up.
fn crashed(restarts: &Past, policy: &Policy, now_ms: u64) -> Verdict {
    let restart = &policy.restart;
    let recent = restarts.recent(now_ms, restart.window);
    if recent < restart.intensity {
        return Verdict::RestartAfter(restart.backoff.bound(recent));
    }
    given_up(restart.give_up, policy)
}

fn given_up(last: GiveUp, policy: &Policy) -> Verdict {
    match (last, policy.weight) {
        (GiveUp::Continue, _) => Verdict::Continue,
        (GiveUp::Restart | GiveUp::Stop, Weight::Ordinary) => Verdict::Stop,
        (GiveUp::Restart | GiveUp::Stop, Weight::Vital) | (GiveUp::Escalate, _) => {
            Verdict::Escalate
        }
    }
}

#[cfg(test)]
mod tests {
    use steward_protocol::retry::Backoff;

    use super::*;

    const POLICY: Policy = Policy {
        restart: Restart {
            intensity: 3,
            window: Duration::from_secs(60),
            backoff: Backoff {
                base: Duration::from_millis(100),
                cap: Duration::from_millis(300),
            },
            give_up: GiveUp::Stop,
            storage: BORNE,
            not_startable: BORNE,
        },
        weight: Weight::Ordinary,
    };

    const BORNE: Tolerance = Tolerance {
        intensity: 2,
        window: Duration::from_secs(60),
        give_up: GiveUp::Continue,
    };

    fn after(restarts: &[u64]) -> History {
        let mut history = History::default();
        for at in restarts {
            history.restarts.note(*at, POLICY.restart.window, 3);
        }
        history
    }

    #[test]
    fn what_giving_up_means_is_data_for_every_kind_of_fault() {
        let storage = Fault::Storage(String::new());
        let not_startable = Fault::NotStartable(String::new());
        let panic = Fault::Panicked(String::new());
        let wait = Verdict::RestartAfter(Duration::from_millis(100));
        for (last, weight, borne, crashed) in [
            (GiveUp::Continue, Weight::Ordinary, Verdict::Continue, None),
            (GiveUp::Restart, Weight::Ordinary, wait, None),
            (
                GiveUp::Stop,
                Weight::Ordinary,
                Verdict::Stop,
                Some(Verdict::Stop),
            ),
            (
                GiveUp::Stop,
                Weight::Vital,
                Verdict::Escalate,
                Some(Verdict::Escalate),
            ),
            (
                GiveUp::Escalate,
                Weight::Ordinary,
                Verdict::Escalate,
                Some(Verdict::Escalate),
            ),
        ] {
            let mut policy = Policy { weight, ..POLICY };
            policy.restart.storage.give_up = last;
            policy.restart.not_startable.give_up = last;
            for fault in [&storage, &not_startable] {
                let mut history = History::default();
                for _ in 0..2 {
                    let verdict = history.suffer(fault, &policy, 5);
                    assert_eq!(verdict, Verdict::Continue, "{last:?}");
                }
                assert_eq!(history.suffer(fault, &policy, 6), borne, "{last:?}");
                // Another window begins anew.
                let later = history.suffer(fault, &policy, 70_000);
                assert_eq!(later, Verdict::Continue, "{last:?}");
            }
            if let Some(crashed) = crashed {
                policy.restart.give_up = last;
                policy.restart.intensity = 0;
                let verdict = History::default().suffer(&panic, &policy, 0);
                assert_eq!(verdict, crashed, "{last:?}");
            }
        }
    }

    #[test]
    fn a_crash_restarts_with_growing_waits_until_the_intensity_is_used_up() {
        let panic = Fault::Panicked("boom".to_owned());
        let wedged = Fault::Wedged("stuck".to_owned());
        let wait = |millis| Verdict::RestartAfter(Duration::from_millis(millis));
        for (restarts, now, expected) in [
            (&[][..], 0, wait(100)),
            (&[10], 20, wait(200)),
            (&[10, 20], 30, wait(300)),
            (&[10, 20, 30], 40, Verdict::Stop),
            // At the end of the window the first restart no longer counts.
            (&[10, 20, 30], 60_009, Verdict::Stop),
            (&[10, 20, 30], 60_010, wait(300)),
            (&[10, 20, 30], 200_000, wait(100)),
        ] {
            let verdict = judge(&panic, &after(restarts), &POLICY, now);
            assert_eq!(verdict, expected, "{restarts:?} at {now}");
            let verdict = judge(&wedged, &after(restarts), &POLICY, now);
            assert_eq!(verdict, expected, "wedged after {restarts:?} at {now}");
        }
    }

    #[test]
    fn giving_up_on_a_vital_process_ends_the_agent() {
        let vital = Policy {
            weight: Weight::Vital,
            ..POLICY
        };
        let failed = Fault::Failed("no".to_owned());
        assert_eq!(
            judge(&failed, &after(&[1, 2, 3]), &vital, 4),
            Verdict::Escalate
        );
        assert_eq!(
            judge(&failed, &after(&[1, 2, 3]), &POLICY, 4),
            Verdict::Stop
        );
    }

    #[test]
    fn what_was_survived_continues_and_a_lost_subscription_escalates() {
        let history = after(&[1, 2, 3]);
        let judged = |fault| judge(&fault, &history, &POLICY, 4);
        assert_eq!(judged(Fault::Storage(String::new())), Verdict::Continue);
        assert_eq!(
            judged(Fault::NotStartable(String::new())),
            Verdict::Continue
        );
        assert_eq!(
            judged(Fault::Subscription(String::new())),
            Verdict::Escalate
        );
        assert_eq!(judged(Fault::Config(String::new())), Verdict::Continue);
    }

    #[test]
    fn a_fault_is_told_by_a_word_and_what_happened() {
        let detail = || "no space".to_owned();
        for (fault, kind) in [
            (Fault::Panicked(detail()), "panic"),
            (Fault::Failed(detail()), "failed"),
            (Fault::Wedged(detail()), "wedged"),
            (Fault::Storage(detail()), "storage"),
            (Fault::NotStartable(detail()), "not_startable"),
            (Fault::Subscription(detail()), "subscription"),
            (Fault::Config(detail()), "config"),
        ] {
            assert_eq!((fault.kind(), fault.detail()), (kind, "no space"));
        }
    }

    #[test]
    fn a_verdict_is_told_in_words() {
        for (verdict, words) in [
            (Verdict::Continue, "continue"),
            (
                Verdict::RestartAfter(Duration::from_millis(1500)),
                "restart after 1500 ms",
            ),
            (Verdict::Stop, "stop this process, the others go on"),
            (Verdict::Escalate, "end the agent"),
        ] {
            assert_eq!(verdict.to_string(), words);
        }
    }

    #[test]
    fn a_history_remembers_no_more_than_its_window() {
        let window = POLICY.restart.window;
        let mut history = after(&[10, 20, 30]);
        history.restarts.note(60_019, window, 3);
        assert_eq!(history.restarts.0, [20, 30, 60_019]);
        history.restarts.note(60_019, window, 3);
        assert_eq!(history.restarts.0, [30, 60_019, 60_019]);
        history.restarts.note(200_000, window, 3);
        assert_eq!(history.restarts.0, [200_000]);
    }

    #[test]
    fn a_process_that_may_never_restart_is_given_up_at_once() {
        let mut never = POLICY;
        never.restart.intensity = 0;
        let panic = Fault::Panicked(String::new());
        let verdict = judge(&panic, &History::default(), &never, 0);
        assert_eq!(verdict, Verdict::Stop);
    }
}
