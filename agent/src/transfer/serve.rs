//! The lane of something that is sent: looks at its source, does what the sending machine says.

use std::time::Duration;

use steward_protocol::{
    Digest, Domain,
    transfer::{
        CHUNK, Chunk, End, Failed,
        sender::{Action, Event, Manner, Piece, Sender},
    },
};
use tokio::task::block_in_place;

use super::{Heard, Lane, is_heard, source::Source};
use crate::supervisor::context::Context;

/// How often a source that grows is looked at while the station waits for more of it.
const LOOK: Duration = Duration::from_millis(100);

/// How a lane ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Served {
    /// The station has all of it, durably.
    Done,
    /// The station cannot take it; why.
    GivenUp(String),
    /// It could not be had, and the station knows.
    Failed(Failed),
    /// Nobody asks any more.
    Forgotten,
}

/// Something to be sent.
#[derive(Debug)]
pub(super) struct Serve {
    pub(super) lane: Lane,
    pub(super) domain: Domain,
    pub(super) source: Source,
    pub(super) manner: Manner,
    pub(super) attempt: u32,
}

impl Serve {
    /// Serves until it is over.
    pub(super) async fn run(mut self, context: &Context) -> Served {
        let bus = &context.voice.bus;
        let chunk = CHUNK.min(bus.answer_limit() / 2).max(1);
        let mut sender = Sender::new(self.manner, self.attempt, chunk, self.lane.now());
        let mut footing = context.footing.subscribe();
        let mut link = bus.link();
        loop {
            self.look(&mut sender);
            let standing = *footing.borrow_and_update();
            link.borrow_and_update();
            while is_heard(bus, &standing)
                && let Some(piece) = sender.next(self.lane.now())
            {
                if let Some(failed) = self.send(context, &mut sender, piece).await {
                    return Served::Failed(failed);
                }
                while let Some(heard) = self.lane.heard() {
                    if let Some(served) = self.hear(&mut sender, &heard) {
                        return served;
                    }
                }
            }
            let now = self.lane.now();
            if sender.is_forgotten(now) {
                return Served::Forgotten;
            }
            // Without a link there is nothing to be said; its return wakes.
            let wake = if is_heard(bus, &standing) {
                sender.wake_at().map(|at| at.max(now.at + LOOK))
            } else {
                Some(now.at + LOOK.saturating_mul(10))
            };
            let look = Some(now.at + LOOK).filter(|_| sender.is_wanted());
            let wake = self.lane.wait(look.or(wake));
            tokio::select! {
                heard = self.lane.hear() => if let Some(served) = self.hear(&mut sender, &heard) {
                    return served;
                },
                changed = footing.changed() => if changed.is_ok() {
                    sender.on(Event::Link, self.lane.now());
                },
                changed = link.changed() => if changed.is_err() {
                    return Served::Forgotten;
                },
                () = wake => {}
            }
        }
    }

    fn look(&self, sender: &mut Sender) {
        let now = self.lane.now();
        match block_in_place(|| self.source.look()) {
            Ok(look) => {
                sender.on(Event::Available(look.available), now);
                sender.on(Event::Released(look.released), now);
                if let Some(whole) = look.whole
                    && !sender.has_end()
                {
                    sender.on(Event::Ends(&End::Whole(whole)), now);
                }
            }
            Err(failed) if !sender.has_end() => {
                sender.on(Event::Ends(&End::Failed(failed)), now);
            }
            Err(_) => {}
        }
    }

    /// Says a piece. Returns why there are no more, if that is what it said.
    async fn send(&self, context: &Context, sender: &mut Sender, piece: Piece) -> Option<Failed> {
        let read = match piece.bytes {
            // The last word needs no source, which may be what is wrong.
            0 => Ok(Vec::new()),
            bytes => block_in_place(|| self.source.read(piece.offset, bytes)),
        };
        let bytes = match read {
            Ok(bytes) => bytes,
            Err(failed) => {
                sender.on(Event::Ends(&End::Failed(failed)), self.lane.now());
                return None;
            }
        };
        let failed = match &piece.end {
            Some(End::Failed(failed)) => Some(failed.clone()),
            Some(End::Whole(_)) | None => None,
        };
        let chunk = Chunk {
            transfer: self.lane.transfer(),
            attempt: self.attempt,
            offset: piece.offset,
            // Not more than a chunk.
            bytes: u32::try_from(bytes.len()).unwrap_or(u32::MAX),
            blake3: Digest::of(&bytes),
            end: piece.end,
        };
        let voice = &context.voice;
        context
            .transfers
            .say(voice, &self.domain, chunk, &bytes)
            .await;
        failed
    }

    fn hear(&self, sender: &mut Sender, heard: &Heard) -> Option<Served> {
        let Heard::Want(want) = heard else {
            return None;
        };
        for action in sender.on(Event::Want(want), self.lane.now()) {
            match action {
                // Only what is offered is the station's from now on; what it asked for stays. It may have
                // asked before the offer was made.
                Action::Release(upto)
                    if self.manner == Manner::Offered || self.source.is_awaited() =>
                {
                    block_in_place(|| self.source.release(upto));
                }
                Action::Release(_) => {}
                Action::Done => return Some(Served::Done),
                Action::GivenUp(reason) => return Some(Served::GivenUp(reason)),
            }
        }
        None
    }
}
