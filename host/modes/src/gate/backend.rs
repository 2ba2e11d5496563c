//! The quality gate: a fleet of cheap backends writes whole answers, a reviewer approves, corrects or rejects
//! them. What goes wrong on the way makes the reviewer answer itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use tightwad_core::{
    Backend, BackendError, GateReport, Generator, Load, OnReviewerLost, Outcome, Request, SharedBackend,
    Sink, Ways,
};
use tightwad_sandbox::{Loaded, Slot};

use crate::gate::cache::ReviewCache;
use crate::gate::component::GatePlugin;
use crate::gate::passing::settle;
use crate::gate::policy::GatePolicyPlugin;
use crate::gate::review::{Ending, MemberCounts, ReviewTally, ReviewTask, TaskSpec};

/// Sums over all requests, for metrics.
#[derive(Debug, Default)]
pub struct GateTotals {
    /// Candidates passed on unchanged.
    pub approved: AtomicU64,
    /// Answers that the reviewer finished.
    pub corrected: AtomicU64,
    /// Answers of the reviewer's own.
    pub rejected: AtomicU64,
    /// Candidates passed on without a review.
    pub unreviewed: AtomicU64,
    /// Tokens of all answers.
    pub tokens: AtomicU64,
    /// Tokens that the reviewer generated.
    pub decoded: AtomicU64,
    /// Tokens that it only read.
    pub read: AtomicU64,
    /// Milliseconds of writing, of reviewing, and until the end after that.
    pub took: [AtomicU64; 3],
    /// Requests that the plugin did not finish.
    pub fallbacks: AtomicU64,
}

