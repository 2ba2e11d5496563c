//! A fleet, a gate and its reviewer on questions with checkable answers: what each threshold would let pass,
//! and what the gates then really do.

use std::path::PathBuf;
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

/// A fleet, a gate and its reviewer on questions with checkable answers.
#[derive(Debug, clap::Args)]
pub(crate) struct Gate {
    /// The questions: a JSON object with a `question` a line, and `check.py` beside it.
    #[arg(long, value_name = "FILE", default_value = "tests/questions/questions.jsonl")]
    calibrate: PathBuf,
    /// What checks answers, in place of `check.py` beside the questions: it reads lines with `index` and
    /// `answer`, and writes lines with `index` and `right`.
    #[arg(long, value_name = "FILE")]
    checker: Option<PathBuf>,
    /// Who writes: a GGUF file or a node's address; several take turns.
    #[arg(long, default_value = "models/qwen2.5-coder-0.5b-instruct.gguf")]
    fleet: Vec<String>,
    /// Who reviews: a GGUF file or a node's address.
    #[arg(long, default_value = "models/qwen2.5-coder-1.5b-instruct.gguf")]
    reviewer: String,
    /// Asks only so many questions, spread over the file.
    #[arg(long)]
    questions: Option<usize>,
    /// Tokens of an answer, at most.
    #[arg(long, default_value_t = 128)]
    tokens: u32,
    /// Questions at once.
    #[arg(long, default_value_t = 4)]
    at_once: usize,
    /// The accuracy that is wanted, 0 to 1; default: two points less than the reviewer's own.
    #[arg(long)]
    accuracy: Option<f64>,
    /// Gates to run with the suggested threshold: score, judge, both. Answers are greedy: they and their scores
    /// are computed once, then repeated, and count with the time that they took.
    #[arg(long, value_delimiter = ',', default_values_t = ["score", "judge", "both"].map(str::to_owned))]
    gates: Vec<String>,
    /// Approved answers whose first text is timed, streamed and waited for, one at a time; 0: none.
    #[arg(long, default_value_t = 16)]
    streamed: usize,
    /// Draws the curve.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
}

/// One answer of a way.
struct Answer {
    text: String,
    tokens: u32,
    /// Tokens of the question.
    asked: u32,
    verdict: Option<String>,
    decoded: u32,
    read: u32,
}

/// What the reviewer thinks of an answer: mean and least log-probability of its tokens.
struct Scores {
    mean: f64,
    weakest: f64,
    tokens: usize,
}

/// Every answer of a way, and how long all of them took.
struct Answers {
    each: Vec<Answer>,
    took: Duration,
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
        let note = |what: &str| eprintln!("{} questions: {what}", questions.asked.len());

