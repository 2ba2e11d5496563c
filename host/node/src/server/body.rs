//! Requests and responses with checksums.

use axum::body::{Body, Bytes};
use axum::extract::rejection::BytesRejection;
use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, HeaderValue};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tightwad_net::http::{ApiError, MAX_BODY_BYTES};

use crate::protocol::checksum::{from_checked_json, to_checked_json};

/// An unparsed request body.
pub(crate) type RawBody = Result<Bytes, BytesRejection>;

/// Parses the message in a body.
pub(crate) fn parse_body<T: DeserializeOwned>(body: RawBody) -> Result<T, ApiError> {
    let body = body.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => ApiError::too_large(MAX_BODY_BYTES),
        _ => ApiError::checksum_mismatch(rejection.body_text()),
    })?;
    from_checked_json(&body, false)
        .map_err(|error| ApiError::checksum_mismatch(format!("the call is not valid: {error}")))
}

/// A response with a checksum, and with as few headers as possible.
pub(crate) fn checked_response(message: &impl Serialize) -> Response {
    match to_checked_json(message) {
        Ok(body) => {
            let mut response = Body::from(body).into_response();
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            response
        }
        Err(error) => ApiError::unavailable(error.to_string()).into_response(),
    }
}
