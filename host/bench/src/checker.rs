//! Questions with checkable answers, and the program that checks the answers.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

#[derive(Deserialize)]
struct QuestionLine {
    question: String,
}

#[derive(Deserialize)]
struct AnswerCheck {
    index: usize,
    right: bool,
}

/// The questions of a file.
pub(crate) struct Questions {
    checker: PathBuf,
    /// Each question with its line number, from 0.
    pub items: Vec<(usize, String)>,
}

impl Questions {
    /// Reads `file`: one JSON object with a `question` per line. Keeps at most `max_count` questions, spread
    /// over the file. The program `checker` checks answers. Default: `check.py` beside the file.
    pub(crate) fn read(file: &Path, checker: Option<PathBuf>, max_count: Option<usize>) -> Result<Self> {
        let text =
            std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        let parsed: Result<Vec<(usize, String)>> = lines
            .map(|(index, line)| {
                let line: QuestionLine = serde_json::from_str(line).with_context(|| {
                    format!("{}:{}: this line is not a question", file.display(), index + 1)
                })?;
                Ok((index, line.question))
            })
            .collect();
        let parsed = parsed?;
        if parsed.is_empty() {
            bail!("{} has no questions", file.display());
        }
        let checker = checker.unwrap_or_else(|| file.with_file_name("check.py"));
        if !checker.is_file() {
            bail!("{} does not exist. Name a program that checks answers with --checker.", checker.display());
        }
        let count = max_count.unwrap_or(parsed.len()).min(parsed.len());
        let items = (0..count).map(|index| parsed[index * parsed.len() / count].clone()).collect();
        Ok(Self { checker, items })
    }

    /// Checks one answer per question, in the order of the questions. Returns true for each right one.
    pub(crate) async fn check(&self, answers: &[String]) -> Result<Vec<bool>> {
        let mut command = Command::new("python3");
        command.arg(&self.checker).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().context("python3, which checks answers, cannot be started")?;
        let mut input = child.stdin.take().context("the checker takes no input")?;
        let lines: String = self
            .items
            .iter()
            .zip(answers)
            .map(|((index, _), answer)| format!("{}\n", json!({"index": index, "answer": answer})))
            .collect();
        let write = async move {
            let write_result = input.write_all(lines.as_bytes()).await;
            drop(input);
            write_result
        };
        let (write_result, output) = tokio::join!(write, child.wait_with_output());
        write_result.context("the checker stopped reading")?;
        let output = output?;
        if !output.status.success() {
            bail!("{} failed: {}", self.checker.display(), output.status);
        }
        let text = String::from_utf8(output.stdout).context("the checker's output is not text")?;
        let checks: Result<Vec<AnswerCheck>, _> = text.lines().map(serde_json::from_str).collect();
        let checks = checks.with_context(|| {
            format!("{} must write JSON lines with `index` and `right`", self.checker.display())
        })?;
        let is_right =
            |index: usize| checks.iter().find(|check| check.index == index).map(|check| check.right);
        let answered = self.items.iter().take(answers.len());
        answered
            .map(|(index, _)| {
                is_right(*index)
                    .with_context(|| format!("the checker reports nothing about question {index}"))
            })
            .collect()
    }
}
