//! `filefetch`: a file of the node goes to the station. Over only when the station has it durably.

use std::path::Path;

use steward_protocol::transfer::{FILE_RUN, Failed, Failure, sender::Manner};
use tokio::task::spawn_blocking;

use super::{
    job::Job,
    serve::{Serve, Served},
    source::{Source, pin},
};
use crate::journal::Finish;

/// Brings the file at `path` to the station. Returns nothing when the agent ends first: its next
/// start goes on where the station is.
pub(super) async fn fetch(job: Job<'_>, path: &str) -> Option<Finish> {
    match job.within(carry(job, path)).await {
        Ok(Ok(words)) => Some(job.succeeded(&words)),
        Ok(Err(failed)) => Some(job.failed(failed.reason)),
        Err(cut) => job.cut(&cut, Some("the station has not got all of it yet")),
    }
}

async fn carry(job: Job<'_>, path: &str) -> Result<String, Failed> {
    let lane = job
        .context
        .transfers
        .open(job.transfer())
        .map_err(|taken| Failed::new(Failure::Other, format!("begin the transfer: {taken}")))?;
    let named = Path::new(path).to_owned();
    let pinned = spawn_blocking(move || pin(&named))
        .await
        .map_err(|error| Failed::new(Failure::Storage, error.to_string()))??;
    let (bytes, blake3) = (pinned.bytes(), pinned.blake3());
    let words = format!("{path}: {bytes} bytes, blake3 {blake3}\n");
    let serve = Serve {
        lane,
        domain: job.order.order().subject.domain.clone(),
        source: Source::File(pinned),
        manner: Manner::Offered,
        attempt: FILE_RUN,
    };
    match serve.run(job.context).await {
        Served::Done => Ok(words),
        Served::GivenUp(reason) => {
            let reason = format!("the station did not take it: {reason}");
            Err(Failed::new(Failure::Refused, reason))
        }
        Served::Failed(failed) => Err(failed),
        Served::Forgotten => Err(Failed::new(
            Failure::Other,
            "the link to the broker is gone",
        )),
    }
}
