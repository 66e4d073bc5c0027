//! What every process needs: the one bundle handed to all of them.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use steward_protocol::{Domain, ProcessView, Subject};
use tokio::{
    sync::{Semaphore, mpsc, oneshot, watch},
    time::{Instant, timeout},
};

use super::{
    Call,
    kernel::{Fault, Verdict},
    operate::{Action, OperateError, PATIENCE},
    pulse,
    revocations::Revocations,
    view::Gauges,
};
use crate::{
    child::Nursery,
    clock::Clock,
    config::Config,
    counters::{Counter, Counters},
    journal::Stance,
    keeper::Keeper,
    method::hello::Introduction,
    signals::Stop,
    syslog::board::Board,
    transfer::Transfers,
    voice::{Footing, Voice},
};

/// How long a process waits for the verdict on its fault. The supervisor only sorts and answers in
/// microseconds; whoever gets no answer goes on.
const VERDICT: Duration = Duration::from_secs(5);

/// What every process needs.
#[derive(Debug)]
pub struct Context {
    /// The configuration.
    pub config: Config,
    /// The journal.
    pub keeper: Keeper,
    /// The way to the station.
    pub voice: Voice,
    /// The clocks.
    pub clock: Clock,
    /// What is counted.
    pub counters: Arc<Counters>,
    /// Whether the agent is ending.
    pub stop: watch::Receiver<Stop>,
    /// Whom this start obeys; the desk writes it.
    pub footing: watch::Sender<Footing>,
    /// The last hello, by both clocks; the heartbeat writes it.
    pub last_hello: watch::Sender<Option<(Timestamp, Instant)>>,
    /// Round trip of the last hello and its welcome; the desk writes it.
    pub round_trip: watch::Sender<Option<Duration>>,
    /// Where commands are started.
    pub nursery: Nursery,
    /// As many as commands may run at once.
    pub permits: Arc<Semaphore>,
    /// Which of the orders at work are cancelled; the desk writes it.
    pub revocations: Revocations,
    /// The transfers at work.
    pub transfers: Transfers,
    /// What a hello says.
    pub introduction: Introduction,
    /// What is known of the logs.
    pub board: Arc<Board>,
    /// Rises when the config is to be read again.
    pub reload: watch::Receiver<u64>,
    /// The way to the supervisor.
    pub supervisor: mpsc::Sender<Call>,
}

impl Context {
    /// Reports a fault that its process survived and waits for the verdict, but not for ever. Anything
    /// but [`Verdict::Continue`] is obeyed by leaving: the supervisor lets go of the mailbox, and ends
    /// whoever does not.
    pub async fn raise(&self, subject: &Subject, fault: Fault) -> Verdict {
        verdict(&self.supervisor, &self.counters, subject.clone(), fault).await
    }

    /// Lists, stops or starts processes, and returns those meant as they are afterwards.
    ///
    /// # Errors
    ///
    /// Says why it is not done.
    pub async fn processes(
        &self,
        action: Action,
        subject: Option<Subject>,
    ) -> Result<Vec<ProcessView>, OperateError> {
        let (answer, answered) = oneshot::channel();
        let call = Call::Operate {
            action,
            subject,
            answer,
        };
        let asked = async {
            self.supervisor.send(call).await.ok()?;
            answered.await.ok()
        };
        match timeout(PATIENCE, asked).await {
            Ok(Some(answer)) => answer,
            Ok(None) | Err(_) => Err(OperateError::Silent),
        }
    }

    /// Tells whether the agent is ending.
    pub fn is_stopping(&self) -> bool {
        *self.stop.borrow() != Stop::No
    }
}

/// Asks the supervisor for its verdict on a fault.
pub(super) async fn verdict(
    supervisor: &mpsc::Sender<Call>,
    counters: &Counters,
    subject: Subject,
    fault: Fault,
) -> Verdict {
    let (answer, verdict) = oneshot::channel();
    let call = Call::Fault {
        subject,
        fault,
        answer,
    };
    let told = async {
        supervisor.send(call).await.ok()?;
        verdict.await.ok()
    };
    match pulse::hold(timeout(VERDICT, told)).await {
        Ok(Some(verdict)) => verdict,
        // The supervisor is gone only when the agent is.
        Ok(None) => Verdict::Continue,
        Err(_) => {
            counters.count(Counter::VerdictsLate);
            Verdict::Continue
        }
    }
}

/// Something for a process to deal with.
#[derive(Debug)]
pub enum Mail {
    /// An order, as it arrived.
    Order {
        /// The subject it arrived on.
        subject: Subject,
        /// Its bytes.
        payload: Vec<u8>,
        /// What is to become of it if it is new and can be read.
        stance: Stance,
    },
    /// The cancellation of an order, as it arrived.
    Cancel {
        /// The subject it arrived on.
        subject: Subject,
        /// Its bytes.
        payload: Vec<u8>,
    },
    /// The station's answer to a hello.
    Welcome(Vec<u8>),
    /// The station's word that something is stored.
    Confirm(Vec<u8>),
    /// What the station wants of a transfer.
    Want {
        /// The domain of its order.
        domain: Domain,
        /// Its bytes.
        payload: Vec<u8>,
    },
    /// A chunk of what the station sends.
    Content {
        /// Its bytes.
        payload: Vec<u8>,
    },
    /// The station's word on which log records it has.
    Kept {
        /// Of which domain.
        domain: Domain,
        /// Its bytes.
        payload: Vec<u8>,
    },
}

/// What a process is born with.
#[derive(Debug)]
pub struct Born {
    /// The subject it serves.
    pub subject: Subject,
    /// What it is to deal with.
    pub mailbox: mpsc::Receiver<Mail>,
    /// Where it says what it is doing.
    pub gauges: watch::Sender<Gauges>,
}
