//! The routes about messages that are there already: cancel, retry, and why one stands as it does.

use axum::{
    Json, Router,
    body::Bytes,
    extract::{ConnectInfo, State},
    http::StatusCode,
    routing::{any, get, post},
};
use jiff::Timestamp;
use serde::de::DeserializeOwned;

use super::{
    Api, Peer,
    error::ApiError,
    extract::{Body, Path},
    routes::{Answer, find, node_name, not_this_way, read},
};
use crate::{
    station::Change,
    store::Depth,
    view::{CancelAsk, CancelReceipt, Receipt, RetryAsk, WhyView},
    why::{self, Facts},
};

const CANCEL: &str = "/api/v1/messages/{id}/cancel";
const RETRY: &str = "/api/v1/messages/{id}/retry";

/// Returns the route that only reads.
pub(super) fn reading() -> Router<Api> {
    Router::new().route(
        "/api/v1/messages/{id}/why/{node}",
        get(explain).fallback(not_this_way),
    )
}

/// Returns the routes that change something.
pub(super) fn changing() -> Router<Api> {
    Router::new()
        .route(CANCEL, post(cancel).fallback(not_this_way))
        .route(RETRY, post(retry).fallback(not_this_way))
}

/// Returns the same routes for where nothing may be changed.
pub(super) fn refusing() -> Router<Api> {
    Router::new()
        .route(CANCEL, any(not_this_way))
        .route(RETRY, any(not_this_way))
}

async fn cancel(
    State(api): State<Api>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Path(prefix): Path<String>,
    Body(body): Body,
) -> Answer<CancelReceipt> {
    let ask: CancelAsk = asked(&body)?;
    let id = find(&api, prefix).await?;
    let by = peer.name();
    Ok(Json(api.station.cancel(Change { id, ask, by }).await?))
}

async fn retry(
    State(api): State<Api>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Path(prefix): Path<String>,
    Body(body): Body,
) -> Result<(StatusCode, Json<Receipt>), ApiError> {
    let ask: RetryAsk = asked(&body)?;
    let id = find(&api, prefix).await?;
    let by = peer.name();
    let receipt = api.station.retry(Change { id, ask, by }).await?;
    Ok((StatusCode::CREATED, Json(receipt)))
}

/// Reads what is asked; nothing at all asks for the usual.
fn asked<T: DeserializeOwned + Default>(body: &Bytes) -> Result<T, ApiError> {
    if body.is_empty() {
        return Ok(T::default());
    }
    serde_json::from_slice(body).map_err(|error| {
        ApiError::bad_request(format!("the body is not what is asked here: {error}"))
    })
}

async fn explain(
    State(api): State<Api>,
    Path((prefix, node)): Path<(String, String)>,
) -> Answer<WhyView> {
    let id = find(&api, prefix).await?;
    let name = node_name(&node)?;
    let wanted = name.clone();
    let message = read(&api, move |reader| {
        reader.message(id, Some(&wanted), Depth::Full)
    })
    .await?;
    let stranger = || {
        ApiError::not_found(format!(
            "the message {id} does not go to {node}; see `steward msg show {id}`"
        ))
    };
    let message = message.ok_or_else(stranger)?;
    let delivery = message.deliveries.first().ok_or_else(stranger)?;
    let insight = api.station.insight(id, name).await?;
    let facts = Facts {
        now: Timestamp::now(),
        station: &api.about.name,
        message: &message,
        delivery,
        node: insight.node.as_ref(),
        outlook: insight.outlook.as_ref(),
        broker: &api.bus.view(),
    };
    Ok(Json(WhyView {
        id,
        name: message.name.clone(),
        node: delivery.node.clone(),
        state: delivery.state,
        since: delivery.since,
        sentences: why::explain(&facts),
    }))
}
