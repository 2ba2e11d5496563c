//! Errors of connecting to a text server.

use tightwad_core::root_cause;

/// The reason why connecting to a text server failed.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The HTTP client cannot be built.
    #[error(transparent)]
    Client(reqwest::Error),
    /// The server does not reply, or its reply is not a list of models.
    #[error("{url} does not reply: {}; is the server running there?", root_cause(.source))]
    NoReply {
        /// The server.
        url: String,
        /// The error of the HTTP client.
        source: reqwest::Error,
    },
    /// The server requires an API key that the caller did not send.
    #[error("{url} requires its API key: set `api_key`")]
    Unauthorized {
        /// The server.
        url: String,
    },
    /// The server does not have exactly one model, and the caller names none.
    #[error("{url} has several models: choose one with `model`: {}", .models.join(", "))]
    SeveralModels {
        /// The server.
        url: String,
        /// The server's models.
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
