//! Receives an output or a file of a node: does what the receiving machine says with the place it has.

use std::{collections::VecDeque, io, time::Duration};

use steward_files::Sink;
use steward_protocol::{
    Body,
    transfer::{
        FILE_RUN, Failed, Failure, What, Whole,
        receiver::{Action, Event, Over, Receiver, Window},
    },
};
use tokio::task::block_in_place;

use super::{
    Cause,
    lane::{Ended, Heard, Lane},
    results::Place,
    shelf::{Record, Shelf},
};
use crate::store::Carriage;

/// Bytes of one transfer on their way at once: little enough for commands not to wait behind them.
const CREDIT: u64 = 1 << 20;

/// Bytes made durable at a time.
const STEP: u64 = 256 << 10;

/// How long a node may be silent before its transfer is put aside; it begins again when it is offered.
const PATIENCE: Duration = Duration::from_secs(600);

/// Where the bytes go, and what becomes of them.
struct Vessel {
    shelf: Shelf,
    sink: Sink,
    run: u32,
    /// Where the file goes when it is complete; none for an output.
    place: Option<Place>,
    /// Whether it was said that the disk does not take it.
    told: bool,
}

/// Receives until it is over. Returns nothing when the node is silent, or nobody cares any more.
pub(super) async fn receive(lane: &mut Lane, carriage: &Carriage, cause: Cause) -> Option<Ended> {
    let mut vessel = match open(lane, carriage) {
        Ok(vessel) => vessel,
        Err(failed) => return Some(Ended::Failed(failed)),
    };
    let known = vessel.shelf.record();
    if let Some(record) = known
        && !is_outdated(lane, &record)
    {
        done(lane, carriage, &record);
        return Some(Ended::Done(record));
    }
    let window = Window {
        credit: CREDIT,
        step: STEP,
        most: lane.ground.outputs_bytes,
    };
    let durable = vessel.sink.durable();
    let run = vessel.shelf.run().or(match lane.key.transfer.what {
        What::File => Some(FILE_RUN),
        What::Output => None,
    });
    let mut receiver = Receiver::new(lane.key.transfer, window, run, durable);
    show(lane, run, durable);
    let mut view = lane.ground.bus.watch();
    let mut silent_since = lane.now().at;
    let mut over = tell(
        lane,
        carriage,
        &mut vessel,
        (&mut receiver, Event::Begin, &[]),
    )
    .await;
    loop {
        if over.is_some() {
            return over;
        }
        if lane.now().at > silent_since + PATIENCE || is_forgotten(lane, carriage, cause) {
            return None;
        }
        let connected = view.borrow_and_update().connected;
        let wake = lane.wait(receiver.wake_at());
        over = tokio::select! {
            heard = lane.heard.recv() => match heard {
                Some(Heard::Chunk(chunk, bytes)) => {
                    silent_since = lane.now().at;
                    tell(lane, carriage, &mut vessel, (&mut receiver, Event::Chunk(&chunk), &bytes)).await
                }
                Some(Heard::Want(_)) => None,
                None => return None,
            },
            changed = view.changed() => match changed {
                Ok(()) => tell(lane, carriage, &mut vessel, (&mut receiver, Event::Begin, &[])).await,
                Err(_) => return None,
            },
            () = wake, if connected => {
                tell(lane, carriage, &mut vessel, (&mut receiver, Event::Time, &[])).await
            }
        };
    }
}

fn open(lane: &Lane, carriage: &Carriage) -> Result<Vessel, Failed> {
    let (ground, key) = (&lane.ground, &lane.key);
    let (id, node) = (key.transfer.id, &key.node);
    let (shelf, place) = match &carriage.body {
        Body::Fetch(body) if key.transfer.what == What::File => {
            let place = Place::of(&body.path, carriage.reply.as_ref(), node);
            let place = place.ok_or_else(|| {
                let reason = "its name cannot be used below results/; give it one with \"reply\": {\"file_name\": …}";
                Failed::new(Failure::Refused, reason)
            })?;
            (Shelf::of_file(&ground.state_dir, id, node), Some(place))
        }
        _ => (Shelf::of_output(&ground.state_dir, id, node), None),
    };
    let (run, sink) = block_in_place(|| shelf.open()).map_err(|error| storage(&shelf, &error))?;
    Ok(Vessel {
        shelf,
        sink,
        run: run.unwrap_or(FILE_RUN),
        place,
        told: false,
    })
}

fn storage(shelf: &Shelf, error: &io::Error) -> Failed {
    let shown = shelf.bytes().display().to_string();
    Failed::new(
        Failure::Storage,
        format!("{shown} cannot be written: {error}"),
    )
}

/// Tells whether the node speaks of a later run than the one that is here already.
fn is_outdated(lane: &mut Lane, record: &Record) -> bool {
    // Whoever only asks here is answered with what is here.
    let heard = lane.heard.try_recv();
    matches!(heard, Ok(Heard::Chunk(chunk, _)) if chunk.attempt > record.run)
}

