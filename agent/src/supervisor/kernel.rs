//! The error kernel: judges faults. Pure: fault, history, policy and time in, verdict out.

use std::{collections::VecDeque, fmt, time::Duration};

use crate::config::Restart;

/// Something that went wrong in us; a failed command is an outcome and never comes here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// A process panicked.
    Panicked(String),
    /// A process ended with an error.
    Failed(String),
    /// The journal could not be written; whoever saw it goes on and tries again.
    Storage(String),
    /// The node could not start a command for want of something.
    NotStartable(String),
    /// The subscription on the broker is lost.
    Subscription(String),
}

impl Fault {
    /// Returns the word for it in an event.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Panicked(_) => "panic",
            Self::Failed(_) => "failed",
            Self::Storage(_) => "storage",
            Self::NotStartable(_) => "not_startable",
            Self::Subscription(_) => "subscription",
        }
    }

    /// Returns what happened.
    pub fn detail(&self) -> &str {
        match self {
            Self::Panicked(detail)
            | Self::Failed(detail)
            | Self::Storage(detail)
            | Self::NotStartable(detail)
            | Self::Subscription(detail) => detail,
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

/// What a process's config says about its restarts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// How often and how soon.
    pub restart: Restart,
    /// What giving up on it means.
    pub weight: Weight,
}

/// When a process was restarted before, on the clock of this boot.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct History {
    restarts: VecDeque<u64>,
}

impl History {
    /// Notes a restart, and forgets those that no longer count.
    pub fn note(&mut self, now_ms: u64, window: Duration) {
        self.restarts.push_back(now_ms);
        while self
            .restarts
            .front()
            .is_some_and(|at| !within(*at, now_ms, window))
        {
            self.restarts.pop_front();
        }
    }

    fn recent(&self, now_ms: u64, window: Duration) -> u32 {
        let recent = self
            .restarts
            .iter()
            .filter(|at| within(**at, now_ms, window))
            .count();
        u32::try_from(recent).unwrap_or(u32::MAX)
    }
}

fn within(at: u64, now_ms: u64, window: Duration) -> bool {
    u128::from(now_ms.saturating_sub(at)) < window.as_millis()
}

/// Judges a fault of a process.
pub fn judge(fault: &Fault, history: &History, policy: &Policy, now_ms: u64) -> Verdict {
    match fault {
        Fault::Storage(_) | Fault::NotStartable(_) => Verdict::Continue,
        Fault::Subscription(_) => Verdict::Escalate,
        Fault::Panicked(_) | Fault::Failed(_) => {
            let recent = history.recent(now_ms, policy.restart.window);
            if recent < policy.restart.intensity {
                return Verdict::RestartAfter(policy.restart.backoff.bound(recent));
            }
            match policy.weight {
                Weight::Ordinary => Verdict::Stop,
                Weight::Vital => Verdict::Escalate,
            }
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
        },
        weight: Weight::Ordinary,
    };

    fn after(restarts: &[u64]) -> History {
        let mut history = History::default();
        for at in restarts {
            history.note(*at, POLICY.restart.window);
        }
        history
    }

    #[test]
    fn a_crash_restarts_with_growing_waits_until_the_intensity_is_used_up() {
        let panic = Fault::Panicked("boom".to_owned());
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
    }

    #[test]
    fn a_fault_is_told_by_a_word_and_what_happened() {
        let detail = || "no space".to_owned();
        for (fault, kind) in [
            (Fault::Panicked(detail()), "panic"),
            (Fault::Failed(detail()), "failed"),
            (Fault::Storage(detail()), "storage"),
            (Fault::NotStartable(detail()), "not_startable"),
            (Fault::Subscription(detail()), "subscription"),
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
        history.note(60_019, window);
        assert_eq!(history.restarts, [20, 30, 60_019]);
        history.note(200_000, window);
        assert_eq!(history.restarts, [200_000]);
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
