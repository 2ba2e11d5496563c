//! A loaded driver of a gate.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use tightwad_sandbox::bindings::tightwad::plugin::clock;
use tightwad_sandbox::{
    CompiledComponent, Identity, LinkedComponent, Plugin, PluginEngine, PluginError, State, World,
};
use wasmtime::component::{HasSelf, Linker};

use crate::bindings::gate_mode::GateModePluginPre;
use crate::bindings::gate_mode::tightwad::plugin::{answers, reviewing};
use crate::gate::handles::TaskHandle;
use crate::gate::review::ReviewTask;

/// The call's name in errors.
const RUN_CALL: &str = "gate-mode.run";

/// A component that drives requests by whole answers. Each request gets an instance of its own.
pub struct GateDriver {
    linked: LinkedComponent<GateModePluginPre<State<ReviewTask>>>,
}

#[async_trait]
impl Plugin for GateDriver {
    const WORLD: World = World { interface: "gate-mode", wasi: false };

    async fn link(
        engine: &Arc<PluginEngine>,
        name: &str,
        compiled: &CompiledComponent,
    ) -> Result<Self, PluginError> {
        let linker = linker(engine);
        let linked = LinkedComponent::new((engine, name, compiled), linker, GateModePluginPre::new).await?;
        Ok(Self { linked })
    }

    fn is_exact(_: &CompiledComponent) -> bool {
        false
    }

    fn identity(&self) -> &Identity {
        &self.linked.identity
    }
}

/// The imports of gate modes.
fn linker(engine: &PluginEngine) -> wasmtime::Result<Linker<State<ReviewTask>>> {
    type Data = HasSelf<State<ReviewTask>>;
    let mut linker = engine.linker(GateDriver::WORLD)?;
    clock::add_to_linker::<_, Data>(&mut linker, |state| state)?;
    answers::add_to_linker::<_, Data>(&mut linker, |state| state)?;
    reviewing::add_to_linker::<_, Data>(&mut linker, |state| state)?;
    Ok(linker)
}

impl GateDriver {
    /// Lets a new instance drive `task`. Always returns the task, even if the instance failed.
    pub async fn run(&self, task: ReviewTask) -> (ReviewTask, Result<(), PluginError>) {
        // Its host calls are for whole answers, so it needs no calls per token.
        let mut store = self.linked.store(0, task);
        let start = Instant::now();
        let run = async {
            let gate = self.linked.instance_pre.instantiate_async(&mut store).await?;
            let handle = store.data_mut().table.push(TaskHandle)?;
            gate.tightwad_plugin_gate_mode().call_run(&mut store, handle).await
        };
        let result = run.await;
        let result = self.linked.run_result(RUN_CALL, &store, result);
        self.identity().counts().record(start.elapsed(), result.is_err());
        (store.into_data().data, result)
    }
}
