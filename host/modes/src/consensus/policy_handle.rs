//! The policy plugin of a consensus, and the reaction to its failures.

use std::sync::Arc;

use tightwad_core::OnFailure;
use tightwad_sandbox::{Plugin, PluginError, ReloadablePlugin};

use crate::bindings::tightwad::plugin::ballots::{Ballot, Ruling};
use crate::consensus::policy::ConsensusPolicy;

/// The number of tokens that the target decodes in place of a ruling.
const FALLBACK_DECODE_TOKENS: u32 = 16;

/// A policy plugin that a script named.
pub struct PolicyHandle {
    policy: Arc<ReloadablePlugin<ConsensusPolicy>>,
    on_failure: OnFailure,
}

impl PolicyHandle {
    /// A handle of `policy`. `on_failure` is the reaction to a failed call.
    #[must_use]
    pub fn new(policy: Arc<ReloadablePlugin<ConsensusPolicy>>, on_failure: OnFailure) -> Self {
        Self { policy, on_failure }
    }

    /// The plugin that rules on new requests.
    #[must_use]
    pub fn plugin(&self) -> Arc<ConsensusPolicy> {
        self.policy.current()
    }

    /// The policy of one request. A later replacement of the plugin does not affect the request.
    #[must_use]
    pub fn for_request(&self) -> RequestPolicy {
        RequestPolicy { plugin: self.plugin(), on_failure: self.on_failure }
    }
}

/// The policy of one request. After several failures in a row, the plugin is not called during a cooldown.
#[derive(Clone)]
pub struct RequestPolicy {
    plugin: Arc<ConsensusPolicy>,
    on_failure: OnFailure,
}

impl RequestPolicy {
    /// The policy plugin.
    #[must_use]
    pub fn plugin(&self) -> &ConsensusPolicy {
        &self.plugin
    }

    /// Returns the plugin's ruling. If the plugin fails, returns the ruling that the script chose for that case.
    ///
    /// # Errors
    ///
    /// Returns the plugin's error if the script chose that the request fails.
    pub(crate) async fn rule(&self, ballots: &[Ballot], drafter_count: u32) -> Result<Ruling, PluginError> {
        let plugin = &self.plugin;
        let ruling = if plugin.breaker().allows() {
            let ruling = plugin.rule(ballots, drafter_count).await;
            plugin.record_result(&ruling);
            ruling.inspect_err(|error| tracing::warn!(%error, "the consensus policy failed"))
        } else {
            Err(PluginError::CircuitOpen { plugin: plugin.label().to_owned() })
        };
        match (ruling, self.on_failure) {
            (Ok(ruling), _) => Ok(ruling),
            (Err(_), OnFailure::Decode) => Ok(Ruling::Decode(FALLBACK_DECODE_TOKENS)),
            (Err(_), OnFailure::Verify) => Ok(Ruling::Verify(Vec::new())),
            (Err(error), OnFailure::Error) => Err(error),
        }
    }
}
