//! A relay: sends what nodes log on to a syslog receiver, from the store, and never faster than that takes it.
//!
//! ```text
//! segments ─▶ follower ─ piece ─▶ link ─▶ receiver
//!                ▲                  └─ written ─▶ settling ─ after a while ─▶ cursors on the disk
//!                └──────── back to there, when the connection is lost ◀──────────┘
//! ```
//!
//! Plain TCP has no acknowledgement: that bytes were written says nothing. So the cursor moves only behind what has stood
//! for a while on a connection that lived on, and what was sent after it is sent again after a loss.

use std::time::{Duration, Instant};

use steward_protocol::retry::Backoff;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use self::{
    link::{Address, Link},
    settle::Settling,
    wire::Wire,
};
use super::{
    LogsError,
    disk::Files,
    follow::{Follower, Portion},
    outlet::{Outlet, PACE},
};
use crate::{bus::dice, station::chain};

pub mod link;
pub mod settle;
pub mod wire;

/// Waits between attempts to reach a receiver, or to read.
const RETRY: Backoff = Backoff {
    base: Duration::from_millis(500),
    cap: Duration::from_secs(30),
};

/// How often cursors are written down while they move.
const SAVE: Duration = Duration::from_secs(1);

/// How long a connection must live to count as one: some receivers take it and drop it at once.
const STEADY: Duration = Duration::from_secs(5);

/// A relay.
pub struct Relay {
    outlet: Outlet,
    address: Address,
}

/// How a connection ended.
enum Ended {
    /// We are to stop.
    Told,
    /// It is to be tried again.
    Failed(String),
}

/// What is sent next, and who reads it.
struct Piece {
    follower: Follower<Files>,
    wire: Wire,
    portion: Result<Option<Portion>, LogsError>,
}

impl Relay {
    /// Returns a relay to a receiver.
    pub fn new(outlet: Outlet, address: Address) -> Self {
        Self { outlet, address }
    }

    /// Runs until told to stop.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut attempt = 0_u32;
        while !stop.is_cancelled() {
            let born = Instant::now();
            let ended = tokio::select! {
                () = stop.cancelled() => Ended::Told,
                opened = self.open() => match opened {
                    Ok((follower, link)) => self.stream(follower, link, &stop).await,
                    Err(text) => Ended::Failed(text),
                },
            };
            let Ended::Failed(text) = ended else {
                return;
            };
            self.outlet.trouble(format!("failed to {text}")).await;
            if born.elapsed() >= STEADY {
                attempt = 0;
            }
            let wait = RETRY.bound(attempt) / 2 + RETRY.full_jitter(attempt, dice()) / 2;
            attempt = attempt.saturating_add(1);
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(wait) => {}
            }
        }
    }

    /// Reaches the receiver, and goes back to what it may be believed to have.
    async fn open(&mut self) -> Result<(Follower<Files>, Link), String> {
        let link = Link::open(&self.address);
        let link = link.await.map_err(|error| chain(&error))?;
        let follower = self.outlet.follower().await;
        let follower = follower.map_err(|error| chain(&error))?;
        Ok((follower, link))
    }

    /// Sends until the connection is lost, or we are to stop.
    async fn stream(
        &mut self,
        follower: Follower<Files>,
        mut link: Link,
        stop: &CancellationToken,
    ) -> Ended {
        let mut settling = Settling::new(follower.cursors().clone());
        let mut piece = Piece {
            follower,
            wire: Wire::default(),
            portion: Ok(None),
        };
        let begun = Instant::now();
        let mut saved = begun;
        let ended = loop {
            if stop.is_cancelled() {
                // Nothing is half written: a farewell in good order counts for everything.
                if link.close().await {
                    settling.all();
                }
                break Ended::Told;
            }
            self.outlet.learn(&mut piece.follower);
            let Some(next) = pull(piece).await else {
                break Ended::Failed("read logs to be relayed: the reader ended".to_owned());
            };
            piece = next;
            let step = match self.pass(&mut piece, &mut link, &mut settling, stop).await {
                Some(step) => step,
                None => break Ended::Told,
            };
            settling.settle(Instant::now());
            let saving = match saved.elapsed() >= SAVE {
                true => {
                    saved = Instant::now();
                    if begun.elapsed() >= STEADY {
                        self.outlet.well();
                    }
                    self.save(&mut settling)
                }
                false => Ok(()),
            };
            if let Err(text) = step.and(saving) {
                break Ended::Failed(text);
            }
        };
        // What does not count by now is sent again.
        if let Err(error) = self.save(&mut settling) {
            tracing::warn!(
                outlet = self.outlet.name,
                error,
                "what was relayed cannot be noted"
            );
        }
        ended
    }

    /// Sends what was read, or waits for more. Returns nothing if it was to stop in the middle.
    async fn pass(
        &mut self,
        piece: &mut Piece,
        link: &mut Link,
        settling: &mut Settling,
        stop: &CancellationToken,
    ) -> Option<Result<(), String>> {
        let portion = match std::mem::replace(&mut piece.portion, Ok(None)) {
            Ok(Some(portion)) => portion,
            Ok(None) => {
                return Some(tokio::select! {
                    () = stop.cancelled() => Ok(()),
                    error = link.lost() => Err(chain(&error)),
                    () = async { self.outlet.changed().await; sleep(PACE).await } => Ok(()),
                    () = sleep(SAVE) => Ok(()),
                });
            }
            Err(error) => return Some(Err(chain(&error))),
        };
        let sent = tokio::select! {
            () = stop.cancelled() => return None,
            sent = link.send(piece.wire.bytes()) => sent,
        };
        piece.wire.clear();
        if let Err(error) = sent {
            return Some(Err(chain(&error)));
        }
        piece.follower.passed(&portion);
        settling.written(Instant::now(), &portion.line, portion.cursor);
        self.outlet.count(portion.messages, portion.missed).await;
        Some(Ok(()))
    }

    fn save(&self, settling: &mut Settling) -> Result<(), String> {
        if !settling.take_changed() {
            return Ok(());
        }
        let saved = tokio::task::block_in_place(|| self.outlet.save(settling.settled()));
        saved.map_err(|error| chain(&error))
    }
}

/// Reads the next piece where reading holds nobody up.
async fn pull(mut piece: Piece) -> Option<Piece> {
    let work = move || {
        let wire = &mut piece.wire;
        piece.portion = piece.follower.pull(&mut |line, item| wire.put(line, &item));
        piece
    };
    tokio::task::spawn_blocking(work).await.ok()
}
