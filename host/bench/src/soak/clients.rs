//! The clients of a soak run: honest ones that compare answers, ones that leave early, and ones that do not read.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::sleep;

use crate::prompts::prose;
use crate::soak::run::Run;

/// Number of different questions.
const QUESTIONS: usize = 6;
/// Tokens of an answer.
const ANSWER_TOKENS: u32 = 48;
/// Tokens of an answer that no client reads to its end.
const LONG_ANSWER_TOKENS: u32 = 900;
/// Pause of a client that disturbs the host.
const DISTURBANCE_INTERVAL: Duration = Duration::from_secs(2);
/// A stalled reader keeps its connection for this time, unless the host ends it earlier.
const STALL_TIME: Duration = Duration::from_secs(60);

/// A question as a request body. Odd questions are sampled, even ones greedy.
fn body(model: &str, question: usize, tokens: u32, stream: bool) -> Value {
    let temperature = if question.is_multiple_of(2) { 0.0 } else { 0.8 };
    json!({
        "model": model, "messages": [{"role": "user", "content": prose(question)}], "max_tokens": tokens,
        "temperature": temperature, "seed": 7, "stream": stream,
    })
}

/// The answers that all exact models must give.
pub(crate) struct Expected(Vec<String>);

impl Expected {
    /// Asks the model `plain` all questions.
    pub(crate) async fn ask(run: &Run) -> Result<Self> {
        let mut answers = Vec::new();
        for question in 0..QUESTIONS {
            answers.push(answer(run, "plain", question, false).await?);
        }
        Ok(Self(answers))
    }
}

/// A client that compares the answers of one model with the expected ones.
pub(crate) struct Asker {
    run: Arc<Run>,
    model: &'static str,
    expected: Arc<Expected>,
}

impl Asker {
    pub(crate) fn new(run: Arc<Run>, model: &'static str, expected: Arc<Expected>) -> Self {
        Self { run, model, expected }
    }

    /// Asks until the run is over.
    ///
    /// # Errors
    ///
    /// An answer was lost or is wrong.
    pub(crate) async fn run(self) -> Result<()> {
        for round in 0.. {
            if !self.run.is_running() {
                break;
            }
            let (question, stream) = (round % QUESTIONS, round % 2 == 1);
            let text = answer(&self.run, self.model, question, stream).await?;
            if text != self.expected.0[question] {
                bail!("{}: the answer is '{text}', not '{}'", self.model, self.expected.0[question]);
            }
            self.run.answers.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// The text of one answer.
async fn answer(run: &Run, model: &str, question: usize, stream: bool) -> Result<String> {
    let request = run.client.post(&run.url).json(&body(model, question, ANSWER_TOKENS, stream));
    let response = request.send().await.with_context(|| format!("{model}: the request was lost"))?;
    let status = response.status();
    let text = response.text().await.with_context(|| format!("{model}: the answer was lost"))?;
    if !status.is_success() {
        bail!("{model}: {status} {text}");
    }
    if !stream {
        let answer: Value = serde_json::from_str(&text)?;
        let content = answer["choices"][0]["message"]["content"].as_str();
        return Ok(content.with_context(|| format!("{model}: no content in {text}"))?.to_owned());
    }
    if !text.ends_with("data: [DONE]\n\n") || text.contains("\"error\":") {
        bail!("{model}: the stream ended early: {text}");
    }
    let events = text.lines().filter_map(|line| line.strip_prefix("data: "));
    let events = events.filter_map(|event| serde_json::from_str::<Value>(event).ok());
    Ok(events
        .filter_map(|event| event["choices"][0]["delta"]["content"].as_str().map(str::to_owned))
        .collect())
}

/// Asks the approximate model, whose answers vary with the policy.
pub(crate) async fn approximate(run: Arc<Run>) -> Result<()> {
    for question in (0..QUESTIONS).cycle() {
        if !run.is_running() {
            break;
        }
        answer(&run, "agreed", question, question % 2 == 0).await?;
        run.answers.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// Starts long streams and leaves after the first bytes.
pub(crate) async fn disconnect(run: Arc<Run>) -> Result<()> {
    for round in 0.. {
        if !run.is_running() {
            break;
        }
        let model = ["plain", "fast", "piped", "away", "pool"][round % 5];
        let request = run.client.post(&run.url).json(&body(model, round, LONG_ANSWER_TOKENS, true));
        let mut response = request.send().await?;
        let _ = response.chunk().await;
        drop(response);
        run.disconnects.fetch_add(1, Ordering::Relaxed);
        sleep(DISTURBANCE_INTERVAL).await;
    }
    Ok(())
}

/// Starts long streams at `host` and does not read them.
pub(crate) async fn stall(run: Arc<Run>, host: SocketAddr) -> Result<()> {
    for round in 0.. {
        if !run.is_running() {
            break;
        }
        let mut body = body(["plain", "fast"][round % 2], round, LONG_ANSWER_TOKENS, true);
        (body["logprobs"], body["top_logprobs"]) = (json!(true), json!(20));
        let body = body.to_string();
        let mut stream = TcpStream::connect(host).await?;
        let head = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(body.as_bytes()).await?;
        run.stalled_readers.fetch_add(1, Ordering::Relaxed);
        let run = run.clone();
        tokio::spawn(async move {
            let mut waited = Duration::ZERO;
            while run.is_running() && waited < STALL_TIME {
                sleep(DISTURBANCE_INTERVAL).await;
                waited += DISTURBANCE_INTERVAL;
            }
            drop(stream);
        });
        sleep(STALL_TIME / 2).await;
    }
    Ok(())
}
