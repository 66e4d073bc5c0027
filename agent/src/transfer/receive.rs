//! The lane of something that is received: does what the receiving machine says with a file.

use std::{collections::VecDeque, io};

use steward_files::Sink;
use steward_protocol::{
    Domain,
    transfer::{
        FILE_RUN, Failed, Failure, Whole,
        receiver::{Action, Event, Over, Receiver, Window},
    },
};
use tokio::{sync::watch, task::block_in_place};

use super::{Heard, Lane, is_heard};
use crate::supervisor::context::Context;

/// Bytes on their way at once, and how many are made durable at a time.
const CREDIT: u64 = 1 << 20;
const STEP: u64 = 256 << 10;

/// Something to be received.
#[derive(Debug)]
pub(super) struct Receive<'a> {
    pub(super) context: &'a Context,
    pub(super) lane: Lane,
    pub(super) domain: Domain,
    pub(super) sink: Sink,
    /// What it must come to.
    pub(super) expected: Whole,
    /// Since when the disk has not taken it, and why.
    pub(super) stuck: watch::Sender<Option<String>>,
}

impl Receive<'_> {
    /// Receives until all of it is here, durable and right, or never will be.
    pub(super) async fn run(mut self) -> Result<Sink, Failed> {
        let window = Window {
            credit: CREDIT,
            step: STEP,
            most: self.expected.bytes,
        };
        let durable = self.sink.durable();
        // Its bytes do not depend on the run.
        let mut receiver = Receiver::new(self.lane.transfer(), window, Some(FILE_RUN), durable);
        let mut footing = self.context.footing.subscribe();
        let mut link = self.context.voice.bus.link();
        let mut over = self.tell(&mut receiver, Event::Begin, &[]).await;
        loop {
            match over.take() {
                Some(Over::Done(_)) => return Ok(self.sink),
                Some(Over::Failed(failed)) => return Err(failed),
                None => {}
            }
            let standing = *footing.borrow_and_update();
            link.borrow_and_update();
            let wake = self.lane.wait(receiver.wake_at());
            over = tokio::select! {
                heard = self.lane.hear() => match heard {
                    Heard::Chunk(chunk, bytes) => {
                        self.tell(&mut receiver, Event::Chunk(&chunk), &bytes).await
                    }
                    Heard::Want(_) => None,
                },
                _ = footing.changed() => self.tell(&mut receiver, Event::Begin, &[]).await,
                _ = link.changed() => None,
                () = wake, if is_heard(&self.context.voice.bus, &standing) => {
                    self.tell(&mut receiver, Event::Time, &[]).await
                }
            };
        }
    }

    /// Tells the machine what happened, and does what it says.
    async fn tell(
        &mut self,
        receiver: &mut Receiver,
        event: Event<'_>,
        bytes: &[u8],
    ) -> Option<Over> {
        let mut actions: VecDeque<Action> = receiver.on(event, self.lane.now()).into();
        while let Some(action) = actions.pop_front() {
            let done = match &action {
                Action::Say(want) => {
                    self.context.voice.want(&self.domain, want.clone()).await;
                    continue;
                }
                Action::Over(over) => return Some(over.clone()),
                Action::Verify(whole) => {
                    let event = if self.is_right(whole) {
                        Event::Right
                    } else {
                        Event::Wrong
                    };
                    actions.extend(receiver.on(event, self.lane.now()));
                    continue;
                }
                Action::Reset(_) => block_in_place(|| self.sink.reset()),
                Action::Append(known) => {
                    let new = bytes.get(*known..).unwrap_or_default();
                    block_in_place(|| self.sink.append(new))
                }
                Action::Sync => block_in_place(|| self.sink.sync()),
            };
            match done {
                Ok(()) if action == Action::Sync => {
                    self.stuck.send_replace(None);
                    actions.extend(receiver.on(Event::Synced, self.lane.now()));
                }
                Ok(()) => {}
                Err(error) => {
                    self.trouble(&error);
                    if let Err(error) = block_in_place(|| self.sink.go_back()) {
                        return Some(Over::Failed(Failed::new(
                            Failure::Storage,
                            format!("{} cannot be written: {error}", self.sink.path().display()),
                        )));
                    }
                    actions = receiver.on(Event::Stuck, self.lane.now()).into();
                }
            }
        }
        None
    }

    fn is_right(&self, whole: &Whole) -> bool {
        whole.bytes == self.expected.bytes
            && whole.blake3 == self.expected.blake3
            && self.sink.durable() == whole.bytes
            && self.sink.blake3() == whole.blake3
    }

    fn trouble(&mut self, error: &io::Error) {
        if self.stuck.borrow().is_none() {
            let path = self.sink.path().display().to_string();
            tracing::warn!(path, %error, "a file that is being received cannot be written; it is tried again");
        }
        self.stuck.send_replace(Some(error.to_string()));
    }
}
