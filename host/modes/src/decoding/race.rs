//! Several drafters at once: a race that ends when enough have answered.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tightwad_core::{BackendError, Proposal};
use tokio::time::{Instant, sleep_until};

use crate::decoding::job::Job;
use crate::decoding::seat::Drafted;

/// How long a race goes on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RaceEnd {
    /// So many answers are enough, ...
    pub quorum: usize,
    /// ... but the others have so much more time.
    pub grace: Duration,
    /// After so long it is over whatever came.
    pub longest: Duration,
}

/// What one drafter brought.
pub(crate) struct Answer {
    pub drafter: usize,
    pub proposals: Vec<Proposal>,
    pub took: Duration,
}

/// Lets `drafters` propose after the output, all at once. Who is still busy with an older question is
/// left out, and so is who broke.
pub(crate) async fn race(
    job: &mut Job,
    drafters: &[usize],
    max: u32,
    min_probability: f32,
    end: RaceEnd,
) -> Vec<Answer> {
    let mut asked = Vec::new();
    for drafter in drafters.iter().copied() {
        let Some(seat) = job.seats.get_mut(drafter) else { continue };
        // What came too late for an earlier race frees its drafter for this one.
        let late = seat.drop_late();
        if !seat.is_busy() && seat.begin(job.output.tokens().to_vec(), max, min_probability) {
            asked.push(drafter);
        }
        job.tally.waste(late);
    }
    let outcomes = run_race(job, &asked, end).await;
    let mut answers = Vec::new();
    for (drafter, outcome) in outcomes {
        let Some(seat) = job.seats.get_mut(drafter) else { continue };
        if let Ok((proposals, took)) = seat.take(outcome) {
            seat.note(Some((&proposals, took)));
            job.tally.waste(proposals.len());
            answers.push(Answer { drafter, proposals, took });
        }
    }
    for drafter in asked.iter().filter(|asked| !answers.iter().any(|answer| answer.drafter == **asked)) {
        job.seats[*drafter].note(None);
    }
    answers
}

/// What came, in the order of its coming.
async fn run_race(job: &mut Job, asked: &[usize], end: RaceEnd) -> Vec<(usize, Drafted)> {
    let start = Instant::now();
    let mut deadline = start + end.longest;
    let seats = job.seats.iter_mut().enumerate().filter(|(index, _)| asked.contains(index));
    let mut running: FuturesUnordered<_> =
        seats.map(|(index, seat)| async move { (index, seat.end().await) }).collect();
    let mut outcomes = Vec::new();
    loop {
        if outcomes.len() == end.quorum.min(asked.len()) {
            deadline = deadline.min(Instant::now() + end.grace);
        }
        tokio::select! {
            biased;
            one = running.next() => match one {
                Some((index, Some(outcome))) => outcomes.push((index, outcome)),
                Some((_, None)) => {}
                None => return outcomes,
            },
            () = sleep_until(deadline) => return outcomes,
            () = job.output.abandoned() => {
                job.failure = Some(BackendError::Cancelled);
                return outcomes;
            }
        }
    }
}
