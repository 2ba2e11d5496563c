//! The routes of a node.

use axum::Router;
use axum::routing::{delete, get, post};

use crate::server::service::NodeService;
use crate::server::{facts, open, sessions, tokens};

/// The routes of a node. The server that mounts them must check the token.
pub fn routes(service: NodeService) -> Router {
    Router::new()
        .route("/v1/node", get(facts::show))
        .route("/v1/node/sessions", post(open::open))
        .route("/v1/node/sessions/{id}", delete(sessions::close))
        .route("/v1/node/sessions/{id}/verify", post(sessions::verify))
        .route("/v1/node/sessions/{id}/decode", post(sessions::decode))
        .route("/v1/node/sessions/{id}/propose", post(sessions::propose))
        .route("/v1/node/score", post(tokens::score))
        .route("/v1/node/tokenize", post(tokens::tokenize))
        .route("/v1/node/detokenize", post(tokens::detokenize))
        .with_state(service)
}
