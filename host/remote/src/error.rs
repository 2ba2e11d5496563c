//! Errors of connecting to a text server.

use tightwad_net::{InvalidUrl, excerpt};

/// The reason why connecting to a text server failed.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The address is not valid.
    #[error("the address of a text server {0}")]
    Address(#[from] InvalidUrl),
    /// The HTTP client cannot be built.
    #[error(transparent)]
    Client(reqwest::Error),
    /// The server does not reply, or its reply is not a list of models.
    #[error("{url} does not reply: {reason}; is the server running there?")]
    NoReply {
        /// The server.
        url: String,
        /// The error of the HTTP client, or the status of the reply.
        reason: String,
    },
    /// The server requires an API key that the caller did not send.
    #[error("{url} requires its API key: set `api_key`")]
    Unauthorized {
        /// The server.
        url: String,
    },
    /// The server does not have exactly one model, and the caller names none.
    #[error("{url} has several models: choose one with `model`: {}", name_list(.models))]
    SeveralModels {
        /// The server.
        url: String,
        /// The server's models.
        models: Vec<String>,
    },
    /// The server does not have the model.
    #[error("{url} has no model '{model}'; it has: {}", name_list(.models))]
    UnknownModel {
        /// The server.
        url: String,
        /// The model that the caller names.
        model: String,
        /// The server's models.
        models: Vec<String>,
    },
}

/// The maximum number of names in an error.
const MAX_LISTED_NAMES: usize = 20;

/// The first names of a list that another machine sent.
fn name_list(names: &[String]) -> String {
    let listed: Vec<String> = names.iter().take(MAX_LISTED_NAMES).map(|name| excerpt(name, None)).collect();
    match names.len().saturating_sub(MAX_LISTED_NAMES) {
        0 => listed.join(", "),
        more => format!("{} and {more} more", listed.join(", ")),
    }
}
