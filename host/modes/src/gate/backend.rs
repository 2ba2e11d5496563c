//! The quality gate: a fleet of cheap backends writes whole answers, and a reviewer approves, corrects or rejects
//! them. After a failure the reviewer answers itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use tightwad_core::{
    Backend, BackendError, GateReport, Generator, Health, Load, OnReviewerLost, Outcome, Request,
    ReviewMethods, SharedBackend, Sink,
};
use tightwad_sandbox::{Plugin, ReloadablePlugin};

use crate::gate::cache::ReviewCache;
use crate::gate::component::GateDriver;
use crate::gate::delivery;
use crate::gate::policy::GatePolicy;
use crate::gate::review::{FinalVerdict, MemberCounts, ReviewTally, ReviewTask, TaskSpec};
use crate::settings::Settings;

/// The totals of all requests, for metrics.
#[derive(Debug, Default)]
pub struct GateTotals {
    /// Candidates passed on unchanged.
    pub approved: AtomicU64,
    /// Candidates that the reviewer corrected.
    pub corrected: AtomicU64,
    /// Requests that the reviewer answered itself.
    pub rejected: AtomicU64,
    /// Candidates passed on without a review.
    pub unreviewed: AtomicU64,
    /// Tokens of all answers.
    pub tokens: AtomicU64,
    /// Tokens that the reviewer generated.
    pub reviewer_generated_tokens: AtomicU64,
    /// Tokens that the reviewer processed without generating them: prompts and candidates.
    pub reviewer_scored_tokens: AtomicU64,
    /// The time in which the fleet generated candidates, in milliseconds.
    pub generation_ms: AtomicU64,
    /// The time of reviews, in milliseconds.
    pub review_ms: AtomicU64,
    /// The time in which the reviewer corrected or answered, in milliseconds.
    pub completion_ms: AtomicU64,
    /// Requests that the reviewer answered because the driver failed.
    pub fallbacks: AtomicU64,
}

