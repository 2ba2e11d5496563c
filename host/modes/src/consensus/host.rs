//! The host functions of the interfaces `unverified` and `active-policy`, which only approximate modes import.

use tightwad_core::{BackendError, printable};
use tightwad_sandbox::State;
use wasmtime::Result;
use wasmtime::component::Resource;

use crate::bindings::tightwad::plugin::active_policy::Host as HostPolicy;
use crate::bindings::tightwad::plugin::ballots::{Ballot, Host as HostBallots, Ruling};
use crate::bindings::tightwad::plugin::decoding::Error;
use crate::bindings::tightwad::plugin::unverified::{Accepted, AuditStats, Host as HostUnverified};
use crate::decoding::handles::JobHandle;
use crate::decoding::host::{MAX_DRAFT_TOKENS, VERIFICATION_IN_PROGRESS, active_job, refused};
use crate::decoding::job::Job;

/// The maximum length of a rule's name. The host cuts longer names.
const MAX_RULE_NAME_BYTES: usize = 64;
/// The maximum length of the reason of a rule's change. The host cuts longer reasons.
const MAX_REASON_BYTES: usize = 256;
/// The maximum number of ballots of one ruling. A call with more ends the instance.
const MAX_BALLOTS: usize = 256;

impl HostBallots for State<Job> {}

impl HostUnverified for State<Job> {
    async fn accept_unverified(
        &mut self,
        _: Resource<JobHandle>,
        tokens: Vec<u32>,
        audit: bool,
    ) -> Result<std::result::Result<Accepted, Error>> {
        let job = match active_job(self)? {
            Ok(job) => job,
            Err(error) => return Ok(Err(error)),
        };
        if tokens.is_empty() || tokens.len() > MAX_DRAFT_TOKENS as usize {
            let count = tokens.len();
            return Ok(refused(format!("a call accepts 1 to {MAX_DRAFT_TOKENS} tokens, not {count}")));
        }
        Ok(match job.accept_unverified(&tokens, audit).await {
            Some((count, finished)) => Ok(Accepted { count, finished }),
            None => refused(VERIFICATION_IN_PROGRESS.to_owned()),
        })
    }

    fn get_audit_stats(&mut self, _: Resource<JobHandle>) -> Result<AuditStats> {
        self.count_call()?;
        let grant = self.data.grant.as_ref();
        let (audited, agreed) = grant.map(|grant| grant.agreement.fresh_counts()).unwrap_or_default();
        Ok(AuditStats { audited, agreed })
    }

    fn report_rule(&mut self, _: Resource<JobHandle>, rule: String, reason: String) -> Result<()> {
        self.count_call()?;
        let (rule, reason) = (printable(&rule, MAX_RULE_NAME_BYTES), printable(&reason, MAX_REASON_BYTES));
        let plugin = self.plugin_label().to_owned();
        let Some(grant) = &mut self.data.grant else { return Ok(()) };
        grant.request_rule.clone_from(&rule);
        if grant.rule.set(rule.clone()) {
            tracing::warn!(plugin, rule, reason, "the rule of the consensus changed");
        }
        Ok(())
    }
}

impl HostPolicy for State<Job> {
    async fn rule(&mut self, ballots: Vec<Ballot>, drafter_count: u32) -> Result<Option<Ruling>> {
        self.count_call()?;
        if ballots.len() > MAX_BALLOTS
            || ballots.iter().any(|ballot| ballot.proposals.len() > MAX_DRAFT_TOKENS as usize)
        {
            return Err(wasmtime::Error::msg(format!(
                "a ruling has at most {MAX_BALLOTS} ballots of {MAX_DRAFT_TOKENS} proposals"
            )));
        }
        let Some(policy) = self.data.grant.as_ref().and_then(|grant| grant.policy.clone()) else {
            return Ok(None);
        };
        Ok(Some(policy.rule(&ballots, drafter_count).await.unwrap_or_else(|error| {
            self.data.failure = Some(BackendError::failed("the consensus policy", error));
            Ruling::Decode(1)
        })))
    }
}
