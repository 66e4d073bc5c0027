//! Outputs of commands: offered while they run, if the order says so, and served when asked for.
//!
//! A directory of a command whose output is to go to the station has a note in it. It stays until
//! the station has all of it, so that a new start of the agent finds it again.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use steward_protocol::{
    Domain, MessageId, Sealed,
    transfer::{Failed, Failure, Transfer, What, sender::Manner},
};
use tokio::{
    task::{block_in_place, spawn_blocking},
    time::sleep,
};

use super::{
    Taken,
    serve::{Serve, Served},
    source::Source,
};
use crate::{
    child::{
        log::{Log, LogError},
        place::Place,
    },
    keeper::chain,
    supervisor::context::Context,
};

/// The note that an output is to go to the station.
const NOTE: &str = "stream.json";

/// The name of the note once the station has all of it.
const DELIVERED: &str = "delivered.json";

/// How often what nobody takes is released.
const LET_GO: Duration = Duration::from_millis(200);

/// Where the directories of commands are, below the agent's state directory.
pub const CHILDREN: &str = "children";

/// What is noted of an output that is to go to the station.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// Which transfer it is.
    pub transfer: Transfer,
    /// Its order's domain.
    pub domain: Domain,
    /// Which run of the order.
    pub attempt: u32,
}

impl Note {
    /// Returns the note for a run of an order.
    pub fn of(order: &Sealed, attempt: u32) -> Self {
        Self {
            transfer: Transfer {
                id: order.order().id,
                digest: order.digest(),
                what: What::Output,
            },
            domain: order.order().subject.domain.clone(),
            attempt,
        }
    }
}

/// Tells whether the output in `dir` is still to go to the station.
pub fn is_awaited(dir: &Path) -> bool {
    dir.join(NOTE).exists()
}

/// Begins to offer the output of a command that was started in `dir`. Calling it again does no harm.
pub fn stream(context: &Arc<Context>, dir: &Path, note: Note) {
    if let Err(error) = block_in_place(|| write(dir, &note)) {
        tracing::warn!(dir = %dir.display(), %error, "that an output goes to the station was not noted; a restart would forget it");
    }
    offer(context, dir.to_owned(), note);
}

fn write(dir: &Path, note: &Note) -> io::Result<()> {
    let path = dir.join(NOTE);
    if path.exists() || dir.join(DELIVERED).exists() {
        return Ok(());
    }
    fs::write(path, serde_json::to_vec(note)?)
}

fn offer(context: &Arc<Context>, dir: PathBuf, note: Note) {
    if context.transfers.is_at_work(&note.transfer) {
        return;
    }
    let context = Arc::clone(context);
    // Whatever becomes of it, the note stays, and the next look begins it again.
    tokio::spawn(async move {
        let id = note.transfer.id;
        let transfer = note.transfer;
        let request = Request {
            transfer,
            domain: note.domain,
            attempt: note.attempt,
            manner: Manner::Offered,
        };
        match serve(&context, &dir, request).await {
            Ok(Served::Done) => settle(&dir),
            Ok(Served::GivenUp(reason)) => {
                tracing::warn!(%id, reason, "the station does not take an output");
                let_go(&dir).await;
                settle(&dir);
            }
            Ok(Served::Failed(failed)) => {
                tracing::warn!(%id, reason = failed.reason, "an output cannot go to the station");
                settle(&dir);
            }
            Ok(Served::Forgotten) => {}
            Err(error) => {
                tracing::debug!(%id, error = chain(&error), "an output is not offered now");
            }
        }
    });
}

/// Lets a command go on whose output nobody takes: what it writes is released as it comes.
async fn let_go(dir: &Path) {
    let Ok(log) = block_in_place(|| Log::open(Place::new(dir))) else {
        return;
    };
    loop {
        let ended = block_in_place(|| {
            let ended = log.end().map_or(true, |end| end.is_some());
            let released = log.length().and_then(|length| log.release(length));
            ended || released.is_err()
        });
        if ended {
            return;
        }
        sleep(LET_GO).await;
    }
}

/// Nothing more of it is to go to the station.
fn settle(dir: &Path) {
    let renamed = block_in_place(|| fs::rename(dir.join(NOTE), dir.join(DELIVERED)));
    if let Err(error) = renamed {
        tracing::debug!(dir = %dir.display(), %error, "that an output was delivered was not noted");
    }
}

