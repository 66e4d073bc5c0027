//! The routes about stored logs: lines as they are found, and what there is and is missing.
//!
//! Every answer is one JSON object a line, made while it is read: nothing of it is kept, and a reader
//! that is slow or gone holds up nobody but itself.

use std::{io, time::Duration};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::header,
    response::{IntoResponse, Response},
    routing::get,
};
use futures_util::stream::unfold;
use jiff::{Timestamp, tz::TimeZone};
use serde::{Deserialize, Serialize};
use steward_protocol::{
    logs::Micros,
    syslog::{Clock, Message, Severities},
};
use tokio::sync::mpsc;

use super::{Api, error::ApiError, extract::Query};
use crate::{
    logs::{
        Logs, LogsError,
        name::Line,
        read::{self, Direction, Ends, Match, Merge, gaps},
        store,
    },
    station::chain,
    view::logs::{LogLine, Raw},
};

/// Bytes that are sent at a time.
const PIECE: usize = 64 * 1024;

/// Pieces waiting for a reader.
const PIECES: usize = 4;

/// The last lines that can be asked for, and how many bytes of them.
const MAX_LAST: usize = 100_000;
const MAX_LAST_BYTES: usize = 64 * 1024 * 1024;

/// How often a follower looks, at most.
const PACE: Duration = Duration::from_millis(100);

/// Longest regular expression, and the memory it may take when it is compiled.
const MAX_GREP: usize = 4 * 1024;
const GREP_MEMORY: usize = 4 * 1024 * 1024;

/// Returns the routes; all of them only read.
pub(super) fn reading() -> Router<Api> {
    Router::new()
        .route("/api/v1/logs", get(lines))
        .route("/api/v1/logs/examine", get(examine))
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct LinesQuery {
    /// Several, separated by commas.
    node: Option<String>,
    domain: Option<String>,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    priority: Option<String>,
    /// Several, separated by commas.
    tag: Option<String>,
    grep: Option<String>,
    /// Only the last ones.
    lines: Option<usize>,
    #[serde(default)]
    reverse: bool,
    #[serde(default)]
    follow: bool,
    /// Also the bytes as they came.
    #[serde(default)]
    raw: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ExamineQuery {
    node: Option<String>,
    domain: Option<String>,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    /// `extent`, `gaps` or `everything`.
    depth: String,
}

/// Which lines are meant.
#[derive(Debug, Clone)]
struct Chosen {
    nodes: Vec<String>,
    domains: Vec<String>,
}

impl Chosen {
    fn new(nodes: Option<&str>, domains: Option<&str>) -> Self {
        Self {
            nodes: list(nodes),
            domains: list(domains),
        }
    }

    fn has(&self, line: &Line) -> bool {
        let has =
            |list: &[String], name: &str| list.is_empty() || list.iter().any(|one| one == name);
        has(&self.nodes, line.node.as_str()) && has(&self.domains, line.domain.as_str())
    }
}

fn list(text: Option<&str>) -> Vec<String> {
    let names = text.unwrap_or_default().split(',').map(str::trim);
    names
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

/// What a reader of lines does.
#[derive(Debug, Clone)]
struct Job {
    chosen: Chosen,
    query: read::Query,
    last: Option<usize>,
    reverse: bool,
    follow: bool,
    raw: bool,
}

async fn lines(
    State(api): State<Api>,
    Query(query): Query<LinesQuery>,
) -> Result<Response, ApiError> {
    let logs = logs(&api)?;
    let job = job(query).map_err(ApiError::bad_request)?;
    let (out, pieces) = mpsc::channel(PIECES);
    let stop = api.stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            () = stop.draining() => out.send(Err(io::Error::other("the station is ending"))).await.unwrap_or(()),
            () = run(logs, job, out.clone()) => {}
        }
    });
    Ok(streamed(pieces))
}

