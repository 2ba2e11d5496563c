//! Streams at once, over HTTP, at one endpoint or at two in turn.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures_util::StreamExt;
use futures_util::future::try_join_all;
use serde_json::{Value, json};
use tightwad_net::server_client;

use crate::prompts::prose;

/// One stream against several at once.
#[derive(Debug, clap::Args)]
pub(crate) struct Busy {
    /// An OpenAI-compatible endpoint.
    #[arg(long, default_value = "http://127.0.0.1:8088")]
    url: String,
    /// The model there.
    #[arg(long, default_value = "smollm2-plain")]
    model: String,
    /// Another endpoint, measured in turn with the first.
    #[arg(long)]
    against: Option<String>,
    /// Streams at once.
    #[arg(long, default_value_t = 8)]
    streams: usize,
    /// Tokens of each answer.
    #[arg(long, default_value_t = 128)]
    tokens: u32,
    /// How often everything is measured; the best of each counts.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
}

/// One measurement.
#[derive(Debug, Clone, Copy)]
struct Measured {
    tokens_a_second: f64,
    /// Of the slowest stream.
    first_token: Duration,
    /// Tokens a second of the slowest stream over those of the fastest.
    fairness: f64,
}

impl Busy {
    pub(crate) async fn run(self) -> Result<()> {
        let endpoints: Vec<&String> = std::iter::once(&self.url).chain(&self.against).collect();
        let mut best = vec![[None::<Measured>; 2]; endpoints.len()];
        for _ in 0..self.rounds {
            for (endpoint, best) in endpoints.iter().zip(&mut best) {
                for (streams, best) in [1, self.streams].into_iter().zip(best) {
                    let measured = self.measure(endpoint, streams).await?;
                    if best.is_none_or(|best| best.tokens_a_second < measured.tokens_a_second) {
                        *best = Some(measured);
                    }
                }
            }
        }
        for (endpoint, best) in endpoints.iter().zip(best) {
            for (streams, measured) in [1, self.streams].into_iter().zip(best) {
                let Some(one) = measured else { continue };
                println!(
                    "{endpoint}: {streams} streams: {:.1} tokens/s in all, first token after {} ms at most, slowest stream at {:.0} % of the fastest",
                    one.tokens_a_second,
                    one.first_token.as_millis(),
                    100.0 * one.fairness,
                );
            }
        }
        Ok(())
    }

    async fn measure(&self, endpoint: &str, streams: usize) -> Result<Measured> {
        let client = server_client(endpoint).build()?;
        let start = Instant::now();
        let prompts: Vec<String> = (0..streams).map(prose).collect();
        let all = try_join_all(prompts.iter().map(|prompt| self.stream(&client, endpoint, prompt))).await?;
        let took = start.elapsed().as_secs_f64();
        let tokens: u64 = all.iter().map(|(tokens, _, _)| tokens).sum();
        let rates = all.iter().map(|(tokens, _, took)| *tokens as f64 / took.as_secs_f64());
        let (slowest, fastest) =
            rates.fold((f64::MAX, 0.0), |(low, high): (f64, f64), r| (low.min(r), high.max(r)));
        Ok(Measured {
            tokens_a_second: tokens as f64 / took,
            first_token: all.iter().map(|(_, first, _)| *first).max().unwrap_or_default(),
            fairness: slowest / fastest.max(1e-9),
        })
    }

    /// Tokens, time to the first, time in all.
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
        let response = request.send().await.with_context(|| format!("nothing answers at {endpoint}"))?;
        let mut body = response.error_for_status()?.bytes_stream();
        let (mut first, mut text) = (None, Vec::new());
        while let Some(piece) = body.next().await {
            text.extend_from_slice(&piece?);
            // Some servers begin with an event that has no text.
            if first.is_none() && begun(&text) {
                first = Some(start.elapsed());
            }
        }
        let text = String::from_utf8_lossy(&text);
        let events = text.lines().filter_map(|line| line.strip_prefix("data: "));
        let mut usage = events.filter_map(|event| {
            serde_json::from_str::<Value>(event).ok()?["usage"]["completion_tokens"].as_u64()
        });
        let tokens = usage.next_back().context("the endpoint does not say how many tokens it made")?;
        Ok((tokens, first.unwrap_or_default(), start.elapsed()))
    }
}

/// True when an event with text has come.
fn begun(stream: &[u8]) -> bool {
    let text = String::from_utf8_lossy(stream);
    let mut events =
        text.lines().filter_map(|line| serde_json::from_str::<Value>(line.strip_prefix("data: ")?).ok());
    events.any(|event| event["choices"][0]["delta"]["content"].as_str().is_some_and(|text| !text.is_empty()))
}
