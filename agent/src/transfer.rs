//! Transfers on the node: outputs and files to the station, files from it.
//!
//! ```text
//! bus ─ wants, contents ─▶ supervisor/transfers ─ Heard ─▶ lane     (one task per transfer)
//! lane ─ chunk ─▶ gate (one at a time, at the rate allowed) ─▶ bus
//! ```
//!
//! What is to be done is decided by the machines of the protocol; here are the lanes they run in.
//! Nothing of it is kept: after a restart a lane begins with what is on the disk.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use steward_protocol::{
    Body, Domain, Method, MethodName,
    transfer::{Chunk, Moment, Transfer, Want},
};
use tokio::{
    sync::{Semaphore, mpsc},
    time::{Instant, sleep_until},
};

use crate::{
    bus::{Bus, Link, dice},
    journal::Finish,
    transfer::{gate::Gate, job::Job},
    voice::{Footing, Voice},
};

mod fetch;
mod gate;
mod install;
pub mod job;
pub(crate) mod parts;
mod receive;
mod send;
mod serve;
mod source;
pub mod stream;

/// Transfers of one node at once. One more waits until it is asked for again.
pub const MAX_LANES: usize = 64;

/// Words waiting for one lane: the chunks of a whole window, and wants, of which only the last counts.
const MAILBOX: usize = 64;

/// How long a chunk may take to leave before the next one is tried. A command never waits for
/// more than the chunk that is leaving.
const LEAVE: Duration = Duration::from_secs(10);

/// Files carried at once. Others wait their turn, as commands do, but not with them.
const FILES_AT_ONCE: usize = 4;

/// What the station said about one transfer.
#[derive(Debug)]
pub enum Heard {
    /// It wants bytes.
    Want(Want),
    /// It sends bytes.
    Chunk(Chunk, Vec<u8>),
}

/// The transfers at work.
#[derive(Debug)]
pub struct Transfers {
    lanes: Arc<Lanes>,
    /// Held by the lane whose chunk is leaving.
    gate: Gate,
    /// As many files may be carried at once.
    permits: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct Lanes {
    known: Mutex<HashMap<Transfer, (u64, mpsc::Sender<Heard>)>>,
}

impl Lanes {
    fn known(&self) -> MutexGuard<'_, HashMap<Transfer, (u64, mpsc::Sender<Heard>)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a transfer cannot begin now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Taken {
    /// It is at work already.
    #[error("it is at work already")]
    AtWork,
    /// There are too many.
    #[error("{MAX_LANES} transfers are at work, and no more are begun")]
    Full,
}

/// One transfer's place. It is free again when this is dropped.
#[derive(Debug)]
pub struct Lane {
    lanes: Arc<Lanes>,
    transfer: Transfer,
    number: u64,
    heard: mpsc::Receiver<Heard>,
    born: Instant,
}

impl Transfers {
    /// Returns the transfers of an agent that may send `rate` bytes of them per second.
    pub fn new(rate: Option<u64>) -> Self {
        Self {
            lanes: Arc::default(),
            gate: Gate::new(rate),
            permits: Arc::new(Semaphore::new(FILES_AT_ONCE)),
        }
    }

    /// Returns what an order of a transfer waits for.
    pub fn permits(&self) -> &Arc<Semaphore> {
        &self.permits
    }

    /// Takes a place for a transfer.
    ///
    /// # Errors
    ///
    /// Says why it cannot begin.
    pub fn open(&self, transfer: Transfer) -> Result<Lane, Taken> {
        let mut known = self.lanes.known();
        if known.contains_key(&transfer) {
            return Err(Taken::AtWork);
        }
        if known.len() >= MAX_LANES {
            return Err(Taken::Full);
        }
        let (sender, heard) = mpsc::channel(MAILBOX);
        let number = dice();
        known.insert(transfer, (number, sender));
        Ok(Lane {
            lanes: Arc::clone(&self.lanes),
            transfer,
            number,
            heard,
            born: Instant::now(),
        })
    }

    /// Tells whether a transfer is at work.
    pub fn is_at_work(&self, transfer: &Transfer) -> bool {
        self.lanes.known().contains_key(transfer)
    }

