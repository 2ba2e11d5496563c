//! What a node says of itself.

use std::time::{SystemTime, UNIX_EPOCH};

use axum::extract::State;
use axum::response::Response;
use tightwad_net::http::ApiError;

use crate::protocol::facts::{NodeFacts, NodeModel, PROTOCOL};
use crate::server::body::sealed;
use crate::server::lent::Lent;

pub(crate) async fn show(State(lent): State<Lent>) -> Result<Response, ApiError> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let model = |(name, backend): (&String, &tightwad_core::SharedBackend)| {
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
