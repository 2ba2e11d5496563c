//! The state of a node: its models and sessions.

use std::collections::BTreeMap;
use std::num::NonZero;
use std::sync::Arc;

use tightwad_core::{Clock, SharedBackend};
use tightwad_net::http::ApiError;
use tokio::sync::Semaphore;

use crate::protocol::calls::{OpenCall, OpenReply};
use crate::server::clients::{ClientCounts, ClientPermit};
use crate::server::registry::{Registry, SessionEntry, SessionLimits, spawn_sweeper};
use crate::server::state::Session;

/// The models that a node lends, and the sessions on them. Cloning is cheap.
#[derive(Clone)]
pub struct NodeService {
    pub(crate) models: Arc<BTreeMap<String, SharedBackend>>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) clock: Clock,
    /// The calls in progress.
    pub(crate) calls: Arc<ClientCounts>,
    /// The threads that convert tokens to text.
    pub(crate) text_threads: Arc<Semaphore>,
}

/// The maximum number of calls in progress per session that a client may have: one runs, and one waits.
const MAX_CALLS_PER_SESSION: usize = 2;
/// The maximum number of tokens of a session on a model that does not report its context.
const DEFAULT_MAX_SESSION_TOKENS: usize = 1 << 20;

impl NodeService {
    /// A service that lends `models` by name. The call needs a tokio runtime, because it starts the task that
    /// closes idle sessions.
    #[must_use]
    pub fn new(models: impl IntoIterator<Item = (String, SharedBackend)>, limits: SessionLimits) -> Self {
        let (registry, models) = (Arc::new(Registry::new(limits)), Arc::new(models.into_iter().collect()));
        spawn_sweeper(&registry, &models);
        let [per_client, total] =
            [limits.per_client, limits.total].map(|sessions| sessions * MAX_CALLS_PER_SESSION);
        let calls = Arc::new(ClientCounts::new("calls", per_client, total));
        let text_threads = std::thread::available_parallelism().map_or(1, NonZero::get);
        let text_threads = Arc::new(Semaphore::new(text_threads));
        Self { models, registry, clock: Clock::default(), calls, text_threads }
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
        permit: ClientPermit,
        session: Session,
        opened: OpenReply,
    ) -> OpenReply {
        let weights = backend.facts().map(|facts| facts.weights).unwrap_or_default();
        let id = Registry::new_id();
        let context = max_session_tokens(backend);
        self.registry.add(SessionEntry::new(id.clone(), call.model.clone(), context, session, permit));
        OpenReply { session: id, weights, ..opened }
    }
}

/// The maximum number of tokens of a session on `backend`.
pub(crate) fn max_session_tokens(backend: &SharedBackend) -> usize {
    let context = backend.facts().map_or(0, |facts| facts.context as usize);
    if context == 0 { DEFAULT_MAX_SESSION_TOKENS } else { context }
}
