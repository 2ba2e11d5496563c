//! A plugin that can be used.

use std::sync::Arc;

use async_trait::async_trait;
use tightwad_core::CircuitBreaker;

use crate::contract::Compiled;
use crate::engine::PluginEngine;
use crate::error::PluginError;
use crate::linked::Identity;
use crate::world::World;

/// A plugin of one kind.
#[async_trait]
pub trait Loaded: Sized + Send + Sync + 'static {
    /// What it is for.
    const WORLD: World;

    /// Links what was compiled, and lets it introduce itself; until then errors call it `name`.
    ///
    /// # Errors
    ///
    /// [`PluginError`] when it does not fit the contract, or cannot describe itself.
    async fn link(engine: &Arc<PluginEngine>, name: &str, compiled: &Compiled) -> Result<Self, PluginError>;

    /// True for a component that can only be slow, never wrong.
    fn is_exact(compiled: &Compiled) -> bool;

    /// Who it is.
    fn identity(&self) -> &Identity;

    /// Name and version, as errors and reports show them.
    fn label(&self) -> &str {
        &self.identity().label
    }

    /// SHA-256 of the component, in hexadecimal.
    fn sha256(&self) -> &str {
        &self.identity().sha256
    }

    /// Label and digest, as reports list plugins.
    fn entry(&self) -> (String, String) {
        (self.label().to_owned(), self.sha256().to_owned())
    }

    /// Open while the plugin fails too often to be asked.
    fn breaker(&self) -> &CircuitBreaker {
        &self.identity().breaker
    }
}
