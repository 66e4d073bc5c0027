//! Takes cancellations in: reads, checks, asks the journal with one commit, tells whoever is at work
//! on such an order, answers.

use steward_protocol::{Ack, Deferral, Domain, Subject};

use super::context::Context;
use crate::{
    check,
    journal::{Cancellation, Cancelled, Revoked},
    keeper::{CancelReply, KeeperError},
};

/// Takes a batch in. Returns why nothing could be written down, if that is so.
pub(super) async fn take(
    context: &Context,
    frames: Vec<(Subject, Vec<u8>)>,
) -> Option<KeeperError> {
    let mut cancellations = Vec::new();
    for (subject, payload) in frames {
        match check::read_cancel(&subject, &payload) {
            Ok(cancellation) => cancellations.push(cancellation),
            Err((counter, detail)) => context.counters.note(counter, &detail),
        }
    }
    if cancellations.is_empty() {
        return None;
    }
    let (replies, failed) = match context.keeper.cancel(cancellations.clone()).await {
        Ok(replies) => (Some(replies), None),
        Err(error) => {
            let halted = context.keeper.halt(cancellations.clone()).await;
            (halted.ok(), Some(error))
        }
    };
    match replies {
        Some(replies) => {
            for (reply, cancellation) in replies.into_iter().zip(cancellations) {
                act(context, reply, &cancellation).await;
            }
        }
        None => {
            for cancellation in cancellations {
                let ack = no_storage(context, &cancellation);
                answer(context, &cancellation.body.subject.domain, ack).await;
            }
        }
    }
    failed
}

async fn act(context: &Context, reply: CancelReply, cancellation: &Cancellation) {
    let cancel = &cancellation.body;
    match reply.cancelled {
        Cancelled::Stop(ticket) => {
            tracing::info!(id = %cancel.id, by = cancel.by, "an order at work is cancelled");
            context.revocations.revoke(ticket, &Revoked::by(cancel));
        }
        Cancelled::Ignored(counter) => {
            let detail = format!("the cancellation of order {}", cancel.id);
            context.counters.note(counter, &detail);
        }
        Cancelled::Over(_) | Cancelled::Deferred { .. } => {}
    }
    if let Some(ack) = reply.ack {
        answer(context, &cancel.subject.domain, ack).await;
    }
}

async fn answer(context: &Context, domain: &Domain, ack: Ack) {
    context.voice.ack(domain, ack).await;
}

/// The answer when nothing can be made durable, nor be looked at (rule J8).
fn no_storage(context: &Context, cancellation: &Cancellation) -> Ack {
    let named = (cancellation.body.id, cancellation.body.digest);
    Ack::deferred(named, Deferral::Storage, context.clock.now().wall)
}
