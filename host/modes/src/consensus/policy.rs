//! A loaded consensus policy: it rules on ballots.
//!
//! Invariant: an instance that is kept has returned from its last call; one that trapped or broke a limit
//! is never asked again.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use async_trait::async_trait;
use tightwad_core::sync;
use tightwad_sandbox::{
    Compiled, Identity, Linked, Loaded, PluginEngine, PluginError, State, World, call_error, whatever_it_does,
};
use wasmtime::Store;

use crate::bindings::tightwad::plugin::ballots::{Ballot, Ruling};
use crate::bindings::voting::{Voting, VotingPre};

const RULE: &str = "consensus-policy.rule";
/// Instances that are kept, so that their start is paid once.
const KEPT: usize = 8;

/// An instance that waits for its next call.
struct Kept {
    store: Store<State<()>>,
    policy: Voting,
}

/// A component that rules on ballots; its instances serve one call after the other.
pub struct PolicyPlugin {
    linked: Linked<VotingPre<State<()>>>,
    kept: Mutex<Vec<Kept>>,
}

#[async_trait]
impl Loaded for PolicyPlugin {
    const WORLD: World =
        World { interface: "consensus-policy", describe: "consensus-policy.describe", wasi: true };

    async fn link(engine: &Arc<PluginEngine>, name: &str, compiled: &Compiled) -> Result<Self, PluginError> {
        let linker = engine.linker(Self::WORLD);
        let linked = Linked::new((engine, name, compiled), linker, VotingPre::new).await?;
        Ok(Self { linked, kept: Mutex::default() })
    }

    fn is_exact(_: &Compiled) -> bool {
        false
    }

    fn identity(&self) -> &Identity {
        &self.linked.identity
    }
}

impl PolicyPlugin {
    /// Asks an instance to rule on `ballots`, those that came of `drafters` in all. Tokens that no ballot
    /// begins with are refused.
    ///
    /// # Errors
    ///
    /// [`PluginError`] when the plugin trapped, broke a limit, or accepted what nobody proposed.
    pub async fn rule(&self, ballots: &[Ballot], drafters: u32) -> Result<Ruling, PluginError> {
        let start = Instant::now();
        let ruled = self.ask(ballots, drafters).await.and_then(|ruling| self.check(ballots, ruling));
        self.identity().counts().note(start.elapsed(), ruled.is_err());
        ruled
    }

    /// Memory that the instances which are kept hold, in bytes.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.kept().iter().map(|kept| kept.store.data().memory()).max().unwrap_or(0)
    }

    async fn ask(&self, ballots: &[Ballot], drafters: u32) -> Result<Ruling, PluginError> {
        let idle = self.kept().pop();
        let Kept { mut store, policy } = match idle {
            Some(kept) => kept,
            None => self.open().await?,
        };
        store.data_mut().renew();
        store.set_epoch_deadline(1);
        let called = policy.tightwad_plugin_consensus_policy();
        match whatever_it_does(called.call_rule(&mut store, ballots, drafters)).await {
            Ok(ruling) => {
                let mut kept = self.kept();
                if kept.len() < KEPT && store.data().may_be_kept() {
                    kept.push(Kept { store, policy });
                }
                Ok(ruling)
            }
            Err(error) => Err(call_error(RULE, &error, store.data())),
        }
    }

    fn check(&self, ballots: &[Ballot], ruling: Ruling) -> Result<Ruling, PluginError> {
        let begins = |tokens: &[u32], ballot: &Ballot| {
            tokens.len() <= ballot.proposals.len()
                && tokens.iter().zip(&ballot.proposals).all(|(token, proposal)| *token == proposal.token)
        };
        match &ruling {
            Ruling::Accept(tokens)
                if tokens.is_empty() || !ballots.iter().any(|ballot| begins(tokens, ballot)) =>
            {
                let message = "it accepts tokens that no ballot begins with".to_owned();
                Err(PluginError::Failed { plugin: self.label().to_owned(), call: RULE, message })
            }
            _ => Ok(ruling),
        }
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Vec<Kept>> {
        sync::lock(&self.kept)
    }

    async fn open(&self) -> Result<Kept, PluginError> {
        let mut store = self.linked.store(0, ());
        match whatever_it_does(self.linked.instance.instantiate_async(&mut store)).await {
            Ok(policy) => Ok(Kept { store, policy }),
            Err(error) => Err(call_error(RULE, &error, store.data())),
        }
    }
}
