//! Sealed messages in and out.

use axum::body::{Body, Bytes};
use axum::extract::rejection::BytesRejection;
use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, HeaderValue};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tightwad_net::http::{ApiError, BODY_LIMIT};

use crate::protocol::seal::{seal, unseal};

/// A body as it came.
pub(crate) type Raw = Result<Bytes, BytesRejection>;

/// The message in a body.
pub(crate) fn read<T: DeserializeOwned>(body: Raw) -> Result<T, ApiError> {
    let body = body.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => ApiError::too_large(BODY_LIMIT),
        _ => ApiError::garbled(rejection.body_text()),
    })?;
    unseal(&body, false).map_err(|broken| ApiError::garbled(format!("the call cannot be read: {broken}")))
}

/// A sealed message as a response, with as few headers as will do.
pub(crate) fn sealed(message: &impl Serialize) -> Response {
    match seal(message) {
        Ok(body) => {
            let mut response = Body::from(body).into_response();
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            response
        }
        Err(error) => ApiError::failed(error.to_string()).into_response(),
    }
}
