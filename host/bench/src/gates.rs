//! The gates of one benchmark, how they did, and how soon they begin to speak.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::json;
use tightwad_core::{OnReviewerLost, Prompt, SharedBackend, Ways, relay};
use tightwad_script::{Factory, GateSpec, REVIEW_PROMPT};

use crate::calibration::Point;
use crate::contest::{Contest, made};
use crate::replay::Replay;

/// One way to answer all questions.
pub(crate) struct Row {
    pub name: String,
    pub accuracy: f64,
    /// Shares approved, corrected, rejected; absent where there is no gate.
    pub verdicts: Option<[f64; 3]>,
    /// Tokens that the reviewer decoded and read.
    pub decoded: u64,
    pub read: u64,
    pub took: Duration,
}

impl Row {
    pub(crate) fn show(&self, json: bool) {
        if json {
            println!(
                "{}",
                json!({"name": self.name, "accuracy": self.accuracy, "verdicts": self.verdicts,
                    "reviewer_decoded": self.decoded, "reviewer_read": self.read, "seconds": self.took.as_secs_f64()})
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
            self.decoded,
            self.read,
            self.took.as_secs_f64()
        );
    }
}

/// Gates with one threshold.
pub(crate) struct Gates<'a> {
    pub factory: &'a dyn Factory,
    pub fleet: &'a [Arc<Replay>],
    pub reviewer: &'a Arc<Replay>,
    pub point: Point,
}

impl Gates<'_> {
    /// A gate that repeats what was computed already, by `score`, `judge` or `both`.
    pub(crate) async fn repeating(&self, review: &str) -> Result<SharedBackend> {
        let ways = match review {
            "score" => Ways { score: true, judge: false },
            "judge" => Ways { score: false, judge: true },
            "both" => Ways { score: true, judge: true },
            other => bail!("--gates {other}: it is score, judge or both"),
        };
        let fleet = self.fleet.iter().map(|one| one.clone() as SharedBackend).collect();
        self.made(fleet, self.reviewer.clone(), ways, true).await
    }

    /// How long that took which was repeated since the last time.
    pub(crate) fn replayed(&self) -> Duration {
        self.fleet.iter().chain([self.reviewer]).map(|one| one.replayed()).sum()
    }

    /// A gate by score that computes everything anew.
    async fn live(&self, stream: bool) -> Result<SharedBackend> {
        let fleet = self.fleet.iter().map(|one| one.own()).collect();
        self.made(fleet, self.reviewer.own(), Ways { score: true, judge: false }, stream).await
    }

    async fn made(
        &self,
        fleet: Vec<SharedBackend>,
        reviewer: SharedBackend,
        ways: Ways,
        stream: bool,
    ) -> Result<SharedBackend> {
        let threshold = self.point.threshold;
        let settings = json!({"approve": threshold.approve, "floor": threshold.floor, "stream": stream});
        let spec = GateSpec {
            fleet,
            reviewer,
            ways,
            prompt: REVIEW_PROMPT.to_owned(),
            plugin: None,
            mode: None,
            on_lost: OnReviewerLost::Error,
            cache: None,
            settings: settings.as_object().cloned().context("no settings")?,
        };
        made(self.factory.gate(spec).await)
    }

    /// Times the first text of the answers to `prompts`, one at a time, streamed and waited for in turns.
    pub(crate) async fn first_texts(&self, contest: &Contest, prompts: &[Prompt], json: bool) -> Result<()> {
        let (streaming, waiting) = (self.live(true).await?, self.live(false).await?);
        let mut sums = [Sum::default(), Sum::default()];
        for (index, prompt) in prompts.iter().enumerate() {
            // Another prompt than the one just asked: the reviewer still has that in its cache.
            let other = &prompts[(index + prompts.len() / 2) % prompts.len()];
            sums[0].add(contest, &streaming, prompt).await?;
            sums[1].add(contest, &waiting, other).await?;
        }
        for (sum, name) in sums.iter().zip(["streamed", "waited for"]) {
            sum.show(name, prompts.len(), json);
        }
        Ok(())
    }
}

/// Seconds, over several answers.
#[derive(Default)]
struct Sum {
    written: f64,
    first: f64,
    last: f64,
    tokens: u32,
}

impl Sum {
    async fn add(&mut self, contest: &Contest, gate: &SharedBackend, prompt: &Prompt) -> Result<()> {
        let (start, mut first) = (Instant::now(), None);
        let outcome = relay(gate.as_ref(), contest.request(prompt)?, |event| {
            if !event.text.is_empty() {
                first.get_or_insert_with(|| start.elapsed());
            }
            async { true }
        });
        let outcome = outcome.await?;
        self.last += start.elapsed().as_secs_f64();
        self.first += first.unwrap_or_else(|| start.elapsed()).as_secs_f64();
        self.written += outcome.report.gate.map_or(0.0, |gate| gate.seconds[0]);
        self.tokens += outcome.usage.completion_tokens;
        Ok(())
    }

    fn show(&self, name: &str, answers: usize, json: bool) {
        let each = |sum: f64| sum / answers as f64;
        let (written, first, last) = (each(self.written), each(self.first), each(self.last));
        let tokens = each(f64::from(self.tokens));
        if json {
            let shown = json!({"name": name, "answers": answers, "tokens": tokens, "written": written,
                "first_text": first, "end": last});
            println!("{shown}");
        } else {
            println!(
                "{name:16} {answers} answers of {tokens:.0} tokens: written {written:.2} s, first text {first:.2} s, end {last:.2} s"
            );
        }
    }
}
