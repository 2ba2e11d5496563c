//! A loaded consensus policy: it rules on ballots.
//!
//! Invariant: an instance that is kept has returned from its last call; one that trapped or broke a limit
//! is never asked again.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use async_trait::async_trait;
use wasmtime::Store;

use super::bindings::tightwad::plugin::ballots::{Ballot, Ruling};
use super::bindings::voting::{Voting, VotingPre};
use super::contract::{Compiled, Kind};
use super::limits::whatever_it_does;
use super::linked::{Identity, Linked};
use super::state::State;
use super::{Loaded, PluginEngine, PluginError, store};

const RULE: &str = "consensus-policy.rule";
const DESCRIBE: &str = "consensus-policy.describe";
/// Instances that are kept, so that their start is paid once.
const KEPT: usize = 8;

/// An instance that waits for its next call.
struct Kept {
    store: Store<State>,
    policy: Voting,
}

/// A component that rules on ballots; its instances serve one call after the other.
pub struct PolicyPlugin {
    linked: Linked<VotingPre<State>>,
    kept: Mutex<Vec<Kept>>,
}

#[async_trait]
impl Loaded for PolicyPlugin {
    const KIND: Kind = Kind::ConsensusPolicy;

    async fn link(engine: &Arc<PluginEngine>, name: &str, compiled: &Compiled) -> Result<Self, PluginError> {
        let describe = async |plugin: &VotingPre<State>, store: &mut Store<State>| {
            let policy = plugin.instantiate_async(&mut *store).await?;
            let info = policy.tightwad_plugin_consensus_policy().call_describe(&mut *store).await?;
            Ok((info.name, info.version))
        };
        let told = (engine, name, compiled);
        let linked = Linked::new(told, &engine.voting, VotingPre::new, DESCRIBE, describe).await?;
        Ok(Self { linked, kept: Mutex::default() })
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
        self.kept().iter().map(|kept| kept.store.data().meter.memory()).max().unwrap_or(0)
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
            Err(error) => Err(store::error(RULE, &error, store.data())),
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
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn open(&self) -> Result<Kept, PluginError> {
        let mut store = self.linked.store(0);
        match whatever_it_does(self.linked.instance.instantiate_async(&mut store)).await {
            Ok(policy) => Ok(Kept { store, policy }),
            Err(error) => Err(store::error(RULE, &error, store.data())),
        }
    }
}
