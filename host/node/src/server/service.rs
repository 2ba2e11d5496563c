//! The state of a node: its models and sessions.

use std::collections::BTreeMap;
use std::sync::Arc;

use tightwad_core::{Clock, SharedBackend};
use tightwad_net::http::ApiError;

use crate::protocol::calls::{OpenCall, OpenReply};
use crate::server::registry::{Registry, SessionEntry, SessionLimits, SessionPermit, spawn_sweeper};
use crate::server::state::Session;

/// The models that a node lends, and the sessions on them. Cloning is cheap.
#[derive(Clone)]
pub struct NodeService {
    pub(crate) models: Arc<BTreeMap<String, SharedBackend>>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) clock: Clock,
}

impl NodeService {
    /// A service that lends `models` by name. The call needs a tokio runtime, because it starts the task that
    /// closes idle sessions.
    #[must_use]
    pub fn new(models: impl IntoIterator<Item = (String, SharedBackend)>, limits: SessionLimits) -> Self {
        let (registry, models) = (Arc::new(Registry::new(limits)), Arc::new(models.into_iter().collect()));
        spawn_sweeper(&registry, &models);
        Self { models, registry, clock: Clock::default() }
    }

    /// Number of open sessions.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.registry.len()
    }

    /// Uses `clock` as the time source.
    #[cfg(test)]
    #[must_use]
    pub(crate) fn with_clock(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }

    /// The model `name`, or an error that lists the lent models.
    pub(crate) fn model(&self, name: &str) -> Result<SharedBackend, ApiError> {
        let model = self.models.get(name).cloned();
        model.ok_or_else(|| ApiError::unknown_model(name, self.models.keys().map(String::as_str)))
    }

    /// Registers an open session and completes the reply.
    pub(crate) fn register(
        &self,
        call: &OpenCall,
        backend: &SharedBackend,
        permit: SessionPermit,
        session: Session,
        opened: OpenReply,
    ) -> OpenReply {
        let weights = backend.facts().map(|facts| facts.weights).unwrap_or_default();
        let opened = OpenReply { session: self.registry.new_id(), weights, ..opened };
        let id = opened.session.clone();
        self.registry.add(SessionEntry::new(id, call.model.clone(), session, permit));
        opened
    }
}
