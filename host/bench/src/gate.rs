//! Measures a gate on questions with checkable answers: the effect of each threshold, then the gates with the
//! suggested one.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use serde_json::{Value, json};
use tightwad_core::{Backend, Prompt, SharedBackend};
use tightwad_script::Factory;

use crate::calibration;
use crate::calibration::{Observation, Point, curve, held_out, suggest};
use crate::checker::Questions;
use crate::contest::{Contest, connect_or_load};
use crate::gates::{Gates, Row};
use crate::plot::{Line, plot};
use crate::prompts::user;
use crate::replay::Replay;

/// Measures a gate on questions with checkable answers, and suggests its thresholds.
#[derive(Debug, clap::Args)]
pub(crate) struct Gate {
    /// File of questions: one JSON object with a `question` per line.
    #[arg(long, value_name = "FILE", default_value = "tests/questions/questions.jsonl")]
    calibrate: PathBuf,
    /// Program that checks answers. It reads JSON lines with `index` and `answer`, and writes lines with `index` and
    /// `right`. Default: `check.py` beside the questions.
    #[arg(long, value_name = "FILE")]
    checker: Option<PathBuf>,
    /// Member of the fleet: a GGUF file or a node's address. Repeatable; the members take turns.
    #[arg(long, default_value = "models/qwen2.5-coder-0.5b-instruct.gguf")]
    fleet: Vec<String>,
    /// Reviewer: a GGUF file or a node's address.
    #[arg(long, default_value = "models/qwen2.5-coder-1.5b-instruct.gguf")]
    reviewer: String,
    /// Number of questions, spread over the file. Default: all.
    #[arg(long)]
    questions: Option<usize>,
    /// Greatest number of tokens per answer.
    #[arg(long, default_value_t = 128)]
    tokens: u32,
    /// Number of concurrent questions.
    #[arg(long, default_value_t = 4)]
    concurrency: usize,
    /// Accuracy to reach, 0 to 1. Default: two points less than the reviewer's own.
    #[arg(long)]
    accuracy: Option<f64>,
    /// Reviews to run with the suggested thresholds: score, judge, both. Answers and scores are computed once and
    /// replayed; their time counts in each gate.
    #[arg(long, value_delimiter = ',', default_values_t = ["score", "judge", "both"].map(str::to_owned))]
    gates: Vec<String>,
    /// Number of approved answers to time up to the first text, with and without streaming. 0: none.
    #[arg(long, default_value_t = 16)]
    streamed: usize,
    /// File for a plot of the curve, as SVG.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
}

/// One answer, with the reviewer's work for it.
struct Answer {
    text: String,
    tokens: u32,
    /// Tokens of the prompt.
    prompt_tokens: u32,
    verdict: Option<String>,
    reviewer_generated_tokens: u32,
    reviewer_scored_tokens: u32,
}

/// The reviewer's scores of an answer: mean and least log-probability of its tokens.
struct Scores {
    mean_logprob: f64,
    min_logprob: f64,
    tokens: usize,
}

/// The answers of one backend to all questions, and their total time.
struct Answers {
    answers: Vec<Answer>,
    total_time: Duration,
}

