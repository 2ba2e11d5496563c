//! OpenAI's error object.

use std::any::Any;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tightwad_core::BackendError;

/// An error reply: an HTTP status and OpenAI's error object.
#[derive(Debug, Clone)]
pub struct ApiError {
    status: StatusCode,
    kind: &'static str,
    message: String,
    parameter: Option<String>,
    code: Option<&'static str>,
}

impl ApiError {
    fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        Self { status, kind, message: message.into(), parameter: None, code: None }
    }

    /// 400: the request is invalid.
    pub fn invalid(parameter: Option<&str>, message: impl Into<String>) -> Self {
        let error = Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", message);
        Self { parameter: parameter.map(str::to_owned), ..error }
    }

    /// 401: the token is missing or wrong.
    pub fn unauthorized() -> Self {
        let message = "this endpoint requires its token: send 'Authorization: Bearer TOKEN'";
        let error = Self::new(StatusCode::UNAUTHORIZED, "invalid_request_error", message);
        Self { code: Some("invalid_api_key"), ..error }
    }

    /// 403: the server refuses this client, even with a valid token.
    pub fn forbidden(message: &str) -> Self {
        Self::new(StatusCode::FORBIDDEN, "invalid_request_error", message)
    }

    /// 404: no backend has the name `model`. The message lists `models`.
    pub fn unknown_model<'a>(model: &str, models: impl Iterator<Item = &'a str>) -> Self {
        let models: Vec<&str> = models.collect();
        let models = if models.is_empty() { "no model".to_owned() } else { models.join(", ") };
        let message = format!("there is no model '{model}'; this server has: {models}");
        let error = Self::new(StatusCode::NOT_FOUND, "invalid_request_error", message);
        Self { parameter: Some("model".to_owned()), code: Some("model_not_found"), ..error }
    }

    /// 400: a message between machines did not arrive intact. The caller can send it again.
    pub fn checksum_mismatch(message: impl Into<String>) -> Self {
        Self { code: Some("checksum_mismatch"), ..Self::invalid(None, message) }
    }

    /// 409: the session does not exist any more, or its position differs from the caller's.
    pub fn stale_session(message: impl Into<String>) -> Self {
        let error = Self::new(StatusCode::CONFLICT, "invalid_request_error", message);
        Self { code: Some("stale_session"), ..error }
    }

    /// 429: too many requests or sessions.
    pub fn too_many_requests(message: impl Into<String>) -> Self {
        let error = Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", message);
        Self { code: Some("rate_limit_exceeded"), ..error }
    }

    /// 503: the server failed.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", message)
    }

    /// 413: the body is larger than `limit` bytes.
    pub fn too_large(limit: usize) -> Self {
        let message = format!("the body is larger than {} MB", limit >> 20);
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "invalid_request_error", message)
    }

    /// The HTTP status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The JSON object.
    pub fn object(&self) -> Value {
        json!({"error": {
            "message": self.message, "type": self.kind, "param": self.parameter, "code": self.code,
        }})
    }
}

impl From<BackendError> for ApiError {
    fn from(error: BackendError) -> Self {
        let message = error.to_string();
        match error {
            BackendError::Invalid { parameter, code, .. } => {
                Self { code, ..Self::invalid(parameter, message) }
            }
            BackendError::Overloaded { .. } | BackendError::Busy { .. } => Self::too_many_requests(message),
            BackendError::Unsupported { .. } => Self::invalid(None, message),
            BackendError::Cancelled | BackendError::Failed { .. } => Self::unavailable(message),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.object())).into_response();
        if self.status == StatusCode::TOO_MANY_REQUESTS {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

/// The reply for a path without a route.
pub async fn unknown_path(uri: Uri) -> ApiError {
    let message = format!("the path {} does not exist; try /v1/models", uri.path());
    ApiError::new(StatusCode::NOT_FOUND, "invalid_request_error", message)
}

/// The reply for a method that the path does not support.
pub async fn method_not_allowed(uri: Uri) -> ApiError {
    let message = format!("{} does not support this method", uri.path());
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "invalid_request_error", message)
}

/// The reply after a panic in a handler: a defect of the server must not break the client's connection.
pub fn panic_response(_: Box<dyn Any + Send>) -> Response {
    let message = "the server failed; see its log";
    ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "server_error", message).into_response()
}
