//! The routes: every handler asks the loop or reads the ledger, and shapes the answer.

use std::{collections::BTreeMap, time::Duration};

use axum::{
    Json, Router,
    extract::{ConnectInfo, DefaultBodyLimit, State},
    http::{Method, StatusCode, Uri},
    routing::{get, post},
};
use jiff::Timestamp;
use serde::Deserialize;
use steward_protocol::{MessageId, NodeName, State as DeliveryState};
use tokio::time::{Instant, timeout_at};

use super::{
    Api, Peer, changes,
    error::ApiError,
    extract::{Body, Path, Query},
    log, logs, output,
};
use crate::{
    inbox::{self, AcceptError, Format, MAX_FILE, Submission},
    store::{Depth, MessageFilter, Named, Reader, StoreError},
    view::{
        BrokerView, DeliveryView, EventView, InboxFileView, MessageLine, MessageView, NodeView,
        Presence, Receipt, StatusView,
    },
};

/// Messages in a list when the caller does not say.
pub(super) const DEFAULT_LIMIT: u32 = 50;

/// Faults shown with the status, and with a node.
const STATUS_FAULTS: u32 = 5;

/// Faults and events in one answer, at most. One event of acceptance counts for all its nodes.
pub(super) const MAX_LIMIT: u32 = 1000;

/// Files in a listing of the inbox, per place.
const MAX_FILES: usize = 10_000;

/// Longest a caller may wait for a change.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// Room in a request body beyond the largest file, so that a file that is too large is told so properly.
const BODY_SLACK: usize = 64 * 1024;

pub(super) type Answer<T> = Result<Json<T>, ApiError>;

/// Returns the routes that only read.
pub(super) fn reading() -> Router<Api> {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/api/v1/status", get(status))
        .route("/api/v1/messages", get(messages))
        .route("/api/v1/messages/{id}", get(message))
        .route("/api/v1/messages/{id}/nodes/{node}", get(delivery))
        .route("/api/v1/nodes", get(nodes))
        .route("/api/v1/nodes/{name}", get(node))
        .route("/api/v1/inbox", get(inbox_files))
        .route("/api/v1/events", get(events))
        .merge(changes::reading())
        .merge(log::reading())
        .merge(logs::reading())
        .merge(output::reading())
        .fallback(nothing_here)
        .method_not_allowed_fallback(not_this_way)
}

/// Returns the routes that change something.
pub(super) fn changing() -> Router<Api> {
    Router::new()
        .route("/api/v1/messages", post(submit))
        .merge(changes::changing())
        .layer(DefaultBodyLimit::max(MAX_FILE + BODY_SLACK))
}

async fn nothing_here() -> ApiError {
    ApiError::not_found("there is nothing at this path; the API is under /api/v1")
}

pub(super) async fn not_this_way(method: Method, uri: Uri) -> ApiError {
    ApiError::method(&method, uri.path())
}

/// Alive: the program answers.
async fn healthz() -> &'static str {
    "ok\n"
}

/// Ready: the ledger can be written and the broker is there.
async fn readyz(State(api): State<Api>) -> (StatusCode, String) {
    let problems = problems(&api, &api.bus.view());
    if problems.is_empty() {
        return (StatusCode::OK, "ready\n".to_owned());
    }
    (
        StatusCode::SERVICE_UNAVAILABLE,
        format!("not ready: {}\n", problems.join("; ")),
    )
}

fn problems(api: &Api, broker: &BrokerView) -> Vec<String> {
    let mut problems = Vec::new();
    if let Some(text) = api.station.health().ledger {
        problems.push(format!("the ledger cannot be written: {text}"));
    }
    if let Some(text) = api.inbox.borrow().as_ref() {
        problems.push(format!("the inbox: {text}"));
    }
    if let Some(text) = api.logs.as_ref().and_then(|logs| logs.trouble()) {
        problems.push(format!("logs cannot be stored: {text}"));
    }
    if !broker.connected {
        let reason = broker.reason.as_deref().unwrap_or("no reason known");
        problems.push(format!(
            "the broker at {} is not connected: {reason}",
            broker.url
        ));
    }
    problems
}

async fn status(State(api): State<Api>) -> Answer<StatusView> {
    let nodes = api.station.nodes().await?;
    let mut by_presence: BTreeMap<Presence, u64> = BTreeMap::new();
    for node in &nodes {
        *by_presence.entry(node.state).or_default() += 1;
    }
    let (open, faults) = read(&api, |reader| {
        Ok((reader.open_by_state()?, reader.faults(None, STATUS_FAULTS)?))
    })
    .await?;
    let broker = api.bus.view();
    let problems = problems(&api, &broker);
    Ok(Json(StatusView {
        name: api.about.name.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ledger_id: api.about.ledger_id,
        epoch: api.about.epoch,
        started_at: api.about.started_at,
        pid: std::process::id(),
        ready: problems.is_empty(),
        problems,
        broker,
        nodes: by_presence,
        open,
        inbox: api.about.inbox.clone(),
        counters: api.station.counters().await?,
        faults,
        offenders: api.station.offenders().await?,
    }))
}

