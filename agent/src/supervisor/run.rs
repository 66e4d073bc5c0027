//! Carries one order out, from its turn to the answer, in the order the rules demand (J1, J4).
//!
//! ```text
//! permit ─ begin (durable) ─ spawn ─ child (durable) ─ ACK running ─ … ─ finish (durable) ─ ACK
//! ```

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use steward_protocol::{
    Ack, Body, Method, Order, Outcome, Output, Sealed, ShellBody, State, Subject, limits,
    retry::Backoff,
};
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::{
    context::Context, kernel::Fault, methods, perform::change, process::Question,
    revocations::Attention,
};
use crate::{
    bus::dice,
    child::{
        self, End, Finished, Following, GRACE, How, Label, Place, Running, Spec, Stopped, Terms,
        cgroup::Cgroups,
        nursery::{Found, StartError},
    },
    dispatch::Turn,
    journal::{Finish, OpenOrder, Started, Ticket, local::Deed},
    keeper::{BeginReply, KeeperError, LostReply, chain},
    method::{Work, hello::Presence},
    signals::Stop,
    transfer::{self, job::Job, stream},
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
            Ok(BeginReply::Go { order, attempt, at }) => self.work(&order, attempt, at).await,
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
        // A transfer takes long and runs no command, so it takes no command's place.
        let permits = Arc::clone(if transfer::carries(&self.subject.method) {
            self.context.transfers.permits()
        } else {
            &self.context.permits
        });
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop != Stop::No) => None,
            // The semaphore is never closed.
            permit = permits.acquire_owned() => permit.ok().map(Some),
        }
    }

    async fn work(&self, sealed: &Sealed, attempt: u32, at: Timestamp) -> Turn {
        let order = sealed.order();
        let finish = match Work::read(order, &self.context.config.methods) {
            Ok(Work {
                body: Body::Shell(body),
                ..
            }) => {
                let spec = self.spec(order, body, attempt);
                return self.shell(sealed, &spec, at).await;
            }
            Ok(Work {
                method: Method::Hello,
                ..
            }) => self.hello(at).await,
            Ok(Work {
                method: Method::Ping,
                ..
            }) => self.ping(order, at).await,
            Ok(Work {
                body: Body::Processes(body),
                ..
            }) => self.processes(order, body, at).await,
            Ok(Work { method, body }) if work::is_done_here(method) => {
                match methods::builtin(method, &body) {
                    Ok(body) => {
                        let spec = self.spec(order, body, attempt);
                        return self.shell(sealed, &spec, at).await;
                    }
                    Err(error) => not_run(at, None, format!("this node cannot do it: {error}")),
                }
            }
            Ok(Work {
                body: body @ (Body::Fetch(_) | Body::Send(_)),
                ..
            }) => match self.transfer(sealed, &body, at).await {
                Some(finish) => finish,
                None => return Turn::Left,
            },
            Ok(Work {
                body: Body::Text(body),
                ..
            }) => return self.perform(order, self.log(order, body), at).await,
            Ok(Work {
                body: Body::Schedule(body),
                ..
            }) => return self.perform(order, change(body), at).await,
            Ok(Work { method, .. }) => {
                let reason = format!("this node cannot do {} yet", method.as_str());
                not_run(at, None, reason)
            }
            // It was taken by another version of this program, or with another config.
            Err(refusal) => not_run(at, None, format!("this node cannot do it: {refusal}")),
        };
        self.record(finish).await;
        Turn::Over
    }

    /// Carries out a transfer, which takes its time. Gives nothing when it goes on at the next start.
    async fn transfer(&self, sealed: &Sealed, body: &Body, at: Timestamp) -> Option<Finish> {
        // That it was started is durable; without this word the station learns it with the end.
        if let Ok(ack) = self.context.keeper.standing(self.ticket).await {
            self.answer(ack).await;
        }
        transfer::carry(self.job(sealed, at), body).await
    }

    fn job<'a>(&'a self, order: &'a Sealed, at: Timestamp) -> Job<'a> {
        Job {
            context: &self.context,
            order,
            at,
            attention: &self.attention,
        }
    }

    fn spec(&self, order: &Order, body: ShellBody, attempt: u32) -> Spec {
        let config = &self.context.config;
        let shell = body
            .shell
            .map(|text| [config.shell.clone(), vec![text]].concat());
        Spec {
            argv: shell.unwrap_or(body.data),
            cwd: body.cwd,
            env: body.env,
            stdin: body.stdin,
            user: body.user,
            group: body.group,
            nice: body.nice,
            limits: body.limits.unwrap_or_default(),
            insist: config.limits,
            cgroups: Cgroups::default(),
            timeout: timeout(order.timeout_ms),
            grace: body.grace.map_or(GRACE, |grace| grace.0),
            cap: config.output_cap,
            following: match order.stream {
                true => Following::Station,
                false => Following::Nobody,
            },
            node: config.node.clone(),
            message_id: order.id,
            attempt,
            success_codes: order.success_codes.clone(),
        }
    }

    async fn shell(&self, sealed: &Sealed, spec: &Spec, at: Timestamp) -> Turn {
        let running = match self.start(spec).await {
            Ok(running) => running,
            Err(error) => {
                let reason = format!("could not be started: failed to {}", chain(&error));
                self.raise_not_startable(None, &reason).await;
                self.record(not_run(at, None, reason)).await;
                return Turn::Over;
            }
        };
        match self
            .context
            .keeper
            .spawned(self.ticket, running.mark())
            .await
        {
            Ok(ack) => self.answer(ack).await,
            // That it was started is durable; without its number a restart finds it by its directory.
            Err(error) => self.storage(&error).await,
        }
        if spec.following == Following::Station {
            let note = stream::Note::of(sealed, spec.attempt);
            stream::stream(&self.context, running.place().dir(), note);
        }
        let asked = Asked {
            at,
            timeout: spec.timeout,
        };
        self.await_end(running, &asked).await
    }

    /// Starts a warden. While there is no room for its directory nothing runs, so that is waited for,
    /// unless the order is cancelled or the agent ends.
    async fn start(&self, spec: &Spec) -> Result<Running, StartError> {
        let mut attempt = 0;
        loop {
            let error = match self.context.nursery.start(spec) {
                Err(StartError::Place(error)) if !(error.is_taken() || error.is_shortage()) => {
                    StartError::Place(error)
                }
                started => return started,
            };
            if self.context.is_stopping() || self.attention.revoked().is_some() {
                return Err(error);
            }
            if attempt == 0 {
                let fault = Fault::Storage(chain(&error));
                self.context.raise(&self.subject, fault).await;
            }
            tokio::time::sleep(RETRY.bound(attempt)).await;
            attempt = attempt.saturating_add(1);
        }
    }

    async fn raise_not_startable(&self, exit_code: Option<i32>, reason: &str) {
        if exit_code.is_none() {
            let fault = Fault::NotStartable(reason.to_owned());
            self.context.raise(&self.subject, fault).await;
        }
    }

    /// Waits for a command, and records what came of it.
    async fn await_end(&self, running: Running, asked: &Asked) -> Turn {
        let place = running.place().clone();
        match running.finish(self.terms()).await {
            Finished::Over(end) => self.ended(*end, asked).await,
            Finished::Lost(reason) => {
                let turn = self
                    .lost(&format!("{reason}: how it ended is not known"))
                    .await;
                forget(&place);
                turn
            }
            Finished::Left => Turn::Left,
        }
    }

    /// Records the end that a warden wrote down.
    async fn ended(&self, end: End, asked: &Asked) -> Turn {
        if let How::NotStarted { exit_code, reason } = &end.how {
            self.raise_not_startable(*exit_code, reason).await;
        }
        let stopped = match &end.how {
            How::Ended { stopped, .. } => stopped.map(|stopped| self.why(stopped, asked.timeout)),
            How::NotStarted { .. } => None,
        };
        self.record(finish_of(end, asked, stopped)).await;
        self.context.nursery.note_change();
        Turn::Over
    }

    async fn hello(&self, at: Timestamp) -> Finish {
        let hello = self.context.introduction.hello(Presence::Staying).await;
        let text = match hello {
            Ok(hello) => serde_json::to_vec(&hello).map_err(|error| error.to_string()),
            Err(error) => Err(chain(&error)),
        };
        let (state, exit_code, stdout, reason) = match text {
            Ok(json) => (State::Succeeded, 0, json, None),
            Err(reason) => (State::Failed, 1, Vec::new(), Some(reason)),
        };
        Finish {
            state,
            reason,
            outcome: Some(Outcome {
                exit_code: Some(exit_code),
                signal: None,
                started_at: at,
                finished_at: Timestamp::now(),
                stdout: Some(Output::whole(&stdout)),
                stderr: Some(Output::whole(b"")),
            }),
        }
    }

    fn terms(&self) -> Terms {
        Terms {
            drain: self.context.config.drain,
            stop: self.context.stop.clone(),
            cancelled: Box::pin(self.attention.wait()),
        }
    }

    /// Returns what a stop makes of the order, and the words for it.
    fn why(&self, stopped: Stopped, timeout: Duration) -> (State, String) {
        match (stopped, self.attention.revoked()) {
            (Stopped::TimedOut, _) => (State::TimedOut, timed_out(timeout)),
            (Stopped::Told, Some(revoked)) => (State::Cancelled, revoked.to_string()),
            (Stopped::Told, None) => (
                State::Failed,
                "it was stopped on this node: its warden was sent TERM, and not by a cancellation that is known"
                    .to_owned(),
            ),
        }
    }

    /// Writes down how the order ended, however long that takes, and only then answers (J1, J8).
    pub(super) async fn record(&self, end: impl Into<Conclusion>) {
        let mut end = end.into();
        let mut attempt = 0;
        loop {
            match self.conclude(end.clone()).await {
                Ok(ack) => return self.answer(ack).await,
                Err(KeeperError::Contradiction(contradiction)) => {
                    tracing::error!(%contradiction, "an order's end was not taken");
                    return;
                }
                Err(error @ (KeeperError::Storage { .. } | KeeperError::Gone)) => match attempt {
                    0 => self.storage(&error).await,
                    OUTPUT_GOES => end.shrink(),
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

    async fn conclude(&self, end: Conclusion) -> Result<Ack, KeeperError> {
        let keeper = &self.context.keeper;
        match end {
            Conclusion::Finish(finish) => keeper.finish(self.ticket, finish).await,
            Conclusion::Deed(deed) => keeper.perform(self.ticket, deed).await,
        }
    }

    async fn answer(&self, ack: Ack) {
        if self.ticket.is_local() {
            // The station has not asked; it gets a report when it is over.
            return;
        }
        self.context.voice.ack(&self.subject.domain, ack).await;
    }

    /// Sees to an order that an earlier run left started (rule J3): its true end where its warden wrote
    /// one, waited for while that lives, interrupted otherwise, and never run again unless it says
    /// that it may.
    pub(super) async fn recover(self, order: OpenOrder, started: Started) -> Turn {
        let label = Label {
            node: self.context.config.node.clone(),
            id: order.id,
        };
        let same_boot = started.boot_id == self.context.clock.now().boot_id;
        if let Some(revoked) = &started.revoked {
            self.context.revocations.revoke(self.ticket, revoked);
        }
        let asked = Asked {
            at: started.at,
            timeout: timeout(order.timeout_ms),
        };
        let (nursery, starts) = (&self.context.nursery, order.starts);
        let found = if same_boot {
            nursery.find(&label, starts, started.child)
        } else {
            // Whoever has its warden's number now is somebody else.
            nursery.find_end(&label, starts)
        };
        match found {
            Ok(Found::Over(end)) => return self.ended(*end, &asked).await,
            Ok(Found::Running(running)) => {
                let pid = running.mark().pid;
                tracing::info!(id = %order.id, pid, "a command of an earlier start still runs");
                // It holds one of the places if there is one; it runs in any case.
                let _permit = Arc::clone(&self.context.permits).try_acquire_owned();
                return self.await_end(*running, &asked).await;
            }
            Ok(Found::Nothing) => {}
            Err(error) => {
                tracing::error!(id = %order.id, error = chain(&error), "an end is there and cannot be read")
            }
        }
        if same_boot {
            child::clear_leftovers(started.child, &label).await;
        }
        let what = if same_boot { "agent" } else { "node" };
        let reason = format!(
            "the {what} was restarted while it ran, and it is gone: how it ended is not known"
        );
        let turn = self.lost(&reason).await;
        forget(&nursery.place(order.id, starts));
        // What it received of a file may be left.
        nursery.note_change();
        turn
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

/// How an order ends: as somebody saw it, or by what a method of the agent does with the same commit.
#[derive(Debug, Clone)]
pub(super) enum Conclusion {
    Finish(Finish),
    Deed(Deed),
}

impl From<Finish> for Conclusion {
    fn from(finish: Finish) -> Self {
        Self::Finish(finish)
    }
}

impl From<Deed> for Conclusion {
    fn from(deed: Deed) -> Self {
        Self::Deed(deed)
    }
}

impl Conclusion {
    fn shrink(&mut self) {
        match self {
            Self::Finish(finish) => drop_output(finish),
            Self::Deed(_) => {}
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
        outcome: Some(Outcome {
            exit_code,
            signal: None,
            started_at: at,
            finished_at: Timestamp::now(),
            stdout: Some(Output::whole(b"")),
            stderr: Some(Output::whole(b"")),
        }),
    }
}

/// What an order asked for, as far as its end is judged by it.
struct Asked {
    /// When it was started.
    at: Timestamp,
    /// How long it might run.
    timeout: Duration,
}

/// What a warden wrote down, and what stopping made of that.
fn finish_of(end: End, asked: &Asked, stopped: Option<(State, String)>) -> Finish {
    let (exit_code, signal, never) = match end.how {
        How::Ended {
            exit_code, signal, ..
        } => (exit_code, signal, None),
        How::NotStarted { exit_code, reason } => (exit_code, None, Some(reason)),
    };
    let (state, reason) = match (never, stopped) {
        (Some(reason), _) => (State::Failed, Some(reason)),
        (None, Some((state, reason))) => (state, Some(reason)),
        (None, None) if end.success => (State::Succeeded, None),
        (None, None) => (State::Failed, None),
    };
    let words: Vec<String> = reason.into_iter().chain(end.notes).collect();
    Finish {
        state,
        reason: Some(words.join("; ")).filter(|words| !words.is_empty()),
        outcome: Some(Outcome {
            exit_code,
            signal,
            started_at: asked.at,
            finished_at: end.finished_at,
            stdout: Some(end.stdout),
            stderr: Some(end.stderr),
        }),
    }
}

/// Removes what is left of a start whose end nobody knows.
fn forget(place: &Place) {
    if let Err(error) = place.remove() {
        tracing::warn!(error = chain(&error), "a command's directory stays");
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