/// Tells whether an output is fetched for somebody who is not there any more.
fn is_forgotten(lane: &Lane, carriage: &Carriage, cause: Cause) -> bool {
    cause == Cause::Asked && !carriage.stream && lane.progress.receiver_count() <= 1
}

fn show(lane: &Lane, run: Option<u32>, bytes: u64) {
    lane.progress.send_modify(|progress| {
        progress.run = run;
        progress.bytes = bytes;
    });
}

/// Says once more that all of it is here.
fn done(lane: &Lane, carriage: &Carriage, record: &Record) {
    let want = steward_protocol::transfer::Want {
        transfer: lane.key.transfer,
        attempt: Some(record.run),
        offset: record.whole.bytes,
        credit: 0,
        ask: steward_protocol::transfer::Ask::Done,
        reason: None,
    };
    lane.want(&carriage.domain, want);
}

/// Tells the machine what happened, and does what it says.
async fn tell(
    lane: &Lane,
    carriage: &Carriage,
    vessel: &mut Vessel,
    (receiver, event, bytes): (&mut Receiver, Event<'_>, &[u8]),
) -> Option<Ended> {
    let mut actions: VecDeque<Action> = receiver.on(event, lane.now()).into();
    while let Some(action) = actions.pop_front() {
        let before = receiver.durable();
        match act(lane, carriage, vessel, (&action, bytes)) {
            Ok(Some(Next::Over(ended))) => return Some(ended),
            Ok(Some(Next::Tell(event))) => actions.extend(receiver.on(event, lane.now())),
            Ok(None) => {}
            Err(error) => {
                if !std::mem::replace(&mut vessel.told, true) {
                    let failed = storage(&vessel.shelf, &error);
                    tracing::warn!(node = %lane.key.node, id = %lane.key.transfer.id, reason = failed.reason, "what a node sends cannot be written; it is tried again");
                }
                if let Err(error) = block_in_place(|| vessel.sink.go_back()) {
                    return Some(Ended::Failed(storage(&vessel.shelf, &error)));
                }
                actions = receiver.on(Event::Stuck, lane.now()).into();
            }
        }
        show(lane, Some(vessel.run), receiver.received());
        // What was made durable is what is asked for anew.
        let grown = receiver.durable().saturating_sub(before);
        if grown > 0 {
            lane.ground.pace(&lane.key.node, grown).await;
        }
    }
    None
}

/// What follows from an action that was done.
enum Next {
    Tell(Event<'static>),
    Over(Ended),
}

fn act(
    lane: &Lane,
    carriage: &Carriage,
    vessel: &mut Vessel,
    (action, bytes): (&Action, &[u8]),
) -> io::Result<Option<Next>> {
    match action {
        Action::Say(want) => {
            lane.want(&carriage.domain, want.clone());
            Ok(None)
        }
        Action::Reset(run) => {
            vessel.run = *run;
            block_in_place(|| vessel.shelf.begin(*run, &mut vessel.sink))?;
            Ok(None)
        }
        Action::Append(known) => {
            let new = bytes.get(*known..).unwrap_or_default();
            block_in_place(|| vessel.sink.append(new))?;
            Ok(None)
        }
        Action::Sync => {
            block_in_place(|| vessel.sink.sync())?;
            vessel.told = false;
            Ok(Some(Next::Tell(Event::Synced)))
        }
        Action::Verify(whole) => {
            let right =
                vessel.sink.durable() == whole.bytes && vessel.sink.blake3() == whole.blake3;
            if !right {
                return Ok(Some(Next::Tell(Event::Wrong)));
            }
            block_in_place(|| finish(lane, vessel, whole))?;
            Ok(Some(Next::Tell(Event::Right)))
        }
        Action::Over(Over::Done(whole)) => {
            let record = vessel
                .shelf
                .record()
                .unwrap_or_else(|| vessel.record(whole));
            Ok(Some(Next::Over(Ended::Done(record))))
        }
        Action::Over(Over::Failed(failed)) => Ok(Some(Next::Over(Ended::Failed(failed.clone())))),
    }
}

/// Makes what is complete stay, before the node is told that it may forget it.
fn finish(lane: &Lane, vessel: &Vessel, whole: &Whole) -> io::Result<()> {
    if let Some(place) = &vessel.place {
        let from = vessel.sink.path();
        // A restart between the two finds it there already.
        match place.put(&lane.ground.state_dir, from) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && !from.exists() => {}
            put => put?,
        }
    }
    vessel.shelf.finish(&vessel.record(whole))
}

impl Vessel {
    fn record(&self, whole: &Whole) -> Record {
        Record {
            run: self.run,
            whole: whole.clone(),
            placed: self.place.as_ref().map(Place::shown),
        }
    }
}
