//! The host's side of `reviewing`.

use std::sync::atomic::Ordering;

use tightwad_core::BackendError;
use tightwad_sandbox::State;
use wasmtime::Result;
use wasmtime::component::Resource;

use crate::bindings::gating::tightwad::plugin::answers::{
    Candidate, Host as HostAnswers, Judgement, Review, TokenScore, Verdict,
};
use crate::bindings::gating::tightwad::plugin::reviewing::{Host, HostTask, Member, Ways};
use crate::bindings::tightwad::plugin::decoding::Error;
use crate::decoding::host::{nanoseconds, refused};
use crate::gate::handles::TaskHandle;
use crate::gate::passing;
use crate::gate::review::{ReviewTask, TaskSpec, Written};

type Answer<T> = Result<std::result::Result<T, Error>>;

impl HostAnswers for State<ReviewTask> {}
impl Host for State<ReviewTask> {}

/// The task, where it can still go on.
fn open(state: &mut State<ReviewTask>) -> Result<std::result::Result<&mut ReviewTask, Error>> {
    state.count_call()?;
    Ok(if state.data.is_over() { Err(Error::Finished) } else { Ok(&mut state.data) })
}

/// The task, where there is such a candidate.
fn with(
    state: &mut State<ReviewTask>,
    candidate: u32,
) -> Result<std::result::Result<&mut ReviewTask, Error>> {
    Ok(match open(state)? {
        Ok(task) if (candidate as usize) < task.written.len() => Ok(task),
        Ok(_) => refused(format!("there is no candidate {candidate}")),
        Err(error) => Err(error),
    })
}

/// A failure of the reviewer's, as the gate hears of it.
async fn failed(task: &mut ReviewTask, error: BackendError) -> Error {
    task.pass_unreviewed().await;
    if task.is_over() { Error::Finished } else { Error::Backend(error.to_string()) }
}

impl HostTask for State<ReviewTask> {
    fn settings(&mut self, _: Resource<TaskHandle>) -> Result<String> {
        self.count_call()?;
        Ok(self.data.spec.settings.clone())
    }

    fn fleet(&mut self, _: Resource<TaskHandle>) -> Result<Vec<Member>> {
        self.count_call()?;
        let fleet = self.data.spec.fleet.iter();
        let member = fleet.map(|(backend, counts)| {
            let load = backend.load();
            Member {
                name: backend.name().to_owned(),
                busy: u32::try_from(load.active + load.waiting).unwrap_or(u32::MAX),
                token: backend.facts().map(|facts| facts.token_ns).unwrap_or_default(),
                written: counts.written.load(Ordering::Relaxed),
                approved: counts.approved.load(Ordering::Relaxed),
            }
        });
        Ok(member.collect())
    }

    fn ways(&mut self, _: Resource<TaskHandle>) -> Result<Ways> {
        self.count_call()?;
        let TaskSpec { ways, policy, .. } = &self.data.spec;
        Ok(Ways { score: ways.score, judge: ways.judge, policy: policy.is_some() })
    }

    async fn write(
        &mut self,
        _: Resource<TaskHandle>,
        members: Vec<u32>,
        enough: u32,
    ) -> Answer<Vec<Candidate>> {
        let task = match open(self)? {
            Ok(task) => task,
            Err(error) => return Ok(Err(error)),
        };
        let members: Vec<usize> = members.into_iter().map(|member| member as usize).collect();
        let new = task.write(&members, enough as usize).await;
        if task.is_over() {
            return Ok(Err(Error::Finished));
        }
        Ok(Ok(task.written[new].iter().map(candidate).collect()))
    }

    async fn score(
        &mut self,
        _: Resource<TaskHandle>,
        candidate: u32,
        tokens: u32,
    ) -> Answer<Vec<TokenScore>> {
        let task = match with(self, candidate)? {
            Ok(task) => task,
            Err(error) => return Ok(Err(error)),
        };
        let own = |one: &tightwad_core::Scored| TokenScore { logprob: one.logprob, rank: one.rank };
        let scored = task.score(candidate as usize, tokens as usize).await;
        let scored = scored.map(|scored| scored.iter().map(own).collect());
        Ok(match scored {
            Ok(scored) => Ok(scored),
            Err(error) => Err(failed(task, error).await),
        })
    }

    async fn ask(&mut self, _: Resource<TaskHandle>, candidate: u32) -> Answer<Judgement> {
        let task = match with(self, candidate)? {
            Ok(task) => task,
            Err(error) => return Ok(Err(error)),
        };
        Ok(match task.ask(candidate as usize).await {
            Ok(word) => Ok(match word.as_deref() {
                Some("approve") => Judgement::Approve,
                Some("correct") => Judgement::Correct,
                Some("reject") => Judgement::Reject,
                _ => Judgement::Unclear,
            }),
            Err(error) => Err(failed(task, error).await),
        })
    }

    async fn judge(
        &mut self,
        _: Resource<TaskHandle>,
        number: u32,
        review: Review,
    ) -> Result<Option<Verdict>> {
        let task = match with(self, number)? {
            Ok(task) => task,
            Err(_) => return Ok(None),
        };
        let Some(policy) = task.spec.policy.clone() else { return Ok(None) };
        let candidate = candidate(&task.written[number as usize]);
        let judged = policy.judge(candidate, &review).await;
        Ok(Some(judged.unwrap_or_else(|error| {
            tracing::warn!(%error, "the gate policy failed, which rejects");
            Verdict::Reject
        })))
    }

    async fn pass(&mut self, _: Resource<TaskHandle>, candidate: u32, tokens: u32) -> Answer<()> {
        let task = match with(self, candidate)? {
            Ok(task) => task,
            Err(error) => return Ok(Err(error)),
        };
        match passing::pass(task, candidate as usize, tokens as usize).await {
            Ok(()) if task.is_over() => Ok(Err(Error::Finished)),
            Ok(()) => Ok(Ok(())),
            Err(error) => Ok(refused(error.to_string())),
        }
    }

    async fn approve(&mut self, _: Resource<TaskHandle>, candidate: u32) -> Answer<()> {
        let task = match with(self, candidate)? {
            Ok(task) => task,
            Err(error) => return Ok(Err(error)),
        };
        if !task.approve(candidate as usize).await {
            return Ok(refused("the client has the beginning of another candidate".to_owned()));
        }
        Ok(Ok(()))
    }

    async fn correct(&mut self, _: Resource<TaskHandle>, candidate: u32, keep: u32) -> Answer<()> {
        let task = match with(self, candidate)? {
            Ok(task) => task,
            Err(error) => return Ok(Err(error)),
        };
        if !passing::correct(task, candidate as usize, keep as usize).await {
            return Ok(refused(format!(
                "candidate {candidate} cannot be corrected behind {keep} tokens: it was not scored, has fewer, its reviewer only speaks text, or the client has something else"
            )));
        }
        task.pass_unreviewed().await;
        Ok(Ok(()))
    }

    async fn rewrite(&mut self, _: Resource<TaskHandle>) -> Answer<()> {
        Ok(match open(self)? {
            Ok(task) => {
                passing::rewrite(task).await;
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

fn candidate(written: &Written) -> Candidate {
    Candidate {
        member: u32::try_from(written.member).unwrap_or(u32::MAX),
        tokens: written.outcome.usage.completion_tokens,
        characters: u32::try_from(written.text.chars().count()).unwrap_or(u32::MAX),
        whole: written.outcome.finish == tightwad_core::Finish::Stop,
        nanoseconds: nanoseconds(written.took),
    }
}
