//! A loaded mode.

use std::sync::Arc;

use super::bindings::ApproximateModePre;
use super::contract::Kind;
use super::limits::Meter;
use super::state::{JobHandle, State};
use super::{Job, PluginEngine, PluginError, contract, store};

const RUN: &str = "mode.run";
const DESCRIBE: &str = "mode.describe";

/// A component that drives requests; compiled and linked, to be instantiated for each request.
pub struct Plugin {
    engine: Arc<PluginEngine>,
    instance: ApproximateModePre<State>,
    exact: bool,
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
        let compiled = contract::compile_as(engine, name, wasm, Kind::Mode).await?;
        let exact = !compiled.imports("unverified");
        let linker = if exact { &engine.exact } else { &engine.approximate };
        let linked = linker.instantiate_pre(&compiled.component).and_then(ApproximateModePre::new);
        let instance = linked.map_err(|error| contract::unfit(name, format!("{error:#}")))?;
        let mut plugin =
            Self { engine: engine.clone(), instance, exact, label: name.to_owned(), sha256: compiled.sha256 };
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

    /// False for a mode that can commit what the target was not asked about.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        self.exact
    }

    /// Lets a new instance drive `job`, which comes back whatever the instance did. `None` would be
    /// a defect of the host: the store lost the job.
    pub async fn run(&self, job: Job) -> Option<(Job, Result<(), PluginError>)> {
        let meter = Meter::new(self.engine.limits, job.remaining());
        let mut store = store::open(&self.engine, &self.label, meter, None);
        let ready = match self.instance.instantiate_async(&mut store).await {
            Ok(mode) => {
                let handle = store.data_mut().table.push(JobHandle);
                handle.map(|handle| (mode, handle)).map_err(wasmtime::Error::from)
            }
            Err(error) => Err(error),
        };
        let (mode, handle) = match ready {
            Ok(ready) => ready,
            Err(error) => return Some((job, Err(store::error(RUN, &error, store.data())))),
        };
        store.data_mut().job = Some(job);
        let answer = mode.tightwad_plugin_mode().call_run(&mut store, handle).await;
        let outcome = match answer {
            Ok(Ok(())) => Ok(()),
            Ok(Err(message)) => Err(PluginError::Failed { plugin: self.label.clone(), call: RUN, message }),
            Err(error) => Err(store::error(RUN, &error, store.data())),
        };
        store.into_data().job.map(|job| (job, outcome))
    }

    async fn describe(&self) -> Result<String, PluginError> {
        let meter = Meter::new(self.engine.limits, 0);
        let mut store = store::open(&self.engine, &self.label, meter, None);
        let outcome = async {
            let mode = self.instance.instantiate_async(&mut store).await?;
            mode.tightwad_plugin_mode().call_describe(&mut store).await
        };
        match outcome.await {
            Ok(info) => Ok(format!("{}@{}", info.name, info.version)),
            Err(error) => Err(store::error(DESCRIBE, &error, store.data())),
        }
    }
}
