//! Why a text server cannot be used.

use tightwad_core::innermost;

/// Why a text server cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// An HTTP client cannot be built.
    #[error(transparent)]
    Client(reqwest::Error),
    /// The server does not answer, or its answer is not a list of models.
    #[error("{url} does not answer: {}; is the server running there?", innermost(.source))]
    NoAnswer {
        /// The server.
        url: String,
        /// The client's reason.
        source: reqwest::Error,
    },
    /// The server wants a token that the caller does not have.
    #[error("{url} wants its API key: give it as `token`")]
    Unauthorized {
        /// The server.
        url: String,
    },
    /// The server does not have exactly one model, and the caller names none.
    #[error("{url} has several models: choose one with `model`: {}", .models.join(", "))]
    SeveralModels {
        /// The server.
        url: String,
        /// Its models.
        models: Vec<String>,
    },
    /// The server does not have the model.
    #[error("{url} has no model '{model}'; it has: {}", .models.join(", "))]
    UnknownModel {
        /// The server.
        url: String,
        /// The model that the caller names.
        model: String,
        /// The server's models.
        models: Vec<String>,
    },
}
