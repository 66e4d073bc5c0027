//! Every way a request can fail, as one status and one body.

use axum::{
    Json,
    http::{Method, StatusCode},
    response::{IntoResponse, Response},
};

use crate::{
    inbox::AcceptError,
    station::{Gone, chain},
    store::StoreError,
    view::{ErrorView, Problem},
};

/// A failed request.
#[derive(Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    view: ErrorView,
}

impl ApiError {
    fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Self {
            status,
            view: ErrorView {
                error: error.into(),
                problems: Vec::new(),
            },
        }
    }

    pub(super) fn bad_request(error: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error)
    }

    pub(super) fn not_found(error: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, error)
    }

    pub(super) fn ambiguous(prefix: &str) -> Self {
        Self::new(
            StatusCode::CONFLICT,
            format!("several messages begin with {prefix:?}; write more of the id"),
        )
    }

    pub(super) fn rejected(problems: Vec<Problem>) -> Self {
        let view = ErrorView {
            error: "nothing was accepted".to_owned(),
            problems,
        };
        Self {
            status: StatusCode::UNPROCESSABLE_ENTITY,
            view,
        }
    }

    pub(super) fn host() -> Self {
        Self::new(
            StatusCode::MISDIRECTED_REQUEST,
            "this address answers only to loopback names; use http://127.0.0.1 or http://localhost",
        )
    }

    pub(super) fn method(method: &Method, path: &str) -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            format!(
                "{path} does not answer to {method} here; a TCP address only reads (GET), changes go through the socket"
            ),
        )
    }

    /// A part of the request that the framework could not read; `text` says which.
    pub(super) fn unreadable(status: StatusCode, text: impl Into<String>) -> Self {
        Self::new(status, text)
    }

    pub(super) fn internal(error: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, error)
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        Self::internal(chain(&error))
    }
}

impl From<Gone> for ApiError {
    fn from(gone: Gone) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, gone.to_string())
    }
}

impl From<AcceptError> for ApiError {
    fn from(error: AcceptError) -> Self {
        match error {
            AcceptError::Rejected(problems) => Self::rejected(problems),
            AcceptError::Unavailable(text) => Self::new(StatusCode::SERVICE_UNAVAILABLE, text),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.status, Json(self.view)).into_response()
    }
}
