//! What all handlers share.

use std::sync::Arc;

use super::error::ApiError;
use super::node::Lent;
use super::{Control, Metrics, RouteTable};

/// Routes, metrics and the bearer token; cheap to clone.
#[derive(Clone)]
pub struct ServerState {
    pub(super) table: Arc<RouteTable>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) token: Option<Arc<str>>,
    lent: Option<Lent>,
    pub(super) control: Option<Arc<dyn Control>>,
    /// Routes of something else that guards itself.
    pub(super) beside: Option<axum::Router>,
}

impl ServerState {
    /// `token`: what clients must send as a bearer token; `None` lets everyone in.
    #[must_use]
    pub fn new(table: Arc<RouteTable>, metrics: Arc<Metrics>, token: Option<&str>) -> Self {
        Self { table, metrics, token: token.map(Into::into), lent: None, control: None, beside: None }
    }

    /// Also lends models to other hosts.
    #[must_use]
    pub fn lending(self, lent: Lent) -> Self {
        Self { lent: Some(lent), ..self }
    }

    /// Lets people load and unload models.
    #[must_use]
    pub fn controlling(self, control: Arc<dyn Control>) -> Self {
        Self { control: Some(control), ..self }
    }

    /// Also serves the routes of something else, which guards itself.
    #[must_use]
    pub fn beside(self, routes: axum::Router) -> Self {
        Self { beside: Some(routes), ..self }
    }

    /// True when models are lent.
    pub(super) fn lends(&self) -> bool {
        self.lent.is_some()
    }

    /// What is lent.
    pub(super) fn lent(&self) -> Result<&Lent, ApiError> {
        self.lent.as_ref().ok_or_else(|| ApiError::failed("this server lends no models"))
    }
}
