//! The state that the handlers of a worker share.

use std::sync::Arc;

use tightwad_core::Token;
use tightwad_net::AllowedNetwork;

use crate::worker::service::WorkerService;

/// The state that the handlers share. Cheap to clone.
#[derive(Clone)]
pub struct WorkerState {
    pub(crate) service: Arc<WorkerService>,
    pub(crate) token: Option<Token>,
    pub(crate) allowed: Arc<[AllowedNetwork]>,
}

impl WorkerState {
    /// Hosts must send `token`, and must have an address in `allowed`. An empty list allows all addresses.
    #[must_use]
    pub fn new(service: WorkerService, token: Option<Token>, allowed: Vec<AllowedNetwork>) -> Self {
        Self { service: Arc::new(service), token, allowed: allowed.into() }
    }
}
