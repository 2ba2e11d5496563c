//! A drafter of a job.
//!
//! Invariant: the drafter's session is idle in the slot, in use by a draft in progress, or gone. The session is gone
//! if the drafter failed or did not open. Slots have the order of the script's list, and unavailable drafters keep
//! their slots.

use std::time::{Duration, Instant};

use tightwad_core::{BackendError, Device, DraftCost, Drafter, Proposal, TokenId};
use tokio::task::{JoinError, JoinSet};

/// The session, the result and the duration of a draft.
type FinishedDraft = (Box<dyn Drafter>, Result<Vec<Proposal>, BackendError>, Duration);

/// The end of a draft's task.
pub(crate) type DraftResult = Result<FinishedDraft, JoinError>;

/// The results of a drafter in races.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RaceStats {
    /// Drafts that arrived in time.
    pub drafts: u64,
    /// Races without a draft in time: the drafter was too late or failed.
    pub misses: u64,
    /// Drafts whose first token was committed.
    pub wins: u64,
    /// The duration of all drafts that arrived in time.
    pub draft_time: Duration,
}

impl RaceStats {
    /// Adds the results of other races.
    pub fn add(&mut self, other: &Self) {
        self.drafts += other.drafts;
        self.misses += other.misses;
        self.wins += other.wins;
        self.draft_time += other.draft_time;
    }
}

pub(crate) struct DrafterSlot {
    pub name: String,
    /// True if the drafter did not open for this request.
    pub unavailable: bool,
    pub shares_processor: bool,
    pub draft_cost: DraftCost,
    session: Option<Box<dyn Drafter>>,
    pub races: RaceStats,
    /// True after a miss in a race. No call waits for a draft that is still in progress.
    is_late: bool,
    /// The first token of the last draft, until the next commit.
    last_first_token: Option<TokenId>,
    drafting: JoinSet<FinishedDraft>,
}

impl DrafterSlot {
    /// The slot of the drafter `name`. `drafter` is `None` if it did not open.
    pub(crate) fn new(name: String, drafter: Option<Box<dyn Drafter>>, target: &Device) -> Self {
        let open = drafter.as_deref();
        Self {
            name,
            unavailable: drafter.is_none(),
            shares_processor: open.is_none_or(|drafter| drafter.device().is_shared_with(target)),
            draft_cost: open.map(|drafter| drafter.expected_cost()).unwrap_or_default(),
            session: drafter,
            races: RaceStats::default(),
            is_late: false,
            last_first_token: None,
            drafting: JoinSet::new(),
        }
    }

    /// True while a draft is in progress.
    pub(crate) fn is_busy(&self) -> bool {
        !self.drafting.is_empty()
    }

    /// Starts a draft after `output`. Returns false if the session is in use or gone.
    pub(crate) fn begin_draft(
        &mut self,
        output: Vec<TokenId>,
        max_tokens: u32,
        min_probability: f32,
    ) -> bool {
        let Some(mut session) = self.session.take() else { return false };
        self.drafting.spawn(async move {
            let start = Instant::now();
            let proposals = session.propose(&output, max_tokens, min_probability).await;
            (session, proposals, start.elapsed())
        });
        true
    }

    /// Waits for the draft in progress. `None` if there is none.
    pub(crate) async fn end_draft(&mut self) -> Option<DraftResult> {
        self.drafting.join_next().await
    }

    /// Discards a draft that was too late for its race and has arrived since. Returns the number of its proposals.
    pub(crate) fn discard_late_draft(&mut self) -> usize {
        if !self.is_late {
            return 0;
        }
        let late = self.drafting.try_join_next().and_then(|result| self.take_draft(result).ok());
        late.map_or(0, |(proposals, _)| proposals.len())
    }

    /// Records the result of a race. `None` is a miss.
    pub(crate) fn record_race(&mut self, draft: Option<(&[Proposal], Duration)>) {
        match draft {
            Some((proposals, elapsed)) => {
                self.last_first_token = proposals.first().map(|proposal| proposal.token);
                self.races.drafts += 1;
                self.races.draft_time += elapsed;
            }
            None => {
                self.races.misses += 1;
                self.is_late = true;
            }
        }
    }

    /// Counts a win if the first committed token is the last draft's first token.
    pub(crate) fn record_commit(&mut self, committed: &[TokenId]) {
        if let (Some(first), Some(token)) = (self.last_first_token, committed.first()) {
            self.races.wins += u64::from(first == *token);
            self.last_first_token = None;
        }
    }

    /// Takes the session back and returns the proposals with their time. The session of a failed drafter is dropped.
    pub(crate) fn take_draft(
        &mut self,
        result: DraftResult,
    ) -> Result<(Vec<Proposal>, Duration), BackendError> {
        self.is_late = false;
        match result {
            Ok((session, Ok(proposals), elapsed)) => {
                self.session = Some(session);
                Ok((proposals, elapsed))
            }
            Ok((_, Err(error), _)) => {
                tracing::warn!(drafter = self.name, %error, "the drafter failed; the request continues without it");
                Err(error)
            }
            Err(error) => Err(BackendError::failed(&self.name, error)),
        }
    }
}