async fn examine(
    State(api): State<Api>,
    Query(query): Query<ExamineQuery>,
) -> Result<Response, ApiError> {
    let logs = logs(&api)?;
    let depth = match query.depth.as_str() {
        "extent" => gaps::Depth::Extent,
        "gaps" => gaps::Depth::Gaps,
        "everything" => gaps::Depth::Everything,
        other => {
            let text = format!("the depth {other:?} is none of extent, gaps, everything");
            return Err(ApiError::bad_request(text));
        }
    };
    let chosen = Chosen::new(query.node.as_deref(), query.domain.as_deref());
    let range = (
        query.since.map(Micros::from),
        query.until.map(Micros::from),
        depth,
    );
    let (out, pieces) = mpsc::channel(PIECES);
    tokio::spawn(async move {
        let _turn = logs.turn().await;
        // Ends by itself, at the latest when nobody reads any more.
        let work = move || {
            let mut writer = Writer::new(out);
            let done = examine_all(&logs, &chosen, range, &mut writer);
            writer.end(done);
        };
        tokio::task::spawn_blocking(work).await.ok();
    });
    Ok(streamed(pieces))
}

fn examine_all(
    logs: &Logs,
    chosen: &Chosen,
    range: (Option<Micros>, Option<Micros>, gaps::Depth),
    writer: &mut Writer,
) -> Result<(), LogsError> {
    let disk = logs.files();
    for line in store::lines(disk)?
        .into_iter()
        .filter(|line| chosen.has(line))
    {
        gaps::examine(disk, &line, range, &mut |finding| writer.put(&finding))?;
        if writer.is_closed() {
            break;
        }
    }
    Ok(())
}

fn logs(api: &Api) -> Result<Logs, ApiError> {
    let missing = || ApiError::internal("logs are not served here");
    api.logs.clone().ok_or_else(missing)
}

fn streamed(pieces: mpsc::Receiver<io::Result<Bytes>>) -> Response {
    let body = Body::from_stream(unfold(pieces, |mut pieces| async move {
        let piece = pieces.recv().await?;
        Some((piece, pieces))
    }));
    let kind = (header::CONTENT_TYPE, "application/jsonl");
    ([kind], body).into_response()
}

fn job(query: LinesQuery) -> Result<Job, String> {
    let grep = query.grep.as_deref().map(expression).transpose()?;
    if query.lines.is_some_and(|lines| lines > MAX_LAST) {
        return Err(format!(
            "at most the last {MAX_LAST} lines can be asked for; name a time instead"
        ));
    }
    if query.reverse && query.follow {
        return Err("what is followed comes in its order, so it cannot be reversed".to_owned());
    }
    let severities = match query.priority.as_deref() {
        Some(text) => text.parse().map_err(|error| format!("cannot {error}"))?,
        None => Severities::ALL,
    };
    Ok(Job {
        chosen: Chosen::new(query.node.as_deref(), query.domain.as_deref()),
        query: read::Query {
            since: query.since.map(Micros::from),
            until: query.until.map(Micros::from),
            severities,
            tags: list(query.tag.as_deref()),
            grep,
            direction: Direction::Forward,
        },
        last: query.lines,
        reverse: query.reverse,
        follow: query.follow,
        raw: query.raw,
    })
}

fn expression(text: &str) -> Result<regex::bytes::Regex, String> {
    if text.len() > MAX_GREP {
        return Err(format!(
            "the regular expression is longer than {MAX_GREP} bytes"
        ));
    }
    let built = regex::bytes::RegexBuilder::new(text)
        .size_limit(GREP_MEMORY)
        .dfa_size_limit(GREP_MEMORY)
        .build();
    built.map_err(|error| format!("the regular expression cannot be used: {error}"))
}

/// Hands out what is there, and then, for a follower, what comes.
async fn run(logs: Logs, job: Job, out: mpsc::Sender<io::Result<Bytes>>) {
    let mut changes = logs.changes();
    changes.mark_unchanged();
    let mut from = Ends::new();
    let mut round = job.clone();
    loop {
        let turn = logs.turn().await;
        let (here, this, already, writer) = (
            logs.clone(),
            round.clone(),
            from.clone(),
            Writer::new(out.clone()),
        );
        let work = move || {
            let mut writer = writer;
            let done = read_round(&here, &this, &already, &mut writer);
            let ended = done.is_err();
            let ends = done.as_ref().ok().cloned();
            writer.end(done.map(drop));
            (ends, ended)
        };
        let worked = tokio::task::spawn_blocking(work).await;
        drop(turn);
        match worked {
            Ok((Some(ends), false)) if job.follow && !out.is_closed() => from.extend(ends),
            _ => return,
        }
        // From now on only what comes.
        round.last = None;
        tokio::time::sleep(PACE).await;
        tokio::select! {
            () = out.closed() => return,
            changed = changes.changed() => if changed.is_err() {
                return;
            },
        }
    }
}

