//! A loaded gate policy: it gives the verdict on a candidate.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::bindings::gating::tightwad::plugin::answers::{Candidate, Review, Verdict};
use super::bindings::verdicts::VerdictsPre;
use super::contract::Kind;
use super::limits::{Meter, Stopped};
use super::state::State;
use super::{PluginEngine, PluginError, contract, store};

const JUDGE: &str = "gate-policy.judge";
const DESCRIBE: &str = "gate-policy.describe";
/// How long a call may take, whatever it does.
const LONGEST: Duration = Duration::from_secs(2);

/// A component that gives verdicts; instantiated for each.
pub struct GatePolicyPlugin {
    engine: Arc<PluginEngine>,
    instance: VerdictsPre<State>,
    /// Name and version, as errors and reports show them.
    label: String,
    sha256: String,
    prompt: Option<String>,
}

impl GatePolicyPlugin {
    /// Compiles and links a component; `name` is what errors call it until it has said its own.
    ///
    /// # Errors
    ///
    /// [`PluginError`] when it is no component, does not fit the contract, or cannot describe
    /// itself.
    pub async fn load(engine: &Arc<PluginEngine>, name: &str, wasm: &[u8]) -> Result<Self, PluginError> {
        let compiled = contract::compile_as(engine, name, wasm, Kind::GatePolicy).await?;
        let linked = engine.verdicts.instantiate_pre(&compiled.component).and_then(VerdictsPre::new);
        let instance = linked.map_err(|error| contract::unfit(name, format!("{error:#}")))?;
        let (engine, label) = (engine.clone(), name.to_owned());
        let mut plugin = Self { engine, instance, label, sha256: compiled.sha256, prompt: None };
        (plugin.label, plugin.prompt) = plugin.describe().await?;
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
        let meter = Meter::new(self.engine.limits.of_policies(), 0);
        let mut store = store::open(&self.engine, &self.label, meter, None);
        let answer = async {
            let policy = self.instance.instantiate_async(&mut store).await?;
            policy.tightwad_plugin_gate_policy().call_judge(&mut store, candidate, review).await
        };
        let answer = timeout(LONGEST, answer).await.unwrap_or_else(|_| Err(Stopped::TimedOut.into()));
        answer.map_err(|error| store::error(JUDGE, &error, store.data()))
    }

    async fn describe(&self) -> Result<(String, Option<String>), PluginError> {
        let meter = Meter::new(self.engine.limits.of_policies(), 0);
        let mut store = store::open(&self.engine, &self.label, meter, None);
        let outcome = async {
            let policy = self.instance.instantiate_async(&mut store).await?;
            let policy = policy.tightwad_plugin_gate_policy();
            let info = policy.call_describe(&mut store).await?;
            Ok((format!("{}@{}", info.name, info.version), policy.call_review_prompt(&mut store).await?))
        };
        outcome.await.map_err(|error| store::error(DESCRIBE, &error, store.data()))
    }
}
