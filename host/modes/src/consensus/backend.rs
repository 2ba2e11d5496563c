//! Consensus: drafters race, and where they agree the target is not asked. Approximate, and every response
//! says so: audits measure what that costs.

use std::sync::Arc;

use async_trait::async_trait;
use tightwad_core::{Backend, BackendError, Generator, Load, Outcome, Request, SharedBackend, Sink};
use tightwad_sandbox::{Loaded, Slot};

use crate::consensus::at_work::PolicyAtWork;
use crate::consensus::auditor::Auditor;
use crate::consensus::skipping::{Agreement, RuleAtWork, Skipping};
use crate::decoding::component::Plugin;
use crate::decoding::driven::Driven;
use crate::decoding::totals::Totals;

/// A target, drafters that may go without it, and the plugins that decide when.
pub struct Consensus {
    name: String,
    driven: Driven,
    policy: Option<PolicyAtWork>,
    agreement: Arc<Agreement>,
    rule: Arc<RuleAtWork>,
    auditor: Auditor,
}

impl Consensus {
    /// Stacks `drafters` on `target`; `settings` is a JSON object that the mode's `plugin` reads, `policy`
    /// the plugin that rules on ballots in its place.
    #[must_use]
    pub fn new(
        target: SharedBackend,
        drafters: Vec<SharedBackend>,
        plugin: Arc<Slot<Plugin>>,
        policy: Option<PolicyAtWork>,
        settings: String,
    ) -> Self {
        let (agreement, rule): (Arc<Agreement>, Arc<RuleAtWork>) = Default::default();
        Self {
            name: format!("consensus({})", target.name()),
            auditor: Auditor::start(target.clone(), agreement.clone(), rule.clone()),
            driven: Driven::new(target, drafters, plugin, settings),
            policy,
            agreement,
            rule,
        }
    }

    /// The sums over all requests, live.
    #[must_use]
    pub fn totals(&self) -> &Arc<Totals> {
        &self.driven.totals
    }

    /// What audits have shown.
    #[must_use]
    pub fn agreement(&self) -> &Agreement {
        &self.agreement
    }

    /// The rule at work; empty before the first request.
    #[must_use]
    pub fn rule(&self) -> String {
        self.rule.name()
    }

    /// The policy plugin, where the script named one.
    #[must_use]
    pub fn policy(&self) -> Option<&PolicyAtWork> {
        self.policy.as_ref()
    }

    /// The target, which answers everything that is not skipped.
    #[must_use]
    pub fn target(&self) -> &SharedBackend {
        &self.driven.target
    }
}

/// Consensus only generates. Nothing that must be exact stacks on it.
impl Backend for Consensus {
    fn name(&self) -> &str {
        &self.name
    }

    fn context(&self) -> Option<u32> {
        self.target().context()
    }

    fn load(&self) -> Load {
        self.target().load()
    }

    fn as_generator(&self) -> Option<&dyn Generator> {
        if self.target().as_generator().is_some() { Some(self) } else { None }
    }
}

#[async_trait]
impl Generator for Consensus {
    async fn generate(&self, request: Request, sink: Sink) -> Result<Outcome, BackendError> {
        let request = Arc::new(request);
        let skipping = Skipping {
            allowed: request.sampling.logprobs.is_none(),
            agreement: self.agreement.clone(),
            rule: self.rule.clone(),
            own_rule: String::new(),
            policy: self.policy.as_ref().map(PolicyAtWork::of_request),
        };
        let policy = skipping.policy.clone();
        let done = self.driven.run(&request, sink, Some(skipping)).await?;
        self.auditor.look_at(&request, done.left, done.audits);
        let mut outcome = done.outcome;
        let report = &mut outcome.report;
        report.mode = "consensus".to_owned();
        report.exact = false;
        report.rule = Some(self.rule.name()).filter(|rule| !rule.is_empty());
        report.agreement = self.agreement.share();
        if let Some(policy) = policy {
            report.plugins.push(policy.plugin().entry());
        }
        Ok(outcome)
    }
}
