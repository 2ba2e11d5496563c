//! What a node offers to hosts: sessions that verify, decode and propose; scores; tokens.
//! `host/PROTOCOL.md` explains every field.

mod body;
#[cfg(test)]
mod costs;
mod facts;
mod open;
mod registry;
mod sessions;
mod state;
mod tokens;

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::routing::{delete, get, post};

use self::registry::Registry;
pub use self::registry::SessionLimits;
use super::ServerState;
use crate::backend::SharedBackend;

/// The models that a node lends, and the sessions on them; cheap to clone.
#[derive(Clone)]
pub struct Lent {
    models: Arc<BTreeMap<String, SharedBackend>>,
    registry: Arc<Registry>,
}

impl Lent {
    /// Lends `models` by name. Must be called within the runtime: idle sessions are looked for there.
    #[must_use]
    pub fn new(models: impl IntoIterator<Item = (String, SharedBackend)>, limits: SessionLimits) -> Self {
        let (registry, models) = (Arc::new(Registry::new(limits)), Arc::new(models.into_iter().collect()));
        registry::sweep(&registry, &models);
        Self { models, registry }
    }

    /// Sessions that are open.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.registry.len()
    }
}

/// The paths of a node.
pub(super) fn routes() -> Router<ServerState> {
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
}
