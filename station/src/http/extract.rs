//! The parts of a request, read so that what cannot be read is refused in our own words and as JSON.
//!
//! Knows the framework's extractors; what the parts mean is the routes' business.

use axum::{
    body::Bytes,
    extract::{self, FromRequest, FromRequestParts, Request},
    http::request::Parts,
};
use serde::de::DeserializeOwned;

use super::error::ApiError;

/// The parameters after the path.
pub(super) struct Query<T>(pub(super) T);

/// The variable parts of the path.
pub(super) struct Path<T>(pub(super) T);

/// The whole body.
pub(super) struct Body(pub(super) Bytes);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match extract::Query::from_request_parts(parts, state).await {
            Ok(extract::Query(query)) => Ok(Self(query)),
            Err(rejection) => Err(ApiError::unreadable(
                rejection.status(),
                rejection.body_text(),
            )),
        }
    }
}

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match extract::Path::from_request_parts(parts, state).await {
            Ok(extract::Path(path)) => Ok(Self(path)),
            Err(rejection) => Err(ApiError::unreadable(
                rejection.status(),
                rejection.body_text(),
            )),
        }
    }
}

impl<S: Send + Sync> FromRequest<S> for Body {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        match Bytes::from_request(request, state).await {
            Ok(bytes) => Ok(Self(bytes)),
            Err(rejection) => Err(ApiError::unreadable(
                rejection.status(),
                rejection.body_text(),
            )),
        }
    }
}
