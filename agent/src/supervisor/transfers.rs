//! The process of transfers: reads what the station wants and sends, and passes it to the lane of
//! the transfer; begins a lane where the station asks for an output. Decides nothing about bytes.

use std::{sync::Arc, time::Duration};

use steward_protocol::{
    Digest, Domain, Frame,
    transfer::{Ask, Chunk, End, FILE_RUN, Failed, Failure, Packet, Passage, Transfer, Want, What},
};
use tokio::time::{MissedTickBehavior, interval};

use super::{
    context::{Born, Context, Mail},
    process::{ProcessError, Quit},
    pulse,
};
use crate::{
    counters::Counter,
    transfer::{Heard, stream},
};

/// Most frames taken at a time.
const BATCH: usize = 64;

/// How often the directories of commands are looked through for outputs that are to go to the
/// station and are not on their way.
const LOOK: Duration = Duration::from_secs(30);

/// Runs until the supervisor lets go of its mailbox.
///
/// # Errors
///
/// Never by itself; a panic is the supervisor's business.
pub async fn run(context: Arc<Context>, mut born: Born) -> Result<Quit, ProcessError> {
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut batch = Vec::new();
    loop {
        tokio::select! {
            taken = born.mailbox.recv_many(&mut batch, BATCH) => if taken == 0 {
                return Ok(Quit::Stopping);
            },
            _ = looks.tick() => stream::resume(&context).await,
            () = pulse::rest() => {}
        }
        for mail in batch.drain(..) {
            match mail {
                Mail::Want { domain, payload } => want(&context, &domain, &payload).await,
                Mail::Content { payload } => content(&context, &payload),
                Mail::Order { .. }
                | Mail::Cancel { .. }
                | Mail::Welcome(_)
                | Mail::Confirm(_)
                | Mail::Kept { .. } => {}
            }
        }
    }
}

async fn want(context: &Arc<Context>, domain: &Domain, payload: &[u8]) {
    let frame = match Frame::<Passage, Want>::decode(payload) {
        Ok(frame) => frame,
        Err(error) => {
            let detail = format!("a want {error}");
            return context.counters.note(Counter::GarbageFrame, &detail);
        }
    };
    if !is_ours(context, &frame.send) {
        return;
    }
    let (transfer, ask) = (frame.body.transfer, frame.body.ask);
    let Some(unheard) = context.transfers.tell(&transfer, Heard::Want(frame.body)) else {
        return;
    };
    // Who is done or gives up needs no answer.
    if !matches!(ask, Ask::More | Ask::Again) {
        return;
    }
    let begun = match transfer.what {
        What::Output => stream::ask(context, transfer, domain.clone()),
        What::File => Err(Failed::new(
            Failure::Unknown,
            "this node is not at work on it",
        )),
    };
    match begun {
        // It is asked again, should the lane not be there yet.
        Ok(()) => drop(context.transfers.tell(&transfer, unheard)),
        Err(failed) => refuse(context, domain, transfer, failed).await,
    }
}

async fn refuse(context: &Context, domain: &Domain, transfer: Transfer, failed: Failed) {
    let chunk = Chunk {
        transfer,
        attempt: FILE_RUN,
        offset: 0,
        bytes: 0,
        blake3: Digest::of(b""),
        end: Some(End::Failed(failed)),
    };
    context.voice.chunk(domain, chunk, b"").await;
}

fn content(context: &Context, payload: &[u8]) {
    let packet = match Packet::<Passage>::decode(payload) {
        Ok(packet) => packet,
        Err(error) => {
            let detail = format!("a chunk {error}");
            return context.counters.note(Counter::GarbageFrame, &detail);
        }
    };
    if !is_ours(context, &packet.send) {
        return;
    }
    let transfer = packet.chunk.transfer;
    // What nobody is at work on was wanted by an earlier start.
    drop(
        context
            .transfers
            .tell(&transfer, Heard::Chunk(packet.chunk, packet.bytes)),
    );
}

/// Tells whether it is the word of the station this start obeys, of its present reign or a newer one.
fn is_ours(context: &Context, passage: &Passage) -> bool {
    let welcomed = context.footing.borrow().welcomed;
    match welcomed {
        None => context.counters.count(Counter::BeforeWelcome),
        Some((ledger_id, _)) if ledger_id != passage.ledger_id => {
            let detail = format!("ledger {} speaks of a transfer", passage.ledger_id);
            context.counters.note(Counter::ForeignLedger, &detail);
        }
        Some((_, epoch)) if epoch > passage.epoch => {
            context.counters.count(Counter::StaleReign);
        }
        Some(_) => return true,
    }
    false
}
