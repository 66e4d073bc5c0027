//! The courier: says again what the station has not confirmed, answers and events alike.

use std::{sync::Arc, time::Duration};

use tokio::time::{sleep, timeout};

use super::{
    context::{Born, Context},
    kernel::Fault,
    process::{ProcessError, Quit},
    pulse,
};
use crate::{
    bus::{Link, dice},
    keeper::{Back, DueReply, KeeperError, chain},
    voice::Footing,
};

/// How long a round waits for the one before it to leave.
const PACE: Duration = Duration::from_secs(10);

/// How often the journal is looked at while the station can be reached. A deadline that passes in
/// the queue is told at most this much later.
const LOOK: Duration = Duration::from_secs(1);

/// Wait after the journal could not be used.
const STORAGE_PAUSE: Duration = Duration::from_secs(5);

/// Runs the courier until it is ended from outside.
///
/// # Errors
///
/// Fails when the keeper has ended.
pub async fn run(context: Arc<Context>, mut born: Born) -> Result<Quit, ProcessError> {
    let mut footing = context.footing.subscribe();
    let mut link = context.voice.bus.link();
    let mut served: Option<Footing> = None;
    let mut raised = false;
    loop {
        let now = *footing.borrow_and_update();
        if is_heard(&now, &link.borrow_and_update()) {
            let back = if served == Some(now) {
                Back::Before
            } else {
                Back::JustNow
            };
            served = Some(now);
            match round(&context, back).await {
                Ok(Rest::More) => {
                    // Not faster than the link takes it: hellos and new answers wait behind.
                    pulse::hold(context.voice.bus.flush(PACE)).await;
                    continue;
                }
                Ok(Rest::None) => raised = false,
                Err(KeeperError::Gone) => return Err(ProcessError::Keeper(KeeperError::Gone)),
                Err(error) => {
                    if !std::mem::replace(&mut raised, true) {
                        let fault = Fault::Storage(chain(&error));
                        context.raise(&born.subject, fault).await;
                    }
                    pulse::hold(sleep(STORAGE_PAUSE)).await;
                }
            }
        }
        tokio::select! {
            changed = footing.changed() => if changed.is_err() {
                return Err(ProcessError::Cut("the desk's word"));
            },
            changed = link.changed() => if changed.is_err() {
                return Err(ProcessError::Cut("the broker link"));
            },
            () = pulse::rest() => {}
            closed = timeout(LOOK, born.mailbox.recv()) => if matches!(closed, Ok(None)) {
                return Ok(Quit::Stopping);
            },
        }
    }
}

/// Tells whether the station has welcomed this start on the connection that is up now.
fn is_heard(footing: &Footing, link: &Link) -> bool {
    match link {
        Link::Up { generation, .. } => {
            footing.welcomed.is_some() && footing.generation == *generation
        }
        Link::Down | Link::Refused(_) => false,
    }
}

/// Whether more is due at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rest {
    More,
    None,
}

async fn round(context: &Context, back: Back) -> Result<Rest, KeeperError> {
    let due: DueReply = context.keeper.due(back, dice()).await?;
    let now_ms = context.clock.now().boot_ms;
    let more = due.next_ms.is_some_and(|next| next <= now_ms)
        && !(due.acks.is_empty() && due.events.is_empty());
    for (subject, ack) in due.acks {
        context.voice.ack(&subject.domain, ack).await;
    }
    for event in due.events {
        context.voice.tell(event).await;
    }
    Ok(if more { Rest::More } else { Rest::None })
}
