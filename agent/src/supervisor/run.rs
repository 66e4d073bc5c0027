//! Carries one order out, from its turn to the answer, in the order the rules demand (J1, J4).
//!
//! ```text
//! permit ─ begin (durable) ─ spawn ─ child (durable) ─ ACK running ─ … ─ finish (durable) ─ ACK
//! ```

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use steward_protocol::{
    Ack, Body, Method, Output, Sealed, ShellBody, State, Subject, limits, retry::Backoff,
};
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::{context::Context, kernel::Fault, methods, process::Question, revocations::Attention};
use crate::{
    bus::dice,
    child::{self, Ended, Label, NotStarted, Spec, Stopped, Terms, WatchEnd},
    dispatch::Turn,
    journal::{Finish, OpenOrder, Started, Ticket},
    keeper::{BeginReply, KeeperError, LostReply, chain},
    method::{Work, hello::Presence},
    signals::Stop,
    work,
};

/// Wait between two tries to write down how an order ended.
const RETRY: Backoff = Backoff {
    base: Duration::from_millis(500),
    cap: Duration::from_secs(30),
};

/// The try after which an order's output is given up, so that its exit code can be kept (rule J7).
const OUTPUT_GOES: u32 = 4;

/// One order's turn.
#[derive(Debug)]
pub(super) struct Carrier {
    pub(super) context: Arc<Context>,
    pub(super) subject: Subject,
    pub(super) ticket: Ticket,
    /// Where its cancellation shows.
    pub(super) attention: Attention,
    /// The loop of its process.
    pub(super) process: mpsc::Sender<Question>,
}

impl Carrier {
    /// Carries the order out.
    pub(super) async fn carry(self) -> Turn {
        let Some(_permit) = self.permit().await else {
            return Turn::Wait;
        };
        match self.context.keeper.begin(self.ticket).await {
            Ok(BeginReply::Go { order, attempt, at }) => {
                let finish = self.work(&order, attempt, at).await;
                self.record(finish).await;
                Turn::Over
            }
            Ok(BeginReply::Over(ack)) => {
                self.answer(*ack).await;
                Turn::Over
            }
            Ok(BeginReply::Gone) => Turn::Over,
            Ok(BeginReply::Wait) => Turn::Wait,
            Err(KeeperError::Contradiction(contradiction)) => {
                // The end was written because its text was damaged; the courier says so.
                tracing::error!(%contradiction, "an order could not be started");
                Turn::Over
            }
            Err(KeeperError::Storage { .. } | KeeperError::Gone) => Turn::NoStorage,
        }
    }

