//! One request of a decoding mode: its target, its drafters and its committed tokens.
//!
//! Invariant: every token that the target commits goes to the output, in order, even if the component does not wait
//! for it. The target is in the job or in the verification in progress.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tightwad_core::{
    BackendError, Clock, CommittedToken, Draft, Drafter, Output, PassCost, Proposal, StepResult, Target,
    TokenId, sync,
};
use tokio::task::JoinSet;

use crate::consensus::grant::UnverifiedGrant;
use crate::decoding::drafter_slot::{DrafterSlot, RaceStats};
use crate::settings::Settings;

#[cfg(test)]
mod tests;

/// The counts of a job.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Verifications of at least one proposal.
    pub rounds: u32,
    /// Verified proposals.
    pub drafted: u32,
    /// Proposals that the target committed.
    pub accepted: u32,
    /// Proposals that were neither verified nor committed.
    pub wasted: u32,
    /// Positions that the one-token path decided again.
    pub ties: u32,
    /// Tokens committed without the target.
    pub unverified: u32,
    /// Calls that committed tokens without the target.
    pub skips: u32,
    /// Paths of all verifications.
    pub paths: u32,
    /// Calls of plain decoding.
    pub decodes: u32,
}

impl Tally {
    /// Counts new proposals as wasted, until they are verified or committed.
    pub(crate) fn count_unused(&mut self, proposals: usize) {
        self.wasted += u32::try_from(proposals).unwrap_or(u32::MAX);
    }
}

/// Tokens that one call committed without the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnverifiedSpan {
    /// The rule that accepted the tokens.
    pub rule: String,
    /// The number of output tokens before the span.
    pub start: usize,
    /// The tokens.
    pub tokens: Vec<TokenId>,
}

/// The result of a job. No draft or verification is in progress anymore.
pub struct JobResult {
    /// The target, unless it is lost.
    pub target: Option<Box<dyn Target>>,
    /// The output with all committed tokens.
    pub output: Output,
    /// The job's counts.
    pub tally: Tally,
    /// The failure of the target, or of the policy if its failure must fail the request. [`BackendError::Cancelled`]
    /// if the client disconnected.
    pub failure: Option<BackendError>,
    /// The spans to audit.
    pub audit_spans: Vec<UnverifiedSpan>,
    /// The results of each drafter in races, in the script's order.
    pub races: Vec<(String, RaceStats)>,
}

/// The result of a verification or a decode.
#[derive(Debug, Clone, Default)]
pub(crate) struct CommitReport {
    pub tokens: Vec<TokenId>,
    pub accepted: u32,
    /// The rows of the pass. 0: unknown.
    pub rows: u32,
    pub finished: bool,
    /// The round trip and the attributed cost of the request.
    pub cost: Duration,
}

/// The end of a verification: the target, the result and the elapsed time.
type Verification = (Box<dyn Target>, Result<StepResult, BackendError>, Duration);

/// A request that a driver drives.
pub struct Job {
    target: Option<Box<dyn Target>>,
    pass_cost: PassCost,
    /// Dropping the job aborts the verification, which frees the target's sequence immediately.
    verifying: JoinSet<Verification>,
    /// The number of proposals in the verification.
    verifying_proposals: usize,
    pub(crate) drafters: Vec<DrafterSlot>,
    pub(crate) output: Output,
    settings: Settings,
    /// The state that the driver saved last, shared with the other requests of the mode.
    driver_state: Arc<Mutex<Vec<u8>>>,
    pub(crate) tally: Tally,
    pub(crate) failure: Option<BackendError>,
    audit_spans: Vec<UnverifiedSpan>,
    pub(crate) grant: Option<UnverifiedGrant>,
    clock: Clock,
}

impl Job {
    /// A job on an open target. `drafters` has the script's order and names; `None` is a drafter that did not open.
    /// `driver_state` is the state that the driver saved last.
    #[must_use]
    pub fn new(
        target: Box<dyn Target>,
        drafters: Vec<(String, Option<Box<dyn Drafter>>)>,
        output: Output,
        settings: Settings,
        driver_state: Arc<Mutex<Vec<u8>>>,
    ) -> Self {
        let device = target.device();
        let slot = |(name, drafter)| DrafterSlot::new(name, drafter, &device);
        Self {
            pass_cost: target.expected_cost(),
            target: Some(target),
            verifying: JoinSet::new(),
            verifying_proposals: 0,
            drafters: drafters.into_iter().map(slot).collect(),
            output,
            settings,
            driver_state,
            tally: Tally::default(),
            failure: None,
            audit_spans: Vec::new(),
            grant: None,
            clock: Clock::default(),
        }
    }

