//! A loaded gate.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use tightwad_sandbox::bindings::tightwad::plugin::clock;
use tightwad_sandbox::{Compiled, Identity, Linked, Loaded, PluginEngine, PluginError, State, World};
use wasmtime::component::{HasSelf, Linker};

use crate::bindings::gating::GatingPre;
use crate::bindings::gating::tightwad::plugin::{answers, reviewing};
use crate::gate::handles::TaskHandle;
use crate::gate::review::ReviewTask;

const RUN: &str = "gate.run";

/// A component that drives requests by whole answers.
pub struct GatePlugin {
    linked: Linked<GatingPre<State<ReviewTask>>>,
}

#[async_trait]
impl Loaded for GatePlugin {
    const WORLD: World = World { interface: "gate", describe: "gate.describe", wasi: false };

    async fn link(engine: &Arc<PluginEngine>, name: &str, compiled: &Compiled) -> Result<Self, PluginError> {
        let linked = Linked::new((engine, name, compiled), linker(engine), GatingPre::new).await?;
        Ok(Self { linked })
    }

    fn is_exact(_: &Compiled) -> bool {
        false
    }

    fn identity(&self) -> &Identity {
        &self.linked.identity
    }
}

/// What gates may import.
fn linker(engine: &PluginEngine) -> wasmtime::Result<Linker<State<ReviewTask>>> {
    type Data = HasSelf<State<ReviewTask>>;
    let mut linker = engine.linker(GatePlugin::WORLD)?;
    clock::add_to_linker::<_, Data>(&mut linker, |state| state)?;
    answers::add_to_linker::<_, Data>(&mut linker, |state| state)?;
    reviewing::add_to_linker::<_, Data>(&mut linker, |state| state)?;
    Ok(linker)
}

impl GatePlugin {
    /// Lets a new instance drive `task`, which comes back whatever the instance did.
    pub async fn run(&self, task: ReviewTask) -> (ReviewTask, Result<(), PluginError>) {
        // It calls for answers, not for tokens.
        let mut store = self.linked.store(0, task);
        let start = Instant::now();
        let answer = async {
            let gate = self.linked.instance.instantiate_async(&mut store).await?;
            let handle = store.data_mut().table.push(TaskHandle)?;
            gate.tightwad_plugin_gate().call_run(&mut store, handle).await
        };
        let answer = answer.await;
        let outcome = self.linked.outcome(RUN, &store, answer);
        self.identity().counts().note(start.elapsed(), outcome.is_err());
        (store.into_data().data, outcome)
    }
}
