//! Questions with checkable answers, and the program that checks them.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

#[derive(Deserialize)]
struct Line {
    question: String,
}

#[derive(Deserialize)]
struct Judged {
    index: usize,
    right: bool,
}

/// A file of questions.
pub(crate) struct Questions {
    program: PathBuf,
    /// What is asked, with the number of its line.
    pub asked: Vec<(usize, String)>,
}

impl Questions {
    /// Reads `file`, one JSON object with a `question` a line, and takes `most` of them, spread over all of
    /// it. Answers are checked by `program`, or by `check.py` beside the file.
    pub(crate) fn read(file: &Path, program: Option<PathBuf>, most: Option<usize>) -> Result<Self> {
        let text =
            std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        let parsed: Result<Vec<(usize, String)>> = lines
            .map(|(index, line)| {
                let line: Line = serde_json::from_str(line)
                    .with_context(|| format!("{}:{}: no question", file.display(), index + 1))?;
                Ok((index, line.question))
            })
            .collect();
        let all = parsed?;
        if all.is_empty() {
            bail!("{} has no questions", file.display());
        }
        let program = program.unwrap_or_else(|| file.with_file_name("check.py"));
        if !program.is_file() {
            bail!("there is no {} to check answers with: name one with --checker", program.display());
        }
        let count = most.unwrap_or(all.len()).min(all.len());
        let asked = (0..count).map(|at| all[at * all.len() / count].clone()).collect();
        Ok(Self { program, asked })
    }

    /// Whether each answer, in the order of the questions, is right.
    pub(crate) async fn check(&self, answers: &[String]) -> Result<Vec<bool>> {
        let mut command = Command::new("python3");
        command.arg(&self.program).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().context("python3, which checks answers, cannot be started")?;
        let mut input = child.stdin.take().context("the checker takes no input")?;
        let lines: String = self
            .asked
            .iter()
            .zip(answers)
            .map(|((index, _), answer)| format!("{}\n", json!({"index": index, "answer": answer})))
            .collect();
        let writing = async move {
            let written = input.write_all(lines.as_bytes()).await;
            drop(input);
            written
        };
        let (written, done) = tokio::join!(writing, child.wait_with_output());
        written.context("the checker stopped reading")?;
        let done = done?;
        if !done.status.success() {
            bail!("{} failed: {}", self.program.display(), done.status);
        }
        let said = String::from_utf8(done.stdout).context("the checker wrote no text")?;
        let judged: Result<Vec<Judged>, _> = said.lines().map(serde_json::from_str).collect();
        let judged = judged.with_context(|| format!("{} wrote no JSON lines", self.program.display()))?;
        let right = |index: usize| judged.iter().find(|one| one.index == index).map(|one| one.right);
        let all = self.asked.iter().take(answers.len());
        all.map(|(index, _)| right(*index).with_context(|| format!("no word on question {index}"))).collect()
    }
}
