//! A drafter's place in a job.
//!
//! Invariant: its session is here, away with a proposal under way, or gone for good because it broke or could
//! not be opened. Places are those of the script's list, whoever is there.

use std::time::{Duration, Instant};

use tightwad_core::{BackendError, Drafter, Expected, Processor, Proposal, TokenId};
use tokio::task::{JoinError, JoinSet};

/// A session that comes back, what it brought, and how long that took.
type Drafting = (Box<dyn Drafter>, Result<Vec<Proposal>, BackendError>, Duration);

/// The end of a proposal under way.
pub(crate) type Drafted = Result<Drafting, JoinError>;

/// How a drafter did in races.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Raced {
    /// Races that it answered in time.
    pub answers: u64,
    /// Races that it was too late for, or broke in.
    pub misses: u64,
    /// Answers whose first token was committed.
    pub wins: u64,
    /// Time of its answers.
    pub took: Duration,
}

impl Raced {
    /// Adds the figures of other races.
    pub fn add(&mut self, other: &Self) {
        self.answers += other.answers;
        self.misses += other.misses;
        self.wins += other.wins;
        self.took += other.took;
    }
}

pub(crate) struct Seat {
    pub name: String,
    /// It could not be opened for this request.
    pub absent: bool,
    pub shares_processor: bool,
    pub expected: Expected,
    session: Option<Box<dyn Drafter>>,
    pub raced: Raced,
    /// What is under way was too late for a race: nobody waits for it.
    late: bool,
    /// The first token of the last answer, until something is committed.
    said: Option<TokenId>,
    drafting: JoinSet<Drafting>,
}

impl Seat {
    /// The place of the drafter `name`, where it could be opened.
    pub(crate) fn new(name: String, drafter: Option<Box<dyn Drafter>>, target: &Processor) -> Self {
        let open = drafter.as_deref();
        Self {
            name,
            absent: drafter.is_none(),
            shares_processor: open.is_none_or(|drafter| drafter.processor().is_shared_with(target)),
            expected: open.map(|drafter| drafter.expected()).unwrap_or_default(),
            session: drafter,
            raced: Raced::default(),
            late: false,
            said: None,
            drafting: JoinSet::new(),
        }
    }

    /// True while a proposal is under way.
    pub(crate) fn is_busy(&self) -> bool {
        !self.drafting.is_empty()
    }

    /// Begins a proposal after `output`; false where the drafter is away or broke.
    pub(crate) fn begin(&mut self, output: Vec<TokenId>, max: u32, min_probability: f32) -> bool {
        let Some(mut session) = self.session.take() else { return false };
        self.drafting.spawn(async move {
            let start = Instant::now();
            let proposals = session.propose(&output, max, min_probability).await;
            (session, proposals, start.elapsed())
        });
        true
    }

    /// Waits for the proposal under way; `None` when there is none.
    pub(crate) async fn end(&mut self) -> Option<Drafted> {
        self.drafting.join_next().await
    }

    /// Drops what came too late; how many proposals that were.
    pub(crate) fn drop_late(&mut self) -> usize {
        if !self.late {
            return 0;
        }
        let late = self.drafting.try_join_next().and_then(|outcome| self.take(outcome).ok());
        late.map_or(0, |(proposals, _)| proposals.len())
    }

    /// Notes what came of a race.
    pub(crate) fn note(&mut self, answer: Option<(&[Proposal], Duration)>) {
        match answer {
            Some((proposals, took)) => {
                self.said = proposals.first().map(|proposal| proposal.token);
                self.raced.answers += 1;
                self.raced.took += took;
            }
            None => {
                self.raced.misses += 1;
                self.late = true;
            }
        }
    }

    /// Compares the last answer with what was committed.
    pub(crate) fn score(&mut self, committed: &[TokenId]) {
        if let (Some(said), Some(token)) = (self.said, committed.first()) {
            self.raced.wins += u64::from(said == *token);
            self.said = None;
        }
    }

    /// Takes what a proposal brought. A drafter that broke does not come back.
    pub(crate) fn take(&mut self, outcome: Drafted) -> Result<(Vec<Proposal>, Duration), BackendError> {
        self.late = false;
        match outcome {
            Ok((session, Ok(proposals), took)) => {
                self.session = Some(session);
                Ok((proposals, took))
            }
            Ok((_, Err(error), _)) => {
                tracing::warn!(drafter = self.name, %error, "the drafter failed and is left out");
                Err(error)
            }
            Err(error) => Err(BackendError::failed(&self.name, error)),
        }
    }
}
