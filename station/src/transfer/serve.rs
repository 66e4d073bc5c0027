//! Sends a file of the station to a node that asks for it, as it was when the message was accepted.

use steward_files::Pinned;
use steward_protocol::{
    Body, Digest,
    body::SendBody,
    transfer::{
        CHUNK, Chunk, End, FILE_RUN, Failed, Failure, Whole,
        sender::{Action, Event, Manner, Piece, Sender},
    },
};
use tokio::task::{block_in_place, spawn_blocking};

use super::{
    files::{self, FILES},
    lane::{Heard, Lane},
};
use crate::store::Carriage;

/// Serves until the node has it, gives up, or asks no more.
pub(super) async fn serve(lane: &mut Lane, carriage: &Carriage) {
    let Body::Send(body) = &carriage.body else {
        return;
    };
    // What is final is not asked for by a node that knows.
    if carriage.state.is_final() {
        let reason = "the message is settled, nothing more is sent of it";
        return lane
            .fail(carriage, Failed::new(Failure::Refused, reason))
            .await;
    }
    let pinned = match open(lane, body).await {
        Ok(pinned) => pinned,
        Err(failed) => {
            let (node, id) = (&lane.key.node, lane.key.transfer.id);
            tracing::warn!(%node, %id, reason = failed.reason, "a file is not sent");
            return lane.fail(carriage, failed).await;
        }
    };
    let chunk = CHUNK.min(lane.ground.bus.max_payload() / 2).max(1);
    let mut sender = Sender::new(Manner::Asked, FILE_RUN, chunk, lane.now());
    sender.on(Event::Available(pinned.bytes()), lane.now());
    let end = End::Whole(Whole {
        bytes: pinned.bytes(),
        blake3: pinned.blake3(),
        command: None,
    });
    sender.on(Event::Ends(&end), lane.now());
    loop {
        while let Some(piece) = sender.next(lane.now()) {
            send(lane, carriage, &pinned, &mut sender, piece).await;
            while let Ok(heard) = lane.heard.try_recv() {
                if hear(lane, &mut sender, &heard) {
                    return;
                }
            }
        }
        if sender.is_forgotten(lane.now()) {
            return;
        }
        let wake = lane.wait(sender.wake_at());
        tokio::select! {
            heard = lane.heard.recv() => match heard {
                Some(heard) if hear(lane, &mut sender, &heard) => return,
                Some(_) => {}
                None => return,
            },
            () = wake => {}
        }
    }
}

async fn open(lane: &Lane, body: &SendBody) -> Result<Pinned, Failed> {
    let (state_dir, source) = (lane.ground.state_dir.clone(), body.source.clone());
    let taken = spawn_blocking(move || files::take(&state_dir, &source)).await;
    let pinned = taken.map_err(|error| Failed::new(Failure::Storage, error.to_string()))??;
    if Some(pinned.bytes()) != body.bytes || Some(pinned.blake3()) != body.blake3 {
        let reason = format!(
            "{FILES}/{} at the station is not what it was when the message was accepted",
            body.source
        );
        return Err(Failed::new(Failure::Changed, reason));
    }
    Ok(pinned)
}

async fn send(
    lane: &Lane,
    carriage: &Carriage,
    pinned: &Pinned,
    sender: &mut Sender,
    piece: Piece,
) {
    let read = match piece.bytes {
        // The last word needs no file, which may be what is wrong.
        0 => Ok(Vec::new()),
        bytes => block_in_place(|| files::read(pinned, piece.offset, bytes)),
    };
    let bytes = match read {
        Ok(bytes) => bytes,
        Err(failed) => {
            sender.on(Event::Ends(&End::Failed(failed)), lane.now());
            return;
        }
    };
    let chunk = Chunk {
        transfer: lane.key.transfer,
        attempt: FILE_RUN,
        offset: piece.offset,
        // Not more than a chunk.
        bytes: u32::try_from(bytes.len()).unwrap_or(u32::MAX),
        blake3: Digest::of(&bytes),
        end: piece.end,
    };
    lane.chunk(&carriage.domain, chunk, &bytes).await;
}

/// Takes a word in. Returns whether it was the last one.
fn hear(lane: &Lane, sender: &mut Sender, heard: &Heard) -> bool {
    let Heard::Want(want) = heard else {
        return false;
    };
    let actions = sender.on(Event::Want(want), lane.now());
    for action in &actions {
        if let Action::GivenUp(reason) = action {
            let (node, id) = (&lane.key.node, lane.key.transfer.id);
            tracing::warn!(%node, %id, reason, "a node does not take a file");
        }
    }
    actions
        .iter()
        .any(|action| matches!(action, Action::Done | Action::GivenUp(_)))
}
