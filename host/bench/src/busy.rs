//! Concurrent streams over HTTP, at one endpoint or at two in turn.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures_util::StreamExt;
use futures_util::future::try_join_all;
use serde_json::{Value, json};
use tightwad_net::server_client;

use crate::prompts::prose;

/// Compares one stream with several concurrent ones.
#[derive(Debug, clap::Args)]
pub(crate) struct Busy {
    /// Address of an OpenAI-compatible endpoint.
    #[arg(long, default_value = "http://127.0.0.1:8088")]
    url: String,
    /// Name of the model.
    #[arg(long, default_value = "smollm2-plain")]
    model: String,
    /// Address of a second endpoint, measured in turn with the first.
    #[arg(long)]
    against: Option<String>,
    /// Number of concurrent streams.
    #[arg(long, default_value_t = 8)]
    streams: usize,
    /// Tokens per answer.
    #[arg(long, default_value_t = 128)]
    tokens: u32,
    /// Number of rounds. The best round of each endpoint counts.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
}

/// The result of one round.
#[derive(Debug, Clone, Copy)]
struct RoundResult {
    tokens_per_second: f64,
    /// Time to the first token of the slowest stream.
    time_to_first_token: Duration,
    /// Tokens per second of the slowest stream, divided by those of the fastest.
    fairness: f64,
}

impl Busy {
    pub(crate) async fn run(self) -> Result<()> {
        let endpoints: Vec<&String> = std::iter::once(&self.url).chain(&self.against).collect();
        let mut best = vec![[None::<RoundResult>; 2]; endpoints.len()];
        for _ in 0..self.rounds {
            for (endpoint, best) in endpoints.iter().zip(&mut best) {
                for (streams, best) in [1, self.streams].into_iter().zip(best) {
                    let result = self.measure(endpoint, streams).await?;
                    if best.is_none_or(|best| best.tokens_per_second < result.tokens_per_second) {
                        *best = Some(result);
                    }
                }
            }
        }
        for (endpoint, best) in endpoints.iter().zip(best) {
            for (streams, result) in [1, self.streams].into_iter().zip(best) {
                let Some(result) = result else { continue };
                println!(
                    "{endpoint}: {streams} streams: {:.1} tokens/s in all, first token after {} ms at most, slowest stream at {:.0} % of the fastest",
                    result.tokens_per_second,
                    result.time_to_first_token.as_millis(),
                    100.0 * result.fairness,
                );
            }
        }
        Ok(())
    }

    async fn measure(&self, endpoint: &str, streams: usize) -> Result<RoundResult> {
        let client = server_client(endpoint).build()?;
        let start = Instant::now();
        let prompts: Vec<String> = (0..streams).map(prose).collect();
        let results =
            try_join_all(prompts.iter().map(|prompt| self.stream(&client, endpoint, prompt))).await?;
        let elapsed_seconds = start.elapsed().as_secs_f64();
        let tokens: u64 = results.iter().map(|(tokens, _, _)| tokens).sum();
        let rates = results.iter().map(|(tokens, _, time)| *tokens as f64 / time.as_secs_f64());
        let (slowest, fastest) =
            rates.fold((f64::MAX, 0.0), |(low, high): (f64, f64), rate| (low.min(rate), high.max(rate)));
        Ok(RoundResult {
            tokens_per_second: tokens as f64 / elapsed_seconds,
            time_to_first_token: results
                .iter()
                .map(|(_, first_token_time, _)| *first_token_time)
                .max()
                .unwrap_or_default(),
            fairness: slowest / fastest.max(1e-9),
        })
    }

    /// Returns the number of tokens, the time to the first token, and the total time.
    async fn stream(
        &self,
        client: &reqwest::Client,
        endpoint: &str,
        prompt: &str,
    ) -> Result<(u64, Duration, Duration)> {
        let body = json!({
            "model": self.model, "messages": [{"role": "user", "content": prompt}], "stream": true,
            "max_tokens": self.tokens, "temperature": 1, "seed": 1,
            "stream_options": {"include_usage": true},
        });
        let start = Instant::now();
        let request = client.post(format!("{endpoint}/v1/chat/completions")).json(&body);
        let response = request.send().await.with_context(|| format!("no endpoint answers at {endpoint}"))?;
        let mut body = response.error_for_status()?.bytes_stream();
        let (mut first_token_time, mut text) = (None, Vec::new());
        while let Some(chunk) = body.next().await {
            text.extend_from_slice(&chunk?);
            // Some servers send a first event without text.
            if first_token_time.is_none() && has_text(&text) {
                first_token_time = Some(start.elapsed());
            }
        }
        let text = String::from_utf8_lossy(&text);
        let events = text.lines().filter_map(|line| line.strip_prefix("data: "));
        let mut usage = events.filter_map(|event| {
            serde_json::from_str::<Value>(event).ok()?["usage"]["completion_tokens"].as_u64()
        });
        let tokens = usage.next_back().context("the endpoint reports no `completion_tokens`")?;
        Ok((tokens, first_token_time.unwrap_or_default(), start.elapsed()))
    }
}

/// True if the stream contains an event with text.
fn has_text(stream: &[u8]) -> bool {
    let text = String::from_utf8_lossy(stream);
    let mut events =
        text.lines().filter_map(|line| serde_json::from_str::<Value>(line.strip_prefix("data: ")?).ok());
    events.any(|event| event["choices"][0]["delta"]["content"].as_str().is_some_and(|text| !text.is_empty()))
}
