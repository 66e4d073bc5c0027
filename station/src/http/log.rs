//! The routes about faults and the log they stand in.

use axum::{Json, Router, extract::State, routing::get};
use jiff::Timestamp;
use serde::Deserialize;

use super::{
    Api,
    error::ApiError,
    extract::Query,
    routes::{Answer, DEFAULT_LIMIT, MAX_LIMIT, changed, deadline, node_name, read},
};
use crate::{
    store::{LogFilter, LogScope},
    view::{FaultView, LogPage},
};

/// Returns the routes; all of them only read.
pub(super) fn reading() -> Router<Api> {
    Router::new()
        .route("/api/v1/faults", get(faults))
        .route("/api/v1/log", get(log))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FaultsQuery {
    limit: Option<u32>,
    node: Option<String>,
}

async fn faults(
    State(api): State<Api>,
    Query(query): Query<FaultsQuery>,
) -> Answer<Vec<FaultView>> {
    let limit = query.limit.unwrap_or(DEFAULT_LIMIT).min(MAX_LIMIT);
    let node = query.node.as_deref().map(node_name).transpose()?;
    let faults = read(&api, move |reader| reader.faults(node.as_ref(), limit)).await?;
    Ok(Json(faults))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LogQuery {
    limit: Option<u32>,
    node: Option<String>,
    /// Several, separated by commas.
    kind: Option<String>,
    since: Option<Timestamp>,
    #[serde(default)]
    deliveries: bool,
    after_fault: Option<u64>,
    after_event: Option<u64>,
    wait: Option<u64>,
}

async fn log(State(api): State<Api>, Query(query): Query<LogQuery>) -> Answer<LogPage> {
    let deadline = deadline(query.wait);
    let filter = filter(query)?;
    let mut changes = api.station.changes();
    loop {
        changes.mark_unchanged();
        let wanted = filter.clone();
        let page = read(&api, move |reader| reader.log(&wanted)).await?;
        if !page.entries.is_empty() || !changed(&api, &mut changes, deadline).await {
            return Ok(Json(page));
        }
    }
}

fn filter(query: LogQuery) -> Result<LogFilter, ApiError> {
    let kinds = query.kind.unwrap_or_default();
    let kinds = kinds
        .split(',')
        .map(str::trim)
        .filter(|kind| !kind.is_empty());
    let after = match (query.after_fault, query.after_event) {
        (None, None) => None,
        (fault, event) => Some((fault.unwrap_or(0), event.unwrap_or(0))),
    };
    let scope = if query.deliveries {
        LogScope::Everything
    } else {
        LogScope::Faults
    };
    Ok(LogFilter {
        limit: query.limit.unwrap_or(DEFAULT_LIMIT).min(MAX_LIMIT),
        node: query.node.as_deref().map(node_name).transpose()?,
        kinds: kinds.map(str::to_owned).collect(),
        since: query.since,
        scope,
        after,
    })
}
