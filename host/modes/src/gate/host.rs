//! The host functions of the interface `reviewing`.

use std::sync::atomic::Ordering;

use tightwad_core::BackendError;
use tightwad_sandbox::State;
use tightwad_sandbox::bindings::tightwad::plugin::types::SettingValue;
use wasmtime::Result;
use wasmtime::component::Resource;

use crate::bindings::gate_mode::tightwad::plugin::answers::{
    Candidate, Host as HostAnswers, Judgement, Review, TokenScore, Verdict,
};
use crate::bindings::gate_mode::tightwad::plugin::reviewing::{Host, HostTask, Member, ReviewMethods};
use crate::bindings::tightwad::plugin::decoding::Error;
use crate::decoding::host::{nanoseconds, refused};
use crate::gate::delivery;
use crate::gate::handles::TaskHandle;
use crate::gate::review::{self, ReviewTask, TaskSpec};

/// The outer error ends the instance. The guest receives the inner one.
type GuestResult<T> = Result<std::result::Result<T, Error>>;

impl HostAnswers for State<ReviewTask> {}
impl Host for State<ReviewTask> {}

/// Counts a call and returns the task, unless the task is over.
fn active_task(state: &mut State<ReviewTask>) -> GuestResult<&mut ReviewTask> {
    state.count_call()?;
    Ok(if state.data.is_over() { Err(Error::Finished) } else { Ok(&mut state.data) })
}

/// Like [`active_task`], and refuses an unknown candidate.
fn active_task_with(state: &mut State<ReviewTask>, candidate: u32) -> GuestResult<&mut ReviewTask> {
    Ok(match active_task(state)? {
        Ok(task) if (candidate as usize) < task.candidates.len() => Ok(task),
        Ok(_) => refused(format!("there is no candidate {candidate}")),
        Err(error) => Err(error),
    })
}

/// The guest's error for a failure of the reviewer.
async fn reviewer_error(task: &mut ReviewTask, error: BackendError) -> Error {
    task.pass_unreviewed().await;
    if task.is_over() { Error::Finished } else { Error::Backend(error.to_string()) }
}

impl HostTask for State<ReviewTask> {
    fn settings(&mut self, _: Resource<TaskHandle>) -> Result<Vec<(String, SettingValue)>> {
        self.count_call()?;
        Ok(self.data.spec.settings.to_list())
    }

    fn fleet(&mut self, _: Resource<TaskHandle>) -> Result<Vec<Member>> {
        self.count_call()?;
        let fleet = self.data.spec.fleet.iter();
        let members = fleet.map(|(backend, counts)| {
            let load = backend.load();
            Member {
                name: backend.name().to_owned(),
                pending_requests: u32::try_from(load.active + load.waiting).unwrap_or(u32::MAX),
                time_per_token: backend.facts().map(|facts| facts.time_per_token_ns).unwrap_or_default(),
                written: counts.written.load(Ordering::Relaxed),
                approved: counts.approved.load(Ordering::Relaxed),
            }
        });
        Ok(members.collect())
    }

    fn review_methods(&mut self, _: Resource<TaskHandle>) -> Result<ReviewMethods> {
        self.count_call()?;
        let TaskSpec { review_methods, policy, .. } = &self.data.spec;
        Ok(ReviewMethods {
            score: review_methods.score,
            judge: review_methods.judge,
            policy: policy.is_some(),
        })
    }

    async fn generate(
        &mut self,
        _: Resource<TaskHandle>,
        members: Vec<u32>,
        count: u32,
    ) -> GuestResult<Vec<Candidate>> {
        let task = match active_task(self)? {
            Ok(task) => task,
            Err(error) => return Ok(Err(error)),
        };
        let members: Vec<usize> = members.into_iter().map(|member| member as usize).collect();
        let new_candidates = match task.generate(&members, count as usize).await {
            Ok(new_candidates) => new_candidates,
            Err(error) => return Ok(refused(error.to_string())),
        };
        if task.is_over() {
            return Ok(Err(Error::Finished));
        }
        Ok(Ok(task.candidates[new_candidates].iter().map(wit_candidate).collect()))
    }

    async fn score(
        &mut self,
        _: Resource<TaskHandle>,
        candidate: u32,
        token_count: u32,
    ) -> GuestResult<Vec<TokenScore>> {
        let task = match active_task_with(self, candidate)? {
            Ok(task) => task,
            Err(error) => return Ok(Err(error)),
        };
        let to_wit =
            |score: &tightwad_core::TokenScore| TokenScore { logprob: score.logprob, rank: score.rank };
        let scores = task.score(candidate as usize, token_count as usize).await;
        let scores = scores.map(|scores| scores.iter().map(to_wit).collect());
        Ok(match scores {
            Ok(scores) => Ok(scores),
            Err(error) => Err(reviewer_error(task, error).await),
        })
    }

