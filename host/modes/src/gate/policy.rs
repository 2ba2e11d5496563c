//! A loaded gate policy: it gives the verdict on a candidate.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use tightwad_sandbox::{
    Compiled, Identity, Linked, Loaded, PluginEngine, PluginError, State, World, call_error, whatever_it_does,
};

use crate::bindings::gating::tightwad::plugin::answers::{Candidate, Review, Verdict};
use crate::bindings::verdicts::VerdictsPre;

const JUDGE: &str = "gate-policy.judge";
const PROMPT: &str = "gate-policy.review-prompt";

/// A component that gives verdicts; instantiated for each.
pub struct GatePolicyPlugin {
    linked: Linked<VerdictsPre<State<()>>>,
    prompt: Option<String>,
}

#[async_trait]
impl Loaded for GatePolicyPlugin {
    const WORLD: World = World { interface: "gate-policy", describe: "gate-policy.describe", wasi: true };

    async fn link(engine: &Arc<PluginEngine>, name: &str, compiled: &Compiled) -> Result<Self, PluginError> {
        let linker = engine.linker(Self::WORLD);
        let linked: Linked<VerdictsPre<State<()>>> =
            Linked::new((engine, name, compiled), linker, VerdictsPre::new).await?;
        let mut store = linked.store(0, ());
        let asked = whatever_it_does(async {
            let policy = linked.instance.instantiate_async(&mut store).await?;
            policy.tightwad_plugin_gate_policy().call_review_prompt(&mut store).await
        });
        let prompt = asked.await.map_err(|error| call_error(PROMPT, &error, store.data()))?;
        Ok(Self { linked, prompt })
    }

    fn is_exact(_: &Compiled) -> bool {
        false
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
    pub(crate) async fn judge(&self, candidate: Candidate, review: &Review) -> Result<Verdict, PluginError> {
        let (mut store, start) = (self.linked.store(0, ()), Instant::now());
        let answer = whatever_it_does(async {
            let policy = self.linked.instance.instantiate_async(&mut store).await?;
            policy.tightwad_plugin_gate_policy().call_judge(&mut store, candidate, review).await
        });
        let answer = answer.await;
        self.identity().counts().note(start.elapsed(), answer.is_err());
        answer.map_err(|error| call_error(JUDGE, &error, store.data()))
    }
}
