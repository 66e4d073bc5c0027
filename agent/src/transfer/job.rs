//! What carrying a transfer out for an order has in common: its time, its cancellation, its end.

use std::{future::Future, time::Duration};

use jiff::Timestamp;
use steward_protocol::{
    Outcome, Output, Sealed, State, limits,
    transfer::{Transfer, What},
};
use tokio::time::sleep;

use crate::{
    journal::Finish,
    signals::Stop,
    supervisor::{context::Context, revocations::Attention},
};

/// An order to be carried out by a transfer.
#[derive(Debug, Clone, Copy)]
pub struct Job<'a> {
    /// What every process needs.
    pub context: &'a Context,
    /// The order.
    pub order: &'a Sealed,
    /// When it was begun.
    pub at: Timestamp,
    /// Where its cancellation shows.
    pub attention: &'a Attention,
}

/// Why a transfer did not come to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cut {
    /// Its time was over.
    TimedOut,
    /// It was cancelled.
    Cancelled,
    /// The agent ends; the next start goes on.
    Stopping,
}

impl Job<'_> {
    pub(super) fn transfer(&self) -> Transfer {
        Transfer {
            id: self.order.order().id,
            digest: self.order.digest(),
            what: What::File,
        }
    }

    /// Works until the work is done, the time is over, or nobody wants it any more.
    pub(super) async fn within<T>(&self, work: impl Future<Output = T>) -> Result<T, Cut> {
        let mut stop = self.context.stop.clone();
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop != Stop::No) => Err(Cut::Stopping),
            () = self.attention.wait() => Err(Cut::Cancelled),
            done = work => Ok(done),
            () = sleep(self.timeout()) => Err(Cut::TimedOut),
        }
    }

    fn timeout(&self) -> Duration {
        Duration::from_millis(self.order.order().timeout_ms).min(limits::MAX_TIMEOUT)
    }

    /// The end of an order that did what it should; `words` are its output.
    pub(super) fn succeeded(&self, words: &str) -> Finish {
        let success = self.order.order().success_codes.contains(&0);
        let state = if success {
            State::Succeeded
        } else {
            State::Failed
        };
        self.finish(state, None, Some(0), words)
    }

    /// The end of an order that failed.
    pub(super) fn failed(&self, reason: String) -> Finish {
        self.finish(State::Failed, Some(reason), None, "")
    }

    /// The end of an order that was cut short; none if it goes on later. `trouble` is what was in its way.
    pub(super) fn cut(&self, cut: &Cut, trouble: Option<&str>) -> Option<Finish> {
        let trouble = trouble.map_or_else(String::new, |trouble| format!("; {trouble}"));
        let (state, reason) = match cut {
            Cut::Stopping => return None,
            Cut::TimedOut => {
                let timeout = humantime::format_duration(self.timeout());
                let reason = format!("stopped at its command timeout of {timeout}{trouble}");
                (State::TimedOut, reason)
            }
            Cut::Cancelled => {
                let revoked = self.attention.revoked();
                let words = revoked.map(|revoked| revoked.to_string());
                (State::Cancelled, words.unwrap_or_default())
            }
        };
        Some(self.finish(state, Some(reason), None, ""))
    }

    fn finish(
        &self,
        state: State,
        reason: Option<String>,
        exit_code: Option<i32>,
        words: &str,
    ) -> Finish {
        Finish {
            state,
            reason,
            outcome: Some(Outcome {
                exit_code,
                signal: None,
                started_at: self.at,
                finished_at: Timestamp::now(),
                stdout: Some(Output::whole(words.as_bytes())),
                stderr: Some(Output::whole(b"")),
            }),
        }
    }
}