    /// Waits until one more command may run, if the order runs one. Gives nothing when the agent ends first.
    async fn permit(&self) -> Option<Option<OwnedSemaphorePermit>> {
        if !methods::runs_commands(&self.subject) {
            return Some(None);
        }
        let mut stop = self.context.stop.clone();
        let permits = Arc::clone(&self.context.permits);
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop != Stop::No) => None,
            // The semaphore is never closed.
            permit = permits.acquire_owned() => permit.ok().map(Some),
        }
    }

    async fn work(&self, order: &Sealed, attempt: u32, at: Timestamp) -> Finish {
        match Work::read(order.order()) {
            Ok(Work {
                body: Body::Shell(body),
                ..
            }) => {
                let spec = self.spec(order, body, attempt);
                self.shell(order, spec, at).await
            }
            Ok(Work {
                method: Method::Hello,
                ..
            }) => self.hello(order, at).await,
            Ok(Work {
                method: Method::Ping,
                ..
            }) => self.ping(order.order(), at).await,
            Ok(Work {
                body: Body::Processes(body),
                ..
            }) => self.processes(order.order(), body, at).await,
            Ok(Work { method, body }) if work::is_done_here(method) => {
                match methods::builtin(method, &body) {
                    Ok(body) => {
                        let spec = self.spec(order, body, attempt);
                        self.shell(order, spec, at).await
                    }
                    Err(error) => not_run(at, None, format!("this node cannot do it: {error}")),
                }
            }
            Ok(Work { method, .. }) => {
                let reason = format!("this node cannot do {} yet", method.as_str());
                not_run(at, None, reason)
            }
            // It was understood when it was taken; a later version of this program may not.
            Err(refusal) => not_run(at, None, format!("this node cannot do it: {refusal}")),
        }
    }

    fn spec(&self, order: &Sealed, body: ShellBody, attempt: u32) -> Spec {
        Spec {
            body,
            node: self.context.config.node.clone(),
            message_id: order.order().id,
            attempt,
        }
    }

    async fn shell(&self, order: &Sealed, spec: Spec, at: Timestamp) -> Finish {
        let running = match child::start(&spec) {
            Ok(running) => running,
            Err(NotStarted { exit_code, reason }) => {
                if exit_code.is_none() {
                    let fault = Fault::NotStartable(reason.clone());
                    self.context.raise(&self.subject, fault).await;
                }
                return not_run(at, exit_code, reason);
            }
        };
        match self
            .context
            .keeper
            .spawned(self.ticket, running.mark())
            .await
        {
            Ok(ack) => self.answer(ack).await,
            // That it was started is durable; without its number a restart finds it by its environment.
            Err(error) => self.storage(&error).await,
        }
        let timeout = timeout(order.order().timeout_ms);
        let ended = running.finish(self.terms(timeout)).await;
        match ended {
            Ok(ended) => {
                let why = ended.stopped.map(|stopped| self.why(stopped, timeout));
                finished(order, at, ended, why)
            }
            Err(error) => Finish {
                state: State::Interrupted,
                reason: Some(format!("the system could not say how it ended: {error}")),
                outcome: None,
            },
        }
    }

    async fn hello(&self, order: &Sealed, at: Timestamp) -> Finish {
        let hello = self.context.introduction.hello(Presence::Staying).await;
        let text = match hello {
            Ok(hello) => serde_json::to_vec(&hello).map_err(|error| error.to_string()),
            Err(error) => Err(chain(&error)),
        };
        let (exit_code, stdout, reason) = match text {
            Ok(json) => (0, Output::whole(&json), None),
            Err(reason) => (1, Output::whole(b""), Some(reason)),
        };
        let ended = Ended {
            exit_code: Some(exit_code),
            signal: None,
            stopped: None,
            stdout,
            stderr: Output::whole(b""),
        };
        Finish {
            reason,
            ..finished(order, at, ended, None)
        }
    }

    fn terms(&self, timeout: Duration) -> Terms {
        Terms {
            timeout,
            drain: self.context.config.drain,
            stop: self.context.stop.clone(),
            cancelled: Box::pin(self.attention.wait()),
        }
    }

    /// Returns what a stop makes of the order, and the words for it.
    fn why(&self, stopped: Stopped, timeout: Duration) -> (State, String) {
        match stopped {
            Stopped::TimedOut => (State::TimedOut, timed_out(timeout)),
            Stopped::AgentStopping => (
                State::Failed,
                "the agent was stopping and ended it before it was done".to_owned(),
            ),
            Stopped::Cancelled => {
                let revoked = self.attention.revoked();
                let words = revoked.map(|revoked| revoked.to_string());
                (State::Cancelled, words.unwrap_or_default())
            }
        }
    }

    /// Writes down how the order ended, however long that takes, and only then answers (J1, J8).
    async fn record(&self, mut finish: Finish) {
        let mut attempt = 0;
        loop {
            match self
                .context
                .keeper
                .finish(self.ticket, finish.clone())
                .await
            {
                Ok(ack) => return self.answer(ack).await,
                Err(KeeperError::Contradiction(contradiction)) => {
                    tracing::error!(%contradiction, "an order's end was not taken");
                    return;
                }
                Err(error @ (KeeperError::Storage { .. } | KeeperError::Gone)) => match attempt {
                    0 => self.storage(&error).await,
                    OUTPUT_GOES => drop_output(&mut finish),
                    _ => {}
                },
            }
            tokio::time::sleep(RETRY.bound(attempt) / 2 + RETRY.full_jitter(attempt, dice()) / 2)
                .await;
            attempt = attempt.saturating_add(1);
        }
    }

    async fn storage(&self, error: &KeeperError) {
        let fault = Fault::Storage(chain(error));
        self.context.raise(&self.subject, fault).await;
    }

    async fn answer(&self, ack: Ack) {
        self.context.voice.ack(&self.subject.domain, ack).await;
    }

    /// Sees to an order that an earlier run left started (rule J3): watched while its child lives,
    /// interrupted otherwise, and never run again unless it says that it may.
    pub(super) async fn recover(self, order: OpenOrder, started: Started) -> Turn {
        let now = self.context.clock.now();
        let label = Label {
            node: self.context.config.node.clone(),
            id: order.id,
        };
        let same_boot = started.boot_id == now.boot_id;
        let child = match started.child {
            _ if !same_boot => None,
            Some(mark) => Some(mark).filter(|mark| child::is_alive(*mark)),
            // It was cut short between the start and the note of its number.
            None => child::find_leader(&label),
        };
        let Some(mark) = child else {
            if same_boot {
                child::clear_leftovers(started.child, &label).await;
            }
            let reason = if same_boot {
                "the agent was restarted while it ran, and it is gone: how it ended is not known"
            } else {
                "the node was restarted while it ran: how it ended is not known"
            };
            return self.lost(reason).await;
        };
        tracing::info!(id = %order.id, pid = mark.pid, "a command of an earlier start still runs");
        // It holds one of the places if there is one; it runs in any case.
        let _permit = Arc::clone(&self.context.permits).try_acquire_owned();
        if let Some(revoked) = &started.revoked {
            self.context.revocations.revoke(self.ticket, revoked);
        }
        let ran = Duration::from_millis(now.boot_ms.saturating_sub(started.boot_ms));
        let timeout = timeout(order.timeout_ms);
        let terms = self.terms(timeout.saturating_sub(ran));
        match child::watch(mark, &label, terms).await {
            WatchEnd::Stopped(stopped @ (Stopped::TimedOut | Stopped::Cancelled)) => {
                let (state, words) = self.why(stopped, timeout);
                let reason = format!(
                    "{words}; the agent was restarted while it ran, so its output is lost"
                );
                let finish = Finish {
                    state,
                    reason: Some(reason),
                    outcome: None,
                };
                self.record(finish).await;
                Turn::Over
            }
            WatchEnd::Stopped(Stopped::AgentStopping) => {
                self.lost("the agent was restarted while it ran, and stopped it when it was stopped itself: how it ended is not known").await
            }
            WatchEnd::ByItself => {
                self.lost("the agent was restarted while it ran: it came to its end, but its exit code and output are not known").await
            }
        }
    }

    async fn lost(&self, reason: &str) -> Turn {
        let mut attempt = 0;
        loop {
            match self.context.keeper.lost(self.ticket, reason).await {
                Ok(LostReply::Again) => return Turn::Again,
                Ok(LostReply::Over(ack)) => {
                    self.answer(*ack).await;
                    return Turn::Over;
                }
                Err(KeeperError::Contradiction(_)) => return Turn::Over,
                Err(error) => {
                    if attempt == 0 {
                        self.storage(&error).await;
                    }
                }
            }
            tokio::time::sleep(RETRY.bound(attempt)).await;
            attempt = attempt.saturating_add(1);
        }
    }
}