impl GateTotals {
    fn add(&self, tally: &ReviewTally, tokens: u32) {
        let verdict = match tally.verdict {
            Some(FinalVerdict::Approved) => &self.approved,
            Some(FinalVerdict::Corrected) => &self.corrected,
            Some(FinalVerdict::Unreviewed) => &self.unreviewed,
            Some(FinalVerdict::Rejected) | None => &self.rejected,
        };
        for (total, value) in [
            (verdict, 1),
            (&self.tokens, tokens),
            (&self.reviewer_generated_tokens, tally.generated_tokens),
            (&self.reviewer_scored_tokens, tally.scored_tokens),
        ] {
            total.fetch_add(u64::from(value), Ordering::Relaxed);
        }
        for (total, elapsed) in [
            (&self.generation_ms, tally.generation_time),
            (&self.review_ms, tally.review_time),
            (&self.completion_ms, tally.completion_time),
        ] {
            total.fetch_add(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
    }

    /// The share of all tokens that the reviewer did not generate.
    #[must_use]
    pub fn saved_share(&self) -> f64 {
        let tokens = self.tokens.load(Ordering::Relaxed);
        let generated = self.reviewer_generated_tokens.load(Ordering::Relaxed);
        (1.0 - generated as f64 / tokens.max(1) as f64).clamp(0.0, 1.0)
    }
}

/// The parts of a gate.
pub struct GateParts {
    /// The backends that write candidates.
    pub fleet: Vec<SharedBackend>,
    /// The backend that reviews candidates.
    pub reviewer: SharedBackend,
    /// The methods of a review. The reviewer supports all of these methods.
    pub review_methods: ReviewMethods,
    /// The prompt that asks the reviewer for a judgement.
    pub judge_prompt: String,
    /// The driver's settings.
    pub settings: Settings,
    /// The plugin that drives the gate.
    pub driver: Arc<ReloadablePlugin<GateDriver>>,
    /// The plugin that gives verdicts in place of the driver.
    pub policy: Option<Arc<ReloadablePlugin<GatePolicy>>>,
    /// The reaction to the loss of the reviewer.
    pub on_reviewer_lost: OnReviewerLost,
    /// The cache of earlier reviews.
    pub cache: Option<Arc<ReviewCache>>,
}

/// A fleet, a reviewer, a driver and an optional policy.
pub struct Gate {
    name: String,
    parts: GateParts,
    /// The counts of each member of the fleet.
    members: Vec<Arc<MemberCounts>>,
    totals: Arc<GateTotals>,
}

impl Gate {
    /// Creates a gate.
    #[must_use]
    pub fn new(parts: GateParts) -> Self {
        let name = format!("gate({})", parts.reviewer.name());
        let members = parts.fleet.iter().map(|_| Arc::default()).collect();
        Self { name, parts, members, totals: Arc::default() }
    }

    /// The live totals of all requests.
    #[must_use]
    pub fn totals(&self) -> &Arc<GateTotals> {
        &self.totals
    }

    /// The number of reviews that came from the cache.
    #[must_use]
    pub fn cache_hits(&self) -> u64 {
        self.parts.cache.as_ref().map_or(0, |cache| cache.hits())
    }

    fn task_spec(&self) -> TaskSpec {
        let fleet = self.parts.fleet.iter().cloned().zip(self.members.iter().cloned());
        TaskSpec {
            fleet: fleet.collect(),
            reviewer: self.parts.reviewer.clone(),
            review_methods: self.parts.review_methods,
            judge_prompt: self.parts.judge_prompt.clone(),
            settings: self.parts.settings.clone(),
            policy: self.parts.policy.as_ref().map(|policy| policy.current()),
            on_reviewer_lost: self.parts.on_reviewer_lost,
            cache: self.parts.cache.clone(),
        }
    }

    fn report(
        &self,
        outcome: &mut Outcome,
        tally: ReviewTally,
        (driver, policy): (&GateDriver, Option<Arc<GatePolicy>>),
        fallback: Option<String>,
    ) {
        self.totals.add(&tally, outcome.usage.completion_tokens);
        self.totals.fallbacks.fetch_add(u64::from(fallback.is_some()), Ordering::Relaxed);
        let mut plugins = vec![driver.report_entry()];
        plugins.extend(policy.map(|policy| policy.report_entry()));
        plugins.append(&mut outcome.report.plugins);
        let times = [tally.generation_time, tally.review_time, tally.completion_time];
        let report = &mut outcome.report;
        report.mode = "gate".to_owned();
        // The reviewer's own answer is as exact as the reviewer. Other answers are approximate.
        report.exact &= tally.verdict == Some(FinalVerdict::Rejected);
        report.plugins = plugins;
        report.fallback = fallback;
        report.gate = Some(Box::new(GateReport {
            verdict: tally.verdict.unwrap_or(FinalVerdict::Rejected).name().to_owned(),
            writer: tally.writer,
            kept_share: tally.kept_share,
            released_early_tokens: tally.released_tokens,
            reviews_cached: tally.cached_reviews,
            reviewer_generated_tokens: tally.generated_tokens,
            reviewer_scored_tokens: tally.scored_tokens,
            seconds: times.map(|time| time.as_secs_f64()),
        }));
    }
}

/// A gate only generates. A mode that must be exact cannot be stacked on it.
impl Backend for Gate {
    fn name(&self) -> &str {
        &self.name
    }

    /// The shortest context of the reviewer and all members, because a request must fit each of them.
    fn context(&self) -> Option<u32> {
        let members = self.parts.fleet.iter().filter_map(|member| member.context());
        members.chain(self.parts.reviewer.context()).min()
    }

    fn load(&self) -> Load {
        self.parts.reviewer.load()
    }

    /// The fleet alone suffices only where the script lets candidates pass without a review.
    fn health(&self) -> Health {
        let reviewer = self.parts.reviewer.health();
        match self.parts.on_reviewer_lost {
            OnReviewerLost::PassUnreviewed if !reviewer.is_ready() => {
                Health::best(self.parts.fleet.iter().map(|member| member.health()).chain([reviewer]))
            }
            _ => reviewer,
        }
    }

    fn as_generator(&self) -> Option<&dyn Generator> {
        if self.parts.reviewer.as_generator().is_some() { Some(self) } else { None }
    }
}

#[async_trait]
impl Generator for Gate {
    async fn generate(&self, request: Request, sink: Sink) -> Result<Outcome, BackendError> {
        let driver = self.parts.driver.current();
        // The reviewer answers requests with log-probabilities or tools itself.
        let gated =
            request.sampling.logprobs.is_none() && request.tools.is_empty() && driver.breaker().allows();
        let spec = self.task_spec();
        let policy = spec.policy.clone();
        let mut task = ReviewTask::new(spec, Arc::new(request), sink);
        let mut fallback = None;
        if gated {
            let (returned, result) = driver.run(task).await;
            driver.record_result(&result);
            task = returned;
            fallback = result.err().map(|error| error.to_string());
            if let Some(reason) = &fallback {
                tracing::warn!(reason, "the gate's driver failed; the reviewer answers itself");
            }
        }
        let (mut outcome, tally) = delivery::finish(task).await?;
        self.report(&mut outcome, tally, (&driver, policy), fallback);
        Ok(outcome)
    }
}
