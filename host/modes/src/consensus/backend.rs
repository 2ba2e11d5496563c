//! Consensus: drafters race, and the target does not verify tokens that they agree on. Consensus is approximate: every
//! response reports this, and audits measure the agreement with the target.

use std::sync::Arc;

use async_trait::async_trait;
use tightwad_core::{Backend, BackendError, Generator, Health, Load, Outcome, Request, SharedBackend, Sink};
use tightwad_sandbox::{Plugin, ReloadablePlugin};

use crate::consensus::auditor::Auditor;
use crate::consensus::grant::{ActiveRule, Agreement, UnverifiedGrant};
use crate::consensus::policy_handle::PolicyHandle;
use crate::decoding::component::ModeDriver;
use crate::decoding::driven_target::DrivenTarget;
use crate::decoding::totals::Totals;
use crate::settings::Settings;

/// A target with drafters that can commit tokens without it, a driver, and an optional policy.
pub struct Consensus {
    name: String,
    driven: DrivenTarget,
    policy: Option<PolicyHandle>,
    agreement: Arc<Agreement>,
    rule: Arc<ActiveRule>,
    auditor: Auditor,
}

impl Consensus {
    /// Stacks `drafters` on `target`. The driver reads `settings`. A `policy` rules on ballots in place of the driver.
    #[must_use]
    pub fn new(
        target: SharedBackend,
        drafters: Vec<SharedBackend>,
        driver: Arc<ReloadablePlugin<ModeDriver>>,
        policy: Option<PolicyHandle>,
        settings: Settings,
    ) -> Self {
        let (agreement, rule): (Arc<Agreement>, Arc<ActiveRule>) = Default::default();
        Self {
            name: format!("consensus({})", target.name()),
            auditor: Auditor::start(target.clone(), agreement.clone(), rule.clone()),
            driven: DrivenTarget::new(target, drafters, driver, settings),
            policy,
            agreement,
            rule,
        }
    }

    /// The live totals of all requests.
    #[must_use]
    pub fn totals(&self) -> &Arc<Totals> {
        &self.driven.totals
    }

    /// The results of audits.
    #[must_use]
    pub fn agreement(&self) -> &Agreement {
        &self.agreement
    }

    /// The name of the active rule. Empty before the first request.
    #[must_use]
    pub fn rule(&self) -> String {
        self.rule.name()
    }

    /// The policy that the script named.
    #[must_use]
    pub fn policy(&self) -> Option<&PolicyHandle> {
        self.policy.as_ref()
    }

    /// The target.
    #[must_use]
    pub fn target(&self) -> &SharedBackend {
        &self.driven.target
    }
}

/// Consensus only generates. A mode that must be exact cannot be stacked on it.
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

    fn health(&self) -> Health {
        self.target().health()
    }

    fn as_generator(&self) -> Option<&dyn Generator> {
        if self.target().as_generator().is_some() { Some(self) } else { None }
    }
}

#[async_trait]
impl Generator for Consensus {
    async fn generate(&self, request: Request, sink: Sink) -> Result<Outcome, BackendError> {
        let request = Arc::new(request);
        let grant = UnverifiedGrant {
            allowed: request.sampling.logprobs.is_none(),
            agreement: self.agreement.clone(),
            rule: self.rule.clone(),
            request_rule: String::new(),
            policy: self.policy.as_ref().map(PolicyHandle::for_request),
        };
        let policy = grant.policy.clone();
        let answer = self.driven.run(&request, sink, Some(grant)).await?;
        self.auditor.submit(&request, answer.resume_point, answer.audit_spans);
        let mut outcome = answer.outcome;
        let report = &mut outcome.report;
        report.mode = "consensus".to_owned();
        report.exact = false;
        report.rule = Some(self.rule.name()).filter(|rule| !rule.is_empty());
        report.agreement = self.agreement.share();
        if let Some(policy) = policy {
            report.plugins.push(policy.plugin().report_entry());
        }
        Ok(outcome)
    }
}
