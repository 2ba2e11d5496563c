//! The host functions of the interface `decoding`.

use std::time::Duration;

use tightwad_sandbox::State;
use tightwad_sandbox::bindings::tightwad::plugin::types::SettingValue;
use wasmtime::Result;
use wasmtime::component::Resource;

use crate::bindings::tightwad::plugin::decoding::{
    Commit, Draft, DrafterFacts, Error, Host, HostJob, HostPendingCommit, HostPendingDraft, Proposal,
    RaceDraft, RaceLimits, TargetFacts,
};
use crate::decoding::drafter_slot::DrafterSlot;
use crate::decoding::handles::{JobHandle, PendingCommit, PendingDraft};
use crate::decoding::job::{BeginError, CommitReport, Job};
use crate::decoding::race;

#[cfg(test)]
mod tests;

/// The maximum number of tokens of a draft, and of a verification over all its paths.
pub(crate) const MAX_DRAFT_TOKENS: u32 = 256;

/// The maximum number of paths of a verification.
const MAX_DRAFT_PATHS: usize = 256;

/// The maximum size of a driver's state. The host ignores a larger state.
const MAX_STATE_BYTES: usize = 16 << 10;

/// The error message of a call that needs the target during a verification.
pub(crate) const VERIFICATION_IN_PROGRESS: &str = "a verification is in progress; wait for it first";

/// The outer error ends the instance. The guest receives the inner one.
type GuestResult<T> = Result<std::result::Result<T, Error>>;

impl Host for State<Job> {}

/// Counts a call and returns the job, unless the job is over.
pub(crate) fn active_job(state: &mut State<Job>) -> GuestResult<&mut Job> {
    state.count_call()?;
    Ok(if state.data.is_over() { Err(Error::Finished) } else { Ok(&mut state.data) })
}

impl HostJob for State<Job> {
    fn settings(&mut self, _: Resource<JobHandle>) -> Result<Vec<(String, SettingValue)>> {
        self.count_call()?;
        Ok(self.data.settings().to_list())
    }

    fn load_state(&mut self, _: Resource<JobHandle>) -> Result<Vec<u8>> {
        self.count_call()?;
        Ok(self.data.load_state())
    }

    fn save_state(&mut self, _: Resource<JobHandle>, state: Vec<u8>) -> Result<()> {
        self.count_call()?;
        if state.len() > MAX_STATE_BYTES {
            let (plugin, bytes) = (self.plugin_label(), state.len());
            tracing::warn!(
                plugin,
                bytes,
                "the state of the driver is not saved; its limit is {MAX_STATE_BYTES} bytes"
            );
            return Ok(());
        }
        self.data.save_state(state);
        Ok(())
    }

    fn remaining(&mut self, _: Resource<JobHandle>) -> Result<u32> {
        self.count_call()?;
        Ok(self.data.remaining_tokens())
    }

    fn target(&mut self, _: Resource<JobHandle>) -> Result<TargetFacts> {
        self.count_call()?;
        let cost = self.data.pass_cost();
        Ok(TargetFacts {
            time_per_token: nanoseconds(cost.time_per_token),
            time_per_row: nanoseconds(cost.time_per_row),
            round_trip: nanoseconds(cost.round_trip),
        })
    }

    fn drafters(&mut self, _: Resource<JobHandle>) -> Result<Vec<DrafterFacts>> {
        self.count_call()?;
        let facts = |drafter: &DrafterSlot| DrafterFacts {
            name: drafter.name.clone(),
            unavailable: drafter.unavailable,
            shares_processor: drafter.shares_processor,
            startup: nanoseconds(drafter.draft_cost.startup),
            time_per_token: nanoseconds(drafter.draft_cost.time_per_token),
            round_trip: nanoseconds(drafter.draft_cost.round_trip),
        };
        Ok(self.data.drafters().iter().map(facts).collect())
    }

    async fn propose(
        &mut self,
        job: Resource<JobHandle>,
        drafter: u32,
        ahead: Vec<u32>,
        max_tokens: u32,
        min_probability: f32,
    ) -> GuestResult<Draft> {
        match self.begin_propose(job, drafter, ahead, max_tokens, min_probability)? {
            Ok(pending) => HostPendingDraft::wait(self, pending).await,
            Err(error) => Ok(Err(error)),
        }
    }

