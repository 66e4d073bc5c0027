//! What commands wrote, in full and while they run: the record log as it came, and how it ended.
//!
//! The answer's body is records of `stream: u8 ‖ length: u32 big endian ‖ bytes`; the last one is of
//! stream 0 and is JSON. A body without it was cut short, and may be asked for again from where it ended.

use std::{fs::File, io, os::unix::fs::FileExt, path::PathBuf, time::Duration};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::header,
    response::{IntoResponse, Response},
    routing::get,
};
use futures_util::stream::unfold;
use serde::Deserialize;
use steward_protocol::{
    MessageId, NodeName, Output,
    transfer::{Extent, Failure},
};
use tokio::{sync::watch, task::block_in_place, time::sleep};

use super::{
    Api,
    error::ApiError,
    extract::{Path, Query},
    routes::{find, node_name, not_this_way, read},
};
use crate::{
    store::{Carriage, Depth},
    transfer::{
        Ended, Progress, Wish,
        shelf::{Record, Shelf},
    },
    view::{DeliveryView, OutputEnd},
};

/// Bytes of a record before its own.
const HEADER: usize = 5;

/// Bytes read at a time; more than the largest record.
const PIECE: usize = 256 * 1024;

/// Wait before a node is asked again that did not know the order yet, and before the ledger is looked at again.
const AGAIN: Duration = Duration::from_secs(1);

