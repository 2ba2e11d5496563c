//! The policy plugin that a script named, and what happens when it fails.

use std::sync::Arc;

use tightwad_core::OnFailure;
use tightwad_sandbox::{Loaded, PluginError, Slot};

use crate::bindings::tightwad::plugin::ballots::{Ballot, Ruling};
use crate::consensus::policy::PolicyPlugin;

/// Tokens that are decoded in place of a ruling.
const STRETCH: u32 = 16;

/// A policy plugin in use.
pub struct PolicyAtWork {
    slot: Arc<Slot<PolicyPlugin>>,
    on_failure: OnFailure,
}

impl PolicyAtWork {
    /// Uses the plugin in `slot`.
    #[must_use]
    pub fn new(slot: Arc<Slot<PolicyPlugin>>, on_failure: OnFailure) -> Self {
        Self { slot, on_failure }
    }

    /// The plugin that rules new requests.
    #[must_use]
    pub fn plugin(&self) -> Arc<PolicyPlugin> {
        self.slot.current()
    }

    /// What rules one request to its end, whatever replaces it meanwhile.
    #[must_use]
    pub fn of_request(&self) -> PolicyOfRequest {
        PolicyOfRequest { plugin: self.plugin(), on_failure: self.on_failure }
    }
}

/// The policy of one request. Where it fails again and again it is left alone for a while.
#[derive(Clone)]
pub struct PolicyOfRequest {
    plugin: Arc<PolicyPlugin>,
    on_failure: OnFailure,
}

impl PolicyOfRequest {
    /// The plugin that rules.
    #[must_use]
    pub fn plugin(&self) -> &PolicyPlugin {
        &self.plugin
    }

    /// The plugin's ruling, or what the script wants in its place.
    ///
    /// # Errors
    ///
    /// The plugin's, where the script wants the request to fail.
    pub(crate) async fn rule(&self, ballots: &[Ballot], drafters: u32) -> Result<Ruling, PluginError> {
        let plugin = &self.plugin;
        let ruled = if plugin.breaker().allows() {
            let ruled = plugin.rule(ballots, drafters).await;
            plugin.breaker().record(ruled.is_ok());
            ruled.inspect_err(|error| tracing::warn!(%error, "the policy failed"))
        } else {
            Err(PluginError::LeftAlone { plugin: plugin.label().to_owned() })
        };
        match (ruled, self.on_failure) {
            (Ok(ruling), _) => Ok(ruling),
            (Err(_), OnFailure::Decode) => Ok(Ruling::Decode(STRETCH)),
            (Err(_), OnFailure::Verify) => Ok(Ruling::Verify(Vec::new())),
            (Err(error), OnFailure::Error) => Err(error),
        }
    }
}
