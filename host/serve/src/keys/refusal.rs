//! The reasons for which a server refuses a client.

use std::num::{NonZeroU32, NonZeroU64};
use std::time::Duration;

use axum::http::HeaderValue;
use axum::response::{IntoResponse, Response};
use tightwad_core::KeyName;
use tightwad_net::http::ApiError;
use time::Date;

use crate::keys::rate_limit_headers::{go_duration, whole_seconds};

/// The reason of a refusal. No reason contains a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The request has no key.
    MissingKey,
    /// No key has this secret.
    InvalidKey,
    /// The last day of the key is over.
    Expired { key: KeyName, last_day: Date },
    /// The key lacks rights.
    MissingRights { key: KeyName, needed: String, granted: String },
    /// The key has sent too many requests.
    Requests { key: KeyName, per_minute: NonZeroU32, retry_after: Duration },
    /// The key has used the tokens of the day.
    Tokens { key: KeyName, per_day: NonZeroU64, retry_after: Duration },
}

impl Refusal {
    /// The value of the label `reason` in metrics.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::MissingKey => "missing_key",
            Self::InvalidKey => "invalid_key",
            Self::Expired { .. } => "expired",
            Self::MissingRights { .. } => "rights",
            Self::Requests { .. } => "requests_per_minute",
            Self::Tokens { .. } => "tokens_per_day",
        }
    }

    fn error(&self) -> ApiError {
        match self {
            Self::MissingKey => {
                ApiError::invalid_key("the request has no API key; send 'Authorization: Bearer KEY'")
            }
            Self::InvalidKey => {
                ApiError::invalid_key("the API key is wrong; use a key that this host's operator gave you")
            }
            Self::Expired { key, last_day } => ApiError::invalid_key(format!(
                "the API key '{key}' expired after {last_day}; ask this host's operator for a new one"
            )),
            Self::MissingRights { key, needed, granted } => ApiError::forbidden(&format!(
                "this path needs the right {needed}; the API key '{key}' has {granted}"
            )),
            Self::Requests { key, per_minute, retry_after } => {
                let wait = whole_seconds(*retry_after);
                let message = format!(
                    "the API key '{key}' may send {per_minute} requests per minute; try again in {wait} s"
                );
                ApiError::too_many_requests(message).with_retry_after(wait)
            }
            Self::Tokens { key, per_day, retry_after } => {
                let wait = go_duration(*retry_after);
                let message = format!(
                    "the API key '{key}' has used its {per_day} tokens of this day (UTC); try again in {wait}"
                );
                ApiError::insufficient_quota(message).with_retry_after(whole_seconds(*retry_after))
            }
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = self.error().into_response();
        if matches!(self, Self::Tokens { .. }) {
            // OpenAI's clients otherwise repeat the request after seconds.
            response.headers_mut().insert("x-should-retry", HeaderValue::from_static("false"));
        }
        response
    }
}
