//! The host's side of `unverified` and `policy`: what approximate modes may do besides.

use tightwad_core::BackendError;
use tightwad_sandbox::State;
use wasmtime::Result;
use wasmtime::component::Resource;

use crate::bindings::tightwad::plugin::ballots::{Ballot, Host as HostBallots, Ruling};
use crate::bindings::tightwad::plugin::decoding::Error;
use crate::bindings::tightwad::plugin::policy::Host as HostPolicy;
use crate::bindings::tightwad::plugin::unverified::{Accepted, Agreement, Host as HostUnverified};
use crate::decoding::handles::JobHandle;
use crate::decoding::host::{MOST, UNDER_WAY, live, refused};
use crate::decoding::job::Job;

/// Longest name of a rule, in bytes.
const LONGEST_NAME: usize = 64;

impl HostBallots for State<Job> {}

impl HostUnverified for State<Job> {
    async fn accept_unverified(
        &mut self,
        _: Resource<JobHandle>,
        tokens: Vec<u32>,
        audit: bool,
    ) -> Result<std::result::Result<Accepted, Error>> {
        let job = match live(self)? {
            Ok(job) => job,
            Err(error) => return Ok(Err(error)),
        };
        if tokens.is_empty() || tokens.len() > MOST as usize {
            return Ok(refused(format!("1 to {MOST} tokens are accepted at once, not {}", tokens.len())));
        }
        Ok(match job.accept(&tokens, audit).await {
            Some((tokens, finished)) => Ok(Accepted { tokens, finished }),
            None => refused(UNDER_WAY.to_owned()),
        })
    }

    fn audited(&mut self, _: Resource<JobHandle>) -> Result<Agreement> {
        self.count_call()?;
        let skipping = self.data.skipping.as_ref();
        let (audited, agreed) = skipping.map(|skipping| skipping.agreement.current()).unwrap_or_default();
        Ok(Agreement { audited, agreed })
    }

    fn at_work(&mut self, _: Resource<JobHandle>, mut rule: String, why: String) -> Result<()> {
        self.count_call()?;
        rule.truncate(rule.floor_char_boundary(LONGEST_NAME));
        let plugin = self.plugin().to_owned();
        let Some(skipping) = &mut self.data.skipping else { return Ok(()) };
        skipping.own_rule.clone_from(&rule);
        if skipping.rule.set(rule.clone()) {
            tracing::warn!(plugin, rule, why, "another rule is at work");
        }
        Ok(())
    }
}

impl HostPolicy for State<Job> {
    async fn rule(&mut self, ballots: Vec<Ballot>, drafters: u32) -> Result<Option<Ruling>> {
        self.count_call()?;
        let Some(policy) = self.data.skipping.as_ref().and_then(|skipping| skipping.policy.clone()) else {
            return Ok(None);
        };
        Ok(Some(policy.rule(&ballots, drafters).await.unwrap_or_else(|error| {
            self.data.failure = Some(BackendError::failed("the consensus policy", error));
            Ruling::Decode(1)
        })))
    }
}
