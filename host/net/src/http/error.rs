//! OpenAI's error object.

use std::any::Any;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tightwad_core::BackendError;

use crate::http::paths;

/// The code of requests that a shutdown refuses or ends.
const SHUTTING_DOWN: &str = "shutting_down";
/// The maximum length of a message in bytes. A message can repeat a value of the request.
const MAX_MESSAGE_BYTES: usize = 2048;

/// An error reply: an HTTP status and OpenAI's error object.
#[derive(Debug, Clone)]
pub struct ApiError {
    status: StatusCode,
    kind: &'static str,
    message: String,
    parameter: Option<String>,
    code: Option<&'static str>,
    /// Seconds after which the client can try again. Replies with 429 have them.
    retry_after: u64,
}

impl ApiError {
    fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        let message = truncated(message.into());
        Self { status, kind, message, parameter: None, code: None, retry_after: 1 }
    }

    /// 400: the request is invalid.
    pub fn invalid(parameter: Option<&str>, message: impl Into<String>) -> Self {
        let error = Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", message);
        Self { parameter: parameter.map(|parameter| truncated(parameter.to_owned())), ..error }
    }

    /// 401: the token is missing or wrong.
    pub fn unauthorized() -> Self {
        Self::invalid_key("this endpoint requires its token: send 'Authorization: Bearer TOKEN'")
    }

    /// 401: the API key is missing, wrong or expired.
    pub fn invalid_key(message: impl Into<String>) -> Self {
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

    /// 429: the quota is used up.
    pub fn insufficient_quota(message: impl Into<String>) -> Self {
        let error = Self::new(StatusCode::TOO_MANY_REQUESTS, "insufficient_quota", message);
        Self { code: Some("insufficient_quota"), ..error }
    }

    /// The same error, with the seconds after which the client can try again.
    #[must_use]
    pub fn with_retry_after(self, seconds: u64) -> Self {
        Self { retry_after: seconds, ..self }
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

    /// 404: the path does not exist. The message names the similar one of the paths in `known`.
    pub fn unknown_path(uri: &Uri, known: &[&str]) -> Self {
        let path = uri.path();
        let message = match paths::nearest(path, known) {
            Some(nearest) => format!("the path {path} does not exist; did you mean {nearest}?"),
            None => format!("the path {path} does not exist; this server has {}", known.join(", ")),
        };
        Self::new(StatusCode::NOT_FOUND, "invalid_request_error", message)
    }

    /// 408: the client sends the body too slowly.
    pub(crate) fn slow_body() -> Self {
        let message = "the body did not arrive in time; send it faster or in smaller parts";
        Self::new(StatusCode::REQUEST_TIMEOUT, "invalid_request_error", message)
    }

    /// 415: the body has an unknown type or encoding.
    pub(crate) fn unsupported_body(message: String) -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "invalid_request_error", message)
    }

    /// 421: the request is for another host.
    pub(crate) fn misdirected(message: String) -> Self {
        Self::new(StatusCode::MISDIRECTED_REQUEST, "invalid_request_error", message)
    }

    /// 503: the server shuts down.
    pub fn shutting_down() -> Self {
        let message = "the server is shutting down; send the request again later or to another server";
        Self { code: Some(SHUTTING_DOWN), ..Self::unavailable(message) }
    }

    /// 426: the connection must be encrypted.
    pub(crate) fn not_encrypted() -> Self {
        let message = "this server is encrypted: use the address that it prints, which begins with tightwad:// or https://";
        Self::new(StatusCode::UPGRADE_REQUIRED, "invalid_request_error", message)
    }

    /// The response as text, for a connection that closes before HTTP begins.
    pub(crate) fn closing_response(&self) -> String {
        let (status, body) = (self.status, self.object().to_string());
        let extra = match status {
            // RFC 9110, 15.5.22.
            StatusCode::UPGRADE_REQUIRED => "upgrade: TLS/1.3\r\n".to_owned(),
            _ => format!("retry-after: {}\r\n", self.retry_after),
        };
        format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
             {extra}connection: close\r\n\r\n{body}",
            body.len(),
        )
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

/// Cuts a text that repeats a long value of the request.
fn truncated(mut text: String) -> String {
    if text.len() > MAX_MESSAGE_BYTES {
        text.truncate(text.floor_char_boundary(MAX_MESSAGE_BYTES));
        text.push_str("...");
    }
    text
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
        let headers = response.headers_mut();
        if self.status == StatusCode::TOO_MANY_REQUESTS || self.code == Some(SHUTTING_DOWN) {
            headers.insert(header::RETRY_AFTER, self.retry_after.into());
        }
        // The rest of a slow body would be read as the next request.
        if self.status == StatusCode::REQUEST_TIMEOUT || self.code == Some(SHUTTING_DOWN) {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            let scheme = HeaderValue::from_static("Bearer");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
        }
        response
    }
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
