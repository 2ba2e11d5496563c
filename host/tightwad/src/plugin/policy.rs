//! A loaded consensus policy: it rules on ballots.
//!
//! Invariant: an instance that is kept has returned from its last call; one that trapped or broke a limit
//! is never asked again.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::time::timeout;
use wasmtime::Store;

use super::bindings::tightwad::plugin::ballots::{Ballot, Ruling};
use super::bindings::voting::{Voting, VotingPre};
use super::contract::Kind;
use super::limits::{Meter, Stopped};
use super::state::State;
use super::{PluginEngine, PluginError, contract, store};

const RULE: &str = "consensus-policy.rule";
const DESCRIBE: &str = "consensus-policy.describe";
/// How long a call may take, whatever it does.
const LONGEST: Duration = Duration::from_secs(2);
/// Instances that are kept, so that their start is paid once.
const KEPT: usize = 8;

/// How often a plugin was called, for how long, and how often it failed.
#[derive(Debug, Default)]
pub struct CallCounts {
    calls: AtomicU64,
    nanoseconds: AtomicU64,
    failures: AtomicU64,
}

impl CallCounts {
    fn note(&self, took: Duration, failed: bool) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
        self.failures.fetch_add(u64::from(failed), Ordering::Relaxed);
    }

    /// Calls so far.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// Time in all of them.
    #[must_use]
    pub fn time(&self) -> Duration {
        Duration::from_nanos(self.nanoseconds.load(Ordering::Relaxed))
    }

    /// Calls that trapped, broke a limit or were answered with nonsense.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }
}

/// An instance that waits for its next call.
struct Kept {
    store: Store<State>,
    policy: Voting,
}

/// A component that rules on ballots; its instances serve one call after the other.
pub struct PolicyPlugin {
    engine: Arc<PluginEngine>,
    instance: VotingPre<State>,
    /// Name and version, as errors and reports show them.
    label: String,
    sha256: String,
    kept: Mutex<Vec<Kept>>,
    counts: Arc<CallCounts>,
}

impl PolicyPlugin {
    /// Compiles and links a component; `name` is what errors call it until it has said its own.
    ///
    /// # Errors
    ///
    /// [`PluginError`] when it is no component, does not fit the contract, or cannot describe
    /// itself.
    pub async fn load(engine: &Arc<PluginEngine>, name: &str, wasm: &[u8]) -> Result<Self, PluginError> {
        let compiled = contract::compile_as(engine, name, wasm, Kind::ConsensusPolicy).await?;
        let instance = engine.voting.instantiate_pre(&compiled.component).and_then(VotingPre::new);
        let instance = instance.map_err(|error| contract::unfit(name, format!("{error:#}")))?;
        let mut plugin = Self {
            engine: engine.clone(),
            instance,
            label: name.to_owned(),
            sha256: compiled.sha256,
            kept: Mutex::default(),
            counts: Arc::default(),
        };
        plugin.label = plugin.describe().await?;
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

    /// What its calls took.
    #[must_use]
    pub fn counts(&self) -> &Arc<CallCounts> {
        &self.counts
    }

    /// Asks an instance to rule on `ballots`, those that came of `drafters` in all. Tokens that no ballot
    /// begins with are refused.
    ///
    /// # Errors
    ///
    /// [`PluginError`] when the plugin trapped, broke a limit, or accepted what nobody proposed.
    pub async fn rule(&self, ballots: &[Ballot], drafters: u32) -> Result<Ruling, PluginError> {
        let start = Instant::now();
        let ruled = self.ask(ballots, drafters).await.and_then(|ruling| self.check(ballots, ruling));
        self.counts.note(start.elapsed(), ruled.is_err());
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
            None => self.open(RULE).await?,
        };
        store.data_mut().meter.renew();
        store.set_epoch_deadline(1);
        let called = policy.tightwad_plugin_consensus_policy();
        // A guest with WASI can sleep, which is no computing.
        let ruled = timeout(LONGEST, called.call_rule(&mut store, ballots, drafters)).await;
        let ruled = ruled.unwrap_or_else(|_| Err(Stopped::TimedOut.into()));
        match ruled {
            Ok(ruling) => {
                let mut kept = self.kept();
                if kept.len() < KEPT {
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
                Err(PluginError::Failed { plugin: self.label.clone(), call: RULE, message })
            }
            _ => Ok(ruling),
        }
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Vec<Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn open(&self, call: &'static str) -> Result<Kept, PluginError> {
        let meter = Meter::new(self.engine.limits.of_policies(), 0);
        let mut store = store::open(&self.engine, &self.label, meter, None);
        match self.instance.instantiate_async(&mut store).await {
            Ok(policy) => Ok(Kept { store, policy }),
            Err(error) => Err(store::error(call, &error, store.data())),
        }
    }

    async fn describe(&self) -> Result<String, PluginError> {
        let Kept { mut store, policy } = self.open(DESCRIBE).await?;
        match policy.tightwad_plugin_consensus_policy().call_describe(&mut store).await {
            Ok(info) => Ok(format!("{}@{}", info.name, info.version)),
            Err(error) => Err(store::error(DESCRIBE, &error, store.data())),
        }
    }
}
