//! A loaded gate policy: a component that gives the verdict on a candidate.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use tightwad_sandbox::{
    CompiledComponent, Identity, LinkedComponent, Plugin, PluginEngine, PluginError, State, World,
    call_error, with_timeout,
};

use crate::bindings::gate_mode::tightwad::plugin::answers::{Candidate, Review, Verdict};
use crate::bindings::gate_policy::GatePolicyPluginPre;

/// The calls' names in errors.
const JUDGE_CALL: &str = "gate-policy.judge";
const REVIEW_PROMPT_CALL: &str = "gate-policy.review-prompt";

/// The maximum length of a policy's judge prompt, in bytes.
const MAX_JUDGE_PROMPT_BYTES: usize = 16 << 10;

/// A component that gives verdicts. Each call gets an instance of its own.
pub struct GatePolicy {
    linked: LinkedComponent<GatePolicyPluginPre<State<()>>>,
    judge_prompt: Option<String>,
}

#[async_trait]
impl Plugin for GatePolicy {
    const WORLD: World = World { interface: "gate-policy", wasi: true };

    async fn link(
        engine: &Arc<PluginEngine>,
        name: &str,
        compiled: &CompiledComponent,
    ) -> Result<Self, PluginError> {
        let linker = engine.linker(Self::WORLD);
        let linked: LinkedComponent<GatePolicyPluginPre<State<()>>> =
            LinkedComponent::new((engine, name, compiled), linker, GatePolicyPluginPre::new).await?;
        let mut store = linked.store(0, ());
        let prompt = with_timeout(async {
            let policy = linked.instance_pre.instantiate_async(&mut store).await?;
            policy.tightwad_plugin_gate_policy().call_review_prompt(&mut store).await
        });
        let judge_prompt =
            prompt.await.map_err(|error| call_error(REVIEW_PROMPT_CALL, &error, store.data()))?;
        if judge_prompt.as_ref().is_some_and(|prompt| prompt.len() > MAX_JUDGE_PROMPT_BYTES) {
            let message = format!("its prompt has more than {MAX_JUDGE_PROMPT_BYTES} bytes");
            return Err(linked.failed(REVIEW_PROMPT_CALL, &message));
        }
        Ok(Self { linked, judge_prompt })
    }

    fn is_exact(_: &CompiledComponent) -> bool {
        false
    }

    fn identity(&self) -> &Identity {
        &self.linked.identity
    }
}

impl GatePolicy {
    /// The prompt that asks the reviewer for a judgement, in place of the script's. `None`: the script's prompt stays.
    #[must_use]
    pub fn judge_prompt(&self) -> Option<&str> {
        self.judge_prompt.as_deref()
    }

    /// Returns the verdict on a candidate.
    ///
    /// # Errors
    ///
    /// Returns [`PluginError`] if the plugin trapped or exceeded a limit.
    pub(crate) async fn judge(&self, candidate: Candidate, review: &Review) -> Result<Verdict, PluginError> {
        let (mut store, start) = (self.linked.store(0, ()), Instant::now());
        let verdict = with_timeout(async {
            let policy = self.linked.instance_pre.instantiate_async(&mut store).await?;
            policy.tightwad_plugin_gate_policy().call_judge(&mut store, candidate, review).await
        });
        let verdict = verdict.await;
        self.identity().counts().record(start.elapsed(), verdict.is_err());
        verdict.map_err(|error| call_error(JUDGE_CALL, &error, store.data()))
    }
}
