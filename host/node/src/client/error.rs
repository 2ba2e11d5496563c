//! Why a node cannot be used.

use tightwad_core::BackendError;

use crate::protocol::facts::PROTOCOL;

/// Why a node cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// An HTTP client for the address cannot be built.
    #[error("'{url}' is not the address of a node: {source}")]
    Address {
        /// The address.
        url: String,
        /// The client's reason.
        source: reqwest::Error,
    },
    /// The node does not answer, or its answer is not readable.
    #[error("{reason}; is `tightwad node` running there, and does this machine reach it?")]
    NoAnswer {
        /// The node, and the reason.
        reason: String,
    },
    /// The node answers with a refusal.
    #[error(transparent)]
    Refused(BackendError),
    /// The node speaks another version of the protocol.
    #[error(
        "{node} runs tightwad {tightwad} and speaks version {protocol} of the protocol, this host speaks {PROTOCOL}: update the older one"
    )]
    Version {
        /// The node.
        node: String,
        /// Its version of tightwad.
        tightwad: String,
        /// Its version of the protocol.
        protocol: u32,
    },
    /// The node lends several models, and the caller names none.
    #[error("{node} lends several models: choose one with `model`: {}", .models.join(", "))]
    SeveralModels {
        /// The node.
        node: String,
        /// Its models.
        models: Vec<String>,
    },
    /// The node does not lend the model.
    #[error("{node} lends no model '{model}'; it has: {}", .models.join(", "))]
    UnknownModel {
        /// The node.
        node: String,
        /// The model that the caller names; empty: none.
        model: String,
        /// The node's models.
        models: Vec<String>,
    },
}
