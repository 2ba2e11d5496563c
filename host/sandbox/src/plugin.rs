//! The interface of all plugin types.

use std::sync::Arc;

use async_trait::async_trait;
use tightwad_core::CircuitBreaker;

use crate::contract::CompiledComponent;
use crate::engine::PluginEngine;
use crate::error::PluginError;
use crate::linked_component::Identity;
use crate::world::World;

/// A loaded plugin of one kind.
#[async_trait]
pub trait Plugin: Sized + Send + Sync + 'static {
    /// The world of the plugin's components.
    const WORLD: World;

    /// Links a compiled component and asks for its name and version. An error of these steps contains `name`.
    ///
    /// # Errors
    ///
    /// Returns [`PluginError`] if the component does not fit the contract, or if its `describe` fails.
    async fn link(
        engine: &Arc<PluginEngine>,
        name: &str,
        compiled: &CompiledComponent,
    ) -> Result<Self, PluginError>;

    /// True if the component cannot change an answer, only its speed.
    fn is_exact(compiled: &CompiledComponent) -> bool;

    /// The plugin's identity.
    fn identity(&self) -> &Identity;

    /// The name and version, as in errors and reports.
    fn label(&self) -> &str {
        &self.identity().label
    }

    /// The SHA-256 of the component, in hexadecimal.
    fn sha256(&self) -> &str {
        &self.identity().sha256
    }

    /// The label and digest, as in reports.
    fn report_entry(&self) -> (String, String) {
        (self.label().to_owned(), self.sha256().to_owned())
    }

    /// Records the result of a call in the circuit breaker. An overload of the host does not count.
    fn record_result<T>(&self, result: &Result<T, PluginError>) {
        if !result.as_ref().is_err_and(|error| !error.is_plugin_fault()) {
            self.breaker().record(result.is_ok());
        }
    }

    /// The circuit breaker, which opens when the plugin fails several times in a row.
    fn breaker(&self) -> &CircuitBreaker {
        &self.identity().breaker
    }
}
