//! A compiled and linked component: the common part of all plugins.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tightwad_core::{Backoff, CircuitBreaker, printable};
use wasmtime::Store;
use wasmtime::component::{InstancePre, Linker};

use crate::contract::CompiledComponent;
use crate::counts::CallCounts;
use crate::engine::PluginEngine;
use crate::error::PluginError;
use crate::limits::{Limits, ResourceMeter};
use crate::state::State;
use crate::{contract, describe, store};

/// The number of consecutive failures that open a plugin's circuit breaker.
const MAX_FAILURES: u32 = 5;
/// The time during which the host does not call a plugin with an open circuit breaker.
const COOLDOWN: Backoff = Backoff::new(Duration::from_secs(30), Duration::from_secs(30));

/// A plugin's label and digest, with its circuit breaker and the counts of its calls.
#[derive(Debug)]
pub struct Identity {
    /// The name and version, as in errors and reports.
    pub(crate) label: String,
    /// The SHA-256 of the component, in hexadecimal.
    pub(crate) sha256: String,
    /// Each plugin has its own circuit breaker. The host therefore calls the replacement of a failed plugin
    /// immediately.
    pub(crate) breaker: CircuitBreaker,
    counts: OnceLock<Arc<CallCounts>>,
}

impl Identity {
    /// The counts of the plugin's calls, including the calls of the plugins that it replaced.
    #[must_use]
    pub fn counts(&self) -> &Arc<CallCounts> {
        self.counts.get_or_init(Arc::default)
    }

    /// Continues the counts of the `replaced` plugin. Must be called before the plugin's first call.
    pub(crate) fn inherit_counts(&self, replaced: &Self) {
        // Before the first call, the plugin has no counts that `set` could lose.
        let _ = self.counts.set(replaced.counts().clone());
    }
}

/// A component that can be instantiated. `I` is the typed [`InstancePre`] of its world.
pub struct LinkedComponent<I> {
    engine: Arc<PluginEngine>,
    limits: Limits,
    /// Instantiates the component.
    pub instance_pre: I,
    /// The plugin's identity.
    pub identity: Identity,
}

impl<I> LinkedComponent<I> {
    /// Links a component and asks for its name and version. An error of these steps contains `name`.
    ///
    /// # Errors
    ///
    /// Returns [`PluginError`] if the component does not fit the contract, or if its `describe` fails.
    pub async fn new<T: Send + 'static>(
        (engine, name, compiled): (&Arc<PluginEngine>, &str, &CompiledComponent),
        linker: wasmtime::Result<Linker<State<T>>>,
        typed: impl FnOnce(InstancePre<State<T>>) -> wasmtime::Result<I>,
    ) -> Result<Self, PluginError> {
        let linked = linker.and_then(|linker| linker.instantiate_pre(&compiled.component)).and_then(typed);
        let instance_pre = linked.map_err(|error| {
            contract::mismatch(name, format!("{error:#}. Rebuild it with the `wit` folder of this host."))
        })?;
        let limits = if compiled.world.wasi { engine.limits.for_policies() } else { engine.limits };
        let identity = Identity {
            label: describe::label(engine, name, compiled, limits).await?,
            sha256: compiled.sha256.clone(),
            breaker: CircuitBreaker::new(MAX_FAILURES, COOLDOWN),
            counts: OnceLock::new(),
        };
        Ok(Self { engine: engine.clone(), limits, instance_pre, identity })
    }

    /// Creates a store for one instance, with `data` for the host functions. The instance gets further host calls for
    /// each of the `tokens` that may be generated.
    pub fn store<T: Send + 'static>(&self, tokens: u32, data: T) -> Store<State<T>> {
        let meter = ResourceMeter::new(self.limits, tokens);
        store::new_store(&self.engine, &self.identity.label, meter, data)
    }

    /// The error of a `call` that returned an error or an invalid value.
    pub fn failed(&self, call: &'static str, message: &str) -> PluginError {
        let message = printable(message, store::MAX_PLUGIN_MESSAGE_BYTES);
        PluginError::Failed { plugin: self.identity.label.clone(), call, message }
    }

    /// Converts the `result` of a `call` in which the component drove a request.
    pub fn run_result<T>(
        &self,
        call: &'static str,
        store: &Store<State<T>>,
        result: wasmtime::Result<Result<(), String>>,
    ) -> Result<(), PluginError> {
        match result {
            Ok(Ok(())) => Ok(()),
            Ok(Err(message)) => Err(self.failed(call, &message)),
            Err(error) => Err(store::call_error(call, &error, store.data())),
        }
    }
}
