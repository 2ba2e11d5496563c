//! The gates of one benchmark: their results, and the time to their first text.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::json;
use tightwad_core::{OnReviewerLost, Prompt, ReviewMethods, SharedBackend, relay};
use tightwad_script::{DEFAULT_JUDGE_PROMPT, Factory, GateSpec};

use crate::calibration::Point;
use crate::contest::{Contest, into_anyhow};
use crate::replay::Replay;

/// The results of one backend on all questions.
pub(crate) struct Row {
    pub name: String,
    pub accuracy: f64,
    /// Shares of approved, corrected and rejected answers. `None` without a gate.
    pub verdicts: Option<[f64; 3]>,
    /// Tokens that the reviewer generated.
    pub reviewer_generated_tokens: u64,
    /// Tokens that the reviewer scored.
    pub reviewer_scored_tokens: u64,
    pub total_time: Duration,
}

impl Row {
    pub(crate) fn show(&self, json: bool) {
        if json {
            println!(
                "{}",
                json!({"name": self.name, "accuracy": self.accuracy, "verdicts": self.verdicts,
                    "reviewer_generated_tokens": self.reviewer_generated_tokens, "reviewer_scored_tokens": self.reviewer_scored_tokens, "seconds": self.total_time.as_secs_f64()})
            );
            return;
        }
        let verdicts = self.verdicts.map_or(String::new(), |[approved, corrected, rejected]| {
            format!(
                "{:5.1} % approved, {:4.1} % corrected, {:4.1} % rejected",
                100.0 * approved,
                100.0 * corrected,
                100.0 * rejected
            )
        });
        println!(
            "{:16} {:5.1} % right  reviewer: {:6} decoded, {:6} read  {:6.1} s  {verdicts}",
            self.name,
            100.0 * self.accuracy,
            self.reviewer_generated_tokens,
            self.reviewer_scored_tokens,
            self.total_time.as_secs_f64()
        );
    }
}

/// Creates gates with one threshold.
pub(crate) struct Gates<'a> {
    pub factory: &'a dyn Factory,
    pub fleet: &'a [Arc<Replay>],
    pub reviewer: &'a Arc<Replay>,
    pub point: Point,
}

impl Gates<'_> {
    /// A gate that replays computed answers and scores. `review` is `score`, `judge` or `both`.
    pub(crate) async fn replay_gate(&self, review: &str) -> Result<SharedBackend> {
        let review_methods = match review {
            "score" => ReviewMethods { score: true, judge: false },
            "judge" => ReviewMethods { score: false, judge: true },
            "both" => ReviewMethods { score: true, judge: true },
            _ => bail!("--gates {review} is unknown. Use score, judge or both."),
        };
        let fleet = self.fleet.iter().map(|backend| backend.clone() as SharedBackend).collect();
        self.gate(fleet, self.reviewer.clone(), review_methods, true).await
    }

    /// Returns the computing time of the answers and scores that were replayed since the last call.
    pub(crate) fn take_replayed_time(&self) -> Duration {
        self.fleet.iter().chain([self.reviewer]).map(|backend| backend.take_replayed_time()).sum()
    }

    /// A gate by score without replay.
    async fn live_gate(&self, stream: bool) -> Result<SharedBackend> {
        let fleet = self.fleet.iter().map(|backend| backend.inner()).collect();
        self.gate(fleet, self.reviewer.inner(), ReviewMethods { score: true, judge: false }, stream).await
    }

    async fn gate(
        &self,
        fleet: Vec<SharedBackend>,
        reviewer: SharedBackend,
        review_methods: ReviewMethods,
        stream: bool,
    ) -> Result<SharedBackend> {
        let threshold = self.point.threshold;
        let settings = json!({"min_mean_logprob": threshold.min_mean_logprob, "min_token_logprob": threshold.min_token_logprob, "stream": stream});
        let spec = GateSpec {
            fleet,
            reviewer,
            review_methods,
            judge_prompt: DEFAULT_JUDGE_PROMPT.to_owned(),
            policy: None,
            driver: None,
            on_reviewer_lost: OnReviewerLost::Error,
            cache: None,
            settings: settings.as_object().cloned().context("no settings")?,
        };
        into_anyhow(self.factory.gate(spec).await)
    }

    /// Times the first text of the answers to `prompts`, one at a time, alternately with and without streaming.
    pub(crate) async fn time_first_texts(
        &self,
        contest: &Contest,
        prompts: &[Prompt],
        json: bool,
    ) -> Result<()> {
        let (streaming, waiting) = (self.live_gate(true).await?, self.live_gate(false).await?);
        let mut totals = [AnswerTimes::default(), AnswerTimes::default()];
        for (index, prompt) in prompts.iter().enumerate() {
            // A different prompt: the reviewer's cache still holds the last one.
            let other = &prompts[(index + prompts.len() / 2) % prompts.len()];
            totals[0].add(contest, &streaming, prompt).await?;
            totals[1].add(contest, &waiting, other).await?;
        }
        for (total, name) in totals.iter().zip(["streamed", "waited for"]) {
            total.show(name, prompts.len(), json);
        }
        Ok(())
    }
}

/// Sums over several answers.
#[derive(Default)]
struct AnswerTimes {
    generation_seconds: f64,
    first_text_seconds: f64,
    end_seconds: f64,
    tokens: u32,
}

impl AnswerTimes {
    async fn add(&mut self, contest: &Contest, gate: &SharedBackend, prompt: &Prompt) -> Result<()> {
        let (start, mut first_text_time) = (Instant::now(), None);
        let outcome = relay(gate.as_ref(), contest.request(prompt)?, |event| {
            if !event.text.is_empty() {
                first_text_time.get_or_insert_with(|| start.elapsed());
            }
            async { true }
        });
        let outcome = outcome.await?;
        self.end_seconds += start.elapsed().as_secs_f64();
        self.first_text_seconds += first_text_time.unwrap_or_else(|| start.elapsed()).as_secs_f64();
        self.generation_seconds += outcome.report.gate.map_or(0.0, |gate| gate.seconds[0]);
        self.tokens += outcome.usage.completion_tokens;
        Ok(())
    }

    fn show(&self, name: &str, answers: usize, json: bool) {
        let average = |total: f64| total / answers as f64;
        let (generation_seconds, first_text_seconds, end_seconds) =
            (average(self.generation_seconds), average(self.first_text_seconds), average(self.end_seconds));
        let tokens = average(f64::from(self.tokens));
        if json {
            let figures = json!({"name": name, "answers": answers, "tokens": tokens, "written": generation_seconds,
                "first_text": first_text_seconds, "end": end_seconds});
            println!("{figures}");
        } else {
            println!(
                "{name:16} {answers} answers of {tokens:.0} tokens: written {generation_seconds:.2} s, first text {first_text_seconds:.2} s, end {end_seconds:.2} s"
            );
        }
    }
}
