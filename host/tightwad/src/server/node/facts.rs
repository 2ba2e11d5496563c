//! What a node says of itself.

use std::time::{SystemTime, UNIX_EPOCH};

use axum::extract::State;
use axum::response::Response;

use super::super::ServerState;
use super::super::error::ApiError;
use super::body::sealed;
use crate::types::node::{NodeFacts, NodeModel, PROTOCOL};

pub(super) async fn show(State(state): State<ServerState>) -> Result<Response, ApiError> {
    let lent = state.lent()?;
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let model = |(name, backend): (&String, &crate::backend::SharedBackend)| {
        let facts = backend.facts()?;
        Some(NodeModel { name: name.clone(), facts, load: backend.load() })
    };
    Ok(sealed(&NodeFacts {
        tightwad: env!("CARGO_PKG_VERSION").to_owned(),
        protocol: PROTOCOL,
        unix_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
        sessions: lent.sessions(),
        models: lent.models.iter().filter_map(model).collect(),
    }))
}
