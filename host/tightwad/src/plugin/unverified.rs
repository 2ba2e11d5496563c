//! The host's side of `unverified` and `policy`: what approximate modes may do besides.

use wasmtime::Result;
use wasmtime::component::Resource;

use super::bindings::tightwad::plugin::ballots::{Ballot, Host as HostBallots, Ruling};
use super::bindings::tightwad::plugin::decoding::Error;
use super::bindings::tightwad::plugin::policy::Host as HostPolicy;
use super::bindings::tightwad::plugin::unverified::{Accepted, Agreement, Host as HostUnverified};
use super::decoding::{MOST, UNDER_WAY, refused};
use super::state::{JobHandle, State};
use crate::backend::BackendError;

/// Longest name of a rule, in bytes.
const LONGEST_NAME: usize = 64;

impl HostBallots for State {}

impl HostUnverified for State {
    async fn accept_unverified(
        &mut self,
        _: Resource<JobHandle>,
        tokens: Vec<u32>,
        audit: bool,
    ) -> Result<std::result::Result<Accepted, Error>> {
        let job = match self.live()? {
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

    async fn audited(&mut self, _: Resource<JobHandle>) -> Result<Agreement> {
        self.meter.call()?;
        let skipping = self.job.as_ref().and_then(|job| job.skipping.as_ref());
        let (audited, agreed) = skipping.map(|skipping| skipping.agreement.current()).unwrap_or_default();
        Ok(Agreement { audited, agreed })
    }

    async fn at_work(&mut self, _: Resource<JobHandle>, mut rule: String, why: String) -> Result<()> {
        self.meter.call()?;
        rule.truncate(rule.floor_char_boundary(LONGEST_NAME));
        let Some(skipping) = self.job.as_mut().and_then(|job| job.skipping.as_mut()) else { return Ok(()) };
        skipping.own_rule.clone_from(&rule);
        if skipping.rule.set(rule.clone()) {
            tracing::warn!(plugin = self.name, rule, why, "another rule is at work");
        }
        Ok(())
    }
}

impl HostPolicy for State {
    async fn rule(&mut self, ballots: Vec<Ballot>, drafters: u32) -> Result<Option<Ruling>> {
        self.meter.call()?;
        let Some(job) = &mut self.job else { return Ok(None) };
        let Some(policy) = job.skipping.as_ref().and_then(|skipping| skipping.policy.clone()) else {
            return Ok(None);
        };
        Ok(Some(policy.rule(&ballots, drafters).await.unwrap_or_else(|error| {
            job.failure = Some(BackendError::failed("the consensus policy", error));
            Ruling::Decode(1)
        })))
    }
}