impl Gate {
    pub(crate) async fn run(self, factory: &dyn Factory) -> Result<()> {
        let questions = Questions::read(&self.calibrate, self.checker.clone(), self.questions)?;
        let mut fleet = Vec::new();
        for (index, member) in self.fleet.iter().enumerate() {
            let name = format!("writer {}", index + 1);
            fleet.push(Arc::new(Replay::new(connect_or_load(factory, member, &name).await?)));
        }
        let reviewer = Arc::new(Replay::new(connect_or_load(factory, &self.reviewer, "reviewer").await?));
        let log_step = |step: &str| eprintln!("{} questions: {step}", questions.items.len());

        log_step("the fleet answers");
        let fleet_answers = self.answers(&questions, |index| fleet[index % fleet.len()].clone()).await?;
        let fleet_right = self.report_row("fleet alone", &questions, &fleet_answers).await?;
        log_step("the reviewer answers");
        let mut reviewer_answers = self.answers(&questions, |_| reviewer.clone()).await?;
        for answer in &mut reviewer_answers.answers {
            answer.reviewer_generated_tokens = answer.tokens;
            answer.reviewer_scored_tokens = answer.prompt_tokens;
        }
        let reviewer_right = self.report_row("reviewer alone", &questions, &reviewer_answers).await?;
        log_step("the reviewer scores the fleet's answers");
        let scores = self.scores(&questions, &fleet_answers.answers, reviewer.as_ref()).await?;
        let observations = scores.iter().enumerate().map(|(index, scores)| Observation {
            mean_logprob: scores.mean_logprob,
            min_logprob: scores.min_logprob,
            fleet_right: fleet_right[index],
            reviewer_right: reviewer_right[index],
            reviewer_tokens: reviewer_answers.answers[index].tokens,
        });
        let Some(point) = self.suggest_threshold(&observations.collect::<Vec<_>>())? else {
            eprintln!("no threshold reaches the accuracy, so no gate is measured");
            return Ok(());
        };
        let gates = Gates { factory, fleet: &fleet, reviewer: &reviewer, point };
        self.run_gates(&questions, &gates, &scores).await
    }

    /// Runs the gates, and times the first text of the gate by score.
    async fn run_gates(&self, questions: &Questions, gates: &Gates<'_>, scores: &[Scores]) -> Result<()> {
        let log_step = |step: &str| eprintln!("{} questions: {step}", questions.items.len());
        for review in &self.gates {
            log_step(&format!("the gate by {review}"));
            let gate = gates.replay_gate(review).await?;
            let mut answers = self.answers(questions, |_| gate.clone()).await?;
            answers.total_time += gates.take_replayed_time() / (self.concurrency.max(1) as u32);
            self.report_row(&format!("gate by {review}"), questions, &answers).await?;
        }
        let prompts = self.approved_prompts(questions, gates.point, scores);
        if !prompts.is_empty() {
            log_step("the gate by score, streaming and waiting");
            gates.time_first_texts(&self.contest(), &prompts, self.json).await?;
        }
        Ok(())
    }

    /// Prompts whose answers the gate approves, spread over the file. Leaves out short answers, because a single review
    /// covers them and streaming changes nothing.
    fn approved_prompts(&self, questions: &Questions, point: Point, scores: &[Scores]) -> Vec<Prompt> {
        let is_approved = |scores: &Scores| {
            scores.tokens > 32 && point.threshold.approves(scores.mean_logprob, scores.min_logprob)
        };
        let approved = questions.items.iter().zip(scores).filter(|(_, scores)| is_approved(scores));
        let approved: Vec<Prompt> = approved.map(|((_, question), _)| prompt_of(question)).collect();
        let count = self.streamed.min(approved.len());
        (0..count).map(|index| approved[index * approved.len() / count].clone()).collect()
    }

    /// Suggests a threshold, and prints it with the curve. `None`: no threshold reaches the accuracy.
    fn suggest_threshold(&self, observations: &[Observation]) -> Result<Option<Point>> {
        let reviewer_accuracy = |observations: &[Observation]| {
            calibration::accuracy(observations.iter().map(|observation| observation.reviewer_right))
        };
        let min_accuracy = |observations: &[Observation]| {
            self.accuracy.unwrap_or_else(|| reviewer_accuracy(observations) - 0.02)
        };
        let suggested = suggest(observations, min_accuracy(observations));
        self.show_curve(
            observations,
            suggested,
            min_accuracy(observations),
            held_out(observations, min_accuracy),
        )?;
        Ok(suggested)
    }

    /// The settings of all answers: greedy.
    fn contest(&self) -> Contest {
        Contest { tokens: self.tokens, temperature: 0.0 }
    }

