//! A loaded mode.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use wasmtime::Store;

use super::bindings::ApproximateModePre;
use super::contract::{Compiled, Kind};
use super::linked::{Identity, Linked};
use super::state::{JobHandle, State};
use super::{Job, Loaded, PluginEngine, PluginError};

const RUN: &str = "mode.run";
const DESCRIBE: &str = "mode.describe";

/// A component that drives requests; compiled and linked, to be instantiated for each request.
pub struct Plugin {
    linked: Linked<ApproximateModePre<State>>,
    exact: bool,
}

#[async_trait]
impl Loaded for Plugin {
    const KIND: Kind = Kind::Mode;

    async fn link(engine: &Arc<PluginEngine>, name: &str, compiled: &Compiled) -> Result<Self, PluginError> {
        let exact = !compiled.imports("unverified");
        let linker = if exact { &engine.exact } else { &engine.approximate };
        let describe = async |plugin: &ApproximateModePre<State>, store: &mut Store<State>| {
            let mode = plugin.instantiate_async(&mut *store).await?;
            let info = mode.tightwad_plugin_mode().call_describe(&mut *store).await?;
            Ok((info.name, info.version))
        };
        let told = (engine, name, compiled);
        let linked = Linked::new(told, linker, ApproximateModePre::new, DESCRIBE, describe).await?;
        Ok(Self { linked, exact })
    }

    fn identity(&self) -> &Identity {
        &self.linked.identity
    }
}

impl Plugin {
    /// False for a mode that can commit what the target was not asked about.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        self.exact
    }

    /// Lets a new instance drive `job`, which comes back whatever the instance did. `None` would be
    /// a defect of the host: the store lost the job.
    pub async fn run(&self, job: Job) -> Option<(Job, Result<(), PluginError>)> {
        let mut store = self.linked.store(job.remaining());
        store.data_mut().job = Some(job);
        let start = Instant::now();
        let answer = async {
            let mode = self.linked.instance.instantiate_async(&mut store).await?;
            let handle = store.data_mut().table.push(JobHandle)?;
            mode.tightwad_plugin_mode().call_run(&mut store, handle).await
        };
        let answer = answer.await;
        let outcome = self.linked.outcome(RUN, &store, answer);
        self.identity().counts().note(start.elapsed(), outcome.is_err());
        store.into_data().job.map(|job| (job, outcome))
    }
}
