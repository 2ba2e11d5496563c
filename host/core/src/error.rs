//! Failures of backends.

/// A failure of a backend. The variants differ in the party that must act.
#[derive(Debug, Clone, thiserror::Error)]
pub enum BackendError {
    /// The client must change the request (HTTP 400).
    #[error("{message}")]
    Invalid {
        /// The fault and its remedy.
        message: String,
        /// The request's invalid field, if the fault lies in one.
        parameter: Option<&'static str>,
        /// OpenAI's error code, if OpenAI defines one.
        code: Option<&'static str>,
    },
    /// The backend's queue is full (HTTP 429).
    #[error("{backend} is overloaded: {waiting} requests are already waiting; try again later")]
    Overloaded {
        /// The backend's name.
        backend: String,
        /// Requests in its queue.
        waiting: usize,
    },
    /// A server behind the backend refused the request because of its load (HTTP 429).
    #[error("{backend}: {message}")]
    Busy {
        /// The backend's name.
        backend: String,
        /// The server's message.
        message: String,
    },
    /// The backend lacks a role.
    #[error("{backend} cannot {action}")]
    Unsupported {
        /// The backend's name.
        backend: String,
        /// The verb that names the missing role.
        action: &'static str,
    },
    /// The client disconnected.
    #[error("the client disconnected")]
    Cancelled,
    /// The backend failed (HTTP 503).
    #[error("{backend} failed: {message}")]
    Failed {
        /// The backend's name.
        backend: String,
        /// The cause.
        message: String,
    },
}

impl BackendError {
    /// The error of a `backend` that lacks the role named by the verb `action`.
    #[must_use]
    pub fn unsupported(backend: &str, action: &'static str) -> Self {
        Self::Unsupported { backend: backend.to_owned(), action }
    }

    /// True when another backend can possibly answer the same call.
    #[must_use]
    pub fn allows_failover(&self) -> bool {
        matches!(self, Self::Failed { .. } | Self::Overloaded { .. } | Self::Busy { .. })
    }

    /// The failure of `backend` with the cause `message`.
    #[must_use]
    pub fn failed(backend: &str, message: impl ToString) -> Self {
        Self::Failed { backend: backend.to_owned(), message: message.to_string() }
    }
}

/// Returns the message of the innermost cause. The outer errors of HTTP clients only say that a request failed.
pub fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
