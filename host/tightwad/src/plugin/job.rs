//! One request as a mode drives it: its target, its drafters and what was committed.
//!
//! Invariant: every token the target commits goes to the output, in order, whether or not the
//! component waits for it; the target is here or in the verification under way.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tightwad_engine::{Draft, TokenId};
use tokio::task::JoinSet;

use crate::backend::{BackendError, Drafter, Expected, Output, Pass, Proposal, Target, Verified};

/// What happened while a job ran.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Verifications of at least one proposal.
    pub rounds: u32,
    /// Proposals verified.
    pub drafted: u32,
    /// Proposals that the target committed.
    pub accepted: u32,
    /// Proposals that were never verified.
    pub wasted: u32,
    /// Positions decided again by the one-token path.
    pub ties: u32,
}

/// What a commit brought.
#[derive(Debug, Clone, Default)]
pub(super) struct Committed {
    pub tokens: Vec<TokenId>,
    pub accepted: u32,
    pub finished: bool,
    pub took: Duration,
}

type Verification = (Box<dyn Target>, Result<Verified, BackendError>, Duration);
type Drafting = (Box<dyn Drafter>, Result<Vec<Proposal>, BackendError>, Duration);

struct Seat {
    name: String,
    shares_processor: bool,
    expected: Expected,
    /// Away while it drafts; gone for good when it broke.
    session: Option<Box<dyn Drafter>>,
    drafting: JoinSet<Drafting>,
}

/// A request in the hands of a mode.
pub struct Job {
    target: Option<Box<dyn Target>>,
    expected: Pass,
    /// Aborted when the job is dropped, which frees the target's sequence at once.
    verifying: JoinSet<Verification>,
    verifying_length: usize,
    seats: Vec<Seat>,
    output: Output,
    settings: String,
    memory: Arc<Mutex<String>>,
    tally: Tally,
    failure: Option<BackendError>,
}

impl Job {
    /// A job on an open target, with drafters in the script's order; `settings` is a JSON object,
    /// `memory` what the mode left for itself.
    #[must_use]
    pub fn new(
        target: Box<dyn Target>,
        drafters: Vec<Box<dyn Drafter>>,
        output: Output,
        settings: String,
        memory: Arc<Mutex<String>>,
    ) -> Self {
        let processor = target.processor();
        let seat = |drafter: Box<dyn Drafter>| Seat {
            name: drafter.name().to_owned(),
            shares_processor: drafter.processor().is_shared_with(&processor),
            expected: drafter.expected(),
            session: Some(drafter),
            drafting: JoinSet::new(),
        };
        Self {
            expected: target.expected(),
            target: Some(target),
            verifying: JoinSet::new(),
            verifying_length: 0,
            seats: drafters.into_iter().map(seat).collect(),
            output,
            settings,
            memory,
            tally: Tally::default(),
            failure: None,
        }
    }

    /// Settles what is under way and gives everything back: the target (unless it is lost), the
    /// output, the tally, and the failure of the target or the client's leaving.
    pub async fn settle(mut self) -> (Option<Box<dyn Target>>, Output, Tally, Option<BackendError>) {
        if !self.verifying.is_empty() {
            // Failures are kept in `failure`.
            let _ = self.end_verify().await;
        }
        (self.target, self.output, self.tally, self.failure)
    }

    pub(super) fn settings(&self) -> &str {
        &self.settings
    }

    pub(super) fn remaining(&self) -> u32 {
        self.output.remaining()
    }

    pub(super) fn expected(&self) -> Pass {
        self.expected
    }

    pub(super) fn drafters(&self) -> impl Iterator<Item = (&str, bool, Expected)> {
        self.seats.iter().map(|seat| (seat.name.as_str(), seat.shares_processor, seat.expected))
    }

