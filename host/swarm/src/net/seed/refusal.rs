//! Refused requests, as OpenAI's error object.

use axum::Json;
use axum::http::header::RETRY_AFTER;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// The `Retry-After` of a peer with too many uploads, in seconds.
const RETRY_AFTER_SECONDS: &str = "1";

/// The reason why a request is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("this seeder needs its token: send 'Authorization: Bearer TOKEN'")]
    WrongToken,
    #[error("this seeder does not serve your address: add it to the seeder's allow list")]
    AddressNotAllowed,
    #[error("this seeder has no such model")]
    UnknownModel,
    #[error("'{0}' is not a single range such as bytes=0-1048575")]
    InvalidRange(String),
    #[error("these bytes are outside of the file, or this seeder does not have them yet")]
    RangeUnavailable,
    #[error("too many uploads run; try again later")]
    TooManyUploads,
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, kind) = match self {
            Self::WrongToken => (StatusCode::UNAUTHORIZED, "authentication_error"),
            Self::AddressNotAllowed => (StatusCode::FORBIDDEN, "permission_error"),
            Self::UnknownModel => (StatusCode::NOT_FOUND, "not_found_error"),
            Self::InvalidRange(_) => (StatusCode::BAD_REQUEST, "invalid_request_error"),
            Self::RangeUnavailable => (StatusCode::RANGE_NOT_SATISFIABLE, "invalid_request_error"),
            Self::TooManyUploads => (StatusCode::TOO_MANY_REQUESTS, "rate_limit_error"),
        };
        let body = Json(json!({ "error": { "message": self.to_string(), "type": kind } }));
        match self {
            Self::TooManyUploads => (status, [(RETRY_AFTER, RETRY_AFTER_SECONDS)], body).into_response(),
            _ => (status, body).into_response(),
        }
    }
}

pub(crate) async fn unknown_path(uri: Uri) -> Response {
    let message = format!("there is no {}: a seeder serves /v1/swarm", uri.path());
    let body = json!({ "error": { "message": message, "type": "not_found_error" } });
    (StatusCode::NOT_FOUND, Json(body)).into_response()
}
