//! Requests and responses with checksums.

use axum::body::{Body, Bytes};
use axum::extract::rejection::BytesRejection;
use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, HeaderValue};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tightwad_core::JsonSize;
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
    JsonSize::default().add(&body).map_err(|error| ApiError::invalid(None, error.to_string()))?;
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

#[cfg(test)]
mod tests {
    use tightwad_core::MAX_JSON_NUMBERS;

    use super::*;

    #[test]
    fn call_of_too_many_numbers_is_refused_before_it_is_parsed() {
        let call = |numbers: usize| format!("{{\"tokens\":[{}]}}", vec!["0"; numbers].join(","));
        let parse = |numbers| parse_body::<serde_json::Value>(Ok(call(numbers).into()));
        assert!(parse(MAX_JSON_NUMBERS).is_ok());
        assert_eq!(parse(MAX_JSON_NUMBERS + 1).unwrap_err().status(), StatusCode::BAD_REQUEST);
    }
}
