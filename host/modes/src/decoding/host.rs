//! The host's side of `decoding`.

use std::time::Duration;

use tightwad_sandbox::State;
use wasmtime::Result;
use wasmtime::component::Resource;

use crate::bindings::tightwad::plugin::decoding::{
    Answer as Raced, Commit, Draft, DrafterFacts, Error, Host, HostJob, HostPendingCommit, HostPendingDraft,
    Proposal, RaceEnd, TargetFacts,
};
use crate::decoding::handles::{JobHandle, PendingCommit, PendingDraft};
use crate::decoding::job::{Begun, Committed, Job};
use crate::decoding::race;
use crate::decoding::seat::Seat;

#[cfg(test)]
mod tests;

/// Most tokens a drafter can be asked for, and most that one verification takes.
pub(crate) const MOST: u32 = 256;

/// Longest note that a mode leaves for itself, in bytes.
const LONGEST_NOTE: usize = 16 << 10;

type Answer<T> = Result<std::result::Result<T, Error>>;

impl Host for State<Job> {}

/// The job, where it can still go on.
pub(crate) fn live(state: &mut State<Job>) -> Result<std::result::Result<&mut Job, Error>> {
    state.count_call()?;
    Ok(if state.data.is_over() { Err(Error::Finished) } else { Ok(&mut state.data) })
}

impl HostJob for State<Job> {
    fn settings(&mut self, _: Resource<JobHandle>) -> Result<String> {
        self.count_call()?;
        Ok(self.data.settings().to_owned())
    }

    fn memory(&mut self, _: Resource<JobHandle>) -> Result<String> {
        self.count_call()?;
        Ok(self.data.memory())
    }

    fn remember(&mut self, _: Resource<JobHandle>, note: String) -> Result<()> {
        self.count_call()?;
        if note.len() <= LONGEST_NOTE {
            self.data.remember(note);
        }
        Ok(())
    }

    fn remaining(&mut self, _: Resource<JobHandle>) -> Result<u32> {
        self.count_call()?;
        Ok(self.data.remaining())
    }

    fn target(&mut self, _: Resource<JobHandle>) -> Result<TargetFacts> {
        self.count_call()?;
        let expected = self.data.expected();
        Ok(TargetFacts {
            token: nanoseconds(expected.token),
            row: nanoseconds(expected.row),
            round_trip: nanoseconds(expected.round_trip),
        })
    }

    fn drafters(&mut self, _: Resource<JobHandle>) -> Result<Vec<DrafterFacts>> {
        self.count_call()?;
        let facts = |seat: &Seat| DrafterFacts {
            name: seat.name.clone(),
            absent: seat.absent,
            shares_processor: seat.shares_processor,
            startup: nanoseconds(seat.expected.startup),
            token: nanoseconds(seat.expected.token),
            round_trip: nanoseconds(seat.expected.round_trip),
        };
        Ok(self.data.seats().iter().map(facts).collect())
    }

    async fn propose(
        &mut self,
        job: Resource<JobHandle>,
        drafter: u32,
        ahead: Vec<u32>,
        max: u32,
        min_probability: f32,
    ) -> Answer<Draft> {
        match self.begin_propose(job, drafter, ahead, max, min_probability)? {
            Ok(pending) => HostPendingDraft::wait(self, pending).await,
            Err(error) => Ok(Err(error)),
        }
    }

    fn begin_propose(
        &mut self,
        _: Resource<JobHandle>,
        drafter: u32,
        ahead: Vec<u32>,
        max: u32,
        min_probability: f32,
    ) -> Answer<Resource<PendingDraft>> {
        let job = match live(self)? {
            Ok(job) => job,
            Err(error) => return Ok(Err(error)),
        };
        if !(1..=MOST).contains(&max) || ahead.len() > MOST as usize {
            return Ok(refused(format!(
                "a draft has 1 to {MOST} tokens, not {max} after {} ahead",
                ahead.len()
            )));
        }
        match job.begin_propose(drafter as usize, &ahead, max, min_probability) {
            Begun::Yes => {
                let pending = PendingDraft { drafter: drafter as usize, waited: false };
                Ok(Ok(self.table.push(pending)?))
            }
            Begun::Unknown => Ok(refused(format!("there is no drafter {drafter}"))),
            Begun::Busy => Ok(refused(format!("drafter {drafter} has a proposal under way"))),
        }
    }

    async fn verify(&mut self, _: Resource<JobHandle>, tokens: Vec<u32>) -> Answer<Commit> {
        let job = match live(self)? {
            Ok(job) => job,
            Err(error) => return Ok(Err(error)),
        };
        if tokens.len() > MOST as usize {
            return Ok(refused(too_long(tokens.len())));
        }
        let done = job.verify(tokens.into()).await;
        Ok(done.map_or_else(|| refused(UNDER_WAY.to_owned()), |done| Ok(commit(done))))
    }

    async fn verify_tree(&mut self, _: Resource<JobHandle>, paths: Vec<Vec<u32>>) -> Answer<Commit> {
        let job = match live(self)? {
            Ok(job) => job,
            Err(error) => return Ok(Err(error)),
        };
        let tokens: usize = paths.iter().map(Vec::len).sum();
        if tokens > MOST as usize {
            return Ok(refused(too_long(tokens)));
        }
        let done = job.verify(tightwad_core::Draft::of(paths)).await;
        Ok(done.map_or_else(|| refused(UNDER_WAY.to_owned()), |done| Ok(commit(done))))
    }

