//! A loaded gate.

use std::sync::Arc;

use super::bindings::gating::GatingPre;
use super::contract::Kind;
use super::limits::Meter;
use super::state::{State, TaskHandle};
use super::{PluginEngine, PluginError, ReviewTask, contract, store};

const RUN: &str = "gate.run";
const DESCRIBE: &str = "gate.describe";
/// Tokens that the budget of host calls is reckoned with: a gate calls for answers, not for tokens.
const TOKENS: u32 = 0;

/// A component that drives requests by whole answers.
pub struct GatePlugin {
    engine: Arc<PluginEngine>,
    instance: GatingPre<State>,
    /// Name and version, as errors and reports show them.
    label: String,
    sha256: String,
}

impl GatePlugin {
    /// Compiles and links a component; `name` is what errors call it until it has said its own.
    ///
    /// # Errors
    ///
    /// [`PluginError`] when it is no component, does not fit the contract, or cannot describe
    /// itself.
    pub async fn load(engine: &Arc<PluginEngine>, name: &str, wasm: &[u8]) -> Result<Self, PluginError> {
        let compiled = contract::compile_as(engine, name, wasm, Kind::Gate).await?;
        let linked = engine.gating.instantiate_pre(&compiled.component).and_then(GatingPre::new);
        let instance = linked.map_err(|error| contract::unfit(name, format!("{error:#}")))?;
        let mut plugin =
            Self { engine: engine.clone(), instance, label: name.to_owned(), sha256: compiled.sha256 };
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

    /// Lets a new instance drive `task`, which comes back whatever the instance did. `None` would be a
    /// defect of the host: the store lost the task.
    pub async fn run(&self, task: ReviewTask) -> Option<(ReviewTask, Result<(), PluginError>)> {
        let mut store = store::open(&self.engine, &self.label, Meter::new(self.engine.limits, TOKENS), None);
        store.data_mut().task = Some(task);
        let answer = async {
            let gate = self.instance.instantiate_async(&mut store).await?;
            let handle = store.data_mut().table.push(TaskHandle)?;
            gate.tightwad_plugin_gate().call_run(&mut store, handle).await
        };
        let answer = answer.await;
        let outcome = match answer {
            Ok(Ok(())) => Ok(()),
            Ok(Err(message)) => Err(PluginError::Failed { plugin: self.label.clone(), call: RUN, message }),
            Err(error) => Err(store::error(RUN, &error, store.data())),
        };
        store.into_data().task.map(|task| (task, outcome))
    }

    async fn describe(&self) -> Result<String, PluginError> {
        let mut store = store::open(&self.engine, &self.label, Meter::new(self.engine.limits, 0), None);
        let outcome = async {
            let gate = self.instance.instantiate_async(&mut store).await?;
            gate.tightwad_plugin_gate().call_describe(&mut store).await
        };
        match outcome.await {
            Ok(info) => Ok(format!("{}@{}", info.name, info.version)),
            Err(error) => Err(store::error(DESCRIBE, &error, store.data())),
        }
    }
}
