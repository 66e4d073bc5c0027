//! The sending end of a transfer: serves the last want, piece by piece, as bytes become available.
//!
//! Pure, and without memory that matters: a restart begins with the next want. The bytes stay with
//! whoever carries the pieces out, who also decides how fast.

use std::time::Duration;

use super::{Ask, End, Failed, Failure, Moment, Want};
use crate::retry::Backoff;

/// How long the receiver may be silent before it is told again that there is something to be had.
pub const OFFER: Backoff = Backoff {
    base: Duration::from_secs(1),
    cap: Duration::from_secs(30),
};

/// The silence after which the receiver is told again, at least.
const FLOOR: Duration = Duration::from_secs(1);

/// How long a transfer that was asked for is remembered while nobody asks for more.
pub const FORGET: Duration = Duration::from_secs(120);

/// Who begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// The sender says that there is something, until the receiver has it.
    Offered,
    /// The receiver asks, and is forgotten when it asks no more.
    Asked,
}

/// What happens to a sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event<'a> {
    /// The receiver may be there again.
    Link,
    /// The receiver asks.
    Want(&'a Want),
    /// As many bytes can be had by now.
    Available(u64),
    /// The bytes below this are not kept any more.
    Released(u64),
    /// This is how it ends.
    Ends(&'a End),
}

/// What is to be done, in consequence of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// The receiver has these many bytes durably; they need not be kept.
    Release(u64),
    /// The receiver has all of it.
    Done,
    /// The receiver cannot take it; why.
    GivenUp(String),
}

/// What is to be sent next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Where it begins.
    pub offset: u64,
    /// How many bytes it has.
    pub bytes: usize,
    /// How the transfer ends, if it ends behind them.
    pub end: Option<End>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Serving,
    Over,
}

/// The sending end of one transfer.
#[derive(Debug, Clone)]
pub struct Sender {
    manner: Manner,
    attempt: u32,
    chunk: usize,
    available: u64,
    released: u64,
    end: Option<End>,
    /// Up to where the receiver wants it; none before it has asked.
    limit: Option<u64>,
    next: u64,
    end_said: bool,
    /// Whether what was asked for last is not kept any more.
    is_late: bool,
    heard: Duration,
    offers: u32,
    offer_at: Duration,
    stage: Stage,
}

impl Sender {
    /// Returns the sender of the bytes of the run `attempt`, in pieces of at most `chunk` bytes.
    pub fn new(manner: Manner, attempt: u32, chunk: usize, now: Moment) -> Self {
        Self {
            manner,
            attempt,
            chunk,
            available: 0,
            released: 0,
            end: None,
            limit: None,
            next: 0,
            end_said: false,
            is_late: false,
            heard: now.at,
            offers: 0,
            offer_at: now.at,
            stage: Stage::Serving,
        }
    }

    /// Returns which run of the order the bytes are of.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Tells whether the receiver has asked for it.
    pub fn is_wanted(&self) -> bool {
        self.limit.is_some()
    }

    /// Tells whether it is known how it ends.
    pub fn has_end(&self) -> bool {
        self.end.is_some()
    }

    /// Tells whether nobody has asked for so long that it need not be served any more.
    pub fn is_forgotten(&self, now: Moment) -> bool {
        self.manner == Manner::Asked && now.at.saturating_sub(self.heard) >= FORGET
    }

    /// Returns when there may be a piece although nothing happens until then.
    pub fn wake_at(&self) -> Option<Duration> {
        match (self.stage, self.manner) {
            (Stage::Over, _) => None,
            (Stage::Serving, Manner::Offered) => Some(self.offer_at),
            (Stage::Serving, Manner::Asked) => Some(self.heard + FORGET),
        }
    }

    /// Takes note of an event and returns what is to be done.
    pub fn on(&mut self, event: Event<'_>, now: Moment) -> Vec<Action> {
        match event {
            Event::Link => {
                self.offers = 0;
                self.offer_at = now.at;
                Vec::new()
            }
            Event::Available(bytes) => {
                self.available = self.available.max(bytes);
                Vec::new()
            }
            Event::Released(bytes) => {
                self.released = self.released.max(bytes);
                Vec::new()
            }
            Event::Ends(end) => {
                self.end = Some(end.clone());
                self.end_said = false;
                Vec::new()
            }
            Event::Want(want) => self.want(want, now),
        }
    }

    fn want(&mut self, want: &Want, now: Moment) -> Vec<Action> {
        if self.stage == Stage::Over {
            return Vec::new();
        }
        self.heard = now.at;
        self.offers = 0;
        self.offer_at = now.at + OFFER.above(FLOOR, 1, now.dice);
        let same_run = want.attempt.is_none_or(|attempt| attempt == self.attempt);
        let offset = if same_run { want.offset } else { 0 };
        match want.ask {
            Ask::Done if same_run => {
                self.stage = Stage::Over;
                return vec![Action::Release(offset), Action::Done];
            }
            Ask::GiveUp => {
                self.stage = Stage::Over;
                let reason = want.reason.clone().unwrap_or_default();
                return vec![Action::GivenUp(reason)];
            }
            Ask::Again | Ask::More if offset < self.released => {
                self.is_late = true;
                return Vec::new();
            }
            Ask::Again => {
                self.next = offset;
                self.end_said = false;
            }
            Ask::More | Ask::Done => self.next = self.next.max(offset),
            Ask::Other => return Vec::new(),
        }
        self.limit = Some(offset.saturating_add(want.credit));
        vec![Action::Release(offset)]
    }

    /// Returns the next piece to be sent now, if there is one.
    pub fn next(&mut self, now: Moment) -> Option<Piece> {
        if self.stage == Stage::Over {
            return None;
        }
        self.piece().or_else(|| self.offer(now))
    }

    fn piece(&mut self) -> Option<Piece> {
        if std::mem::take(&mut self.is_late) {
            let reason = format!("its first {} bytes are not kept any more", self.released);
            return Some(Piece {
                offset: self.released,
                bytes: 0,
                end: Some(End::Failed(Failed::new(Failure::Released, reason))),
            });
        }
        let limit = self.limit?;
        if let Some(End::Failed(_)) = &self.end {
            return self.last();
        }
        let until = self.available.min(limit);
        if self.next >= until {
            let total = self.total()?;
            // Whoever claims to have more than there is learns where it ends, too.
            return if self.next >= total {
                self.last()
            } else {
                None
            };
        }
        let left = usize::try_from(until - self.next).unwrap_or(usize::MAX);
        let bytes = left.min(self.chunk);
        let offset = self.next;
        self.next += bytes as u64;
        let is_last = self.total() == Some(self.next);
        let end = self.end.clone().filter(|_| is_last);
        self.end_said |= end.is_some();
        Some(Piece { offset, bytes, end })
    }

    fn total(&self) -> Option<u64> {
        match &self.end {
            Some(End::Whole(whole)) => Some(whole.bytes),
            Some(End::Failed(_)) | None => None,
        }
    }

    fn last(&mut self) -> Option<Piece> {
        if std::mem::replace(&mut self.end_said, true) {
            return None;
        }
        Some(Piece {
            offset: self.total().unwrap_or(0),
            bytes: 0,
            end: self.end.clone(),
        })
    }

    fn offer(&mut self, now: Moment) -> Option<Piece> {
        if self.manner == Manner::Asked || self.offer_at > now.at {
            return None;
        }
        self.offers = self.offers.saturating_add(1);
        self.offer_at = now.at + OFFER.above(FLOOR, self.offers, now.dice);
        Some(Piece {
            offset: 0,
            bytes: 0,
            end: None,
        })
    }
}