    fn begin_propose(
        &mut self,
        _: Resource<JobHandle>,
        drafter: u32,
        ahead: Vec<u32>,
        max_tokens: u32,
        min_probability: f32,
    ) -> GuestResult<Resource<PendingDraft>> {
        let job = match active_job(self)? {
            Ok(job) => job,
            Err(error) => return Ok(Err(error)),
        };
        if !(1..=MAX_DRAFT_TOKENS).contains(&max_tokens) || ahead.len() > MAX_DRAFT_TOKENS as usize {
            return Ok(refused(format!(
                "a draft has 1 to {MAX_DRAFT_TOKENS} tokens and follows at most as many `ahead`, not {max_tokens} and {}",
                ahead.len()
            )));
        }
        match job.begin_propose(drafter as usize, &ahead, max_tokens, min_probability) {
            Ok(()) => {
                let pending = PendingDraft { drafter: drafter as usize, waited: false };
                Ok(Ok(self.table.push(pending)?))
            }
            Err(BeginError::UnknownDrafter) => Ok(refused(format!("there is no drafter {drafter}"))),
            Err(BeginError::Busy) => Ok(refused(format!("drafter {drafter} still works on another draft"))),
        }
    }

    async fn verify(&mut self, _: Resource<JobHandle>, tokens: Vec<u32>) -> GuestResult<Commit> {
        let job = match active_job(self)? {
            Ok(job) => job,
            Err(error) => return Ok(Err(error)),
        };
        if tokens.len() > MAX_DRAFT_TOKENS as usize {
            return Ok(too_many_tokens(tokens.len()));
        }
        Ok(commit_or_refusal(job.verify(tokens.into()).await))
    }

    async fn verify_tree(&mut self, _: Resource<JobHandle>, paths: Vec<Vec<u32>>) -> GuestResult<Commit> {
        let job = match active_job(self)? {
            Ok(job) => job,
            Err(error) => return Ok(Err(error)),
        };
        let tokens: usize = paths.iter().map(Vec::len).sum();
        if tokens > MAX_DRAFT_TOKENS as usize {
            return Ok(too_many_tokens(tokens));
        }
        if paths.len() > MAX_DRAFT_PATHS {
            return Ok(refused(format!(
                "a verification takes at most {MAX_DRAFT_PATHS} paths, not {}",
                paths.len()
            )));
        }
        Ok(commit_or_refusal(job.verify(tightwad_core::Draft::from_paths(paths)).await))
    }

    async fn race(
        &mut self,
        _: Resource<JobHandle>,
        drafters: Vec<u32>,
        max_tokens: u32,
        min_probability: f32,
        limits: RaceLimits,
    ) -> GuestResult<Vec<RaceDraft>> {
        let job = match active_job(self)? {
            Ok(job) => job,
            Err(error) => return Ok(Err(error)),
        };
        if !(1..=MAX_DRAFT_TOKENS).contains(&max_tokens) {
            return Ok(refused(format!("a draft has 1 to {MAX_DRAFT_TOKENS} tokens, not {max_tokens}")));
        }
        if drafters.len() > job.drafters().len() {
            let (count, all) = (drafters.len(), job.drafters().len());
            return Ok(refused(format!("a race has at most the {all} drafters of the script, not {count}")));
        }
        let drafters: Vec<usize> = drafters.into_iter().map(|drafter| drafter as usize).collect();
        let limits = race::RaceLimits {
            quorum: limits.quorum as usize,
            grace_period: Duration::from_nanos(limits.grace_period),
            timeout: Duration::from_nanos(limits.timeout),
        };
        let drafts = race::race(job, &drafters, max_tokens, min_probability, limits).await;
        let to_wit = |draft: race::RaceDraft| RaceDraft {
            drafter: u32::try_from(draft.drafter).unwrap_or(u32::MAX),
            draft: wit_draft(draft.proposals, draft.elapsed),
        };
        Ok(Ok(drafts.into_iter().map(to_wit).collect()))
    }