/// Runs a query on a thread of its own; at most a few at once.
pub(super) async fn read<T: Send + 'static>(
    api: &Api,
    query: impl FnOnce(&Reader) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, ApiError> {
    let _turn = api
        .readers
        .acquire()
        .await
        .map_err(|error| ApiError::internal(error.to_string()))?;
    let path = api.about.ledger.clone();
    let reading = tokio::task::spawn_blocking(move || query(&Reader::open(&path)?));
    Ok(reading
        .await
        .map_err(|error| ApiError::internal(error.to_string()))??)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    limit: Option<u32>,
    state: Option<String>,
    node: Option<String>,
    since: Option<Timestamp>,
}

async fn messages(
    State(api): State<Api>,
    Query(query): Query<ListQuery>,
) -> Answer<Vec<MessageLine>> {
    let state = query
        .state
        .map(|state| state.parse::<DeliveryState>())
        .transpose();
    let node = query.node.as_deref().map(node_name).transpose()?;
    let filter = MessageFilter {
        limit: query.limit.unwrap_or(DEFAULT_LIMIT),
        state: state.map_err(|error| ApiError::bad_request(error.to_string()))?,
        node,
        since: query.since,
    };
    Ok(Json(
        read(&api, move |reader| reader.messages(&filter)).await?,
    ))
}

