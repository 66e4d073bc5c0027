//! The heartbeat: says hello at every connection, every interval, and soon after the list of
//! processes changed.

use std::{sync::Arc, time::Duration};

use steward_protocol::Hello;
use tokio::time::{Instant, sleep_until};

use super::{
    context::{Born, Context},
    process::{ProcessError, Quit},
};
use crate::{bus::Link, keeper::KeeperError, method::hello::Presence};

/// Changes of the list within this time share one hello.
const COALESCE: Duration = Duration::from_millis(200);

/// Runs the heartbeat until it is ended from outside.
///
/// # Errors
///
/// Fails when the keeper has ended.
pub async fn run(context: Arc<Context>, mut born: Born) -> Result<Quit, ProcessError> {
    let mut link = context.voice.bus.link();
    let mut processes = context.introduction.processes.clone();
    let mut due = Instant::now();
    let mut last = None;
    let mut greeted = 0;
    loop {
        let up = generation(&link.borrow_and_update());
        if let Some(generation) = up
            && (generation > greeted || Instant::now() >= due)
        {
            greeted = generation;
            beat(&context, Presence::Staying)
                .await
                .map_err(ProcessError::Keeper)?;
            processes.mark_unchanged();
            last = Some(Instant::now());
            due = Instant::now() + context.config.heartbeat;
        }
        tokio::select! {
            changed = link.changed() => if changed.is_err() {
                return Err(ProcessError::Cut("the broker link"));
            },
            changed = processes.changed() => {
                if changed.is_err() {
                    return Err(ProcessError::Cut("the list of processes"));
                }
                let soon = last.map_or_else(Instant::now, |last: Instant| {
                    (last + COALESCE).max(Instant::now() + COALESCE)
                });
                due = due.min(soon);
            },
            closed = born.mailbox.recv() => if closed.is_none() {
                return Ok(Quit::Stopping);
            },
            () = sleep_until(due), if up.is_some() => {},
        }
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