/// Hands out what lies behind `from`, and returns how far it came.
fn read_round(logs: &Logs, job: &Job, from: &Ends, writer: &mut Writer) -> Result<Ends, LogsError> {
    let disk = logs.files();
    let ends: Ends = if from.is_empty() {
        let mut lines = store::lines(disk)?;
        lines.retain(|line| job.chosen.has(line));
        read::ends(disk, &lines)?
    } else {
        let tips = logs.tips().into_iter();
        tips.filter(|(line, _)| job.chosen.has(line)).collect()
    };
    let backward = job.reverse || job.last.is_some();
    let mut query = job.query.clone();
    if backward {
        query.direction = Direction::Backward;
    }
    let mut merge = Merge::new(disk, query, from, &ends)?;
    let mut left = job.last.unwrap_or(usize::MAX);
    let (mut kept, mut bytes) = (Vec::new(), 0);
    while left > 0
        && bytes < MAX_LAST_BYTES
        && !writer.is_closed()
        && let Some((line, found)) = merge.pull()?
    {
        left -= 1;
        if backward && !job.reverse {
            bytes += found.bytes.len();
            kept.push((line, found));
        } else {
            writer.put(&view(&line, &found, job.raw));
        }
    }
    for (line, found) in kept.into_iter().rev() {
        writer.put(&view(&line, &found, job.raw));
    }
    Ok(ends)
}

/// Returns what the outside sees of a record; its parts are read again from its bytes.
fn view(line: &Line, found: &Match, raw: bool) -> LogLine {
    let received = found.received.timestamp();
    let mut view = LogLine {
        received,
        node: line.node.clone(),
        domain: line.domain.clone(),
        severity: found.severity,
        facility: None,
        host: None,
        app: None,
        procid: None,
        msgid: None,
        data: None,
        sent: None,
        message: None,
        raw: None,
        original: None,
        source: found.source.clone(),
        generation: found.generation,
        position: found.position,
        gap: found.gap.clone(),
    };
    if found.gap.is_some() {
        return view;
    }
    let message = Message::parse(&found.bytes);
    // A sender that names no zone is taken to be in UTC; what it wrote is in the bytes.
    let zone = TimeZone::UTC;
    let clock = Clock::new(received, &zone);
    view.sent = message
        .stamp()
        .and_then(|stamp| Some(clock.resolve(&stamp)?.at));
    view.facility = message
        .facility()
        .map(steward_protocol::syslog::Facility::number);
    view.host = message.host().map(Raw::of);
    view.app = message.app().map(Raw::of);
    view.procid = message.procid().map(Raw::of);
    view.msgid = message.msgid().map(Raw::of);
    view.data = Some(message.raw_data())
        .filter(|data| !data.is_empty())
        .map(Raw::of);
    view.message = Some(Raw::of(message.text()));
    view.raw = raw.then(|| Raw::of(&found.bytes));
    view.original = (found.original > found.bytes.len() as u64).then_some(found.original);
    view
}

/// Collects lines into pieces.
struct Writer {
    out: mpsc::Sender<io::Result<Bytes>>,
    piece: Vec<u8>,
}

impl Writer {
    fn new(out: mpsc::Sender<io::Result<Bytes>>) -> Self {
        Self {
            out,
            piece: Vec::new(),
        }
    }

    fn put<T: Serialize>(&mut self, line: &T) {
        // Plain values always have a spelling.
        if serde_json::to_writer(&mut self.piece, line).is_ok() {
            self.piece.push(b'\n');
        }
        if self.piece.len() >= PIECE {
            self.flush();
        }
    }

    fn flush(&mut self) {
        let piece = std::mem::take(&mut self.piece);
        // Whoever is gone misses nothing; `is_closed` ends the work.
        drop(self.out.blocking_send(Ok(piece.into())));
    }

    fn is_closed(&self) -> bool {
        self.out.is_closed()
    }

    /// Hands out the rest; an error ends the answer without its end, so that nobody takes it for whole.
    fn end(mut self, done: Result<(), LogsError>) {
        if !self.piece.is_empty() {
            self.flush();
        }
        if let Err(error) = done {
            let text = format!("failed to {}", chain(&error));
            tracing::error!(error = text, "logs cannot be read");
            drop(self.out.blocking_send(Err(io::Error::other(text))));
        }
    }
}
