//! The host's side of `decoding`.

use std::time::Duration;

use wasmtime::Result;
use wasmtime::component::Resource;

use super::bindings::tightwad::plugin::decoding::{
    Answer as Raced, Commit, Draft, DrafterFacts, Error, Host, HostJob, HostPendingCommit, HostPendingDraft,
    Proposal, RaceEnd, TargetFacts,
};
use super::job::{Begun, Committed, Job};
use super::race;
use super::seat::Seat;
use super::state::{JobHandle, PendingCommit, PendingDraft, State};

/// Most tokens a drafter can be asked for, and most that one verification takes.
pub(super) const MOST: u32 = 256;

/// Longest note that a mode leaves for itself, in bytes.
const LONGEST_NOTE: usize = 16 << 10;

type Answer<T> = Result<std::result::Result<T, Error>>;

impl Host for State {}

impl State {
    /// The job, where it can still go on.
    pub(super) fn live(&mut self) -> Result<std::result::Result<&mut Job, Error>> {
        self.meter.call()?;
        match &mut self.job {
            Some(job) if !job.is_over() => Ok(Ok(job)),
            _ => Ok(Err(Error::Finished)),
        }
    }
}

impl HostJob for State {
    async fn settings(&mut self, _: Resource<JobHandle>) -> Result<String> {
        self.meter.call()?;
        Ok(self.job.as_ref().map(|job| job.settings().to_owned()).unwrap_or_default())
    }

    async fn memory(&mut self, _: Resource<JobHandle>) -> Result<String> {
        self.meter.call()?;
        Ok(self.job.as_ref().map(Job::memory).unwrap_or_default())
    }

    async fn remember(&mut self, _: Resource<JobHandle>, note: String) -> Result<()> {
        self.meter.call()?;
        if let Some(job) = self.job.as_ref().filter(|_| note.len() <= LONGEST_NOTE) {
            job.remember(note);
        }
        Ok(())
    }

    async fn remaining(&mut self, _: Resource<JobHandle>) -> Result<u32> {
        self.meter.call()?;
        Ok(self.job.as_ref().map_or(0, Job::remaining))
    }

    async fn target(&mut self, _: Resource<JobHandle>) -> Result<TargetFacts> {
        self.meter.call()?;
        let expected = self.job.as_ref().map(Job::expected).unwrap_or_default();
        Ok(TargetFacts {
            token: nanoseconds(expected.token),
            row: nanoseconds(expected.row),
            round_trip: nanoseconds(expected.round_trip),
        })
    }

    async fn drafters(&mut self, _: Resource<JobHandle>) -> Result<Vec<DrafterFacts>> {
        self.meter.call()?;
        let facts = |seat: &Seat| DrafterFacts {
            name: seat.name.clone(),
            absent: seat.absent,
            shares_processor: seat.shares_processor,
            startup: nanoseconds(seat.expected.startup),
            token: nanoseconds(seat.expected.token),
            round_trip: nanoseconds(seat.expected.round_trip),
        };
        Ok(self.job.iter().flat_map(|job| job.seats()).map(facts).collect())
    }

    async fn propose(
        &mut self,
        job: Resource<JobHandle>,
        drafter: u32,
        ahead: Vec<u32>,
        max: u32,
        min_probability: f32,
    ) -> Answer<Draft> {
        match self.begin_propose(job, drafter, ahead, max, min_probability).await? {
            Ok(pending) => HostPendingDraft::wait(self, pending).await,
            Err(error) => Ok(Err(error)),
        }
    }