    /// The answers to all questions, several at the same time.
    async fn answers(
        &self,
        questions: &Questions,
        backend_of: impl Fn(usize) -> SharedBackend,
    ) -> Result<Answers> {
        let contest = self.contest();
        let start = Instant::now();
        let answers = questions.items.iter().enumerate().map(|(index, (_, question))| {
            let (backend, contest) = (backend_of(index), &contest);
            let prompt = prompt_of(question);
            async move {
                let (text, _, outcome) = contest.answer(&backend, &prompt).await?;
                let gate = outcome.report.gate.as_deref();
                anyhow::Ok(Answer {
                    text,
                    tokens: outcome.usage.completion_tokens,
                    prompt_tokens: outcome.usage.prompt_tokens,
                    verdict: gate.map(|gate| gate.verdict.clone()),
                    reviewer_generated_tokens: gate.map_or(0, |gate| gate.reviewer_generated_tokens),
                    reviewer_scored_tokens: gate.map_or(0, |gate| gate.reviewer_scored_tokens),
                })
            }
        });
        let answers = stream::iter(answers).buffered(self.concurrency.max(1)).try_collect().await?;
        Ok(Answers { answers, total_time: start.elapsed() })
    }

    /// The reviewer's scores of each answer. An answer without tokens gets the worst scores.
    async fn scores(
        &self,
        questions: &Questions,
        answers: &[Answer],
        reviewer: &dyn Backend,
    ) -> Result<Vec<Scores>> {
        let scores = questions.items.iter().zip(answers).map(|((_, question), answer)| async move {
            let request = Arc::new(self.contest().request(&prompt_of(question))?);
            let scored = reviewer.scorer()?.score(&request, &answer.text, 0..usize::MAX).await?;
            let logprobs = || scored.iter().map(|score| f64::from(score.logprob));
            let mean_logprob = logprobs().sum::<f64>() / scored.len() as f64;
            let or_worst = |value: f64| if scored.is_empty() { f64::NEG_INFINITY } else { value };
            let min_logprob = or_worst(logprobs().fold(0.0, f64::min));
            anyhow::Ok(Scores { mean_logprob: or_worst(mean_logprob), min_logprob, tokens: scored.len() })
        });
        stream::iter(scores).buffered(self.concurrency.max(1)).try_collect().await
    }

    /// Prints the results of one backend. Returns true for each right answer.
    async fn report_row(&self, name: &str, questions: &Questions, answers: &Answers) -> Result<Vec<bool>> {
        let texts: Vec<String> = answers.answers.iter().map(|answer| answer.text.clone()).collect();
        let right = questions.check(&texts).await?;
        let count = answers.answers.len().max(1) as f64;
        let verdict_share = |name: &str| {
            let has_verdict = |answer: &&Answer| answer.verdict.as_deref() == Some(name);
            answers.answers.iter().filter(has_verdict).count() as f64 / count
        };
        let is_gate = answers.answers.iter().any(|answer| answer.verdict.is_some());
        let sum =
            |tokens: fn(&Answer) -> u32| answers.answers.iter().map(|answer| u64::from(tokens(answer))).sum();
        let row = Row {
            name: name.to_owned(),
            accuracy: calibration::accuracy(right.iter().copied()),
            verdicts: is_gate.then(|| ["approved", "corrected", "rejected"].map(verdict_share)),
            reviewer_generated_tokens: sum(|answer| answer.reviewer_generated_tokens),
            reviewer_scored_tokens: sum(|answer| answer.reviewer_scored_tokens),
            total_time: answers.total_time,
        };
        row.show(self.json);
        Ok(right)
    }