pub(super) fn node_name(text: &str) -> Result<NodeName, ApiError> {
    text.parse()
        .map_err(|error| ApiError::bad_request(format!("the node name {text:?} {error}")))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ShowQuery {
    #[serde(default)]
    brief: bool,
    after: Option<u64>,
    wait: Option<u64>,
}

async fn message(
    State(api): State<Api>,
    Path(prefix): Path<String>,
    Query(query): Query<ShowQuery>,
) -> Answer<MessageView> {
    let id = find(&api, prefix).await?;
    let depth = if query.brief {
        Depth::Brief
    } else {
        Depth::Full
    };
    if let Some(after) = query.after {
        let deadline = deadline(query.wait);
        let mut changes = api.station.changes();
        loop {
            changes.mark_unchanged();
            // Most commits concern other messages, so only the number is read.
            let version = read(&api, move |reader| reader.version(id)).await?;
            let is_new = version.is_none_or(|version| version > after);
            if is_new || !changed(&api, &mut changes, deadline).await {
                break;
            }
        }
    }
    let view = read(&api, move |reader| reader.message(id, None, depth)).await?;
    let mut view =
        view.ok_or_else(|| ApiError::not_found(format!("the message {id} was forgotten")))?;
    explain_waiting(&api, id, &mut view.deliveries).await?;
    Ok(Json(view))
}

pub(super) fn deadline(wait: Option<u64>) -> Instant {
    Instant::now() + Duration::from_secs(wait.unwrap_or(0)).min(MAX_WAIT)
}

/// Waits for the next commit. Returns false when the wait is over or the station is ending.
pub(super) async fn changed(
    api: &Api,
    changes: &mut tokio::sync::watch::Receiver<u64>,
    deadline: Instant,
) -> bool {
    tokio::select! {
        () = api.stop.draining() => false,
        waited = timeout_at(deadline, changes.changed()) => matches!(waited, Ok(Ok(()))),
    }
}

pub(super) async fn find(api: &Api, prefix: String) -> Result<MessageId, ApiError> {
    let wanted = prefix.clone();
    match read(api, move |reader| reader.name(&wanted)).await? {
        Named::One(id) => Ok(id),
        Named::None => Err(ApiError::not_found(format!(
            "no message's id begins with {prefix:?}; see `steward msg ls`"
        ))),
        Named::Several => Err(ApiError::ambiguous(&prefix)),
    }
}

/// What has not been sent yet has no reason in the ledger; the loop knows what it waits for.
async fn explain_waiting(
    api: &Api,
    id: MessageId,
    deliveries: &mut [DeliveryView],
) -> Result<(), ApiError> {
    let is_waiting = |delivery: &DeliveryView| delivery.state == DeliveryState::Accepted;
    let waiting: Vec<NodeName> = deliveries
        .iter()
        .filter(|delivery| is_waiting(delivery))
        .map(|delivery| delivery.node.clone())
        .collect();
    if waiting.is_empty() {
        return Ok(());
    }
    let mut reasons = api.station.waiting(id, waiting).await?;
    for delivery in deliveries
        .iter_mut()
        .filter(|delivery| is_waiting(delivery))
    {
        delivery.reason = reasons.remove(&delivery.node);
    }
    Ok(())
}

async fn delivery(
    State(api): State<Api>,
    Path((prefix, node)): Path<(String, String)>,
) -> Answer<DeliveryView> {
    let id = find(&api, prefix).await?;
    let name = node_name(&node)?;
    let view = read(&api, move |reader| {
        reader.message(id, Some(&name), Depth::Full)
    })
    .await?;
    let mut deliveries = view.map(|view| view.deliveries).unwrap_or_default();
    explain_waiting(&api, id, &mut deliveries).await?;
    let found = deliveries.into_iter().next();
    found
        .map(Json)
        .ok_or_else(|| ApiError::not_found(format!("the message {id} does not go to {node:?}")))
}

async fn nodes(State(api): State<Api>) -> Answer<Vec<NodeView>> {
    let mut nodes = api.station.nodes().await?;
    let counts = read(&api, Reader::fault_counts).await?;
    let counts: BTreeMap<NodeName, u64> = counts.into_iter().collect();
    for node in &mut nodes {
        node.fault_count = counts.get(&node.name).copied().unwrap_or(0);
    }
    Ok(Json(nodes))
}

async fn node(State(api): State<Api>, Path(name): Path<String>) -> Answer<NodeView> {
    let Json(nodes) = nodes(State(api.clone())).await?;
    let found = nodes.into_iter().find(|node| node.name.as_str() == name);
    let mut node = found.ok_or_else(|| {
        ApiError::not_found(format!(
            "nobody has heard of a node {name:?}, and no message is for it; see `steward node ls`"
        ))
    })?;
    let wanted = node.name.clone();
    node.faults = read(&api, move |reader| {
        reader.faults(Some(&wanted), STATUS_FAULTS)
    })
    .await?;
    Ok(Json(node))
}

async fn inbox_files(State(api): State<Api>) -> Answer<Vec<InboxFileView>> {
    let (directory, timing) = (api.about.inbox.clone(), api.about.timing);
    let listing =
        tokio::task::spawn_blocking(move || inbox::list(&directory, timing, MAX_FILES)).await;
    let listing = listing.map_err(|error| ApiError::internal(error.to_string()))?;
    listing.map(Json).map_err(|error| {
        ApiError::internal(format!(
            "the inbox {} cannot be listed: {error}",
            api.about.inbox.display()
        ))
    })
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct EventsQuery {
    #[serde(default)]
    after: u64,
    limit: Option<u32>,
    wait: Option<u64>,
}

async fn events(
    State(api): State<Api>,
    Query(query): Query<EventsQuery>,
) -> Answer<Vec<EventView>> {
    let limit = query.limit.unwrap_or(MAX_LIMIT).min(MAX_LIMIT);
    let deadline = deadline(query.wait);
    let mut changes = api.station.changes();
    loop {
        changes.mark_unchanged();
        let events = read(&api, move |reader| reader.events(query.after, limit)).await?;
        if !events.is_empty() || !changed(&api, &mut changes, deadline).await {
            return Ok(Json(events));
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SubmitQuery {
    name: Option<String>,
    format: Option<String>,
}

async fn submit(
    State(api): State<Api>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Query(query): Query<SubmitQuery>,
    Body(body): Body,
) -> Result<(StatusCode, Json<Receipt>), ApiError> {
    let format = match query.format.as_deref() {
        None | Some("json") => Format::Json,
        Some("yaml") => Format::Yaml,
        Some(other) => {
            return Err(ApiError::bad_request(format!(
                "the format {other:?} is neither json nor yaml"
            )));
        }
    };
    let messages = inbox::read(&body, format)
        .map_err(|unreadable| ApiError::rejected(unreadable.into_problems(&body)))?;
    let name: String = query
        .name
        .as_deref()
        .unwrap_or("-")
        .chars()
        .take(255)
        .collect();
    let submission = Submission {
        messages,
        source: format!("api:{name}"),
        submitted_by: peer.name(),
        intake: None,
    };
    match api.station.submit(submission).await {
        Ok(receipt) => Ok((StatusCode::CREATED, Json(receipt))),
        Err(AcceptError::Rejected(problems)) => {
            Err(ApiError::rejected(inbox::place(problems, &body, format)))
        }
        Err(unavailable) => Err(unavailable.into()),
    }
}
