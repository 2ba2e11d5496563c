//! `GET /v1/node`: the node's facts.

use std::time::{SystemTime, UNIX_EPOCH};

use axum::extract::State;
use axum::response::Response;
use tightwad_net::http::ApiError;

use crate::protocol::facts::{NodeFacts, NodeModel, PROTOCOL_VERSION};
use crate::server::body::checked_response;
use crate::server::service::NodeService;

pub(crate) async fn show(State(service): State<NodeService>) -> Result<Response, ApiError> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let model = |(name, backend): (&String, &tightwad_core::SharedBackend)| {
        let facts = backend.facts()?;
        Some(NodeModel { name: name.clone(), facts, load: backend.load() })
    };
    Ok(checked_response(&NodeFacts {
        tightwad: env!("CARGO_PKG_VERSION").to_owned(),
        protocol: PROTOCOL_VERSION,
        unix_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
        sessions: service.sessions(),
        models: service.models.iter().filter_map(model).collect(),
    }))
}
