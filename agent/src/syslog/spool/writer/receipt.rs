//! What goes with a portion and what stays with its source: the source is told when it is durable, and tells when it has noted
//! that it was read.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
    mpsc::Sender,
};

use tokio::sync::oneshot;

use super::{super::claims::Noted, Order};

/// Tells that everything in a portion is durable; dropped, it never will be.
#[derive(Debug)]
pub struct Done {
    told: oneshot::Sender<()>,
    /// What its source has noted, if that can give it again.
    noted: Option<Noted>,
}

impl From<oneshot::Sender<()>> for Done {
    /// For what cannot be read again, or need not stay until it is noted.
    fn from(told: oneshot::Sender<()>) -> Self {
        Self { told, noted: None }
    }
}

impl Done {
    /// Returns what its source notes.
    pub(super) fn noted(&self) -> Option<Noted> {
        self.noted.clone()
    }

    /// Tells it. Whoever waited for it may have gone.
    pub(in crate::syslog) fn tell(self) {
        self.told.send(()).ok();
    }

    /// Returns one like it for a part of the portion, and what is told by that.
    pub(in crate::syslog) fn part(&self) -> (Self, oneshot::Receiver<()>) {
        let (told, is_durable) = oneshot::channel();
        let noted = self.noted.clone();
        (Self { told, noted }, is_durable)
    }
}

/// What the source of a portion keeps that can give it again.
#[derive(Debug)]
pub struct Receipt {
    /// Told when all of it is durable.
    pub durable: oneshot::Receiver<()>,
    /// What keeps it in the spool.
    pub claim: Claim,
}

/// Keeps a portion in the spool, also when the station has it, until its source has noted that it was read; for 10 s at most.
/// One that is dropped before was not noted.
#[derive(Debug)]
pub struct Claim {
    noted: Noted,
    orders: Sender<Order>,
}

impl Claim {
    /// Lets go: the next start of the agent will not read it again.
    pub fn let_go(self) {
        self.noted.store(true, Ordering::Release);
        // Without the thread, nothing is released.
        self.orders.send(Order::Noted).ok();
    }
}

/// Returns both for a portion that can be read again.
pub(super) fn pair(orders: Sender<Order>) -> (Done, Receipt) {
    let (told, durable) = oneshot::channel();
    let noted = Noted::new(AtomicBool::new(false));
    let claim = Claim {
        noted: Arc::clone(&noted),
        orders,
    };
    let noted = Some(noted);
    (Done { told, noted }, Receipt { durable, claim })
}