    async fn begin_propose(
        &mut self,
        _: Resource<JobHandle>,
        drafter: u32,
        ahead: Vec<u32>,
        max: u32,
        min_probability: f32,
    ) -> Answer<Resource<PendingDraft>> {
        let job = match self.live()? {
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
        let job = match self.live()? {
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
        let job = match self.live()? {
            Ok(job) => job,
            Err(error) => return Ok(Err(error)),
        };
        let tokens: usize = paths.iter().map(Vec::len).sum();
        if tokens > MOST as usize {
            return Ok(refused(too_long(tokens)));
        }
        let done = job.verify(tightwad_engine::Draft::of(paths)).await;
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
        let job = match self.live()? {
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
        let raced = job.race(&drafters, max, min_probability, end).await;
        let answer = |raced: race::Answer| Raced {
            drafter: u32::try_from(raced.drafter).unwrap_or(u32::MAX),
            draft: draft(raced.proposals, raced.took),
        };
        Ok(Ok(raced.into_iter().map(answer).collect()))
    }

    async fn begin_verify(
        &mut self,
        _: Resource<JobHandle>,
        tokens: Vec<u32>,
    ) -> Answer<Resource<PendingCommit>> {
        let job = match self.live()? {
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
        let job = match self.live()? {
            Ok(job) => job,
            Err(error) => return Ok(Err(error)),
        };
        if max == 0 {
            return Ok(refused("a decode has at least one token".to_owned()));
        }
        Ok(job.decode(max).await.map_or_else(|| refused(UNDER_WAY.to_owned()), |done| Ok(commit(done))))
    }

    async fn drop(&mut self, job: Resource<JobHandle>) -> Result<()> {
        self.table.delete(job)?;
        Ok(())
    }
}

impl HostPendingDraft for State {
    async fn wait(&mut self, pending: Resource<PendingDraft>) -> Answer<Draft> {
        self.meter.call()?;
        let pending = self.table.get_mut(&pending)?;
        if std::mem::replace(&mut pending.waited, true) {
            return Ok(refused("this proposal was waited for".to_owned()));
        }
        let drafter = pending.drafter;
        let Some(job) = &mut self.job else { return Ok(Err(Error::Finished)) };
        Ok(match job.end_propose(drafter).await {
            Ok((proposals, took)) => Ok(draft(proposals, took)),
            Err(error) => Err(Error::Backend(error.to_string())),
        })
    }

    async fn drop(&mut self, pending: Resource<PendingDraft>) -> Result<()> {
        let pending = self.table.delete(pending)?;
        if !pending.waited
            && let Some(job) = &mut self.job
        {
            // Its session must come back before the drafter can be asked again.
            let _ = job.end_propose(pending.drafter).await;
        }
        Ok(())
    }
}

impl HostPendingCommit for State {
    async fn wait(&mut self, pending: Resource<PendingCommit>) -> Answer<Commit> {
        self.meter.call()?;
        let pending = self.table.get_mut(&pending)?;
        if std::mem::replace(&mut pending.waited, true) {
            return Ok(refused("this verification was waited for".to_owned()));
        }
        let Some(job) = &mut self.job else { return Ok(Err(Error::Finished)) };
        Ok(job.end_verify().await.map_or(Err(Error::Finished), |done| Ok(commit(done))))
    }

    async fn drop(&mut self, pending: Resource<PendingCommit>) -> Result<()> {
        let pending = self.table.delete(pending)?;
        if !pending.waited
            && let Some(job) = &mut self.job
        {
            // Committed all the same.
            let _ = job.end_verify().await;
        }
        Ok(())
    }
}

pub(super) const UNDER_WAY: &str = "a verification is under way: wait for it first";

fn too_long(tokens: usize) -> String {
    format!("a verification takes at most {MOST} tokens, not {tokens}")
}

pub(super) fn refused<T>(sentence: String) -> std::result::Result<T, Error> {
    Err(Error::Refused(sentence))
}

fn draft(proposals: Vec<crate::backend::Proposal>, took: Duration) -> Draft {
    let own = |one: crate::backend::Proposal| Proposal { token: one.token, probability: one.probability };
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

pub(super) fn nanoseconds(took: Duration) -> u64 {
    u64::try_from(took.as_nanos()).unwrap_or(u64::MAX)
}
