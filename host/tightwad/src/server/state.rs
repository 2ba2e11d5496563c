//! What all handlers share.

use std::sync::Arc;

use super::{Metrics, RouteTable};

/// Routes, metrics and the bearer token; cheap to clone.
#[derive(Clone)]
pub struct ServerState {
    pub(super) table: Arc<RouteTable>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) token: Option<Arc<str>>,
}

impl ServerState {
    /// `token`: what clients must send as a bearer token; `None` lets everyone in.
    #[must_use]
    pub fn new(table: Arc<RouteTable>, metrics: Arc<Metrics>, token: Option<&str>) -> Self {
        Self { table, metrics, token: token.map(Into::into) }
    }
}
