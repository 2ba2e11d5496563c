//! Errors of connecting to a node.

use tightwad_core::BackendError;
use tightwad_net::{ClientError, InvalidUrl};

use crate::protocol::facts::PROTOCOL_VERSION;

/// The reason why connecting to a node failed.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The address is not valid.
    #[error("the address of a node {0}")]
    Address(#[from] InvalidUrl),
    /// The HTTP client cannot be built.
    #[error("the HTTP client does not start: {0}")]
    Client(ClientError),
    /// The node does not reply, or its reply is not valid.
    #[error("{reason}; is `tightwad node` running there, and can this machine reach it?")]
    NoReply {
        /// The node and the error.
        reason: String,
    },
    /// The node replies with an error.
    #[error(transparent)]
    Refused(BackendError),
    /// The node uses another version of the protocol.
    #[error(
        "{node} runs tightwad {tightwad} with version {protocol} of the protocol, this host uses version {PROTOCOL_VERSION}: update the older one"
    )]
    Version {
        /// The node.
        node: String,
        /// The node's version of tightwad.
        tightwad: String,
        /// The node's version of the protocol.
        protocol: u32,
    },
    /// The node lends several models, and the caller names none.
    #[error("{node} lends several models: choose one with `model`: {}", .models.join(", "))]
    SeveralModels {
        /// The node.
        node: String,
        /// The node's models.
        models: Vec<String>,
    },
    /// The node does not lend the model.
    #[error("{node} lends no model '{model}'; it has: {}", .models.join(", "))]
    UnknownModel {
        /// The node.
        node: String,
        /// The name that the caller gave; empty if the caller gave none.
        model: String,
        /// The node's models.
        models: Vec<String>,
    },
}
