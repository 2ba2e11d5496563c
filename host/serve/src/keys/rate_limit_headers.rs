//! OpenAI's headers about limits.

use std::time::Duration;

use axum::http::header::HeaderName;
use axum::http::{HeaderMap, HeaderValue};

/// The headers of one limit.
pub(crate) struct LimitHeaders {
    limit: HeaderName,
    remaining: HeaderName,
    reset: HeaderName,
}

impl LimitHeaders {
    /// The headers of the requests per minute.
    pub(crate) fn requests() -> Self {
        Self {
            limit: HeaderName::from_static("x-ratelimit-limit-requests"),
            remaining: HeaderName::from_static("x-ratelimit-remaining-requests"),
            reset: HeaderName::from_static("x-ratelimit-reset-requests"),
        }
    }

    /// The headers of the tokens per day.
    pub(crate) fn tokens() -> Self {
        Self {
            limit: HeaderName::from_static("x-ratelimit-limit-tokens"),
            remaining: HeaderName::from_static("x-ratelimit-remaining-tokens"),
            reset: HeaderName::from_static("x-ratelimit-reset-tokens"),
        }
    }

    /// Sets the three headers. `reset` is the time until nothing is used.
    pub(crate) fn insert(self, headers: &mut HeaderMap, limit: u64, remaining: u64, reset: Duration) {
        headers.insert(self.limit, limit.into());
        headers.insert(self.remaining, remaining.into());
        // Digits and letters are always a valid value.
        if let Ok(reset) = HeaderValue::from_str(&go_duration(reset)) {
            headers.insert(self.reset, reset);
        }
    }
}

/// `duration` in whole seconds, at least 1. Rounded up, because a client must not come too early.
pub(crate) fn whole_seconds(duration: Duration) -> u64 {
    duration.as_nanos().div_ceil(1_000_000_000).max(1).try_into().unwrap_or(u64::MAX)
}

/// `duration` as Go writes it, which is OpenAI's form: `120ms`, `1s`, `6m0s`, `7h12m5s`.
pub(crate) fn go_duration(duration: Duration) -> String {
    if duration < Duration::from_secs(1) {
        return format!("{}ms", duration.as_millis());
    }
    let seconds = whole_seconds(duration);
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, _) => format!("{minutes}m{seconds}s"),
        _ => format!("{hours}h{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duration_has_form_of_go() {
        for (milliseconds, expected) in [
            (0, "0ms"),
            (120, "120ms"),
            (1000, "1s"),
            (1001, "2s"),
            (59_000, "59s"),
            (360_000, "6m0s"),
            (25_925_000, "7h12m5s"),
            (3_600_000, "1h0m0s"),
        ] {
            assert_eq!(go_duration(Duration::from_millis(milliseconds)), expected);
        }
    }

    #[test]
    fn seconds_are_rounded_up() {
        assert_eq!(whole_seconds(Duration::ZERO), 1);
        assert_eq!(whole_seconds(Duration::from_millis(1001)), 2);
        assert_eq!(whole_seconds(Duration::from_secs(86_400)), 86_400);
    }
}
