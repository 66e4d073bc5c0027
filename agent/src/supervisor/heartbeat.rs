//! The heartbeat: says hello at every connection, every interval, and soon after the list of
//! processes changed.

use std::{sync::Arc, time::Duration};

use steward_protocol::{Hello, retry::Backoff};
use tokio::time::{Instant, sleep_until};

use super::{
    context::{Born, Context},
    process::{ProcessError, Quit},
    pulse,
};
use crate::{bus::Link, keeper::KeeperError, method::hello::Presence};

/// Changes of the list within this time share one hello.
const COALESCE: Duration = Duration::from_millis(200);

/// Until the station has answered on this connection, hello is said again after these waits: it may
/// have been said before the station listened.
const UNANSWERED: Backoff = Backoff {
    base: Duration::from_secs(1),
    cap: Duration::from_secs(3600),
};

/// When hello was said, and how often without an answer.
#[derive(Debug, Default)]
struct Beats {
    /// The connection hello was last said on.
    generation: u64,
    last: Option<Instant>,
    unanswered: u32,
    /// When the list of processes is to be told.
    news: Option<Instant>,
}

impl Beats {
    /// Returns when hello is due on the connection `generation`.
    fn due(&self, generation: u64, answered: Answered, heartbeat: Duration) -> Instant {
        let Some(last) = self.last.filter(|_| self.generation == generation) else {
            return Instant::now();
        };
        let pause = match answered {
            Answered::Yes => heartbeat,
            Answered::No => UNANSWERED.bound(self.unanswered).min(heartbeat),
        };
        self.news
            .map_or(last + pause, |news| news.min(last + pause))
    }

    fn said(&mut self, generation: u64, answered: Answered) {
        let fresh = self.generation != generation || answered == Answered::Yes;
        self.unanswered = if fresh {
            0
        } else {
            self.unanswered.saturating_add(1)
        };
        self.generation = generation;
        self.last = Some(Instant::now());
        self.news = None;
    }

    fn changed(&mut self) {
        let now = Instant::now();
        let soon = self
            .last
            .map_or(now, |last| (last + COALESCE).max(now + COALESCE));
        self.news = Some(self.news.map_or(soon, |known| known.min(soon)));
    }
}

/// Whether the station has answered on this connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answered {
    Yes,
    No,
}

/// Runs the heartbeat until it is ended from outside.
///
/// # Errors
///
/// Fails when the keeper has ended.
pub async fn run(context: Arc<Context>, mut born: Born) -> Result<Quit, ProcessError> {
    let mut link = context.voice.bus.link();
    let mut processes = context.introduction.processes.clone();
    let mut beats = Beats::default();
    loop {
        let up = generation(&link.borrow_and_update());
        let mut due = None;
        if let Some(generation) = up {
            let answered = answered(&context, generation);
            let at = beats.due(generation, answered, context.config.heartbeat);
            if at <= Instant::now() {
                beat(&context, Presence::Staying)
                    .await
                    .map_err(ProcessError::Keeper)?;
                processes.mark_unchanged();
                beats.said(generation, answered);
            }
            due = Some(beats.due(generation, answered, context.config.heartbeat));
        }
        tokio::select! {
            changed = link.changed() => if changed.is_err() {
                return Err(ProcessError::Cut("the broker link"));
            },
            changed = processes.changed() => {
                if changed.is_err() {
                    return Err(ProcessError::Cut("the list of processes"));
                }
                beats.changed();
            },
            closed = born.mailbox.recv() => if closed.is_none() {
                return Ok(Quit::Stopping);
            },
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {},
            () = pulse::rest() => {},
        }
    }
}

fn answered(context: &Context, generation: u64) -> Answered {
    let footing = context.footing.borrow();
    if footing.welcomed.is_some() && footing.generation == generation {
        Answered::Yes
    } else {
        Answered::No
    }
}

fn generation(link: &Link) -> Option<u64> {
    match link {
        Link::Up { generation, .. } => Some(*generation),
        Link::Down | Link::Refused(_) => None,
    }
}

/// Says hello once.
///
/// # Errors
///
/// Fails when the keeper has ended; a journal that cannot be read for now is no reason to be silent.
pub(crate) async fn beat(context: &Context, presence: Presence) -> Result<(), KeeperError> {
    let hello: Hello = match context.introduction.hello(presence).await {
        Ok(hello) => hello,
        Err(KeeperError::Gone) => return Err(KeeperError::Gone),
        Err(error) => {
            tracing::warn!(%error, "a hello was left out");
            return Ok(());
        }
    };
    context
        .last_hello
        .send_replace(Some((hello.at, Instant::now())));
    context.voice.hello(hello).await;
    Ok(())
}
