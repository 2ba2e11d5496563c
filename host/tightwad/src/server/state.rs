//! What all handlers share.

use std::sync::{Arc, PoisonError, RwLock};

use tightwad_net::Token;

use super::error::ApiError;
use super::node::Lent;
use super::{Control, Metrics, RouteTable};
use crate::types::Clock;

/// Routes, metrics and the bearer token; cheap to clone.
#[derive(Clone)]
pub struct ServerState {
    pub(super) table: Arc<RouteTable>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) token: Arc<CurrentToken>,
    pub(super) clock: Clock,
    lent: Option<Lent>,
    pub(super) control: Option<Arc<dyn Control>>,
    /// Routes of something else that guards itself.
    pub(super) beside: Option<axum::Router>,
}

impl ServerState {
    /// `token`: what clients must send as a bearer token; `None` lets everyone in.
    #[must_use]
    pub fn new(table: Arc<RouteTable>, metrics: Arc<Metrics>, token: Option<Token>) -> Self {
        let token = Arc::new(CurrentToken::new(token));
        let clock = Clock::default();
        Self { table, metrics, token, clock, lent: None, control: None, beside: None }
    }

    /// The token, which can be replaced while the server runs.
    #[must_use]
    pub fn token(&self) -> &Arc<CurrentToken> {
        &self.token
    }

    /// Takes the time from `clock`.
    #[cfg(test)]
    #[must_use]
    pub(crate) fn timed_by(self, clock: Clock) -> Self {
        Self { clock, ..self }
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

/// The bearer token of a server. A new one holds from the next request on.
#[derive(Debug)]
pub struct CurrentToken(RwLock<Option<Token>>);

impl CurrentToken {
    fn new(token: Option<Token>) -> Self {
        Self(RwLock::new(token))
    }

    /// The token of this moment.
    #[must_use]
    pub fn current(&self) -> Option<Token> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces the token.
    pub fn replace(&self, token: Option<Token>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = token;
    }
}