    async fn race(
        &mut self,
        _: Resource<JobHandle>,
        drafters: Vec<u32>,
        max: u32,
        min_probability: f32,
        end: RaceEnd,
    ) -> Answer<Vec<Raced>> {
        let job = match live(self)? {
            Ok(job) => job,
            Err(error) => return Ok(Err(error)),
        };
        if !(1..=MOST).contains(&max) {
            return Ok(refused(format!("a draft has 1 to {MOST} tokens, not {max}")));
        }
        let drafters: Vec<usize> = drafters.into_iter().map(|drafter| drafter as usize).collect();
        let end = race::RaceEnd {
            quorum: end.quorum as usize,
            grace: Duration::from_nanos(end.grace),
            longest: Duration::from_nanos(end.longest),
        };
        let raced = race::race(job, &drafters, max, min_probability, end).await;
        let answer = |raced: race::Answer| Raced {
            drafter: u32::try_from(raced.drafter).unwrap_or(u32::MAX),
            draft: draft(raced.proposals, raced.took),
        };
        Ok(Ok(raced.into_iter().map(answer).collect()))
    }

    fn begin_verify(&mut self, _: Resource<JobHandle>, tokens: Vec<u32>) -> Answer<Resource<PendingCommit>> {
        let job = match live(self)? {
            Ok(job) => job,
            Err(error) => return Ok(Err(error)),
        };
        if tokens.len() > MOST as usize {
            return Ok(refused(too_long(tokens.len())));
        }
        if !job.begin_verify(tokens.into()) {
            return Ok(refused(UNDER_WAY.to_owned()));
        }
        Ok(Ok(self.table.push(PendingCommit { waited: false })?))
    }

    async fn decode(&mut self, _: Resource<JobHandle>, max: u32) -> Answer<Commit> {
        let job = match live(self)? {
            Ok(job) => job,
            Err(error) => return Ok(Err(error)),
        };
        if max == 0 {
            return Ok(refused("a decode has at least one token".to_owned()));
        }
        Ok(job.decode(max).await.map_or_else(|| refused(UNDER_WAY.to_owned()), |done| Ok(commit(done))))
    }

    fn drop(&mut self, job: Resource<JobHandle>) -> Result<()> {
        self.table.delete(job)?;
        Ok(())
    }
}

impl HostPendingDraft for State<Job> {
    async fn wait(&mut self, pending: Resource<PendingDraft>) -> Answer<Draft> {
        self.count_call()?;
        let pending = self.table.get_mut(&pending)?;
        if std::mem::replace(&mut pending.waited, true) {
            return Ok(refused("this proposal was waited for".to_owned()));
        }
        let drafter = pending.drafter;
        Ok(match self.data.end_propose(drafter).await {
            Ok((proposals, took)) => Ok(draft(proposals, took)),
            Err(error) => Err(Error::Backend(error.to_string())),
        })
    }

    async fn drop(&mut self, pending: Resource<PendingDraft>) -> Result<()> {
        let pending = self.table.delete(pending)?;
        if !pending.waited {
            // Its session must come back before the drafter can be asked again.
            let _ = self.data.end_propose(pending.drafter).await;
        }
        Ok(())
    }
}

impl HostPendingCommit for State<Job> {
    async fn wait(&mut self, pending: Resource<PendingCommit>) -> Answer<Commit> {
        self.count_call()?;
        let pending = self.table.get_mut(&pending)?;
        if std::mem::replace(&mut pending.waited, true) {
            return Ok(refused("this verification was waited for".to_owned()));
        }
        Ok(self.data.end_verify().await.map_or(Err(Error::Finished), |done| Ok(commit(done))))
    }

    async fn drop(&mut self, pending: Resource<PendingCommit>) -> Result<()> {
        let pending = self.table.delete(pending)?;
        if !pending.waited {
            // Committed all the same.
            let _ = self.data.end_verify().await;
        }
        Ok(())
    }
}

pub(crate) const UNDER_WAY: &str = "a verification is under way: wait for it first";

fn too_long(tokens: usize) -> String {
    format!("a verification takes at most {MOST} tokens, not {tokens}")
}

pub(crate) fn refused<T>(sentence: String) -> std::result::Result<T, Error> {
    Err(Error::Refused(sentence))
}

fn draft(proposals: Vec<tightwad_core::Proposal>, took: Duration) -> Draft {
    let own = |one: tightwad_core::Proposal| Proposal { token: one.token, probability: one.probability };
    Draft { proposals: proposals.into_iter().map(own).collect(), nanoseconds: nanoseconds(took) }
}

fn commit(done: Committed) -> Commit {
    Commit {
        tokens: done.tokens,
        accepted: done.accepted,
        rows: done.rows,
        finished: done.finished,
        nanoseconds: nanoseconds(done.took),
    }
}

pub(crate) fn nanoseconds(took: Duration) -> u64 {
    u64::try_from(took.as_nanos()).unwrap_or(u64::MAX)
}