    pub(super) fn memory(&self) -> String {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn remember(&self, note: String) {
        *self.memory.lock().unwrap_or_else(PoisonError::into_inner) = note;
    }

    /// True when nothing more can be committed.
    pub(super) fn is_over(&self) -> bool {
        self.failure.is_some() || self.output.is_over()
    }

    /// Begins a verification; false when one is under way.
    pub(super) fn begin_verify(&mut self, draft: Vec<TokenId>) -> bool {
        let mut draft = Draft::from(draft);
        draft.truncate(self.remaining().saturating_sub(1) as usize);
        let Some(mut target) = self.target.take() else { return false };
        self.verifying_length = draft.depth();
        self.verifying.spawn(async move {
            let start = Instant::now();
            let verified = target.verify(&draft).await;
            (target, verified, start.elapsed())
        });
        true
    }

    /// Waits for the verification under way and commits what it brought; `None` when there is none.
    pub(super) async fn end_verify(&mut self) -> Option<Committed> {
        let outcome = tokio::select! {
            outcome = self.verifying.join_next() => outcome?,
            () = self.output.abandoned() => {
                self.failure = Some(BackendError::Cancelled);
                return Some(Committed { finished: true, ..Committed::default() });
            }
        };
        match outcome {
            Ok((target, verified, took)) => {
                self.target = Some(target);
                Some(self.commit(verified, took, self.verifying_length).await)
            }
            Err(error) => Some(self.fail(BackendError::failed("the target", error))),
        }
    }

    /// Verifies and waits; `None` when a verification is under way.
    pub(super) async fn verify(&mut self, draft: Vec<TokenId>) -> Option<Committed> {
        if self.begin_verify(draft) { self.end_verify().await } else { None }
    }

    /// Decodes up to `max` tokens; `None` when a verification is under way.
    pub(super) async fn decode(&mut self, max: u32) -> Option<Committed> {
        let max = max.min(self.remaining());
        let start = Instant::now();
        let mut all = Committed::default();
        if let Err(error) = self.target.as_mut()?.decode(max).await {
            return Some(self.fail(error));
        }
        while !all.finished {
            let Some(target) = &mut self.target else { break };
            let step = tokio::select! {
                step = target.step() => step,
                () = self.output.abandoned() => Err(BackendError::Cancelled),
            };
            let Some(step) = step.transpose() else { break };
            let one = self.commit(step, Duration::ZERO, 0).await;
            all.tokens.extend(one.tokens);
            all.finished |= one.finished;
        }
        all.took = start.elapsed();
        Some(all)
    }

    /// Begins a proposal after the output and `ahead`.
    pub(super) fn begin_propose(
        &mut self,
        drafter: usize,
        ahead: &[TokenId],
        max: u32,
        min_probability: f32,
    ) -> Begun {
        let Some(seat) = self.seats.get_mut(drafter) else { return Begun::Unknown };
        if !seat.drafting.is_empty() {
            return Begun::Busy;
        }
        // A broken drafter has nothing to say.
        let Some(mut session) = seat.session.take() else { return Begun::Yes };
        let output = [self.output.tokens(), ahead].concat();
        seat.drafting.spawn(async move {
            let start = Instant::now();
            let proposals = session.propose(&output, max, min_probability).await;
            (session, proposals, start.elapsed())
        });
        Begun::Yes
    }

    /// Waits for the proposal of `drafter`; a broken drafter brings an error once, then nothing.
    pub(super) async fn end_propose(
        &mut self,
        drafter: usize,
    ) -> Result<(Vec<Proposal>, Duration), BackendError> {
        let Some(seat) = self.seats.get_mut(drafter) else { return Ok((Vec::new(), Duration::ZERO)) };
        match seat.drafting.join_next().await {
            None => Ok((Vec::new(), Duration::ZERO)),
            Some(Ok((session, Ok(proposals), took))) => {
                seat.session = Some(session);
                self.tally.wasted += u32::try_from(proposals.len()).unwrap_or(u32::MAX);
                Ok((proposals, took))
            }
            Some(Ok((_, Err(error), _))) => {
                tracing::warn!(drafter = seat.name, %error, "the drafter failed and is left out");
                Err(error)
            }
            Some(Err(error)) => Err(BackendError::failed(&seat.name, error)),
        }
    }

    async fn commit(
        &mut self,
        verified: Result<Verified, BackendError>,
        took: Duration,
        drafted: usize,
    ) -> Committed {
        let verified = match verified {
            Ok(verified) => verified,
            Err(error) => return self.fail(error),
        };
        if drafted > 0 {
            self.tally.rounds += 1;
            let drafted = u32::try_from(drafted).unwrap_or(u32::MAX);
            self.tally.drafted += drafted;
            self.tally.wasted = self.tally.wasted.saturating_sub(drafted);
            self.tally.accepted += verified.accepted;
        }
        self.tally.ties += verified.ties;
        let before = self.output.tokens().len();
        if let Some(target) = &self.target
            && let Err(error) = self.output.commit(&verified, target.as_ref()).await
        {
            self.failure = Some(error);
        }
        Committed {
            tokens: self.output.tokens()[before..].to_vec(),
            accepted: verified.accepted,
            finished: self.is_over(),
            took,
        }
    }

    fn fail(&mut self, error: BackendError) -> Committed {
        self.failure = Some(error);
        Committed { finished: true, ..Committed::default() }
    }
}

/// Whether a proposal began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Begun {
    Yes,
    /// No such drafter.
    Unknown,
    /// One is under way.
    Busy,
}