    /// Passes a word on. Gives it back when nobody is at work on the transfer. What finds no room is
    /// dropped: it is said again.
    pub fn tell(&self, transfer: &Transfer, heard: Heard) -> Option<Heard> {
        match self.lanes.known().get(transfer) {
            Some((_, lane)) => match lane.try_send(heard) {
                Ok(()) | Err(mpsc::error::TrySendError::Full(_)) => None,
                Err(mpsc::error::TrySendError::Closed(heard)) => Some(heard),
            },
            None => Some(heard),
        }
    }

    /// Says a chunk when it is its turn, and waits until it has left.
    pub async fn say(&self, voice: &Voice, domain: &Domain, chunk: Chunk, bytes: &[u8]) {
        let _leave = self.gate.pass(bytes.len()).await;
        voice.chunk(domain, chunk, bytes).await;
        voice.bus.flush(LEAVE).await;
    }
}

impl Lane {
    /// Returns which transfer it is.
    pub fn transfer(&self) -> Transfer {
        self.transfer
    }

    /// Returns the present moment, as the machines are told it.
    pub fn now(&self) -> Moment {
        Moment {
            at: self.born.elapsed(),
            dice: dice(),
        }
    }

    /// Returns the next word. Safe to drop and call again.
    pub async fn hear(&mut self) -> Heard {
        match self.heard.recv().await {
            Some(heard) => heard,
            // The other end lives as long as this one.
            None => std::future::pending().await,
        }
    }

    /// Returns the next word, if it is here already.
    pub fn heard(&mut self) -> Option<Heard> {
        self.heard.try_recv().ok()
    }

    /// Waits until `at`, on the clock of [`Lane::now`].
    pub fn wait(&self, at: Option<Duration>) -> impl Future<Output = ()> + use<> {
        let at = at.map(|at| self.born + at);
        async move {
            match at {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        }
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        let mut known = self.lanes.known();
        if known
            .get(&self.transfer)
            .is_some_and(|(number, _)| *number == self.number)
        {
            known.remove(&self.transfer);
        }
    }
}

/// Tells whether orders of this method are carried out by a transfer.
pub fn carries(method: &MethodName) -> bool {
    matches!(
        Method::from_name(method),
        Some(Method::Filefetch | Method::Filesend)
    )
}

/// Carries out an order that is a transfer. Returns nothing when the agent ends first: its next start
/// goes on.
pub async fn carry(job: Job<'_>, body: &Body) -> Option<Finish> {
    match body {
        Body::Fetch(body) => fetch::fetch(job, &body.path).await,
        Body::Send(body) => send::send(job, body).await,
        _ => Some(job.failed("this is not the body of a transfer".to_owned())),
    }
}

/// Tells whether the station can hear this start of the agent.
pub(crate) fn is_heard(bus: &Bus, footing: &Footing) -> bool {
    match &*bus.link().borrow() {
        Link::Up { generation, .. } => {
            footing.welcomed.is_some() && footing.generation == *generation
        }
        Link::Down | Link::Refused(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use steward_protocol::{Digest, MessageId, transfer::What};
    use uuid::Uuid;

    use super::*;

    fn transfer(number: u128) -> Transfer {
        Transfer {
            id: MessageId(Uuid::from_u128(number)),
            digest: Digest::of(b"order"),
            what: What::File,
        }
    }

    #[tokio::test]
    async fn a_place_is_taken_once_and_free_again_when_its_owner_is_gone() {
        let transfers = Transfers::new(None);
        let lane = transfers.open(transfer(1)).expect("free");
        assert_eq!(transfers.open(transfer(1)).err(), Some(Taken::AtWork));
        drop(lane);
        assert!(!transfers.is_at_work(&transfer(1)));
        let lanes: Vec<Lane> = (0..MAX_LANES as u128)
            .map(|number| transfers.open(transfer(number)).expect("room"))
            .collect();
        let beyond = transfers.open(transfer(1000));
        assert_eq!(beyond.err(), Some(Taken::Full));
        drop(lanes);
        assert!(transfers.open(transfer(1000)).is_ok());
    }
}
