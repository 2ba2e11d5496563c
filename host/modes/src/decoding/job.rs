//! One request as a mode drives it: its target, its drafters and what was committed.
//!
//! Invariant: every token the target commits goes to the output, in order, whether or not the
//! component waits for it; the target is here or in the verification under way.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tightwad_core::{
    BackendError, Clock, Draft, Drafter, Output, Pass, Proposal, Target, TokenId, Verified, sync,
};
use tokio::task::JoinSet;

use crate::consensus::skipping::Skipping;
use crate::decoding::seat::{Raced, Seat};

#[cfg(test)]
mod tests;

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
    /// Tokens committed without the target.
    pub unverified: u32,
    /// Times that tokens were.
    pub skips: u32,
    /// Continuations that were verified.
    pub paths: u32,
    /// Stretches of plain decoding.
    pub decodes: u32,
}

impl Tally {
    /// Notes proposals that nobody has looked at yet.
    pub(crate) fn waste(&mut self, proposals: usize) {
        self.wasted += u32::try_from(proposals).unwrap_or(u32::MAX);
    }
}

/// Tokens that were committed without the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// The rule that was at work.
    pub rule: String,
    /// Tokens of the output before them.
    pub at: usize,
    /// The tokens.
    pub tokens: Vec<TokenId>,
}

/// What is left of a job when everything under way is settled.
pub struct Settled {
    /// The target, unless it is lost.
    pub target: Option<Box<dyn Target>>,
    /// What was streamed.
    pub output: Output,
    /// What happened.
    pub tally: Tally,
    /// The failure of the target, the client's leaving, or a policy's failure that the script wants to be one.
    pub failure: Option<BackendError>,
    /// What is to be audited.
    pub audits: Vec<Skipped>,
    /// How every drafter did in races, in their order.
    pub raced: Vec<(String, Raced)>,
}

/// What a commit brought.
#[derive(Debug, Clone, Default)]
pub(crate) struct Committed {
    pub tokens: Vec<TokenId>,
    pub accepted: u32,
    /// Rows of the pass; 0: unknown.
    pub rows: u32,
    pub finished: bool,
    /// What the request is charged for it: the time that it took, or another where other requests shared its passes.
    pub took: Duration,
}

type Verification = (Box<dyn Target>, Result<Verified, BackendError>, Duration);
/// A request in the hands of a mode.
pub struct Job {
    target: Option<Box<dyn Target>>,
    expected: Pass,
    /// Aborted when the job is dropped, which frees the target's sequence at once.
    verifying: JoinSet<Verification>,
    /// Proposals that it looks at.
    verifying_nodes: usize,
    pub(crate) seats: Vec<Seat>,
    pub(crate) output: Output,
    settings: String,
    memory: Arc<Mutex<String>>,
    pub(crate) tally: Tally,
    pub(crate) failure: Option<BackendError>,
    audits: Vec<Skipped>,
    pub(crate) skipping: Option<Skipping>,
    clock: Clock,
}

impl Job {
    /// A job on an open target, with drafters in the script's order, by name, those that could not be opened
    /// among them; `settings` is a JSON object, `memory` what the mode left for itself.
    #[must_use]
    pub fn new(
        target: Box<dyn Target>,
        drafters: Vec<(String, Option<Box<dyn Drafter>>)>,
        output: Output,
        settings: String,
        memory: Arc<Mutex<String>>,
    ) -> Self {
        let processor = target.processor();
        Self {
            expected: target.expected(),
            target: Some(target),
            verifying: JoinSet::new(),
            verifying_nodes: 0,
            seats: drafters.into_iter().map(|(name, open)| Seat::new(name, open, &processor)).collect(),
            output,
            settings,
            memory,
            tally: Tally::default(),
            failure: None,
            audits: Vec::new(),
            skipping: None,
            clock: Clock::default(),
        }
    }

    /// Takes the time from `clock`.
    #[cfg(test)]
    #[must_use]
    pub(crate) fn timed_by(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }

    /// Lets an approximate mode skip verifications.
    #[must_use]
    pub fn skipping(mut self, skipping: Skipping) -> Self {
        self.skipping = Some(skipping);
        self
    }

    /// Settles what is under way and gives everything back.
    pub async fn settle(mut self) -> Settled {
        if !self.verifying.is_empty() {
            // Failures are kept in `failure`.
            let _ = self.end_verify().await;
        }
        let Self { target, output, tally, failure, audits, seats, .. } = self;
        let raced = seats.into_iter().map(|seat| (seat.name, seat.raced)).collect();
        Settled { target, output, tally, failure, audits, raced }
    }

    pub(crate) fn settings(&self) -> &str {
        &self.settings
    }

    pub(crate) fn remaining(&self) -> u32 {
        self.output.remaining()
    }

    pub(crate) fn expected(&self) -> Pass {
        self.expected
    }

    pub(crate) fn seats(&self) -> &[Seat] {
        &self.seats
    }

    pub(crate) fn memory(&self) -> String {
        sync::lock(&self.memory).clone()
    }

    pub(crate) fn remember(&self, note: String) {
        *sync::lock(&self.memory) = note;
    }

    /// True when nothing more can be committed.
    pub(crate) fn is_over(&self) -> bool {
        self.failure.is_some() || self.output.is_over()
    }

