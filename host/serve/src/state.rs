//! The state that all handlers share.

use std::sync::{Arc, RwLock};

use tightwad_core::{Token, sync};

use crate::control::Control;
use crate::metrics::Metrics;
use crate::model_table::ModelTable;

/// The models, metrics and bearer token of a server. Cloning is cheap.
#[derive(Clone)]
pub struct ServerState {
    pub(crate) models: Arc<ModelTable>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) token: Arc<CurrentToken>,
    /// Further routes that the token guards.
    pub(crate) guarded_routes: axum::Router,
    pub(crate) control: Option<Arc<dyn Control>>,
    /// Further routes with their own authorization.
    pub(crate) extra_routes: Option<axum::Router>,
}

impl ServerState {
    /// Creates the state. `token` is the bearer token of clients; `None` accepts every client.
    #[must_use]
    pub fn new(models: Arc<ModelTable>, metrics: Arc<Metrics>, token: Option<Token>) -> Self {
        let token = Arc::new(CurrentToken::new(token));
        let guarded_routes = axum::Router::new();
        Self { models, metrics, token, guarded_routes, control: None, extra_routes: None }
    }

    /// The server's token, which can be replaced at runtime.
    #[must_use]
    pub fn token(&self) -> &Arc<CurrentToken> {
        &self.token
    }

    /// Also serves `routes`, guarded by the token.
    #[must_use]
    pub fn with_guarded_routes(self, routes: axum::Router) -> Self {
        Self { guarded_routes: routes, ..self }
    }

    /// Enables loading and unloading of models.
    #[must_use]
    pub fn with_control(self, control: Arc<dyn Control>) -> Self {
        Self { control: Some(control), ..self }
    }

    /// Also serves `routes`, which have their own authorization.
    #[must_use]
    pub fn with_extra_routes(self, routes: axum::Router) -> Self {
        Self { extra_routes: Some(routes), ..self }
    }
}

/// The bearer token of a server. A replacement applies from the next request on.
#[derive(Debug)]
pub struct CurrentToken(RwLock<Option<Token>>);

impl CurrentToken {
    fn new(token: Option<Token>) -> Self {
        Self(RwLock::new(token))
    }

    /// The current token.
    #[must_use]
    pub fn current(&self) -> Option<Token> {
        sync::read(&self.0).clone()
    }

    /// Replaces the token.
    pub fn replace(&self, token: Option<Token>) {
        *sync::write(&self.0) = token;
    }
}