impl GateTotals {
    fn add(&self, tally: &ReviewTally, tokens: u32) {
        let ending = match tally.ending {
            Some(Ending::Approved) => &self.approved,
            Some(Ending::Corrected) => &self.corrected,
            Some(Ending::Unreviewed) => &self.unreviewed,
            Some(Ending::Rejected) | None => &self.rejected,
        };
        for (sum, value) in
            [(ending, 1), (&self.tokens, tokens), (&self.decoded, tally.decoded), (&self.read, tally.read)]
        {
            sum.fetch_add(u64::from(value), Ordering::Relaxed);
        }
        for (sum, took) in self.took.iter().zip(tally.took) {
            sum.fetch_add(u64::try_from(took.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
    }

    /// The share of all tokens that the reviewer did not have to generate.
    #[must_use]
    pub fn saved(&self) -> f64 {
        let (tokens, decoded) = (self.tokens.load(Ordering::Relaxed), self.decoded.load(Ordering::Relaxed));
        (1.0 - decoded as f64 / tokens.max(1) as f64).clamp(0.0, 1.0)
    }
}

/// What a gate is made of.
pub struct GateParts {
    /// Who writes.
    pub fleet: Vec<SharedBackend>,
    /// Who reviews.
    pub reviewer: SharedBackend,
    /// How; what the reviewer cannot do is left out.
    pub ways: Ways,
    /// What the reviewer is asked.
    pub prompt: String,
    /// A JSON object that the plugin reads.
    pub settings: String,
    /// The plugin that drives.
    pub plugin: Arc<Slot<GatePlugin>>,
    /// Whose verdict counts in place of that plugin's.
    pub policy: Option<Arc<Slot<GatePolicyPlugin>>>,
    /// What happens when the reviewer is lost.
    pub on_lost: OnReviewerLost,
    /// Reviews that were made already.
    pub cache: Option<Arc<ReviewCache>>,
}

/// A fleet, a reviewer, and the plugins that decide.
pub struct Gate {
    name: String,
    parts: GateParts,
    counts: Vec<Arc<MemberCounts>>,
    totals: Arc<GateTotals>,
}

impl Gate {
    /// Puts a reviewer behind a fleet.
    #[must_use]
    pub fn new(parts: GateParts) -> Self {
        let name = format!("gate({})", parts.reviewer.name());
        let counts = parts.fleet.iter().map(|_| Arc::default()).collect();
        Self { name, parts, counts, totals: Arc::default() }
    }

    /// The sums, live.
    #[must_use]
    pub fn totals(&self) -> &Arc<GateTotals> {
        &self.totals
    }

    /// Reviews that were not made again.
    #[must_use]
    pub fn cache_hits(&self) -> u64 {
        self.parts.cache.as_ref().map_or(0, |cache| cache.hits())
    }

    fn spec(&self) -> TaskSpec {
        let fleet = self.parts.fleet.iter().cloned().zip(self.counts.iter().cloned());
        TaskSpec {
            fleet: fleet.collect(),
            reviewer: self.parts.reviewer.clone(),
            ways: self.parts.ways,
            prompt: self.parts.prompt.clone(),
            settings: self.parts.settings.clone(),
            policy: self.parts.policy.as_ref().map(|slot| slot.current()),
            on_lost: self.parts.on_lost,
            cache: self.parts.cache.clone(),
        }
    }

    fn report(
        &self,
        outcome: &mut Outcome,
        tally: ReviewTally,
        (plugin, policy): (&GatePlugin, Option<Arc<GatePolicyPlugin>>),
        fallback: Option<String>,
    ) {
        self.totals.add(&tally, outcome.usage.completion_tokens);
        self.totals.fallbacks.fetch_add(u64::from(fallback.is_some()), Ordering::Relaxed);
        let mut plugins = vec![plugin.entry()];
        plugins.extend(policy.map(|policy| policy.entry()));
        plugins.append(&mut outcome.report.plugins);
        let report = &mut outcome.report;
        report.mode = "gate".to_owned();
        // The reviewer's own answers are as exact as the reviewer is.
        report.exact &= tally.ending == Some(Ending::Rejected);
        report.plugins = plugins;
        report.fallback = fallback;
        report.gate = Some(Box::new(GateReport {
            verdict: tally.ending.unwrap_or(Ending::Rejected).name().to_owned(),
            writer: tally.writer,
            kept: tally.kept,
            passed_early: tally.passed,
            reviews_cached: tally.cached,
            reviewer_decoded: tally.decoded,
            reviewer_read: tally.read,
            seconds: tally.took.map(|took| took.as_secs_f64()),
        }));
    }
}

/// A gate only generates. Nothing that must be exact stacks on it.
impl Backend for Gate {
    fn name(&self) -> &str {
        &self.name
    }

    /// A request must fit the reviewer and every writer.
    fn context(&self) -> Option<u32> {
        let members = self.parts.fleet.iter().filter_map(|member| member.context());
        members.chain(self.parts.reviewer.context()).min()
    }

    fn load(&self) -> Load {
        self.parts.reviewer.load()
    }

    fn as_generator(&self) -> Option<&dyn Generator> {
        if self.parts.reviewer.as_generator().is_some() { Some(self) } else { None }
    }
}

#[async_trait]
impl Generator for Gate {
    async fn generate(&self, request: Request, sink: Sink) -> Result<Outcome, BackendError> {
        let plugin = self.parts.plugin.current();
        // Log-probabilities and calls of tools are the reviewer's own.
        let gated =
            request.sampling.logprobs.is_none() && request.tools.is_empty() && plugin.breaker().allows();
        let spec = self.spec();
        let policy = spec.policy.clone();
        let mut task = ReviewTask::new(spec, Arc::new(request), sink);
        let mut fallback = None;
        if gated {
            let (driven, outcome) = plugin.run(task).await;
            plugin.breaker().record(outcome.is_ok());
            task = driven;
            fallback = outcome.err().map(|error| error.to_string());
            if let Some(reason) = &fallback {
                tracing::warn!(reason, "the reviewer answers itself");
            }
        }
        let (mut outcome, tally) = settle(task).await?;
        self.report(&mut outcome, tally, (&plugin, policy), fallback);
        Ok(outcome)
    }
}