    async fn ask_reviewer(&mut self, _: Resource<TaskHandle>, candidate: u32) -> GuestResult<Judgement> {
        let task = match active_task_with(self, candidate)? {
            Ok(task) => task,
            Err(error) => return Ok(Err(error)),
        };
        Ok(match task.ask_reviewer(candidate as usize).await {
            Ok(judgement) => Ok(match judgement.as_deref() {
                Some("approve") => Judgement::Approve,
                Some("correct") => Judgement::Correct,
                Some("reject") => Judgement::Reject,
                _ => Judgement::Unclear,
            }),
            Err(error) => Err(reviewer_error(task, error).await),
        })
    }

    async fn ask_policy(
        &mut self,
        _: Resource<TaskHandle>,
        candidate: u32,
        review: Review,
    ) -> Result<Option<Verdict>> {
        let task = match active_task_with(self, candidate)? {
            Ok(task) => task,
            Err(_) => return Ok(None),
        };
        let Some(policy) = task.spec.policy.clone() else { return Ok(None) };
        if !task.count_policy_call(candidate as usize) {
            tracing::warn!(
                "the gate policy was asked too often about a candidate; the candidate is rejected"
            );
            return Ok(Some(Verdict::Reject));
        }
        let candidate = wit_candidate(&task.candidates[candidate as usize]);
        let verdict = policy.judge(candidate, &review).await;
        Ok(Some(verdict.unwrap_or_else(|error| {
            tracing::warn!(%error, "the gate policy failed; the candidate is rejected");
            Verdict::Reject
        })))
    }

    async fn release_prefix(
        &mut self,
        _: Resource<TaskHandle>,
        candidate: u32,
        token_count: u32,
    ) -> GuestResult<()> {
        let task = match active_task_with(self, candidate)? {
            Ok(task) => task,
            Err(error) => return Ok(Err(error)),
        };
        match delivery::release_prefix(task, candidate as usize, token_count as usize).await {
            Ok(()) if task.is_over() => Ok(Err(Error::Finished)),
            Ok(()) => Ok(Ok(())),
            Err(error) => Ok(refused(error.to_string())),
        }
    }

    async fn approve(&mut self, _: Resource<TaskHandle>, candidate: u32) -> GuestResult<()> {
        let task = match active_task_with(self, candidate)? {
            Ok(task) => task,
            Err(error) => return Ok(Err(error)),
        };
        if !task.approve(candidate as usize).await {
            return Ok(refused("the client has the beginning of another candidate".to_owned()));
        }
        Ok(Ok(()))
    }

    async fn correct(
        &mut self,
        _: Resource<TaskHandle>,
        candidate: u32,
        kept_tokens: u32,
    ) -> GuestResult<()> {
        let task = match active_task_with(self, candidate)? {
            Ok(task) => task,
            Err(error) => return Ok(Err(error)),
        };
        if !delivery::correct(task, candidate as usize, kept_tokens as usize).await {
            return Ok(refused(format!(
                "candidate {candidate} cannot be corrected after {kept_tokens} tokens: fewer were scored, the reviewer cannot continue a text, or the client has other or more tokens"
            )));
        }
        task.pass_unreviewed().await;
        Ok(Ok(()))
    }

    async fn reject(&mut self, _: Resource<TaskHandle>) -> GuestResult<()> {
        Ok(match active_task(self)? {
            Ok(task) => {
                delivery::reject(task).await;
                task.pass_unreviewed().await;
                Ok(())
            }
            Err(error) => Err(error),
        })
    }

    fn drop(&mut self, task: Resource<TaskHandle>) -> Result<()> {
        self.table.delete(task)?;
        Ok(())
    }
}

fn wit_candidate(candidate: &review::Candidate) -> Candidate {
    Candidate {
        member: u32::try_from(candidate.member).unwrap_or(u32::MAX),
        token_count: candidate.outcome.usage.completion_tokens,
        character_count: u32::try_from(candidate.text.chars().count()).unwrap_or(u32::MAX),
        complete: candidate.outcome.finish_reason == tightwad_core::FinishReason::Stop,
        elapsed: nanoseconds(candidate.elapsed),
    }
}