/// Returns the route.
pub(super) fn reading() -> Router<Api> {
    Router::new().route(
        "/api/v1/messages/{id}/nodes/{node}/output",
        get(output).fallback(not_this_way),
    )
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct OutputQuery {
    /// Where in the record log to begin: at the beginning of a record.
    #[serde(default)]
    from: u64,
}

async fn output(
    State(api): State<Api>,
    Path((prefix, node)): Path<(String, String)>,
    Query(query): Query<OutputQuery>,
) -> Result<Response, ApiError> {
    let id = find(&api, prefix).await?;
    let name = node_name(&node)?;
    let wanted = name.clone();
    let carriage = read(&api, move |reader| reader.carriage(id, &wanted)).await?;
    if carriage.is_none() {
        return Err(ApiError::not_found(format!(
            "the message {id} does not go to {node:?}"
        )));
    }
    let Some(outputs) = api.outputs.clone() else {
        return Err(ApiError::internal("outputs are not served here"));
    };
    let feed = Feed {
        shelf: Shelf::of_output(&outputs.state_dir, id, &name),
        api,
        id,
        node: name,
        offset: query.from,
        run: None,
        progress: None,
        is_over: false,
    };
    let body = Body::from_stream(unfold(feed, |mut feed| async move {
        let piece = feed.next().await?;
        Some((piece, feed))
    }));
    let kind = (header::CONTENT_TYPE, "application/octet-stream");
    Ok(([kind], body).into_response())
}

/// One reader of one output.
struct Feed {
    api: Api,
    id: MessageId,
    node: NodeName,
    shelf: Shelf,
    offset: u64,
    run: Option<u32>,
    progress: Option<watch::Receiver<Progress>>,
    is_over: bool,
}

/// What there is to be had of an output at present.
enum Found {
    /// Nothing yet.
    Wait,
    /// How far it is.
    Progress(watch::Receiver<Progress>),
    /// All of it, from the ledger.
    Whole(Box<DeliveryView>),
    /// Nothing, for good.
    Never(String),
}

impl Feed {
    /// Returns the next bytes; an error ends the body without its last record.
    async fn next(&mut self) -> Option<io::Result<Bytes>> {
        if self.is_over {
            return None;
        }
        let mut stop = Box::pin({
            let stop = self.api.stop.clone();
            async move { stop.draining().await }
        });
        tokio::select! {
            () = &mut stop => {
                self.is_over = true;
                Some(Err(io::Error::other("the station is ending")))
            }
            piece = self.piece() => Some(piece),
        }
    }

    async fn piece(&mut self) -> io::Result<Bytes> {
        loop {
            let Some(mut progress) = self.progress.clone() else {
                match self.find().await? {
                    Found::Wait => self.pause().await,
                    Found::Progress(progress) => self.progress = Some(progress),
                    Found::Whole(view) => return Ok(self.whole(&view)),
                    Found::Never(reason) => return Ok(self.failed(reason)),
                }
                continue;
            };
            let now = progress.borrow_and_update().clone();
            let (run, limit) = match &now.over {
                Some(Ended::Done(record)) => (Some(record.run), record.whole.bytes),
                Some(Ended::Failed(_)) | None => (now.run, now.bytes),
            };
            if run.is_some() && self.run != run {
                // What came before is of a run that was given up.
                if self.run.is_some() {
                    self.offset = 0;
                }
                self.run = run;
            }
            let bytes = block_in_place(|| records(self.shelf.bytes(), self.offset, limit))?;
            if !bytes.is_empty() {
                self.offset += bytes.len() as u64;
                return Ok(bytes.into());
            }
            match now.over {
                Some(Ended::Done(record)) => return Ok(self.done(&record)),
                // It may only be about to start.
                Some(Ended::Failed(failed))
                    if failed.why == Failure::Unknown && self.is_open().await? =>
                {
                    self.progress = None;
                    self.pause().await;
                }
                Some(Ended::Failed(failed)) => return Ok(self.failed(failed.reason)),
                None => {
                    if progress.changed().await.is_err() && progress.borrow().over.is_none() {
                        self.progress = None;
                        self.pause().await;
                    }
                }
            }
        }
    }

    async fn pause(&self) {
        let mut changes = self.api.station.changes();
        tokio::select! {
            _ = changes.changed() => {}
            () = sleep(AGAIN) => {}
        }
    }

    async fn carriage(&self) -> io::Result<Option<Carriage>> {
        let (id, node) = (self.id, self.node.clone());
        read(&self.api, move |reader| reader.carriage(id, &node))
            .await
            .map_err(|error| io::Error::other(format!("{error:?}")))
    }

    async fn is_open(&self) -> io::Result<bool> {
        let carriage = self.carriage().await?;
        Ok(carriage.is_some_and(|carriage| !carriage.state.is_final()))
    }

    /// Finds out where the output is to be had.
    async fn find(&self) -> io::Result<Found> {
        use steward_protocol::State::{Accepted, Deferred, Received, Sent, Unknown};
        let Some(carriage) = self.carriage().await? else {
            return Ok(Found::Never("the message was forgotten".to_owned()));
        };
        if matches!(
            carriage.state,
            Accepted | Deferred | Received | Sent | Unknown
        ) {
            return Ok(Found::Wait);
        }
        let is_here = block_in_place(|| self.shelf.record()).is_some();
        if carriage.state.is_final() && !is_here {
            let (id, node) = (self.id, self.node.clone());
            let view = read(&self.api, move |reader| {
                reader.message(id, Some(&node), Depth::Full)
            });
            let view = view
                .await
                .map_err(|error| io::Error::other(format!("{error:?}")))?;
            let delivery = view.and_then(|view| view.deliveries.into_iter().next());
            match delivery {
                Some(view) if is_whole(&view) => return Ok(Found::Whole(Box::new(view))),
                Some(view) if view.started_at.is_none() => {
                    let reason = view
                        .reason
                        .map_or_else(String::new, |reason| format!(": {reason}"));
                    let words = format!(
                        "nothing is known of an output, the delivery is {}{reason}",
                        view.state
                    );
                    return Ok(Found::Never(words));
                }
                Some(_) | None => {}
            }
        }
        let wish = Wish {
            node: self.node.clone(),
            id: self.id,
            digest: carriage.digest,
        };
        let transfers = self.api.outputs.as_ref().map(|outputs| &outputs.transfers);
        let attached = match transfers {
            Some(transfers) => transfers.attach(wish).await,
            None => None,
        };
        Ok(attached.map_or(Found::Wait, Found::Progress))
    }

    /// Returns all there is, from the ledger.
    fn whole(&mut self, view: &DeliveryView) -> Bytes {
        let mut body = Vec::new();
        for (stream, output) in [(1, &view.stdout), (2, &view.stderr)] {
            if let Some(output) = output.as_ref().filter(|output| output.bytes > 0) {
                record(&mut body, stream, &output.head);
            }
        }
        // It has no places to begin at in between.
        if self.offset > 0 {
            body.clear();
        }
        let extent = |output: &Option<Output>| {
            output.as_ref().map(|output| Extent {
                bytes: output.bytes,
                blake3: output.blake3,
            })
        };
        let end = OutputEnd {
            failed: None,
            exit_code: view.exit_code,
            signal: view.signal,
            stdout: extent(&view.stdout),
            stderr: extent(&view.stderr),
        };
        self.end(&mut body, &end);
        body.into()
    }

    fn done(&mut self, complete: &Record) -> Bytes {
        let command = complete.whole.command.as_ref();
        let end = OutputEnd {
            failed: None,
            exit_code: command.and_then(|command| command.exit_code),
            signal: command.and_then(|command| command.signal),
            stdout: command.map(|command| command.stdout),
            stderr: command.map(|command| command.stderr),
        };
        let mut body = Vec::new();
        self.end(&mut body, &end);
        body.into()
    }

    fn failed(&mut self, reason: String) -> Bytes {
        let end = OutputEnd {
            failed: Some(reason),
            ..OutputEnd::default()
        };
        let mut body = Vec::new();
        self.end(&mut body, &end);
        body.into()
    }

    fn end(&mut self, body: &mut Vec<u8>, end: &OutputEnd) {
        self.is_over = true;
        // Plain values always have a spelling.
        record(body, 0, &serde_json::to_vec(end).unwrap_or_default());
    }
}

fn is_whole(view: &DeliveryView) -> bool {
    let whole =
        |output: &Option<Output>| output.as_ref().is_some_and(|output| !output.is_truncated());
    whole(&view.stdout) && whole(&view.stderr)
}

fn record(body: &mut Vec<u8>, stream: u8, bytes: &[u8]) {
    body.push(stream);
    // An output of the ledger is far smaller.
    body.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
    body.extend_from_slice(bytes);
}

/// Reads the records between `offset` and `limit`, as many as fit, whole ones only.
fn records(path: PathBuf, offset: u64, limit: u64) -> io::Result<Vec<u8>> {
    if offset >= limit {
        return Ok(Vec::new());
    }
    let file = File::open(path)?;
    let room = usize::try_from(limit - offset).unwrap_or(PIECE).min(PIECE);
    let mut bytes = vec![0; room];
    let mut got = 0;
    while got < room {
        let rest = bytes.get_mut(got..).unwrap_or_default();
        match file.read_at(rest, offset + got as u64)? {
            0 => break,
            count => got += count,
        }
    }
    bytes.truncate(got);
    let whole = whole_records(&bytes);
    bytes.truncate(whole);
    Ok(bytes)
}

/// Returns how many bytes belong to whole records.
fn whole_records(bytes: &[u8]) -> usize {
    let mut at = 0;
    while let Some([_, length @ ..]) = bytes.get(at..).and_then(<[u8]>::first_chunk::<HEADER>) {
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        match at.checked_add(HEADER).and_then(|at| at.checked_add(length)) {
            Some(until) if until <= bytes.len() => at = until,
            _ => break,
        }
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_records_are_handed_out() {
        let mut log = Vec::new();
        record(&mut log, 1, b"one");
        let first = log.len();
        record(&mut log, 2, b"");
        let second = log.len();
        record(&mut log, 1, b"three");
        for length in 0..=log.len() {
            let expected = match length {
                _ if length == log.len() => log.len(),
                _ if length >= second => second,
                _ if length >= first => first,
                _ => 0,
            };
            assert_eq!(whole_records(&log[..length]), expected, "{length}");
        }
    }
}