/// Begins to offer every output that is to go to the station and is not on its way.
pub async fn resume(context: &Arc<Context>) {
    let children = context.config.state_dir.join(CHILDREN);
    let notes = spawn_blocking(move || notes(&children)).await;
    for (dir, note) in notes.unwrap_or_default() {
        offer(context, dir, note);
    }
}

fn notes(children: &Path) -> Vec<(PathBuf, Note)> {
    let Ok(entries) = fs::read_dir(children) else {
        return Vec::new();
    };
    let noted = |entry: fs::DirEntry| {
        let dir = entry.path();
        let text = fs::read(dir.join(NOTE)).ok()?;
        Some((dir, serde_json::from_slice(&text).ok()?))
    };
    entries.flatten().filter_map(noted).collect()
}

/// What the station asks for.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) transfer: Transfer,
    pub(crate) domain: Domain,
    pub(crate) attempt: u32,
    pub(crate) manner: Manner,
}

/// Why an output is not served.
#[derive(Debug, thiserror::Error)]
enum Unserved {
    #[error("serve an output: {0}")]
    Taken(Taken),
    #[error("serve an output")]
    NotThere(#[source] LogError),
}

async fn serve(context: &Context, dir: &Path, request: Request) -> Result<Served, Unserved> {
    let lane = context
        .transfers
        .open(request.transfer)
        .map_err(Unserved::Taken)?;
    let log = block_in_place(|| Log::open(Place::new(dir))).map_err(Unserved::NotThere)?;
    let serve = Serve {
        lane,
        domain: request.domain,
        source: Source::Output(log),
        manner: request.manner,
        attempt: request.attempt,
    };
    Ok(serve.run(context).await)
}

/// Begins to serve an output the station asks for, if it is here.
///
/// # Errors
///
/// Says why it is not to be had.
pub(crate) fn ask(
    context: &Arc<Context>,
    transfer: Transfer,
    domain: Domain,
) -> Result<(), Failed> {
    let children = context.config.state_dir.join(CHILDREN);
    let Some((attempt, dir)) = block_in_place(|| latest(&children, transfer.id)) else {
        let reason = "this node keeps no output of it: it was not started here, or its output was removed to stay within the node's results_budget; what its answer told is kept";
        return Err(Failed::new(Failure::Unknown, reason));
    };
    let request = Request {
        transfer,
        domain,
        attempt,
        manner: Manner::Asked,
    };
    let context = Arc::clone(context);
    tokio::spawn(async move {
        if let Err(error) = serve(&context, &dir, request).await {
            tracing::debug!(id = %transfer.id, error = chain(&error), "an output is not served now");
        }
    });
    Ok(())
}

/// Finds the directory of an order's last run.
fn latest(children: &Path, id: MessageId) -> Option<(u32, PathBuf)> {
    let prefix = format!("{id}-");
    let entries = fs::read_dir(children).ok()?;
    let run = |entry: fs::DirEntry| {
        let name = entry.file_name();
        let attempt = name.to_str()?.strip_prefix(&prefix)?.parse().ok()?;
        Some((attempt, entry.path()))
    };
    entries.flatten().filter_map(run).max()
}

#[cfg(test)]
mod tests {
    use steward_protocol::Digest;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn what_is_noted_is_found_again_until_it_is_delivered() {
        let children = tempfile::tempdir().expect("a directory");
        let id = MessageId(Uuid::from_u128(5));
        let note = Note {
            transfer: Transfer {
                id,
                digest: Digest::of(b"order"),
                what: What::Output,
            },
            domain: "operatingsystem".parse().expect("a domain"),
            attempt: 2,
        };
        for attempt in [1, 2, 10] {
            fs::create_dir(children.path().join(format!("{id}-{attempt}"))).expect("made");
        }
        let dir = children.path().join(format!("{id}-2"));
        write(&dir, &note).expect("written");
        assert_eq!(notes(children.path()), [(dir.clone(), note.clone())]);
        fs::rename(dir.join(NOTE), dir.join(DELIVERED)).expect("settled");
        write(&dir, &note).expect("nothing to write");
        assert_eq!(notes(children.path()), []);
        let (attempt, _) = latest(children.path(), id).expect("it ran");
        assert_eq!(attempt, 10);
    }
}
