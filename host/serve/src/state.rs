//! What all handlers share.

use std::sync::{Arc, RwLock};

use tightwad_core::{Token, sync};

use crate::control::Control;
use crate::metrics::Metrics;
use crate::table::RouteTable;

/// Routes, metrics and the bearer token; cheap to clone.
#[derive(Clone)]
pub struct ServerState {
    pub(crate) table: Arc<RouteTable>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) token: Arc<CurrentToken>,
    /// Routes of something else that the token guards.
    pub(crate) guarded: axum::Router,
    pub(crate) control: Option<Arc<dyn Control>>,
    /// Routes of something else that guards itself.
    pub(crate) beside: Option<axum::Router>,
}

impl ServerState {
    /// `token`: what clients must send as a bearer token; `None` lets everyone in.
    #[must_use]
    pub fn new(table: Arc<RouteTable>, metrics: Arc<Metrics>, token: Option<Token>) -> Self {
        let token = Arc::new(CurrentToken::new(token));
        let guarded = axum::Router::new();
        Self { table, metrics, token, guarded, control: None, beside: None }
    }

    /// The token, which can be replaced while the server runs.
    #[must_use]
    pub fn token(&self) -> &Arc<CurrentToken> {
        &self.token
    }

    /// Also serves `routes`, which the token guards.
    #[must_use]
    pub fn guarding(self, routes: axum::Router) -> Self {
        Self { guarded: routes, ..self }
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
        sync::read(&self.0).clone()
    }

    /// Replaces the token.
    pub fn replace(&self, token: Option<Token>) {
        *sync::write(&self.0) = token;
    }
}
