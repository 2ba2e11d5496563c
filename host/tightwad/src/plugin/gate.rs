//! A loaded gate.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use wasmtime::Store;

use super::bindings::gating::GatingPre;
use super::contract::{Compiled, Kind};
use super::linked::{Identity, Linked};
use super::state::{State, TaskHandle};
use super::{Loaded, PluginEngine, PluginError, ReviewTask};

const RUN: &str = "gate.run";
const DESCRIBE: &str = "gate.describe";

/// A component that drives requests by whole answers.
pub struct GatePlugin {
    linked: Linked<GatingPre<State>>,
}

#[async_trait]
impl Loaded for GatePlugin {
    const KIND: Kind = Kind::Gate;

    async fn link(engine: &Arc<PluginEngine>, name: &str, compiled: &Compiled) -> Result<Self, PluginError> {
        let describe = async |plugin: &GatingPre<State>, store: &mut Store<State>| {
            let gate = plugin.instantiate_async(&mut *store).await?;
            let info = gate.tightwad_plugin_gate().call_describe(&mut *store).await?;
            Ok((info.name, info.version))
        };
        let told = (engine, name, compiled);
        let linked = Linked::new(told, &engine.gating, GatingPre::new, DESCRIBE, describe).await?;
        Ok(Self { linked })
    }

    fn identity(&self) -> &Identity {
        &self.linked.identity
    }
}

impl GatePlugin {
    /// Lets a new instance drive `task`, which comes back whatever the instance did. `None` would be a
    /// defect of the host: the store lost the task.
    pub async fn run(&self, task: ReviewTask) -> Option<(ReviewTask, Result<(), PluginError>)> {
        // It calls for answers, not for tokens.
        let mut store = self.linked.store(0);
        store.data_mut().task = Some(task);
        let start = Instant::now();
        let answer = async {
            let gate = self.linked.instance.instantiate_async(&mut store).await?;
            let handle = store.data_mut().table.push(TaskHandle)?;
            gate.tightwad_plugin_gate().call_run(&mut store, handle).await
        };
        let answer = answer.await;
        let outcome = self.linked.outcome(RUN, &store, answer);
        self.identity().counts().note(start.elapsed(), outcome.is_err());
        store.into_data().task.map(|task| (task, outcome))
    }
}