/// Keeps lengths and digests of an outcome's output, but not the output.
fn drop_output(finish: &mut Finish) {
    let Some(outcome) = &mut finish.outcome else {
        return;
    };
    let streams = [&mut outcome.stdout, &mut outcome.stderr];
    let mut dropped = 0;
    for output in streams.into_iter().flatten() {
        dropped += output.kept();
        output.shrink(0);
    }
    if dropped > 0 {
        let note = format!("{dropped} bytes of output were dropped: the node could not store them");
        finish.reason = Some(match finish.reason.take() {
            Some(reason) => format!("{reason}; {note}"),
            None => note,
        });
    }
}

fn timeout(millis: u64) -> Duration {
    Duration::from_millis(millis).min(limits::MAX_TIMEOUT)
}

fn timed_out(timeout: Duration) -> String {
    format!(
        "stopped at its command timeout of {}",
        humantime::format_duration(timeout)
    )
}

/// The end of an order whose command never came to be.
fn not_run(at: Timestamp, exit_code: Option<i32>, reason: String) -> Finish {
    Finish {
        state: State::Failed,
        reason: Some(reason),
        outcome: Some(steward_protocol::Outcome {
            exit_code,
            signal: None,
            started_at: at,
            finished_at: Timestamp::now(),
            stdout: Some(Output::whole(b"")),
            stderr: Some(Output::whole(b"")),
        }),
    }
}

/// What came of a command that ran, and what stopping it made of that.
fn finished(
    order: &Sealed,
    at: Timestamp,
    ended: Ended,
    stopped: Option<(State, String)>,
) -> Finish {
    let success = ended
        .exit_code
        .is_some_and(|code| order.order().success_codes.contains(&code));
    let (state, reason) = match stopped {
        Some((state, reason)) => (state, Some(reason)),
        None if success => (State::Succeeded, None),
        None => (State::Failed, None),
    };
    Finish {
        state,
        reason,
        outcome: Some(steward_protocol::Outcome {
            exit_code: ended.exit_code,
            signal: ended.signal,
            started_at: at,
            finished_at: Timestamp::now(),
            stdout: Some(ended.stdout),
            stderr: Some(ended.stderr),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_when_space_is_short_is_the_output_and_never_the_exit_code() {
        let mut finish = not_run(Timestamp::UNIX_EPOCH, Some(3), "it failed".to_owned());
        if let Some(outcome) = &mut finish.outcome {
            outcome.stdout = Some(Output::whole(b"twelve bytes"));
        }
        drop_output(&mut finish);
        let outcome = finish.outcome.expect("still there");
        let stdout = outcome.stdout.expect("its length and digest are");
        assert_eq!(outcome.exit_code, Some(3));
        assert_eq!((stdout.bytes, stdout.kept()), (12, 0));
        let reason = finish.reason.expect("it says so");
        assert!(reason.starts_with("it failed; 12 bytes"), "{reason}");
    }
}