    fn show_curve(
        &self,
        observations: &[Observation],
        suggested: Option<Point>,
        min_accuracy: f64,
        held_out: Option<(f64, f64)>,
    ) -> Result<()> {
        let min_token_logprob = suggested.map_or(-100.0, |point| point.threshold.min_token_logprob);
        let points = curve(observations, min_token_logprob);
        let reviewer_accuracy = points[0].accuracy;
        if self.json {
            let points: Vec<Value> = points.iter().map(point_json).collect();
            println!(
                "{}",
                json!({"curve": points, "suggested": suggested.as_ref().map(point_json), "wanted": min_accuracy,
                    "held_out": held_out.map(|(accuracy, approved)| json!({"accuracy": accuracy, "approved": approved}))})
            );
        } else {
            println!("   mean  lowest  approved  right of those  accuracy  reviewer generates");
            for point in &points {
                println!(
                    "{:7.3} {:7.2}  {:6.1} %  {:12.1} %  {:6.1} %  {:13.1} %",
                    point.threshold.min_mean_logprob,
                    point.threshold.min_token_logprob,
                    100.0 * point.approved_share,
                    100.0 * point.precision,
                    100.0 * point.accuracy,
                    100.0 * point.decoded_share
                );
            }
            println!("{}", self.summary(suggested, min_accuracy, reviewer_accuracy, held_out));
        }
        match &self.svg {
            Some(file) => plot_curve(file, &points),
            None => Ok(()),
        }
    }

    /// The suggestion as text, or the reason for its absence.
    fn summary(
        &self,
        suggested: Option<Point>,
        min_accuracy: f64,
        reviewer_accuracy: f64,
        held_out: Option<(f64, f64)>,
    ) -> String {
        let Some(point) = suggested else {
            return format!(
                "no threshold reaches {:.1} %: the reviewer alone has {:.1} %. These models are too small for that accuracy",
                100.0 * min_accuracy,
                100.0 * reviewer_accuracy
            );
        };
        let mut text = format!(
            "suggested: min_mean_logprob = {:.3}, min_token_logprob = {:.2}: {:.0} % approved, accuracy {:.1} % (wanted {:.1} %, reviewer alone {:.1} %)",
            point.threshold.min_mean_logprob,
            point.threshold.min_token_logprob,
            100.0 * point.approved_share,
            100.0 * point.accuracy,
            100.0 * min_accuracy,
            100.0 * reviewer_accuracy
        );
        if let Some((accuracy, approved)) = held_out {
            text += &format!(
                "\nchosen on one half, on the other half: accuracy {:.1} %, {:.0} % approved",
                100.0 * accuracy,
                100.0 * approved
            );
        }
        if point.approved_share < 0.3 {
            text += "\nthese models are too small, or too much alike, for a gate: the reviewer's probabilities do not separate right from wrong answers";
        }
        text
    }
}

/// Plots accuracy and decoding over the approved share. The first point is the reviewer alone.
fn plot_curve(file: &Path, points: &[Point]) -> Result<()> {
    let line = |name: &str, points: Vec<(f64, f64)>| Line { name: name.to_owned(), points };
    let percent = |value: &dyn Fn(&Point) -> f64| {
        points.iter().map(|point| (100.0 * point.approved_share, 100.0 * value(point))).collect::<Vec<_>>()
    };
    let reviewer_percent = 100.0 * points[0].accuracy;
    let lines = [
        line("accuracy", percent(&|point| point.accuracy)),
        line("reviewer's decoding", percent(&|point| point.decoded_share)),
        line("reviewer alone", vec![(0.0, reviewer_percent), (100.0, reviewer_percent)]),
    ];
    plot(file, "Gate by score", "answers approved, %", "%", &lines)?;
    eprintln!("drawn: {}", file.display());
    Ok(())
}

/// A question as a chat.
fn prompt_of(question: &str) -> Prompt {
    Prompt::Chat([user(question.to_owned())].into())
}

fn point_json(point: &Point) -> Value {
    json!({"min_mean_logprob": point.threshold.min_mean_logprob, "min_token_logprob": point.threshold.min_token_logprob, "approved": point.approved_share,
        "accuracy": point.accuracy, "precision": point.precision, "decoded": point.decoded_share})
}
