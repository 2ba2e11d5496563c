//! The state that all handlers share.

use std::sync::Arc;

use tightwad_core::Credentials;
use tightwad_net::door::{Encryption, Shutdown, WebNames};

use crate::admission::Admission;
use crate::control::Control;
use crate::keys::api_keys::ApiKeys;
use crate::metrics::Metrics;
use crate::model_table::ModelTable;

/// The models, metrics and credentials of a server. Cloning is cheap.
#[derive(Clone)]
pub struct ServerState {
    pub(crate) models: Arc<ModelTable>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) admission: Arc<Admission>,
    pub(crate) keys: Arc<ApiKeys>,
    /// Further routes that need all rights.
    pub(crate) guarded_routes: Option<axum::Router>,
    pub(crate) control: Option<Arc<dyn Control>>,
    /// Further routes with their own authorization.
    pub(crate) extra_routes: Option<axum::Router>,
    /// The host names and web origins that may use the server.
    pub(crate) web: Arc<WebNames>,
    /// Which connections are encrypted.
    pub(crate) encryption: Encryption,
    /// Streams end at its deadline.
    pub(crate) shutdown: Shutdown,
}

impl ServerState {
    /// Creates the state. A server without credentials accepts every client.
    #[must_use]
    pub fn new(models: Arc<ModelTable>, metrics: Arc<Metrics>, credentials: impl Into<Credentials>) -> Self {
        Self {
            models,
            metrics,
            admission: Arc::default(),
            keys: Arc::new(ApiKeys::new(credentials.into())),
            guarded_routes: None,
            control: None,
            extra_routes: None,
            web: Arc::default(),
            encryption: Encryption::default(),
            shutdown: Shutdown::never(),
        }
    }

    /// The server's credentials, which can be replaced at runtime.
    #[must_use]
    pub fn keys(&self) -> &Arc<ApiKeys> {
        &self.keys
    }

    /// Also serves `routes`, which need all rights.
    #[must_use]
    pub fn with_guarded_routes(self, routes: axum::Router) -> Self {
        Self { guarded_routes: Some(routes), ..self }
    }

    /// Enables loading and unloading of models.
    #[must_use]
    pub fn with_control(self, control: Arc<dyn Control>) -> Self {
        Self { control: Some(control), ..self }
    }

    /// Admits the host names and web origins in `web`.
    #[must_use]
    pub fn with_web(self, web: Arc<WebNames>) -> Self {
        Self { web, ..self }
    }

    /// Encrypts connections.
    #[must_use]
    pub fn with_encryption(self, encryption: Encryption) -> Self {
        Self { encryption, ..self }
    }

    /// Also serves `routes`, which have their own authorization.
    #[must_use]
    pub fn with_extra_routes(self, routes: axum::Router) -> Self {
        Self { extra_routes: Some(routes), ..self }
    }
}
