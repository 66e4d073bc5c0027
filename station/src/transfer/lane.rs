//! One transfer: finds out what it is about, then receives or serves. Knows the ledger's word for it,
//! and refuses what nobody ordered.

use std::time::Duration;

use steward_protocol::{
    Body, Digest, Domain, Frame, Kind, Method, Subject, checksum,
    transfer::{Ask, Chunk, Failed, Failure, Moment, Packet, Want, What},
};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};

use super::{Cause, Ground, Key, ledger, offences::UNKNOWN_ORDER, receive, serve, shelf::Record};
use crate::{
    bus::{Outgoing, dice},
    store::Carriage,
};

/// What a node said about one transfer.
#[derive(Debug)]
pub(crate) enum Heard {
    /// It wants bytes.
    Want(Want),
    /// It sends bytes.
    Chunk(Chunk, Vec<u8>),
}

/// How far a transfer is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// Which run of the order the bytes are of.
    pub run: Option<u32>,
    /// How many bytes are in the file.
    pub bytes: u64,
    /// How it ended, once it has.
    pub over: Option<Ended>,
}

/// How a transfer ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// All of it is here.
    Done(Record),
    /// It will not come.
    Failed(Failed),
}

/// Tells whether a want asks for something.
pub(super) fn asks(want: &Want) -> bool {
    matches!(want.ask, Ask::More | Ask::Again)
}

/// One transfer's task.
pub(super) struct Lane {
    pub(super) ground: Ground,
    pub(super) key: Key,
    pub(super) heard: mpsc::Receiver<Heard>,
    pub(super) progress: watch::Sender<Progress>,
    born: Instant,
}

impl Lane {
    pub(super) fn new(
        ground: Ground,
        key: Key,
        heard: mpsc::Receiver<Heard>,
        progress: watch::Sender<Progress>,
    ) -> Self {
        Self {
            ground,
            key,
            heard,
            progress,
            born: Instant::now(),
        }
    }

    /// Runs until the transfer is over, or nobody cares any more.
    pub(super) async fn run(mut self, cause: Cause) {
        let carriage = match self.ground.carriage(&self.key) {
            Ok(Some(carriage)) if carriage.digest == self.key.transfer.digest => carriage,
            Ok(_) => {
                let offences = &self.ground.offences;
                offences.note(Some(&self.key.node), UNKNOWN_ORDER);
                return self.refuse("this station ordered nothing of the kind");
            }
            Err(error) => {
                tracing::error!(node = %self.key.node, %error, "a transfer cannot be looked up in the ledger");
                return self.over(Ended::Failed(ledger(&error)));
            }
        };
        let ended = match (self.key.transfer.what, &carriage.body) {
            (What::File, Body::Send(_)) => return serve::serve(&mut self, &carriage).await,
            (What::File, Body::Fetch(_)) => receive::receive(&mut self, &carriage, cause).await,
            (What::Output, _) if carriage.stream || cause == Cause::Asked => {
                receive::receive(&mut self, &carriage, cause).await
            }
            (What::File | What::Output, _) => return self.refuse("nobody asked for it"),
        };
        if let Some(Ended::Failed(failed)) = &ended {
            let (node, id) = (&self.key.node, self.key.transfer.id);
            tracing::warn!(%node, %id, reason = failed.reason, "a transfer failed");
        }
        if let Some(ended) = ended {
            self.over(ended);
        }
    }

    /// Ends what the node need not go on with.
    fn refuse(&self, reason: &str) {
        let domain = match "operatingsystem".parse() {
            Ok(domain) => domain,
            Err(_) => return,
        };
        self.want(
            &domain,
            Want {
                transfer: self.key.transfer,
                attempt: None,
                offset: 0,
                credit: 0,
                ask: Ask::GiveUp,
                reason: Some(reason.to_owned()),
            },
        );
        self.over(Ended::Failed(Failed::new(Failure::Refused, reason)));
    }

    pub(super) fn over(&self, ended: Ended) {
        self.progress
            .send_modify(|progress| progress.over = Some(ended));
    }

    /// Returns the present moment, as the machines are told it.
    pub(super) fn now(&self) -> Moment {
        Moment {
            at: self.born.elapsed(),
            dice: dice(),
        }
    }

    /// Waits until `at`, on the clock of [`Lane::now`].
    pub(super) fn wait(&self, at: Option<Duration>) -> impl Future<Output = ()> + use<> {
        let at = at.map(|at| self.born + at);
        async move {
            match at {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        }
    }

    /// Says what is wanted. It is said again while nothing comes.
    pub(super) fn want(&self, domain: &Domain, want: Want) {
        let send = self.ground.passage;
        let frame = Frame { send, body: want }.encode().map(checksum::append);
        match frame {
            Ok(payload) => {
                let outgoing = self.outgoing(Method::Want, domain, payload);
                // Without room it is due again later.
                self.ground.bus.publish(outgoing);
            }
            Err(error) => tracing::error!(%error, "a want cannot be written"),
        }
    }

    /// Says a chunk, and waits until it has left.
    pub(super) async fn chunk(&self, domain: &Domain, chunk: Chunk, bytes: &[u8]) {
        match Packet::encode(self.ground.passage, chunk, bytes) {
            Ok(payload) => {
                let outgoing = self.outgoing(Method::Content, domain, payload);
                self.ground.bus.bulk(outgoing).await;
            }
            Err(error) => tracing::error!(%error, "a chunk cannot be written"),
        }
    }

    fn outgoing(&self, method: Method, domain: &Domain, payload: Vec<u8>) -> Outgoing {
        let node = self.key.node.clone();
        let subject = Subject::new(node.clone(), Kind::Event, method, domain.clone());
        Outgoing {
            node,
            // It says nothing about the node whether anybody listens for this.
            sent_ms: 0,
            subject: subject.to_string(),
            payload,
        }
    }

    /// Says that a transfer failed here.
    pub(super) async fn fail(&self, carriage: &Carriage, failed: Failed) {
        let chunk = Chunk {
            transfer: self.key.transfer,
            attempt: steward_protocol::transfer::FILE_RUN,
            offset: 0,
            bytes: 0,
            blake3: Digest::of(b""),
            end: Some(steward_protocol::transfer::End::Failed(failed)),
        };
        self.chunk(&carriage.domain, chunk, b"").await;
    }
}
