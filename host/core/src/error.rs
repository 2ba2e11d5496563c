//! Why a backend could not answer.

/// A failure of a backend, by whose turn it is to act.
#[derive(Debug, Clone, thiserror::Error)]
pub enum BackendError {
    /// The request cannot be answered as it is: the client must change it (HTTP 400).
    #[error("{message}")]
    Invalid {
        /// What is wrong and how to mend it.
        message: String,
        /// The request's field, where one is to blame.
        parameter: Option<&'static str>,
        /// OpenAI's error code, where there is one.
        code: Option<&'static str>,
    },
    /// Too much work is queued: try again later (HTTP 429).
    #[error("{backend} is overloaded: {waiting} requests are already waiting; try again later")]
    Overloaded {
        /// The backend's name.
        backend: String,
        /// Requests in its queue.
        waiting: usize,
    },
    /// The backend has enough to do, in its own words: try again later (HTTP 429).
    #[error("{backend}: {message}")]
    Busy {
        /// The backend's name.
        backend: String,
        /// What it said.
        message: String,
    },
    /// The backend lacks a role.
    #[error("{backend} cannot {action}")]
    Unsupported {
        /// The backend's name.
        backend: String,
        /// The verb of the missing role.
        action: &'static str,
    },
    /// The client left; nobody reads the answer.
    #[error("the client disconnected")]
    Cancelled,
    /// The backend broke (HTTP 503).
    #[error("{backend} failed: {message}")]
    Failed {
        /// The backend's name.
        backend: String,
        /// What happened.
        message: String,
    },
}

impl BackendError {
    /// `backend` cannot do `action`, a verb.
    #[must_use]
    pub fn unsupported(backend: &str, action: &'static str) -> Self {
        Self::Unsupported { backend: backend.to_owned(), action }
    }

    /// True when another backend may do what this one did not.
    #[must_use]
    pub fn is_loss(&self) -> bool {
        matches!(self, Self::Failed { .. } | Self::Overloaded { .. } | Self::Busy { .. })
    }

    /// `backend` broke.
    #[must_use]
    pub fn failed(backend: &str, message: impl ToString) -> Self {
        Self::Failed { backend: backend.to_owned(), message: message.to_string() }
    }
}

/// The reason at the bottom: the ones above only say that a request failed.
pub fn innermost(error: &dyn std::error::Error) -> String {
    let mut reason = error;
    while let Some(source) = reason.source() {
        reason = source;
    }
    reason.to_string()
}