    fn begin_verify(
        &mut self,
        _: Resource<JobHandle>,
        tokens: Vec<u32>,
    ) -> GuestResult<Resource<PendingCommit>> {
        let job = match active_job(self)? {
            Ok(job) => job,
            Err(error) => return Ok(Err(error)),
        };
        if tokens.len() > MAX_DRAFT_TOKENS as usize {
            return Ok(too_many_tokens(tokens.len()));
        }
        if !job.begin_verify(tokens.into()) {
            return Ok(refused(VERIFICATION_IN_PROGRESS.to_owned()));
        }
        Ok(Ok(self.table.push(PendingCommit { waited: false })?))
    }

    async fn decode(&mut self, _: Resource<JobHandle>, max_tokens: u32) -> GuestResult<Commit> {
        let job = match active_job(self)? {
            Ok(job) => job,
            Err(error) => return Ok(Err(error)),
        };
        if max_tokens == 0 {
            return Ok(refused("a decode has at least one token".to_owned()));
        }
        Ok(commit_or_refusal(job.decode(max_tokens).await))
    }

    fn drop(&mut self, job: Resource<JobHandle>) -> Result<()> {
        self.table.delete(job)?;
        Ok(())
    }
}

impl HostPendingDraft for State<Job> {
    async fn wait(&mut self, pending: Resource<PendingDraft>) -> GuestResult<Draft> {
        self.count_call()?;
        let pending = self.table.get_mut(&pending)?;
        if std::mem::replace(&mut pending.waited, true) {
            return Ok(refused("an earlier call already waited for this draft".to_owned()));
        }
        let drafter = pending.drafter;
        Ok(match self.data.end_propose(drafter).await {
            Ok((proposals, elapsed)) => Ok(wit_draft(proposals, elapsed)),
            Err(error) => Err(Error::Backend(error.to_string())),
        })
    }

    async fn drop(&mut self, pending: Resource<PendingDraft>) -> Result<()> {
        let pending = self.table.delete(pending)?;
        if !pending.waited {
            // The drafter's next draft needs the session that this draft uses.
            let _ = self.data.end_propose(pending.drafter).await;
        }
        Ok(())
    }
}

impl HostPendingCommit for State<Job> {
    async fn wait(&mut self, pending: Resource<PendingCommit>) -> GuestResult<Commit> {
        self.count_call()?;
        let pending = self.table.get_mut(&pending)?;
        if std::mem::replace(&mut pending.waited, true) {
            return Ok(refused("an earlier call already waited for this verification".to_owned()));
        }
        Ok(self.data.end_verify().await.map_or(Err(Error::Finished), |report| Ok(commit(report))))
    }

    async fn drop(&mut self, pending: Resource<PendingCommit>) -> Result<()> {
        let pending = self.table.delete(pending)?;
        if !pending.waited {
            // The tokens are committed all the same.
            let _ = self.data.end_verify().await;
        }
        Ok(())
    }
}

/// Converts a report. `None` means that a verification was in progress.
fn commit_or_refusal(report: Option<CommitReport>) -> std::result::Result<Commit, Error> {
    report.map_or_else(|| refused(VERIFICATION_IN_PROGRESS.to_owned()), |report| Ok(commit(report)))
}

fn too_many_tokens<T>(tokens: usize) -> std::result::Result<T, Error> {
    refused(format!("a verification takes at most {MAX_DRAFT_TOKENS} tokens, not {tokens}"))
}

pub(crate) fn refused<T>(reason: String) -> std::result::Result<T, Error> {
    Err(Error::Refused(reason))
}

fn wit_draft(proposals: Vec<tightwad_core::Proposal>, elapsed: Duration) -> Draft {
    let to_wit = |proposal: tightwad_core::Proposal| Proposal {
        token: proposal.token,
        probability: proposal.probability,
    };
    Draft { proposals: proposals.into_iter().map(to_wit).collect(), elapsed: nanoseconds(elapsed) }
}

fn commit(report: CommitReport) -> Commit {
    Commit {
        tokens: report.tokens,
        accepted: report.accepted,
        rows: report.rows,
        finished: report.finished,
        cost: nanoseconds(report.cost),
    }
}

pub(crate) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
