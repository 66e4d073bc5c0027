//! The receiving end of a transfer: what to do with what arrives, and what to say to the sender.
//!
//! Pure: an event and a moment go in, actions come out, to be done in their order before the next
//! event. It never sees the bytes, only where they begin and how many they are. It knows no file,
//! no clock and no broker.

use std::time::Duration;

use super::{Ask, Chunk, End, Failed, Failure, Moment, Transfer, Want, Whole};
use crate::retry::Backoff;

/// How long nothing may come before the sender is asked again, growing while it stays silent.
pub const AGAIN: Backoff = Backoff {
    base: Duration::from_millis(500),
    cap: Duration::from_secs(30),
};

/// How long nothing may come at least before the sender is asked again.
const FLOOR: Duration = Duration::from_millis(500);

/// How long bytes may wait to be made durable and said to be so, when few come.
const LINGER: Duration = Duration::from_millis(200);

/// How long to wait before writing is tried again that did not work.
const STUCK: Duration = Duration::from_secs(5);

/// How much is asked for at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Bytes that may be on their way.
    pub credit: u64,
    /// Bytes after which what arrived is made durable and more is asked for.
    pub step: u64,
    /// Most bytes taken in all.
    pub most: u64,
}

/// What happens to a receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event<'a> {
    /// It begins, or the sender may be there again.
    Begin,
    /// A chunk arrived whose bytes are those its header names.
    Chunk(&'a Chunk),
    /// What was written is durable.
    Synced,
    /// What was to be written was not; what was not durable is gone, and so are the bytes of the chunk in hand.
    Stuck,
    /// The digest of the whole is right.
    Right,
    /// The digest of the whole is wrong.
    Wrong,
    /// The receiver cannot take it, for good.
    Abandoned(&'a str),
    /// Nothing but that time has passed.
    Time,
}

/// What a receiver is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Forget everything there is; what comes is of this run.
    Reset(u32),
    /// Append the bytes of the chunk, without as many of its first ones.
    Append(usize),
    /// Make durable what was appended; answered by [`Event::Synced`] or [`Event::Stuck`].
    Sync,
    /// Compare with the digest of the whole, all of it being durable; answered by [`Event::Right`] or
    /// [`Event::Wrong`].
    Verify(Whole),
    /// Say this to the sender.
    Say(Want),
    /// It is over.
    Over(Over),
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Over {
    /// All of it is here, durable and right.
    Done(Whole),
    /// It never will be.
    Failed(Failed),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Stage {
    Receiving,
    Verifying(Whole),
    Over,
}

/// The receiving end of one transfer.
#[derive(Debug, Clone)]
pub struct Receiver {
    transfer: Transfer,
    window: Window,
    attempt: Option<u32>,
    durable: u64,
    received: u64,
    end: Option<Whole>,
    stage: Stage,
    /// Since when bytes have been waiting to be made durable.
    waiting: Option<Duration>,
    /// When the sender is asked again.
    due: Duration,
    tries: u32,
    /// Whether the sender has been told of the gap in front of what comes now.
    gap: bool,
    /// Whether it has begun from the beginning once because the digest was wrong.
    restarted: bool,
}

impl Receiver {
    /// Returns the receiver of a transfer of which `durable` bytes, of the run `attempt`, are here.
    pub fn new(transfer: Transfer, window: Window, attempt: Option<u32>, durable: u64) -> Self {
        Self {
            transfer,
            window,
            attempt,
            durable,
            received: durable,
            end: None,
            stage: Stage::Receiving,
            waiting: None,
            due: Duration::ZERO,
            tries: 0,
            gap: false,
            restarted: false,
        }
    }

    /// Returns how many bytes are here.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Returns how many bytes are here durably.
    pub fn durable(&self) -> u64 {
        self.durable
    }

    /// Returns how many bytes there will be, once the sender has said so.
    pub fn total(&self) -> Option<u64> {
        self.end.as_ref().map(|whole| whole.bytes)
    }

    /// Returns when to tell it the time at the latest.
    pub fn wake_at(&self) -> Option<Duration> {
        match self.stage {
            Stage::Receiving => Some(
                self.waiting
                    .map_or(self.due, |since| self.due.min(since + LINGER)),
            ),
            Stage::Verifying(_) | Stage::Over => None,
        }
    }

    /// Takes note of an event and returns what is to be done.
    pub fn on(&mut self, event: Event<'_>, now: Moment) -> Vec<Action> {
        match (&self.stage, event) {
            (Stage::Over, _) => Vec::new(),
            (_, Event::Abandoned(reason)) => self.give_up(Failed::new(Failure::Refused, reason)),
            (Stage::Receiving, Event::Begin) => vec![self.ask(Ask::Again, now)],
            (Stage::Receiving, Event::Chunk(chunk)) => self.chunk(chunk, now),
            (Stage::Receiving, Event::Synced) => self.synced(now),
            (Stage::Receiving, Event::Time) => self.time(now),
            (Stage::Receiving | Stage::Verifying(_), Event::Stuck) => self.stuck(now),
            (Stage::Verifying(_), Event::Synced) => {
                self.durable = self.received;
                Vec::new()
            }
            (Stage::Verifying(whole), Event::Right) => {
                let whole = whole.clone();
                self.stage = Stage::Over;
                vec![self.want(Ask::Done, None), Action::Over(Over::Done(whole))]
            }
            (Stage::Verifying(_), Event::Wrong) => self.wrong(now),
            (Stage::Receiving, Event::Right | Event::Wrong)
            | (Stage::Verifying(_), Event::Begin | Event::Chunk(_) | Event::Time) => Vec::new(),
        }
    }

    fn chunk(&mut self, chunk: &Chunk, now: Moment) -> Vec<Action> {
        let mut actions = Vec::new();
        match self.attempt {
            Some(known) if chunk.attempt < known => return actions,
            Some(known) if chunk.attempt == known => {}
            // What is here is of an earlier run.
            Some(_) => actions.push(self.reset(chunk.attempt)),
            None => {
                self.attempt = Some(chunk.attempt);
                actions.push(self.reset(chunk.attempt));
            }
        }
        if let Some(End::Failed(failed)) = &chunk.end {
            if failed.why == Failure::Released && chunk.offset <= self.durable {
                // The answer to something said long ago.
                return actions;
            }
            self.stage = Stage::Over;
            actions.push(Action::Over(Over::Failed(failed.clone())));
            return actions;
        }
        if chunk.offset > self.received {
            if !std::mem::replace(&mut self.gap, true) {
                actions.push(self.ask(Ask::Again, now));
            }
            return actions;
        }
        if chunk.until() > self.window.most || self.is_beyond(chunk) {
            let reason = format!("more than the {} bytes that are taken", self.window.most);
            actions.extend(self.give_up(Failed::new(Failure::TooLarge, reason)));
            return actions;
        }
        if chunk.bytes == 0 && chunk.end.is_none() {
            // The sender says that it has heard nothing for a while.
            actions.push(self.ask(Ask::Again, now));
            return actions;
        }
        self.append(chunk, now, &mut actions);
        if let Some(End::Whole(whole)) = &chunk.end {
            self.end = Some(whole.clone());
        }
        self.settle(now, &mut actions);
        actions
    }

    fn is_beyond(&self, chunk: &Chunk) -> bool {
        matches!(&chunk.end, Some(End::Whole(whole)) if whole.bytes > self.window.most)
    }

    fn append(&mut self, chunk: &Chunk, now: Moment, actions: &mut Vec<Action>) {
        if chunk.until() <= self.received {
            return;
        }
        // Smaller than a chunk, which fits into memory.
        let known = usize::try_from(self.received - chunk.offset).unwrap_or(usize::MAX);
        actions.push(Action::Append(known));
        self.received = chunk.until();
        self.gap = false;
        self.tries = 0;
        self.due = now.at + AGAIN.above(FLOOR, 0, now.dice);
        self.waiting.get_or_insert(now.at);
    }

    /// Sees whether it is complete, or enough has come to be made durable.
    fn settle(&mut self, now: Moment, actions: &mut Vec<Action>) {
        match &self.end {
            Some(whole) if whole.bytes == self.received => {
                let whole = whole.clone();
                self.waiting = None;
                self.stage = Stage::Verifying(whole.clone());
                actions.extend([Action::Sync, Action::Verify(whole)]);
            }
            // It is shorter than what is here: not what it was when it began.
            Some(whole) if whole.bytes < self.received => actions.extend(self.wrong(now)),
            Some(_) | None => {
                if self.received - self.durable >= self.window.step {
                    self.waiting = None;
                    actions.push(Action::Sync);
                }
            }
        }
    }

    fn synced(&mut self, now: Moment) -> Vec<Action> {
        self.durable = self.received;
        self.waiting = None;
        vec![self.ask(Ask::More, now)]
    }

    fn time(&mut self, now: Moment) -> Vec<Action> {
        if self.waiting.is_some_and(|since| since + LINGER <= now.at) {
            self.waiting = None;
            return vec![Action::Sync];
        }
        if self.due > now.at {
            return Vec::new();
        }
        self.tries = self.tries.saturating_add(1);
        vec![self.ask(Ask::Again, now)]
    }

    fn stuck(&mut self, now: Moment) -> Vec<Action> {
        self.received = self.durable;
        self.waiting = None;
        self.end = None;
        self.stage = Stage::Receiving;
        // What is still on its way would only be written in vain.
        self.gap = true;
        self.due = now.at + AGAIN.above(STUCK, 0, now.dice);
        Vec::new()
    }

    /// Begins from the beginning, once; what is wrong twice stays wrong.
    fn wrong(&mut self, now: Moment) -> Vec<Action> {
        if std::mem::replace(&mut self.restarted, true) {
            let reason = "what arrived twice is not what the sender named";
            return self.give_up(Failed::new(Failure::Damaged, reason));
        }
        let attempt = self.attempt.unwrap_or_default();
        vec![self.reset(attempt), self.ask(Ask::Again, now)]
    }

    fn reset(&mut self, attempt: u32) -> Action {
        self.attempt = Some(attempt);
        self.durable = 0;
        self.received = 0;
        self.end = None;
        self.stage = Stage::Receiving;
        self.waiting = None;
        self.gap = false;
        Action::Reset(attempt)
    }

    fn give_up(&mut self, failed: Failed) -> Vec<Action> {
        self.stage = Stage::Over;
        let say = self.want(Ask::GiveUp, Some(failed.reason.clone()));
        vec![say, Action::Over(Over::Failed(failed))]
    }

    fn ask(&mut self, ask: Ask, now: Moment) -> Action {
        self.due = now.at + AGAIN.above(FLOOR, self.tries, now.dice);
        self.want(ask, None)
    }

    fn want(&self, ask: Ask, reason: Option<String>) -> Action {
        Action::Say(Want {
            transfer: self.transfer,
            attempt: self.attempt,
            offset: self.durable,
            credit: self.window.credit,
            ask,
            reason,
        })
    }
}
