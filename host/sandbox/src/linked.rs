//! A component that was compiled and linked: what every plugin is, whatever it is for.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tightwad_core::{Backoff, CircuitBreaker};
use wasmtime::Store;
use wasmtime::component::{InstancePre, Linker};

use crate::contract::Compiled;
use crate::counts::CallCounts;
use crate::engine::PluginEngine;
use crate::error::PluginError;
use crate::limits::{Limits, Meter};
use crate::state::State;
use crate::{contract, describe, store};

/// Failures in a row after which a plugin is not asked.
const MAX_FAILURES: u32 = 5;
/// For how long it is not asked.
const COOL_DOWN: Backoff = Backoff::new(Duration::from_secs(30), Duration::from_secs(30));

/// Who a plugin is, and how it has done.
#[derive(Debug)]
pub struct Identity {
    /// Name and version, as errors and reports show them.
    pub(crate) label: String,
    /// SHA-256 of the component, in hexadecimal.
    pub(crate) sha256: String,
    /// Its own: what replaces a plugin that failed gets its chance at once.
    pub(crate) breaker: CircuitBreaker,
    counts: OnceLock<Arc<CallCounts>>,
}

impl Identity {
    /// What its calls took, and those of the plugins that it has replaced.
    #[must_use]
    pub fn counts(&self) -> &Arc<CallCounts> {
        self.counts.get_or_init(Arc::default)
    }

    /// Goes on counting where the plugin that it replaces has stopped; before its first call.
    pub(crate) fn inherit(&self, before: &Self) {
        // It has none of its own yet.
        let _ = self.counts.set(before.counts().clone());
    }
}

/// A component to be instantiated, by the typed `I` of its world.
pub struct Linked<I> {
    engine: Arc<PluginEngine>,
    limits: Limits,
    /// Instantiates it.
    pub instance: I,
    /// Who it is.
    pub identity: Identity,
}

impl<I> Linked<I> {
    /// Links a component and asks it who it is; until then errors call it `name`.
    ///
    /// # Errors
    ///
    /// [`PluginError`] when it does not fit the contract, or cannot describe itself.
    pub async fn new<T: Send + 'static>(
        (engine, name, compiled): (&Arc<PluginEngine>, &str, &Compiled),
        linker: wasmtime::Result<Linker<State<T>>>,
        typed: impl FnOnce(InstancePre<State<T>>) -> wasmtime::Result<I>,
    ) -> Result<Self, PluginError> {
        let instance = linker.and_then(|linker| linker.instantiate_pre(&compiled.component)).and_then(typed);
        let instance = instance.map_err(|error| contract::unfit(name, format!("{error:#}")))?;
        let limits = if compiled.world.wasi { engine.limits.of_policies() } else { engine.limits };
        let identity = Identity {
            label: describe::label(engine, name, compiled, limits).await?,
            sha256: compiled.sha256.clone(),
            breaker: CircuitBreaker::new(MAX_FAILURES, COOL_DOWN),
            counts: OnceLock::new(),
        };
        Ok(Self { engine: engine.clone(), limits, instance, identity })
    }

    /// A store for one instance, with `data` for the host functions. `tokens`: how many may be generated, which allows
    /// for host calls.
    pub fn store<T: Send + 'static>(&self, tokens: u32, data: T) -> Store<State<T>> {
        store::open(&self.engine, &self.identity.label, Meter::new(self.limits, tokens), data)
    }

    /// How a call that lets the component drive a request ended.
    pub fn outcome<T>(
        &self,
        call: &'static str,
        store: &Store<State<T>>,
        answer: wasmtime::Result<Result<(), String>>,
    ) -> Result<(), PluginError> {
        match answer {
            Ok(Ok(())) => Ok(()),
            Ok(Err(message)) => {
                Err(PluginError::Failed { plugin: self.identity.label.clone(), call, message })
            }
            Err(error) => Err(store::call_error(call, &error, store.data())),
        }
    }
}
