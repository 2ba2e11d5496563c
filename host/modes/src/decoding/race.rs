//! A race: several drafters propose at the same time, until enough drafts arrived.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tightwad_core::{BackendError, Proposal};
use tokio::time::{Instant, sleep_until};

use crate::decoding::drafter_slot::DraftResult;
use crate::decoding::job::Job;

/// The limits of a race. A race ends earlier if every drafter replied.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RaceLimits {
    /// The number of drafts after which the grace period begins.
    pub quorum: usize,
    /// The time that the other drafters get after the quorum.
    pub grace_period: Duration,
    /// The time after which the race ends with the drafts that arrived.
    pub timeout: Duration,
}

/// One drafter's draft.
pub(crate) struct RaceDraft {
    pub drafter: usize,
    pub proposals: Vec<Proposal>,
    pub elapsed: Duration,
}

/// Lets `drafters` propose after the output, all at the same time. Failed drafters, and drafters that still work on an
/// older draft, are left out. Returns the drafts in the order of their arrival.
pub(crate) async fn race(
    job: &mut Job,
    drafters: &[usize],
    max_tokens: u32,
    min_probability: f32,
    limits: RaceLimits,
) -> Vec<RaceDraft> {
    let mut racing = Vec::new();
    for index in drafters.iter().copied() {
        let Some(drafter) = job.drafters.get_mut(index) else { continue };
        // If the late draft of an earlier race has arrived since, the drafter is free again.
        let late = drafter.discard_late_draft();
        if !drafter.is_busy()
            && drafter.begin_draft(job.output.tokens().to_vec(), max_tokens, min_probability)
        {
            racing.push(index);
        }
        job.tally.count_unused(late);
    }
    let results = wait_for_drafts(job, &racing, limits).await;
    let mut drafts = Vec::new();
    for (index, result) in results {
        let Some(drafter) = job.drafters.get_mut(index) else { continue };
        if let Ok((proposals, elapsed)) = drafter.take_draft(result) {
            drafter.record_race(Some((&proposals, elapsed)));
            job.tally.count_unused(proposals.len());
            drafts.push(RaceDraft { drafter: index, proposals, elapsed });
        }
    }
    for index in racing.iter().filter(|index| !drafts.iter().any(|draft| draft.drafter == **index)) {
        job.drafters[*index].record_race(None);
    }
    drafts
}

/// Waits until the race ends. Returns the results in the order of their arrival.
async fn wait_for_drafts(job: &mut Job, racing: &[usize], limits: RaceLimits) -> Vec<(usize, DraftResult)> {
    let start = Instant::now();
    let mut deadline = start + limits.timeout;
    let drafters = job.drafters.iter_mut().enumerate().filter(|(index, _)| racing.contains(index));
    let mut running: FuturesUnordered<_> =
        drafters.map(|(index, drafter)| async move { (index, drafter.end_draft().await) }).collect();
    let mut results = Vec::new();
    loop {
        if results.len() == limits.quorum.min(racing.len()) {
            deadline = deadline.min(Instant::now() + limits.grace_period);
        }
        tokio::select! {
            biased;
            ended = running.next() => match ended {
                Some((index, Some(result))) => results.push((index, result)),
                Some((_, None)) => {}
                None => return results,
            },
            () = sleep_until(deadline) => return results,
            () = job.output.client_disconnected() => {
                job.failure = Some(BackendError::Cancelled);
                return results;
            }
        }
    }
}
