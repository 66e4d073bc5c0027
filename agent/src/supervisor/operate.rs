//! What an operator may do with processes: list, stop, start. Knows no message and no ACK.

use std::time::Duration;

use steward_protocol::{Kind, Method, ProcessView, Subject};
use tokio::time::Instant;

use super::{Duty, MAX_PROCESSES, Supervisor, kernel::History, view::Lifecycle};

/// The method whose processes do the starting.
const OPERATOR: Method = Method::Processes;

/// How long the supervisor, which only sorts, may take to answer.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// What an operator wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// See every process, or one.
    List,
    /// Have a process take nothing more; what runs comes to its end, what waits stays in the journal.
    Stop,
    /// Have a stopped process go on, one that waits for its restart not wait, or one begin.
    Start,
}

/// Why it is not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OperateError {
    /// Which one was not said.
    #[error("{} a process: its subject is missing", if *.0 == Action::Stop { "stop" } else { "start" })]
    NoSubject(Action),
    /// There is no such process.
    #[error("find the process of {0}: there is none; a list shows those there are")]
    Unknown(Subject),
    /// There can be no such process.
    #[error("start {0}: this node does not offer this method, or not for this domain")]
    NotOffered(Subject),
    /// It is running.
    #[error("start {0}: it is running already")]
    Running(Subject),
    /// It is stopped.
    #[error("stop {0}: it is stopped already")]
    Stopped(Subject),
    /// Nothing works without it.
    #[error("stop {0}: the agent cannot work without it; stop the agent instead")]
    Vital(Subject),
    /// Nothing could be started without it.
    #[error("stop {0}: it is what starts stopped processes")]
    Operator(Subject),
    /// Its task has not ended.
    #[error(
        "start {0}: it has been stopped and still brings orders to their end; start it when they are over"
    )]
    Leaving(Subject),
    /// There are too many.
    #[error(
        "start {0}: there are {MAX_PROCESSES} processes already, which is the most; idle ones end by themselves"
    )]
    Full(Subject),
    /// The agent is ending.
    #[error("start {0}: the agent is ending")]
    Ending(Subject),
    /// The supervisor did not answer in time.
    #[error("ask the supervisor: it gave no answer within {} s", PATIENCE.as_secs())]
    Silent,
}

impl Supervisor {
    pub(super) fn operate(
        &mut self,
        action: Action,
        subject: Option<Subject>,
    ) -> Result<Vec<ProcessView>, OperateError> {
        let subject = match (action, subject) {
            (Action::List, None) => {
                let slots = self.slots.iter();
                return Ok(slots
                    .map(|(subject, slot)| slot.listed(subject).view())
                    .collect());
            }
            (Action::Stop | Action::Start, None) => return Err(OperateError::NoSubject(action)),
            (_, Some(subject)) => subject,
        };
        match action {
            Action::List => {}
            Action::Stop => self.stop_one(&subject)?,
            Action::Start => self.start_one(&subject)?,
        }
        if action != Action::List {
            tracing::warn!(%subject, ?action, "an operator changed a process");
            self.publish();
        }
        match self.slots.get(&subject) {
            Some(slot) => Ok(vec![slot.listed(&subject).view()]),
            None => Err(OperateError::Unknown(subject)),
        }
    }

    fn stop_one(&mut self, subject: &Subject) -> Result<(), OperateError> {
        let slot = self
            .slots
            .get_mut(subject)
            .ok_or_else(|| OperateError::Unknown(subject.clone()))?;
        if slot.duty != Duty::Orders {
            return Err(OperateError::Vital(subject.clone()));
        }
        if subject.method == OPERATOR.name() {
            return Err(OperateError::Operator(subject.clone()));
        }
        if slot.lifecycle == Lifecycle::Stopped {
            return Err(OperateError::Stopped(subject.clone()));
        }
        slot.restart_at = None;
        match slot.leaving {
            // It is ended already, by a verdict; only what follows changes.
            Some(_) => slot.rest(Lifecycle::Stopped),
            None => slot.leave(Lifecycle::Stopped, None),
        }
        Ok(())
    }

    fn start_one(&mut self, subject: &Subject) -> Result<(), OperateError> {
        if self.deadline.is_some() {
            return Err(OperateError::Ending(subject.clone()));
        }
        let Some(slot) = self.slots.get_mut(subject) else {
            return self.begin_one(subject);
        };
        match slot.lifecycle {
            Lifecycle::Alive => return Err(OperateError::Running(subject.clone())),
            Lifecycle::Restarting | Lifecycle::Stopped if slot.task.is_some() => {
                return Err(OperateError::Leaving(subject.clone()));
            }
            Lifecycle::Restarting => slot.restart_at = Some(Instant::now()),
            Lifecycle::Stopped => {
                // What was is judged no more: somebody has looked at it.
                slot.history = History::default();
                let duty = slot.duty;
                self.spawn(subject, duty);
            }
        }
        Ok(())
    }

    fn begin_one(&mut self, subject: &Subject) -> Result<(), OperateError> {
        let own = subject.node == self.setup.config.node && subject.kind == Kind::Command;
        if !own || !self.serves(subject) {
            return Err(OperateError::NotOffered(subject.clone()));
        }
        if self.order_slots() >= MAX_PROCESSES {
            return Err(OperateError::Full(subject.clone()));
        }
        self.spawn(subject, Duty::Orders);
        Ok(())
    }
}
