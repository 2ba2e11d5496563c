//! A loaded consensus policy: a component that rules on ballots.
//!
//! Invariant: an idle instance has returned from its last call. An instance that trapped or exceeded a limit is
//! dropped.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use async_trait::async_trait;
use tightwad_core::sync;
use tightwad_sandbox::{
    CompiledComponent, Identity, LinkedComponent, Plugin, PluginEngine, PluginError, State, World,
    call_error, with_timeout,
};
use wasmtime::Store;

use crate::bindings::consensus_policy::{ConsensusPolicyPlugin, ConsensusPolicyPluginPre};
use crate::bindings::tightwad::plugin::ballots::{Ballot, Ruling};

/// The call's name in errors.
const RULE_CALL: &str = "consensus-policy.rule";
/// The number of idle instances that are stored, because the start of an instance takes time.
const MAX_IDLE_INSTANCES: usize = 8;

/// An instance that waits for its next call.
struct IdleInstance {
    store: Store<State<()>>,
    policy: ConsensusPolicyPlugin,
}

/// A component that rules on ballots. An instance serves one call after the other.
pub struct ConsensusPolicy {
    linked: LinkedComponent<ConsensusPolicyPluginPre<State<()>>>,
    idle_instances: Mutex<Vec<IdleInstance>>,
}

#[async_trait]
impl Plugin for ConsensusPolicy {
    const WORLD: World = World { interface: "consensus-policy", wasi: true };

    async fn link(
        engine: &Arc<PluginEngine>,
        name: &str,
        compiled: &CompiledComponent,
    ) -> Result<Self, PluginError> {
        let linker = engine.linker(Self::WORLD);
        let linked =
            LinkedComponent::new((engine, name, compiled), linker, ConsensusPolicyPluginPre::new).await?;
        Ok(Self { linked, idle_instances: Mutex::default() })
    }

    fn is_exact(_: &CompiledComponent) -> bool {
        false
    }

    fn identity(&self) -> &Identity {
        &self.linked.identity
    }
}

impl ConsensusPolicy {
    /// Rules on `ballots`. `drafter_count` includes the drafters without a ballot.
    ///
    /// # Errors
    ///
    /// Returns [`PluginError`] if the plugin trapped, exceeded a limit, or accepted tokens that no ballot begins with.
    pub async fn rule(&self, ballots: &[Ballot], drafter_count: u32) -> Result<Ruling, PluginError> {
        let start = Instant::now();
        let ruling = self.call_rule(ballots, drafter_count).await;
        let ruling = ruling.and_then(|ruling| self.check_ruling(ballots, ruling));
        self.identity().counts().record(start.elapsed(), ruling.is_err());
        ruling
    }

    /// The memory of the largest idle instance.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.idle_instances().iter().map(|instance| instance.store.data().memory_bytes()).max().unwrap_or(0)
    }

    async fn call_rule(&self, ballots: &[Ballot], drafter_count: u32) -> Result<Ruling, PluginError> {
        let idle = self.idle_instances().pop();
        let IdleInstance { mut store, policy } = match idle {
            Some(instance) => instance,
            None => self.instantiate().await?,
        };
        store.data_mut().reset();
        store.set_epoch_deadline(1);
        let exports = policy.tightwad_plugin_consensus_policy();
        match with_timeout(exports.call_rule(&mut store, ballots, drafter_count)).await {
            Ok(ruling) => {
                let mut idle = self.idle_instances();
                if idle.len() < MAX_IDLE_INSTANCES && store.data().is_reusable() {
                    idle.push(IdleInstance { store, policy });
                }
                Ok(ruling)
            }
            Err(error) => Err(call_error(RULE_CALL, &error, store.data())),
        }
    }

    fn check_ruling(&self, ballots: &[Ballot], ruling: Ruling) -> Result<Ruling, PluginError> {
        let begins_with = |ballot: &Ballot, tokens: &[u32]| {
            tokens.len() <= ballot.proposals.len()
                && tokens.iter().zip(&ballot.proposals).all(|(token, proposal)| *token == proposal.token)
        };
        match &ruling {
            Ruling::Accept(tokens)
                if tokens.is_empty() || !ballots.iter().any(|ballot| begins_with(ballot, tokens)) =>
            {
                let message = "it accepts tokens that no ballot begins with".to_owned();
                Err(PluginError::Failed { plugin: self.label().to_owned(), call: RULE_CALL, message })
            }
            _ => Ok(ruling),
        }
    }

    fn idle_instances(&self) -> std::sync::MutexGuard<'_, Vec<IdleInstance>> {
        sync::lock(&self.idle_instances)
    }

    async fn instantiate(&self) -> Result<IdleInstance, PluginError> {
        let mut store = self.linked.store(0, ());
        match with_timeout(self.linked.instance_pre.instantiate_async(&mut store)).await {
            Ok(policy) => Ok(IdleInstance { store, policy }),
            Err(error) => Err(call_error(RULE_CALL, &error, store.data())),
        }
    }
}
