//! A loaded component.

use std::sync::Arc;

use sha2::{Digest, Sha256};
use wasmtime::component::Component;
use wasmtime::{Store, Trap, UpdateDeadline};

use super::bindings::ExactModePre;
use super::limits::{Meter, Stopped};
use super::state::{JobHandle, State};
use super::{Job, PluginEngine, PluginError};
use crate::types::hexadecimal;

/// The contract that this host speaks.
const CONTRACT: &str = "tightwad:plugin@0.1.0";
const PACKAGE: &str = "tightwad:plugin/";
const VERSION: &str = "@0.1.";
const RUN: &str = "mode.run";
const DESCRIBE: &str = "mode.describe";

/// A component that drives requests; compiled and linked, to be instantiated for each request.
pub struct Plugin {
    engine: Arc<PluginEngine>,
    instance: ExactModePre<State>,
    /// Name and version, as errors and reports show them.
    label: String,
    sha256: String,
}

impl Plugin {
    /// Compiles and links a component; `name` is what errors call it until it has said its own.
    ///
    /// # Errors
    ///
    /// [`PluginError`] when it is no component, does not fit the contract, or cannot describe
    /// itself.
    pub async fn load(engine: &Arc<PluginEngine>, name: &str, wasm: &[u8]) -> Result<Self, PluginError> {
        let not_component = |reason: String| PluginError::NotComponent { plugin: name.to_owned(), reason };
        check_header(wasm).map_err(|reason| not_component(reason.to_owned()))?;
        let component =
            Component::new(&engine.engine, wasm).map_err(|error| not_component(format!("{error:#}")))?;
        let contract =
            |reason: String| PluginError::Contract { plugin: name.to_owned(), contract: CONTRACT, reason };
        check_contract(engine, &component).map_err(contract)?;
        let linked = engine.linker.instantiate_pre(&component).and_then(ExactModePre::new);
        let instance = linked.map_err(|error| contract(format!("{error:#}")))?;
        let sha256 = hexadecimal(&Sha256::digest(wasm));
        let mut plugin = Self { engine: engine.clone(), instance, label: name.to_owned(), sha256 };
        plugin.label = plugin.describe().await?;
        Ok(plugin)
    }

    /// Name and version.
    #[must_use]
    pub fn label(&self) -> &str {
        &self.label
    }

    /// SHA-256 of the component, in hexadecimal.
    #[must_use]
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// Lets a new instance drive `job`, which comes back whatever the instance did. `None` would be
    /// a defect of the host: the store lost the job.
    pub async fn run(&self, job: Job) -> Option<(Job, Result<(), PluginError>)> {
        let tokens = job.remaining();
        let mut store = self.store(tokens, None);
        let ready = match self.instance.instantiate_async(&mut store).await {
            Ok(mode) => {
                let handle = store.data_mut().table.push(JobHandle);
                handle.map(|handle| (mode, handle)).map_err(wasmtime::Error::from)
            }
            Err(error) => Err(error),
        };
        let (mode, handle) = match ready {
            Ok(ready) => ready,
            Err(error) => return Some((job, Err(self.error(RUN, &error, store.data())))),
        };
        store.data_mut().job = Some(job);
        let answer = mode.tightwad_plugin_mode().call_run(&mut store, handle).await;
        let outcome = match answer {
            Ok(Ok(())) => Ok(()),
            Ok(Err(message)) => Err(PluginError::Failed { plugin: self.label.clone(), call: RUN, message }),
            Err(error) => Err(self.error(RUN, &error, store.data())),
        };
        store.into_data().job.map(|job| (job, outcome))
    }

    async fn describe(&self) -> Result<String, PluginError> {
        let mut store = self.store(0, None);
        let outcome = async {
            let mode = self.instance.instantiate_async(&mut store).await?;
            mode.tightwad_plugin_mode().call_describe(&mut store).await
        };
        match outcome.await {
            Ok(info) => Ok(format!("{}@{}", info.name, info.version)),
            Err(error) => Err(self.error(DESCRIBE, &error, store.data())),
        }
    }

    fn store(&self, tokens: u32, job: Option<Job>) -> Store<State> {
        let state = State::new(&self.label, Meter::new(self.engine.limits, tokens), job);
        let mut store = Store::new(&self.engine.engine, state);
        store.limiter(|state| &mut state.meter);
        store.set_epoch_deadline(1);
        // Each tick gives other requests a turn.
        store.epoch_deadline_callback(|mut store| {
            store.data_mut().meter.tick()?;
            Ok(UpdateDeadline::Yield(1))
        });
        store
    }

    fn error(&self, call: &'static str, error: &wasmtime::Error, state: &State) -> PluginError {
        let plugin = self.label.clone();
        let limits = self.engine.limits;
        match error.downcast_ref::<Stopped>() {
            Some(Stopped::OutOfMemory) => {
                return PluginError::OutOfMemory { plugin, call, mebibytes: limits.memory >> 20 };
            }
            Some(Stopped::TimedOut) => {
                let milliseconds = limits.compute.as_millis() as u64;
                return PluginError::TimedOut { plugin, call, milliseconds };
            }
            Some(Stopped::Budget) => {
                let calls = limits.calls + state.meter.calls_left;
                return PluginError::Budget { plugin, call, calls };
            }
            None => {}
        }
        let trap =
            error.downcast_ref::<Trap>().map_or_else(|| error.root_cause().to_string(), Trap::to_string);
        let reason = match &state.last_words {
            Some(words) => format!("{words} ({trap})"),
            None => trap,
        };
        PluginError::Trapped { plugin, call, reason }
    }
}

/// Says what else the bytes are, where they are no component.
fn check_header(wasm: &[u8]) -> Result<(), &'static str> {
    match wasm {
        [0, b'a', b's', b'm', _, _, 1, 0, ..] => Ok(()),
        [0, b'a', b's', b'm', 1, 0, 0, 0, ..] => {
            Err("it is a core module: build it for wasm32-unknown-unknown with wasm-component-ld as linker")
        }
        _ => Err("it is not WebAssembly at all"),
    }
}

/// Compares the names of imports and exports with the contract, to say what a linker would not.
fn check_contract(engine: &PluginEngine, component: &Component) -> Result<(), String> {
    let kind = component.component_type();
    let other = |name: &str| name.starts_with(PACKAGE) && !name.contains(VERSION);
    let imports = kind.imports(&engine.engine).map(|(name, _)| name.to_owned());
    let exports = kind.exports(&engine.engine).map(|(name, _)| name.to_owned());
    let (imports, exports): (Vec<String>, Vec<String>) = (imports.collect(), exports.collect());
    if let Some(name) = imports.iter().chain(&exports).find(|name| other(name)) {
        return Err(format!("it was built for {name}: rebuild it with this version's `wit` folder"));
    }
    if let Some(name) = imports.iter().find(|name| !name.starts_with(PACKAGE)) {
        return Err(format!("it imports {name}, which this host does not offer"));
    }
    if !exports.iter().any(|name| name.starts_with("tightwad:plugin/mode@")) {
        return Err("it does not export the interface `mode`".to_owned());
    }
    Ok(())
}
