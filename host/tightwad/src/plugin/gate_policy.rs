//! A loaded gate policy: it gives the verdict on a candidate.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use wasmtime::Store;

use super::bindings::gating::tightwad::plugin::answers::{Candidate, Review, Verdict};
use super::bindings::verdicts::VerdictsPre;
use super::contract::{Compiled, Kind};
use super::limits::whatever_it_does;
use super::linked::{Identity, Linked};
use super::state::State;
use super::{Loaded, PluginEngine, PluginError, store};

const JUDGE: &str = "gate-policy.judge";
const DESCRIBE: &str = "gate-policy.describe";

/// A component that gives verdicts; instantiated for each.
pub struct GatePolicyPlugin {
    linked: Linked<VerdictsPre<State>>,
    prompt: Option<String>,
}

#[async_trait]
impl Loaded for GatePolicyPlugin {
    const KIND: Kind = Kind::GatePolicy;

    async fn link(engine: &Arc<PluginEngine>, name: &str, compiled: &Compiled) -> Result<Self, PluginError> {
        let mut prompt = None;
        let describe = async |plugin: &VerdictsPre<State>, store: &mut Store<State>| {
            let policy = plugin.instantiate_async(&mut *store).await?;
            let policy = policy.tightwad_plugin_gate_policy();
            let info = policy.call_describe(&mut *store).await?;
            prompt = policy.call_review_prompt(&mut *store).await?;
            Ok((info.name, info.version))
        };
        let told = (engine, name, compiled);
        let linked = Linked::new(told, &engine.verdicts, VerdictsPre::new, DESCRIBE, describe).await?;
        Ok(Self { linked, prompt })
    }

    fn identity(&self) -> &Identity {
        &self.linked.identity
    }
}

impl GatePolicyPlugin {
    /// What the reviewer is asked, where the plugin has words of its own.
    #[must_use]
    pub fn prompt(&self) -> Option<&str> {
        self.prompt.as_deref()
    }

    /// The verdict on a candidate.
    ///
    /// # Errors
    ///
    /// [`PluginError`] when the plugin trapped or broke a limit.
    pub(super) async fn judge(&self, candidate: Candidate, review: &Review) -> Result<Verdict, PluginError> {
        let (mut store, start) = (self.linked.store(0), Instant::now());
        let answer = whatever_it_does(async {
            let policy = self.linked.instance.instantiate_async(&mut store).await?;
            policy.tightwad_plugin_gate_policy().call_judge(&mut store, candidate, review).await
        });
        let answer = answer.await;
        self.identity().counts().note(start.elapsed(), answer.is_err());
        answer.map_err(|error| store::error(JUDGE, &error, store.data()))
    }
}
