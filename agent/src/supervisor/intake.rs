//! Takes orders in: reads, checks, offers them to the journal with one commit, answers.

use std::time::Duration;

use steward_protocol::{Ack, Body, Deferral, Subject};
use tokio::time::timeout;

use super::context::{Context, Mail};
use crate::{
    check::{self, Unreadable},
    child::cgroup::{Insist, lacking},
    journal::{Offer, Offered, Stance, Ticket, Unread},
    keeper::KeeperError,
    method::Work,
};

/// How long orders wait for the welcome they came right behind: another process hears it, and what is
/// offered before it is not answered and comes again only seconds later.
const WELCOME_PATIENCE: Duration = Duration::from_secs(2);

/// Waits a moment for the station's welcome, if this start has not had one.
pub(super) async fn await_welcome(context: &Context) {
    let mut footing = context.footing.subscribe();
    let welcomed = footing.wait_for(|footing| footing.welcomed.is_some());
    // Without it the orders are counted and not answered, as the check says.
    timeout(WELCOME_PATIENCE, welcomed).await.ok();
}

/// What came of a batch.
#[derive(Debug, Default)]
pub(super) struct Intake {
    /// New orders, durable now, in the order of their arrival.
    pub(super) taken: Vec<Taken>,
    /// Whether an order arrived that was known; its deadline may have been refreshed.
    pub(super) repeated: bool,
    /// Why nothing could be taken.
    pub(super) failed: Option<KeeperError>,
}

/// A new order.
#[derive(Debug, Clone, Copy)]
pub(super) struct Taken {
    pub(super) ticket: Ticket,
    pub(super) ordered: bool,
}

/// Takes a batch in.
pub(super) async fn take(context: &Context, mail: Vec<Mail>) -> Intake {
    let mut offers = Vec::new();
    let mut intake = Intake::default();
    for mail in mail {
        let Mail::Order {
            subject,
            payload,
            stance,
        } = mail
        else {
            continue;
        };
        match check::read(&subject, &payload) {
            Ok(envelope) => {
                let checked = check::policy(envelope.body.order(), context.config.policy())
                    .and_then(|work| holdable(context, &work));
                let stance = match (checked, stance) {
                    (Err(reason), _) => Stance::Refuse(reason),
                    (Ok(()), Stance::Serve) if context.is_stopping() => {
                        Stance::Hold(Deferral::Stopping)
                    }
                    (Ok(()), stance) => stance,
                };
                offers.push(Offer {
                    send: envelope.send,
                    order: envelope.body,
                    stance,
                });
            }
            Err(Unreadable::Garbage { counter, detail }) => {
                context.counters.note(counter, &detail);
            }
            Err(Unreadable::Version { id, digest, reason }) => {
                let unread = Unread {
                    id,
                    digest,
                    subject,
                    reason,
                };
                refuse(context, unread, &mut intake).await;
            }
        }
    }
    if !offers.is_empty() {
        offer(context, offers, &mut intake).await;
    }
    intake
}

/// Checks that this node can hold the limits that are asked for, or need not.
fn holdable(context: &Context, work: &Work) -> Result<(), String> {
    let Body::Shell(body) = &work.body else {
        return Ok(());
    };
    let limits = body.limits.unwrap_or_default();
    let missing = context.nursery.cgroups().missing(&limits);
    match context.config.limits {
        Insist::Require if !missing.is_empty() => Err(format!("limits: {}", lacking(&missing))),
        Insist::Require | Insist::BestEffort => Ok(()),
    }
}

async fn refuse(context: &Context, unread: Unread, intake: &mut Intake) {
    let subject = unread.subject.clone();
    match context.keeper.refuse(unread).await {
        Ok(reply) => answer(context, &subject, reply.ack).await,
        // It comes again; nothing can be said of an order in a version that is not ours.
        Err(error) => intake.failed = Some(error),
    }
}

async fn offer(context: &Context, offers: Vec<Offer>, intake: &mut Intake) {
    let heads: Vec<(Subject, bool, Ack)> = offers
        .iter()
        .map(|offer| {
            let order = offer.order.order();
            let ordered = order.ordered && offer.send.seq.is_some();
            (order.subject.clone(), ordered, no_storage(context, offer))
        })
        .collect();
    let replies = match context.keeper.offer(offers).await {
        Ok(replies) => replies,
        Err(error) => {
            for (subject, _, ack) in heads {
                context.voice.ack(&subject.domain, ack).await;
            }
            intake.failed = Some(error);
            return;
        }
    };
    for (reply, (subject, ordered, _)) in replies.into_iter().zip(heads) {
        match reply.offered {
            Offered::Taken(ticket) => intake.taken.push(Taken { ticket, ordered }),
            Offered::Stands(_) => intake.repeated = true,
            Offered::Ignored(counter) => {
                context
                    .counters
                    .note(counter, &format!("an order on {subject}"));
            }
            Offered::Deferred { .. } => {}
        }
        answer(context, &subject, reply.ack).await;
    }
}

async fn answer(context: &Context, subject: &Subject, ack: Option<Ack>) {
    if let Some(ack) = ack {
        context.voice.ack(&subject.domain, ack).await;
    }
}

/// The answer when nothing can be made durable (rule J8).
fn no_storage(context: &Context, offer: &Offer) -> Ack {
    let named = (offer.order.order().id, offer.order.digest());
    Ack::deferred(named, Deferral::Storage, context.clock.now().wall)
}
