//! The routes of a node.

use std::net::SocketAddr;

use axum::Router;
use axum::extract::{ConnectInfo, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::{delete, get, post};
use tightwad_net::http::ApiError;

use crate::server::service::NodeService;
use crate::server::{decode, facts, open, sessions, tokens};

/// The routes of a node. The server that mounts them must check the token.
pub fn routes(service: NodeService) -> Router {
    let calls = Router::new()
        .route("/v1/node/sessions", post(open::open))
        .route("/v1/node/sessions/{id}/verify", post(sessions::verify))
        .route("/v1/node/sessions/{id}/decode", post(decode::decode))
        .route("/v1/node/sessions/{id}/propose", post(sessions::propose))
        .route("/v1/node/score", post(tokens::score))
        .route("/v1/node/tokenize", post(tokens::tokenize))
        .route("/v1/node/detokenize", post(tokens::detokenize))
        // One client must not fill the node's memory with calls that wait.
        .route_layer(from_fn_with_state(service.clone(), limit_calls));
    Router::new()
        .route("/v1/node", get(facts::show))
        .route("/v1/node/sessions/{id}", delete(sessions::close))
        .merge(calls)
        .with_state(service)
}

/// Replies 429 to a client with too many calls in progress.
async fn limit_calls(
    State(service): State<NodeService>,
    ConnectInfo(client): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let permit = service.calls.reserve(client.ip());
    let _permit = permit.map_err(|error| ApiError::too_many_requests(error.to_string()))?;
    Ok(next.run(request).await)
}
