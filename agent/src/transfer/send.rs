//! `filesend`: a file of the station comes to the node. It is received beside its place and put there
//! only when all of it is here, durable and right.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use steward_files::Sink;
use steward_protocol::{
    body::SendBody,
    transfer::{Failed, Failure, Whole},
};
use tokio::{sync::watch, task::spawn_blocking};

use super::{
    install::{self, Wish},
    job::{Cut, Job},
    parts::{self, Parts},
    receive::Receive,
};
use crate::journal::Finish;

/// Receives the file and puts it in its place. Returns nothing when the agent ends first: its next
/// start goes on with what is here.
pub(super) async fn send(job: Job<'_>, body: &SendBody) -> Option<Finish> {
    let target = PathBuf::from(&body.path);
    let id = job.order.order().id;
    let part = parts::beside(&target, id);
    let stuck = watch::Sender::new(None);
    let is_over = Arc::new(AtomicBool::new(false));
    let work = Begun {
        part: &part,
        stuck: stuck.clone(),
        is_over: Arc::clone(&is_over),
    };
    let result = job.within(carry(job, body, work)).await;
    if !matches!(result, Err(Cut::Stopping)) {
        is_over.store(true, Ordering::SeqCst);
        Parts::of(&job.context.config.state_dir).clear(id);
    }
    match result {
        Ok(Ok(words)) => Some(job.succeeded(&words)),
        Ok(Err(failed)) => Some(job.failed(failed.reason)),
        Err(cut) => {
            let trouble = stuck.borrow().clone();
            let trouble =
                trouble.map(|error| format!("{} could not be written: {error}", part.display()));
            job.cut(&cut, trouble.as_deref())
        }
    }
}

/// What a transfer works with.
struct Begun<'p> {
    part: &'p Path,
    stuck: watch::Sender<Option<String>>,
    /// Whether nobody waits for it any more: what it opens after that, it removes itself.
    is_over: Arc<AtomicBool>,
}

async fn carry(job: Job<'_>, body: &SendBody, work: Begun<'_>) -> Result<String, Failed> {
    let (Some(bytes), Some(blake3)) = (body.bytes, body.blake3) else {
        let reason = "the order does not say how long the file is and what its digest is";
        return Err(Failed::new(Failure::Refused, reason));
    };
    let lane = job
        .context
        .transfers
        .open(job.transfer())
        .map_err(|taken| Failed::new(Failure::Other, format!("begin the transfer: {taken}")))?;
    let wish = Wish {
        target: PathBuf::from(&body.path),
        mode: body.mode,
        owner: body.owner.clone(),
        if_match: body.if_match,
        parents: body.parents,
    };
    let (beside, before, is_over) = (work.part.to_owned(), wish.clone(), work.is_over);
    let (parts, id) = (
        Parts::of(&job.context.config.state_dir),
        job.order.order().id,
    );
    let sink = blocking(move || {
        install::prepare(&before)?;
        let noted = parts.note(id, &beside);
        noted.map_err(|error| storage("note that it is received:", &beside, &error))?;
        let sink = Sink::open(&beside).map_err(|error| storage("open", &beside, &error));
        if is_over.load(Ordering::SeqCst) {
            parts.clear(id);
        }
        sink
    })
    .await?;
    let receive = Receive {
        context: job.context,
        lane,
        domain: job.order.order().subject.domain.clone(),
        sink,
        expected: Whole {
            bytes,
            blake3,
            command: None,
        },
        stuck: work.stuck,
    };
    let sink = receive.run().await?;
    blocking(move || install::install(&sink, &wish)).await?;
    Ok(format!("{}: {bytes} bytes, blake3 {blake3}\n", body.path))
}

pub(super) fn storage(doing: &str, path: &Path, error: &io::Error) -> Failed {
    let shown = path.display();
    Failed::new(Failure::Storage, format!("{doing} {shown}: {error}"))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failed> + Send + 'static,
) -> Result<T, Failed> {
    match spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Failed::new(Failure::Storage, error.to_string())),
    }
}
