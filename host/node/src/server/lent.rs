//! The models that a node lends.

use std::collections::BTreeMap;
use std::sync::Arc;

use tightwad_core::{Clock, SharedBackend};
use tightwad_net::http::ApiError;

use crate::protocol::calls::{OpenCall, Opened};
use crate::server::registry::{Entry, Place, Registry, SessionLimits, sweep};
use crate::server::state::Session;

/// The models that a node lends, and the sessions on them; cheap to clone.
#[derive(Clone)]
pub struct Lent {
    pub(crate) models: Arc<BTreeMap<String, SharedBackend>>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) clock: Clock,
}

impl Lent {
    /// Lends `models` by name. Must be called within the runtime: idle sessions are looked for there.
    #[must_use]
    pub fn new(models: impl IntoIterator<Item = (String, SharedBackend)>, limits: SessionLimits) -> Self {
        let (registry, models) = (Arc::new(Registry::new(limits)), Arc::new(models.into_iter().collect()));
        sweep(&registry, &models);
        Self { models, registry, clock: Clock::default() }
    }

    /// Sessions that are open.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.registry.len()
    }

    /// Takes the time from `clock`.
    #[cfg(test)]
    #[must_use]
    pub(crate) fn timed_by(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }

    /// The model `name`, or an error that lists those that are lent.
    pub(crate) fn model(&self, name: &str) -> Result<SharedBackend, ApiError> {
        let found = self.models.get(name).cloned();
        found.ok_or_else(|| ApiError::unknown_model(name, self.models.keys().map(String::as_str)))
    }

    /// Registers an opened session; what its caller is answered.
    pub(crate) fn register(
        &self,
        call: &OpenCall,
        backend: &SharedBackend,
        place: Place,
        session: Session,
        opened: Opened,
    ) -> Opened {
        let weights = backend.facts().map(|facts| facts.weights).unwrap_or_default();
        let opened = Opened { session: self.registry.name(), weights, ..opened };
        let id = opened.session.clone();
        self.registry.add(Entry::new(id, call.model.clone(), session, place));
        opened
    }
}
