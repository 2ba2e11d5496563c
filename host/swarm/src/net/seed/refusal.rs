//! Why a question is not answered, as OpenAI's error object.

use axum::Json;
use axum::http::header::RETRY_AFTER;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// Seconds after which a peer with too many uploads may try again.
const AGAIN: &str = "1";

/// Why a question is not answered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("this seeder needs its token: send 'Authorization: Bearer TOKEN'")]
    Token,
    #[error("this seeder does not serve your address: add it to the seeder's allow list")]
    Address,
    #[error("this seeder has no such model")]
    Unknown,
    #[error("'{0}' is no single range such as bytes=0-1048575")]
    NoRange(String),
    #[error("these bytes are outside of the file, or not here yet")]
    NotHad,
    #[error("too many uploads at the same time")]
    Busy,
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, kind) = match self {
            Self::Token => (StatusCode::UNAUTHORIZED, "authentication_error"),
            Self::Address => (StatusCode::FORBIDDEN, "permission_error"),
            Self::Unknown => (StatusCode::NOT_FOUND, "not_found_error"),
            Self::NoRange(_) => (StatusCode::BAD_REQUEST, "invalid_request_error"),
            Self::NotHad => (StatusCode::RANGE_NOT_SATISFIABLE, "invalid_request_error"),
            Self::Busy => (StatusCode::TOO_MANY_REQUESTS, "rate_limit_error"),
        };
        let body = Json(json!({ "error": { "message": self.to_string(), "type": kind } }));
        match self {
            Self::Busy => (status, [(RETRY_AFTER, AGAIN)], body).into_response(),
            _ => (status, body).into_response(),
        }
    }
}

pub(crate) async fn unknown_path(uri: Uri) -> Response {
    let message = format!("there is no {}: a seeder serves /v1/swarm", uri.path());
    let body = json!({ "error": { "message": message, "type": "not_found_error" } });
    (StatusCode::NOT_FOUND, Json(body)).into_response()
}