        note("the fleet answers");
        let fleets = self.answers(&questions, |index| fleet[index % fleet.len()].clone()).await?;
        let fleet_right = self.row("fleet alone", &questions, &fleets).await?;
        note("the reviewer answers");
        let mut owns = self.answers(&questions, |_| reviewer.clone()).await?;
        owns.each.iter_mut().for_each(|own| (own.decoded, own.read) = (own.tokens, own.asked));
        let own_right = self.row("reviewer alone", &questions, &owns).await?;
        note("the reviewer scores what the fleet wrote");
        let scores = self.scores(&questions, &fleets.each, reviewer.as_ref()).await?;
        let seen = scores.iter().enumerate().map(|(index, scores)| Observation {
            mean: scores.mean,
            weakest: scores.weakest,
            fleet_right: fleet_right[index],
            own_right: own_right[index],
            own_tokens: owns.each[index].tokens,
        });
        let Some(point) = self.calibrated(&seen.collect::<Vec<_>>())? else {
            eprintln!("no gate is run: there is no threshold to run it with");
            return Ok(());
        };
        let gates = Gates { factory, fleet: &fleet, reviewer: &reviewer, point };
        self.run_gates(&questions, &gates, &scores).await
    }

    /// The gates at work, and how soon the one by score begins to speak.
    async fn run_gates(&self, questions: &Questions, gates: &Gates<'_>, scores: &[Scores]) -> Result<()> {
        let note = |what: &str| eprintln!("{} questions: {what}", questions.asked.len());
        for review in &self.gates {
            note(&format!("the gate by {review}"));
            let gate = gates.repeating(review).await?;
            let mut answers = self.answers(questions, |_| gate.clone()).await?;
            answers.took += gates.replayed() / (self.at_once.max(1) as u32);
            self.row(&format!("gate by {review}"), questions, &answers).await?;
        }
        let prompts = self.approved(questions, gates.point, scores);
        if !prompts.is_empty() {
            note("the gate by score, streaming and waiting");
            gates.first_texts(&self.contest(), &prompts, self.json).await?;
        }
        Ok(())
    }

    /// Questions whose answers pass, spread over the file. Short answers are one part, streamed or not.
    fn approved(&self, questions: &Questions, point: Point, scores: &[Scores]) -> Vec<Prompt> {
        let passes =
            |scores: &Scores| scores.tokens > 32 && point.threshold.approves(scores.mean, scores.weakest);
        let all = questions.asked.iter().zip(scores).filter(|(_, scores)| passes(scores));
        let all: Vec<Prompt> = all.map(|((_, question), _)| asked(question)).collect();
        let wanted = self.streamed.min(all.len());
        (0..wanted).map(|index| all[index * all.len() / wanted].clone()).collect()
    }

    /// Shows the curve, and what it suggests.
    fn calibrated(&self, seen: &[Observation]) -> Result<Option<Point>> {
        let own = |seen: &[Observation]| calibration::accuracy(seen.iter().map(|one| one.own_right));
        let wanted = |seen: &[Observation]| self.accuracy.unwrap_or_else(|| own(seen) - 0.02);
        let suggested = suggest(seen, wanted(seen));
        self.show_curve(seen, suggested, wanted(seen), held_out(seen, wanted))?;
        Ok(suggested)
    }

    /// Answers are greedy.
    fn contest(&self) -> Contest {
        Contest { tokens: self.tokens, temperature: 0.0 }
    }

    /// Every question's answer, several at once.
    async fn answers(&self, questions: &Questions, by: impl Fn(usize) -> SharedBackend) -> Result<Answers> {
        let contest = self.contest();
        let start = Instant::now();
        let each = questions.asked.iter().enumerate().map(|(at, (_, question))| {
            let (backend, contest) = (by(at), &contest);
            let prompt = asked(question);
            async move {
                let (text, _, outcome) = contest.answer(&backend, &prompt).await?;
                let gate = outcome.report.gate.as_deref();
                anyhow::Ok(Answer {
                    text,
                    tokens: outcome.usage.completion_tokens,
                    asked: outcome.usage.prompt_tokens,
                    verdict: gate.map(|gate| gate.verdict.clone()),
                    decoded: gate.map_or(0, |gate| gate.reviewer_decoded),
                    read: gate.map_or(0, |gate| gate.reviewer_read),
                })
            }
        });
        let each = stream::iter(each).buffered(self.at_once.max(1)).try_collect().await?;
        Ok(Answers { each, took: start.elapsed() })
    }

    /// The reviewer's scores of each answer. An answer without a token is as bad as can be.
    async fn scores(
        &self,
        questions: &Questions,
        answers: &[Answer],
        reviewer: &dyn Backend,
    ) -> Result<Vec<Scores>> {
        let each = questions.asked.iter().zip(answers).map(|((_, question), answer)| async move {
            let request = Arc::new(self.contest().request(&asked(question))?);
            let scored = reviewer.scorer()?.score(&request, &answer.text, 0..usize::MAX).await?;
            let logprobs = || scored.iter().map(|one| f64::from(one.logprob));
            let mean = logprobs().sum::<f64>() / scored.len() as f64;
            let known = |value: f64| if scored.is_empty() { f64::NEG_INFINITY } else { value };
            let weakest = known(logprobs().fold(0.0, f64::min));
            anyhow::Ok(Scores { mean: known(mean), weakest, tokens: scored.len() })
        });
        stream::iter(each).buffered(self.at_once.max(1)).try_collect().await
    }

    /// Shows what came of one way, and says which answers were right.
    async fn row(&self, name: &str, questions: &Questions, answers: &Answers) -> Result<Vec<bool>> {
        let texts: Vec<String> = answers.each.iter().map(|answer| answer.text.clone()).collect();
        let right = questions.check(&texts).await?;
        let all = answers.each.len().max(1) as f64;
        let verdict = |name: &str| {
            let is = |answer: &&Answer| answer.verdict.as_deref() == Some(name);
            answers.each.iter().filter(is).count() as f64 / all
        };
        let gated = answers.each.iter().any(|answer| answer.verdict.is_some());
        let row = Row {
            name: name.to_owned(),
            accuracy: calibration::accuracy(right.iter().copied()),
            verdicts: gated.then(|| ["approved", "corrected", "rejected"].map(verdict)),
            decoded: answers.each.iter().map(|answer| u64::from(answer.decoded)).sum(),
            read: answers.each.iter().map(|answer| u64::from(answer.read)).sum(),
            took: answers.took,
        };
        row.show(self.json);
        Ok(right)
    }

    fn show_curve(
        &self,
        seen: &[Observation],
        suggested: Option<Point>,
        wanted: f64,
        held: Option<(f64, f64)>,
    ) -> Result<()> {
        let floor = suggested.map_or(-100.0, |point| point.threshold.floor);
        let points = curve(seen, floor);
        let alone = points[0].accuracy;
        if self.json {
            let points: Vec<Value> = points.iter().map(shown).collect();
            println!(
                "{}",
                json!({"curve": points, "suggested": suggested.as_ref().map(shown), "wanted": wanted,
                    "held_out": held.map(|(accuracy, approved)| json!({"accuracy": accuracy, "approved": approved}))})
            );
        } else {
            println!("approve   floor  approved  right of those  accuracy  reviewer decodes");
            for point in &points {
                println!(
                    "{:7.3} {:7.2}  {:6.1} %  {:12.1} %  {:6.1} %  {:13.1} %",
                    point.threshold.approve,
                    point.threshold.floor,
                    100.0 * point.approved,
                    100.0 * point.precision,
                    100.0 * point.accuracy,
                    100.0 * point.decoded
                );
            }
            println!("{}", self.sentence(suggested, wanted, alone, held));
        }
        if let Some(file) = &self.svg {
            let line = |name: &str, points: Vec<(f64, f64)>| Line { name: name.to_owned(), points };
            let percent = |of: &dyn Fn(&Point) -> f64| {
                points.iter().map(|point| (100.0 * point.approved, 100.0 * of(point))).collect::<Vec<_>>()
            };
            let lines = [
                line("accuracy", percent(&|point| point.accuracy)),
                line("reviewer's decoding", percent(&|point| point.decoded)),
                line("reviewer alone", vec![(0.0, 100.0 * alone), (100.0, 100.0 * alone)]),
            ];
            plot(file, "Gate by score", "answers approved, %", "%", &lines)?;
            eprintln!("drawn: {}", file.display());
        }
        Ok(())
    }

    /// What is suggested, in words; also where there is little to suggest.
    fn sentence(
        &self,
        suggested: Option<Point>,
        wanted: f64,
        alone: f64,
        held: Option<(f64, f64)>,
    ) -> String {
        let Some(point) = suggested else {
            return format!(
                "no threshold reaches {:.1} %: the reviewer alone has {:.1} %. These models are too small for that accuracy",
                100.0 * wanted,
                100.0 * alone
            );
        };
        let mut said = format!(
            "suggested: approve = {:.3}, floor = {:.2}: {:.0} % approved, accuracy {:.1} % (wanted {:.1} %, reviewer alone {:.1} %)",
            point.threshold.approve,
            point.threshold.floor,
            100.0 * point.approved,
            100.0 * point.accuracy,
            100.0 * wanted,
            100.0 * alone
        );
        if let Some((accuracy, approved)) = held {
            said += &format!(
                "\nchosen on one half, on the other half: accuracy {:.1} %, {:.0} % approved",
                100.0 * accuracy,
                100.0 * approved
            );
        }
        if point.approved < 0.3 {
            said += "\nthese models are too small, or too much alike, for a gate: the reviewer's probabilities say little about what is right";
        }
        said
    }
}

/// A question as it is asked.
fn asked(question: &str) -> Prompt {
    Prompt::Chat(vec![user(question.to_owned())])
}

fn shown(point: &Point) -> Value {
    json!({"approve": point.threshold.approve, "floor": point.threshold.floor, "approved": point.approved,
        "accuracy": point.accuracy, "precision": point.precision, "decoded": point.decoded})
}
