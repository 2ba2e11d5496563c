//! A loaded mode.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use tightwad_sandbox::bindings::tightwad::plugin::clock;
use tightwad_sandbox::{Compiled, Identity, Linked, Loaded, PluginEngine, PluginError, State, World};
use wasmtime::component::{HasSelf, Linker};

use crate::bindings::ApproximateModePre;
use crate::bindings::tightwad::plugin::{ballots, decoding, policy, unverified};
use crate::decoding::handles::JobHandle;
use crate::decoding::job::Job;

const RUN: &str = "mode.run";

/// A component that drives requests; compiled and linked, to be instantiated for each request.
pub struct Plugin {
    linked: Linked<ApproximateModePre<State<Job>>>,
    exact: bool,
}

#[async_trait]
impl Loaded for Plugin {
    const WORLD: World = World { interface: "mode", describe: "mode.describe", wasi: false };

    async fn link(engine: &Arc<PluginEngine>, name: &str, compiled: &Compiled) -> Result<Self, PluginError> {
        let exact = Self::is_exact(compiled);
        let linker = linker(engine, exact);
        let linked = Linked::new((engine, name, compiled), linker, ApproximateModePre::new).await?;
        Ok(Self { linked, exact })
    }

    fn is_exact(compiled: &Compiled) -> bool {
        !compiled.imports("unverified")
    }

    fn identity(&self) -> &Identity {
        &self.linked.identity
    }
}

/// What exact modes may import, or approximate ones, which is more.
fn linker(engine: &PluginEngine, exact: bool) -> wasmtime::Result<Linker<State<Job>>> {
    type Data = HasSelf<State<Job>>;
    let mut linker = engine.linker(Plugin::WORLD)?;
    clock::add_to_linker::<_, Data>(&mut linker, |state| state)?;
    ballots::add_to_linker::<_, Data>(&mut linker, |state| state)?;
    decoding::add_to_linker::<_, Data>(&mut linker, |state| state)?;
    if !exact {
        unverified::add_to_linker::<_, Data>(&mut linker, |state| state)?;
        policy::add_to_linker::<_, Data>(&mut linker, |state| state)?;
    }
    Ok(linker)
}

impl Plugin {
    /// False for a mode that can commit what the target was not asked about.
    #[must_use]
    pub fn is_exact_mode(&self) -> bool {
        self.exact
    }

    /// Lets a new instance drive `job`, which comes back whatever the instance did.
    pub async fn run(&self, job: Job) -> (Job, Result<(), PluginError>) {
        let mut store = self.linked.store(job.remaining(), job);
        let start = Instant::now();
        let answer = async {
            let mode = self.linked.instance.instantiate_async(&mut store).await?;
            let handle = store.data_mut().table.push(JobHandle)?;
            mode.tightwad_plugin_mode().call_run(&mut store, handle).await
        };
        let answer = answer.await;
        let outcome = self.linked.outcome(RUN, &store, answer);
        self.identity().counts().note(start.elapsed(), outcome.is_err());
        (store.into_data().data, outcome)
    }
}
