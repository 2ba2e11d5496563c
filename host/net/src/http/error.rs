//! OpenAI's error object.

use std::any::Any;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tightwad_core::BackendError;

/// An error as clients see it.
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

    /// The request is wrong.
    pub fn invalid(parameter: Option<&str>, message: impl Into<String>) -> Self {
        let error = Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", message);
        Self { parameter: parameter.map(str::to_owned), ..error }
    }

    /// The token is missing or wrong.
    pub fn unauthorized() -> Self {
        let message = "this endpoint wants its token: send 'Authorization: Bearer TOKEN'";
        let error = Self::new(StatusCode::UNAUTHORIZED, "invalid_request_error", message);
        Self { code: Some("invalid_api_key"), ..error }
    }

    /// The token may be right, but not from there.
    pub fn forbidden(message: &str) -> Self {
        Self::new(StatusCode::FORBIDDEN, "invalid_request_error", message)
    }

    /// No backend answers for `model`.
    pub fn unknown_model<'a>(model: &str, known: impl Iterator<Item = &'a str>) -> Self {
        let known: Vec<&str> = known.collect();
        let message = format!("there is no model '{model}'; this server has: {}", known.join(", "));
        let error = Self::new(StatusCode::NOT_FOUND, "invalid_request_error", message);
        Self { parameter: Some("model".to_owned()), code: Some("model_not_found"), ..error }
    }

    /// A message between machines was changed on its way: it may be sent again.
    pub fn garbled(message: impl Into<String>) -> Self {
        Self { code: Some("garbled"), ..Self::invalid(None, message) }
    }

    /// A session is gone, or stands elsewhere than its caller.
    pub fn out_of_step(message: impl Into<String>) -> Self {
        let error = Self::new(StatusCode::CONFLICT, "invalid_request_error", message);
        Self { code: Some("out_of_step"), ..error }
    }

    /// There are too many sessions.
    pub fn too_many(message: impl Into<String>) -> Self {
        let error = Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", message);
        Self { code: Some("rate_limit_exceeded"), ..error }
    }

    /// The server broke.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", message)
    }

    /// The body is larger than `limit` bytes.
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
            BackendError::Overloaded { .. } | BackendError::Busy { .. } => Self::too_many(message),
            BackendError::Unsupported { .. } => Self::invalid(None, message),
            BackendError::Cancelled | BackendError::Failed { .. } => Self::failed(message),
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

/// The answer to a path that is not served.
pub async fn unknown_path(uri: Uri) -> ApiError {
    let message = format!("nothing is served at {}; try /v1/models", uri.path());
    ApiError::new(StatusCode::NOT_FOUND, "invalid_request_error", message)
}

/// The answer to a method that a path does not take.
pub async fn wrong_method(uri: Uri) -> ApiError {
    let message = format!("{} takes another method", uri.path());
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "invalid_request_error", message)
}

/// A defect of ours must not cost the client its connection.
pub fn panicked(_: Box<dyn Any + Send>) -> Response {
    let message = "the server failed; its log says why";
    ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "server_error", message).into_response()
}
