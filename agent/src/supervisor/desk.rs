//! The desk: hears the station's welcomes, confirmations and cancellations, and refuses what no
//! process serves.

use std::{sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use steward_protocol::{Confirm, DecodeError, Frame, LedgerId, Reign, Welcome};

use super::{
    cancel,
    context::{Born, Context, Mail},
    intake,
    kernel::Fault,
    process::{ProcessError, Quit},
    pulse,
};
use crate::{
    bus::Link,
    counters::Counter,
    journal::{Identity, Welcomed, What, Word},
    keeper::chain,
    voice::Footing,
};

/// Most frames dealt with at a time.
const BATCH: usize = 64;

/// Runs the desk until the supervisor lets go of its mailbox.
///
/// # Errors
///
/// Never by itself; a panic is the supervisor's business.
pub async fn run(context: Arc<Context>, mut born: Born) -> Result<Quit, ProcessError> {
    let mut batch = Vec::new();
    while pulse::hold(born.mailbox.recv_many(&mut batch, BATCH)).await > 0 {
        let (mut orders, mut cancels) = (Vec::new(), Vec::new());
        for mail in batch.drain(..) {
            match mail {
                Mail::Order { .. } => orders.push(mail),
                Mail::Cancel { subject, payload } => cancels.push((subject, payload)),
                Mail::Welcome(frame) => welcome(&context, &born, &frame).await,
                Mail::Confirm(frame) => confirm(&context, &born, &frame).await,
                Mail::Want { .. } | Mail::Content { .. } | Mail::Kept { .. } => {}
            }
        }
        if let Some(error) = cancel::take(&context, cancels).await {
            let fault = Fault::Storage(chain(&error));
            context.raise(&born.subject, fault).await;
        }
        if !orders.is_empty() {
            let intake = intake::take(&context, orders).await;
            if let Some(error) = intake.failed {
                context
                    .raise(&born.subject, Fault::Storage(chain(&error)))
                    .await;
            }
        }
    }
    Ok(Quit::Stopping)
}

async fn welcome(context: &Context, born: &Born, frame: &[u8]) {
    let welcome = match Frame::<Reign, Welcome>::decode(frame) {
        Ok(welcome) => welcome,
        Err(error) => return garbage(context, "a welcome", &error),
    };
    let skew = measure(context, &welcome.body);
    let word = Word {
        reign: welcome.send,
        what: What::Welcome { skew: Some(skew) },
    };
    let Some((welcomed, identity)) = hear(context, born, word).await else {
        return;
    };
    match welcomed {
        Welcomed::Heard => {}
        Welcomed::Pinned(ledger_id) => {
            tracing::info!(%ledger_id, "this node now belongs to this ledger, the first that welcomed it");
        }
        Welcomed::TakenOver(ledger_id) => {
            tracing::warn!(%ledger_id, "this ledger took over this node, as --accept-ledger allows");
        }
        Welcomed::Superseded => {
            tracing::warn!(
                "the station welcomed another start of this node: nothing begins here until it welcomes this one again"
            );
            // The heartbeat says hello at once, and frames wait for the answer.
            context
                .footing
                .send_modify(|footing| footing.welcomed = None);
            return;
        }
        Welcomed::Foreign(_) | Welcomed::Stale | Welcomed::OtherInstance => return,
    }
    stand(context, identity);
}

/// Tells everybody whom this start obeys.
fn stand(context: &Context, identity: Identity) {
    let generation = match &*context.voice.bus.link().borrow() {
        Link::Up { generation, .. } => *generation,
        Link::Down | Link::Refused(_) => return,
    };
    let footing = Footing {
        welcomed: identity
            .pinned
            .map(|pinned| (pinned.ledger_id, pinned.epoch)),
        generation,
    };
    context.footing.send_if_modified(|known| {
        let changed = *known != footing;
        *known = footing;
        changed
    });
}

async fn confirm(context: &Context, born: &Born, frame: &[u8]) {
    let confirm = match Frame::<Reign, Confirm>::decode(frame) {
        Ok(confirm) => confirm,
        Err(error) => return garbage(context, "a confirmation", &error),
    };
    let word = Word {
        reign: confirm.send,
        what: What::Confirm {
            orders: confirm.body.orders,
            events: confirm.body.events,
        },
    };
    hear(context, born, word).await;
}

/// Makes the station's word durable, and counts it when it is not our station's word.
async fn hear(context: &Context, born: &Born, word: Word) -> Option<(Welcomed, Identity)> {
    let (welcomed, identity) = match context.keeper.word(word).await {
        Ok(heard) => heard,
        Err(error) => {
            let fault = Fault::Storage(chain(&error));
            context.raise(&born.subject, fault).await;
            return None;
        }
    };
    let counters = &context.counters;
    match welcomed {
        Welcomed::Heard | Welcomed::Pinned(_) | Welcomed::TakenOver(_) => {}
        Welcomed::Foreign(ledger_id) => {
            counters.note(Counter::ForeignLedger, &foreign(ledger_id, &identity));
        }
        Welcomed::Stale => counters.note(Counter::StaleReign, &"the station has a later reign"),
        Welcomed::OtherInstance | Welcomed::Superseded => {
            counters.count(Counter::OtherInstance);
        }
    }
    Some((welcomed, identity))
}

fn foreign(ledger_id: LedgerId, identity: &Identity) -> String {
    match identity.pinned {
        Some(pinned) => format!(
            "ledger {ledger_id} spoke, but this node belongs to ledger {}; if the station was replaced, start the agent once with --accept-ledger {ledger_id}",
            pinned.ledger_id
        ),
        None => format!("ledger {ledger_id} confirmed something before it welcomed this node"),
    }
}

fn garbage(context: &Context, what: &str, error: &DecodeError) {
    context
        .counters
        .note(Counter::GarbageFrame, &format!("{what} {error}"));
}

/// Measures how far the two wall clocks are apart, counting half the round trip as the way here.
fn measure(context: &Context, welcome: &Welcome) -> Duration {
    let last = *context.last_hello.borrow();
    let way = match last {
        Some((at, sent)) if at == welcome.hello_at => {
            let round_trip = sent.elapsed();
            context.round_trip.send_replace(Some(round_trip));
            round_trip / 2
        }
        Some(_) | None => Duration::ZERO,
    };
    let here = Timestamp::now().duration_since(welcome.at);
    let way = SignedDuration::try_from(way).unwrap_or(SignedDuration::ZERO);
    (here - way).unsigned_abs()
}
