//! A loaded driver of a decoding mode.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use tightwad_sandbox::bindings::tightwad::plugin::clock;
use tightwad_sandbox::{
    CompiledComponent, Identity, LinkedComponent, Plugin, PluginEngine, PluginError, State, World,
};
use wasmtime::component::{HasSelf, Linker};

use crate::bindings::ApproximateModePluginPre;
use crate::bindings::tightwad::plugin::{active_policy, ballots, decoding, unverified};
use crate::decoding::handles::JobHandle;
use crate::decoding::job::Job;

/// The call's name in errors.
const RUN_CALL: &str = "mode.run";

/// A component that drives requests token by token. Each request gets an instance of its own.
pub struct ModeDriver {
    linked: LinkedComponent<ApproximateModePluginPre<State<Job>>>,
    exact: bool,
}

#[async_trait]
impl Plugin for ModeDriver {
    const WORLD: World = World { interface: "mode", wasi: false };

    async fn link(
        engine: &Arc<PluginEngine>,
        name: &str,
        compiled: &CompiledComponent,
    ) -> Result<Self, PluginError> {
        let exact = Self::is_exact(compiled);
        let linker = linker(engine, exact);
        let linked =
            LinkedComponent::new((engine, name, compiled), linker, ApproximateModePluginPre::new).await?;
        Ok(Self { linked, exact })
    }

    fn is_exact(compiled: &CompiledComponent) -> bool {
        !compiled.imports("unverified")
    }

    fn identity(&self) -> &Identity {
        &self.linked.identity
    }
}

/// A linker with the imports of exact modes. Approximate modes have further imports.
fn linker(engine: &PluginEngine, exact: bool) -> wasmtime::Result<Linker<State<Job>>> {
    type Data = HasSelf<State<Job>>;
    let mut linker = engine.linker(ModeDriver::WORLD)?;
    clock::add_to_linker::<_, Data>(&mut linker, |state| state)?;
    ballots::add_to_linker::<_, Data>(&mut linker, |state| state)?;
    decoding::add_to_linker::<_, Data>(&mut linker, |state| state)?;
    if !exact {
        unverified::add_to_linker::<_, Data>(&mut linker, |state| state)?;
        active_policy::add_to_linker::<_, Data>(&mut linker, |state| state)?;
    }
    Ok(linker)
}

impl ModeDriver {
    /// False if the driver can commit tokens without the target.
    #[must_use]
    pub fn is_exact_mode(&self) -> bool {
        self.exact
    }

    /// Lets a new instance drive `job`. Always returns the job, even if the instance failed.
    pub async fn run(&self, job: Job) -> (Job, Result<(), PluginError>) {
        let mut store = self.linked.store(job.remaining_tokens(), job);
        let start = Instant::now();
        let run = async {
            let mode = self.linked.instance_pre.instantiate_async(&mut store).await?;
            let handle = store.data_mut().table.push(JobHandle)?;
            mode.tightwad_plugin_mode().call_run(&mut store, handle).await
        };
        let result = run.await;
        let result = self.linked.run_result(RUN_CALL, &store, result);
        self.identity().counts().record(start.elapsed(), result.is_err());
        (store.into_data().data, result)
    }
}