    /// Measures time with `clock`.
    #[cfg(test)]
    #[must_use]
    pub(crate) fn with_clock(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }

    /// Lets the driver commit tokens without the target.
    #[must_use]
    pub fn with_grant(mut self, grant: UnverifiedGrant) -> Self {
        self.grant = Some(grant);
        self
    }

    /// Waits for the verification in progress, and returns the parts of the job.
    pub async fn finish(mut self) -> JobResult {
        if !self.verifying.is_empty() {
            // `failure` holds the error, if any.
            let _ = self.end_verify().await;
        }
        let Self { target, output, tally, failure, audit_spans, drafters, .. } = self;
        let races = drafters.into_iter().map(|drafter| (drafter.name, drafter.races)).collect();
        JobResult { target, output, tally, failure, audit_spans, races }
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(crate) fn remaining_tokens(&self) -> u32 {
        self.output.remaining_tokens()
    }

    pub(crate) fn pass_cost(&self) -> PassCost {
        self.pass_cost
    }

    pub(crate) fn drafters(&self) -> &[DrafterSlot] {
        &self.drafters
    }

    pub(crate) fn load_state(&self) -> Vec<u8> {
        sync::lock(&self.driver_state).clone()
    }

    pub(crate) fn save_state(&self, state: Vec<u8>) {
        *sync::lock(&self.driver_state) = state;
    }

    /// True if no token can be committed anymore.
    pub(crate) fn is_over(&self) -> bool {
        self.failure.is_some() || self.output.is_finished()
    }

    /// Starts a verification. Returns false if one is in progress.
    pub(crate) fn begin_verify(&mut self, mut draft: Draft) -> bool {
        draft.truncate(self.remaining_tokens().saturating_sub(1) as usize);
        let Some(mut target) = self.target.take() else { return false };
        self.verifying_proposals = draft.node_count();
        self.tally.paths += u32::try_from(draft.paths().len()).unwrap_or(u32::MAX);
        let clock = self.clock.clone();
        self.verifying.spawn(async move {
            let start = clock.now();
            let result = target.verify(&draft).await;
            (target, result, clock.since(start))
        });
        true
    }

    /// Waits for the verification in progress, and commits its tokens. `None` if there is none.
    pub(crate) async fn end_verify(&mut self) -> Option<CommitReport> {
        let verification = tokio::select! {
            verification = self.verifying.join_next() => verification?,
            () = self.output.client_disconnected() => {
                self.failure = Some(BackendError::Cancelled);
                return Some(CommitReport { finished: true, ..CommitReport::default() });
            }
        };
        match verification {
            Ok((target, result, elapsed)) => {
                self.target = Some(target);
                // A verification without proposals decodes one token.
                self.tally.decodes += u32::from(self.verifying_proposals == 0);
                Some(self.commit(result, elapsed, self.verifying_proposals).await)
            }
            Err(error) => Some(self.fail(BackendError::failed("the target", error))),
        }
    }

    /// Verifies a draft and waits for the commit. `None` if a verification is in progress.
    pub(crate) async fn verify(&mut self, draft: Draft) -> Option<CommitReport> {
        if self.begin_verify(draft) { self.end_verify().await } else { None }
    }

    /// Decodes up to `max_tokens` tokens. `None` if a verification is in progress.
    pub(crate) async fn decode(&mut self, max_tokens: u32) -> Option<CommitReport> {
        let max_tokens = max_tokens.min(self.remaining_tokens());
        self.tally.decodes += 1;
        let start = self.clock.now();
        // `measured` adds up the times that the machine of the passes measured.
        let (mut report, mut measured) = (CommitReport::default(), StepResult::default());
        if let Err(error) = self.target.as_mut()?.decode(max_tokens).await {
            return Some(self.fail(error));
        }
        while !report.finished {
            let Some(target) = &mut self.target else { break };
            let step = tokio::select! {
                step = target.step() => step,
                () = self.output.client_disconnected() => Err(BackendError::Cancelled),
            };
            let Some(step) = step.transpose() else { break };
            if let Ok(step) = &step {
                measured.elapsed += step.elapsed;
                measured.cost += step.cost;
            }
            let committed = self.commit(step, Duration::ZERO, 0).await;
            report.tokens.extend(committed.tokens);
            report.finished |= committed.finished;
        }
        report.cost = measured.charged_time(self.clock.since(start));
        Some(report)
    }

    /// Starts a draft after the output and `ahead`.
    pub(crate) fn begin_propose(
        &mut self,
        drafter: usize,
        ahead: &[TokenId],
        max_tokens: u32,
        min_probability: f32,
    ) -> Result<(), BeginError> {
        let drafter = self.drafters.get_mut(drafter).ok_or(BeginError::UnknownDrafter)?;
        // If the late draft of a race has arrived since, the drafter is free again.
        self.tally.count_unused(drafter.discard_late_draft());
        if drafter.is_busy() {
            return Err(BeginError::Busy);
        }
        // A failed drafter starts nothing: its draft is empty.
        drafter.begin_draft([self.output.tokens(), ahead].concat(), max_tokens, min_probability);
        Ok(())
    }

    /// Waits for the draft of `drafter`. A drafter that fails returns its error once, and empty drafts afterwards.
    pub(crate) async fn end_propose(
        &mut self,
        drafter: usize,
    ) -> Result<(Vec<Proposal>, Duration), BackendError> {
        let Some(drafter) = self.drafters.get_mut(drafter) else { return Ok((Vec::new(), Duration::ZERO)) };
        match drafter.end_draft().await {
            None => Ok((Vec::new(), Duration::ZERO)),
            Some(result) => {
                let (proposals, elapsed) = drafter.take_draft(result)?;
                self.tally.count_unused(proposals.len());
                Ok((proposals, elapsed))
            }
        }
    }

    /// Commits `tokens` without the target. Returns the number of committed tokens, and true if the job is over.
    /// `None` if a verification is in progress.
    pub(crate) async fn accept_unverified(&mut self, tokens: &[TokenId], audit: bool) -> Option<(u32, bool)> {
        let max_tokens = tokens.len().min(self.remaining_tokens() as usize);
        let target = self.target.as_mut()?;
        let allowed = self.grant.as_ref().is_some_and(|grant| grant.allowed);
        let accepted = if allowed { target.append_unverified(&tokens[..max_tokens]).await } else { Ok(0) };
        let accepted = match accepted {
            Ok(accepted) => &tokens[..accepted],
            Err(error) => return Some((0, self.fail(error).finished)),
        };
        let start = self.output.tokens().len();
        let committed = accepted.iter().map(|token| CommittedToken { token: *token, logprobs: None });
        let step = StepResult { committed: committed.collect(), ..StepResult::default() };
        if let Err(error) = self.output.commit(&step, &**target).await {
            self.failure = Some(error);
        }
        // The output leaves out tokens after a stop string.
        let count = u32::try_from(self.output.tokens().len() - start).unwrap_or(u32::MAX);
        self.tally.unverified += count;
        self.tally.skips += u32::from(count > 0);
        self.record_winners(start);
        self.tally.wasted = self.tally.wasted.saturating_sub(count);
        if audit && count > 0 {
            let rule = self.grant.as_ref().map(|grant| grant.request_rule.clone()).unwrap_or_default();
            let tokens = accepted[..count as usize].to_vec();
            self.audit_spans.push(UnverifiedSpan { rule, start, tokens });
        }
        Some((count, self.is_over()))
    }

    async fn commit(
        &mut self,
        result: Result<StepResult, BackendError>,
        elapsed: Duration,
        proposals: usize,
    ) -> CommitReport {
        let step = match result {
            Ok(step) => step,
            Err(error) => return self.fail(error),
        };
        if proposals > 0 {
            self.tally.rounds += 1;
            let drafted = u32::try_from(proposals).unwrap_or(u32::MAX);
            self.tally.drafted = self.tally.drafted.saturating_add(drafted);
            self.tally.wasted = self.tally.wasted.saturating_sub(drafted);
            self.tally.accepted = self.tally.accepted.saturating_add(step.accepted);
        }
        self.tally.ties = self.tally.ties.saturating_add(step.ties);
        let start = self.output.tokens().len();
        if let Some(target) = &self.target
            && let Err(error) = self.output.commit(&step, target.as_ref()).await
        {
            self.failure = Some(error);
        }
        self.record_winners(start);
        CommitReport {
            tokens: self.output.tokens()[start..].to_vec(),
            accepted: step.accepted,
            rows: step.rows,
            finished: self.is_over(),
            cost: step.charged_time(elapsed),
        }
    }

    /// Compares each drafter's last draft with the tokens committed from `start` on.
    fn record_winners(&mut self, start: usize) {
        let committed = &self.output.tokens()[start..];
        self.drafters.iter_mut().for_each(|drafter| drafter.record_commit(committed));
    }

    fn fail(&mut self, error: BackendError) -> CommitReport {
        self.failure = Some(error);
        CommitReport { finished: true, ..CommitReport::default() }
    }
}

/// The reason why a draft did not start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BeginError {
    /// The script has no such drafter.
    UnknownDrafter,
    /// The drafter still works on another draft.
    Busy,
}