    /// Begins a verification; false when one is under way.
    pub(crate) fn begin_verify(&mut self, mut draft: Draft) -> bool {
        draft.truncate(self.remaining().saturating_sub(1) as usize);
        let Some(mut target) = self.target.take() else { return false };
        self.verifying_nodes = draft.nodes();
        self.tally.paths += u32::try_from(draft.paths().len()).unwrap_or(u32::MAX);
        let clock = self.clock.clone();
        self.verifying.spawn(async move {
            let start = clock.now();
            let verified = target.verify(&draft).await;
            (target, verified, clock.since(start))
        });
        true
    }

    /// Waits for the verification under way and commits what it brought; `None` when there is none.
    pub(crate) async fn end_verify(&mut self) -> Option<Committed> {
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
                // Nothing to verify: one token is decoded.
                self.tally.decodes += u32::from(self.verifying_nodes == 0);
                Some(self.commit(verified, took, self.verifying_nodes).await)
            }
            Err(error) => Some(self.fail(BackendError::failed("the target", error))),
        }
    }

    /// Verifies and waits; `None` when a verification is under way.
    pub(crate) async fn verify(&mut self, draft: Draft) -> Option<Committed> {
        if self.begin_verify(draft) { self.end_verify().await } else { None }
    }

    /// Decodes up to `max` tokens; `None` when a verification is under way.
    pub(crate) async fn decode(&mut self, max: u32) -> Option<Committed> {
        let max = max.min(self.remaining());
        self.tally.decodes += 1;
        let start = self.clock.now();
        // The steps together: what the owner of the passes measured.
        let (mut all, mut steps) = (Committed::default(), Verified::default());
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
            if let Ok(step) = &step {
                steps.took += step.took;
                steps.cost += step.cost;
            }
            let one = self.commit(step, Duration::ZERO, 0).await;
            all.tokens.extend(one.tokens);
            all.finished |= one.finished;
        }
        all.took = steps.charged(self.clock.since(start));
        Some(all)
    }

    /// Begins a proposal after the output and `ahead`.
    pub(crate) fn begin_propose(
        &mut self,
        drafter: usize,
        ahead: &[TokenId],
        max: u32,
        min_probability: f32,
    ) -> Begun {
        let Some(seat) = self.seats.get_mut(drafter) else { return Begun::Unknown };
        // What came too late for a race frees its drafter.
        self.tally.waste(seat.drop_late());
        if seat.is_busy() {
            return Begun::Busy;
        }
        // A broken drafter has nothing to say.
        seat.begin([self.output.tokens(), ahead].concat(), max, min_probability);
        Begun::Yes
    }

    /// Waits for the proposal of `drafter`; a broken drafter brings an error once, then nothing.
    pub(crate) async fn end_propose(
        &mut self,
        drafter: usize,
    ) -> Result<(Vec<Proposal>, Duration), BackendError> {
        let Some(seat) = self.seats.get_mut(drafter) else { return Ok((Vec::new(), Duration::ZERO)) };
        match seat.end().await {
            None => Ok((Vec::new(), Duration::ZERO)),
            Some(outcome) => {
                let (proposals, took) = seat.take(outcome)?;
                self.tally.waste(proposals.len());
                Ok((proposals, took))
            }
        }
    }

    /// Commits `tokens` without the target; how many, and whether that ended the output. `None` when a
    /// verification is under way.
    pub(crate) async fn accept(&mut self, tokens: &[TokenId], audit: bool) -> Option<(u32, bool)> {
        let most = tokens.len().min(self.remaining() as usize);
        let target = self.target.as_mut()?;
        let may = self.skipping.as_ref().is_some_and(|skipping| skipping.allowed);
        let accepted = if may { target.accept(&tokens[..most]).await } else { Ok(0) };
        let accepted = match accepted {
            Ok(accepted) => &tokens[..accepted],
            Err(error) => return Some((0, self.fail(error).finished)),
        };
        let at = self.output.tokens().len();
        let committed =
            accepted.iter().map(|token| tightwad_core::Committed { token: *token, logprobs: None });
        let committed = Verified { committed: committed.collect(), ..Verified::default() };
        if let Err(error) = self.output.commit(&committed, &**target).await {
            self.failure = Some(error);
        }
        // A stop string among them leaves the rest out.
        let count = u32::try_from(self.output.tokens().len() - at).unwrap_or(u32::MAX);
        self.tally.unverified += count;
        self.tally.skips += u32::from(count > 0);
        self.score(at);
        self.tally.wasted = self.tally.wasted.saturating_sub(count);
        if audit && count > 0 {
            let rule = self.skipping.as_ref().map(|skipping| skipping.own_rule.clone()).unwrap_or_default();
            self.audits.push(Skipped { rule, at, tokens: accepted[..count as usize].to_vec() });
        }
        Some((count, self.is_over()))
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
        self.score(before);
        Committed {
            tokens: self.output.tokens()[before..].to_vec(),
            accepted: verified.accepted,
            rows: verified.rows,
            finished: self.is_over(),
            took: verified.charged(took),
        }
    }

    /// Notes whose ballots said what was committed from `at` on.
    fn score(&mut self, at: usize) {
        let committed = &self.output.tokens()[at..];
        self.seats.iter_mut().for_each(|seat| seat.score(committed));
    }

    fn fail(&mut self, error: BackendError) -> Committed {
        self.failure = Some(error);
        Committed { finished: true, ..Committed::default() }
    }
}

/// Whether a proposal began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Begun {
    Yes,
    /// No such drafter.
    Unknown,
    /// One is under way.
    Busy,
}
