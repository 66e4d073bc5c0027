//! The operating system's signals, turned into one question: go on, drain, or end now?
//!
//! The only place that listens to signals. It does not know what draining means to anybody.

use std::{io, sync::Arc};

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

/// How urgently the program is to end. Later ones only ever follow earlier ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// Not at all.
    GoOn,
    /// Finish what is in hand, take nothing new, end.
    Drain,
    /// End on the spot.
    Now,
}

/// Tells every part of the program when to end. Clones all speak of the same end.
///
/// Every clone holds the sending side, so waiting on one never fails: without a signal it lasts.
#[derive(Debug, Clone)]
pub struct Stop {
    urgency: Arc<watch::Sender<Urgency>>,
}

impl Default for Stop {
    fn default() -> Self {
        Self::new()
    }
}

impl Stop {
    /// Returns one that no signal reaches; its owner calls [`Stop::request`].
    pub fn new() -> Self {
        Self {
            urgency: Arc::new(watch::Sender::new(Urgency::GoOn)),
        }
    }

    /// Returns one that SIGINT, SIGTERM and SIGHUP reach: the first drains, the second forces.
    ///
    /// # Errors
    ///
    /// Fails when a handler cannot be installed. Must be called inside a runtime.
    pub fn on_signals() -> io::Result<Self> {
        let stop = Self::new();
        let kinds = [
            SignalKind::interrupt(),
            SignalKind::terminate(),
            SignalKind::hangup(),
        ];
        for kind in kinds {
            let mut signals = signal(kind)?;
            let stop = stop.clone();
            tokio::spawn(async move {
                while signals.recv().await.is_some() {
                    tracing::info!(signal = kind.as_raw_value(), "signal received");
                    stop.request();
                }
            });
        }
        Ok(stop)
    }

    /// Asks for the end: the first time to drain, after that to end now.
    pub fn request(&self) {
        self.urgency.send_modify(|urgency| {
            *urgency = match urgency {
                Urgency::GoOn => Urgency::Drain,
                Urgency::Drain | Urgency::Now => Urgency::Now,
            };
        });
    }

    /// Returns how urgent it is at this moment.
    pub fn urgency(&self) -> Urgency {
        *self.urgency.borrow()
    }

    /// Waits until draining, or more, was asked for.
    pub async fn draining(&self) {
        self.at_least(Urgency::Drain).await;
    }

    /// Waits until the end was asked for on the spot.
    pub async fn now(&self) {
        self.at_least(Urgency::Now).await;
    }

    async fn at_least(&self, wanted: Urgency) {
        let mut urgency = self.urgency.subscribe();
        urgency
            .wait_for(|urgency| *urgency >= wanted)
            .await
            .expect("self holds the sender, so the channel is open");
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn the_first_request_drains_and_the_second_forces_for_every_clone() {
        let stop = Stop::new();
        let other = stop.clone();
        assert_eq!(other.urgency(), Urgency::GoOn);
        assert!(other.draining().now_or_never().is_none());
        stop.request();
        assert_eq!(other.urgency(), Urgency::Drain);
        assert!(other.draining().now_or_never().is_some());
        assert!(other.now().now_or_never().is_none());
        stop.request();
        stop.request();
        assert_eq!(other.urgency(), Urgency::Now);
        assert!(other.now().now_or_never().is_some());
        assert!(other.draining().now_or_never().is_some());
    }
}
